"""Promise: DuckDB and pandas read a run without this package, before and after a compaction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.builders import put_run
from vidseg_core.store import compact, open_store

DUCKDB = """
import sys, duckdb
frames = f"read_parquet('{sys.argv[1]}/frames/**/*.parquet', hive_partitioning=true)"
columns = "count(*), count(distinct frame_index), sum(is_key::int), sum(list_sum(class_pixels))"
query = f"select video, video_id, {columns}, count(decision_score) from {frames} group by all order by video"
for row in duckdb.sql(query).fetchall():
    print(*row)
print(duckdb.sql(f"select sum(decoded_frames) from '{sys.argv[1]}/videos/*.parquet'").fetchall()[0][0])
assert not any(name.startswith("vidseg") for name in sys.modules)
"""
PANDAS = """
import sys, pandas
frames = pandas.read_parquet(sys.argv[1] + "/frames")
assert (frames["video"].astype(str) == frames["video_id"]).all()
print(len(frames), frames["is_key"].sum(), sorted(frames["video_id"].unique()))
assert not any(name.startswith("vidseg") for name in sys.modules)
"""


@pytest.fixture(params=["parts", "compacted"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    put_run(open_store(tmp_path / "run"))
    if request.param == "compacted":
        compact(tmp_path / "run")
    return str(tmp_path / "run")


def _run(program: str, output: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, output], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_duckdb_reads_the_tables(output: str) -> None:
    assert _run(DUCKDB, output) == [
        f"a a 30 30 5 {30 * 24 * 40} 25",
        f"a-1f a-1f 60 60 10 {60 * 24 * 40} 50",
        "90",
    ]


def test_pandas_reads_the_tables(output: str) -> None:
    assert _run(PANDAS, output) == ["90 15 ['a', 'a-1f']"]
