"""Promise: a digest of `benchmarks.digests` changes with every result of a run, and with nothing else.

Why: it is what shows that a change to the code changed no mask; one that misses a change is worse than none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import digests
from vidseg_core.cli.verbs import VERBS
from vidseg_core.config.cli import parse

FRAME: dict[str, Any] = {
    "video_id": "a",
    "frame_index": 0,
    "pts_s": 0.0,
    "is_key": True,
    "key_frame_index": 0,
    "decision_score": float("inf"),
    "kar": 1.0,
    "lkd": 0,
    "is_corrupt": False,
    "height": 2,
    "width": 2,
    "mask": b"\x01",
}
VIDEO: dict[str, Any] = {
    "video_id": "a",
    "status": "ok",
    "reason": None,
    "decoded_frames": 2,
    "corrupt_frames": 0,
    "keys": 1,
}


def run_with(folder: Path, *frames: dict[str, Any], **video: Any) -> Path:
    """A run of one video, a part for each frame."""
    (folder / "frames" / "video=a").mkdir(parents=True)
    (folder / "videos").mkdir()
    for number, frame in enumerate(frames):
        pq.write_table(
            pa.Table.from_pylist([frame]), folder / "frames" / "video=a" / f"part-{number}.parquet"
        )
    pq.write_table(pa.Table.from_pylist([VIDEO | video]), folder / "videos" / "a.parquet")
    return folder


def test_parts_and_columns_that_come_later_change_nothing(tmp_path: Path) -> None:
    second = FRAME | {"frame_index": 1, "is_key": False}
    one = digests.masks_of(run_with(tmp_path / "one", FRAME, second))
    other = digests.masks_of(
        run_with(tmp_path / "other", second | {"later": 1}, FRAME | {"later": 2}, cpu_s=3.0)
    )
    assert one == other and one.endswith("2 frames, 1 keys")


@pytest.mark.parametrize("column", [name for name in FRAME if name != "video_id"])
def test_every_value_of_a_frame_counts(column: str, tmp_path: Path) -> None:
    value = FRAME[column]
    changed = value + b"\x02" if isinstance(value, bytes) else (not value if isinstance(value, bool) else 7)
    before = digests.masks_of(run_with(tmp_path / "one", FRAME))
    assert digests.masks_of(run_with(tmp_path / "other", FRAME | {column: changed})) != before


def test_what_became_of_a_video_counts(tmp_path: Path) -> None:
    before = digests.masks_of(run_with(tmp_path / "one", FRAME))
    assert digests.masks_of(run_with(tmp_path / "other", FRAME, status="partial")) != before


def test_differences_name_the_runs_of_both() -> None:
    there, here = {"fixed": "1", "gone": "2", "every": "3"}, {"fixed": "1", "new": "2", "every": "4"}
    assert digests.differences(there, here) == ["every: 3 there, 4 here"]


def test_every_command_is_understood(tmp_path: Path) -> None:
    runs = digests.the_runs(real=True)
    places = dict.fromkeys(runs, str(tmp_path))
    for run in runs.values():
        words = [word.format_map(places) for word in run.options.split()]
        parse(run.verb, VERBS[run.verb].config_class(), [*words, "--output", "out"])
