"""The teacher of a training run: a frozen net that is shown the frames of a step (ETC III-A, step 1 made it).

Invariant: it has the classes of the data, in their order; nothing of it is trained, no gradient passes it.

Legend: B frames, C classes or channels, H W size of the crop, h w of the map, 3 = RGB in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.models.protocol import Features, Segmenter, SegmenterError
from vidseg_core.models.registry import build_segmenter


class Seen(NamedTuple):
    """What a net made of the frames of a step, in the order of time; one of each for each time."""

    scores: Sequence[torch.Tensor]
    """scores_BCHW, float32."""
    features: Sequence[torch.Tensor]
    """map_BChw of the last layer before the classifier (of several maps the finest), float32."""


class Teacher:
    """The net of `--teacher`, on a device."""

    def __init__(self, config: TrainSegmenterConfig, class_names: Sequence[str], device: str) -> None:
        """`ConfigError` for a net of other classes, without trained weights, or that cannot be built."""
        assert config.taught_by is not None
        name, weights = config.taught_by
        itself = config.teacher is None  # the trained net as it begins
        self._option = "--segmenter" if itself else "--teacher"
        self._device = torch.device(device)
        try:
            self.segmenter: Segmenter = build_segmenter(
                name, device=device, weights=weights, seed=config.seed
            )
        except SegmenterError as problem:
            raise ConfigError(self._option, str(problem)) from problem
        if not self.segmenter.trained:
            problem = f"{name} has random weights and nothing to teach; give --teacher_weights"
            raise ConfigError(self._option, problem)
        theirs = tuple(self.segmenter.class_names)
        unnamed = theirs == tuple(f"class_{number}" for number in range(len(class_names)))
        if not (itself and unnamed):  # a net whose file names no class has those of the data
            self._require(tuple(class_names), theirs, name)

    def _require(self, ours: tuple[str, ...], theirs: tuple[str, ...], name: str) -> None:
        if theirs == ours:
            return
        if set(theirs) == set(ours):
            raise ConfigError(self._option, f"{name} has the classes of the data in another order")
        lacks, more = ([c for c in a if c not in b] for a, b in ((ours, theirs), (theirs, ours)))
        said = [f"lacks {', '.join(map(repr, lacks[:8]))}"] if lacks else []
        said += [f"has {', '.join(map(repr, more[:8]))} besides"] if more else []
        raise ConfigError(self._option, f"{name} has other classes than the data: it {' and '.join(said)}")

    @property
    def digest(self) -> str:
        """Of its weights."""
        return self.segmenter.digest

    @torch.no_grad()
    def __call__(
        self, frames: Sequence[torch.Tensor], autocast: Callable[[], AbstractContextManager[object]]
    ) -> Seen:
        """What it makes of the frames_B3HW of each time."""
        with autocast():
            feats = self.segmenter.features(torch.cat(list(frames)))
            scores = self.segmenter.head(feats)
        count, side = len(frames), (frames[0].shape[2], frames[0].shape[3])
        seen = of_frame(_first(feats), side, self.segmenter.stride)
        return Seen(scores.float().chunk(count), seen.float().chunk(count))

    def try_on(self, size: tuple[int, int]) -> None:
        """`ConfigError` for a net that cannot take frames of this size (H, W)."""
        try:
            with torch.no_grad():
                self.segmenter.head(self.segmenter.features(torch.zeros(1, 3, *size, device=self._device)))
        except Exception as problem:
            said = next(iter(str(problem).splitlines()), "") or type(problem).__name__
            raise ConfigError(self._option, f"cannot take crops of {size[0]}x{size[1]}: {said}") from problem


def of_frame(map_BChw: torch.Tensor, size: tuple[int, int], stride: int) -> torch.Tensor:
    """What of a map lies in frames of this size, not in what they were padded with: two nets that pad
    differently would be compared at different places."""
    rows, columns = (-(-side // stride) for side in size)
    return map_BChw[:, :, :rows, :columns]


def _first(feats: Features) -> torch.Tensor:
    return feats if isinstance(feats, torch.Tensor) else feats[0]
