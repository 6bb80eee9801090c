"""Promise: the oracle of an evaluation runs the best schedule of tables that were made as the evaluation is,
and is refused any others.

Why: a bound of other masks, another net or another size is above or below what schedulers could reach.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.evaluation.small import SMALL, config, evaluate_here, small_tables
from tests.training.small import shaken, written
from vidseg_core.config.build_episodes import TablePropagationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import parse_methods
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig
from vidseg_core.episodes.oracle import divide, one_sided_curve
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.walk import walk
from vidseg_core.evaluation import oracle
from vidseg_core.evaluation.clips import clips_of
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.lvs import new_lvs
from vidseg_core.models.registry import build_segmenter


def test_the_oracle_runs_the_best_schedule_of_the_tables(tmp_path: Path) -> None:
    tables = small_tables(tmp_path / "tables")
    settings = config(
        tmp_path / "out",
        segmenter="labels",
        tables=str(tables),
        methods=("oracle:interval=5,max_interval=8", "fixed:interval=5"),
    )
    code, bad, _ = evaluate_here(settings)
    data = open_evaluation(tmp_path / "out")
    (table,) = load_tables(tables)
    curve = one_sided_curve(table)
    keys = curve.schedule(curve.best_within(3))
    oracle, fixed = (row for row in data.results if row["clip"] == table.clip)
    frames = data.frames[table.clip, oracle["method_id"]]
    assert np.flatnonzero(frames["is_key"]).tolist() == keys.tolist()
    best = float(curve.total_M1[curve.best_within(3)]) / 14
    assert oracle["frame_miou"] == pytest.approx(best, abs=1e-6) and best >= fixed["frame_miou"] - 1e-9
    assert code == 3 and [(row["reason"], row["method"]) for row in bad] == [
        ("no_table", "oracle interval=5")
    ]


def test_the_oracle_of_regions_has_one_budget_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each region has keys of its own, where they are worth most."""
    tables = small_tables(tmp_path / "tables", regions=RegionsConfig(grid="1x2", overlap=8))
    cut = "regions=1x2,overlap=8"
    settings = config(
        tmp_path / "out",
        segmenter="labels",
        tables=str(tables),
        limit=1,
        methods=(f"oracle:interval=3,max_interval=8,{cut}", f"fixed:interval=5,{cut}"),
    )
    assert evaluate_here(settings)[0] == 0
    best, even = open_evaluation(tmp_path / "out").results
    assert even["key_share"] < best["key_share"] <= 1 / 3
    left, right = load_tables(tables)
    method, (clip,) = settings.parsed_methods()[0], clips_of(settings)
    keys = oracle.oracle_keys(settings, method, clip)
    assert 4 <= sum(map(len, keys)) <= 7  # 5/8 of a frame each, of 4.67 frames
    assert keys[0] != keys[1]
    totals = [
        sum(walk(table, sorted(each)).total for table, each in zip((left, right), found, strict=True))
        for found in (keys, [set(range(0, 14, 5))] * 2)
    ]
    assert totals[0] > totals[1]
    worth: list[Any] = []

    def noting(*given: Any, **options: Any) -> Any:
        worth.append(options["worth"])
        return divide(*given, **options)

    monkeypatch.setattr(oracle, "divide", noting)
    oracle.oracle_keys(settings, method, clip)
    with monkeypatch.context() as adding_up:
        made = {**left.fingerprint, "quality": "weighted"}
        adding_up.setattr(oracle, "_made_with", lambda config: made)
        oracle.oracle_keys(settings, method, clip)
    assert worth == [[48 * 32] * 2, None]  # what adds up counts as it is
    still = [{"clip": right.clip, "reason": "single_class", "frames": 14}]
    monkeypatch.setattr(oracle, "read_segments", lambda _: still)
    alone = oracle.oracle_keys(settings, method, clip)
    assert len(alone[1]) == 2 and len(alone[0]) >= len(keys[0])  # as few as the horizon allows
    (other,) = parse_methods(("oracle:interval=3,regions=2x1,overlap=8",), SMALL)
    with pytest.raises(ConfigError, match="tables of regions 1x2 with overlap 8 there, regions 2x1"):
        oracle.check_tables(settings, other, {}, ())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "clockwork", "level": "features", "sides": "one", "clock": 3}, "made with clock 1, not 3"),
        ({"name": "match", "sides": "two"}, "match remembers through keys"),
    ],
)
def test_masks_that_no_table_holds_have_no_oracle(
    options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best schedule would be that of other masks."""
    carried = PropagationConfig(**options)
    there = {
        "segmenter": "plain",
        "working_size": "512",
        "propagation.name": carried.name,
        "propagation.level": carried.level,
        "propagation.flow": "dis",
        "propagation.flow_size": "256",
    }
    monkeypatch.setattr(oracle, "_tables", lambda _: {"clip": [SimpleNamespace(fingerprint=there)]})
    settings = config("out", tables="tables", methods=("oracle:interval=5",), propagation=carried)
    (method,) = parse_methods(settings.methods, carried)
    with pytest.raises(ConfigError, match=f"--tables: no oracle for oracle.*{says}"):
        oracle.check_tables(settings, method, {}, ())


def test_an_oracle_is_refused_tables_of_another_net_size_or_propagation(tmp_path: Path) -> None:
    tables = small_tables(tmp_path / "tables")
    base = config(
        tmp_path / "out", segmenter="labels", tables=str(tables), methods=("oracle:interval=5",), dry_run=True
    )
    assert run_evaluate(base, Reporter("text", io.StringIO())) == 0
    for changed, says in (
        ({"segmenter": "plain"}, "segmenter: labels there, plain here"),
        ({"working_size": "48"}, "working_size: 512 there, 48 here"),
        (
            {"data": tuple(f"{source}?regions=2x2&overlap=4" for source in base.data)},
            "tables of whole frames there, regions 2x2 with overlap 4 here",
        ),
        ({"methods": ("oracle:interval=5,flow_size=32",)}, "propagation.flow_size: 64 there, 32 here"),
        (
            {"methods": ("oracle:interval=5,propagation=copy",)},
            "propagation.name: flow_warp there, copy here",
        ),
    ):
        with pytest.raises(ConfigError, match=rf"--tables: no oracle for oracle.*{says}"):
            run_evaluate(replace(base, **changed), Reporter("text", io.StringIO()))
    run_evaluate(
        replace(base, methods=("fixed:interval=5",), segmenter="plain"), Reporter("text", io.StringIO())
    )


def test_an_oracle_is_refused_tables_of_other_weights_of_lvs(tmp_path: Path) -> None:
    """It took its keys from what other weights carry, and was called the best schedule."""
    net = new_lvs(build_segmenter("tiny-scenes"))
    plain, other = written(net, tmp_path / "a.safetensors"), written(shaken(net), tmp_path / "b.safetensors")
    way: dict[str, Any] = {"name": "lvs", "level": "features", "flow_size": 64}
    propagation = TablePropagationConfig(**way, weights=plain)
    tables = small_tables(tmp_path / "tables", segmenter="tiny-scenes", propagation=propagation)

    def settings(weights: str) -> EvaluateConfig:
        return config(
            tmp_path / "out",
            segmenter="tiny-scenes",
            tables=str(tables),
            methods=("oracle:interval=5",),
            propagation=PropagationConfig(**way, sides="one", weights=weights),
            dry_run=True,
        )

    assert run_evaluate(settings(plain), Reporter("text", io.StringIO())) == 0
    with pytest.raises(ConfigError, match="--tables: no oracle for oracle.*propagation_sha256"):
        run_evaluate(settings(other), Reporter("text", io.StringIO()))
