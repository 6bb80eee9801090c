"""Keys are labels that cost nothing: which way of filling gaps suits a gap, and how the net gets used to a
segment.

Model: each of a gap's two keys is filled in from the other one alone, by flow and by the net. Where the net
is better at both, it fills the gap; where it is better at neither, flow does. Else the net fills it in part:
where the two keys, warped by flow, differ, for where they agree flow is hardly ever wrong. Better means that
it wins back `MARGIN` of what flow loses there: frames between keys are nearer to one of them than the keys
are to each other, so a smaller gain at the keys says little about them. Where flow loses more than `LOST`
from one key to the other, every gain counts. Frames after a segment's last key are filled by the net where
it was better at both ends of the gap before, else by flow.

With `steps` a copy of the net gets used to the segment (`adaptation`): it learns from a gap's keys before the
gap is filled, and stands in for the net. Before it learns from keys it fills them in as the net does: once it
was worse over all of them, the net is asked again.

Invariants: what fills a gap depends on the segment's keys up to the one that closes it. All of it lies in the
gap's memory: stored with the segment, and gone with it.

Legend: h, w flow size; 2 = both ends of a gap; W = flow, net; M = net, its copy; I class ids; N = both, said,
true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vidseg_core.models.match import MatchNet, quick
from vidseg_core.propagation.adaptation import (
    KeyPair,
    adapt,
    adapted,
    memory_of_pairs,
    most_bytes_of_pairs,
    pairs_of,
    steps_at,
    with_pair,
)
from vidseg_core.propagation.asked import Asked, device_of, key_at
from vidseg_core.propagation.chain import Link, improve
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.gap import Gap, Memory
from vidseg_core.propagation.sight import OTHER, SeenFrame, SeenKey, see

FLOW, PART, WHOLE = "flow", "in part", "whole"
NET, ADAPTED = "match", "adapted"
MARGIN, LOST = 0.03, 0.5
"""Share of flow's loss, and a loss, in mean IoU."""
_NO_LOSS = 0.005
"""Losses below this count as this much."""


@dataclass(slots=True, kw_only=True)
class Past:
    """What is remembered of a segment between gaps."""

    ends_W2: np.ndarray | None = None
    """Mean IoU at the ends of the gap closed last, each filled in from the other; None: there was none."""
    counts_MIN: np.ndarray = field(default_factory=lambda: np.zeros((2, 256, 3), np.int64))
    """Of keys that the copy had not learned from yet; of a net that does not adapt nothing."""
    closed: int = 0
    """Gaps that the copy learned from so far."""
    pairs: list[KeyPair] = field(default_factory=list)
    """What it learns from; none where nothing adapts."""
    weights: np.ndarray | None = None
    """The copy's, in one row; None: it has learned nothing yet."""

    def extent(self, *, two_sided: bool) -> str:
        """How much of a gap the net fills: `WHOLE`, `PART`, or nothing (`FLOW`)."""
        if self.ends_W2 is None:
            return FLOW
        flow_2, net_2 = self.ends_W2
        won_2 = (net_2 - flow_2) / np.maximum(1.0 - flow_2, _NO_LOSS)
        least = MARGIN if flow_2.min() >= 1.0 - LOST else 0.0
        if won_2.min() > least:
            return WHOLE
        return PART if two_sided and won_2.max() >= least else FLOW

    def net(self) -> str:
        """Which net that is."""
        first, second = mean_ious(self.counts_MIN)
        return ADAPTED if self.weights is not None and second >= first else NET

    def words(self, *, two_sided: bool) -> str:
        """The choice and what it follows from."""
        extent = self.extent(two_sided=two_sided)
        if self.ends_W2 is None:
            return FLOW
        ways = zip((FLOW, self.net()), self.ends_W2, strict=True)
        found = ", ".join(f"{way} {ends_2[0]:.3f} and {ends_2[1]:.3f}" for way, ends_2 in ways)
        choice = {FLOW: FLOW, PART: f"{self.net()} {PART}", WHOLE: self.net()}[extent]
        keys = ""
        if self.counts_MIN.any():
            scores = zip((NET, ADAPTED), mean_ious(self.counts_MIN), strict=True)
            keys = "; keys not learned from: "
            keys += ", ".join(f"{way} {score:.3f}" for way, score in scores)
        return f"{choice} (keys from one another: {found}{keys})"


def mean_ious(counts_XIN: np.ndarray) -> np.ndarray:
    """mean IoU_X over the classes that are there."""
    both, said, true = np.moveaxis(counts_XIN.astype(np.float64), 2, 0)
    union, there = np.maximum(said + true - both, 1.0), true > 0
    return (both / union * there).sum(1) / np.maximum(there.sum(1), 1)


