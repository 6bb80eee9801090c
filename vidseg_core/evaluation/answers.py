"""What N says of each frame of a clip, asked once for all methods.

Model: methods differ in their keys, but a frame's mask by N is the same for all of them. `Answers` runs N
when a frame is first asked for, keeps the mask run-length coded, and remembers what a call takes. Where
labels stand in for N they are the answers, pixels without a label become one class more, `void`. `Recall` is
a segmenter that repeats the answer for the frame at hand, so that an engine runs as always.

Seconds on a CPU are those of its cores, not of the clock on the wall: other load does not count as cost.

Invariant: an engine with `Recall` gives at level `labels` bit for bit the masks of the same engine with N.

Legend: B batch, C classes, H, W working size.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import numpy as np
import torch

from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.stats import clock_of
from vidseg_core.metrics.confusion import IGNORE_INDEX
from vidseg_core.models.protocol import Segmenter
from vidseg_core.store.mask_codec import decode_mask, encode_mask


class Answers:
    """N's masks of one clip by number of the frame; `net` None: labels stand in for N."""

    def __init__(self, net: ChunkedNet | None, classes: int) -> None:
        self._net, self._void = net, classes
        self._kept: dict[int, tuple[bytes, int, int]] = {}
        self._clock = clock_of(net.device.type if net is not None else "cpu")
        self.calls = 0
        """Calls of the net, those of an earlier process that were loaded included."""
        self.seconds = 0.0
        """What they took."""

    @property
    def call_s(self) -> float:
        """Seconds for one call, on average; 0 before any."""
        return self.seconds / self.calls if self.calls else 0.0

    def mask(self, number: int, frame_HW3: np.ndarray, labels_HW: np.ndarray | None) -> np.ndarray:
        """uint8 labels_HW of the frame by N."""
        if number in self._kept:
            return decode_mask(*self._kept[number])
        if self._net is None:
            mask_HW = self._from_labels(frame_HW3, labels_HW)
        else:
            started = self._clock()
            mask_HW = self._net.run([frame_HW3])[0][0]
            self.seconds += self._clock() - started
            self.calls += 1
        self._kept[number] = (encode_mask(np.ascontiguousarray(mask_HW)), *mask_HW.shape)
        return mask_HW

    def _from_labels(self, frame_HW3: np.ndarray, labels_HW: np.ndarray | None) -> np.ndarray:
        if labels_HW is None:
            return np.full(frame_HW3.shape[:2], self._void, np.uint8)
        return np.where(labels_HW == IGNORE_INDEX, self._void, labels_HW).astype(np.uint8)

    def dump(self) -> list[dict[str, object]]:
        """Everything asked so far, as rows."""
        rows = sorted(self._kept.items())
        return [{"number": n, "mask": mask, "height": h, "width": w} for n, (mask, h, w) in rows]

    def load(self, rows: list[dict[str, object]], calls: int, seconds: float) -> None:
        """What an earlier process dumped."""
        for row in rows:
            self._kept[int(row["number"])] = (row["mask"], row["height"], row["width"])  # type: ignore
        self.calls += calls
        self.seconds += seconds

    def __len__(self) -> int:
        return len(self._kept)


Answer = Callable[[], np.ndarray]
"""Gives N's mask of one frame."""


class Recall:
    """A segmenter that repeats answers. An engine that looks ahead asks about frames that it saw long ago, so
    frames are told apart by their pixels there."""

    stride, trained, note, digest = 1, True, "", "recall"

    def __init__(self, class_names: tuple[str, ...], regions: RegionsConfig | None = None) -> None:
        """`regions`: it is asked about crops of frames, and answers with those of their masks."""
        self._regions = regions
        self.name, self.class_names = "recall", class_names
        self._now: Answer = _nothing
        self._by_pixels: OrderedDict[bytes, Answer] = OrderedDict()

    def expect(self, frame_HW3: np.ndarray, answer: Answer, *, remember: int = 0) -> None:
        """The frame that comes now. `remember`: so many frames may be asked about later."""
        self._now = answer
        if self._regions is not None:
            self._expect_crops(self._regions.crops(frame_HW3.shape[:2]), frame_HW3, answer, max(1, remember))
        elif remember:
            self._keep(frame_HW3, answer, remember)

    def _expect_crops(
        self, crops: Sequence[Crop], frame_HW3: np.ndarray, answer: Answer, remember: int
    ) -> None:
        seen: dict[bytes, Crop] = {}
        for crop in crops:
            pixels = _pixels(frame_HW3[crop.where])
            if (other := seen.setdefault(pixels, crop)) is not crop and not np.array_equal(
                answer()[other.where], answer()[crop.where]
            ):
                raise DatasetError("two regions of a frame look alike to the pixel, and have other labels")
            self._keep(frame_HW3[crop.where], partial(_part, answer, crop), remember * len(crops))

    def _keep(self, picture_HW3: np.ndarray, answer: Answer, most: int) -> None:
        pixels = _pixels(picture_HW3)
        self._by_pixels[pixels] = answer
        self._by_pixels.move_to_end(pixels)  # a picture that is seen again is as young as its last sight
        while len(self._by_pixels) > most:
            self._by_pixels.popitem(last=False)

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """labels_B1HW as float32, of one frame."""
        answer = self._now
        if self._by_pixels:
            frame_HW3 = (frames_B3HW[0].permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous().numpy()
            answer = self._by_pixels[_pixels(frame_HW3)]
        labels_HW = torch.from_numpy(answer().astype(np.float32))
        return labels_HW[None, None].expand(len(frames_B3HW), -1, -1, -1)

    def head(self, feats: torch.Tensor) -> torch.Tensor:
        """scores_BCHW that are highest, 0, at the label."""
        ids_C11 = torch.arange(len(self.class_names), dtype=torch.float32)[:, None, None]
        return -(feats - ids_C11).abs()

    def to(self, device: str | torch.device) -> Self:
        return self


def _pixels(frame_HW3: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frame_HW3).data, digest_size=16).digest()


def _nothing() -> np.ndarray:
    raise RuntimeError("no frame is at hand")


def _part(answer: Answer, crop: Crop) -> np.ndarray:
    return answer()[crop.where]


def recalled(net: Segmenter | None, classes: int, regions: RegionsConfig | None = None) -> Recall:
    """For these answers: classes of the labels and `void`, or those of the net."""
    if net is not None:
        return Recall(tuple(net.class_names), regions)
    return Recall((*(f"class_{number}" for number in range(classes)), "void"), regions)
