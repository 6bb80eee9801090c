"""Promise: an operator's counters agree with the table; the dashboard asks for counters that exist."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.pipeline import telemetry

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"


def test_counts_agree_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    monkeypatch.setattr(telemetry, "count", lambda name, value=1.0, **tags: counted.update({name: value}))
    monkeypatch.setattr(telemetry, "observe", lambda name, value: counted.update([name]))
    run_inline(small_config(make_corpus(tmp_path / "in", (26, 41)), tmp_path / "out", shard_frames=8), 2)
    rows = rows_without_package(tmp_path / "out")
    assert counted["frames"] == counted["decoded_frames"] == len(rows) == 67
    assert counted["keys"] == sum(row[2] for row in rows)
    assert counted["commit_seconds"] == len(list((tmp_path / "out").glob("frames/*/*.parquet")))
    assert counted["decode_seconds"] > 0 and counted["engine_seconds"] > 0


@pytest.mark.ray
def test_ray_takes_every_one_of_them(local_ray: None) -> None:
    for name, (_, tags) in telemetry.COUNTERS.items():
        telemetry.count(name, 1.0, **dict.fromkeys(tags, "x"))
        assert telemetry._metric(name).info["name"] == f"vidseg_{name}"
    for name in telemetry.HISTOGRAMS:
        telemetry.observe(name, 0.1)


def test_the_dashboard_asks_for_counters_that_exist() -> None:
    board = json.loads(DASHBOARD.read_text())
    text = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    asked = set(re.findall(r"ray_vidseg_([a-z_]+?)(?:\(_total\)|_bucket)", text))
    assert asked == set(telemetry.COUNTERS) | set(telemetry.HISTOGRAMS)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and all(panel["title"] for panel in board["panels"])
