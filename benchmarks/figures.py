"""Every figure of the report, from generated scenes and, where they are here, real clips; in one command.

    python -m benchmarks.figures [--output figures] [--json FILE] [--data DIR] [--groups scenes faces ...]

For each group of clips: episode tables (`build-episodes`), a policy trained on them, thresholds that give the
same key intervals for all schedulers, `evaluate` with the oracle, `segment` of the videos where there are
any, and `report`. Each group's page is OUTPUT/GROUP/report/index.html, its plots lie beside it. Printed, and
written with --json: mIoU of every method at the wanted intervals beside `fixed` and the oracle, and the
share of the gap closed. Everything is resumable: the same command again goes on.

Figures: DVRL 3 (training), 4 and 5 (AKI and fps against mIoU), 6 (key intervals), 7 (timeline), 8 (masks);
ETC's TC; the Pareto front where a search is given (--search DIR).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.corpus import data_dir
from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.report import ReportConfig
from vidseg_core.config.segment import PropagationConfig
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.episodes.job import run_build_episodes
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.walk import SCORES, fit_threshold
from vidseg_core.evaluation.job import run_evaluate
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.report.build import run_report
from vidseg_core.report.curves import curves_of, shares
from vidseg_core.training.policy_job import run_train_policy

INTERVALS = (6, 12, 25, 50)
SCORED = ("warp_error", "frame_difference", "flow_magnitude")
HORIZON = 75


@dataclass(frozen=True, kw_only=True)
class Group:
    """Clips of one kind and the net that goes with them."""

    name: str
    data: str
    split: str
    segmenter: str
    working_size: str
    clips: int
    frames: int


def groups_of(options: argparse.Namespace) -> list[Group]:
    """Generated scenes always; faces and DAVIS where the data is."""
    scenes = f"scenes:videos={options.clips},frames={options.frames},height=180,width=240,seed=7"
    size = {"clips": options.clips, "frames": options.frames}
    found = [
        Group(name="scenes", data=scenes, split="all", segmenter="tiny-scenes", working_size="256", **size)
    ]
    root = data_dir(options.data)
    if root is not None and (root / "face").is_dir():
        named = "?clips=liveportrait_d18,liveportrait_d9,liveportrait_d0,liveportrait_d12"
        known = {path.stem for path in (root / "face").glob("*.mp4")}
        wanted = [clip for clip in named.partition("=")[2].split(",") if clip in known]
        place = f"face:{root / 'face'}" + (f"?clips={','.join(wanted)}" if wanted else "")
        found.append(
            Group(name="faces", data=place, split="all", segmenter="tiny-face", working_size="256", **size)
        )
    if root is not None and (root / "davis2016").is_dir():
        place = f"davis:{root / 'davis2016'}"
        found.append(
            Group(name="davis", data=place, split="all", segmenter="labels", working_size="256", **size)
        )
    wanted_groups = options.groups or [group.name for group in found]
    return [group for group in found if group.name in wanted_groups]


def tables_of(group: Group, folder: Path) -> list[EpisodeTable]:
    """The group's episode tables, built where they are missing."""
    config = BuildEpisodesConfig(
        data=(group.data,),
        split=group.split,
        output=str(folder / "tables"),
        segmenter=group.segmenter,
        working_size=group.working_size,
        limit=group.clips,
        clip_frames=group.frames,
        segment_frames=0,
        horizon=HORIZON,
        features=("scores", "flow"),
    )
    run_build_episodes(config)
    return load_tables(config.output)


