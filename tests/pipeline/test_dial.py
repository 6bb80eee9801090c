"""Promise: with `--max_drop` or `--budget` a run chooses its scheduler once, says what it promised and what
came of it, and whoever continues the run uses the same choice.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import dial as benchmark
from tests.pipeline.conftest import RunJob, small_config
from vidseg_core.calibration.calibrate import PLANS_FROM_OPS, worth_trying
from vidseg_core.calibration.dial import SampleDial
from vidseg_core.calibration.tasks import tried_names
from vidseg_core.calibration.ways import Prices
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline import pace
from vidseg_core.pipeline.pace import measure_pace
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.store import open_run
from vidseg_core.store.keys import CALIBRATION_KEY

SMALL = {
    "scheduler": SchedulerConfig(max_interval=20),
    "calibration": CalibrationConfig(
        clips=3, clip_frames=24, schedulers=("fixed", "frame_difference"), audit_frames=8
    ),
}


def test_the_choice_is_made_once_kept_and_said(corpus: Path, tmp_path: Path, run_locally: RunJob) -> None:
    output = tmp_path / "out"
    code, text = run_locally(corpus, output, budget=0.2, **SMALL)
    assert code == 0 and "expected fidelity" in text and "promise" in text
    assert "even keys beside it" in text and "3 runs of frames are too few to promise anything" in text
    info = json.loads((output / "run.json").read_text())
    dial = info["dial"]
    assert dial["asked"] == {"budget": 0.2}
    assert dial["chosen"]["name"] == info["config"]["scheduler"]["name"]
    assert dial["promised"]["key_share"] <= 0.2
    assert dial["achieved"]["key_share"] == info["totals"]["keys"] / info["totals"]["frames"]
    tried = [row["propagator"] for row in dial["ways"]]
    assert tried == ["flow_warp", "copy"]  # with so cheap a net
    carrier = dial["propagation"].get("name", "flow_warp")
    assert info["config"]["propagation"]["name"] == carrier
    assert re.search(rf"propagator +{carrier} \(at equal cost", text)
    assert dial["achieved"]["audit"]["frames"] >= 4 and 0 < dial["achieved"]["audit"]["fidelity"] <= 100

    stored = (output / CALIBRATION_KEY).read_bytes()
    (output / "_SUCCESS").unlink()
    _, text = run_locally(corpus, output, budget=0.2, dry_run=True, **SMALL)
    assert "calibration would" not in text and f"scheduler {dial['chosen']['name']}" in text
    code, text = run_locally(corpus, output, budget=0.2, **SMALL)
    assert code == 0 and "calibrating" not in text
    assert (output / CALIBRATION_KEY).read_bytes() == stored

    code, text = run_locally(corpus, output, max_drop=1.0, **SMALL)
    assert code == 2 and "was calibrated for something else" in text and "budget" in text


def test_where_looking_costs_more_than_the_job_nothing_is_looked_at(
    corpus: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    """A minute of one clip took four minutes of calibration."""
    small = {"segmenter": "tiny-scenes", "scheduler": SchedulerConfig(max_interval=20)}
    code, text = run_locally(corpus, tmp_path / "budget", budget=0.15, **small)
    assert code == 0 and "calibrating would cost" in text and "--calibration.clips 12" in text
    info = json.loads((tmp_path / "budget" / "run.json").read_text())
    assert info["dial"]["chosen"] == {"name": "fixed", "interval": 8}  # at 7 first keys are too many
    assert info["dial"]["kept"] is True
    assert info["config"]["scheduler"]["max_interval"] == 20
    assert info["dial"]["promised"]["fidelity"] is None and info["dial"]["achieved"]["audit"] is None

    printed = io.StringIO()
    again = small_config(corpus, tmp_path / "budget", budget=0.15, dry_run=True, **small)
    assert run_segment(again, Reporter("text", printed), SampleDial()) == 0
    assert "is complete already" in printed.getvalue()

    code, text = run_locally(corpus, tmp_path / "drop", max_drop=1.0, **small)
    dial = json.loads((tmp_path / "drop" / "run.json").read_text())["dial"]
    assert code == 0 and dial["chosen"] == {"name": "every"} and dial["kept"] is True


def test_a_dry_run_says_what_calibration_costs_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    printed = io.StringIO()
    config = small_config(corpus, tmp_path / "out", max_drop=1.0, dry_run=True, **SMALL)
    assert run_segment(config, Reporter("text", printed), SampleDial()) == 0
    assert "calibration would look at 3 runs, 72 frames" in printed.getvalue()
    said = re.search(r"propagators on the first 17 frames, a key every 8: (.*);", printed.getvalue())
    one = r"\w+ \d+\.\d ms a frame, fidelity \d+\.\d"
    assert said and re.fullmatch(f"{one}; {one}; {one}", said[1])
    assert not list((tmp_path / "out").rglob("*.json"))


class Asked(Exception):
    """The engine was asked for."""


def test_a_dry_run_that_would_try_grids_measures_a_run_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended with what is said of grids to try where there is no dial."""

    def build(config: SegmentConfig, device: str) -> Any:
        assert not config.has_dial and config.regions == RegionsConfig()
        raise Asked

    monkeypatch.setattr(pace, "build_engine", build)
    tried, regions = CalibrationConfig(grids=("2x2",)), RegionsConfig(overlap=8)
    config = small_config(
        "a", "b", budget=0.8, calibration=tried, regions=regions, scheduler=SchedulerConfig()
    )
    with pytest.raises(Asked):
        measure_pace(config, "cpu", "a", shard=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("budget", "interval", "exceeded"), [(0.15, 8, False), (0.05, 13, True)])
