"""The net of `match` between one or two keys: what it is asked about, and what a frame shows then.

Model: the net works at flow size, and looks at the box around all that can be in doubt (`sight.in_doubt`).
Its corrections are interpolated to working size, and there meet the label maps as flow warped them, so that
edges stay as sharp as the keys'. Where all sides and the net say the same, nothing is computed at working
size. Two guards:

- a class that is tiny in both keys stays where flow puts it, and so do all but the `MOST` largest classes;
- no class is shown that neither key has.

Legend: H, W working size; h, w flow size, or the box; C classes that the net is asked about; N doubtful
pixels; 3 = better side, left, right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import torch

from vidseg_core.models.match import STRIDE, Keys, MatchNet
from vidseg_core.propagation.gap import GapFrame, GapKey
from vidseg_core.propagation.sight import (
    OTHER,
    Box,
    SeenFrame,
    SeenKey,
    Shares,
    in_doubt,
    pictures_of,
    see,
    shares_of,
    sight_of,
)

TINY = 100
"""Pixels at flow size: a class with fewer in both keys is not the net's business."""
AROUND = 5
"""Side in pixels, at flow size, of the square around a doubtful pixel that the net decides."""
MOST = 16
"""Classes of one frame that the net is asked about."""


Said: TypeAlias = "tuple[Box, np.ndarray, np.ndarray, np.ndarray]"
"""A box, and in it scores_Chw, delta_Chw and trust_3hw (`models.match.Answer`)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The net between one or two keys."""

    net: MatchNet
    keys: Sequence[SeenKey]
    """The left key, and the right one if there is one; their label maps hold places in `classes`."""
    compared: Keys
    shares: Shares
    classes: np.ndarray
    """Ids of the classes that the net is asked about: the largest that are not tiny."""
    table: np.ndarray
    """Class id -> place in `classes`, or `OTHER`."""

    @classmethod
    def about(cls, net: MatchNet, keys: Sequence[SeenKey]) -> Asked | None:
        """`keys` with class ids in their label maps; None where there is nothing to choose between."""
        pixels = np.max([np.bincount(key.labels_hw.ravel(), minlength=256) for key in keys], axis=0)
        largest = np.argsort(-pixels[:OTHER], kind="stable")[:MOST]
        classes = np.sort(largest[pixels[largest] >= TINY])
        if len(classes) < 2:
            return None
        table = np.full(256, OTHER, np.uint8)
        table[classes] = np.arange(len(classes))
        placed = [SeenKey(rgb_hw3=key.rgb_hw3, labels_hw=table[key.labels_hw]) for key in keys]
        shares = (_shares(placed[0], len(classes)), _shares(placed[-1], len(classes)))
        return cls(net, placed, _compared(net, placed), shares, classes, table)

    @torch.inference_mode()
    def says(self, seen: SeenFrame) -> Said | None:
        """What the net makes of a frame between these keys; None: of one without any doubt."""
        box = in_doubt(seen.labels_3hw)
        if box is None:
            return None
        part = seen.cut(box.top, box.left, box.height, box.width)
        corner = (box.top // STRIDE, box.left // STRIDE)
        sight = sight_of([part], [self.shares], corner).to(device_of(self.net))
        answer = self.net(sight, self.compared)
        maps = (answer.scores(sight), answer.delta_Shw, answer.trust_B3hw[0])
        rows, columns = seen.size[0] - box.top, seen.size[1] - box.left  # without what lies beyond the border
        scores_Chw, delta_Chw, trust_3hw = (part[:, :rows, :columns].float().cpu().numpy() for part in maps)
        box = Box(box.top, box.left, *scores_Chw.shape[1:])
        return box, scores_Chw, delta_Chw, trust_3hw

    def places(self, seen: SeenFrame) -> np.ndarray:
        """places_hw at flow size: what the net says in its box, and the better side elsewhere."""
        places_hw, said = seen.labels_3hw[0].copy(), self.says(seen)
        if said is not None:
            box, scores_Chw, _, _ = said
            inside_hw = places_hw[box.top : box.top + box.height, box.left : box.left + box.width]
            np.copyto(inside_hw, np.argmax(scores_Chw, axis=0).astype(np.uint8), where=inside_hw != OTHER)
        return places_hw

    def labels(
        self,
        frame: GapFrame,
        says: Sequence[np.ndarray],
        advantage_hw: np.ndarray | None,
        *,
        part: bool = False,
    ) -> np.ndarray:
        """What the frame shows; `says`: the better side, left and right at working size; `advantage_hw`: of
        the right side; `part`: the net decides where the sides differ only."""
        left, right = self.keys[0], self.keys[1] if len(self.keys) > 1 else None
        seen = see(frame.colours_hw3, left, frame.left, right, frame.right, advantage_hw)
        said = self.says(seen)
        return says[0].copy() if said is None else self._shown(seen, said, says, part)

    def _shown(self, seen: SeenFrame, said: Said, says: Sequence[np.ndarray], part: bool) -> np.ndarray:
        """labels_HW: where there is doubt the net decides, elsewhere the better side."""
        (box, scores_Chw, delta_Chw, trust_3hw), to = said, says[0].shape
        doubtful_HW = _grown_mask(_doubtful(seen, box, scores_Chw), to)
        if part:
            doubtful_HW &= (says[1] & 0xFF) != (says[2] & 0xFF)
        labels_HW = says[0] & 0xFF
        at = np.flatnonzero(doubtful_HW)
        at = at[self.table[labels_HW.ravel()[at]] != OTHER]
        scores_CN, trust_3N = (
            _grown(maps_Xhw, box, seen.size, to, at) for maps_Xhw in (delta_Chw, trust_3hw)
        )
        for side_HW, trust_N in zip(says, trust_3N, strict=True):
            place_N = self.table[side_HW.ravel()[at] & 0xFF]
            known = np.flatnonzero(place_N != OTHER)
            scores_CN[place_N[known], known] += trust_N[known]
        labels_HW.ravel()[at] = self.classes[np.argmax(scores_CN, axis=0)]
        return _with_confidence(labels_HW, says)


def _doubtful(seen: SeenFrame, box: Box, scores_Chw: np.ndarray) -> np.ndarray:
    """mask_hw: where the sides differ, or the net from the better one, and around it. Elsewhere all of them
    say the same, and the better side shows it at working size."""
    better_hw, left_hw, right_hw = seen.labels_3hw
    differs_hw = (left_hw != right_hw).astype(np.uint8)
    at = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
    differs_hw[at] |= np.argmax(scores_Chw, axis=0) != better_hw[at]
    return cv2.dilate(differs_hw, np.ones((AROUND, AROUND), np.uint8))


def _shares(key: SeenKey, classes: int) -> torch.Tensor:
    return shares_of(key.labels_hw, classes)


def device_of(net: MatchNet) -> torch.device:
    """Where the net is."""
    return next(net.parameters()).device


@torch.inference_mode()
def _compared(net: MatchNet, keys: Sequence[SeenKey]) -> Keys:
    left, right = (pictures_of([key.rgb_hw3]).to(device_of(net)) for key in (keys[0], keys[-1]))
    return net.keys(left, right)


def _with_confidence(labels_HW: np.ndarray, says: Sequence[np.ndarray]) -> np.ndarray:
    """The labels in the form of the keys' maps: confidences come from a side that says the same, else are
    0."""
    shown_HW = labels_HW.astype(says[0].dtype)
    if says[0].dtype != np.uint8:
        for side_HW in reversed(says):
            shown_HW = np.where((side_HW & 0xFF) == labels_HW, side_HW, shown_HW)
    return shown_HW


def key_at(key: GapKey) -> SeenKey:
    """The key at flow size, with class ids."""
    labels_HW = (key.carried & 0xFF).astype(np.uint8)
    labels_hw = cv2.resize(labels_HW, key.view.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return SeenKey(rgb_hw3=key.colours_hw3, labels_hw=labels_hw)


def _grown(
    maps_Xhw: np.ndarray, box: Box, size: tuple[int, int], to: tuple[int, ...], at: np.ndarray
) -> np.ndarray:
    """maps_XN: maps of a box, at places of the whole frame at working size."""
    rest = (size[0] - box.top - box.height, size[1] - box.left - box.width)
    found = []
    for map_hw in maps_Xhw:
        whole_hw = cv2.copyMakeBorder(map_hw, box.top, rest[0], box.left, rest[1], cv2.BORDER_REPLICATE)
        grown_HW = cv2.resize(whole_hw, to[1::-1], interpolation=cv2.INTER_LINEAR)
        found.append(grown_HW.ravel()[at])
    return np.stack(found)


def _grown_mask(mask_hw: np.ndarray, to: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(mask_hw, to[1::-1], interpolation=cv2.INTER_NEAREST) > 0
