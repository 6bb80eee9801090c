"""Fidelity: how well a scheduled run agrees with the same net run on every frame. It needs no labels.

Model: the every-frame run is the reference; agreement is mIoU and pixel share against it (the same
substitution as DVRL Eq. 2 makes for the reward on unlabelled frames). Invariant: two equal streams have mIoU
1 and agreement 1.

Shape suffixes: H W frame rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vidseg_core.metrics.confusion import ConfusionMatrix


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Agreement of two label streams of equal length."""

    frames: int
    mean_iou: float
    """Over all pixels of all frames; classes absent from both streams are skipped."""
    pixel_agreement: float
    """Share of pixels with equal ids."""
    frame_agreement: np.ndarray
    """float64 (frames,): the same share, frame by frame; shows where a schedule was late."""


def measure_fidelity(
    stream: Iterable[np.ndarray], reference: Iterable[np.ndarray], num_classes: int
) -> Fidelity:
    """Compare two streams of uint8 labels_HW, frame by frame; no id is ignored. ValueError if one ends
    early."""
    matrix = ConfusionMatrix(num_classes, ignore_index=None)
    shares = []
    for labels_HW, reference_HW in zip(stream, reference, strict=True):
        matrix.update(labels_HW, reference_HW)
        shares.append(float(np.mean(labels_HW == reference_HW)))
    return Fidelity(
        frames=len(shares),
        mean_iou=matrix.mean_iou(),
        pixel_agreement=matrix.pixel_accuracy(),
        frame_agreement=np.array(shares),
    )
