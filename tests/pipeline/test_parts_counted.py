"""Promise: `videos.parts` is what the listing of a video's frames must show, however the run came about.

Why: a marker says that everything was committed; only a count says how much that was, so that a part, a
folder or all of `frames/` that is gone is seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import Killed, run_inline
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.pipeline.ending import close_video
from vidseg_core.pipeline.rows import Receipt
from vidseg_core.pipeline.tally import SegmentTally, VideoTally, quarantine_row
from vidseg_core.store import committed_parts, compact, open_run, open_store


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), (26, 41))


def config_of(clips: Path, output: Path) -> SegmentConfig:
    return small_config(clips, output, segmenter="plain", segment_frames=20)


def counted(config: SegmentConfig) -> dict[str, tuple[int, int]]:
    """What the row says and what is there, by video."""
    store = open_store(config.output)
    rows = open_run(config.output).videos().to_pylist()
    return {
        row["video_id"]: (row["parts"], len(list(committed_parts(store, row["video_id"])))) for row in rows
    }


@pytest.mark.parametrize("kills", [(), (1,), (4, 2), (9,)])
def test_it_is_right_after_kills_and_replays(clips: Path, tmp_path: Path, kills: tuple[int, ...]) -> None:
    config = config_of(clips, tmp_path / "out")
    for commits in kills:
        left = [commits]

        def tick(where: str, left: list[int] = left) -> None:
            left[0] -= where == "after commit"
            if left[0] < 0:
                raise Killed

        with pytest.raises(Killed):
            run_inline(config, 1, tick)
    run_inline(config, 1)
    found = counted(config)
    assert len(found) == 2
    assert all(said == there > 0 for said, there in found.values())


def test_it_counts_shards_also_where_they_are_merged(clips: Path, tmp_path: Path) -> None:
    config = config_of(clips, tmp_path / "out")
    run_inline(config, 1)
    before = counted(config)
    compact(config.output, force=True)
    assert counted(config) == before


def test_a_quarantined_video_has_the_parts_that_it_had_committed(clips: Path, tmp_path: Path) -> None:
    config = config_of(clips, tmp_path / "out")
    run_inline(config, 1)
    store = open_store(config.output)
    video_id, (there, _) = next(iter(counted(config).items()))
    store.delete(f"videos/{video_id}.parquet")
    tally = VideoTally(video_id, "a.mp4", {}, 26, None, {0: SegmentTally(parts=90), 1: SegmentTally(parts=2)})
    tally.take(Receipt(video_id, 0, -1, closed=True, fatal="decode_timeout", totals={"error": "why"}))
    tally.take(Receipt(video_id, 1, -1, closed=True, fatal="decode_timeout", totals={"error": "why"}))
    assert tally.done
    close_video(store, tally.row("cpu"))
    assert counted(config)[video_id] == (there, there)


def test_a_video_that_never_opened_has_none(tmp_path: Path) -> None:
    store = open_store(tmp_path / "out")
    close_video(store, quarantine_row("v", "v.mp4", "not_a_video", "no"))
    assert open_run(store.root).videos()["parts"].to_pylist() == [0]
