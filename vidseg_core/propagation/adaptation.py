"""How the net of `match` gets used to a segment: a copy of it learns from the segment's own keys.

Model: two keys side by side are two lessons with one side: each is to be filled in from the other one alone.
A key between two others is one with two sides. Whoever closes a gap knows both of its keys, so the copy has
learned from them before the gap is filled; half of what a short clip holds lies behind its last key, which
lessons with one side are about. The copy learns from the last `PAIRS` pairs, most of all from the first one:
it has the longest way to go then.

Invariants: the same keys in the same order make the same copy, whatever has been stored in between; gradients
are made on the CPU, since a GPU sums them in any order.

Legend: h, w flow size; 2 = (u, v), or left and right key; P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from vidseg_core.models.match import STRIDE, MatchNet
from vidseg_core.propagation.gap import Memory
from vidseg_core.propagation.lesson import CropForm, Lesson, draw_sample, look, losses_of
from vidseg_core.propagation.sight import SeenKey

PAIRS = 4
"""Pairs of keys that the copy learns from, the last ones."""
LATER = 4
"""At the first pair it learns so many times as long as at each later one."""
TRIED = 3
"""Steps that are timed."""
BATCH, RATE = 4, 1e-3
WEIGHTS = {"pixels": 2.0, "overlap": 1.0, "read": 0.3}
"""Of the losses (`lesson.LOSSES`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """Two keys side by side."""

    keys: tuple[SeenKey, SeenKey]
    flows: tuple[np.ndarray, np.ndarray]
    """float16 hw2: from the left key to the right one, and back."""
    distance: int
    """Frames."""

    def lessons(self) -> list[Lesson]:
        """Each key from the other one."""
        (left, right), (ahead_hw2, back_hw2) = self.keys, self.flows
        return [
            _lesson([other, now, other], [flow_hw2] * 2, [self.distance] * 2)
            for now, other, flow_hw2 in ((left, right, ahead_hw2), (right, left, back_hw2))
        ]

    def lesson_between(self, after: KeyPair) -> Lesson:
        """The key that this pair and the next one share, from both sides."""
        keys = [*self.keys, after.keys[1]]
        return _lesson(keys, [self.flows[1], after.flows[0]], [self.distance, after.distance])


def _lesson(keys: Sequence[SeenKey], flows: Sequence[np.ndarray], distances: Sequence[int]) -> Lesson:
    return Lesson(
        pictures=[key.rgb_hw3 for key in keys],
        labels=[key.labels_hw for key in keys],
        flows=flows,
        distances=distances,
    )


def with_pair(pairs: Sequence[KeyPair], new: KeyPair) -> list[KeyPair]:
    """The last pairs of a segment with one more; a pair that does not begin where the last one ends is the
    only one."""
    if pairs and not np.array_equal(pairs[-1].keys[1].rgb_hw3, new.keys[0].rgb_hw3):
        return [new]
    return [*pairs, new][-PAIRS:]


def adapted(net: MatchNet, weights: np.ndarray | None, device: torch.device | str) -> MatchNet:
    """A copy with these weights (one row; None: the net's own), to be changed."""
    copy = deepcopy(net).to(device)
    if weights is not None:
        nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()).to(device), copy.parameters())
    return copy


