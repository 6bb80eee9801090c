"""Promise: with a self-check the gaps of a segment are filled by the way that filled its left-out keys best,
and by flow until there is one; a key is judged before anything learns from it; all of it survives a kill.

Why: a net that helps on most footage harms on some; the keys of a segment say on which, for nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy import ThresholdNet, inputs, moving_clip, plain, run
from tests.propagation.test_match import strange
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.bound import bytes_of
from vidseg_core.models.match import MatchFacts, new_match
from vidseg_core.pipeline.saved import Totals
from vidseg_core.pipeline.tally import filled_by
from vidseg_core.propagation import FlowWarp, self_check
from vidseg_core.propagation.filler import filler_of
from vidseg_core.propagation.lesson import look
from vidseg_core.propagation.match import Match
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.propagation.self_check import (
    ADAPTED,
    FLOW,
    LESSONS,
    NET,
    WAYS,
    Past,
    SelfCheck,
    memory_of,
    past_of,
)
from vidseg_core.propagation.sight import OTHER, SeenKey
from vidseg_core.scheduling import build_scheduler

SLIM = MatchFacts(eye=8, trunk=8, branch=8, reach=1)
PICTURES = moving_clip(2)


def engine(propagator: Any) -> Engine:
    scheduler = build_scheduler("fixed", interval=4)
    return Engine(ThresholdNet(), scheduler, propagator, sides="two", max_interval=6, flow_size=48)


def match(steps: int = 0, lively: bool = True) -> Match:
    """A lively net does harm."""
    net = new_match(SLIM).eval().requires_grad_(False)
    return Match(net=strange(net) if lively else net, self_check=True, adapt_steps=steps)


def judged(**said: float) -> Past:
    """Ways and the share of the pixels of their two classes that they had right."""
    past = Past(checks=1)
    for way, share in said.items():
        right = round(100 * share)
        past.counts_MIN[WAYS.index(way), :2] = [(right, 100, 100)] * 2
    return past


def test_before_a_key_was_left_out_it_is_flow() -> None:
    assert Past().choice() == FLOW


@pytest.mark.parametrize(
    ("said", "best"),
    [
        ({FLOW: 0.8, NET: 0.9, ADAPTED: 0.85}, NET),
        ({FLOW: 0.8, NET: 0.7, ADAPTED: 0.85}, ADAPTED),
        ({FLOW: 0.8, NET: 0.8, ADAPTED: 0.8}, FLOW),
    ],
)
def test_the_best_way_so_far_fills_the_gap(said: dict[str, float], best: str) -> None:
    assert judged(**said).choice() == best


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
    assert said[0] == "flow"
    assert said[-1].startswith("flow (1 left-out key: flow 0.") and ", match 0." in said[-1]


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
    assert past.checks == 2 and len(past.lessons) == 2 and past.weights is not None
    again = memory_of(past)
    assert again.keys() == state.carried_over.keys()
    assert all(np.array_equal(again[name], array) for name, array in state.carried_over.items())


def test_a_net_that_does_not_adapt_keeps_nothing_to_learn_from() -> None:
    """Four lessons that nobody read were stored with each part: half of a segment's state."""
    here, state = engine(match()), SegmentState.new(0, "s")
    for frame in inputs(moving_clip(14)):
        here.step([state], [frame])
    past = past_of(state.carried_over)
    assert past.checks == 2 and not past.lessons


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
    scores = dict(zip(WAYS, past_of(state.carried_over).scores(), strict=True))
    assert scores[ADAPTED] > scores[NET] + 0.02


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
    assert past_of(state.carried_over).checks > LESSONS
    assert held <= bound.bytes - plain_bound.bytes <= 1.1 * held


def test_pixels_without_a_label_are_no_class() -> None:
    """With pseudo-labels doubtful pixels are 255: they counted as a class that is hard to fill in."""
    net = SelfCheck(match().net)
    left, right = (SeenKey(rgb_hw3=frame, labels_hw=frame.argmax(2).astype(np.uint8)) for frame in PICTURES)
    left.labels_hw[:20] = right.labels_hw[:20] = OTHER
    still_hw2 = np.zeros((*left.labels_hw.shape, 2), np.float32)
    past = Past(before=left, back_hw2=still_hw2, distance=1)
    net._learn(past, left, right, still_hw2, 1)
    assert past.counts_MIN[:, :OTHER, 1:].any() and not past.counts_MIN[:, OTHER].any()
    assert not past.counts_MIN[0, :, 2].sum() > (left.labels_hw != OTHER).sum()


def test_a_net_adapts_on_the_cpu_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients on a GPU are summed in any order: masks after a kill were not those of a run without one."""
    check = SelfCheck(match().net, steps=1)
    here, state, seen = engine(match(steps=1)), SegmentState.new(0, "s"), []
    for frame in inputs(moving_clip(14)):
        here.step([state], [frame])

    def looks(net: Any, samples: Any, device: Any = "cpu") -> Any:
        seen.extend([str(device), *(str(part.device) for part in net.parameters())])
        return look(net, samples)

    monkeypatch.setattr(self_check, "look", looks)
    monkeypatch.setattr(self_check, "device_of", lambda net: torch.device("meta"))
    check._adapt(past_of(state.carried_over))
    assert set(seen) == {"cpu"}
