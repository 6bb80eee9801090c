"""How the pixels of a region come out under every key and between every two keys: what a schedule is worth.

Model: of each clip and grid, keys every `STRIDE`-th frame, frames between keys filled from two sides as the
engine does, labels as N. Kept are counts of (label, mask) in the region's inner part, so that any schedule of
any combination of regions is scored by adding up; the same counts make episode tables of any quality that is
a sum over pixels (`table_of`), and of mean IoU frame by frame.

Legend: T frames, J frames that may be key, L longest interval (1 = + 1), E the same in strides, K classes and
void, V = K * K counts and, last, the sum of the frames' mean IoU; h, w inner part; D frames between two keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.regions.common import ORACLE_SIZE, score
from benchmarks.two_sided import Clip
from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.datasets.records import Record
from vidseg_core.datasets.regions import cut_out, region_name
from vidseg_core.episodes.between import Seen
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.quality import ClassPixels
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions, small_pictures
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.two_sided import prefer_right
from vidseg_core.propagation.warp import warp_error, warp_labels

STRIDE, HORIZON = 3, 90
FEATURES = ("flow",)


@dataclass(slots=True)
class _Side:
    """What a key says of D frames on one side of it, from the nearest on, in the inner part."""

    codes_Dhw: np.ndarray
    """uint16: label * K + mask."""
    sums_Dhw: np.ndarray
    """Photometric errors, summed as `prefer_right` does; float32, exact."""


@dataclass(slots=True, kw_only=True)
class Counted:
    """One region of a clip."""

    pixels: int
    """That N sees of it."""
    own_TV: np.ndarray
    """float32: of each frame as key."""
    after_JLV: np.ndarray
    """float32 [J, L + 1, V]: of the frame d frames after a key, from that key alone; NaN past the end."""
    between_JEV: np.ndarray
    """float32 [J, E + 1, V]: of all frames between a key and the one e strides after it; NaN: none."""
    deviation_JLF: np.ndarray
    """float32 [J, L + 1, F]: what schedulers read of a pair."""
    grays_Thw: np.ndarray
    masks_Thw: np.ndarray
    """Small, as planners see them."""

    @property
    def frames(self) -> int:
        return len(self.own_TV)

    def counts(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """float64 [V] of all frames under these keys."""
        total = self.own_TV[np.asarray(keys)].sum(axis=0, dtype=np.float64)
        for k, n in zip(keys[:-1], keys[1:], strict=True):
            total += self.between_JEV[k // STRIDE, (n - k) // STRIDE]
        left = self.frames - keys[-1]
        return total + self.after_JLV[keys[-1] // STRIDE, 1:left].sum(axis=0, dtype=np.float64)


def builder_of(clip: Clip) -> TableBuilder:
    """What makes the tables of a clip, labels as N."""
    return TableBuilder(
        TableOptions(horizon=HORIZON, flow_size=ORACLE_SIZE, any_class=True),
        net=None,
        propagator=build_propagator("flow_warp"),
        flow=DisFlow(),
        features=Features(FEATURES),
        classes=clip.classes,
        sides="two",
    )


def counted(clip: Clip, regions: RegionsConfig) -> list[Counted]:
    """Of each region; the clip has the size that flow is estimated at."""
    builder = builder_of(clip)
    records = [
        Record(video_id=clip.name, frame_index=t, frame_HW3=frame_HW3, labels_HW=labels_HW)
        for t, (frame_HW3, labels_HW) in enumerate(zip(clip.frames, clip.labels, strict=True))
    ]
    found = []
    for number, crop in enumerate(regions.crops(clip.labels[0].shape)):
        seen = builder.see(cut_out(record, regions, number, clip.name) for record in records)
        found.append(_Region(builder, seen, crop, clip).counted())
    return found


class _Region:
    def __init__(self, builder: TableBuilder, seen: Seen, crop: Crop, clip: Clip) -> None:
        self._builder, self._seen, self._crop = builder, seen, crop
        self._inner, self._side = crop.inner_in_crop, clip.classes + 1
        self._zero = np.zeros(seen.keys[0].view.shape[:2], np.uint8)
        inner = [mask_HW[self._inner].astype(np.uint16) for mask_HW in seen.masks]
        self._truth_Thw = np.stack(inner) * np.uint16(self._side)
        self._own_Thw = self._truth_Thw + np.stack(inner)

    def counted(self) -> Counted:
        builder, seen, frames = self._builder, self._seen, len(self._seen.masks)
        horizon, keys = builder.options.horizon, range(0, frames, STRIDE)
        values = self._side**2 + 1
        after_JLV = np.full((len(keys), horizon + 1, values), np.nan, np.float32)
        between_JEV = np.full((len(keys), horizon // STRIDE + 1, values), np.nan, np.float32)
        deviation_JLF = np.full((len(keys), horizon + 1, len(builder.features.names)), np.nan, np.float32)
        deviation_JLF[:, 0] = 0.0
        rights: dict[int, _Side] = {}
        own_TV = self._values(self._own_Thw)
        for j, k in enumerate(keys):
            rights.pop(k, None)
            links = builder.links(seen, k, forward=True)
            builder.deviations(deviation_JLF[j], seen, k, links)
            left = self._look(k, links, 1)
            after_JLV[j, 0] = own_TV[k]
            after_JLV[j, 1 : 1 + len(links)] = self._values(left.codes_Dhw)
            for e in range(1, min(horizon, frames - 1 - k) // STRIDE + 1):
                n = k + e * STRIDE
                if n not in rights:
                    rights[n] = self._look(n, builder.links(seen, n, forward=False, reach=n - k - 1), -1)
                between_JEV[j, e] = self._between(left, rights[n], n - k - 1)
        pictures = small_pictures(seen)
        return Counted(
            pixels=self._crop.pixels,
            own_TV=own_TV,
            after_JLV=after_JLV,
            between_JEV=between_JEV,
            deviation_JLF=deviation_JLF,
            grays_Thw=pictures[0],
            masks_Thw=pictures[1],
        )

    def _look(self, key: int, links: Sequence[Link], step: int) -> _Side:
        shape = len(links), *self._truth_Thw.shape[1:]
        codes_Dhw, sums_Dhw = np.empty(shape, np.uint16), np.empty(shape, np.float32)
        for place, link in enumerate(links):
            assert link.flow_hw2 is not None
            labels_hw = warp_labels(self._seen.masks[key], link.flow_hw2)[self._inner]
            codes_Dhw[place] = self._truth_Thw[key + step * link.distance] + labels_hw
            error = warp_error(link.current, link.key, link.flow_hw2)
            sums_hw = prefer_right(error, self._zero, right_is_nearer=True) - np.float32(
                0.5
            )  # linear in both
            sums_Dhw[place] = sums_hw[self._inner]
        return _Side(codes_Dhw, sums_Dhw)

    def _between(self, left: _Side, right: _Side, frames: int) -> np.ndarray:
        """[V] of the frames between two keys: each pixel from the side that explains it better."""
        after_D = np.arange(1, frames + 1)
        tie_D = np.where(frames + 1 - after_D < after_D, 0.5, -0.5).astype(np.float32)
        takes_Dhw = left.sums_Dhw[:frames] - right.sums_Dhw[:frames][::-1] + tie_D[:, None, None] > 0
        codes_Dhw = np.where(takes_Dhw, right.codes_Dhw[:frames][::-1], left.codes_Dhw[:frames])
        return self._values(codes_Dhw).sum(axis=0, dtype=np.float64)

    def _values(self, codes_Dhw: np.ndarray) -> np.ndarray:
        """float32 [D, V]; pixels without a label count nowhere."""
        side, size = self._side, self._side**2
        counts_DC = np.empty((len(codes_Dhw), size), np.float32)
        for place, codes_hw in enumerate(codes_Dhw):
            counts_DC[place] = cv2.calcHist([codes_hw], [0], None, [size], [0, size]).ravel()
        counts_DKK = counts_DC.reshape(-1, side, side)
        counts_DKK[:, -1] = 0.0
        return np.concatenate([counts_DC, frame_iou(counts_DKK)[:, None]], axis=1)


def frame_iou(counts_DKK: np.ndarray) -> np.ndarray:
    """float32 [D]: mean IoU of each over the classes that label or mask holds; 1 where there is none."""
    both = np.diagonal(counts_DKK, axis1=1, axis2=2)[:, :-1]
    union = (counts_DKK.sum(1) + counts_DKK.sum(2))[:, :-1] - both
    found = np.where(union > 0, both / np.maximum(union, 1), 0.0).sum(1) / np.maximum(1, (union > 0).sum(1))
    return np.where((union > 0).any(1), found, 1.0).astype(np.float32)


# --- a clip, cut -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Cut:
    """One clip, cut by one grid."""

    clip: Clip
    regions: RegionsConfig
    parts: list[Counted]

    @property
    def frames(self) -> int:
        return len(self.clip.frames)

    @property
    def frame_pixels(self) -> int:
        return int(self.clip.labels[0].size)

    @property
    def crops(self) -> tuple[Crop, ...]:
        return self.regions.crops(self.clip.labels[0].shape)

    def name(self, number: int) -> str:
        return region_name(self.clip.name, self.regions, number) if self.regions.on else self.clip.name

    def share(self, keys: Sequence[np.ndarray]) -> float:
        """Of the clip's pixels, what N sees under these keys of the regions."""
        seen = sum(len(keys_m) * part.pixels for keys_m, part in zip(keys, self.parts, strict=True))
        return seen / (self.frame_pixels * self.frames)

    def worth(self, keys: Sequence[np.ndarray]) -> float:
        """Mean IoU of all frames put together."""
        side = self.clip.classes + 1
        total = sum(part.counts(keys_m) for part, keys_m in zip(self.parts, keys, strict=True))
        return score(np.asarray(total)[:-1].reshape(side, side))


