"""Keys are labels that cost nothing: which way of filling gaps suits a gap, and how the net gets used to a
segment.

Model: each of a gap's two keys is filled in from the other one alone, by flow and by the net. Where the net
is better at both, it fills the gap; where it is better at neither, flow does. Else the net fills it in part:
where the two keys, warped by flow, differ, for where they agree flow is hardly ever wrong. Better means that
it wins back `MARGIN` of what flow loses there: frames between keys are nearer to one of them than the keys
are to each other, so a smaller gain at the keys says little about them. Where flow loses more than `LOST`
from one key to the other, every gain counts. Frames after a segment's last key are filled by the net where
it was better at both ends of the gap before, else by flow.

With `steps` a copy of the net gets used to the segment. Once a key has a key on both sides, it is filled in
from these two, as if it had been left out, by both nets; then the copy learns some steps from the last
`LESSONS` left-out keys. It stands in for the net where its mean IoU over all of them was higher.

Invariants: a key is judged before the copy learns from it; what fills a gap depends on the segment's keys up
to the one that closes it. All of it lies in the gap's memory: stored with the segment, and gone with it.

Legend: h, w flow size; 2 = (u, v), or both ends of a gap; W = flow, net; M = net, its copy; I class ids; N =
both, said, true.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from vidseg_core.models.match import STRIDE, MatchNet, quick
from vidseg_core.propagation.asked import Asked, device_of, key_at
from vidseg_core.propagation.chain import Link, improve
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.gap import Gap, Memory
from vidseg_core.propagation.lesson import CropForm, Lesson, draw_sample, look, losses_of
from vidseg_core.propagation.sight import OTHER, SeenFrame, SeenKey, see

FLOW, PART, WHOLE = "flow", "in part", "whole"
NET, ADAPTED = "match", "adapted"
MARGIN, LOST = 0.03, 0.5
"""Share of flow's loss, and a loss, in mean IoU."""
_NO_LOSS = 0.005
"""Losses below this count as this much."""
LESSONS = 4
"""Left-out keys that the adapted net learns from, the last ones."""
BATCH, RATE = 4, 1e-3
WEIGHTS = {"pixels": 2.0, "overlap": 1.0, "read": 0.3}
"""Of the losses (`lesson.LOSSES`)."""


@dataclass(slots=True, kw_only=True)
class Past:
    """What is remembered of a segment between gaps."""

    ends_W2: np.ndarray | None = None
    """Mean IoU at the ends of the gap closed last, each filled in from the other; None: there was none."""
    counts_MIN: np.ndarray = field(default_factory=lambda: np.zeros((2, 256, 3), np.int64))
    """Of the left-out keys; of a net that does not adapt nothing."""
    checks: int = 0
    """Keys that were left out so far."""
    lessons: list[Lesson] = field(default_factory=list)
    """What the adapted net learns from; none where nothing adapts."""
    weights: np.ndarray | None = None
    """The adapted net's, in one row; None: it has learned nothing yet."""
    before: SeenKey | None = None
    """The key at the left of the gap before this one."""
    last_view: np.ndarray | None = None
    """The flow picture of the key that closed that gap."""
    back_hw2: np.ndarray | None = None
    """The flow from that key to `before`."""
    distance: int = 0

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
        adapted, first = self.weights is not None, mean_ious(self.counts_MIN)
        return ADAPTED if adapted and first[1] > first[0] else NET

    def words(self, *, two_sided: bool) -> str:
        """The choice and what it follows from."""
        extent = self.extent(two_sided=two_sided)
        if self.ends_W2 is None:
            return FLOW
        ways = zip((FLOW, self.net()), self.ends_W2, strict=True)
        found = ", ".join(f"{way} {ends_2[0]:.3f} and {ends_2[1]:.3f}" for way, ends_2 in ways)
        choice = {FLOW: FLOW, PART: f"{self.net()} {PART}", WHOLE: self.net()}[extent]
        keys = ""
        if self.weights is not None:
            scores = zip((NET, ADAPTED), mean_ious(self.counts_MIN), strict=True)
            keys = f"; {self.checks} left-out key{'s' * (self.checks > 1)}: "
            keys += ", ".join(f"{way} {score:.3f}" for way, score in scores)
        return f"{choice} (keys from one another: {found}{keys})"


