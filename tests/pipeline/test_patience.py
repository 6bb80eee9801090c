"""Promise: only a verdict on the video itself quarantines it: what may pass is tried again, and a source that
does not answer ends the run, which goes on later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.inline import run_inline
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.whole import closed_videos
from vidseg_core.media import MediaError, MediaLimits, child_for_this_process
from vidseg_core.pipeline import ending, patience, plan_stage
from vidseg_core.pipeline.patience import ATTEMPTS, SourceUnavailable
from vidseg_core.pipeline.plan_stage import PlanOptions, PlanStage
from vidseg_core.pipeline.rows import messages
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store import open_store
from vidseg_core.store.keys import SUCCESS_KEY, video_key
from vidseg_core.store.run import open_run


class FailingChild:
    """The decode process, but its first probes fail."""

    def __init__(self, reason: str, times: int) -> None:
        self.reason, self.left = reason, times

    def probe(self, uri: str, stream: int | None = None) -> Any:
        if self.left:
            self.left -= 1
            raise MediaError(self.reason, f"{uri}: no")
        return child_for_this_process(MediaLimits()).probe(uri, stream)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("patience") / "a.mp4", moving_disc(12))


def _plan(
    clip: Path, output: Path, child: FailingChild, monkeypatch: pytest.MonkeyPatch
) -> plan_stage.VideoWork:
    monkeypatch.setattr(plan_stage, "child_for_this_process", lambda limits: child)
    options = PlanOptions(working_size=64, segment_frames=0, shard_frames=8, single_shards=False)
    stage = PlanStage(open_store(output), MediaLimits(), options)
    table = stage.plan(VideoInput(video_id="v", uri=str(clip), size=clip.stat().st_size, stamp=""))
    return messages(table, plan_stage.VideoWork)[0][0]


@pytest.mark.parametrize("reason", ["decode_crash", "unreadable", "source_unavailable"])
def test_what_may_pass_is_tried_again(
    clip: Path, tmp_path: Path, reason: str, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = _plan(clip, tmp_path, FailingChild(reason, ATTEMPTS - 1), monkeypatch)
    assert (work.reason, work.frames) == (None, 12)


def test_a_verdict_on_the_video_is_not(
    clip: Path, tmp_path: Path, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = FailingChild("not_a_video", 1)
    assert _plan(clip, tmp_path, child, monkeypatch).reason == "not_a_video"
    assert _plan(clip, tmp_path, FailingChild("decode_crash", ATTEMPTS), monkeypatch).reason == "decode_crash"


def test_a_source_that_stays_away_ends_the_run_and_judges_nobody(
    clip: Path, tmp_path: Path, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceUnavailable, match=r"a\.mp4: no"):
        _plan(clip, tmp_path, FailingChild("source_unavailable", ATTEMPTS), monkeypatch)


def test_quarantined_videos_can_be_tried_again(clip: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "out")
    config = SegmentConfig(input=(str(clip),), output=str(tmp_path / "out"), segmenter="constant")
    run_inline(config, 1)
    (row,) = open_run(store.root).videos().to_pylist()
    store.delete(video_key(row["video_id"]))
    ending.close_video(store, row | {"status": "quarantined", "reason": "decode_crash: died"})
    store.put(SUCCESS_KEY, b"")
    assert ending.forget_quarantined(store) == 1
    assert not store.exists(SUCCESS_KEY) and not len(closed_videos(store))
    assert ending.forget_quarantined(store) == 0
