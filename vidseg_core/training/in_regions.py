"""A net learns to say in the regions of a frame what is said of the whole one (DVSNet section 3.3).

Model: a sample is a frame as `segment` works on it. The teacher sees it whole. The net sees the crops that
`--regions.grid` of `segment` cuts it into, its scores are put together from their inner parts as masks are,
and are to be the teacher's, pixel by pixel; what is beyond an inner part is seen and not asked about. A share
of the frames the net sees whole.

Invariant: the net runs as it is used, norms with the statistics that it came with: those of a few crops are
not those of frames, and it is to stay what it was on these.

Legend: B frames of a batch, G of them that are alike, C classes, S side of a sample, H W size of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as functional

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import LearnedRegionsRecipe
from vidseg_core.config.regions import Crop
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.models.trainable import TrainableNet
from vidseg_core.training.beside import Autocast, Beside, OnLabels
from vidseg_core.training.distil import single_loss
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.samples import Batch, Framed


class InRegions(Beside):
    """The losses of a run whose net sees frames in regions; see `Beside`."""

    def __init__(self, config: TrainSegmenterConfig, class_names: Sequence[str], device: str) -> None:
        super().__init__(config, class_names, device)
        self._regions: LearnedRegionsRecipe = config.regions

    def judge(
        self,
        net: TrainableNet,
        batch: Batch,
        autocast: Autocast,
        on_labels: OnLabels = segmentation_loss,
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Scores of the samples, put together, 0 beyond their frames; and the loss against the teacher."""
        assert self.teacher is not None and batch.framed is not None
        net.eval()
        side, found, losses = batch.frames_B3HW.shape[2], dict[int, torch.Tensor](), []
        for (rows, columns, whole), places in alike(batch.framed).items():
            frames_G3HW = batch.frames_B3HW[places, :, :rows, :columns]
            crops = () if whole else self._regions.cut.crops((rows, columns))
            with names_frame(batch.ids[places[0]], (rows, columns)):
                scores_GCHW = see_crops(net, frames_G3HW, crops, autocast)
                wanted_GCHW = self.teacher([frames_G3HW], autocast).scores[0]
            losses.append(single_loss(scores_GCHW, wanted_GCHW))
            padded = functional.pad(scores_GCHW, (0, side - columns, 0, side - rows))
            found |= dict(zip(places, padded, strict=True))
        scores_BCHW = torch.stack([found[place] for place in range(len(found))])
        return scores_BCHW, {"single": self.weights["single"] * torch.cat(losses).mean()}

    def try_frame(self, net: TrainableNet, size: tuple[int, int]) -> None:
        """`ConfigError` where frames of this size (H, W) have no such regions, or a net takes none."""
        cut, blank_13HW = self._regions.cut, torch.zeros(1, 3, *size)
        cut.check_size(size)
        assert self.teacher is not None
        self.teacher.try_on(size)
        for shape in sorted({crop.shape for crop in cut.crops(size)} | {size}):
            try:
                with torch.no_grad():
                    net.eval()(blank_13HW[:, :, : shape[0], : shape[1]])
            except Exception as problem:
                said = next(iter(str(problem).splitlines()), "") or type(problem).__name__
                text = f"{net.spec} cannot take crops of {shape[0]}x{shape[1]}: {said}"
                raise ConfigError("--regions.grid", text) from problem


@contextmanager
def names_frame(name: tuple[str, int], size: tuple[int, int]) -> Iterator[None]:
    """`DatasetError` that names the frame (video id, frame index) where a net cannot take one of this size
    (H, W), or its crops: of many clips the sizes of some alone are tried beforehand."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as problem:
        said = next(iter(str(problem).splitlines()), "") or type(problem).__name__
        text = f"frame {name[1]} of {name[0]} ({size[0]}x{size[1]}): the net cannot take it, or its regions"
        raise DatasetError(f"{text}: {said}") from problem


def alike(framed: Framed) -> dict[tuple[int, int, bool], list[int]]:
    """Places in a batch of frames of one size (H, W) that are seen alike (whole or not), first ones first."""
    groups: dict[tuple[int, int, bool], list[int]] = {}
    for place, (size, whole) in enumerate(zip(framed.size_2.tolist(), framed.whole.tolist(), strict=True)):
        groups.setdefault((size[0], size[1], whole), []).append(place)
    return groups


def see_crops(
    net: TrainableNet, frames_G3HW: torch.Tensor, crops: Sequence[Crop], autocast: Autocast
) -> torch.Tensor:
    """scores_GCHW, float32, put together from the crops' inner parts; without crops those of whole frames.
    Crops of one shape go through the net together."""
    if not crops:
        with autocast():
            return net(frames_G3HW).float()
    by_shape: dict[tuple[int, int], list[Crop]] = {}
    for crop in crops:
        by_shape.setdefault(crop.shape, []).append(crop)
    found: dict[Crop, torch.Tensor] = {}
    for same in by_shape.values():
        with autocast():
            scores = net(torch.cat([frames_G3HW[:, :, *crop.where] for crop in same])).float()
        found |= zip(same, scores.chunk(len(same)), strict=True)
    classes = scores.shape[1]
    together_GCHW = scores.new_zeros((len(frames_G3HW), classes, *frames_G3HW.shape[2:]))
    for crop, scores_GChw in found.items():
        together_GCHW[:, :, *crop.inner_where] = scores_GChw[:, :, *crop.inner_in_crop]
    return together_GCHW
