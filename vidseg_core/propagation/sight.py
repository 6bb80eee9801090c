"""What the net of `match` is shown of a frame between two keys: pictures, warps, their errors, label maps.

Model: all of it is made at flow size from the frame, the keys and the flows to them, for segmenting and for
training alike. Label maps hold places in a list of classes, not class ids; `OTHER` is a class that is not in
the list. Without a right key the left one stands in for it and its distance is 0.

Legend: h, w flow size; B frames, C classes of one frame, S of all together; E evidence; 3 = RGB, or the
better side, left, right; q, r = h/8, w/8, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as functional

from vidseg_core.models.match import STRIDE, Sight
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.two_sided import choose, prefer_right
from vidseg_core.propagation.warp import warp_error, warp_labels, warp_picture

OTHER = 255
FAR_APART = 30.0
"""Frames: distances are counted in these."""
NO_ERROR, NO_KEY = 2.0, 1.0
"""Evidence where there is no right key: error and disagreement; agreement."""
AROUND = 16
"""Pixels at flow size around a border between classes that the net looks at."""
_WINDOW = (5, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenKey:
    """A key at flow size."""

    rgb_hw3: np.ndarray
    labels_hw: np.ndarray
    """uint8 places in a list of classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFrame:
    """A frame between keys at flow size."""

    now_hw3: np.ndarray
    left_hw3: np.ndarray
    right_hw3: np.ndarray
    """uint8: the frame, and both keys warped to it."""
    evidence_Ehw: np.ndarray
    distances: tuple[float, float]
    labels_3hw: np.ndarray
    """uint8: where flow puts the classes."""

    def cut(self, top: int, left: int, height: int, width: int) -> SeenFrame:
        """A window of it; beyond its border it goes on as there."""
        at = np.s_[top : top + height, left : left + width]
        beyond = [
            max(0, size - all_) for size, all_ in zip((top + height, left + width), self.size, strict=True)
        ]
        if any(beyond):
            return self._grown(*beyond).cut(top, left, height, width)
        return replace(
            self,
            now_hw3=self.now_hw3[at],
            left_hw3=self.left_hw3[at],
            right_hw3=self.right_hw3[at],
            evidence_Ehw=self.evidence_Ehw[:, at[0], at[1]],
            labels_3hw=self.labels_3hw[:, at[0], at[1]],
        )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.now_hw3.shape[0], self.now_hw3.shape[1]

    def _grown(self, down: int, across: int) -> SeenFrame:
        def grown(array: np.ndarray, first: int) -> np.ndarray:
            wide = [(0, 0)] * array.ndim
            wide[first : first + 2] = [(0, down), (0, across)]
            return np.pad(array, wide, mode="edge")

        pictures = (self.now_hw3, self.left_hw3, self.right_hw3)
        now_hw3, left_hw3, right_hw3 = (grown(picture, 0) for picture in pictures)
        return replace(
            self,
            now_hw3=now_hw3,
            left_hw3=left_hw3,
            right_hw3=right_hw3,
            evidence_Ehw=grown(self.evidence_Ehw, 1),
            labels_3hw=grown(self.labels_3hw, 1),
        )


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a frame: pixels at flow size, in whole places."""

    top: int
    left: int
    height: int
    width: int


def in_doubt(labels_3hw: np.ndarray) -> Box | None:
    """What the net has to look at: where the sides differ, borders between classes, and `AROUND` them. Its
    lower right border may lie outside the frame. None: every place of it says the same on all sides."""
    better_hw, left_hw, right_hw = labels_3hw
    edges_hw = cv2.morphologyEx(better_hw, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    across, down, width, height = cv2.boundingRect(((edges_hw > 0) | (left_hw != right_hw)).astype(np.uint8))
    if not width:
        return None
    (top, bottom), (left, right) = (
        (max(0, begin - AROUND) // STRIDE, -(-min(size, begin + length + AROUND) // STRIDE))
        for begin, length, size in zip((down, across), (height, width), better_hw.shape, strict=True)
    )
    return Box(top * STRIDE, left * STRIDE, (bottom - top) * STRIDE, (right - left) * STRIDE)


def advantage(left: Link, right: Link) -> np.ndarray:
    """Where the right side explains the frame better (see `two_sided`)."""
    errors = [warp_error(link.current, link.key, link.flow_hw2) for link in (left, right)]
    return prefer_right(*errors, right_is_nearer=right.distance < left.distance)


def see(
    now_hw3: np.ndarray,
    left: SeenKey,
    to_left: Link,
    right: SeenKey | None,
    to_right: Link | None,
    advantage_hw: np.ndarray | None = None,
) -> SeenFrame:
    """The frame as the net sees it; the links have their flows. `advantage_hw`: of the right side, where that
    is known already."""
    flow_hw2 = _flow(to_left)
    left_hw3, left_hw = warp_picture(left.rgb_hw3, flow_hw2), warp_labels(left.labels_hw, flow_hw2)
    left_error_hw = _error(now_hw3, left_hw3)
    if right is None or to_right is None:
        nothing = np.full(left_error_hw.shape, NO_ERROR, np.float32)
        evidence = [left_error_hw, nothing, nothing, np.full_like(nothing, NO_KEY)]
        labels, right_hw3, away = [left_hw] * 3, left_hw3, 0
    else:
        back_hw2, away = _flow(to_right), to_right.distance
        right_hw3, right_hw = warp_picture(right.rgb_hw3, back_hw2), warp_labels(right.labels_hw, back_hw2)
        apart_hw2 = np.abs(flow_hw2 / to_left.distance + back_hw2 / to_right.distance)
        apart_hw = np.minimum(apart_hw2.sum(2), 4.0) / 2.0
        same_hw = (left_hw == right_hw).astype(np.float32)
        evidence = [left_error_hw, _error(now_hw3, right_hw3), apart_hw.astype(np.float32), same_hw]
        if advantage_hw is None:
            advantage_hw = advantage(to_left, to_right)
        labels = [choose(left_hw, right_hw, advantage_hw), left_hw, right_hw]
    return SeenFrame(
        now_hw3=now_hw3,
        left_hw3=left_hw3,
        right_hw3=right_hw3,
        evidence_Ehw=np.stack(evidence),
        distances=(to_left.distance / FAR_APART, away / FAR_APART),
        labels_3hw=np.stack(labels),
    )


Shares = tuple[torch.Tensor, torch.Tensor]
"""Of the left and the right key."""


def sight_of(
    frames: Sequence[SeenFrame], shares: Sequence[Shares], corner: tuple[int, int] = (0, 0)
) -> Sight:
    """Frames of one size, in whole places, as tensors; `shares`: of both keys of each (`shares_of`);
    `corner`: place of a key that the frames begin at."""
    counts = [len(left) for left, _ in shares]
    owner_S = torch.repeat_interleave(torch.arange(len(frames)), torch.tensor(counts))
    return Sight(
        pictures_X3hw=pictures_of(
            [getattr(frame, name) for name in ("now_hw3", "left_hw3", "right_hw3") for frame in frames]
        ),
        evidence_BEhw=torch.from_numpy(np.stack([frame.evidence_Ehw for frame in frames])),
        distances_B2=torch.tensor([frame.distances for frame in frames]),
        places_B3hw=torch.from_numpy(np.stack([frame.labels_3hw for frame in frames])),
        place_S=torch.cat([torch.arange(count, dtype=torch.uint8) for count in counts]),
        shares=shares,
        owner_S=owner_S,
        corner=corner,
    )


def pictures_of(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 RGB pictures as the net wants them: (B, 3, h, w), -1 to 1, in whole places."""
    pixels_B3hw = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    return _whole_places(pixels_B3hw.div_(128.0).sub_(1.0))


