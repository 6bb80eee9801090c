"""Keys are labels that cost nothing: which way of filling gaps suits a segment, and how the net gets used to
it.

Model: once a key has a key on both sides, it is filled in as if it had been left out: by flow, by the net,
and by the net as adapted so far. Pixel counts of all such keys of a segment are summed, and the way with the
highest mean IoU fills the gap that has just closed; before the first such key, and where two are equal, it is
flow. Then the adapted net learns some steps from the last `LESSONS` left-out keys. All of it lies in the
gap's memory: stored with the segment, and gone with it.

Invariants: a key is judged before the adapted net learns from it; what fills a gap depends on the segment's
keys up to the one that closes it.

Legend: h, w flow size; 2 = (u, v); M ways, I class ids; N = both, said, true.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from vidseg_core.models.match import STRIDE, MatchNet
from vidseg_core.propagation.asked import Asked, device_of, key_at
from vidseg_core.propagation.chain import Link, improve
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.gap import Gap, Memory
from vidseg_core.propagation.lesson import CropForm, Lesson, draw_sample, look, losses_of
from vidseg_core.propagation.sight import OTHER, SeenFrame, SeenKey, see

FLOW, NET, ADAPTED = "flow", "match", "adapted"
WAYS = (FLOW, NET, ADAPTED)
LESSONS = 4
"""Left-out keys that the adapted net learns from, the last ones."""
BATCH, RATE = 4, 1e-3
WEIGHTS = {"pixels": 2.0, "overlap": 1.0, "read": 0.3}
"""Of the losses (`lesson.LOSSES`)."""


@dataclass(slots=True, kw_only=True)
class Past:
    """What is remembered of a segment between gaps."""

    counts_MIN: np.ndarray = field(default_factory=lambda: np.zeros((len(WAYS), 256, 3), np.int64))
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

    def scores(self) -> np.ndarray:
        """Mean IoU of each way over the left-out keys."""
        both, said, true = np.moveaxis(self.counts_MIN.astype(np.float64), 2, 0)
        union, there = np.maximum(said + true - both, 1.0), true > 0
        return (both / union * there).sum(1) / np.maximum(there.sum(1), 1)

    def words(self) -> str:
        """The choice and what it follows from."""
        if not self.checks:
            return FLOW
        ways = WAYS if self.weights is not None else WAYS[:2]
        scores = zip(ways, self.scores(), strict=False)
        found = ", ".join(f"{way} {score:.3f}" for way, score in scores)
        return f"{self.choice()} ({self.checks} left-out key{'s' * (self.checks > 1)}: {found})"

    def choice(self) -> str:
        """The way that fills the gap."""
        return WAYS[int(np.argmax(self.scores()))] if self.checks else FLOW


class SelfCheck:
    """`steps`: what the adapted net learns after each left-out key; 0: it is left as it is."""

    def __init__(self, net: MatchNet, steps: int = 0) -> None:
        self.net, self.steps = net, steps
        self._flow = DisFlow()

    def close(self, gap: Gap) -> Past:
        """What is known once the gap's right key is there; the gap's memory is what the next one needs."""
        past = past_of(gap.memory)
        if gap.right is None or not gap.frames:
            return past
        left, right = key_at(gap.left), key_at(gap.right)
        first, last = gap.frames[0], gap.frames[-1]
        if past.before is not None and past.last_view is not None and first.right is not None:
            if np.array_equal(past.last_view, gap.left.view):
                ahead_hw2 = self._one_more(gap.left.view, gap.right.view, first.right)
                self._learn(past, left, right, ahead_hw2, first.right.distance + 1)
        past.back_hw2 = self._one_more(gap.right.view, gap.left.view, last.left)
        past.before, past.last_view, past.distance = left, gap.right.view, last.left.distance + 1
        gap.memory = memory_of(past)
        return past

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes of a memory at most, with flow pictures of this size."""
        picture, flow = 3 * height * width, 8 * height * width
        fixed = Past().counts_MIN.nbytes + 2 * np.array([0]).nbytes
        before = picture + height * width + channels * height * width + flow
        if not self.steps:
            return fixed + before
        lesson = 3 * (picture + height * width) + 2 * flow // 2 + np.array([0, 0]).nbytes
        weights = sum(part.nelement() * part.element_size() for part in self.net.parameters())
        return fixed + before + LESSONS * lesson + weights

    def net_of(self, past: Past) -> MatchNet | None:
        """What fills the gap; None: flow does."""
        choice = past.choice()
        return None if choice == FLOW else self.net if choice == NET else self._adapted(past)

    def _one_more(self, current: np.ndarray, key: np.ndarray, before: Link) -> np.ndarray:
        """Flow from one key to the other; `before`: the link of the frame beside the first to the other."""
        grays = [_gray(view) for view in (current, key)]
        link = Link(current=grays[0], key=grays[1], distance=before.distance + 1)

        def estimate(pairs):
            return self._flow.flow([a for a, _ in pairs], [b for _, b in pairs])

        improve([link], estimate([(link.current, link.key)]), [before.flow_hw2], estimate)
        assert link.flow_hw2 is not None
        return link.flow_hw2

    def _learn(self, past: Past, left: SeenKey, right: SeenKey, ahead_hw2: np.ndarray, distance: int) -> None:
        """Judge all ways on the key between `past.before` and `right`, then adapt."""
        before, back_hw2 = past.before, past.back_hw2
        assert before is not None and back_hw2 is not None
        lesson = Lesson(
            pictures=[before.rgb_hw3, left.rgb_hw3, right.rgb_hw3],
            labels=[before.labels_hw, left.labels_hw, right.labels_hw],
            flows=[back_hw2.astype(np.float16), ahead_hw2.astype(np.float16)],
            distances=[past.distance, distance],
        )
        nets = [None, self.net, *([self._adapted(past)] if self.steps else [])]
        for counts_IN, net in zip(past.counts_MIN, nets, strict=False):
            counts_IN += _counts(_filled(lesson, net), left.labels_hw)
        past.checks += 1
        if self.steps:
            past.lessons = [*past.lessons, lesson][-LESSONS:]
            past.weights = self._adapt(past)

    def _adapted(self, past: Past) -> MatchNet:
        return self.net if past.weights is None else self._copy(past, device_of(self.net))

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


