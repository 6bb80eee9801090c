"""Every figure of the report, from generated scenes and, where they are here, real clips; in one command.

    python -m benchmarks.figures [--output figures] [--json FILE] [--data DIR] [--groups scenes faces ...]

For each group of clips: episode tables (`build-episodes`), a policy and a decision net (`confidence`) that
learn on them, thresholds that give the same key intervals for all schedulers, `evaluate` with the oracle, and
`report`. The scenes also have a small search (`tune`), a run of `segment` over files of which one is broken,
and the snippet protocol on scenes that the policy never saw. Each page is OUTPUT/GROUP/report/index.html, its
plots lie beside it. Printed, and written with --json: mIoU of every method at the wanted intervals beside
`fixed` and the oracle, and the share of the gap closed. The same command again goes on.

Figures: DVRL 3 (training), 4 (AKI and fps against mIoU), 5 (the same for snippets), 6 (key intervals), 7
(timeline), 8 (masks); ETC's TC; the Pareto front of a search; cost and quarantine of a run.

Thresholds, policy and decision net are fitted to the clips that they are shown on, so that all can be read at
the same intervals; `benchmarks.unseen` compares schedulers on clips that were left out.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.corpus import data_dir
from benchmarks.score_walk import SCORES, fit_threshold
from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.report import ReportConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.config.tune import TuneConfig
from vidseg_core.datasets.scene_files import make_corpus, open_corpus
from vidseg_core.episodes.episodes_job import run_build_episodes
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.kit.ray_session import ray_session
from vidseg_core.models.policy_file import read_policy
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.report.curves import curves_of, shares
from vidseg_core.report.report_job import run_report
from vidseg_core.search.tune_job import run_tune
from vidseg_core.training.decision_job import DECISION, run_train_decision
from vidseg_core.training.policy_job import run_train_policy
from vidseg_core.training.policy_loop import POLICY

INTERVALS = (6, 12, 25, 50)
SCORED = ("warp_error", "frame_difference", "flow_magnitude")
SNIPPET_INTERVALS, SNIPPET_FRAMES = (4, 7, 10, 20), 20
HORIZON = 60
SPACE = Path(__file__).parents[1] / "tune_spaces" / "policies.yaml"
PIXELS = "256"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Clips of one kind and the net that goes with them."""

    name: str
    data: str
    segmenter: str
    clips: int
    frames: int


def groups_of(options: argparse.Namespace) -> list[Group]:
    """Generated scenes always; faces and DAVIS where the data is."""
    clips, frames = options.clips, options.frames
    size: dict[str, Any] = {"clips": clips, "frames": frames}
    found = [Group(name="scenes", data=scenes(clips, frames, seed=7), segmenter="tiny-scenes", **size)]
    root = data_dir(options.data)
    if root is not None and (root / "face").is_dir():
        known = {path.stem for path in (root / "face").glob("*.mp4")}
        wanted = [
            clip for clip in ("liveportrait_d18", "liveportrait_d9", "liveportrait_d0") if clip in known
        ]
        place = f"face:{root / 'face'}" + (f"?clips={','.join(wanted)}" if wanted else "")
        found.append(Group(name="faces", data=place, segmenter="tiny-face", **size))
    if root is not None and (root / "davis2016").is_dir():
        place = f"davis:{root / 'davis2016'}"
        found.append(Group(name="davis", data=place, segmenter="labels", clips=clips + 1, frames=frames))
    return [group for group in found if group.name in (options.groups or ("scenes", "faces", "davis"))]


def scenes(clips: int, frames: int, *, seed: int) -> str:
    return f"scenes:videos={clips},frames={frames},height=180,width=240,seed={seed}"


# --- the steps of a group ----------------------------------------------------------------------------------


def tables_of(group: Group, folder: Path, **options: Any) -> list[EpisodeTable]:
    """The group's episode tables in `folder`, built where they are missing."""
    config = BuildEpisodesConfig(
        data=(group.data,),
        split="all",
        output=str(folder),
        segmenter=group.segmenter,
        working_size=PIXELS,
        limit=group.clips,
        clip_frames=group.frames,
        segment_frames=0,
        horizon=HORIZON,
        features=("scores", "flow"),
        **options,
    )
    run_build_episodes(config)
    return load_tables(config.output)


