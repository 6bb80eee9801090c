"""Promise: with a self-check a gap is filled by the net as far as the net fills the gap's own keys better
than flow does; a key is judged before anything learns from it; all of it survives a kill.

Why: a net that helps on most footage harms on some; the keys of a segment say on which, for nothing.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.toy import ThresholdNet, inputs, moving_clip, plain, run
from tests.propagation.test_match import gap, halves, strange
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.bound import bytes_of
from vidseg_core.models.match import MatchFacts, new_match
from vidseg_core.pipeline.saved import Totals
from vidseg_core.pipeline.tally import filled_by
from vidseg_core.propagation import FlowWarp, adaptation
from vidseg_core.propagation.adaptation import PAIRS, KeyPair, adapt, adapted, with_pair
from vidseg_core.propagation.filler import filler_of
from vidseg_core.propagation.lesson import look
from vidseg_core.propagation.match import Match, fill_gap
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.propagation.self_check import (
    ADAPTED,
    FLOW,
    NET,
    PART,
    WHOLE,
    Past,
    _counts,
    mean_ious,
    memory_of,
    past_of,
)
from vidseg_core.propagation.sight import OTHER, SeenKey
from vidseg_core.scheduling import build_scheduler

SLIM = MatchFacts(eye=8, trunk=8, branch=8, reach=1)


def engine(propagator: Any) -> Engine:
    scheduler = build_scheduler("fixed", interval=4)
    return Engine(ThresholdNet(), scheduler, propagator, sides="two", max_interval=6, flow_size=48)


def match(steps: int = 0, lively: bool = True) -> Match:
    """A lively net does harm."""
    net = new_match(SLIM).eval().requires_grad_(False)
    return Match(net=strange(net) if lively else net, self_check=True, adapt_steps=steps)


def judged(left: float, right: float, flow: float = 0.8) -> Past:
    """What the net gained over flow at the two ends of the gap before."""
    return Past(ends_W2=np.array([[flow, flow], [flow + left, flow + right]]))


@pytest.mark.parametrize(
    ("gains", "between", "after"),
    [
        ((0.01, 0.1), WHOLE, WHOLE),
        ((-0.01, 0.1), PART, FLOW),
        ((0.004, 0.1), PART, FLOW),
        ((0.004, 0.004), FLOW, FLOW),
        ((0.0, 0.0), FLOW, FLOW),
        ((-0.01, -0.1), FLOW, FLOW),
    ],
)
def test_the_net_fills_what_it_fills_better_at_both_ends(
    gains: tuple[float, float], between: str, after: str
) -> None:
    """Left-out keys are twice as far apart as a gap's keys, and say nothing of the first gap: chosen by them
    the net did harm on one clip and was not used on another. It harmed most after the last key."""
    past = judged(*gains)
    assert (past.extent(two_sided=True), past.extent(two_sided=False)) == (between, after)


def test_where_flow_loses_most_any_gain_counts_and_where_it_loses_nothing_none_does() -> None:
    """A face lost .7 points for gains of 1 to 2 % of what flow lost at its keys; a car that flow lost
    altogether was found again between two keys that neither could tell."""
    assert judged(0.001, 0.002, flow=0.4).extent(two_sided=True) == WHOLE
    assert judged(-0.1, 0.0, flow=0.4).extent(two_sided=True) == PART
    assert judged(0.0, 0.0, flow=1.0).extent(two_sided=True) == FLOW


@given(
    st.tuples(*[st.floats(0.0, 1.0)] * 4),
    st.floats(0.0, 0.5),
)
def test_a_better_net_never_fills_less(ends: tuple[float, ...], more: float) -> None:
    ends_W2 = np.array(ends).reshape(2, 2)
    better_W2 = ends_W2 + [[0.0], [more]]
    order = (FLOW, PART, WHOLE)
    for two_sided in (True, False):
        before, after = (Past(ends_W2=each).extent(two_sided=two_sided) for each in (ends_W2, better_W2))
        assert order.index(after) >= order.index(before)


def test_without_two_keys_it_is_flow() -> None:
    assert Past().extent(two_sided=True) == Past().extent(two_sided=False) == FLOW


def test_the_adapted_net_stands_in_until_it_is_worse_at_keys_that_it_has_not_learned_from() -> None:
    """A clip of two keys tells nothing else, and it is there that adapting brings most."""
    past = judged(0.1, 0.1)
    assert past.net() == NET
    past.weights = np.zeros(1, np.float32)
    assert past.net() == ADAPTED
    past.counts_MIN[0, :2], past.counts_MIN[1, :2] = (80, 100, 100), (90, 100, 100)
    assert past.net() == ADAPTED
    past.counts_MIN[1, :2] = (79, 100, 100)
    assert past.net() == NET


def test_a_net_in_part_decides_where_the_sides_differ() -> None:
    net = match().net
    left_HW, right_HW = halves(0, 1, 2, 3), halves(0, 1, 3, 2)
    flow, part, whole = (
        next(fill_gap(way, gap(left_HW, right_HW), part=in_part))
        for way, in_part in ((None, False), (net, True), (net, False))
    )
    apart_HW = left_HW != right_HW
    assert np.array_equal(part[~apart_HW], flow[~apart_HW]) and not np.array_equal(whole, part)
    assert not np.array_equal(part[apart_HW], flow[apart_HW])


def test_a_net_that_does_harm_is_not_used() -> None:
    frames = inputs(moving_clip(24))
    flow, checked, net = (
        plain(run(engine(way), frames)) for way in (FlowWarp(), match(), Match(net=match().net))
    )
    assert net != flow and checked == flow


def test_rows_say_what_filled_them_and_why() -> None:
    rows = run(engine(match()), inputs(moving_clip(12)))
    assert [row.filled_by for row in rows if row.is_key] == ["", "", ""]
    said = [row.filled_by for row in rows if not row.is_key]
    assert all(text.startswith("flow (keys from one another: flow 0.") for text in said)
    assert all(", match 0." in text for text in said)
    (alone, *_) = [row.filled_by for row in run(engine(match()), inputs(moving_clip(3))) if not row.is_key]
    assert alone == "flow"
    past = judged(-0.1, 0.1)
    assert past.words(two_sided=True).startswith("match in part (keys from one another: flow 0.800 and 0.800")


def test_a_video_s_row_counts_what_filled_its_frames() -> None:
    one, other = Totals(), Totals()
    for text in ("flow", "flow (1 left-out key: flow 0.8, match 0.7)"):
        one.count_filled(text)
    other.count_filled("match (2 left-out keys: flow 0.8, match 0.9)")
    said = filled_by([asdict(one), asdict(other), {}])
    evidence = ("1 left-out key: flow 0.8, match 0.7", "2 left-out keys: flow 0.8, match 0.9")
    assert said == "; ".join(["flow 2, match 1", *evidence])
    assert filled_by([{}]) is None


def test_what_is_remembered_comes_back_from_arrays() -> None:
    here, state = engine(match(steps=1)), SegmentState.new(0, "s")
    for frame in inputs(moving_clip(14)):
        here.step([state], [frame])
    past = past_of(state.carried_over)
    assert past.closed == 3 and len(past.pairs) == 3 and past.weights is not None
    again = memory_of(past)
    assert again.keys() == state.carried_over.keys()
    assert all(np.array_equal(again[name], array) for name, array in state.carried_over.items())


def test_a_net_that_does_not_adapt_keeps_nothing_to_learn_from() -> None:
    """Four lessons that nobody read were stored with each part: half of a segment's state."""
    here, state = engine(match()), SegmentState.new(0, "s")
    for frame in inputs(moving_clip(14)):
        here.step([state], [frame])
    assert state.carried_over.keys() == {"ends"}


