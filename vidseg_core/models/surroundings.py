"""What the layers of a net see beyond the borders of a crop: what they saw there before.

Model (after the block padding of BlockCopy, Verelst and Tuytelaars 2021): a layer with a window (a
convolution, a pooling) needs some cells around its input. Beyond the border of a crop a net has none of the
picture and sees zeros. Here each such layer gets the cells that it had there when N last ran on that part of
the frame. Kept are the cells along the borders of regions alone; the first run is of the whole
frame, so there is something everywhere. Where nothing has changed around a crop, its scores are those of the
whole frame, but for the last rows of what the net scales up.

Invariant: what comes out depends on the crop and on what is kept; outside of `run` the net is as it was.

Legend: C channels, h, w rows and columns of a map, in cells; pixels are those of the frame.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from vidseg_core.models.geometry import padded_size
from vidseg_core.models.protocol import Segmenter, SegmenterError
from vidseg_core.models.split import SplitSegmenter

Kept: TypeAlias = Mapping[str, torch.Tensor]
"""Bands of rows and of columns of each layer's input, float32 (C, h, w), by name."""
Place: TypeAlias = tuple[int, int, int, int]
"""Top, bottom, left and right of a crop, pixels; stops are exclusive."""
Result = TypeVar("Result")
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_MOST_FOUND = 4096
"""Crops of a kind of layer that are kept at hand: fine grids have very many rectangles of regions."""


Sides: TypeAlias = tuple[int, int, int, int]
"""Cells beyond the top, bottom, left and right border."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a layer reads around its input."""

    cells: int
    stride: int
    pads: bool
    """It puts zeros where there is nothing, so they may be put there for it."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's input of one crop, in its input of the frame; all numbers are cells of that."""

    place: Place
    size: tuple[int, int]
    reads: int
    rows: tuple[tuple[int, int], ...]
    """First and one past the last row of each band that is kept; over the whole width."""
    columns: tuple[tuple[int, int], ...]

    def bands(self, call: str, channels: int) -> dict[str, tuple[int, int, int]]:
        """What is kept of it, and in which shape (C, h, w)."""
        height, width = self.size
        rows = {f"{call}/rows{a}-{b}": (channels, b - a, width) for a, b in self.rows}
        return rows | {f"{call}/columns{a}-{b}": (channels, height, b - a) for a, b in self.columns}

    @property
    def has(self) -> Sides:
        """What the frame has around the crop of what is read there."""
        (top, bottom, left, right), (height, width) = self.place, self.size
        ends = (top, height - bottom, left, width - right)
        return tuple(min(self.reads, end) for end in ends)  # type: ignore[return-value]


@dataclass(slots=True)
class _Now:
    """The run that is going on."""

    place: Place
    size: tuple[int, int]
    kept: Kept
    news: dict[str, torch.Tensor] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    undo: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = field(default_factory=dict)
    """Of a layer between its hooks."""

    @property
    def whole(self) -> bool:
        return self.place == (0, self.size[0], 0, self.size[1])


