"""Promise: `evaluate` hands a plug-in scheduler its interval, typed or usual; an interval that a plug-in
cannot have is refused in one sentence.

Why: an interval that was typed and equals the usual one was taken for none, and the plug-in used its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.evaluation.small import config
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine.assemble import check_parts
from vidseg_core.evaluation.bench import build_method, make_bench
from vidseg_core.scheduling import scheduler_of

PLUG_INS = """
class NoInterval:
    needs_flow, avoids_corrupt, threshold = False, False, 0.5

    def score(self, deviation):
        return 0.0


class Own(NoInterval):
    def __init__(self, interval=25):
        self.interval = interval
"""


@pytest.fixture(autouse=True)
def _plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interval_plugs.py").write_text(PLUG_INS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "interval_plugs", raising=False)


def schedulers(*methods: str) -> list[object]:
    """The scheduler of each method, as `evaluate` builds it."""
    settings = config("unused", methods=methods)
    bench = make_bench(settings, "cpu")
    return [build_method(bench, method, None)[0].scheduler for method in settings.parsed_methods()]


@pytest.mark.parametrize(
    ("options", "intervals"), [(":interval=6,12,24", [6, 12, 24]), ("", [12]), (":interval=12", [12])]
)
def test_evaluate_hands_over_the_interval(options: str, intervals: list[int]) -> None:
    found = schedulers(f"interval_plugs:Own{options}")
    assert [scheduler.interval for scheduler in found] == intervals  # pyright: ignore


@pytest.mark.parametrize("typed", ["12", "6,24"])
def test_evaluate_refuses_an_interval_that_nobody_takes(typed: str) -> None:
    assert len(schedulers("interval_plugs:NoInterval")) == 1
    with pytest.raises(ConfigError, match="NoInterval' has no option 'interval' .takes: no options"):
        schedulers(f"interval_plugs:NoInterval:interval={typed}")


@pytest.mark.parametrize("name", ["Own", "NoInterval"])
def test_segment_leaves_a_plug_in_its_own_interval(name: str) -> None:
    plug_in = SchedulerConfig(name=f"interval_plugs:{name}")
    assert getattr(scheduler_of(plug_in), "interval", 25) == 25
    check_parts(SegmentConfig(input=("a",), output="b", segmenter="plain", scheduler=plug_in))
    asked = SchedulerConfig(name=f"interval_plugs:{name}", interval=7)
    with pytest.raises(ConfigError, match="--scheduler.interval: goes with fixed, random; a plug-in has"):
        check_parts(SegmentConfig(input=("a",), output="b", segmenter="plain", scheduler=asked))
