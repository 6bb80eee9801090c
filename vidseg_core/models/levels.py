"""Nets level by level, and two that FeatureSharing makes of one: levels cached, or cut off (chapters 3, 5).

Model: the encoder of a `LevelNet` is a ladder: each level makes a coarser map of the one before, and a
decoder climbs back down. `SharingNet` (section 3.1) draws the line inside the encoder: the finer levels are
its lower part (N_lfe), which runs on every frame; the coarsest, `cached`, are the rest (N_gfe), which runs on
keys. Its features are the maps of all levels, and its head is the decoder (N_d) with the classifying layer.
So the masks of its keys are those of the whole net, and `join` puts the levels cached of a key beside those
of a frame (S_prop, section 3.2). `TruncatedNet` is the baseline that lacks these levels altogether: neither
computed nor read, though their weights stay in its file, which has the form of the whole net's.

Specs: `sharing:<levels>/<net>`, `truncated:<levels>/<net>`, e.g. `sharing:2/fpn-densenet121`.

Legend: B batch, F channels, h, w rows and columns of a map.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.split import SplitNet, SplitSegmenter
from vidseg_core.models.weights import metadata_of

MOST_LEVELS = 2
SPLIT = "cached_levels"
"""Metadata of a weights file: the split that it was trained for."""
Maps: TypeAlias = tuple[torch.Tensor, ...]
Level: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class LevelNet(SplitNet):
    """Encoder level by level, then a decoder."""

    @abstractmethod
    def levels(self) -> Sequence[Level]:
        """The encoder: from frames to the finest map (at `low_stride`), and from each map to the next coarser
        one. None changes what it is given."""

    @abstractmethod
    def climb(self, maps: Maps) -> Maps:
        """The decoder: from the encoder's maps, finest first, to those that `decode` takes. `SegmenterError`
        for fewer maps than there are levels, if it cannot do without."""

    def encode(self, frames_B3HW: torch.Tensor) -> Maps:
        """N_feat: all levels, and the decoder."""
        return self.climb(run_levels(self.levels(), frames_B3HW))

    def lower(self, frames_B3HW: torch.Tensor) -> Maps:
        """S_l: the first `low_count` levels."""
        return run_levels(self.levels()[: self.low_count], frames_B3HW)

    def higher(self, low: Maps) -> Maps:
        """S_h: the other levels, and the decoder."""
        return self.climb((*low, *run_levels(self.levels()[self.low_count :], low[-1])))


def run_levels(levels: Sequence[Level], before: torch.Tensor) -> Maps:
    """The map of each level, from what comes before the first."""
    maps = []
    for level in levels:
        before = level(before)
        maps.append(before)
    return tuple(maps)


class SharingNet(SplitNet):
    """All levels as features, `cached` of them from the key; decoder and classifier as head."""

    def __init__(self, inner: LevelNet, cached: int) -> None:
        super().__init__()
        self.inner, self.cached = inner, cached
        self.stride = self.low_stride = inner.low_stride
        self.multiple, self.mean, self.std = inner.multiple, inner.mean, inner.std
        self.maps = len(inner.levels())
        self.low_count, self.joins = self.maps - cached, True

    def encode(self, frames_B3HW: torch.Tensor) -> Maps:
        """N_feat: F_low and F_high."""
        return run_levels(self.inner.levels(), frames_B3HW)

    def lower(self, frames_B3HW: torch.Tensor) -> Maps:
        """N_lfe."""
        return run_levels(self.inner.levels()[: self.low_count], frames_B3HW)

    def higher(self, low: Maps) -> Maps:
        """N_gfe, beside what it was made of."""
        return (*low, *run_levels(self.inner.levels()[self.low_count :], low[-1]))

    def decode(self, maps: Maps) -> torch.Tensor:
        """N_d and the classifying layer."""
        return self.inner.decode(self.inner.climb(maps))

    def join(self, low: Maps, maps: Maps) -> Maps:
        """S_prop: the frame's own finer levels, and the key's coarser ones as they are."""
        return (*low, *maps[self.low_count :])

    def renew(self, maps: Maps, level: int) -> Maps:
        """One level of N_gfe."""
        place = self.low_count + level - 1
        return (*maps[:place], self.inner.levels()[place](maps[place - 1]), *maps[place + 1 :])


class TruncatedNet(SplitNet):
    """The net without its coarsest `removed` levels."""

    def __init__(self, inner: LevelNet, removed: int) -> None:
        super().__init__()
        self.inner, self._kept = inner, len(inner.levels()) - removed
        self.stride, self.multiple = inner.stride, inner.multiple
        self.maps, self.mean, self.std = inner.maps, inner.mean, inner.std

    def encode(self, frames_B3HW: torch.Tensor) -> Maps:
        """N_feat of the levels that are left."""
        return self.inner.climb(run_levels(self.inner.levels()[: self._kept], frames_B3HW))

    def decode(self, maps: Maps) -> torch.Tensor:
        """N_task."""
        return self.inner.decode(maps)


KINDS: dict[str, type[SharingNet] | type[TruncatedNet]] = {"sharing": SharingNet, "truncated": TruncatedNet}


def inner_spec(spec: str) -> str:
    """The net in `sharing:<levels>/<net>` or `truncated:<levels>/<net>`; `SegmenterError` if it reads
    otherwise."""
    kind, _, body = spec.partition(":")
    levels, slash, inner = body.partition("/")
    if levels not in map(str, range(1, MOST_LEVELS + 1)) or not slash or not inner:
        raise SegmenterError(
            f"segmenter {spec!r} should read {kind}:<levels>/<net>, levels from 1 to {MOST_LEVELS}, e.g. "
            f"{kind}:1/tiny-scenes"
        )
    return inner


def with_levels(segmenter: object, spec: str, weights: str | None) -> SplitSegmenter:
    """`segmenter` as `spec` says; `SegmenterError` for one without levels, or weights of another split."""
    kind, _, body = spec.partition(":")
    count = int(body.partition("/")[0])
    net = segmenter.net if isinstance(segmenter, SplitSegmenter) else None
    if not isinstance(segmenter, SplitSegmenter) or not isinstance(net, LevelNet) or not net.low_count:
        raise SegmenterError(f"segmenter {spec!r}: {inner_spec(spec)!r} has no levels (see docs/models.md)")
    note = segmenter.note
    if kind == "sharing":
        trained_for = metadata_of(weights).get(SPLIT) if weights else None
        if trained_for not in (None, str(count)):
            problem = f"was trained with {trained_for} cached level(s), not {count}"
            raise SegmenterError(f"weights file {weights} {problem}: name --segmenter with that many")
        if trained_for is None and not note:
            note = f"The weights of {spec!r} were not trained to share levels: train-propagation does that."
    elif trained_of_sharing(weights):
        raise SegmenterError(f"weights file {weights} was trained to share levels, not to do without them")
    options = replace(
        segmenter.options,
        name=spec,
        note=note,
        architecture=f"{kind} {count} of {segmenter.options.architecture}",
    )
    net.requires_grad_(False)
    built = KINDS[kind](net, count)
    if isinstance(built, TruncatedNet):
        with torch.no_grad():
            built.encode(torch.zeros(1, 3, net.multiple, net.multiple, dtype=next(net.parameters()).dtype))
    return SplitSegmenter(built, options)


def trained_of_sharing(weights: str | None) -> bool:
    """Were these weights trained to share levels?"""
    return weights is not None and SPLIT in metadata_of(weights)