def _filled(lesson: Lesson, net: MatchNet | None) -> np.ndarray:
    """labels_hw of the frame in the middle, by flow or a net."""
    keys = [SeenKey(rgb_hw3=lesson.pictures[n], labels_hw=lesson.labels[n]) for n in (0, 2)]
    seen = _seen(lesson, keys)
    asked = None if net is None else Asked.about(net, keys)
    if asked is None:
        return seen.labels_3hw[0]
    said = _seen(lesson, asked.keys)
    answer, sight = asked.says(said)
    rows, columns = lesson.labels[1].shape
    places_hw = answer.scores(sight)[:, :rows, :columns].argmax(0).cpu().numpy()
    return np.where(said.labels_3hw[0] == OTHER, seen.labels_3hw[0], asked.classes[places_hw]).astype(
        np.uint8
    )


def _seen(lesson: Lesson, keys) -> SeenFrame:
    links = [
        Link(
            current=_gray(lesson.pictures[1]),
            key=_gray(lesson.pictures[2 * side]),
            distance=lesson.distances[side],
            flow_hw2=lesson.flows[side].astype(np.float32),
        )
        for side in (0, 1)
    ]
    return see(lesson.pictures[1], keys[0], links[0], keys[1], links[1])


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
    memory: Memory = {"counts": past.counts_MIN, "checks": np.array([past.checks])}
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
    if not memory:
        return Past()
    past = Past(
        counts_MIN=memory["counts"].copy(), checks=int(memory["checks"][0]), weights=memory.get("net")
    )
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
