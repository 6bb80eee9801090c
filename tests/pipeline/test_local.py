"""Promise: without Ray a run is the same run, and which of the two executes it is said and has a reason.

Why: a clip of eight seconds took twenty to segment, and fifteen of those were Ray.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import torch

from tests.pipeline.clips import make_corpus, write_video
from tests.pipeline.conftest import OPTIONS_OF, RunJob, small_config
from tests.pipeline.failing import bad_clip
from tests.pipeline.inline import rows_without_package, run_inline
from tests.pipeline.test_kills import _run
from vidseg_core.cli import main as cli
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit import progress
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.models.constant import ConstantSegmenter
from vidseg_core.pipeline import engine_stage, executors, segment_job
from vidseg_core.pipeline.ahead import Ahead
from vidseg_core.pipeline.drain import Drain
from vidseg_core.pipeline.executors import Place, by_plan, may_be_local, settled
from vidseg_core.pipeline.ledger import Ledger
from vidseg_core.pipeline.local import Alone, LocalExecutor, shards_ahead
from vidseg_core.pipeline.plan_stage import OpenSegment, PlannedUnit, PlanStage
from vidseg_core.pipeline.rows import ShardMessage, messages, owned, to_table
from vidseg_core.pipeline.stages import Stages
from vidseg_core.pipeline.wave import Waves
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.store.objects import open_store
from vidseg_core.store.run import open_run


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), (26, 41))


# --- which executor -----------------------------------------------------------------------------------------


def place(**options: Any) -> Place | None:
    return settled(small_config("in", "out", **{"workers": 0} | options))


def test_what_is_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "sys", type("NoRay", (), {"modules": {}}))
    assert place() is None
    assert place(executor="ray") == Place("ray", "--executor ray")
    assert place(workers=2) == Place("ray", "--workers 2") and place(workers=1) is None
    assert place(ray_address="head:1") == Place("ray", "the cluster at head:1")
    monkeypatch.setenv("RAY_ADDRESS", "head:2")
    assert place() == Place("ray", "the cluster at head:2")
    assert place(executor="local") == Place("local", "--executor local")
    assert may_be_local(small_config("in", "out", executor="local", workers=0))
    assert not may_be_local(small_config("in", "out", executor="local", workers=0, dry_run=True))
    assert not may_be_local(small_config("in", "out", workers=0))


def chosen(frames: list[int], pixel_s: float = 0.0, gpus: int = 0, cores: int = 4, **options: Any) -> str:
    config = small_config("in", "out", workers=0, scheduler=SchedulerConfig(interval=10), **options)
    segments = [OpenSegment(n, 512 * 512, []) for n in frames]
    return by_plan(config, segments, pixel_s=pixel_s, gpus=gpus, cores=cores).executor


def test_small_plans_are_local_and_large_ones_are_rays() -> None:
    heavy = 2.0 / 512**2  # seconds of a key frame, per pixel
    assert chosen([300, 300]) == "local"
    assert chosen([9000] * 4) == "ray"
    assert chosen([300, 300], heavy) == "ray"
    assert chosen([300, 300], heavy, gpus=1) == "local", "what a GPU takes is not known"
    assert chosen([300, 300], heavy, gpus=2) == "ray"
    assert chosen([9000], heavy) == "local", "nothing to run side by side"
    assert chosen([9000] * 4, lanes=4) == "local", "one engine takes all of them"
    assert chosen([9000] * 4, threads=4) == "local" and chosen([9000] * 4, cores=1) == "local"
    assert chosen([]) == "local"
    small, wide = heavy / 10, RegionsConfig(grid="4x4", overlap=72)  # 4.6 times the pixels
    assert chosen([300, 300], small) == "local" and chosen([300, 300], small, regions=wide) == "ray"


def test_a_busy_machine_does_not_make_a_net_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock a small call took seconds beside other work, and 457 frames of a small net went to Ray."""
    head = ConstantSegmenter.head

    def waits_for_a_core(self: ConstantSegmenter, features: torch.Tensor) -> torch.Tensor:
        time.sleep(0.3)
        return head(self, features)

    monkeypatch.setattr(ConstantSegmenter, "head", waits_for_a_core)
    pixel_s = describe_net(small_config("in", "out", segmenter="constant", workers=0)).pixel_s
    assert chosen([300, 300], pixel_s) == "local"


def test_a_run_says_which_and_why_after_what_it_is(clips: Path, tmp_path: Path, run_locally: RunJob) -> None:
    code, text = run_locally(clips, tmp_path / "out", segmenter="plain")
    lines = text.splitlines()
    assert code == 0 and lines[0].startswith("vidseg: new run: 2 videos"), text
    assert "vidseg: executor local: --executor local" in lines


