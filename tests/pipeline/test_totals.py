"""Promise: a run's totals are the sums over its rows, however the rows are batched, and every row that is not
ok is kept for a person to see."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.kit.whole import totals_of
from vidseg_core.store.schema import VIDEOS_SCHEMA

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["ok", "partial", "quarantined"]),
            "decoded_frames": st.integers(0, 10**6),
            "corrupt_frames": st.integers(0, 9),
            "keys": st.integers(0, 10**3),
            "duration_s": st.none() | st.integers(0, 10**4).map(float),
            "cpu_s": st.integers(0, 10**4).map(float),
        }
    ),
    max_size=30,
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    usual = {"video_id": "v", "uri": "u", "gpu_s": 0.0}
    return pa.Table.from_pylist([usual | row for row in rows], schema=VIDEOS_SCHEMA)


@given(ROWS, st.integers(1, 9))
def test_totals_are_the_sums(rows: list[dict[str, Any]], size: int) -> None:
    found = totals_of(table_of(rows[at : at + size]) for at in range(0, len(rows), size))
    frames, keys = (sum(row[name] for row in rows) for name in ("decoded_frames", "keys"))
    assert found.figures == {
        "videos": len(rows),
        **{name: sum(row["status"] == name for row in rows) for name in ("ok", "partial", "quarantined")},
        "frames": frames,
        "corrupt_frames": sum(row["corrupt_frames"] for row in rows),
        "keys": keys,
        "aki": frames / keys if keys else None,
        "key_net_calls_saved": frames - keys,
        "duration_s": sum(row["duration_s"] or 0.0 for row in rows),
        "cpu_s": sum(row["cpu_s"] for row in rows),
        "gpu_s": 0.0,
    }
    assert found.not_ok == table_of([row for row in rows if row["status"] != "ok"])
    assert found.exit_code == (3 if found.figures["quarantined"] else 0)