def adapt(
    net: MatchNet, weights: np.ndarray | None, pairs: Sequence[KeyPair], steps: int, seed: int
) -> np.ndarray | None:
    """The weights after some steps more on these pairs; those before where they have no two classes."""
    random, form = np.random.default_rng(seed), _form(pairs[0].flows[0].shape)
    with_one_side = replace(form, one_sided=1.0)
    lessons = [(lesson, with_one_side) for pair in pairs for lesson in pair.lessons()]
    lessons += [(one.lesson_between(next_one), form) for one, next_one in zip(pairs, pairs[1:], strict=False)]
    lessons = [(lesson, form) for lesson, form in lessons if len(lesson.classes()) > 1]
    if not lessons:
        return weights
    copy = adapted(net, weights, "cpu").requires_grad_(True)
    optimiser = torch.optim.AdamW(copy.parameters(), RATE, weight_decay=0.0)
    for step in range(steps):
        chosen = (lessons[int(random.integers(len(lessons)))] for _ in range(BATCH))
        drawn = (draw_sample(lesson, random, form) for lesson, form in chosen)
        samples = [sample for sample in drawn if sample is not None]
        optimiser.param_groups[0]["lr"] = RATE * (1.0 - step / steps)
        losses = losses_of(*look(copy, samples), samples)
        optimiser.zero_grad(set_to_none=True)
        total = sum(weight * losses[name].mean() for name, weight in WEIGHTS.items())
        total.backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(copy.parameters(), 1.0)
        optimiser.step()
    return nn.utils.parameters_to_vector(copy.parameters()).detach().numpy()


def steps_at(steps: int, pair: int) -> int:
    """Steps at a segment's first pair of keys (0), and at those after it."""
    return steps if pair == 0 else -(-steps // LATER)


def seconds_a_step(net: MatchNet, height: int, width: int, clock: Callable[[], float]) -> float:
    """What a step takes here, found on keys of this size with two classes."""
    rgb_hw3 = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    labels_hw = np.repeat((np.arange(height) * 2 // height).astype(np.uint8)[:, None], width, axis=1)
    key, still_hw2 = SeenKey(rgb_hw3=rgb_hw3, labels_hw=labels_hw), np.zeros((height, width, 2), np.float16)
    pair = KeyPair(keys=(key, key), flows=(still_hw2, still_hw2), distance=1)
    adapt(net, None, [pair], 1, 0)  # the first one allocates
    began = clock()
    adapt(net, None, [pair], TRIED, 0)
    return (clock() - began) / TRIED


def _form(size: tuple[int, ...]) -> CropForm:
    """Crops of the usual size, or as large as there is room for."""
    rows, columns = (
        min(most, max(side // STRIDE, 1) * STRIDE) for most, side in zip((128, 160), size[:2], strict=True)
    )
    return CropForm(height=rows, width=columns, one_sided=0.1)


# --- as a gap's memory -------------------------------------------------------------------------------------


def memory_of_pairs(pairs: Sequence[KeyPair]) -> Memory:
    """Pairs, of which each begins where the one before ends, as arrays by name."""
    if not pairs:
        return {}
    keys = [pairs[0].keys[0], *(pair.keys[1] for pair in pairs)]
    return {
        "keys.pictures": np.stack([key.rgb_hw3 for key in keys]),
        "keys.labels": np.stack([key.labels_hw for key in keys]),
        "keys.flows": np.stack([np.stack(pair.flows) for pair in pairs]),
        "keys.distances": np.array([pair.distance for pair in pairs]),
    }


def pairs_of(memory: Memory) -> list[KeyPair]:
    """What `memory_of_pairs` made into arrays."""
    if "keys.pictures" not in memory:
        return []
    keys = [
        SeenKey(rgb_hw3=rgb_hw3, labels_hw=labels_hw)
        for rgb_hw3, labels_hw in zip(memory["keys.pictures"], memory["keys.labels"], strict=True)
    ]
    rest = zip(keys, keys[1:], memory["keys.flows"], memory["keys.distances"].tolist(), strict=False)
    return [
        KeyPair(keys=(left, right), flows=(flows_2hw2[0], flows_2hw2[1]), distance=distance)
        for left, right, flows_2hw2, distance in rest
    ]


def most_bytes_of_pairs(height: int, width: int) -> int:
    """Of `memory_of_pairs` at most, with flow pictures of this size."""
    key, flow = 4 * height * width, 2 * 2 * height * width
    return (PAIRS + 1) * key + PAIRS * (2 * flow + np.array([0]).nbytes)
