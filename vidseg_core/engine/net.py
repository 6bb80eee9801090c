"""N = N_task(N_feat(.)) in chunks of one size, so that a frame's result depends on that frame alone.

Libraries choose their kernels by batch size, and another kernel rounds differently. Every call of the net
therefore has exactly `batch` frames of one size: fewer are filled up with zeros, frames of another size go
into another call. Which frames share a call then changes nothing.

Legend: B batch, C classes, H, W working size; labels uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vidseg_core.engine.confidence import LabelRule, pack
from vidseg_core.models.protocol import ScoresError, Segmenter, SegmenterError, fusing, parts_of
from vidseg_core.models.scores import MOST_NAMES, check_scores, labels_from_scores


class ChunkedNet:
    """Runs a segmenter on key frames, and its head on propagated features, `batch` at a time.

    With a `LabelRule` label maps are uint16, with confidences (see `confidence`), until they are settled.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        level: str,
        batch: int,
        device: str | torch.device,
        rule: LabelRule | None = None,
    ) -> None:
        most = MOST_NAMES if rule is None else MOST_NAMES - 1
        if len(segmenter.class_names) > most:
            raise SegmenterError(f"at most {most} classes fit into a mask, not {len(segmenter.class_names)}")
        self.segmenter, self.level, self.batch, self.rule = segmenter, level, batch, rule
        self.device = torch.device(device)
        self._name = str(getattr(segmenter, "name", type(segmenter).__name__))

    @torch.inference_mode()
    def low(self, frames: Sequence[np.ndarray]) -> list[Any]:
        """Low-level features of each frame_HW3 uint8, for a net in parts."""
        return self._in_chunks(frames, lambda frame_HW3: frame_HW3.shape, self._low_chunk)

    @torch.inference_mode()
    def run(
        self, frames: Sequence[np.ndarray], low: Sequence[Any] | None = None
    ) -> list[tuple[np.ndarray, Any]]:
        """For each frame_HW3 uint8 its labels_HW and what is carried of it at this level.

        `low`: the frames' low-level features, which are not computed again then. Raises `ScoresError` if the
        scores of one are not finite, or are not scores of these frames at all.
        """
        items = list(zip(frames, [None] * len(frames) if low is None else low, strict=True))
        results = self._in_chunks(items, lambda item: item[0].shape, self._run_chunk)
        if any(labels_HW is None for labels_HW, _ in results):
            raise ScoresError(f"segmenter {self._name!r} gave scores that are NaN or Inf")
        return results

    def run_one(self, frame_HW3: np.ndarray) -> list[tuple[np.ndarray, Any]]:
        """`run` of one frame in a batch of its own, of one."""
        batch, self.batch = self.batch, 1
        try:
            return self.run([frame_HW3])
        finally:
            self.batch = batch

    @torch.inference_mode()
    def fuse(self, low: Sequence[Any], carried: Sequence[Any]) -> list[Any]:
        """Features of each frame from its low-level ones and those carried to it; for a net with `fuse`."""
        items = list(zip(low, carried, strict=True))
        return self._in_chunks(items, _shapes, self._fuse_chunk)

    @torch.inference_mode()
    def renew(self, carried: Sequence[Any], level: int) -> list[Any]:
        """Features with the map of a cached level made anew from the one before it, for a net in levels."""
        return self._in_chunks(carried, _shapes, lambda feats: self._renew_chunk(feats, level))

    @torch.inference_mode()
    def labels(self, carried: Sequence[Any]) -> list[np.ndarray]:
        """labels_HW for each `carried` (propagated or not)."""
        if self.level == "labels":
            return list(carried)
        if self.level == "scores":
            return [self._maps_of(scores_CHW[None])[0] for scores_CHW in carried]
        return self._in_chunks(carried, _shapes, self._head_chunk)

    def here(self, carried: Any) -> Any:
        """What was restored, on the device of the net."""
        if isinstance(carried, torch.Tensor):
            return carried.to(self.device)
        return tuple(map(self.here, carried)) if isinstance(carried, tuple) else carried

    def _pixels(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        pixels_BHW3 = torch.from_numpy(np.stack(frames)).to(self.device)
        return pixels_BHW3.permute(0, 3, 1, 2).float() / 255.0

    def _low_chunk(self, frames: list[np.ndarray]) -> list[Any]:
        low = parts_of(self.segmenter, "the engine").low(self._pixels(frames))
        return [_one_of_batch(low, number) for number in range(len(frames))]

    def _fuse_chunk(self, items: list[tuple[Any, Any]]) -> list[Any]:
        low, carried = (_batch_of(list(each)) for each in zip(*items, strict=True))
        feats = fusing(self.segmenter, "the engine").fuse(low, carried)
        return [_one_of_batch(feats, number) for number in range(len(items))]

    def _renew_chunk(self, carried: list[Any], level: int) -> list[Any]:
        feats = self.segmenter.renew(_batch_of(carried), level)  # type: ignore[attr-defined]
        return [_one_of_batch(feats, number) for number in range(len(carried))]

    def _run_chunk(self, items: list[tuple[np.ndarray, Any]]) -> list[tuple[np.ndarray | None, Any]]:
        frames = [frame_HW3 for frame_HW3, _ in items]
        if items[0][1] is None:
            feats = self.segmenter.features(self._pixels(frames))
        else:
            feats = parts_of(self.segmenter, "the engine").high(_batch_of([low for _, low in items]))
        scores_BCHW = self._head(feats, len(frames), (frames[0].shape[0], frames[0].shape[1]))
        sound_B = torch.isfinite(scores_BCHW).flatten(1).all(1).tolist()
        results: list[tuple[np.ndarray | None, Any]] = []
        for number, labels_HW in enumerate(self._maps_of(scores_BCHW)):
            if not sound_B[number]:
                results.append((None, None))  # a frame that fills up the batch may do that
                continue
            carried: Any = labels_HW
            if self.level == "scores":
                carried = scores_BCHW[number].clone()
            elif self.level == "features":
                carried = _one_of_batch(feats, number)
            results.append((labels_HW, carried))
        return results

    def _head(self, feats: Any, batch: int, size: tuple[int, int] | None) -> torch.Tensor:
        """N_task, and a look at what it gave; `size` of the frames, None where they are not at hand."""
        scores_BCHW = self.segmenter.head(feats)
        check_scores(scores_BCHW, self._name, self.segmenter.class_names, batch, size)
        return scores_BCHW

    def _head_chunk(self, carried: list[Any]) -> list[np.ndarray]:
        return self._maps_of(self._head(_batch_of(carried), len(carried), None))

    def _maps_of(self, scores_BCHW: torch.Tensor) -> list[np.ndarray]:
        """labels_HW of each frame, with confidences where there is a rule; one copy from the device."""
        labels_BHW = labels_from_scores(scores_BCHW).cpu().numpy()
        if self.rule is None:
            return [labels_HW.copy() for labels_HW in labels_BHW]  # kept masks do not keep their batch
        return [pack(labels_HW, scores) for labels_HW, scores in zip(labels_BHW, scores_BCHW, strict=True)]

    def settle(self, labels_HW: np.ndarray) -> tuple[np.ndarray, float, float]:
        """What the table says: labels_HW uint8, mean confidence, labelled share (NaN without a rule)."""
        if self.rule is None:
            return labels_HW, math.nan, math.nan
        return self.rule.settle(labels_HW)

    def _in_chunks(
        self, items: Sequence[Any], shape_of: Callable[[Any], Hashable], run: Callable[[list[Any]], list[Any]]
    ) -> list[Any]:
        results: list[Any] = [None] * len(items)
        for places in _chunks_of_one_shape([shape_of(item) for item in items], self.batch):
            chunk = [items[place] for place in places]
            filler = [_zeros_like(chunk[0])] * (self.batch - len(chunk))
            for place, result in zip(places, run(chunk + filler), strict=False):
                results[place] = result
        return results


def _chunks_of_one_shape(shapes: list[Hashable], batch: int) -> Iterator[list[int]]:
    """Places of items of equal shape, at most `batch` at a time."""
    by_shape: dict[Hashable, list[int]] = {}
    for place, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(place)
    for places in by_shape.values():
        for start in range(0, len(places), batch):
            yield places[start : start + batch]


def _zeros_like(item: Any) -> Any:
    if isinstance(item, np.ndarray):
        return np.zeros_like(item)
    if isinstance(item, torch.Tensor):
        return torch.zeros_like(item)
    if item is None:
        return None
    return tuple(_zeros_like(part) for part in item)


def _shapes(carried: Any) -> Hashable:
    if isinstance(carried, torch.Tensor):
        return tuple(carried.shape)
    return tuple(_shapes(part) for part in carried)


def _one_of_batch(feats: Any, number: int) -> Any:
    if isinstance(feats, torch.Tensor):
        return feats[number].clone()
    return tuple(_one_of_batch(part, number) for part in feats)


def _batch_of(carried: list[Any]) -> Any:
    if isinstance(carried[0], torch.Tensor):
        return torch.stack(carried)
    return tuple(_batch_of([item[place] for item in carried]) for place in range(len(carried[0])))