def train(group: Group, folder: Path, episodes: int) -> None:
    """A policy from the tables, DVRL's recipe but for the credit, which needs fewer episodes; and DVSNet's
    decision net, which learns how many pixels agree (its Eq. 1)."""
    config = TrainPolicyConfig(
        tables=str(folder / "tables"),
        output=str(folder / "policy"),
        intervals=(6.0, 12.0, 25.0),
        val_every=10,
        log_every=1,
    )
    frames = min(config.episode.frames, group.frames)
    config = replace(
        config,
        episode=replace(config.episode, frames=frames, max_interval=HORIZON),
        reinforce=replace(config.reinforce, episodes=episodes, credit="to_go", baseline="leave_one_out"),
    )
    run_train_policy(config)
    decision = TrainDecisionConfig(
        tables=str(folder / "agreement"), output=str(folder / "decision"), max_interval=HORIZON
    )
    run_train_decision(decision)


def search(group: Group, folder: Path, trials: int) -> str:
    """A search small enough for a picture; its output."""
    config = TuneConfig(
        tables=str(folder / "tables"),
        space=str(SPACE),
        output=str(folder / "search"),
        trials=trials,
        episodes=48,
        finalists=0,
        intervals=(6.0, 12.0, 25.0),
    )
    run_tune(config)
    return config.output


def segment(group: Group, folder: Path, threshold: float) -> str:
    """A run over scenes as files, one of them broken; its output."""
    files, broken = folder / "files", folder / "files" / "broken.mp4"
    if not broken.is_file():
        made = make_corpus(files, clips=3, frames=group.frames, seed=7, height=180, width=240)
        broken.write_bytes(made[0].video.read_bytes()[:20_000])
    clips = open_corpus(files)
    config = SegmentConfig(
        input=(*(str(clip.video) for clip in clips), str(broken)),
        output=str(folder / "run"),
        segmenter=group.segmenter,
        working_size=PIXELS,
        scheduler=SchedulerConfig(name="warp_error", threshold=threshold, max_interval=HORIZON),
    )
    run_segment(config)
    return config.output