class Surroundings:
    """N on crops of frames with these regions, each with what is kept around it."""

    def __init__(
        self, net: SplitSegmenter, crops: Callable[[tuple[int, int]], Sequence[Place]], overlap: int
    ) -> None:
        """`crops`: the regions of frames of a size (H, W), which reach `overlap` pixels beyond what is used.
        A layer that reads no farther is left alone; those are the ones with the largest maps."""
        self._multiple, self._crops, self._overlap = net.net.multiple, crops, overlap
        self._layers = [
            (name, reach, layer) for name, layer in net.net.named_modules() if (reach := reach_of(layer))
        ]
        self._found = lru_cache(maxsize=_MOST_FOUND)(self._find)

    def run(
        self, place: Place, size: tuple[int, int], kept: Kept, call: Callable[[], Result]
    ) -> tuple[Result, Kept]:
        """`call()`, which runs N once on the crop at `place` of such a frame; and what is kept now."""
        now, hooks = _Now(place, size, kept), []
        for name, reach, layer in self._layers:
            hooks.append(layer.register_forward_pre_hook(partial(self._before, now, name, reach)))
            hooks.append(layer.register_forward_hook(partial(self._after, now, name)))
        try:
            return call(), {**kept, **now.news}
        finally:
            for hook in hooks:
                hook.remove()
            for undo in now.undo.values():  # of a layer that failed
                undo(torch.empty(0, 0, 0, 0))

    def _before(
        self, now: _Now, name: str, reach: Reach, layer: Any, given: tuple[Any, ...]
    ) -> tuple[Any, ...] | None:
        map_1Chw = given[0]
        cells, call = (int(map_1Chw.shape[2]), int(map_1Chw.shape[3])), f"{name}/{now.calls[name]}"
        now.calls[name] += 1
        found = self._found(reach.cells, cells, now.place, now.size)
        if found is None or not (now.whole or _known(map_1Chw, found, now.kept, call)):
            return None
        grown = _grown(map_1Chw, found, now.kept, call, reach.pads)
        now.news |= _renewed(map_1Chw, found, now.kept, call)
        if grown is None:
            return None
        if reach.pads:
            now.undo[name] = _without_padding(layer)
        else:
            now.undo[name] = _cut_out(map_1Chw, found.has, reach.stride)
        return (grown, *given[1:])

    def _after(
        self, now: _Now, name: str, layer: Any, given: tuple[Any, ...], found: torch.Tensor
    ) -> torch.Tensor | None:
        return now.undo.pop(name)(found) if name in now.undo else None

    def _find(self, reads: int, cells: tuple[int, int], place: Place, size: tuple[int, int]) -> _Layer | None:
        """Of a layer that reads so far, whose input has so many rows and columns; None: it reads no farther
        than the overlap, or its input is not one of places of the frame."""
        top, bottom, left, right = place
        padded = padded_size((bottom - top, right - left), self._multiple)
        stride = padded[0] // max(1, cells[0])
        if (cells[0] * stride, cells[1] * stride) != padded or reads * stride <= self._overlap:
            return None
        height, width = (side // stride for side in padded_size(size, self._multiple))
        places = [self._in_cells(each, stride, size) for each in self._crops(size)]
        return _Layer(
            place=self._in_cells(place, stride, size),
            size=(height, width),
            reads=reads,
            rows=_bands([place[:2] for place in places], height, reads),
            columns=_bands([place[2:] for place in places], width, reads),
        )

    def _in_cells(self, place: Place, stride: int, size: tuple[int, int]) -> Place:
        """The crop in a layer's map; one that ends with the frame goes on to the end of what pads it."""
        top, bottom, left, right = (side // stride for side in place)
        height, width = (side // stride for side in padded_size(size, self._multiple))
        bottom = height if place[1] == size[0] else bottom
        return top, bottom, left, width if place[3] == size[1] else right


def _bands(parts: Sequence[tuple[int, int]], length: int, reads: int) -> tuple[tuple[int, int], ...]:
    """What lies before the first cell of a part, and after its last one."""
    found = {(max(0, first - reads), first) for first, _ in parts if first}
    return tuple(sorted(found | {(last, min(length, last + reads)) for _, last in parts if last < length}))


def _grown(map_1Chw: torch.Tensor, layer: _Layer, kept: Kept, call: str, padded: bool) -> torch.Tensor | None:
    """The map with what is kept around it, `padded` with zeros beyond the frame; None: there is nothing."""
    (up, down, back, on), (top, bottom, left, right) = layer.has, layer.place
    if not any(layer.has):
        return None
    rows, columns = map_1Chw.shape[2:]
    before = (layer.reads, layer.reads) if padded else (up, back)
    after = (layer.reads, layer.reads) if padded else (down, on)
    shape = (before[0] + rows + after[0], before[1] + columns + after[1])
    grown = map_1Chw.new_zeros(*map_1Chw.shape[:2], *shape)
    y, x = before
    grown[:, :, y : y + rows, x : x + columns] = map_1Chw
    across, along = slice(x - back, x + columns + on), slice(left - back, right + on)
    if up:
        grown[0, :, y - up : y, across] = kept[f"{call}/rows{top - up}-{top}"][:, :, along]
    if down:
        grown[0, :, y + rows : y + rows + down, across] = kept[f"{call}/rows{bottom}-{bottom + down}"][
            :, :, along
        ]
    if back:
        grown[0, :, y : y + rows, x - back : x] = kept[f"{call}/columns{left - back}-{left}"][:, top:bottom]
    if on:
        here = slice(x + columns, x + columns + on)
        grown[0, :, y : y + rows, here] = kept[f"{call}/columns{right}-{right + on}"][:, top:bottom]
    return grown


def _known(map_1Chw: torch.Tensor, layer: _Layer, kept: Kept, call: str) -> bool:
    """Did the layer see the whole frame as this crop is seen? A map of a fixed size, such as a pooled one of
    6 x 6 cells, may look like a part of the frame, and is none."""
    bands = layer.bands(call, int(map_1Chw.shape[1]))
    return all(name in kept and tuple(kept[name].shape) == shape for name, shape in bands.items())


def _renewed(map_1Chw: torch.Tensor, layer: _Layer, kept: Kept, call: str) -> dict[str, torch.Tensor]:
    """The bands that the crop lies in, with its own cells."""
    (top, bottom, left, right), news = layer.place, {}
    shapes = layer.bands(call, int(map_1Chw.shape[1]))
    for first, last in layer.rows:
        begin, end = max(first, top), min(last, bottom)
        if begin < end:
            name = f"{call}/rows{first}-{last}"
            news[name] = _copy(kept, name, shapes[name], map_1Chw)
            news[name][:, begin - first : end - first, left:right] = map_1Chw[0, :, begin - top : end - top]
    for first, last in layer.columns:
        begin, end = max(first, left), min(last, right)
        if begin < end:
            name, here = f"{call}/columns{first}-{last}", slice(begin - left, end - left)
            news[name] = _copy(kept, name, shapes[name], map_1Chw)
            news[name][:, top:bottom, begin - first : end - first] = map_1Chw[0, :, :, here]
    return news


def _copy(kept: Kept, name: str, shape: tuple[int, int, int], like: torch.Tensor) -> torch.Tensor:
    if name in kept and tuple(kept[name].shape) == shape:
        return kept[name].to(like.device, copy=True)
    return like.new_zeros(shape, dtype=torch.float32)


def _without_padding(layer: Any) -> Callable[[torch.Tensor], None]:
    """Let a convolution not pad, until that is undone: its input is grown, its output is the crop's."""
    own, layer.padding = layer.padding, (0, 0)

    def undo(_: torch.Tensor) -> None:
        layer.padding = own

    return undo


def _cut_out(map_1Chw: torch.Tensor, has: Sides, stride: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The crop's part of what a layer makes of a grown input."""
    rows, columns = map_1Chw.shape[2:]
    down, across = (
        slice(first // stride, (first + count) // stride)
        for first, count in ((has[0], rows), (has[2], columns))
    )
    return lambda found: found[:, :, down, across].contiguous()


def reach_of(layer: nn.Module) -> Reach | None:
    """What a layer reads around its input; None for one that reads nothing, or whose output is not one cell
    for each step of its input."""
    if not isinstance(layer, (nn.Conv2d, *_POOLS)):
        return None
    kernel, stride = _one(layer.kernel_size), _one(layer.stride)
    dilation = _one(getattr(layer, "dilation", 1))
    padding = layer.padding if isinstance(layer.padding, str) else _one(layer.padding)
    if kernel is None or stride is None or dilation is None or kernel % 2 == 0:
        return None
    reads = dilation * (kernel - 1) // 2
    if padding not in (reads, "same") or reads == 0 or getattr(layer, "ceil_mode", False):
        return None
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        return Reach(reads, stride, pads=True)
    return Reach(math.ceil(reads / stride) * stride, stride, pads=False)


def _one(value: Any) -> int | None:
    """The number of both sides; None where they differ."""
    first, second = value if isinstance(value, tuple) else (value, value)
    return int(first) if first == second else None


def surrounding(net: Segmenter, step: int) -> SplitSegmenter:
    """The net as one whose layers can see around crops that begin at multiples of `step` pixels;
    `SegmenterError` if it is none."""
    if not isinstance(net, SplitSegmenter):
        raise SegmenterError(f"layers of {net.name!r} cannot be reached: that takes a net of torch layers")
    if step % net.net.multiple:
        raise SegmenterError(f"{net.name} works on multiples of {net.net.multiple} pixels, not of {step}")
    return net
