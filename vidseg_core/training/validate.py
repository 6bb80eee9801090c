"""Validation: frames through the net as it will be used, whole or in regions, compared with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.records import Record
from vidseg_core.metrics import ConfusionMatrix
from vidseg_core.models.trainable import TrainableNet
from vidseg_core.training.in_regions import names_frame, see_crops
from vidseg_core.training.samples import Listed, crops_of, labelled_record, resized


class Validation:
    """The frames to validate on; each worker takes every size-th of them."""

    def __init__(
        self,
        listed: Sequence[Listed],
        num_classes: int,
        regions: RegionsConfig | None = None,
        *,
        size: int = 0,
        keep: int = 0,
    ) -> None:
        """`regions`: what the net sees of a frame. `size`: longest side, as in training. `keep`: so many
        frames stay in memory once read."""
        self._regions = regions if regions is not None and regions.on else None
        self._listed, self._classes, self._size = listed, num_classes, size
        self._keep, self._kept = keep, dict[int, Record]()

    def __len__(self) -> int:
        return len(self._listed)

    @torch.no_grad()
    def __call__(self, net: TrainableNet, device: torch.device, rank: int, size: int) -> ConfusionMatrix:
        """Counts over this worker's frames; the net is left in the mode it came in.

        Raises `DatasetError` for a frame without labels or such regions, or that the net cannot take.
        """
        matrix, training = ConfusionMatrix(self._classes), net.training
        net.eval()
        for number in range(rank, len(self._listed), size):
            record = self._record(number)
            frame_13HW = torch.from_numpy(np.ascontiguousarray(record.frame_HW3)).to(device)
            frame_13HW = frame_13HW.permute(2, 0, 1).unsqueeze(0).float() / 255.0
            crops = crops_of(record, self._regions) if self._regions is not None else ()
            name, shape = (record.video_id, record.frame_index), record.frame_HW3.shape
            with names_frame(name, (shape[0], shape[1])):
                scores_1CHW = see_crops(net, frame_13HW, crops, nullcontext)
            labels_HW = scores_1CHW.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
            assert record.labels_HW is not None
            matrix.update(labels_HW, record.labels_HW)
        net.train(training)
        return matrix

    def _record(self, number: int) -> Record:
        record = self._kept.get(number)
        if record is None:
            listed = self._listed[number]
            record = resized(labelled_record(listed.dataset, listed.item), self._size)
            if len(self._kept) < self._keep:
                self._kept[number] = record
        return record
