"""What N sees around a region that is key (`--regions.context`), so that a crop is more than a crop.

`none`: nothing, regions run one by one. `joint`: regions of one frame that are key together and lie in a
rectangle run as one crop, their overlap once; where all are key that is the frame. `remembered`: that, and
beyond the borders of the crop layers see what they saw there before (`models.surroundings`).

Invariants: what runs as one depends on which regions of a frame are key alone; a segment's results on its own
frames. So regions step together: with a scheduler that looks ahead, a region waits for the others' decisions.

Legend: H, W working size; h, w a crop's.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import SegmentState
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.surroundings import Kept, Place, Surroundings, surrounding

Result = tuple[np.ndarray, Any]
"""labels_HW of a key, and what is carried of it."""


class KeyNet(Protocol):
    """N on the frames of a step that are key."""

    def run(self, looks: Sequence[FrameLook], low: Sequence[Any] | None) -> list[Result]: ...

    def together(self, state: SegmentState) -> Hashable:
        """States for which this is equal step over a frame together."""
        ...


class Alone:
    """Each frame by itself."""

    def __init__(self, net: ChunkedNet) -> None:
        self._net = net

    def run(self, looks: Sequence[FrameLook], low: Sequence[Any] | None) -> list[Result]:
        return self._net.run([look.frame.frame_HW3 for look in looks], low)

    def together(self, state: SegmentState) -> Hashable:
        return id(state)


@dataclass(slots=True)
class Around:
    """What layers of N keep of a segment for the surroundings of its regions."""

    kept: Kept = field(default_factory=dict)
    """Of the frames before `frame_index`."""
    fresh: Kept | None = None
    """Also of that frame, which counts once it has been stepped over: a step that fails is made again."""
    frame_index: int = -1

    def settled(self, last_frame_index: int) -> Kept:
        """Of all frames up to this one, the last that was stepped over."""
        return self.kept if self.fresh is None or self.frame_index > last_frame_index else self.fresh


class Segment(Protocol):
    """A segment whose frames have several regions."""

    around: Around

    @property
    def last_frame_index(self) -> int: ...


class Together:
    """Key regions of one frame in as few crops as they make rectangles."""

    def __init__(self, net: ChunkedNet, regions: RegionsConfig) -> None:
        self._net, self._regions = net, regions
        self._around = _surroundings(regions, net) if regions.context == "remembered" else None
        self.owners: Mapping[int, tuple[Segment, int, tuple[int, int]]] = {}
        """By the id of a region's state: its segment, its place in the grid and the size (H, W) of frames."""

    def together(self, state: SegmentState) -> Hashable:
        return id(self.owners[id(state)][0])

    def run(self, looks: Sequence[FrameLook], low: Sequence[Any] | None) -> list[Result]:
        frames: dict[int, dict[int, int]] = {}
        for number, look in enumerate(looks):
            segment, region, _ = self.owners[id(look.state)]
            frames.setdefault(id(segment), {})[region] = number
        results: list[Any] = [None] * len(looks)
        blocks = []
        for members in frames.values():
            segment, _, size = self.owners[id(looks[next(iter(members.values()))].state)]
            for block in blocks_of(frozenset(members), self._regions.shape):
                blocks.append((segment, size, [(region, members[region]) for region in block]))
        pictures = [self._picture(size, [(r, looks[n]) for r, n in block]) for _, size, block in blocks]
        found = self._net.run(pictures) if self._around is None else self._remembered(blocks, pictures, looks)
        for (_, size, block), (labels_hw, _) in zip(blocks, found, strict=True):
            place = place_of_block([region for region, _ in block], self._regions, size)
            for region, number in block:
                crop = self._regions.crops(size)[region]
                part_hw = labels_hw[_within(crop, place)].copy()
                results[number] = part_hw, part_hw
        return results

    def _picture(self, size: tuple[int, int], block: Sequence[tuple[int, FrameLook]]) -> np.ndarray:
        """The block's crop, put together from those of its regions."""
        place = place_of_block([region for region, _ in block], self._regions, size)
        picture_hw3 = np.empty((place[1] - place[0], place[3] - place[2], 3), np.uint8)
        for region, look in block:
            picture_hw3[_within(self._regions.crops(size)[region], place)] = look.frame.frame_HW3
        return picture_hw3

    def _remembered(
        self,
        blocks: Sequence[tuple[Segment, tuple[int, int], Sequence[tuple[int, int]]]],
        pictures: Sequence[np.ndarray],
        looks: Sequence[FrameLook],
    ) -> list[Result]:
        """One by one, since each has its own surroundings; a later block of a frame sees the earlier ones."""
        assert self._around is not None
        results, begun = [], set[int]()
        for (segment, size, block), picture_hw3 in zip(blocks, pictures, strict=True):
            around, frame_index = segment.around, looks[block[0][1]].frame.frame_index
            if id(segment) not in begun:
                begun.add(id(segment))
                around.kept = around.settled(segment.last_frame_index)
                around.fresh, around.frame_index = around.kept, frame_index
            assert around.fresh is not None
            place = place_of_block([region for region, _ in block], self._regions, size)
            (result,), around.fresh = self._around.run(
                place, size, around.fresh, lambda shown=picture_hw3: self._net.run_one(shown)
            )
            results.append(result)
        return results


