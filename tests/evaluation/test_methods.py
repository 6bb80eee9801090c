"""Promise: a line names a scheduler and any of its options, several values are several methods, and what is
wrong is reported before anything runs.
"""

from __future__ import annotations

import pytest

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import parse_methods
from vidseg_core.config.segment import PropagationConfig


def names(*texts: str) -> list[str]:
    return [method.name for method in parse_methods(texts, PropagationConfig())]


def test_several_values_are_several_methods() -> None:
    assert names("fixed:interval=6,12,sides=one,two") == [
        "fixed one-sided interval=6",
        "fixed two-sided interval=6",
        "fixed one-sided interval=12",
        "fixed two-sided interval=12",
    ]
    assert names("every", "warp_error:threshold=2.5", "random:interval=9,label=chance") == [
        "every",
        "warp_error threshold=2.5",
        "chance interval=9",
    ]


def test_a_plug_in_and_a_path_keep_their_colons_and_slashes() -> None:
    (plug_in,) = parse_methods(["mine.own:Dark:threshold=3"], PropagationConfig())
    assert (plug_in.scheduler.name, plug_in.scheduler.threshold) == ("mine.own:Dark", 3.0)
    (bare,) = parse_methods(["mine:Dark"], PropagationConfig())
    assert bare.scheduler.name == "mine:Dark" and bare.point == ""
    (policy,) = parse_methods(["policy:policy=a/b.safetensors,threshold=0.2"], PropagationConfig())
    assert policy.scheduler.policy == "a/b.safetensors"


def test_low_latency_has_words_in_the_name() -> None:
    """A method was called "fixed one-sided low 3"."""
    (late,) = parse_methods(["fixed:interval=6,sides=one,latency=low,delay=3"], PropagationConfig())
    assert late.name.startswith("fixed one-sided low latency delay 3")


def test_the_run_s_propagation_is_the_default_and_the_label_changes_nothing() -> None:
    one = PropagationConfig(sides="one", flow_size=128)
    (plain,) = parse_methods(["fixed:interval=6"], one)
    (named,) = parse_methods(["fixed:interval=6,label=DFF"], one)
    assert plain.propagation == one and plain.digest == named.digest != _digest("fixed:interval=6")
    (copied,) = parse_methods(["fixed:interval=6,propagation=copy,flow_size=64"], one)
    assert (copied.propagation.name, copied.propagation.flow_size, copied.propagation.sides) == (
        "copy",
        64,
        "one",
    )


def test_options_of_match_leave_other_methods_as_they_were() -> None:
    """With two options more every method had another digest: no evaluation of before went on."""
    assert _digest("fixed:interval=6") == "2a3a94628a"
    assert _digest("fixed:interval=6,self_check=false") == "2a3a94628a"


def test_a_self_check_is_chosen_by_true_and_false() -> None:
    """It "must be true or false, got 'false'"."""
    off, on = parse_methods(["fixed:propagation=match,self_check=false,true"], PropagationConfig())
    assert (off.propagation.self_check, on.propagation.self_check) == (False, True)
    assert off.name.startswith("fixed match without self-check") and off.digest != on.digest


def test_a_method_whose_masks_became_others_is_measured_again() -> None:
    """Rows of the older masks were taken for its."""
    assert _digest("fixed:propagation=match") != "bd1069c900"


def _digest(text: str) -> str:
    return parse_methods([text], PropagationConfig())[0].digest


def test_a_long_interval_lifts_the_limit_and_an_oracle_has_a_budget() -> None:
    (method,) = parse_methods(["fixed:interval=200"], PropagationConfig())
    assert method.scheduler.max_interval == 200
    (oracle,) = parse_methods(["oracle:interval=25,max_interval=75"], PropagationConfig())
    assert oracle.is_oracle and oracle.point == "interval=25" and oracle.scheduler.max_interval == 75


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("warp_eror", r"unknown name 'warp_eror' \(did you mean 'warp_error'\?\)"),
        ("fixed:intervall=3", r"no option 'intervall' \(did you mean 'interval'\?\)"),
        ("fixed:interval=0", "interval must be a whole number at least 1"),
        ("fixed:interval=x", "interval must be a whole number, got 'x'"),
        ("planner:interval=12", "interval goes with fixed, random; with .planner. the threshold decides"),
        ("fixed:threshold=3", "'fixed' has no threshold"),
        ("fixed:3", "expected OPTION=VALUE"),
        ("fixed:interval=3,interval=4", "is there twice"),
        ("fixed:sides=three", "must be one of one, two"),
        ("oracle:interval=5,threshold=2", "has no threshold"),
        (":interval=3", "names no scheduler"),
        ("policy", "must name a file of train-policy"),
    ],
)
def test_what_is_wrong_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_methods([text], PropagationConfig())


def test_the_same_method_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there twice"):
        parse_methods(["fixed:interval=6", "fixed:interval=6,label=again"], PropagationConfig())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"data": ()}, "--data: needs a data set"),
        ({"methods": ()}, "--methods: needs at least one"),
        ({"methods": ("oracle:interval=5",)}, "--methods: oracle needs --tables"),
        ({"methods": ("fixed:interval=5,level=scores",)}, "labels have no scores"),
        ({"methods": ("fixed:regions=2x2,context=joint",)}, "labels have no surroundings"),
        ({"segmenter": "plan"}, "did you mean 'plain'"),
        ({"segmenter": "plain", "key_net_ms": 3.0}, "--key_net_ms"),
        ({"snippet_frames": 1}, "--snippet_frames"),
        ({"output": "s3://key:secret@bucket"}, "holds credentials"),
    ],
)
def test_the_configuration_is_checked_when_it_is_made(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EvaluateConfig(**({"data": ("scenes:",), "output": "x"} | options))  # type: ignore[arg-type]


def test_regions_are_options_like_others_and_off_they_change_no_method() -> None:
    """What `evaluate` has kept under a digest stays that method's."""
    assert names("fixed:interval=6,regions=1x1,2x2,overlap=8,sides=one")[1:] == [
        "fixed one-sided regions 2x2 with overlap 8 interval=6"
    ]
    assert names("fixed:interval=6,regions=1x1,2x2,overlap=0,8") == [  # whole frames have no overlap: once
        "fixed interval=6",
        "fixed regions 2x2 with overlap 0 interval=6",
        "fixed regions 2x2 with overlap 8 interval=6",
    ]
    assert _digest("fixed:interval=6,regions=1x1") == _digest("fixed:interval=6") == "2a3a94628a"
    assert _digest("fixed:interval=6,regions=2x2") != _digest("fixed:interval=6,regions=2x2,overlap=8")
    assert _digest("fixed:interval=6,regions=2x2") == "5107478330"  # as before crops had more options
    assert _digest("fixed:interval=6,regions=2x2,align=1,context=none") == "5107478330"
    assert names("fixed:regions=2x2,align=32,context=joint,remembered") == [
        f"fixed regions 2x2 with overlap 16, aligned to 32, context {context} interval=12"
        for context in ("joint", "remembered")
    ]
    for text, problem in (
        ("fixed:align=32", "align goes with regions"),
        ("fixed:regions=2x2,context=all", "context must be one of none"),
        ("fixed:regions=2", "grid must be ROWSxCOLUMNS"),
        ("fixed:overlap=3", "overlap goes with regions"),
    ):
        with pytest.raises(ConfigError, match=problem):
            names(text)
