"""Promise: each of `no-far`, `no-near` and `no-guards` of `benchmarks.match` switches off what its name says,
and nothing else; the net that others fill with stays as it is.

Why: an ablation that switches off nothing, or too much, prints figures as fine as any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.match import Drawn, without
from tests.engine.toy import inputs, moving_clip
from tests.propagation.test_match import gap, halves, saved, strange
from tests.propagation.test_self_check import SLIM, engine
from vidseg_core.engine import SegmentState
from vidseg_core.models.match import Answer, Keys, MatchNet, Sight, new_match
from vidseg_core.propagation import asked
from vidseg_core.propagation.match import Match

LEFT_HW, RIGHT_HW = halves(3, 7), halves(7, 3)


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(strange(new_match()), tmp_path_factory.mktemp("match") / "lively.safetensors")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Sight, Keys, Answer]]]:
    """What nets were asked, and what they said."""
    found: list[tuple[Sight, Keys, Answer]] = []
    forward = MatchNet.forward

    def watched(net: MatchNet, sight: Sight, keys: Keys) -> Answer:
        found.append((sight, keys, forward(net, sight, keys)))
        return found[-1][2]

    monkeypatch.setattr(MatchNet, "forward", watched)
    yield found


def fill(way: Match, left_HW: np.ndarray = LEFT_HW, right_HW: np.ndarray = RIGHT_HW) -> np.ndarray:
    """The mask of the one frame of a gap, without a self-check, which has no keys to learn from here."""
    way.remembers = False
    (shown_HW,) = way.fill([gap(left_HW, right_HW)])
    return shown_HW


def reads(way: Match, calls: list[tuple[Sight, Keys, Answer]]) -> Answer:
    calls.clear()
    fill(way)
    return calls[0][2]


def test_without_the_far_comparison_nothing_is_read_of_the_keys_as_they_are(
    lively: str, calls: list[tuple[Sight, Keys, Answer]]
) -> None:
    whole, less = reads(Match(lively), calls), reads(without("no-far", lively), calls)
    assert whole.far_Smn.any() and not less.far_Smn.any()
    assert torch.equal(whole.near_Syx, less.near_Syx)


def test_without_the_near_comparison_labels_are_read_at_the_place_itself(
    lively: str, calls: list[tuple[Sight, Keys, Answer]]
) -> None:
    whole, less = reads(Match(lively), calls), reads(without("no-near", lively), calls)
    sight, _, _ = calls[0]
    places_2hw = sight.places_B3hw[0, 1:]
    for place, near_yx in zip(sight.place_S.tolist(), less.near_Syx, strict=True):
        shares_2yx = torch.nn.functional.avg_pool2d((places_2hw == place).float(), 4)
        between = (near_yx >= shares_2yx.amin(0) - 1e-4) & (near_yx <= shares_2yx.amax(0) + 1e-4)
        assert bool(between.all())
    assert torch.equal(whole.far_Smn, less.far_Smn) and not torch.equal(whole.near_Syx, less.near_Syx)


def test_without_guards_the_net_is_asked_about_the_tiniest_class_and_only_while_it_fills(lively: str) -> None:
    tiny_HW = LEFT_HW.copy()
    tiny_HW[5:9, 5:9] = 20
    guarded, bare = (
        fill(Match(lively), tiny_HW, tiny_HW),
        fill(without("no-guards", lively), tiny_HW, tiny_HW),
    )
    assert np.array_equal(guarded == 20, tiny_HW == 20)
    assert not np.array_equal(bare == 20, tiny_HW == 20)
    assert asked.TINY == 100
    broken_off = without("no-guards", lively)
    broken_off.remembers = False
    filling = iter(broken_off.fill([gap(tiny_HW, tiny_HW, 3)]))
    next(filling)
    filling.close()  # type: ignore[attr-defined]
    assert asked.TINY == 100


@pytest.mark.parametrize("part", ["no-far", "no-near", "no-guards"])
def test_the_net_of_others_stays_as_it_is_and_the_self_check_stays_on(part: str) -> None:
    before = {name: value.clone() for name, value in Match().net.state_dict().items()}
    way = without(part, None)
    assert way.remembers
    net = Match().net
    assert net.facts.far and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_another_seed_is_another_draw_and_the_first_is_that_of_a_job() -> None:
    """Seeds said nothing of an adapted net: what it learns from was always drawn in one way."""
    net, frames = new_match(SLIM).eval(), inputs(moving_clip(7))

    def learned(propagator: Match) -> np.ndarray:
        here, state = engine(propagator), SegmentState.new(0, "s")
        for frame in frames:
            here.step([state], [frame])
        return state.carried_over["net"]

    options: dict[str, Any] = {"net": net, "self_check": True, "adapt_steps": 1}
    as_in_a_job = learned(Match(**options))
    assert np.array_equal(learned(Drawn(0, **options)), as_in_a_job)
    assert not np.array_equal(learned(Drawn(1, **options)), as_in_a_job)