def check_context(regions: RegionsConfig, net: ChunkedNet, *, reads_low: bool, asks_ahead: bool) -> None:
    """`ConfigError` for a context that this net and propagator do not go with."""
    if regions.context == "none":
        return
    option, said = "--regions.context", f"{regions.context} does not go with"
    if net.level != "labels" or net.rule is not None:
        raise ConfigError(option, f"{said} --propagation.level {net.level}: it goes with labels")
    if reads_low:
        raise ConfigError(option, f"{said} a scheduler or propagator that reads a net's low-level features")
    if asks_ahead:
        raise ConfigError(option, f"{said} a scheduler that asks for masks ahead: regions run apart there")
    if regions.context == "remembered":
        try:
            surrounding(net.segmenter, regions.align)
        except SegmenterError as problem:
            raise ConfigError(option, f"{said} this net and --regions.align: {problem}") from problem


def kept_per_pixel(regions: RegionsConfig, net: ChunkedNet, size: tuple[int, int]) -> float:
    """Bytes per pixel that layers of N keep of a segment whose frames have this size (H, W); `ConfigError` if
    N does not work on a crop with them."""
    if regions.context != "remembered":
        return 0.0
    around = _surroundings(regions, net)
    frame_HW3 = np.zeros((*size, 3), np.uint8)
    _, kept = around.run((0, size[0], 0, size[1]), size, {}, lambda: net.run_one(frame_HW3))
    crop = regions.crops(size)[0]
    try:
        around.run(place_of(crop), size, kept, lambda: net.run_one(frame_HW3[crop.where]))
    except Exception as problem:  # a net's own code, on layers that see more than it handed them
        raise ConfigError(
            "--regions.context", f"remembered does not go with this net: {problem}"
        ) from problem
    return sum(band_Chw.nbytes for band_Chw in kept.values()) / (size[0] * size[1])


def _surroundings(regions: RegionsConfig, net: ChunkedNet) -> Surroundings:
    own = surrounding(net.segmenter, regions.align)
    return Surroundings(own, lambda size: [place_of(crop) for crop in regions.crops(size)], regions.overlap)


@lru_cache(maxsize=4096)
def blocks_of(keys: frozenset[int], shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """The regions in rectangles of the grid, the largest first; regions are numbered row by row."""
    columns, left, blocks = shape[1], set(keys), []
    while left:
        blocks.append(max((_largest_from(first, left, columns) for first in sorted(left)), key=len))
        left -= set(blocks[-1])
    return tuple(blocks)


def _largest_from(first: int, among: Collection[int], columns: int) -> tuple[int, ...]:
    """The largest rectangle whose upper left region this is; of equal ones the flattest."""
    best: tuple[int, ...] = ()
    width, height = columns - first % columns, 1
    while width:
        of_row = [first + (height - 1) * columns + place for place in range(width)]
        width = next((n for n, region in enumerate(of_row) if region not in among), width)
        block = tuple(first + down * columns + on for down, on in product(range(height), range(width)))
        best = block if len(block) > len(best) else best
        height += 1
    return best


def place_of_block(block: Collection[int], regions: RegionsConfig, size: tuple[int, int]) -> Place:
    """What N sees of a frame of this size (H, W) for a rectangle of regions."""
    crops = regions.crops(size)
    first, last = crops[min(block)], crops[max(block)]
    return first.top, last.bottom, first.left, last.right


def place_of(crop: Crop) -> Place:
    return crop.top, crop.bottom, crop.left, crop.right


def seen_pixels(keys: Sequence[bool], regions: RegionsConfig, size: tuple[int, int]) -> int:
    """Pixels that N sees of a frame with these key regions, overlap counted."""
    places = [place_of(crop) for crop, is_key in zip(regions.crops(size), keys, strict=True) if is_key]
    if regions.context != "none":
        blocks = blocks_of(frozenset(np.flatnonzero(keys).tolist()), regions.shape)
        places = [place_of_block(block, regions, size) for block in blocks]
    return sum((bottom - top) * (right - left) for top, bottom, left, right in places)


def _within(crop: Crop, place: Place) -> tuple[slice, slice]:
    top, _, left, _ = place
    return slice(crop.top - top, crop.bottom - top), slice(crop.left - left, crop.right - left)


def arrays_of(kept: Kept) -> dict[str, np.ndarray]:
    return {name: band_Chw.cpu().numpy() for name, band_Chw in kept.items()}


def kept_of(arrays: Mapping[str, np.ndarray]) -> Kept:
    return {name: torch.from_numpy(band_Chw.copy()) for name, band_Chw in arrays.items()}
