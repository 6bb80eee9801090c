"""`lvs`: a key's features carried by kernels that low-level features choose (LVS section 2.3; `models.lvs`).

Pairs go through the net in calls of one size, filled up with zeros, so that a result does not depend on the
pairs beside it.

Legend: B pairs of a call, C channels, h, w rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from vidseg_core.models.lvs import read_lvs
from vidseg_core.propagation.gap import FramePair, in_calls
from vidseg_core.propagation.propagators import Level

_BATCH = {"cpu": 1, "cuda": 8}


class Lvs:
    """`weights`: a file of train-propagation; it belongs to one segmenter."""

    level: Level = "features"
    needs_flow, needs_low = False, True

    def __init__(self, weights: str, device: str = "cpu") -> None:
        self._file, self._device = weights, torch.device(device)
        self.net = read_lvs(weights).to(self._device)
        self._batch = _BATCH.get(self._device.type, 1)

    def check_net(self, segmenter: Any) -> None:
        """`SegmenterError` for a segmenter that the weights do not belong to."""
        self.net.check(segmenter, self._file)

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        """Fused features of each frame."""
        return in_calls(pairs, self._batch, _shape, self._carried)

    @torch.inference_mode()
    def expected_deviation(self, pair: FramePair) -> float:
        """The share of labels that is expected to differ between key and frame, 0 to 1 (LVS section 2.2)."""
        low_1Lyx = [self.net.low_of(low)[None].float() for low in (pair.key.low, pair.low)]
        return float(self.net.deviation(*low_1Lyx)[0])

    @torch.inference_mode()
    def _carried(self, pairs: list[FramePair]) -> list[Any]:
        low_key = self._filled([self.net.low_of(pair.key.low) for pair in pairs])
        low_now = self._filled([self.net.low_of(pair.low) for pair in pairs])
        high_key = self._filled([_first(pair.key.carried) for pair in pairs])
        fused_BChw = self.net.carrier(low_key, low_now, high_key)
        return [
            _with_first(pair.key.carried, fused_Chw)
            for pair, fused_Chw in zip(pairs, fused_BChw, strict=False)
        ]

    def _filled(self, maps: list[torch.Tensor]) -> torch.Tensor:
        empty = [torch.zeros_like(maps[0])] * (self._batch - len(maps))
        return torch.stack([*maps, *empty]).float()


def _first(carried: Any) -> torch.Tensor:
    return carried if isinstance(carried, torch.Tensor) else carried[0]


def _with_first(carried: Any, first_Chw: torch.Tensor) -> Any:
    """What was carried, its feature map replaced: the map of a padded frame's size stays."""
    if isinstance(carried, torch.Tensor):
        return first_Chw.to(carried.dtype)
    return (first_Chw.to(carried[0].dtype), *carried[1:])


def _shape(pair: FramePair) -> tuple[int, ...]:
    return tuple(_first(pair.key.carried).shape)
