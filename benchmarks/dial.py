"""Does `--max_drop` keep its promise on clips that it has not seen?

    python -m benchmarks.dial [--json FILE] [--data DIR] [--quality accuracy] [--planner] [--quick]

Each clip in turn is left out, with all others of its video: the dial is set on the rest
(`vidseg_core.calibration`, as `vidseg segment` does) and the chosen scheduler runs over the clip that was
left out. The promise is kept there when the masks lose at most so many points against the net on every
frame. `fixed` is the fixed interval with (about) as many keys on that clip. Face clips with `tiny-face`
where there are at least ten, and generated scenes with `plain`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.corpus import real_videos
from vidseg_core.calibration.calibrate import (
    at_hand,
    clip_valuer,
    look_at_all,
    lookahead_runs,
    worth_trying,
)
from vidseg_core.calibration.evidence import Clip
from vidseg_core.calibration.schedulers import FixedFamily, LookaheadRuns, Point, families, keys_at
from vidseg_core.calibration.search import search
from vidseg_core.calibration.sizing import draw_sample
from vidseg_core.calibration.tasks import SampleTasks, longest_interval
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.datasets.scene_files import make_corpus
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.inputs import expand_inputs

DROPS = (0.5, 1.0, 2.0, 5.0)
CLIPS, FRAMES, MAX_INTERVAL = 14, 72, 48


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip that was left out, at one limit."""

    footage: str
    quality: str
    max_drop: float
    clip: str
    scheduler: str
    aki: float
    drop: float
    fixed_drop: float
    kept: bool
    could_promise: bool


def measure(footage: str, config: SegmentConfig, drops: Sequence[float]) -> list[Row]:
    """All rows of one kind of footage."""
    report = Reporter("text")
    names = at_hand(config, report)
    units = draw_sample(config, expand_inputs(config.input), report).units
    sample = SampleTasks(config, units)
    clips, places, _, prices = look_at_all(config, sample, report)
    names = worth_trying(config, names, prices.net, report)
    ahead = lookahead_runs(config, [clip.table for clip in clips], sample, names, share=config.budget)
    rows = []
    for left_out in range(len(clips)):
        video = units[places[left_out]].source
        others = [number for number, place in enumerate(places) if units[place].source != video]
        rows += [
            _row(footage, config, drop, clips, places, others, left_out, sample, names, ahead)
            for drop in drops
        ]
    return rows


def _row(
    footage: str,
    config: SegmentConfig,
    max_drop: float,
    clips: Sequence[Clip],
    places: Sequence[int],
    others: Sequence[int],
    left_out: int,
    sample: SampleTasks,
    names: Sequence[str],
    ahead: Mapping[str, LookaheadRuns],
) -> Row:
    report, most = Reporter("text"), longest_interval(config)
    training = [clips[number] for number in others]
    own = {n: replace(each, runs=[each.runs[number] for number in others]) for n, each in ahead.items()}
    choice = search(
        families([clip.table for clip in training], names, max_interval=most, ahead=own),
        clip_valuer(training, [places[number] for number in others], sample, report),
        budget=None,
        max_drop=max_drop,
        frames=[clip.table.frames for clip in training],
        seed=config.seed,
    )
    unseen = clips[left_out]
    keys = keys_at(unseen.table, choice.settings, most)
    interval = max(1, round(unseen.table.frames / len(keys)))
    plain = FixedFamily([unseen.table], most).at(interval)
    point = Point(family=str(choice.settings["name"]), settings=choice.settings, keys=(keys,), share=1.0)
    value = clip_valuer([unseen], [places[left_out]], sample, report)
    drop, fixed_drop = (float(valued.drop_C[0]) for valued in value([point, plain]))
    return Row(
        footage=footage,
        quality=config.calibration.quality,
        max_drop=max_drop,
        clip=unseen.table.clip,
        scheduler=str(choice.settings["name"]),
        aki=unseen.table.frames / len(keys),
        drop=drop,
        fixed_drop=fixed_drop,
        kept=drop <= max_drop,
        could_promise=choice.can_keep,
    )


def show(rows: Sequence[Row]) -> str:
    """A line per footage and limit."""
    head = f"{'footage':22} {'quality':9} {'max_drop':>8} {'kept':>7} {'no gain':>7} {'AKI':>6}"
    lines = [f"{head} {'drop':>6} {'worst':>6} {'fixed':>6} {'worst':>6} {'kept':>7}"]
    groups = sorted({(row.footage, row.quality, row.max_drop) for row in rows})
    for footage, quality, limit in groups:
        here = [r for r in rows if (r.footage, r.quality, r.max_drop) == (footage, quality, limit)]
        kept, plain = sum(r.kept for r in here), sum(r.fixed_drop <= limit for r in here)
        keys = float(np.mean([1 / r.aki for r in here]))
        lines.append(
            f"{footage:22} {quality:9} {limit:8.1f} {kept:3d}/{len(here):<3d} "
            f"{sum(r.scheduler == 'every' for r in here):7d} {1 / keys:6.1f} "
            f"{np.mean([r.drop for r in here]):6.2f} {max(r.drop for r in here):6.2f} "
            f"{np.mean([r.fixed_drop for r in here]):6.2f} {max(r.fixed_drop for r in here):6.2f} "
            f"{plain:3d}/{len(here):<3d}"
        )
    return "\n".join(lines)


def settings(
    folder: str, segmenter: str, options: argparse.Namespace, frames: int, working_size: str
) -> SegmentConfig:
    """One run of frames from each video."""
    name = "planner" if options.planner else "fixed"
    return SegmentConfig(
        input=(folder,) if "\n" not in folder else tuple(folder.split("\n")),
        output="-",
        segmenter=segmenter,
        working_size=working_size,
        max_drop=1.0,
        scheduler=SchedulerConfig(name=name, max_interval=MAX_INTERVAL),
        calibration=CalibrationConfig(clips=CLIPS, clip_frames=frames, quality=options.quality),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--data")
    parser.add_argument("--quality", choices=("fidelity", "accuracy"), default="fidelity")
    parser.add_argument(
        "--planner", action="store_true", help="try tiny-planner, too, cheap as these nets are"
    )
    parser.add_argument("--footage", choices=("faces", "scenes"), help="one of the two alone")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each clip")
    parser.add_argument("--quick", action="store_true", help="fewer frames, scenes only")
    options = parser.parse_args()
    frames = 36 if options.quick else options.frames
    wanted = ("scenes",) if options.quick else (options.footage,) if options.footage else ("faces", "scenes")
    rows: list[Row] = []
    faces = [path for path in real_videos(options.data) if path.parent.name == "face"]
    if len(faces) >= 10 and "faces" in wanted:
        config = settings("\n".join(map(str, faces)), "tiny-face", options, frames, "512")
        rows += measure("faces, tiny-face", config, DROPS)
        print(show(rows), flush=True)
    if "scenes" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            make_corpus(folder, clips=CLIPS, frames=2 * frames, seed=11)
            config = settings(folder, "plain", options, frames, "256")
            rows += measure("scenes, plain", config, DROPS)
    print(show(rows))
    print("kept: clips left out on which the promise held; no gain: the dial ran the net on every frame")
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