def cut_of(clip: Clip, regions: RegionsConfig, kept: Path | None = None) -> Cut:
    """The clip's regions, counted, or read from the folder `kept` where they have been counted before."""
    if kept is None:
        return Cut(clip, regions, counted(clip, regions))
    name = f"{clip.name}-{len(clip.frames)}-{clip.labels[0].shape[1]}-{regions.grid}-{regions.overlap}.npz"
    file = kept / name
    if not file.exists():
        kept.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{number}/{field.name}": getattr(part, field.name)
            for number, part in enumerate(counted(clip, regions))
            for field in fields(Counted)
        }
        np.savez(file.with_suffix(".part.npz"), **arrays)
        file.with_suffix(".part.npz").rename(file)
    with np.load(file) as arrays:
        parts = [
            Counted(**{field.name: _plain(arrays[f"{number}/{field.name}"]) for field in fields(Counted)})
            for number in range(regions.count)
        ]
    return Cut(clip, regions, parts)


def _plain(array: np.ndarray) -> Any:
    return array if array.ndim else int(array)


# --- tables ----------------------------------------------------------------------------------------------


def weights_of(clip: Clip) -> np.ndarray:
    """[K, K]: as of `build-episodes --quality weighted`."""
    return ClassPixels.of(clip.labels, clip.classes).weights_KK()


