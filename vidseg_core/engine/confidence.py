"""How sure N was, pixel by pixel, beside the label: for pseudo-labels.

Model: the confidence of a pixel is the probability (softmax) of its class. It travels with the label as one
uint16 number, `label + 256 * confidence`, so that whatever moves or chooses labels moves confidences the same
way. When a frame is final, pixels below the threshold become `IGNORE` and the classes are renumbered.
Invariant: without a `LabelRule` nothing here runs and masks are plain uint8.

Legend: C classes, H, W working size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

IGNORE = 255
"""Label of a pixel that a student net does not learn from."""
_STEPS = 255
"""Confidence is kept in steps of 1/255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """What becomes of a label map with confidences."""

    min_confidence: float
    """Pixels below it become `IGNORE`; 0 keeps all."""
    remap: tuple[int, ...] = ()
    """New id of each class of N (`IGNORE` allowed); empty: as they are."""

    def settle(self, packed_HW: np.ndarray) -> tuple[np.ndarray, float, float]:
        """(labels_HW uint8, mean confidence 0..1 over the frame, share of pixels that keep a label)."""
        labels_HW = (packed_HW & 0xFF).astype(np.uint8)
        confidence_HW = packed_HW >> 8
        if self.remap:
            table = np.full(256, IGNORE, dtype=np.uint8)
            table[: len(self.remap)] = self.remap
            labels_HW = table[labels_HW]
        labels_HW[confidence_HW < np.ceil(self.min_confidence * _STEPS)] = IGNORE
        mean = float(confidence_HW.mean(dtype=np.float64)) / _STEPS
        return labels_HW, mean, float(np.count_nonzero(labels_HW != IGNORE)) / labels_HW.size


def pack(labels_HW: np.ndarray, scores_CHW: torch.Tensor) -> np.ndarray:
    """packed_HW uint16 of a label map and the scores that it came from."""
    probability_HW = torch.softmax(scores_CHW.float(), dim=0).amax(dim=0)
    steps_HW = (probability_HW * _STEPS).floor_().to(torch.uint8).cpu().numpy()
    return labels_HW.astype(np.uint16) | (steps_HW.astype(np.uint16) << 8)
