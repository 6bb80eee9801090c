"""Promise: names that the configuration lists are the names that the packages below register.

The configuration imports none of them (help must be quick), so the two lists can only be held together here.
"""

from __future__ import annotations

import inspect

import pytest

from vidseg_core.config import catalogue, nets, segment
from vidseg_core.config.catalogue import SCHEDULERS
from vidseg_core.config.errors import ConfigError


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_catalogue_says_what_a_scheduler_is(name: str) -> None:
    from vidseg_core import scheduling

    entry, cls = SCHEDULERS[name], scheduling.SCHEDULERS.find(name)
    takes = set(inspect.signature(cls).parameters)
    assert entry.scores == ("threshold" in takes)
    assert entry.takes_interval == ("interval" in takes)
    assert bool(entry.trained_by) == ("policy" in takes)
    assert entry.looks_ahead == hasattr(cls, "plan")
    assert entry.looks_ahead or entry.unit or not entry.scores


def test_the_planner_in_the_package() -> None:
    from vidseg_core.models.planner import BUNDLED_PLANNER, planner_file

    assert SCHEDULERS["planner"].file == BUNDLED_PLANNER == segment.SchedulerConfig(name="planner").policy
    assert planner_file(BUNDLED_PLANNER).is_file()


def test_what_the_catalogue_names_is_there() -> None:
    from vidseg_core.propagation import FLOW_ESTIMATORS, PROPAGATORS
    from vidseg_core.registry import load

    assert sorted(catalogue.FLOWS) == sorted(FLOW_ESTIMATORS)
    assert all(load(catalogue.FLOWS[name].net) for name in catalogue.NET_FLOWS)
    assert all(PROPAGATORS.find(name) for name in catalogue.PROPAGATORS)


def test_segmenters() -> None:
    from vidseg_core.models.registry import SEGMENTER_NAMES

    assert sorted(nets.NETS) == sorted(name for name in SEGMENTER_NAMES if ":" not in name)
    assert {name.partition(":")[0] for name in SEGMENTER_NAMES if ":" in name} == set(nets.NET_FAMILIES)


@pytest.mark.parametrize(
    ("text", "size"), [("512", (288, 512)), ("64", (40, 64)), ("96x128", (96, 128)), ("4096", (1080, 1920))]
)
def test_working_size_means_the_same_to_the_media_package(text: str, size: tuple[int, int]) -> None:
    from vidseg_core.media import working_size

    config = segment.SegmentConfig(input=("a",), output="b", segmenter="plain", working_size=text)
    assert working_size(1920, 1080, config.working_size_spec) == size


def test_config_errors_are_value_errors() -> None:
    assert issubclass(ConfigError, ValueError)
