"""Promise: what a frame says is spelled once: a new nullable column takes a field of the engine's result, the
value where it is known, and a line of the schema.

Why: the columns stood in thirteen places, and a column that was forgotten in one of them was found by a user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from tests.pipeline.clips import make_corpus
from vidseg_core.engine import FrameResult
from vidseg_core.pipeline.rows import PartMessage, frame_columns, frames_of, messages, to_table

ROOT = Path(__file__).parents[2]
PATCH = {
    "engine/frames.py": (
        "    is_corrupt: bool\n    labels_HW",
        "    is_corrupt: bool\n    novelty: float | None = None\n    labels_HW",
    ),
    "engine/engine.py": ("return FrameResult(\n", "return FrameResult(\n        novelty=0.5,\n"),
    "store/schema.py": (
        '        _column("height", pa.int32()),  # of the mask\n',
        '        _column("novelty", pa.float64(), nullable=True),\n        _column("height", pa.int32()),\n',
    ),
}
"""What adds a column that keys know and other frames do not."""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one column more."""
    root = tmp_path_factory.mktemp("patched")
    shutil.copytree(ROOT / "vidseg_core", root / "vidseg_core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "jobs", root / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (before, after) in PATCH.items():
        path = root / "vidseg_core" / name
        assert path.read_text().count(before) == 1, name
        path.write_text(path.read_text().replace(before, after))
    return root


def test_three_files_add_a_column(patched: Path, tmp_path: Path) -> None:
    clips = make_corpus(tmp_path / "in", (20,))
    options = [
        "--segmenter",
        "plain",
        "--scheduler.interval",
        "6",
        "--shard_frames",
        "8",
        "--executor",
        "local",
    ]
    command = [sys.executable, "-m", "jobs.segment", "--input", str(clips), "--output", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(patched)}
    done = subprocess.run(
        [*command, *options], cwd=patched, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    files = f"'{tmp_path}/out/frames/**/*.parquet'"
    query = f"select is_key, novelty, count(*) from {files} group by all order by all"
    found = duckdb.connect().execute(query).fetchall()
    assert found == [(False, None, 16), (True, 0.5, 4)]


def test_a_part_comes_out_of_its_message_as_it_went_in() -> None:
    masks = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    rows = [
        FrameResult(
            frame_index=n,
            pts_s=float("nan") if n else 0.04,
            is_key=not n,
            key_frame_index=0,
            decision_score=float("-inf"),
            kar=0.5,
            lkd=n,
            is_corrupt=False,
            labels_HW=masks[n],
            region_keys=[True, False] if n else None,
            region_key_frame_index=[1, 0] if n else None,
            region_scores=[float("inf"), 0.25] if n else None,
            key_share=0.5 if n else None,
        )
        for n in range(2)
    ]
    part = PartMessage("v", 0, 1, height=3, width=4)
    table = to_table(part, masks.reshape(-1), frame_columns(FrameResult, rows))
    again = frames_of(table, 0, masks)
    assert messages(table, PartMessage)[0][0] == part
    for row, frame in zip(rows, again, strict=True):
        for name in FrameResult.__slots__:
            np.testing.assert_equal(getattr(frame, name), getattr(row, name))