def test_planning_here_ends_where_the_work_is_seen_to_be_rays_and_nothing_is_silent_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def executor(job: Any, stages: Stages, drain: Drain) -> Generator[LocalExecutor]:
        assert job._place.executor == "ray"
        yield LocalExecutor(stages, "cpu", drain, Alone())

    looked_at, plan = [], PlanStage.plan
    monkeypatch.setattr(PlanStage, "plan", lambda self, video: looked_at.append(video) or plan(self, video))
    monkeypatch.setattr(executors, "sys", type("NoRay", (), {"modules": {}}))
    monkeypatch.setattr(executors, "RAY_START_S", 0.01)
    monkeypatch.setattr(segment_job.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(segment_job._Job, "_executor", executor)
    text = io.StringIO()
    source = make_corpus(tmp_path / "in", (12, 12, 12))
    config = small_config(source, tmp_path / "out", segmenter="plain", workers=0)
    assert segment_job.run_segment(config, Reporter("text", text)) == 0
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("vidseg: new run") and lines[2].endswith("in 2 of 3 videos"), lines
    assert len(looked_at) == 5, "two here, and all of them by the executor"
    assert "frames 36/36" in text.getvalue()


def test_where_several_gpus_ask_for_ray_nothing_is_planned_here(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(clips, tmp_path / "out", segmenter="plain", workers=0)
    store, net = open_store(config.output), describe_net(config)
    monkeypatch.setattr(segment_job, "gpus_here", lambda config: 2)
    job = segment_job._Job(config, Reporter("text", io.StringIO()), None, Alone(), None)
    plan, place = job._planned(expand_inputs(config.input), Stages.of(config, store, net), net)
    assert plan is None and place == Place("ray", "2 GPUs")


def test_while_a_plan_is_made_here_it_is_said_how_far_it_is(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "sys", type("NoRay", (), {"modules": {}}))
    monkeypatch.setattr(progress, "_LOG_S", 0.0)
    text = io.StringIO()
    config = small_config(clips, tmp_path / "out", segmenter="plain", workers=0, device="cpu")
    assert segment_job.run_segment(config, Reporter("text", text)) == 0
    said = [line for line in text.getvalue().splitlines() if "planning" in line or "executor" in line]
    assert said[:2] == ["vidseg: planning: 1/2 videos", "vidseg: planning: 2/2 videos"]
    assert said[2].startswith("vidseg: executor local: 67 frames in 2 segments")


def test_progress_goes_by_frame_also_inside_a_part(
    clips: Path, tmp_path: Path, run_locally: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOG_S", 0.0)
    code, text = run_locally(clips, tmp_path / "out", shard_frames=64, lanes=1)
    seen = [int(n) for n in re.findall(r"frames (\d+)/67", text)]
    assert code == 0 and seen == sorted(seen) and {*range(1, 68)} <= {*seen}


def test_in_json_every_line_of_a_command_is_an_object_and_the_last_says_what_to_type_next(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", str(clips), "--output", str(tmp_path / "out"), "--segmenter", "plain"]
    words += ["--working_size", "64", "--executor", "local", "--log", "json"]
    assert cli.main(["segment", *words]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.err.splitlines()]
    assert not printed.out and lines[0] == {"event": "phase", "phase": "loading torch", "seconds": 0.0}
    assert lines[-1]["event"] == "next" and lines[-1]["command"].startswith("vidseg export --run ")


def test_a_gpu_that_is_not_there_is_an_option_that_is_wrong(
    clips: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    code, text = run_locally(clips, tmp_path / "out", segmenter="plain", device="cuda")
    assert code == 2 and "--device: cuda: this machine has no GPU" in text, text


# --- the same rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("apart", [False, True])
def test_where_parts_are_committed_changes_no_row(
    apart: bool, lanes: int, clips: Path, tmp_path: Path, run_locally: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = LocalExecutor.__init__

    def and_apart(self: LocalExecutor, *arguments: Any) -> None:
        init(self, *arguments)
        self._commits_apart = apart

    monkeypatch.setattr(LocalExecutor, "__init__", and_apart)
    code, text = run_locally(clips, tmp_path / "out", segmenter="plain", lanes=lanes)
    assert code == 0 and "frames 67/67" in text, text
    run_inline(small_config(clips, tmp_path / "inline", segmenter="plain"), 2)
    assert rows_without_package(tmp_path / "out") == rows_without_package(tmp_path / "inline")


def test_it_leaves_this_process_as_it_was(clips: Path, tmp_path: Path) -> None:
    """Its decode process, too, though this one lives on."""
    threads, decoders = torch.get_num_threads(), _decoders()
    torch.set_num_threads(2)
    try:
        config = small_config(clips, tmp_path / "out", segmenter="plain", **OPTIONS_OF["local"])
        assert segment_job.run_segment(config) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert _decoders() == decoders
    assert not [t for t in threading.enumerate() if t.name == "vidseg-ahead"]


def _decoders() -> set[int]:
    children = psutil.Process().children()
    return {child.pid for child in children if "vidseg_core.media.child" in child.cmdline()}


def test_a_small_run_imports_what_it_needs_and_nothing_more() -> None:
    heavy = {
        "ray",
        "transformers",
        "torchvision",
        "segmentation_models_pytorch",
        "timm",
        "matplotlib",
        "boto3",
    }
    program = (
        "import sys, vidseg_core.pipeline.segment_job\nfrom vidseg_core.models import build_segmenter\n"
        "build_segmenter('tiny-face')\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_a_clip_that_kills_its_process_is_quarantined_and_the_others_are_whole(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "bad.mp4", bad_clip(30, from_frame=12), gop=10)
    source = make_corpus(tmp_path / "in", (26, 12))
    net = {"segmenter": "tests.pipeline.failing:CrashesOnRed"}
    done = _run(source, tmp_path / "out", "local", **net)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    rows = {Path(row["uri"]).stem: row for row in open_run(str(tmp_path / "out")).videos().to_pylist()}
    bad = rows.pop("bad")
    assert bad["status"] == "quarantined"
    assert bad["reason"].startswith(
        "engine_crash: the engine's process died 3 times with segment 0, frames 8"
    )
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert not [path for path in (tmp_path / "out" / "_state").rglob("*") if path.is_file()]
    run_inline(small_config(source, tmp_path / "plain", segmenter="plain"), 1)
    plain, ours = rows_without_package(tmp_path / "plain"), rows_without_package(tmp_path / "out")
    assert [r for r in ours if r[0] != bad["video_id"]] == [r for r in plain if r[0] != bad["video_id"]]


# --- wave after wave ----------------------------------------------------------------------------------------


def test_the_nets_are_loaded_once_for_all_waves(
    clips: Path, tmp_path: Path, run_locally: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, build = [], engine_stage.build_engine
    monkeypatch.setattr(engine_stage, "build_engine", lambda *given: built.append(given) or build(*given))
    monkeypatch.setattr(LocalExecutor, "wave_videos", 1)
    code, text = run_locally(clips, tmp_path / "out", segmenter="plain")
    assert code == 0 and len(built) == 1, text
    run_inline(small_config(clips, tmp_path / "inline", segmenter="plain"), 2)
    assert rows_without_package(tmp_path / "out") == rows_without_package(tmp_path / "inline")


def test_an_engine_that_was_left_in_the_middle_of_a_wave_goes_on_from_the_store(
    clips: Path, tmp_path: Path
) -> None:
    config = small_config(clips, tmp_path / "out", segmenter="plain", lanes=3)
    store, drain = open_store(config.output), Drain(open_store(config.output))
    executor = LocalExecutor(Stages.of(config, store, describe_net(config)), "cpu", drain, Alone())
    ledger = Ledger(store, Counts(), Reporter("text", io.StringIO()), lanes=3, device="cpu")
    videos = expand_inputs(config.input)
    with closing(executor.receipts(ledger.take_plan(executor.planning(videos).tables()))) as receipts:
        ledger.take(next(receipts))  # the other segments have moved as well, and nothing says so
    Waves(executor, ledger, drain, Reporter("text", io.StringIO())).run(videos)
    run_inline(small_config(clips, tmp_path / "inline", segmenter="plain"), 2)
    assert rows_without_package(tmp_path / "out") == rows_without_package(tmp_path / "inline")


# --- what runs ahead ----------------------------------------------------------------------------------------


def test_what_runs_ahead_comes_in_order_and_stops_when_enough_waits() -> None:
    made: list[int] = []

    def items() -> Generator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = Ahead(items(), 2)
    reader = iter(ahead)
    assert [next(reader) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(made) <= 5 + 2 + 2
    assert list(reader) == list(range(5, 20))
    ahead.close()


def test_what_is_decoded_ahead_fits_into_the_memory_for_frames() -> None:
    def ahead(segments: int, megabytes: int, **options: Any) -> int:
        unit = PlannedUnit(pa.table({}), 128, megabytes * 10**6)
        config = small_config("in", "out", **options)
        return shards_ahead(config, [OpenSegment(128, 512 * 512, [unit])] * segments)

    assert ahead(100, 1, lanes=64) == 128
    assert ahead(3, 1, lanes=64) == 6, "no more than there are segments for"
    assert ahead(100, 96, lanes=64) == 20 and ahead(100, 96, lanes=64, object_store_mb=960) == 10
    assert ahead(100, 96, lanes=1) == 2 and ahead(100, 5000, lanes=64) == 2


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Generator[int]:
        yield 1
        raise KeyError("what")

    reader = iter(Ahead(items(), 4))
    assert next(reader) == 1
    with pytest.raises(KeyError, match="what"):
        next(reader)


def test_closing_hurries_what_is_being_made_and_closes_it() -> None:
    hurried, closed = threading.Event(), threading.Event()

    def items() -> Generator[int]:
        try:
            yield 1
            hurried.wait()
            yield 2
        finally:
            closed.set()

    ahead = Ahead(items(), 1)
    assert next(iter(ahead)) == 1
    ahead.close(hurried.set)
    assert closed.is_set()


def test_a_shard_of_its_own_holds_its_pixels() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).numpy()
    table = to_table(ShardMessage("v", 0, 0, True, 3, 4), pixels)
    copy = owned(table)
    pixels[:] = 0
    (message, blob), (_, shared) = messages(copy, ShardMessage)[0], messages(table, ShardMessage)[0]
    assert message.video_id == "v" and blob.to_pybytes() == bytes(range(12))
    assert shared.to_pybytes() == bytes(12) and isinstance(copy, pa.Table)
