"""What a run achieved beside what was promised: the key share of all frames, the fidelity of a few.

Model: fidelity is known only where the net has run. So places are drawn over all decoded frames with the
run's seed, a few frames at each; there the net runs once more and its masks are compared with those that
were written (a key's are equal). Mean and bootstrap interval are over places. Invariant: the same run gives
the same audit, and nothing that was committed changes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidseg_core.calibration.choice import Choice, interval_of_mean
from vidseg_core.config.catalogue import EVERY
from vidseg_core.config.excerpt import EXCERPT, WHOLE, Excerpt
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.records import DatasetError
from vidseg_core.engine.assemble import build_net
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.quality import Truth
from vidseg_core.media import MediaError, working_size
from vidseg_core.pipeline.commit_stage import labels_as_shown
from vidseg_core.plan.excerpt import frames_of, number_of
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.run import open_run

AT_A_PLACE = 4
"""Frames that are looked at together: seeking to them costs more than the net."""
APART = 5
"""Frames from one to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Frames of one video that are compared."""

    video_id: str
    uri: str
    frames: tuple[int, ...]
    """Their places among those that the run processed."""
    excerpt: Excerpt = WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Fidelity as measured, 0 to 100."""

    fidelity: float
    low: float
    high: float
    frames: int
    places: int


def draw_places(videos: Sequence[Mapping[str, Any]], frames: int, seed: int) -> list[Place]:
    """Where to look: videos in the ratio of their decoded frames."""
    usable = [row for row in videos if row["decoded_frames"] and row["status"] != "quarantined"]
    rng = random.Random(f"audit {seed}")
    drawn = (
        rng.choices(usable, [row["decoded_frames"] for row in usable], k=-(-frames // AT_A_PLACE))
        if usable
        else []
    )
    places = []
    for row in drawn:
        first = rng.randrange(row["decoded_frames"])
        numbers = range(first, min(first + AT_A_PLACE * APART, row["decoded_frames"]), APART)
        excerpt = Excerpt(**{name: row[name] for name in EXCERPT})
        places.append(Place(video_id=row["video_id"], uri=row["uri"], frames=tuple(numbers), excerpt=excerpt))
    return sorted(places, key=lambda place: (place.video_id, place.frames))


def audit(config: SegmentConfig, store: ObjectStore, frames: int, *, on_ray: bool) -> Audited | None:
    """Measure, in Ray tasks or here; None where nothing can be compared."""
    places = draw_places(open_run(store.root).videos().to_pylist(), frames, config.seed)
    groups = [places[start::8] for start in range(8) if places[start::8]]
    if on_ray:
        import ray

        task = ray.remote(compare).options(num_cpus=config.threads)
        answers = ray.get([task.remote(config, store.root, group) for group in groups])
    else:
        answers = [compare(config, store.root, group) for group in groups]
    found = [value for answer in answers for value in answer]
    means = [float(np.mean(values)) for values in found if values]
    if not means:
        return None
    low, high = interval_of_mean(np.array(means), config.seed)
    return Audited(
        fidelity=100 * float(np.mean(means)),
        low=100 * low,
        high=100 * high,
        frames=sum(map(len, found)),
        places=len(means),
    )


def compare(config: SegmentConfig, root: str, places: Sequence[Place]) -> list[list[float]]:
    """What a task does: for each place the quality of its frames' masks; frames that are lost are left
    out."""
    run = open_run(root)
    reader = ClipReader(stream=config.media.stream, maps_hdr=config.media.hdr == "map")
    segmenter = build_net(config, "cpu")
    net = ChunkedNet(segmenter, level="labels", batch=config.key_batch, device="cpu")
    classes = len(segmenter.class_names)
    found = []
    for place in places:
        values = []
        for number in place.frames:
            try:
                index = reader.index(place.uri)
                number = number_of(frames_of(place.excerpt, index, place.uri), number)
                size = working_size(index.width, index.height, config.working_size_spec)
                mask_HW = run.mask(place.video_id, number)
                labels_HW, _ = net.run([reader.frame(place.uri, number, *size)])[0]
            except (DatasetError, MediaError, KeyError):
                continue
            if config.masks.size == "source":
                labels_HW = labels_as_shown(labels_HW, index.shown, mirrored=index.mirrored)
            values.append(Truth(labels_HW, classes, config.calibration.quality).quality(mask_HW))
        found.append(values)
    reader.close()
    return found


def outcome(choice: Choice, totals: Mapping[str, Any], audited: Audited | None) -> dict[str, Any]:
    """The ``dial`` of run.json: asked, promised, achieved, and whether the promise was kept."""
    frames, aki = totals["frames"], totals["aki"]
    if choice.regions.get("grid", "1x1") == "1x1":
        share = totals["keys"] / frames if frames else None
    else:  # counted in pixels
        share = 1 / aki if aki else None
    achieved = {
        "key_share": share,
        "aki": aki,
        "audit": asdict(audited) if audited is not None else None,
    }
    facts = choice.to_json()
    promised = {
        name: facts[name] for name in ("key_share", "fidelity", "fidelity_low", "fidelity_high", "worst_drop")
    }
    promised |= {"aki": choice.aki} | ({} if choice.net_share is None else {"net_share": choice.net_share})
    return {
        "asked": facts["asked"],
        "chosen": facts["settings"],
        "could_promise": choice.can_keep,
        "propagation": dict(choice.propagation),
        "ways": list(choice.ways),
        "regions": dict(choice.regions),
        "grids": list(choice.grids),
        "even": choice.even,
        "note": choice.note,
        "promised": promised,
        "achieved": achieved,
        "kept": _kept(choice, share, audited),
    }


def _kept(choice: Choice, share: float | None, audited: Audited | None) -> bool | None:
    """None: not known. Of fidelity the mean of the audit decides; the promise itself is one per clip."""
    if choice.settings["name"] == EVERY:
        return True
    if "budget" in choice.asked:
        return None if share is None else share <= choice.asked["budget"] * (1 + 1e-9)
    return None if audited is None else 100 - audited.fidelity <= choice.asked["max_drop"]


def closing_lines(dial: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines of the closing table."""
    promised, achieved = dial["promised"], dial["achieved"]
    aki = f"{achieved['aki']:.1f}" if achieved["aki"] else "-"
    lines = [("AKI promised", f"{promised['aki']:.1f}, achieved {aki}")]
    audited = achieved["audit"]
    if audited:
        lines.append(
            (
                "fidelity promised",
                f"{promised['fidelity']:.2f} ({promised['fidelity_low']:.2f} to "
                f"{promised['fidelity_high']:.2f}), "
                f"measured on {audited['frames']} frames {audited['fidelity']:.2f} "
                f"({audited['low']:.2f} to {audited['high']:.2f})",
            )
        )
    word = {True: "kept", False: "NOT kept", None: "not checked (--calibration.audit_frames 0)"}[dial["kept"]]
    what = ", ".join(f"{name} {value:g}" for name, value in dial["asked"].items())
    return [*lines, ("promise", f"{what}: {word}")]