def one_hot(labels_Xhw: np.ndarray, count: int) -> torch.Tensor:
    """(C, X, h, w) float32: 1 where a map has the class."""
    labels = torch.from_numpy(labels_Xhw)
    return (labels[None] == torch.arange(count, dtype=torch.uint8)[:, None, None, None]).float()


def shares_of(labels_hw: np.ndarray, count: int, side: int = STRIDE) -> torch.Tensor:
    """(C, q, r): share of each class in each square of so many pixels."""
    return functional.avg_pool2d(_whole_places(one_hot(labels_hw[None], count)), side)[:, 0]


def _whole_places(maps_BFhw: torch.Tensor) -> torch.Tensor:
    """Rows and columns filled up to multiples of `STRIDE` with what the border has."""
    rows, columns = (-size % STRIDE for size in maps_BFhw.shape[2:])
    return (
        functional.pad(maps_BFhw, (0, columns, 0, rows), mode="replicate") if rows or columns else maps_BFhw
    )


def _error(now_hw3: np.ndarray, warped_hw3: np.ndarray) -> np.ndarray:
    """Mean difference of the colours around a pixel; a whole one is 128 gray levels in each of them."""
    total_hw = cv2.transform(cv2.absdiff(now_hw3, warped_hw3).astype(np.float32), np.ones((1, 3), np.float32))
    return cv2.blur(total_hw, _WINDOW, borderType=cv2.BORDER_REPLICATE) / 128.0


def _flow(link: Link) -> np.ndarray:
    if link.flow_hw2 is None:
        raise ValueError("match needs a flow")
    return link.flow_hw2
