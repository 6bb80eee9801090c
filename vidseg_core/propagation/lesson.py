"""What the net of `match` learns from: a frame between two others that stand in for keys, all with labels.

Model: in training a lesson is cut out of a labelled clip; while a video is segmented its keys are labels that
cost nothing, and three of them in a row are a lesson. A crop of it in another light and at another size is a
sample, drawn from the lesson and the random generator alone. Classes are renamed and merged at random, so
that the net cannot know any.

Legend: h, w size of a lesson or crop; B samples, C classes of one, S of all; 2 = (u, v); 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from numpy.random import Generator

from vidseg_core.models.match import STRIDE, Answer, MatchNet, Sight
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.sight import OTHER, SeenFrame, SeenKey, pictures_of, see, shares_of, sight_of
from vidseg_core.propagation.warp import resize_flow

LOSSES = ("pixels", "overlap", "read")
"""Cross-entropy; one less the soft IoU; what the comparisons read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A key, a frame, a key: in this order or the other way round."""

    pictures: Sequence[np.ndarray]
    """uint8 hw3 of the three."""
    labels: Sequence[np.ndarray]
    """uint8 hw class ids or `OTHER`."""
    flows: Sequence[np.ndarray]
    """hw2 from the frame to each key, of any float type."""
    distances: Sequence[int]
    name: str = ""
    """What it was cut out of, in words."""

    def classes(self) -> np.ndarray:
        """Ids of the classes that are to be seen in it, in order."""
        counts = sum(np.bincount(labels_hw.ravel(), minlength=256) for labels_hw in self.labels)
        return np.flatnonzero(np.asarray(counts)[:OTHER])


@dataclass(frozen=True, slots=True, kw_only=True)
class CropForm:
    """How a sample is cut out of a lesson."""

    height: int = 128
    """Rows and columns, multiples of `STRIDE`."""
    width: int = 160
    classes: int = 4
    """Most classes; more are merged."""
    one_sided: float = 0.15
    """Share of samples without a right key."""
    hard: float = 0.7
    """Share of samples around a pixel where flow is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the net sees of a crop, and what it should say."""

    frame: SeenFrame
    keys: tuple[SeenKey, SeenKey]
    target_hw: np.ndarray
    """uint8 place in the list of classes, or `OTHER`."""
    classes: int
    ids: str = ""
    """What it was cut out of, in words."""


def draw_sample(lesson: Lesson, random: Generator, form: CropForm) -> Sample | None:
    """A random crop; None for a lesson with less than two classes."""
    order = (0, 1, 2) if random.random() < 0.5 else (2, 1, 0)
    ends = (order[0] // 2, order[2] // 2)
    table, classes = _renamed(lesson.classes(), random, form.classes)
    if classes < 2:
        return None
    mirror, size = random.random() < 0.5, _size(lesson.labels[1].shape, random, form)
    lit = _light(random)
    left, now, right = (
        SeenKey(
            rgb_hw3=_turned(cv2.LUT(lesson.pictures[n], lit()), size, mirror, cv2.INTER_AREA),
            labels_hw=_turned(table[lesson.labels[n]], size, mirror, cv2.INTER_NEAREST_EXACT),
        )
        for n in order
    )
    gray_hw = cv2.cvtColor(now.rgb_hw3, cv2.COLOR_RGB2GRAY)
    to_left, to_right = (
        Link(
            current=gray_hw,
            key=cv2.cvtColor(key.rgb_hw3, cv2.COLOR_RGB2GRAY),
            distance=lesson.distances[end],
            flow_hw2=_turned_flow(lesson.flows[end], size, mirror),
        )
        for key, end in zip((left, right), ends, strict=True)
    )
    one_sided = random.random() < form.one_sided
    seen = see(now.rgb_hw3, left, to_left, None if one_sided else right, to_right)
    top, across = _place(seen.labels_3hw[0], now.labels_hw, random, form)
    at = np.s_[top : top + form.height, across : across + form.width]
    first, last = (
        SeenKey(rgb_hw3=key.rgb_hw3[at], labels_hw=key.labels_hw[at])
        for key in (left, left if one_sided else right)
    )
    return Sample(
        frame=seen.cut(top, across, form.height, form.width),
        keys=(first, last),
        target_hw=now.labels_hw[at],
        classes=classes,
        ids=lesson.name,
    )


def _renamed(classes: np.ndarray, random: Generator, most: int) -> tuple[np.ndarray, int]:
    """Table from class ids to at most `most` places in random order, and how many there are."""
    present = random.permutation(classes)
    table = np.full(256, OTHER, np.uint8)
    table[present] = np.minimum(np.arange(len(present)), most - 1)
    return table, min(len(present), most)


def _size(size: tuple[int, ...], random: Generator, form: CropForm) -> tuple[int, int]:
    """(rows, columns) that the lesson is brought to: from its own to the smallest that a crop fits in."""
    least = max(form.height / size[0], form.width / size[1])
    scale = max(least, random.uniform(min(1.0, max(least, 0.5)), 1.0))
    return max(form.height, round(size[0] * scale)), max(form.width, round(size[1] * scale))


def _turned(picture: np.ndarray, size: tuple[int, int], mirror: bool, how: int) -> np.ndarray:
    if picture.shape[:2] != size:
        picture = cv2.resize(picture, size[::-1], interpolation=how)
    return np.ascontiguousarray(picture[:, ::-1]) if mirror else picture


def _turned_flow(flow_hw2: np.ndarray, size: tuple[int, int], mirror: bool) -> np.ndarray:
    resized_hw2 = resize_flow(flow_hw2.astype(np.float32), *size)
    if not mirror:
        return resized_hw2
    return np.ascontiguousarray(resized_hw2[:, ::-1]) * np.array([-1.0, 1.0], np.float32)


def _light(random: Generator) -> Callable[[], np.ndarray]:
    """Tables of one light, each call a little different."""
    gain, offset = random.uniform(0.75, 1.25), random.uniform(-20.0, 20.0)

    def table() -> np.ndarray:
        own_gain, own_offset = random.normal(gain, 0.02, 3), random.normal(offset, 2.0, 3)
        levels = np.arange(256)[:, None] * own_gain + own_offset
        return np.clip(np.round(levels), 0, 255).astype(np.uint8).reshape(256, 1, 3)

    return table


def _place(said_hw: np.ndarray, target_hw: np.ndarray, random: Generator, form: CropForm) -> tuple[int, int]:
    """Top left corner of the crop: mostly where flow is wrong."""
    rows, columns = target_hw.shape
    wrong = np.flatnonzero((said_hw != target_hw) & (target_hw != OTHER))
    if len(wrong) and random.random() < form.hard:
        centre = np.array(divmod(int(random.choice(wrong)), columns)) + random.integers(-24, 25, 2)
    else:
        centre = random.integers(0, (rows, columns))
    most = (rows - form.height, columns - form.width)
    top, left = np.clip(centre - (form.height // 2, form.width // 2), 0, most).tolist()
    return top, left


def look(
    net: MatchNet, samples: Sequence[Sample], device: torch.device | str = "cpu"
) -> tuple[Answer, Sight]:
    """What the net says of samples of one size."""
    shares = [
        (shares_of(s.keys[0].labels_hw, s.classes), shares_of(s.keys[1].labels_hw, s.classes))
        for s in samples
    ]
    sight = sight_of([sample.frame for sample in samples], shares).to(device)
    left, right = (pictures_of([s.keys[side].rgb_hw3 for s in samples]).to(device) for side in (0, 1))
    return net(sight, net.keys(left, right)), sight


def losses_of(answer: Answer, sight: Sight, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """(B,) by name of the loss."""
    scores_Shw = answer.scores(sight)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in LOSSES}
    first = 0
    for sample in samples:
        of = slice(first, first := first + sample.classes)
        target_hw = torch.from_numpy(sample.target_hw).long().to(scores_Shw.device)
        found["pixels"].append(_cross_entropy(scores_Shw[of], target_hw))
        found["overlap"].append(_overlap(scores_Shw[of], target_hw))
        found["read"].append(
            _misread(answer.near_Syx[of], sample, 4) + _misread(answer.far_Smn[of], sample, STRIDE)
        )
    return {name: torch.stack(parts) for name, parts in found.items()}


def _misread(read_Cyx: torch.Tensor, sample: Sample, side: int) -> torch.Tensor:
    """Cross-entropy of what a comparison read and the true shares of its places."""
    shares_Cyx = shares_of(sample.target_hw, sample.classes, side).to(read_Cyx.device)
    return -(shares_Cyx * read_Cyx.clamp_min(1e-3).log()).sum(0).mean()


def _cross_entropy(scores_Chw: torch.Tensor, target_hw: torch.Tensor) -> torch.Tensor:
    known = target_hw != OTHER
    if not known.any():
        return scores_Chw.sum() * 0.0
    return functional.cross_entropy(scores_Chw[None], target_hw[None], ignore_index=OTHER)


def _overlap(scores_Chw: torch.Tensor, target_hw: torch.Tensor) -> torch.Tensor:
    """One less the soft IoU, the mean over the classes that are there."""
    known_hw = (target_hw != OTHER).float()
    said_Chw = scores_Chw.softmax(0) * known_hw
    places = torch.arange(len(scores_Chw), device=target_hw.device)
    true_Chw = (target_hw[None] == places[:, None, None]).float()
    both, either = (said_Chw * true_Chw).sum((1, 2)), (said_Chw + true_Chw - said_Chw * true_Chw).sum((1, 2))
    there = true_Chw.sum((1, 2)) > 0
    if not there.any():
        return scores_Chw.sum() * 0.0
    return (1.0 - (both + 1.0) / (either + 1.0))[there].mean()
