"""Promise: what the engine cannot do for one video costs that video alone, with its reason; memory that does
not suffice for many lanes is used for fewer; and a fault that is nobody's own ends the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline.clips import make_corpus, write_video
from tests.pipeline.conftest import RunJob, small_config
from tests.pipeline.failing import bad_clip
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.engine import Engine
from vidseg_core.pipeline.failures import MOST_FAILURES, EngineBroken
from vidseg_core.store.run import open_run

NAN, RAISES = (f"tests.pipeline.failing:{name}" for name in ("NanOnRed", "RaisesOnRed"))
OPTIONS: dict[str, Any] = {"scheduler": SchedulerConfig(name="fixed", interval=5), "shard_frames": 8}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "bad.mp4", bad_clip(30, from_frame=12), gop=10)
    return make_corpus(folder, (26, 41))


def run(clips: Path, output: Path, segmenter: str, **options: Any) -> dict[str, dict[str, Any]]:
    """Rows of the videos by the name of their file."""
    run_inline(small_config(clips, output, segmenter=segmenter, **OPTIONS, **options), 2)
    return {Path(row["uri"]).stem: row for row in open_run(str(output)).videos().to_pylist()}


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(
    ("segmenter", "reason"),
    [
        (NAN, "bad_scores: frame 15: segmenter 'tests:slow' gave scores that are NaN or Inf"),
        (RAISES, "engine_error: frame 15: KeyError: 'no such colour' (failing.py, line"),
    ],
)
def test_a_failing_video_loses_nobody_else_a_row(
    clips: Path, tmp_path: Path, segmenter: str, reason: str, lanes: int
) -> None:
    rows = run(clips, tmp_path / "out", segmenter, lanes=lanes)
    assert rows["bad"]["status"] == "quarantined"
    assert rows["bad"]["reason"].startswith(reason)
    assert [row["status"] for name, row in sorted(rows.items()) if name != "bad"] == ["ok", "ok"]
    run(clips, tmp_path / "plain", "plain")
    good = [row for row in rows_without_package(tmp_path / "plain") if row[0] != rows["bad"]["video_id"]]
    kept = [row for row in rows_without_package(tmp_path / "out") if row[0] != rows["bad"]["video_id"]]
    assert kept == good


def test_a_frame_that_only_fills_up_a_batch_may_have_any_scores(clips: Path, tmp_path: Path) -> None:
    rows = run(clips, tmp_path / "out", NAN, key_batch=4)
    assert sorted(row["status"] for row in rows.values()) == ["ok", "ok", "quarantined"]


def small_memory(most: int, seen: list[int]) -> Any:
    """`Engine.step` on a device that has memory for so many lanes."""
    step = Engine.step

    def limited(self: Engine, states: Any, frames: Any) -> Any:
        seen.append(len(states))
        if len(states) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, states, frames)

    return limited


def test_too_little_memory_for_many_lanes_is_used_for_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_corpus(tmp_path / "in", (20, 20, 20, 20, 20))
    run(clips, tmp_path / "plain", "plain")
    seen: list[int] = []
    monkeypatch.setattr(Engine, "step", small_memory(2, seen))
    rows = run(clips, tmp_path / "out", "plain", lanes=5)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows_without_package(tmp_path / "out") == rows_without_package(tmp_path / "plain")
    assert sum(lanes > 2 for lanes in seen) <= 2 * 2, "an engine learns from the first time"


def test_too_little_memory_for_one_quarantines_it(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "step", small_memory(0, []))
    rows = run(clips, tmp_path / "out", "plain")
    assert all(row["reason"].startswith("out_of_memory: frame 0: ") for row in rows.values())


def test_a_fault_that_everyone_meets_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = make_corpus(tmp_path / "in", (8,) * (2 * MOST_FAILURES))
    broken = small_memory(0, [])
    monkeypatch.setattr(Engine, "step", broken)
    with pytest.raises(EngineBroken, match=f"{MOST_FAILURES} segments in a row failed"):
        run(clips, tmp_path / "out", "plain")
    monkeypatch.undo()
    rows = run(clips, tmp_path / "out", "plain")
    assert len(rows) == 2 * MOST_FAILURES


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="torch before 2.8")
def test_a_device_that_fails_is_no_videos_fault(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: Engine, states: Any, frames: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Engine, "step", lost)
    with pytest.raises(EngineBroken, match="the device failed: CUDA error"):
        run(clips, tmp_path / "out", "plain", lanes=3)
    monkeypatch.undo()
    rows = run(clips, tmp_path / "out", "plain", lanes=3)
    assert {row["status"] for row in rows.values()} == {"ok"}, "no verdict was left behind"


def test_a_worker_that_ray_ends_blames_no_video(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray raises SystemExit in the middle of a step when an actor's owner is gone: a net does not do that."""
    scope: dict[str, Any] = {}
    exec(
        compile("def step(self, states, frames): raise SystemExit(1)", "python/ray/_raylet.pyx", "exec"),
        scope,
    )
    monkeypatch.setattr(Engine, "step", scope["step"])
    with pytest.raises(SystemExit):
        run(clips, tmp_path / "out", "plain")
    assert not list(tmp_path.glob("out/videos/*"))


def test_memory_that_one_video_wants_is_its_own_end_on_either_executor(
    tmp_path: Path, run_on_either: RunJob
) -> None:
    write_video(tmp_path / "in" / "bad.mp4", bad_clip(30, from_frame=12), gop=10)
    source = make_corpus(tmp_path / "in", (26,))
    net = "tests.pipeline.failing:WantsMemoryOnRed"
    code, text = run_on_either(source, tmp_path / "out", segmenter=net)
    assert code == 3 and "Traceback" not in text, text
    rows = {Path(row["uri"]).stem: row for row in open_run(str(tmp_path / "out")).videos().to_pylist()}
    bad = rows.pop("bad")
    assert bad["status"] == "quarantined" and bad["reason"].startswith("out_of_memory: frame ")
    assert {row["status"] for row in rows.values()} == {"ok"}