def share_weights(clip: Clip) -> np.ndarray:
    """[K, K]: as `weights_of`, for the share of the frame's pixels that agree with N (DVSNet Eq. 1)."""
    weights = np.full((clip.classes + 1,) * 2, 1 / clip.labels[0].size)
    weights[-1], weights[np.diag_indices(len(weights))] = 0.0, 0.0
    return weights


def table_of(cut: Cut, number: int, weights: np.ndarray | None) -> EpisodeTable:
    """The region's episode table, of the quality that wrong pixels have such weights in; None: mean IoU of
    the region, frame by frame."""
    part = cut.parts[number]
    frames, horizon = part.frames, part.after_JLV.shape[1] - 1

    def worth(values: np.ndarray, count: Any) -> np.ndarray:
        return values[..., -1] if weights is None else count - values[..., :-1] @ weights.ravel()

    quality_TL1 = np.full((frames, horizon + 1), np.nan, np.float32)
    quality_TL1[:, 0] = worth(part.own_TV, 1)
    quality_TL1[::STRIDE] = worth(part.after_JLV, 1)
    two_TL1 = np.full((frames, horizon + 1), np.nan, np.float32)
    between_E = np.maximum(0, np.arange(part.between_JEV.shape[1]) * STRIDE - 1)
    two_TL1[::STRIDE, ::STRIDE] = worth(part.between_JEV, between_E)
    two_TL1[::STRIDE, 0] = 0.0
    deviation_TLF = np.full((frames, horizon + 1, part.deviation_JLF.shape[2]), np.nan, np.float32)
    deviation_TLF[:, 0] = 0.0
    deviation_TLF[::STRIDE] = part.deviation_JLF
    about = {"key_stride": str(STRIDE), "two_sided_stride": str(STRIDE), **cut.regions.recorded()}
    return EpisodeTable(
        clip=cut.name(number),
        segment=0,
        quality_TL1=quality_TL1,
        deviation_TL1F=deviation_TLF,
        feature_names=Features(FEATURES).names,
        two_sided_TL1=two_TL1,
        grays_Thw=part.grays_Thw,
        masks_Thw=part.masks_Thw,
        fingerprint=about,
    )


def tables_of(cut: Cut, weights: np.ndarray | None) -> Iterator[EpisodeTable]:
    for number in range(len(cut.parts)):
        yield table_of(cut, number, weights)