def thresholds(tables: Sequence[EpisodeTable], name: str, intervals: Sequence[int]) -> list[float]:
    """For each interval the threshold that comes to it on all clips together."""
    found = []
    for interval in intervals:
        keys = sum(-(-table.frames // interval) for table in tables)
        scores = [SCORES[name](table, 0) for table in tables]
        found.append(float(f"{fit_threshold(tables, scores, keys)[0]:.4g}"))
    return list(dict.fromkeys(found))


def learned_thresholds(tables: Sequence[EpisodeTable], file: Path, intervals: Sequence[int]) -> list[float]:
    """The same of a policy or a decision net, walked on all tables."""
    net, _ = read_policy(file)
    points = Operator(join_tables(tables), max_interval=HORIZON).find(net.key_rate, intervals)
    return sorted({float(f"{point.threshold_P[0]:.6g}") for point in points})


def intervals_of(tables: Sequence[EpisodeTable]) -> list[int]:
    """Those that two keys in every clip allow."""
    shortest = min(table.frames for table in tables)
    return [interval for interval in INTERVALS if interval <= min(shortest // 2, HORIZON)]


def methods_of(
    tables: Sequence[EpisodeTable], learned: Mapping[str, Path], intervals: Sequence[int], *, oracle: bool
) -> tuple[str, ...]:
    """All schedulers one-sided, as the papers have them; beside the oracle also a batch job's two-sided way.

    A snippet ends at the frame that is measured: two sides are one there, and an oracle would make it a key.
    """
    points, limit = ",".join(map(str, intervals)), f"sides=one,max_interval={HORIZON}"
    found = [f"fixed:interval={points},sides=one,label=fixed (DFF)"]
    if oracle:
        found.append(f"oracle:interval={points},{limit},label=oracle")
    for name, file in learned.items():
        points_of = _listed(learned_thresholds(tables, file, intervals))
        found.append(f"{name}:policy={file},threshold={points_of},{limit}")
    for name in SCORED:
        found.append(f"{name}:threshold={_listed(thresholds(tables, name, intervals))},{limit}")
    found.append(f"random:interval={points},{limit}")
    if oracle:
        found.append(f"fixed:interval={points},sides=two,label=fixed two-sided")
    return tuple(f"{text},label={text.partition(':')[0]}" if "label=" not in text else text for text in found)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)


def evaluate(group: Group, folder: Path, methods: Sequence[str], **options: Any) -> str:
    """Methods and the net on every frame; the output."""
    config = EvaluateConfig(
        data=(group.data,),
        split="all",
        output=str(folder / "evaluation"),
        methods=(*methods, "every:sides=one,label=every"),
        segmenter=group.segmenter,
        key_net_ms=200.0 if group.segmenter == "labels" else 0.0,
        working_size=PIXELS,
        propagation=PropagationConfig(sides="one"),
        clip_frames=group.frames,
        limit=group.clips,
        **options,
    )
    run_evaluate(config)
    return config.output


# --- groups ------------------------------------------------------------------------------------------------


def make(group: Group, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything of one group; rows for people and for JSON."""
    folder = Path(options.output) / group.name
    with timed(group.name):
        tables = tables_of(group, folder / "tables")
        tables_of(group, folder / "agreement", quality="accuracy", pictures=False)
        train(group, folder, options.episodes)
        learned = {"policy": folder / "policy" / POLICY, "confidence": folder / "decision" / DECISION}
        intervals = intervals_of(tables)
        methods = methods_of(tables, learned, intervals, oracle=True)
        inputs = [evaluate(group, folder, methods, tables=str(folder / "tables")), str(folder / "policy")]
        if group.name == "scenes":
            inputs.append(search(group, folder, options.trials))
            inputs.append(segment(group, folder, thresholds(tables, "warp_error", (12,))[0]))
        show(folder, group.name, inputs, aki=intervals[-2])
        rows = table_rows(group, inputs[0], INTERVALS)
    print_rows(group, rows, INTERVALS)
    if group.name == "scenes":
        rows += snippets(group, tables, learned, options)
    return rows


def snippets(
    group: Group, tables: Sequence[EpisodeTable], learned: Mapping[str, Path], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The protocol of Cityscapes (DVRL Fig. 5) on scenes that neither policy nor thresholds were made on."""
    clips = 4 * group.clips
    data = scenes(clips, SNIPPET_FRAMES, seed=8)
    fresh = replace(group, name="snippets", data=data, clips=clips, frames=SNIPPET_FRAMES)
    folder = Path(options.output) / fresh.name
    with timed(fresh.name):
        methods = methods_of(tables, learned, SNIPPET_INTERVALS, oracle=False)
        output = evaluate(fresh, folder, methods, protocol="snippet", snippet_frames=SNIPPET_FRAMES, tc=False)
        show(folder, fresh.name, [output], aki=10)
        rows = table_rows(fresh, output, SNIPPET_INTERVALS)
    print_rows(fresh, rows, SNIPPET_INTERVALS)
    return rows


def show(folder: Path, name: str, inputs: Sequence[str], *, aki: float) -> None:
    title = f"vidseg figures: {name}"
    run_report(ReportConfig(input=tuple(inputs), output=str(folder / "report"), title=title, aki=aki))


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Prints the seconds of the block: on the wall, and of cores, those of child processes included."""
    spent: dict[tuple[int, float], float] = {}
    over, started = threading.Event(), time.monotonic()

    def look() -> None:
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                times = process.cpu_times()
                spent[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue

    def watch() -> None:
        while not over.wait(0.5):
            look()

    look()
    before, thread = sum(spent.values()), threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
        seconds = time.monotonic() - started
        print(f"\n{name}: {seconds:.0f} s, {sum(spent.values()) - before:.0f} CPU-s", flush=True)


def table_rows(group: Group, output: str, intervals: Sequence[int]) -> list[dict[str, Any]]:
    """Quality at the wanted intervals, and the share of the gap."""
    data = open_evaluation(output)
    curves = curves_of(data.methods, data.quality)
    closed = shares(curves, intervals)
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
        for place, interval in enumerate(intervals)
    ]


def print_rows(group: Group, rows: Sequence[dict[str, Any]], intervals: Sequence[int]) -> None:
    print(f"{group.data}")
    print(f"{'method':22}" + "".join(f" | AKI {i:3}: mIoU  share" for i in intervals))
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        cells = []
        for row in mine:
            share = row["share"]
            shown = f"{share:+6.0%}" if share is not None and share == share else "     -"
            cells.append(f" |         {row['quality']:6.3f} {shown}")
        print(f"{name:22}" + "".join(cells), flush=True)


@dataclass(frozen=True)
class RayForAll:
    """One Ray for all of it."""

    ray_address: str | None = None
    object_store_mb: int | None = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="All figures of the report, from scenes and real clips.")
    parser.add_argument("--output", default="figures", help="folder for tables, policies, results and pages")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--data", help="folder with face and davis2016 (default: $VIDSEG_DATA)")
    parser.add_argument("--groups", nargs="*", choices=("scenes", "faces", "davis"), help="only these")
    parser.add_argument("--clips", type=int, default=3, help="clips of each group")
    parser.add_argument("--frames", type=int, default=100, help="frames of each clip")
    parser.add_argument("--episodes", type=int, default=320, help="episodes that a policy is trained on")
    parser.add_argument("--trials", type=int, default=12, help="trials of the search")
    options = parser.parse_args()
    if options.frames < BuildEpisodesConfig.min_frames:
        parser.error(
            f"--frames must be at least {BuildEpisodesConfig.min_frames}: shorter clips hold no episode"
        )
    rows: list[dict[str, Any]] = []
    with timed("all groups"), ray_session(RayForAll()):
        for group in groups_of(options):
            rows += make(group, options)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
