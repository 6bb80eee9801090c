"""Promise: a slow net or a slow store holds decoding back; frames never pile up, nothing spills to disk.

Why: a decoder is a hundred times faster than a heavy net. Unchecked, a long video would fill the object
store, then the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.slow import SlowStore
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.pipeline import segment_job
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.store.run import open_run

pytestmark = pytest.mark.ray
FRAMES, HEIGHT, WIDTH, SHARD = 720, 360, 480, 16
CLIP_BYTES = FRAMES * HEIGHT * WIDTH * 3
SHARE = 0.5


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    pictures = moving_disc(60, HEIGHT, WIDTH)
    write_video(folder / "long.mp4", np.concatenate([pictures] * (FRAMES // 60)), gop=24)
    return folder


@pytest.mark.parametrize("slow", ["engine", "store"])
def test_decoding_waits_for_the_slowest(
    slow: str, long_clip: Path, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slow == "store":
        monkeypatch.setattr(segment_job, "open_output", SlowStore)
    config = small_config(
        long_clip,
        tmp_path / "out",
        segmenter="tests.pipeline.slow:SlowPlain" if slow == "engine" else "plain",
        scheduler=SchedulerConfig(name="fixed", interval=12, max_interval=20),
        segment_frames=0,
        shard_frames=SHARD,
        workers=1,
    )
    with _peak_of_object_store() as peak:
        assert run_segment(config) == 0
    assert open_run(tmp_path / "out").frames().count_rows() == FRAMES
    bound = SHARE * ray.cluster_resources()["object_store_memory"]
    assert bound < 0.6 * CLIP_BYTES, "the clip is long enough for frames to pile up"
    assert peak[0] < bound
    assert not _spilled()


@contextmanager
def _peak_of_object_store() -> Iterator[list[float]]:
    peak, done = [0.0], threading.Event()
    whole = ray.cluster_resources()["object_store_memory"]
    before = whole - ray.available_resources().get("object_store_memory", 0.0)

    def watch() -> None:
        while not done.wait(0.1):
            used = whole - ray.available_resources().get("object_store_memory", 0.0) - before
            peak[0] = max(peak[0], used)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _spilled() -> list[Path]:
    session = Path("/tmp/ray", ray.get_runtime_context().get_session_name())
    assert (session / "logs").is_dir()
    return list(session.glob("ray_spilled_objects*/*"))
