"""The net of `match` between one or two keys: what it is asked about, and what a frame shows then.

Model: the net works at flow size. Its corrections are interpolated to working size, and there meet the label
maps as flow warped them, so that edges stay as sharp as the keys'. Where all sides and the net say the same,
nothing is computed at working size. Two guards:

- a class that is tiny in both keys stays where flow puts it, and so do all but the `MOST` largest classes;
- no class is shown that neither key has.

Legend: H, W working size; h, w flow size; C classes that the net is asked about; N doubtful pixels; 3 =
better side, left, right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vidseg_core.models.match import Answer, Keys, MatchNet, Sight
from vidseg_core.propagation.gap import GapFrame, GapKey
from vidseg_core.propagation.sight import OTHER, SeenFrame, SeenKey, pictures_of, see, sight_of

TINY = 100
"""Pixels at flow size: a class with fewer in both keys is not the net's business."""
AROUND = 5
"""Side in pixels, at flow size, of the square around a doubtful pixel that the net decides."""
MOST = 16
"""Classes of one frame that the net is asked about."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The net between one or two keys."""

    net: MatchNet
    keys: Sequence[SeenKey]
    """The left key, and the right one if there is one; their label maps hold places in `classes`."""
    compared: Keys
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
        return cls(net, placed, _compared(net, placed), classes, table)

    @torch.inference_mode()
    def says(self, seen: SeenFrame) -> tuple[Answer, Sight]:
        """What the net makes of a frame between these keys."""
        maps = (self.keys[0].labels_hw, self.keys[-1].labels_hw)
        sight = sight_of([seen], [maps], [len(self.classes)]).to(device_of(self.net))
        return self.net(sight, self.compared), sight

    def labels(self, frame: GapFrame, says: Sequence[np.ndarray]) -> np.ndarray:
        """What the frame shows; `says`: the better side, left and right at working size."""
        left, right = self.keys[0], self.keys[1] if len(self.keys) > 1 else None
        size, to = left.labels_hw.shape, says[0].shape
        seen = see(frame.colours_hw3, left, frame.left, right, frame.right)
        answer, sight = self.says(seen)
        doubtful_HW = _grown_mask(_doubtful(seen, _inside(answer.scores(sight), size)), to)
        doubtful_HW &= self.table[says[0] & 0xFF] != OTHER
        scores_CN = _grown(_inside(answer.delta_Shw, size), to)[:, doubtful_HW]
        trust_3N = _grown(_inside(answer.trust_B3hw[0], size), to)[:, doubtful_HW]
        for side_HW, trust_N in zip(says, trust_3N, strict=True):
            place_N = self.table[side_HW[doubtful_HW] & 0xFF]
            known = np.flatnonzero(place_N != OTHER)
            scores_CN[place_N[known], known] += trust_N[known]
        labels_HW = says[0] & 0xFF
        labels_HW[doubtful_HW] = self.classes[np.argmax(scores_CN, axis=0)]
        return _with_confidence(labels_HW, says)


def _doubtful(seen: SeenFrame, scores_Chw: np.ndarray) -> np.ndarray:
    """mask_hw: where the sides differ, or the net from the better one, and around it. Elsewhere all of them
    say the same, and the better side shows it at working size."""
    better_hw, left_hw, right_hw = seen.labels_3hw
    differs_hw = (left_hw != right_hw) | (np.argmax(scores_Chw, axis=0) != better_hw)
    return cv2.dilate(differs_hw.astype(np.uint8), np.ones((AROUND, AROUND), np.uint8))


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


def _inside(maps_Xhw: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Without what fills them up."""
    return maps_Xhw[:, : size[0], : size[1]].float().cpu().numpy()


def _grown(maps_Xhw: np.ndarray, to: tuple[int, ...]) -> np.ndarray:
    return np.stack([cv2.resize(map_hw, to[1::-1], interpolation=cv2.INTER_LINEAR) for map_hw in maps_Xhw])


def _grown_mask(mask_hw: np.ndarray, to: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(mask_hw, to[1::-1], interpolation=cv2.INTER_NEAREST) > 0
