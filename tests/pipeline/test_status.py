"""Promise: the output alone says where a run stands, before, between and after its drivers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import Killed, run_inline
from vidseg_core.cli.main import main
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit.manifest import claim_output
from vidseg_core.pipeline.output import manifest_of
from vidseg_core.pipeline.status import read_status
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.store.keys import SUCCESS_KEY
from vidseg_core.store.objects import open_store


@pytest.fixture
def config(tmp_path: Path) -> SegmentConfig:
    """A run that has been claimed, not begun; one of its inputs is no video."""
    clips = make_corpus(tmp_path / "in", (26, 41))
    (clips / "text.mp4").write_text("not a video")
    config = small_config(clips, tmp_path / "out", segmenter="plain", shard_frames=8)
    store = open_store(config.output)
    claim_output(store, manifest_of(config, describe_net(config)), expand_inputs(config.input))
    return config


def killed_after(commits: int) -> object:
    left = [commits]

    def tick(where: str) -> None:
        left[0] -= where == "after commit"
        if left[0] < 0:
            raise Killed

    return tick


def test_a_run_is_described_at_every_stage(config: SegmentConfig) -> None:
    begun = read_status(config.output)
    assert (begun.videos_total, begun.done, begun.frames, begun.idle_s) == (3, 0, 0, None)
    assert (begun.complete, begun.segmenter, begun.scheduler) == (False, "plain", "fixed")

    with pytest.raises(Killed):
        run_inline(config, 1, killed_after(5))  # type: ignore[arg-type]
    amid = read_status(config.output)
    parts = len(list(Path(config.output).glob("frames/*/*.parquet")))
    assert (amid.parts, amid.done, amid.complete) == (parts, 1, False)
    assert 0 < parts and amid.bytes > 0 and amid.idle_s is not None and amid.idle_s < 600
    assert 0 < amid.frames < 67 and amid.keys > 0
    assert sum(video.parts for video in amid.open_videos) == parts

    run_inline(config, 1)
    open_store(config.output).put(SUCCESS_KEY, b"")
    after = read_status(config.output)
    assert (after.ok, after.quarantined, after.frames, after.complete) == (2, 1, 67, True)
    assert after.open_videos == [] and list(after.reasons) == ["not_a_video"]


def test_people_and_programs_read_it(config: SegmentConfig, capsys: pytest.CaptureFixture[str]) -> None:
    run_inline(config, 1)
    assert main(["status", config.output]) == 0
    text = capsys.readouterr().out
    assert "videos done" in text and "1 quarantined" in text and "not_a_video" in text
    assert main(["status", "--run", config.output, "--log", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["event"], found["done"], found["frames"]) == ("status", 3, 67)


def test_where_no_run_is_the_message_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no run of vidseg segment" in capsys.readouterr().err