def test_a_dry_run_reckons_with_what_would_be_chosen_without_a_look(
    budget: float, interval: int, exceeded: bool, corpus: Path, tmp_path: Path
) -> None:
    printed = io.StringIO()
    small = {"segmenter": "tiny-scenes", "scheduler": SchedulerConfig(max_interval=13)}
    config = small_config(corpus, tmp_path / "out", budget=budget, dry_run=True, **small)
    assert run_segment(config, Reporter("text", printed), SampleDial()) == 0
    text = printed.getvalue()
    assert f"scheduler fixed (interval {interval}, at most 13 frames" in text
    assert ("so the budget is exceeded" in text) == exceeded


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"calibration": CalibrationConfig(schedulers=("policy",))}, "needs its file"),
        (
            {"scheduler": SchedulerConfig(name="plug_of_the_dial:Own")},
            "cannot set the threshold of a plug-in",
        ),
    ],
)
def test_what_the_dial_cannot_try_is_reported(
    options: dict[str, Any], says: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plug_of_the_dial.py").write_text(
        "class Own:\n    needs_flow, avoids_corrupt, threshold = False, True, 0.5\n"
        "    def score(self, deviation):\n        return 0.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    printed = io.StringIO()
    config = small_config(corpus, tmp_path / "out", max_drop=1.0, dry_run=True, **(SMALL | options))
    assert run_segment(config, Reporter("text", printed), SampleDial()) == 2
    assert says in printed.getvalue()


def test_the_planner_is_tried_where_the_net_costs_enough_or_where_it_is_asked_for() -> None:
    def tried(net_ops: float, **options: Any) -> tuple[bool, bool, bool]:
        """(whether the planner is among them, whether `split` is, whether it is said that they are not)."""
        printed = io.StringIO()
        config = SegmentConfig(input=("a",), output="b", segmenter="plain", budget=0.2, **options)
        names = worth_trying(config, tried_names(config), net_ops, Reporter("text", printed))
        assert "fixed" in names
        said = "planner and split are not tried" in printed.getvalue()
        return "planner" in names, "split" in names, said

    asked = SchedulerConfig(name="planner", max_interval=20)
    assert tried(PLANS_FROM_OPS / 2) == tried(0.0) == (False, False, True)
    assert tried(PLANS_FROM_OPS) == tried(0.0, scheduler=asked) == (True, True, False)
    assert tried(0.0, calibration=CalibrationConfig(schedulers=("fixed", "planner"))) == (True, False, False)


def test_a_grid_that_was_named_is_kept_and_pixels_are_counted(
    corpus: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    """Regions were refused with a budget, which counted whole frames."""
    cut = {"regions": RegionsConfig(grid="2x2", overlap=8)}
    few = CalibrationConfig(clips=2, clip_frames=16, schedulers=("fixed", "frame_difference"), audit_frames=4)
    code, text = run_locally(corpus, tmp_path / "out", budget=0.3, **(SMALL | cut | {"calibration": few}))
    assert code == 0 and "the net on the crops of regions 2x2 with overlap 8" in text
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    dial = info["dial"]
    assert dial["regions"] == {"grid": "2x2", "overlap": 8} and info["config"]["regions"]["grid"] == "2x2"
    assert dial["promised"]["key_share"] <= 0.3 and dial["ways"] == []
    assert dial["achieved"]["key_share"] == pytest.approx(1 / info["totals"]["aki"])
    assert dial["achieved"]["audit"]["fidelity"] > 50
    run = open_run(str(tmp_path / "out"))
    (row, *_) = run.rows(run.videos().to_pylist()[0]["video_id"])
    assert row["region_keys"] == [True] * 4


def test_grids_are_tried_beside_whole_frames(corpus: Path, tmp_path: Path, run_locally: RunJob) -> None:
    few = CalibrationConfig(clips=2, clip_frames=16, schedulers=("fixed",), grids=("2x2",), audit_frames=0)
    options = SMALL | {"calibration": few, "propagation": PropagationConfig(name="copy", flow_size=64)}
    code, text = run_locally(corpus, tmp_path / "out", budget=0.8, **options)
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert code == 0, text
    assert len(info["dial"]["grids"]) == 2, text
    whole, cut = info["dial"]["grids"]
    assert (whole["grid"], cut["grid"]) == ("1x1", "2x2") and cut["key_share"] <= 0.8
    assert cut["crops"] >= 1.5  # 96x128 with overlap 16
    chosen = "2x2" if cut["difference"][0] > 0 else "1x1"
    assert info["config"]["regions"]["grid"] == chosen
    assert re.search(rf"regions +{chosen} \(at equal cost or less: 1x1 .*; 2x2 ", text)


def test_the_benchmark_asks_the_dial_which_schedulers_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """It called the dial as it was before that took the schedulers at hand."""
    config = SegmentConfig(input=("a",), output="b", segmenter="plain", max_drop=1.0)
    monkeypatch.setattr(benchmark, "expand_inputs", lambda inputs: [])
    monkeypatch.setattr(benchmark, "draw_sample", lambda *args: SimpleNamespace(units=[]))
    monkeypatch.setattr(benchmark, "look_at_all", lambda *args: ([], [], 0.0, Prices(1e9)))
    assert benchmark.measure("none", config, [1.0]) == []


def test_a_run_goes_on_with_the_planner_that_was_chosen(
    corpus: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    only = CalibrationConfig(clips=2, clip_frames=24, schedulers=("planner",), audit_frames=8)
    code, text = run_locally(corpus, tmp_path / "out", budget=0.3, **(SMALL | {"calibration": only}))
    assert code == 0 and "planner" in text
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    scheduler = info["config"]["scheduler"]
    assert (scheduler["name"], scheduler["policy"]) == ("planner", "tiny-planner")
    assert 0 < info["dial"]["achieved"]["key_share"] < 0.5 and info["totals"]["keys"] > 2
