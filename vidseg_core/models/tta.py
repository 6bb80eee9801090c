"""Test-time augmentation of any segmenter: several scales and the mirror image, probabilities averaged.

Model: with variants v (a scale, mirrored or not), p = mean over v of back_v(softmax(N(v(frame)))), where
back_v mirrors back and resizes (bilinear) to the frame's own size. The scores are log p, so that their argmax
is that of p and their softmax is p (down to `LEAST`). An average has no features of its own: `features` are
these scores. Cost: the squares of the scales, summed, twice that with the mirror image.

Mirroring assumes that a class does not depend on the side: not for "left eye" and "right eye".

Shape suffixes: B batch, C classes, H W the frame's rows and columns, 3 = RGB.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Self

import torch
import torch.nn.functional as F

from vidseg_core.models.protocol import Segmenter, SegmenterError
from vidseg_core.models.scores import check_scores
from vidseg_core.models.whole import WholeSegmenter

LEAST = 1e-12
"""Probabilities below this count as this, so that no score is minus infinity."""


class TtaSegmenter(WholeSegmenter):
    """`inner` on several versions of a frame; see the module docstring."""

    def __init__(self, inner: Segmenter, *, scales: Sequence[float] = (), flip: bool = False) -> None:
        if any(not (math.isfinite(scale) and scale > 0) for scale in scales):
            raise SegmenterError(f"scales of test-time augmentation must be above 0, got {tuple(scales)}")
        self.inner = inner
        self.scales = tuple(sorted(set(map(float, scales)))) or (1.0,)
        self.flip = flip
        said = f"scales {','.join(f'{scale:g}' for scale in self.scales)}{', flip' if flip else ''}"
        self.name = f"{inner.name} ({said})"
        self.class_names = inner.class_names
        self.trained = inner.trained
        self.note = inner.note
        identity = {"tta": 1, "inner": inner.digest, "scales": list(self.scales), "flip": flip}
        self.digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def to(self, device: str | torch.device) -> Self:
        """Move the inner segmenter; returns itself."""
        self.inner.to(device)
        return self

    def scores(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """log p; see the module docstring."""
        size = (frames_B3HW.shape[2], frames_B3HW.shape[3])
        total, count = None, 0
        for variant_B3hw, mirrored in self._variants(frames_B3HW):
            scores = self.inner.head(self.inner.features(variant_B3hw))
            shape = variant_B3hw.shape
            check_scores(scores, self.inner.name, self.class_names, shape[0], (shape[2], shape[3]))
            probabilities = scores.softmax(dim=1)
            if mirrored:
                probabilities = probabilities.flip(3)
            probabilities = resized(probabilities, size)
            total = probabilities if total is None else total + probabilities
            count += 1
        assert total is not None
        return (total / count).clamp_min(LEAST).log()

    def _variants(self, frames_B3HW: torch.Tensor) -> Iterator[tuple[torch.Tensor, bool]]:
        """Each version of the frames, and whether it is mirrored."""
        rows, columns = frames_B3HW.shape[2:]
        for scale in self.scales:
            size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
            scaled = resized(frames_B3HW, size, antialias=scale < 1)
            yield scaled, False
            if self.flip:
                yield scaled.flip(3), True


def with_tta(segmenter: Segmenter, *, scales: Sequence[float] = (), flip: bool = False) -> Segmenter:
    """`segmenter` itself when nothing is asked for (no scale but 1, no flip), else wrapped."""
    if not flip and tuple(scales) in ((), (1.0,)):
        return segmenter
    return TtaSegmenter(segmenter, scales=scales, flip=flip)


def resized(map_BFhw: torch.Tensor, size: tuple[int, int], *, antialias: bool = False) -> torch.Tensor:
    """Bilinear, half-pixel centres; the map itself if it has that size."""
    if (map_BFhw.shape[2], map_BFhw.shape[3]) == size:
        return map_BFhw
    return F.interpolate(map_BFhw, size=size, mode="bilinear", align_corners=False, antialias=antialias)
