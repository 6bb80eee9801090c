"""Promise: a run with motion vectors says of which videos it has none, gives those the masks that DIS gives,
and takes frames that are left out in its stride; a dry run says and reckons what the run will do.

Why: vectors travel with the frames from the decoder through every stage; wherever they are dropped, the run
falls back without an error, and only its speed and its masks show it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.panning import encoded, panned
from tests.pipeline.conftest import RunJob
from tests.pipeline.inline import rows_without_package
from vidseg_core.config.segment import MediaConfig, PropagationConfig
from vidseg_core.engine import Engine

SIDE = PropagationConfig(flow="dis", sides="one", flow_size=64)
VECTORS = PropagationConfig(flow="motion_vectors", sides="one", flow_size=64)


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Flows followed and estimated, of each engine that has come to the end of a segment."""
    counted: list[tuple[int, int]] = []
    finish = Engine.finish

    def counting(engine: Engine, states):  # noqa: ANN001, ANN202
        counted.append((engine.stats.followed, engine.stats.flows))
        return finish(engine, states)

    monkeypatch.setattr(Engine, "finish", counting)
    return counted


def test_another_codec_is_noted_and_has_the_masks_of_dis(tmp_path: Path, run_locally: RunJob) -> None:
    folder = encoded(tmp_path / "clip.webm", panned(20), "libvpx-vp9").parent
    code, said = run_locally(folder, tmp_path / "vectors", propagation=VECTORS)
    assert code == 0 and "no motion vectors in" in said and "flow by DIS" in said
    assert run_locally(folder, tmp_path / "dis", propagation=SIDE)[0] == 0
    assert rows_without_package(tmp_path / "vectors") == rows_without_package(tmp_path / "dis")


@pytest.mark.parametrize("media", [MediaConfig(), MediaConfig(fps=10)])
def test_vectors_come_through_every_stage(
    tmp_path: Path, run_locally: RunJob, flows: list[tuple[int, int]], media: MediaConfig
) -> None:
    folder = encoded(tmp_path / "clip.mp4", panned(40), bframes=2).parent
    code, said = run_locally(folder, tmp_path / "vectors", propagation=VECTORS, media=media)
    assert code == 0 and "DIS" not in said
    followed, estimated = flows[-1]
    assert followed > 10 and estimated == 0


def test_a_dry_run_says_which_videos_have_none(tmp_path: Path, run_locally: RunJob) -> None:
    folder = encoded(tmp_path / "clip.webm", panned(20), "libvpx-vp9").parent
    _, said = run_locally(folder, tmp_path / "out", propagation=VECTORS, dry_run=True)
    assert "no motion vectors in vp9: flow by DIS" in said


def test_a_dry_run_follows_vectors_too_and_cuts_as_the_run_does(
    tmp_path: Path, run_locally: RunJob, flows: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoded(tmp_path / "clip.mp4", panned(40)).parent
    monkeypatch.setattr("vidseg_core.plan.segments.SHARD_BYTES", 8 * (64 * 96 * 3 // 2 + 100))  # 8 without
    options = {"propagation": VECTORS, "shard_frames": 64, "segment_frames": 0}
    _, said = run_locally(folder, tmp_path / "out", dry_run=True, **options)
    followed, estimated = flows[-1]
    assert followed > 10 and estimated == 0
    run_locally(folder, tmp_path / "out", **options)
    parts = len(list((tmp_path / "out").rglob("part-*.parquet")))
    assert f"and {parts} parts ->" in said


def test_vectors_that_have_no_room_are_noted(tmp_path: Path, run_locally: RunJob) -> None:
    folder = encoded(tmp_path / "clip.mp4", panned(4, height=512, width=768)).parent
    _, said = run_locally(folder, tmp_path / "out", propagation=VECTORS, working_size="32")
    assert "its motion vectors are too many for so small a working size: flow by DIS" in said
