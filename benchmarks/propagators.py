"""What fills the frames between keys: every propagator beside the others, on clips left out of training.

    python -m benchmarks.propagators [--data DIR] [--json FILE] [--material scenes face davis camvid]
        [--rows NAME ...] [--seeds N ...] [--steps N] [--keep DIR] [--device cuda] [--quick]

A material is clips to learn from, clips to be judged on, and a net of CPU size: `tiny-scenes` and `tiny-face`
of the package; for DAVIS and CamVid nets that are trained here, from labels, and so are light nets. CamVid's
stills have no neighbours, so its nets learn from them, what fills gaps learns from DAVIS without labels, and
the 15 Hz clip is only judged.
What is learned is learned here, in this process (`train-propagation` does the same on Ray Train).

Every clip goes through the engine with even keys, every 5, 10, 12 and 25 frames. Columns: mIoU with true
labels over all frames, by interval; by frames from the last key (0: the keys themselves), over all intervals
together; pop at keys (interval 12); ms a frame, the net included (interval 12; processor time on a CPU, one
thread). Then how well an expected deviation ranks pairs, for those that have one. `--keep`: what was trained
is kept there, and found again. Another propagator is another line of `ROWS`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.clips import through
from benchmarks.committed import committed, fit
from benchmarks.corpus import data_dir
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import Record
from vidseg_core.engine import Engine
from vidseg_core.engine.look import make_view
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.metrics.consistency import PairFlow, TemporalConsistency
from vidseg_core.models import Segmenter, build_segmenter
from vidseg_core.models.clockwork import read_clock
from vidseg_core.models.digest import digest_file
from vidseg_core.models.light import read_accel
from vidseg_core.models.trainable import weights_bytes, weights_of
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.propagators import AnyPropagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.learner import Learner, build_learner
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.propagation_score import RankScore

INTERVALS = (5, 10, 12, 25)
DISTANCES = (0, 1, 2, 3, 5, 10, 20)
POP_AT = 12
"""Interval at which pop and time are measured."""
FRAMES = 120
"""At most so many of a clip."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Data sets, a net for them, and the sizes to learn at."""

    learn: str
    """The data set of the clips to learn from, and of those judged, which are its last."""
    judge: str = ""
    """Another data set, of which all clips are judged."""
    split: str = "all"
    """Of that one."""
    net: str = ""
    """Of the package; empty: trained here, from `pictures`."""
    pictures: tuple[str, str] = ("", "")
    """Data set and split that the net learns from; the clips judged are left out."""
    net_steps: int = 500
    size: int
    """Longest side of clips, pixels."""
    crop: tuple[int, int]
    """Rows and columns of what a step sees."""
    held: int = 0
    """Clips, from the end, that are judged and not learned from."""


