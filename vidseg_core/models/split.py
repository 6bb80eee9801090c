"""The common shell of all torch adapters: normalise, pad, N_feat; N_task, upsample, crop.

Model: a `SplitNet` knows one architecture and sees only normalised frames whose sides divide by `multiple`;
`SplitSegmenter` does around it what is the same for every architecture. Invariant: frozen weights in
evaluation mode, so that gradients may flow through to the features (a flow net is fitted that way) but never
into N.

Shape suffixes: B batch, C classes, H W frame rows and columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.digest import digest_state
from vidseg_core.models.geometry import attach_size, check_frames, detach_size, pad_to_multiple
from vidseg_core.models.protocol import Features, SegmenterError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ALIGNMENT = 64
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class SplitNet(nn.Module, ABC):
    """One architecture, split. Subclasses set the class attributes and write `encode` and `decode`."""

    stride: int
    """Frame pixels per pixel of the first map."""
    multiple: int
    """Frame sides must divide by this; never less than `stride`, and always a multiple of it."""
    maps: int = 1
    """How many maps `encode` returns."""
    low_count: int = 0
    """How many maps `lower` returns; 0: the net has no parts."""
    low_stride: int = 0
    """Frame pixels per pixel of the first of these."""
    joins: bool = False
    """It has parts and `join`."""
    cached: int = 0
    """How many of its maps, the last ones, are levels that can be made anew one by one (`renew`)."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @abstractmethod
    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat on normalised frames."""

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """S_l on normalised frames: finest map first."""
        raise NotImplementedError

    def higher(self, low: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """S_h: `encode` is `higher(lower(.))`."""
        raise NotImplementedError

    def join(self, low: tuple[torch.Tensor, ...], maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """`lower` of one frame and `encode` of another as one; of the same frame it is its `encode`."""
        raise NotImplementedError

    def renew(self, maps: tuple[torch.Tensor, ...], level: int) -> tuple[torch.Tensor, ...]:
        """The maps with that of cached level `level`, from 1, made anew from the one before it."""
        raise NotImplementedError

    @abstractmethod
    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task: scores at any resolution; the shell brings them to the frame's size (bilinear)."""


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """What a `SplitSegmenter` is given besides its net."""

    name: str
    class_names: tuple[str, ...]
    trained: bool
    note: str = ""
    architecture: str = ""
    """What else decides the result, besides the weights (a config file's text): part of the digest."""
    precision: str = "fp32"
    """`fp32`, `bf16` or `fp16`: the type of weights and features; scores are float32 always."""
    channels_last: bool = False
    """Memory layout of weights and activations; changes speed, and the last bits of the scores."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SegmenterError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if not self.class_names:
            raise SegmenterError("class_names must name at least one class")


class SplitSegmenter:
    """A `Segmenter` around a `SplitNet`; the only shell that the bundled adapters use."""

    def __init__(self, net: SplitNet, options: SplitOptions) -> None:
        self.options = options
        self.name = options.name
        self.class_names = options.class_names
        self.trained = options.trained
        self.note = options.note
        self.stride = net.stride
        self.digest = digest_state(net.state_dict(), _identity(net, options))
        self._dtype = PRECISIONS[options.precision]
        self._layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.net = net.eval().requires_grad_(False).to(dtype=self._dtype)
        for weight in (*self.net.parameters(), *self.net.buffers()):
            weight.data = aligned(weight.data)
        if options.channels_last:
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = torch.device("cpu")
        self._set_normalisation()

    def _set_normalisation(self) -> None:
        self._mean = torch.tensor(self.net.mean, device=self._device).view(1, 3, 1, 1)
        self._inverse_std = 1.0 / torch.tensor(self.net.std, device=self._device).view(1, 3, 1, 1)

    def to(self, device: str | torch.device) -> Self:
        """Move the weights; frames must then come from the same device."""
        self._device = torch.device(device)
        self.net.to(self._device)
        self._set_normalisation()
        return self

    def normalise(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """What the net itself is fed: (frames - mean) / std, in its precision and layout, not yet padded."""
        normal = (frames_B3HW - self._mean) * self._inverse_std
        return self._to_own(normal)

    def _to_own(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        """In the net's precision and layout, so that restored or warped features meet the same kernels as
        fresh ones."""
        return map_BFhw.to(dtype=self._dtype).contiguous(memory_format=self._layout)

    def features(self, frames_B3HW: torch.Tensor) -> Features:
        """N_feat; see `Segmenter`. Sizes that the net cannot take are padded (see `geometry`)."""
        check_frames(frames_B3HW)
        size = (frames_B3HW.shape[2], frames_B3HW.shape[3])
        padded = pad_to_multiple(self.normalise(frames_B3HW), self.net.multiple)
        return attach_size(self.net.encode(padded), size, self.net.multiple)

    @property
    def has_parts(self) -> bool:
        """Whether N_feat is in parts; see `PartedSegmenter`."""
        return self.net.low_count > 0

    def low(self, frames_B3HW: torch.Tensor) -> Features:
        """S_l; see `PartedSegmenter`."""
        check_frames(frames_B3HW)
        size = (frames_B3HW.shape[2], frames_B3HW.shape[3])
        padded = pad_to_multiple(self.normalise(frames_B3HW), self.net.multiple)
        return attach_size(self.net.lower(padded), size, self.net.multiple)

    def high(self, low: Features) -> Features:
        """S_h; see `PartedSegmenter`."""
        maps, size = detach_size(low, self.net.low_count, self.net.low_stride)
        high = self.net.higher(self._own(maps))
        return attach_size(high, size, self.net.multiple)

    @property
    def has_fuse(self) -> bool:
        """Whether it has `fuse`; see `FusingSegmenter`."""
        return self.net.joins

    def fuse(self, low: Features, carried: Features) -> Features:
        """Low-level features of a frame and features of its key as one; see `FusingSegmenter`."""
        lows, size = detach_size(low, self.net.low_count, self.net.low_stride)
        maps, _ = detach_size(carried, self.net.maps, self.net.stride)
        return attach_size(self.net.join(self._own(lows), self._own(maps)), size, self.net.multiple)

    @property
    def cached_levels(self) -> int:
        """How many of the feature maps are levels that `renew` makes anew; 0: it has none."""
        return self.net.cached

    @property
    def low_levels(self) -> int:
        """How many maps `low` gives."""
        return self.net.low_count

    def renew(self, feats: Features, level: int) -> Features:
        """Features with the map of cached level `level`, from 1, made anew from the one before it."""
        maps, size = detach_size(feats, self.net.maps, self.net.stride)
        return attach_size(self.net.renew(self._own(maps), level), size, self.net.multiple)

    def _own(self, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(aligned(self._to_own(one_map)) for one_map in maps)

    def head(self, feats: Features) -> torch.Tensor:
        """N_task; see `Segmenter`. Low-resolution scores are upsampled (bilinear, half-pixel centres)."""
        maps, size = detach_size(feats, self.net.maps, self.net.stride)
        scores = self.net.decode(self._own(maps)).float()
        padded = (maps[0].shape[2] * self.net.stride, maps[0].shape[3] * self.net.stride)
        if (scores.shape[2], scores.shape[3]) != padded:
            scores = F.interpolate(scores, size=padded, mode="bilinear", align_corners=False)
        return scores[:, :, : size[0], : size[1]]


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if it lies askew in memory.

    CPU kernels treat memory that does not start at a multiple of 64 bytes differently and give other last
    bits: weights mapped from a safetensors file would differ from the same weights anywhere else.
    """
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT else tensor


def _identity(net: SplitNet, options: SplitOptions) -> Mapping[str, object]:
    return {
        "net": type(net).__name__,
        "architecture": options.architecture,
        "class_names": list(options.class_names),
        "mean": list(net.mean),
        "std": list(net.std),
        "precision": options.precision,
    }