@pytest.mark.parametrize("kill", [5, 9, 10, 13])
def test_storing_the_state_changes_nothing(kill: int) -> None:
    frames = inputs(moving_clip(16))
    undisturbed = plain(run(engine(match(steps=2)), frames))
    here, state, rows = engine(match(steps=2)), SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += here.step([state], [frame])[0]
        if number == kill:
            here, state = engine(match(steps=2)), SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + here.finish([state])[0]) == undisturbed


def test_an_adapted_net_gets_used_to_the_segment() -> None:
    here, state = engine(match(steps=8)), SegmentState.new(0, "s")
    for frame in inputs(moving_clip(24)):
        here.step([state], [frame])
    before, after = mean_ious(past_of(state.carried_over).counts_MIN)
    assert after > before + 0.02


def test_a_clip_of_two_keys_is_adapted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only keys between two others were learned from: half of a short clip, which lies behind its last key,
    was filled by a net that had learned nothing."""
    taught: list[list[KeyPair]] = []

    def teach(net: Any, weights: Any, pairs: Any, steps: int, seed: int) -> Any:
        taught.append(list(pairs))
        return adapt(net, weights, pairs, steps, seed)

    monkeypatch.setattr("vidseg_core.propagation.self_check.adapt", teach)
    rows = run(engine(match(steps=1)), inputs(moving_clip(7)))
    assert [row.is_key for row in rows].count(True) == 2 and len(taught) == 1
    (pair,) = taught[0]
    for lesson, (now, other) in zip(pair.lessons(), (pair.keys, pair.keys[::-1]), strict=True):
        assert lesson.pictures[1] is now.rgb_hw3
        assert lesson.pictures[0] is lesson.pictures[2] is other.rgb_hw3


def key(level: int) -> SeenKey:
    return SeenKey(rgb_hw3=np.full((8, 8, 3), level, np.uint8), labels_hw=np.zeros((8, 8), np.uint8))


def pair(left: int, right: int) -> KeyPair:
    flow_hw2 = np.full((8, 8, 2), left, np.float16)
    return KeyPair(keys=(key(left), key(right)), flows=(flow_hw2, flow_hw2 + 100), distance=right - left)


def test_pairs_that_follow_one_another_are_lessons_with_two_sides_too() -> None:
    lesson = pair(1, 3).lesson_between(pair(3, 8))
    assert [picture[0, 0, 0] for picture in lesson.pictures] == [1, 3, 8]
    assert [flow_hw2[0, 0, 0] for flow_hw2 in lesson.flows] == [101, 3]
    assert lesson.distances == [2, 5]


@pytest.mark.parametrize("seed", range(5))
def test_keys_of_one_class_teach_nothing_and_undo_nothing(seed: int) -> None:
    """A step that drew lessons of one class alone threw away all steps before it."""
    net, still = match().net, [pair(1, 3), pair(3, 8), pair(8, 9)]
    assert adapt(net, None, still, 2, seed) is None
    keys = [replace(one, labels_hw=np.tri(8, dtype=np.uint8)) for one in still[-1].keys]
    assert adapt(net, None, [*still, replace(still[-1], keys=(keys[0], keys[1]))], 4, seed) is not None


def test_the_last_pairs_are_kept_and_none_from_before_a_break() -> None:
    pairs: list[KeyPair] = []
    for number in range(PAIRS + 2):
        pairs = with_pair(pairs, pair(number, number + 1))
    assert [one.keys[0].rgb_hw3[0, 0, 0] for one in pairs] == list(range(2, PAIRS + 2))
    assert len(with_pair(pairs, pair(50, 51))) == 1


def test_the_options_go_together() -> None:
    assert PropagationConfig(name="match", adapt_steps=10).checks_itself
    for wrong in ({"name": "flow_warp"}, {"sides": "one"}, {"self_check": False}):
        options: dict[str, Any] = {"name": "match", "adapt_steps": 10} | wrong
        with pytest.raises(
            ConfigError, match="--propagation.adapt_steps: goes with --propagation.name match"
        ):
            PropagationConfig(**options)


def test_one_side_has_no_self_check() -> None:
    def remembers(**options: Any) -> bool:
        return filler_of(propagator_of(PropagationConfig(name="match", **options)), two_sided=True).remembers

    assert remembers() and not remembers(sides="one") and not remembers(self_check=False)


def test_all_that_a_segment_may_remember_is_in_its_bound() -> None:
    """Lessons and weights of an adapting net came with the third key, after the bound was made."""
    here, state = engine(match(steps=1)), SegmentState.new(0, "s")
    bound = here.bound((48, 64))
    plain_bound = engine(Match(net=match().net)).bound((48, 64))
    for frame in inputs(moving_clip(26)):
        here.step([state], [frame])
    held = bytes_of(state.carried_over)
    assert past_of(state.carried_over).closed > PAIRS == len(past_of(state.carried_over).pairs)
    assert held <= bound.bytes - plain_bound.bytes <= 1.1 * held


def test_pixels_without_a_label_are_no_class() -> None:
    """With pseudo-labels doubtful pixels are 255: they counted as a class that is hard to fill in."""
    true_hw, said_hw = np.array([[0, 1, OTHER, OTHER]], np.uint8), np.array([[0, 1, 1, OTHER]], np.uint8)
    counts_IN = _counts(said_hw, true_hw)
    assert not counts_IN[OTHER].any() and counts_IN[:2].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert mean_ious(counts_IN[None])[0] == 1.0


def test_a_net_adapts_on_the_cpu_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients on a GPU are summed in any order: masks after a kill were not those of a run without one."""
    here, state, seen = engine(match(steps=1)), SegmentState.new(0, "s"), []
    for frame in inputs(moving_clip(14)):
        here.step([state], [frame])

    def looks(net: Any, samples: Any, device: Any = "cpu") -> Any:
        seen.extend([str(device), *(str(part.device) for part in net.parameters())])
        return look(net, samples)

    def copies(net: Any, weights: Any, device: Any) -> Any:
        seen.append(str(device))
        return adapted(net, weights, device)

    monkeypatch.setattr(adaptation, "look", looks)
    monkeypatch.setattr(adaptation, "adapted", copies)
    past = past_of(state.carried_over)
    adapt(match().net, past.weights, past.pairs, steps=1, seed=0)
    assert set(seen) == {"cpu"}