def mean_ious(counts_XIN: np.ndarray) -> np.ndarray:
    """mean IoU_X over the classes that are there."""
    both, said, true = np.moveaxis(counts_XIN.astype(np.float64), 2, 0)
    union, there = np.maximum(said + true - both, 1.0), true > 0
    return (both / union * there).sum(1) / np.maximum(there.sum(1), 1)


class SelfCheck:
    """`steps`: what the adapted net learns after each left-out key; 0: nothing adapts."""

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
        if self.steps:
            self._learn(past, gap, left, right, ahead)
            past.before, past.last_view, past.distance = left, gap.right.view, back.distance
            past.back_hw2 = back.flow_hw2
        net = self.net_of(past)
        past.ends_W2 = np.array(
            [
                [
                    self._end(one, other, link, way)
                    for one, other, link in ((left, right, ahead), (right, left, back))
                ]
                for way in (None, net)
            ]
        )
        gap.memory = memory_of(past)
        return past

    def _end(self, now: SeenKey, key: SeenKey, link: Link, net: MatchNet | None) -> float:
        """Mean IoU of one key filled in from the other."""
        said_hw = filled_frame(now.rgb_hw3, [key], [link], net)
        return float(mean_ious(_counts(said_hw, now.labels_hw)[None])[0])

    def net_of(self, past: Past) -> MatchNet:
        """The net or its copy."""
        if past.weights is None or past.net() == NET:
            return self._quick
        return self._adapted(past)

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes of a memory at most, with flow pictures of this size."""
        picture, flow = 3 * height * width, 8 * height * width
        ends = np.zeros((2, 2)).nbytes
        if not self.steps:
            return ends
        fixed = ends + Past().counts_MIN.nbytes + 2 * np.array([0]).nbytes
        before = picture + height * width + channels * height * width + flow
        lesson = 3 * (picture + height * width) + 2 * flow // 2 + np.array([0, 0]).nbytes
        weights = sum(part.nelement() * part.element_size() for part in self.net.parameters())
        return fixed + before + LESSONS * lesson + weights

    def _one_more(self, current: np.ndarray, key: np.ndarray, before: Link) -> Link:
        """From one key to the other, with its flow; `before`: the link of the frame beside the first to the
        other."""
        grays = [_gray(view) for view in (current, key)]
        link = Link(current=grays[0], key=grays[1], distance=before.distance + 1)

        def estimate(pairs):
            return self._flow.flow([a for a, _ in pairs], [b for _, b in pairs])

        improve([link], estimate([(link.current, link.key)]), [before.flow_hw2], estimate)
        return link

    def _learn(self, past: Past, gap: Gap, left: SeenKey, right: SeenKey, ahead: Link) -> None:
        """Judge both nets on the key between `past.before` and `right`, if there is one, then adapt."""
        before, back_hw2, ahead_hw2 = past.before, past.back_hw2, ahead.flow_hw2
        if before is None or back_hw2 is None or past.last_view is None or ahead_hw2 is None:
            return
        if not np.array_equal(past.last_view, gap.left.view):
            return
        lesson = Lesson(
            pictures=[before.rgb_hw3, left.rgb_hw3, right.rgb_hw3],
            labels=[before.labels_hw, left.labels_hw, right.labels_hw],
            flows=[back_hw2.astype(np.float16), ahead_hw2.astype(np.float16)],
            distances=[past.distance, ahead.distance],
        )
        for counts_IN, net in zip(past.counts_MIN, (self._quick, self._adapted(past)), strict=True):
            counts_IN += _counts(_left_out(lesson, net), left.labels_hw)
        past.checks += 1
        past.lessons = [*past.lessons, lesson][-LESSONS:]
        past.weights = self._adapt(past)

    def _adapted(self, past: Past) -> MatchNet:
        return self._quick if past.weights is None else quick(self._copy(past, device_of(self.net)))

    def _copy(self, past: Past, device: torch.device) -> MatchNet:
        """The adapted net, to be changed."""
        net = deepcopy(self.net).to(device)
        if past.weights is not None:
            weights = torch.from_numpy(past.weights.copy()).to(device)
            nn.utils.vector_to_parameters(weights, net.parameters())
        return net

    def _adapt(self, past: Past) -> np.ndarray | None:
        """The weights after some steps more, on the CPU: a GPU sums gradients in any order."""
        random = np.random.default_rng((past.checks, len(past.lessons)))
        form = _form(past.lessons[-1].labels[0].shape)
        net = self._copy(past, torch.device("cpu")).requires_grad_(True)
        optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.0)
        for step in range(self.steps):
            drawn = (
                draw_sample(past.lessons[int(random.integers(len(past.lessons)))], random, form)
                for _ in range(2 * BATCH)
            )
            samples = [sample for sample in drawn if sample is not None][:BATCH]
            if not samples:
                return past.weights
            optimiser.param_groups[0]["lr"] = RATE * (1.0 - step / self.steps)
            losses = losses_of(*look(net, samples), samples)
            optimiser.zero_grad(set_to_none=True)
            total = sum(weight * losses[name].mean() for name, weight in WEIGHTS.items())
            total.backward()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
        return nn.utils.parameters_to_vector(net.parameters()).detach().numpy()


def _gray(view: np.ndarray) -> np.ndarray:
    return view if view.ndim == 2 else view.mean(axis=2).astype(np.uint8)


def _form(size: tuple[int, ...]) -> CropForm:
    """Crops of the usual size, or as large as there is room for."""
    rows, columns = (
        min(most, max(side // STRIDE, 1) * STRIDE) for most, side in zip((128, 160), size, strict=True)
    )
    return CropForm(height=rows, width=columns, one_sided=0.1)


def _left_out(lesson: Lesson, net: MatchNet | None) -> np.ndarray:
    """labels_hw of the frame in the middle."""
    sides = [
        (
            SeenKey(rgb_hw3=lesson.pictures[n], labels_hw=lesson.labels[n]),
            Link(
                current=_gray(lesson.pictures[1]),
                key=_gray(lesson.pictures[n]),
                distance=lesson.distances[n // 2],
                flow_hw2=lesson.flows[n // 2].astype(np.float32),
            ),
        )
        for n in (0, 2)
    ]
    keys, links = zip(*sides, strict=True)
    return filled_frame(lesson.pictures[1], keys, links, net)


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
    if past.checks:
        memory |= {"counts": past.counts_MIN, "checks": np.array([past.checks])}
    if past.before is not None and past.last_view is not None and past.back_hw2 is not None:
        memory |= {"key.picture": past.before.rgb_hw3, "key.labels": past.before.labels_hw}
        memory |= {
            "last.view": past.last_view,
            "last.flow": past.back_hw2,
            "last.distance": np.array([past.distance]),
        }
    if past.weights is not None:
        memory["net"] = past.weights
    for number, lesson in enumerate(past.lessons):
        parts = {"pictures": lesson.pictures, "labels": lesson.labels, "flows": lesson.flows}
        memory |= {f"lesson.{number}.{name}": np.stack(part) for name, part in parts.items()}
        memory[f"lesson.{number}.distances"] = np.array(lesson.distances)
    return memory


def past_of(memory: Memory) -> Past:
    """What `memory_of` made into arrays."""
    past = Past(ends_W2=memory.get("ends"), weights=memory.get("net"))
    if "checks" in memory:
        past.counts_MIN, past.checks = memory["counts"].copy(), int(memory["checks"][0])
    if "key.picture" in memory:
        past.before = SeenKey(rgb_hw3=memory["key.picture"], labels_hw=memory["key.labels"])
        past.last_view, past.back_hw2 = memory["last.view"], memory["last.flow"]
        past.distance = int(memory["last.distance"][0])
    while f"lesson.{(number := len(past.lessons))}.labels" in memory:
        pictures, labels, flows = (
            list(memory[f"lesson.{number}.{name}"]) for name in ("pictures", "labels", "flows")
        )
        distances = memory[f"lesson.{number}.distances"].tolist()
        past.lessons.append(Lesson(pictures=pictures, labels=labels, flows=flows, distances=distances))
    return past