class SelfCheck:
    """`steps`: what a copy learns of a segment's first two keys, and a quarter of it of each one more; 0:
    nothing adapts."""

    def __init__(self, net: MatchNet, steps: int = 0) -> None:
        self.net, self.steps = net, steps
        self._quick = quick(net)
        self._flow = DisFlow()

    def close(self, gap: Gap) -> Past:
        """What is known once the gap's right key is there; the gap's memory is what the next one needs."""
        past = past_of(gap.memory)
        first, last = (gap.frames[0], gap.frames[-1]) if gap.frames else (None, None)
        if gap.right is None or first is None or last is None or first.right is None:
            return past
        left, right = key_at(gap.left), key_at(gap.right)
        ahead = self._one_more(gap.left.view, gap.right.view, first.right)
        back = self._one_more(gap.right.view, gap.left.view, last.left)
        ends = ((left, right, ahead), (right, left, back))
        if self.steps:
            self._get_used(past, ends)
        net = self.net_of(past)
        past.ends_W2 = np.array([[_score(self._end(*end, way)) for end in ends] for way in (None, net)])
        gap.memory = memory_of(past)
        return past

    def _get_used(self, past: Past, ends: Sequence[tuple[SeenKey, SeenKey, Link]]) -> None:
        """Judge both nets on a gap's keys, then have the copy learn from them."""
        if past.weights is not None:
            for counts_IN, net in zip(past.counts_MIN, (self._quick, self._adapted(past)), strict=True):
                counts_IN += sum(self._end(*end, net) for end in ends)
        (left, right, ahead), (_, _, back) = ends
        assert ahead.flow_hw2 is not None and back.flow_hw2 is not None
        flows = (ahead.flow_hw2.astype(np.float16), back.flow_hw2.astype(np.float16))
        past.pairs = with_pair(past.pairs, KeyPair(keys=(left, right), flows=flows, distance=ahead.distance))
        steps = steps_at(self.steps, past.closed)
        past.weights = adapt(self.net, past.weights, past.pairs, steps, past.closed)
        past.closed += 1

    def _end(self, now: SeenKey, key: SeenKey, link: Link, net: MatchNet | None) -> np.ndarray:
        """counts_IN of one key filled in from another."""
        return _counts(filled_frame(now.rgb_hw3, [key], [link], net), now.labels_hw)

    def net_of(self, past: Past) -> MatchNet:
        """The net or its copy."""
        if past.weights is None or past.net() == NET:
            return self._quick
        return self._adapted(past)

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes of a memory at most, with flow pictures of this size."""
        ends = np.zeros((2, 2)).nbytes
        if not self.steps:
            return ends
        weights = sum(part.nelement() * part.element_size() for part in self.net.parameters())
        fixed = ends + Past().counts_MIN.nbytes + np.array([0]).nbytes
        return fixed + most_bytes_of_pairs(height, width) + weights

    def _one_more(self, current: np.ndarray, key: np.ndarray, before: Link) -> Link:
        """From one key to the other, with its flow; `before`: the link of the frame beside the first to the
        other."""
        grays = [_gray(view) for view in (current, key)]
        link = Link(current=grays[0], key=grays[1], distance=before.distance + 1)

        def estimate(pairs):
            return self._flow.flow([a for a, _ in pairs], [b for _, b in pairs])

        improve([link], estimate([(link.current, link.key)]), [before.flow_hw2], estimate)
        return link

    def _adapted(self, past: Past) -> MatchNet:
        return quick(adapted(self.net, past.weights, device_of(self.net)))


def _gray(view: np.ndarray) -> np.ndarray:
    return view if view.ndim == 2 else view.mean(axis=2).astype(np.uint8)


def _score(counts_IN: np.ndarray) -> float:
    return float(mean_ious(counts_IN[None])[0])


def filled_frame(
    now_hw3: np.ndarray, keys: Sequence[SeenKey], links: Sequence[Link], net: MatchNet | None
) -> np.ndarray:
    """labels_hw of a frame between one or two keys, by flow or a net."""

    def shown(keys: Sequence[SeenKey]) -> SeenFrame:
        right = (keys[1], links[1]) if len(keys) > 1 else (None, None)
        return see(now_hw3, keys[0], links[0], *right)

    labels_hw = shown(keys).labels_3hw[0]
    asked = None if net is None else Asked.about(net, keys)
    if asked is None:
        return labels_hw
    places_hw = asked.places(shown(asked.keys))
    known_hw = places_hw != OTHER
    labels_hw[known_hw] = asked.classes[places_hw[known_hw]]
    return labels_hw


def _counts(said_hw: np.ndarray, true_hw: np.ndarray) -> np.ndarray:
    """counts_IN of one key; pixels without a label are left out."""
    known_hw = true_hw != OTHER
    said_hw, true_hw = said_hw[known_hw], true_hw[known_hw]
    each = [
        np.bincount(part.ravel(), minlength=256) for part in (true_hw[said_hw == true_hw], said_hw, true_hw)
    ]
    return np.stack(each, 1)


# --- as a gap's memory -------------------------------------------------------------------------------------


def memory_of(past: Past) -> Memory:
    """All of it as arrays by name."""
    memory: Memory = {} if past.ends_W2 is None else {"ends": past.ends_W2}
    if past.weights is not None:
        memory |= {"net": past.weights, "counts": past.counts_MIN, "closed": np.array([past.closed])}
    return memory | memory_of_pairs(past.pairs)


def past_of(memory: Memory) -> Past:
    """What `memory_of` made into arrays."""
    past = Past(ends_W2=memory.get("ends"), weights=memory.get("net"), pairs=pairs_of(memory))
    if "closed" in memory:
        past.counts_MIN, past.closed = memory["counts"].copy(), int(memory["closed"][0])
    return past