MATERIAL: Mapping[str, Material] = {
    "scenes": Material(
        learn="scenes:videos=20,frames=40,height=128,width=192",
        net="tiny-scenes",
        size=192,
        crop=(128, 192),
        held=12,
    ),
    "face": Material(learn="face:{root}/face", net="tiny-face", size=512, crop=(256, 192), held=3),
    "davis": Material(
        learn="davis:{root}/davis2016",
        pictures=("davis:{root}/davis2016", "all"),
        size=320,
        crop=(160, 256),
        held=3,
    ),
    "camvid": Material(
        learn="davis:{root}/davis2016",
        judge="camvid:{root}/camvid",
        split="val",
        pictures=("camvid:{root}/camvid", "train"),
        size=320,
        crop=(160, 256),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A propagator as `segment` has it: a line of the table."""

    propagator: str = "copy"
    level: str = "labels"
    sides: str = "one"
    scheduler: str = "fixed"
    delay: int | None = None
    """Low latency."""
    learned: bool = False
    """Its weights come from `train-propagation --propagator`, with these options."""
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    net: str = "{net}"
    """The material's net, or what is made of it."""
    read_by: str = ""
    """Another propagator that reads the same file: one branch of what was learned."""
    light_of: str = ""
    """The row whose light net it begins with."""
    share: float = 1.0
    """Of the steps."""


LEVELS = "sharing:2/{net}"
"""Two levels of it are at hand."""
LIGHT = {"light": "tiny:8"}
"""A net of a third of the cost of the package's."""
FINE = {"lr": 3e-4}
"""For a net that is trained already."""

ROWS: Mapping[str, Row] = {
    "net on every frame": Row(scheduler="every"),
    "copy": Row(level="features"),
    "copy, labels": Row(),
    "flow_warp": Row(propagator="flow_warp", level="features"),
    "flow_warp, labels": Row(propagator="flow_warp"),
    "flow_warp, labels, low latency": Row(propagator="flow_warp", delay=3),
    "flow_warp, labels, two sides": Row(propagator="flow_warp", sides="two"),
    "match, labels": Row(propagator="match"),
    "match, labels, two sides": Row(propagator="match", sides="two"),
    "lvs": Row(propagator="lvs", learned=True),
    "lvs, low latency": Row(propagator="lvs", learned=True, delay=3),
    "accel": Row(propagator="accel", learned=True, options=LIGHT),
    "accel, two sides": Row(propagator="accel", learned=True, options=LIGHT, sides="two"),
    "accel, light net alone": Row(
        propagator="accel", learned=True, options=LIGHT, read_by="vidseg_core.propagation.light:Update"
    ),
    "feature_sharing, 1 level": Row(
        propagator="feature_sharing", learned=True, net="sharing:1/{net}", recipe=FINE
    ),
    "feature_sharing, 2 levels": Row(
        propagator="feature_sharing", learned=True, net="sharing:2/{net}", recipe=FINE
    ),
    "flow_warp, scores": Row(propagator="flow_warp", level="scores"),
    "grfp": Row(
        propagator="grfp", learned=True, options=LIGHT, recipe={"batch": 2}, light_of="accel", share=0.25
    ),
    "clockwork": Row(propagator="clockwork", level="features", net=LEVELS),
    "clockwork, clock 4": Row(propagator="clockwork", level="features", net=LEVELS, options={"clock": 4}),
    "clockwork, adaptive": Row(propagator="clockwork", learned=True, net=LEVELS, scheduler="low_change"),
}
"""By name; of those that share `propagator` and `options`, one training serves all."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A line of the table, as measured."""

    material: str
    row: str
    seed: int
    by_interval: dict[int, float]
    by_distance: dict[int, float]
    pop: float
    ms: float


class Bench:
    """One material with one seed: clips, the net, and whatever was learned for it."""

    def __init__(self, name: str, seed: int, options: argparse.Namespace, folder: Path) -> None:
        self.name, self.seed, self.device = name, seed, options.device
        self.material, self._root = MATERIAL[name], data_dir(options.data)
        self._steps, self._net_steps = options.steps, self.material.net_steps
        if options.quick:
            self._steps = self._net_steps = 30
        self._folder = folder / f"{name}-{seed}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Learner] = {}

    def _clips(self, text: str, split: str) -> list[FlowClip]:
        dataset = open_dataset(text.format(root=self._root))
        keeps = tuple(self.net.class_names) == tuple(dataset.class_names)
        clips = dataset_clips(dataset, split, self.material.size, FRAMES)
        return [clip if keeps else replace(clip, labels_THW=None) for clip in clips]

    @cached_property
    def _all(self) -> list[FlowClip]:
        return self._clips(self.material.learn, "all")

    @property
    def learn(self) -> list[FlowClip]:
        return self._all[: len(self._all) - self.material.held]

    @cached_property
    def judged(self) -> list[FlowClip]:
        if self.material.judge:
            return self._clips(self.material.judge, self.material.split)
        return self._all[len(self._all) - self.material.held :]

    # --- nets ----------------------------------------------------------------------------------------------

    @cached_property
    def net(self) -> Segmenter:
        return build_segmenter(self.net_spec, weights=self.net_weights, device=self.device)

    def _net_of(self, row: Row) -> Segmenter:
        spec = row.net.format(net=self.net_spec)
        if spec == self.net_spec:
            return self.net
        return build_segmenter(spec, weights=self.net_weights, device=self.device)

    @cached_property
    def net_spec(self) -> str:
        return self.material.net or committed("camvid").segmenter

    @cached_property
    def net_weights(self) -> str | None:
        """Of a net that is trained here."""
        return None if self.material.net else self._taught(self.net_spec)

    def _taught(self, spec: str) -> str:
        """Weights of a net that has learned from the material's pictures, by CamVid's recipe."""
        what = replace(committed("camvid").with_steps(self._net_steps), seed=self.seed, segmenter=spec)
        folder = self._folder / f"{spec}-{self._net_steps}"
        if not (folder / "last.safetensors").is_file():
            text, split = self.material.pictures
            dataset = open_dataset(text.format(root=self._root))
            items = dataset.items(split)
            if self.material.held:
                names = list(dict.fromkeys(item.video_id for item in items))[: -self.material.held]
                items = [item for item in items if item.video_id in names][::3]
            records = [_shrunk(dataset.read(item), self.material.size) for item in items]
            print(f"{self.name}: {spec}, from {len(records)} pictures", flush=True)
            fit(what, records, dataset.class_names, folder)
        return str(folder / "last.safetensors")

    def learner(self, row: Row) -> tuple[Learner, Path]:
        """What was learned for this row, and where it lies; trained if it is not there."""
        options = "".join(f"-{name}-{value}" for name, value in sorted(row.options.items()))
        prefix = row.net.partition("/")[0].replace(":", "-") + "-" if "/" in row.net else ""
        light = self._light_of(row)
        begins = f"-from-{digest_file(Path(light))[:8]}" if light else ""
        folder = self._folder / f"{prefix}{row.propagator}{options}{begins}-{self._steps}"
        config = TrainPropagationConfig(
            data=(self.material.learn,),
            segmenter=row.net.format(net=self.net_spec),
            segmenter_weights=self.net_weights,
            output=str(folder),
            propagator=row.propagator,
            recipe=PropagationRecipe(
                height=self.material.crop[0],
                width=self.material.crop[1],
                steps=max(1, round(row.share * self._steps)),
                **{"batch": 4, **row.recipe},
            ),
            light_weights=light,
            seed=self.seed,
            **row.options,
        )
        if folder.name not in self._known:
            learner = self._known[folder.name] = build_learner(config, self._net_of(row), self.device)
            if not all((folder / name).is_file() for name in learner.file_names):
                self._train(learner, folder)
        return self._known[folder.name], folder

    def _light_of(self, row: Row) -> str | None:
        """What the row's light net begins with: that of another row, else what the net itself learns from."""
        if not row.light_of:
            begins = "light" in row.options and not self.material.net
            return self._taught(row.options["light"]) if begins else None
        learner, folder = self.learner(ROWS[row.light_of])
        net = read_accel(str(folder / learner.file_names[0]))
        path = folder / "light.safetensors"
        path.write_bytes(weights_bytes(weights_of(net.light), net.facts.class_names))
        return str(path)

    def _train(self, learner: Learner, folder: Path) -> None:
        print(f"{self.name}: {folder.name}", flush=True)
        options = PropagationOptions(
            folder=folder, save_every=10**9, log_every=max(1, self._steps // 5), seed=self.seed
        )
        loop = PropagationLoop(learner, self.learn, options, watch=_say)
        loop.run()
        for name, data in learner.files(loop.weights()).items():
            (folder / name).write_bytes(data)

    # --- rows ----------------------------------------------------------------------------------------------

    def parts(self, row: Row) -> tuple[Segmenter, AnyPropagator]:
        if row.learned:
            learner, folder = self.learner(row)
            segmenter, propagator = learner.read(folder)
            if row.read_by:
                weights = str(folder / learner.file_names[0])
                propagator = build_propagator(row.read_by, weights=weights, device=self.device)
            return segmenter, propagator
        propagator = build_propagator(row.propagator, level=row.level, **row.options)
        return self._net_of(row), propagator

    def measure(self, name: str, row: Row, intervals: Sequence[int]) -> Found:
        """The row's line: every clip judged, at every interval."""
        segmenter, propagator = self.parts(row)
        classes = len(segmenter.class_names)
        by_interval: dict[int, float] = {}
        by_distance = {distance: ConfusionMatrix(classes) for distance in DISTANCES}
        pops, ms = [], 0.0
        for interval in intervals:
            if by_interval and row.scheduler == "every":
                by_interval[interval] = by_interval[intervals[0]]
                continue
            engine = self._engine(row, segmenter, propagator, interval)
            counts, spent_s, frames = ConfusionMatrix(classes), 0.0, 0
            for clip in self.judged:
                started = self._clock()
                rows = list(through(engine, clip))
                spent_s += self._clock() - started
                frames += len(rows)
                for result, truth_HW in zip(rows, clip.labels_THW, strict=True):  # type: ignore[arg-type]
                    counts.update(result.labels_HW, truth_HW)
                    if (distance := result.frame_index - result.key_frame_index) in by_distance:
                        by_distance[distance].update(result.labels_HW, truth_HW)
                if interval == POP_AT or len(intervals) == 1:
                    pops.append(self._pop(clip, rows, classes))
            by_interval[interval] = counts.mean_iou()
            if not ms or interval == POP_AT:
                ms = 1000.0 * spent_s / frames
        return Found(
            material=self.name,
            row=name,
            seed=self.seed,
            by_interval=by_interval,
            by_distance={distance: counts.mean_iou() for distance, counts in by_distance.items()},
            pop=float(np.nanmean(pops)) if pops and not np.isnan(pops).all() else float("nan"),
            ms=ms,
        )

    def _engine(self, row: Row, segmenter: Segmenter, propagator: AnyPropagator, interval: int) -> Engine:
        options: dict[str, Any] = {"interval": interval} if row.scheduler == "fixed" else {}
        if row.scheduler == "low_change":
            options = self._clock_of(row, segmenter, interval)
        return Engine(
            segmenter,
            build_scheduler(row.scheduler, **options),
            propagator,
            sides=row.sides,  # type: ignore[arg-type]
            delay=row.delay,
            device=self.device,
        )

    def _clock_of(self, row: Row, segmenter: Segmenter, interval: int) -> dict[str, Any]:
        """File and threshold of an adaptive clock: the one that gives as many keys as even ones."""
        learner, folder = self.learner(row)
        policy = str(folder / learner.file_names[0])
        seen = [list(_shallow(policy, segmenter, clip, self.device)) for clip in self.judged]
        wanted = sum(-(-len(clip) // interval) for clip in seen)
        low, high = 0.0, 100.0
        while high - low > 0.05:
            middle = (low + high) / 2
            keys = sum(_keys(clip, middle) for clip in seen)
            low, high = (middle, high) if keys > wanted else (low, middle)
        return {"policy": policy, "threshold": high}

    def _clock(self) -> float:
        return time.process_time() if self.device == "cpu" else time.perf_counter()

    @cached_property
    def _flows(self) -> dict[str, list[PairFlow]]:
        return {clip.name: list(_neighbours(clip)) for clip in self.judged}

    def _pop(self, clip: FlowClip, rows: Sequence[Any], classes: int) -> float:
        consistency = TemporalConsistency(classes)
        for before, now, flow in zip(rows[:-1], rows[1:], self._flows[clip.name], strict=True):
            consistency.update(before.labels_HW, now.labels_HW, flow, at_key=now.is_key)
        return consistency.pop


def _say(row: Mapping[str, Any]) -> None:
    costs = "  ".join(f"{name} {value:.3g}" for name, value in row.items() if name not in ("step", "lr"))
    print(f"  step {row['step']:5d}  {costs}", flush=True)


def _shrunk(record: Record, size: int) -> Record:
    """With the longest side at most `size` pixels."""
    height, width = record.frame_HW3.shape[:2]
    scale = min(1.0, size / max(height, width))
    shape = (round(width * scale), round(height * scale))
    assert record.labels_HW is not None
    return replace(
        record,
        frame_HW3=cv2.resize(record.frame_HW3, shape, interpolation=cv2.INTER_AREA),
        labels_HW=cv2.resize(record.labels_HW, shape, interpolation=cv2.INTER_NEAREST),
    )


def _shallow(policy: str, segmenter: Segmenter, clip: FlowClip, device: str) -> Iterator[np.ndarray]:
    """What the score layer of an adaptive clock makes of each frame."""
    layer = read_clock(policy).to(device)
    net = ChunkedNet(segmenter, level="features", batch=1, device=device)
    for frame_HW3 in clip.frames_THW3:
        low_Lyx = layer.low_of(net.low([frame_HW3])[0])
        yield layer.score(low_Lyx[None].float()).argmax(1).cpu().numpy()


def _keys(shallow: Sequence[np.ndarray], threshold: float) -> int:
    """How many keys `low_change` gives."""
    keys, key = 1, shallow[0]
    for now in shallow[1:]:
        if 100.0 * float((now != key).mean()) > threshold:
            keys, key = keys + 1, now
    return keys


def _neighbours(clip: FlowClip) -> Iterator[PairFlow]:
    """The flows between neighbouring frames."""
    flow = DisFlow(chained=False)
    views = [make_view(frame_HW3, 256, 1) for frame_HW3 in clip.frames_THW3]
    for before, now in zip(views, views[1:], strict=False):
        (backward,), (forward,) = flow.flow([now], [before]), flow.flow([before], [now])
        yield PairFlow(backward, forward)


# --- the table ---------------------------------------------------------------------------------------------


def heads(intervals: Iterable[int]) -> str:
    return (
        f"{'':<32}"
        + "".join(f"{f'+{distance}':>7}" for distance in DISTANCES)
        + "".join(f"{f'@{interval}':>7}" for interval in intervals)
        + f"{'pop':>8}{'ms':>6}"
    )


def line(found: Sequence[Found]) -> str:
    """Means over seeds."""
    numbers = [np.mean([f.by_distance[distance] for f in found]) for distance in found[0].by_distance] + [
        np.mean([f.by_interval[interval] for f in found]) for interval in found[0].by_interval
    ]
    pop, ms = np.mean([f.pop for f in found]), np.mean([f.ms for f in found])
    cells = [f"{value:7.3f}" for value in numbers] + [f"{pop:8.3f}", f"{ms:6.0f}"]
    return f"{found[0].row:<32}" + "".join(cell.replace("nan", "  -") for cell in cells)


def one_material(name: str, options: argparse.Namespace, folder: Path) -> tuple[list[Found], list[RankScore]]:
    """All rows of a material, printed."""
    benches = [Bench(name, seed, options, folder) for seed in options.seeds]
    intervals = INTERVALS[:1] if options.quick else INTERVALS
    chosen = {row: ROWS[row] for row in options.rows}
    found: list[Found] = []
    ranks: list[RankScore] = []
    for row in chosen.values():
        for bench in benches if row.learned else ():
            bench.learner(row)  # what is trained says so before the table begins
    names = ", ".join(clip.name for clip in benches[0].judged)
    print(f"\n{name}, {benches[0].net_spec}, left out: {names}\n{heads(intervals)}", flush=True)
    for title, row in chosen.items():
        lines = [bench.measure(title, row, intervals) for bench in benches]
        print(line(lines), flush=True)
        found += lines
    for title, row in chosen.items():
        expects = row.learned and row.delay is None
        if expects and hasattr(benches[0].parts(row)[1], "expected_deviation"):
            scored = [bench.learner(row) for bench in benches]
            mine = [
                rank
                for (learner, place), bench in zip(scored, benches, strict=True)
                for rank in learner.score(place, bench.judged).ranks
            ]
            print(_ranked(title, mine), flush=True)
            ranks += mine
    return found, ranks


def _ranked(title: str, ranks: Sequence[RankScore]) -> str:
    if not ranks:
        return f"{title}: expects no deviation"
    expected, difference = (
        np.nanmean([getattr(rank, name) for rank in ranks]) for name in ("expected", "difference")
    )
    return (
        f"{title}: rank correlation with what changed: expected deviation {expected:.3f}, "
        f"difference of pictures {difference:.3f}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="the folder of real material ($VIDSEG_DATA); without one, scenes only")
    parser.add_argument("--material", nargs="+", choices=tuple(MATERIAL))
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--keep", type=Path, help="folder in which what was trained is kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="30 steps, one interval")
    options = parser.parse_args()
    options.material = options.material or (list(MATERIAL) if data_dir(options.data) else ["scenes"])
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows, ranks = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.material:
            found, ranked = one_material(name, options, options.keep or Path(scratch))
            rows += [asdict(one) for one in found]
            ranks += [{"material": name} | asdict(one) for one in ranked]
            if options.json:  # after each material: a run that is ended leaves those before
                text = json.dumps({"rows": rows, "ranks": ranks}, indent=1)
                options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