def thresholds(tables: Sequence[EpisodeTable], name: str) -> list[float]:
    """For each interval that two keys a clip allow, the threshold that comes to it on all clips together."""
    found = []
    for interval in _intervals(tables):
        keys = sum(-(-table.frames // interval) for table in tables)
        scores = [SCORES[name](table, 0) for table in tables]
        found.append(round(fit_threshold(tables, scores, keys)[0], 6))
    return list(dict.fromkeys(found))


def _intervals(tables: Sequence[EpisodeTable]) -> list[int]:
    shortest = min(table.frames for table in tables)
    return [interval for interval in INTERVALS if interval <= min(shortest // 2, HORIZON)]


def train(group: Group, folder: Path, episodes: int) -> dict[str, Any]:
    """A policy from the tables; its run.json."""
    config = TrainPolicyConfig(
        tables=str(folder / "tables"),
        output=str(folder / "policy"),
        intervals=tuple(float(interval) for interval in INTERVALS),
        val_every=10,
        log_every=1,
    )
    frames = min(config.episode.frames, group.frames)
    config = replace(
        config,
        episode=replace(config.episode, frames=frames, max_interval=HORIZON),
        reinforce=replace(config.reinforce, episodes=episodes),
    )
    run_train_policy(config)
    return json.loads((folder / "policy" / "run.json").read_text())


def methods_of(tables: Sequence[EpisodeTable], policy: dict[str, Any], folder: Path) -> list[str]:
    """All schedulers one-sided, as the papers have them, and the two-sided way of a batch job."""
    intervals = ",".join(map(str, _intervals(tables)))
    limit = f"max_interval={HORIZON}"
    found = [
        f"fixed:interval={intervals},sides=one,label=fixed (DFF)",
        f"random:interval={intervals},sides=one,{limit},label=random",
        f"oracle:interval={intervals},sides=one,{limit},label=oracle",
    ]
    for name in SCORED:
        values = ",".join(map(str, thresholds(tables, name)))
        found.append(f"{name}:threshold={values},sides=one,{limit},label={name}")
    points = {round(float(p["threshold"]), 6) for p in policy["operating_points"]}
    values = ",".join(map(str, sorted(points)))
    file = folder / "policy" / "policy.safetensors"
    found.append(f"policy:policy={file},threshold={values},sides=one,{limit},label=policy")
    found.append(f"fixed:interval={intervals},sides=two,label=fixed two-sided")
    return [*found, "every:sides=one,label=every"]


def make(group: Group, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything of one group; rows for people and for JSON."""
    folder, started = Path(options.output) / group.name, time.monotonic()
    tables = tables_of(group, folder)
    policy = train(group, folder, options.episodes)
    config = EvaluateConfig(
        data=(group.data,),
        split=group.split,
        output=str(folder / "evaluation"),
        methods=tuple(methods_of(tables, policy, folder)),
        segmenter=group.segmenter,
        key_net_ms=200.0 if group.segmenter == "labels" else 0.0,
        working_size=group.working_size,
        propagation=PropagationConfig(sides="one"),
        tables=str(folder / "tables"),
        clip_frames=group.frames,
        limit=group.clips,
    )
    run_evaluate(config)
    inputs = [config.output, str(folder / "policy")]
    if options.search:
        inputs.append(options.search)
    run_report(
        ReportConfig(
            input=tuple(inputs), output=str(folder / "report"), title=f"vidseg figures: {group.name}", aki=25
        )
    )
    rows = table_rows(group, config.output)
    print_rows(group, rows, time.monotonic() - started)
    return rows


def table_rows(group: Group, output: str) -> list[dict[str, Any]]:
    """Quality at the wanted intervals, and the share of the gap."""
    data = open_evaluation(output)
    curves = curves_of(data.methods, data.quality)
    closed = shares(curves, INTERVALS)
    return [
        {
            "group": group.name,
            "method": curve.name,
            "interval": interval,
            "quality": round(curve.at(interval), 4),
            "share": round(closed[curve.name][place], 3) if curve.name in closed else None,
            "tc": curve.nearest(interval)["tc"],
            "tc_pop": curve.nearest(interval)["tc_pop"],
            "fps": curve.nearest(interval)["fps"],
        }
        for curve in curves
        if curve.scheduler != "every"
        for place, interval in enumerate(INTERVALS)
    ]


def print_rows(group: Group, rows: Sequence[dict[str, Any]], seconds: float) -> None:
    print(f"\n{group.name}: {group.data} ({seconds:.0f} s)")
    print(f"{'method':22}" + "".join(f" | AKI {i:3}: mIoU  share" for i in INTERVALS))
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        cells = []
        for row in mine:
            share = row["share"]
            shown = f"{share:+6.0%}" if share is not None and share == share else "     -"
            cells.append(f" |         {row['quality']:6.3f} {shown}")
        print(f"{name:22}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description="All figures of the report, from scenes and real clips.")
    parser.add_argument("--output", default="figures", help="folder for tables, policies, results and pages")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--data", help="folder with face and davis2016 (default: $VIDSEG_DATA)")
    parser.add_argument("--groups", nargs="*", choices=("scenes", "faces", "davis"), help="only these")
    parser.add_argument("--clips", type=int, default=3, help="clips of each group")
    parser.add_argument("--frames", type=int, default=100, help="frames of each clip")
    parser.add_argument("--episodes", type=int, default=400, help="episodes that the policy is trained on")
    parser.add_argument("--search", help="output of a search, for its Pareto front")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for group in groups_of(options):
        rows += make(group, options)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
