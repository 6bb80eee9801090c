"""Regions of a frame (DVSNet section 3.3): which crops a grid makes of a working size.

Model: inner borders cut the frame into `rows` x `columns` inner parts that cover each pixel once. A region's
crop is its inner part, grown by `overlap` pixels beyond each inner border, so that a net sees what surrounds
it; the band that two neighbours share is twice as wide. (The 64 pixels at 1024x2048 of DVSNet section 4.6 are
the depth of that band: an overlap of 32 there, of 8 at 512.) Masks are put together from the inner parts.
With `align` a crop is grown further, to multiples of so many pixels: a net would fill it up to such a size
anyway, with pixels that mean nothing, and its strides then fall on the places where they fall in the frame.

Legend: H, W working size.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from vidseg_core.config.errors import ConfigError, check, check_choice, check_int

__all__ = ["Crop", "RegionsConfig"]

MOST_A_SIDE = 16
"""Regions in a row, or in a column."""
STEP = 8
"""Working sizes are multiples of it, which nets may count on; so inner borders of such a size are, too."""
LEAST_SIDE = 16
"""Pixels of an inner part's side, at working size."""
MOST_ALIGN = 256
_GRID, _OVERLAP, _ALIGN = "regions.grid", "regions.overlap", "regions.align"


@dataclass(frozen=True, slots=True)
class Crop:
    """One region of a frame, in pixels at working size; stops are exclusive."""

    top: int
    bottom: int
    left: int
    right: int
    inner: tuple[int, int, int, int]
    """Top, bottom, left and right of the part that the region's mask is used for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the crop."""
        return self.bottom - self.top, self.right - self.left

    @property
    def pixels(self) -> int:
        """Pixels that a net sees of it, overlap counted."""
        return self.shape[0] * self.shape[1]

    @property
    def where(self) -> tuple[slice, slice]:
        """The crop in the frame."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def inner_where(self) -> tuple[slice, slice]:
        """The inner part in the frame."""
        top, bottom, left, right = self.inner
        return slice(top, bottom), slice(left, right)

    @property
    def inner_in_crop(self) -> tuple[slice, slice]:
        """The inner part in the crop."""
        top, bottom, left, right = self.inner
        return slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)


@dataclass(frozen=True, kw_only=True)
class RegionsConfig:
    """Regions of a frame with keys of their own (DVSNet)."""

    grid: str = "1x1"
    """ROWSxCOLUMNS of regions, each with keys of its own; 1x1: the frame is one; up to 16x16"""
    overlap: int = 16
    """pixels of the working size by which a region is seen beyond an inner border; 0 to 1024"""
    align: int = 1
    """crops are grown to multiples of so many pixels, as the net pads them (tiny-face: 64); 1 to 256"""
    context: Literal["none", "joint", "remembered"] = "none"
    """what N sees around a key region: its crop; key neighbours with it; also what its layers saw before"""

    def __post_init__(self) -> None:
        match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", self.grid) if isinstance(self.grid, str) else None
        problem = f"must be ROWSxCOLUMNS such as 2x2, got {self.grid!r}"
        if match is None or not all(1 <= int(side) <= MOST_A_SIDE for side in match.groups()):
            raise ConfigError("--regions.grid", f"{problem}; 1x1 to {MOST_A_SIDE}x{MOST_A_SIDE}")
        object.__setattr__(self, "grid", "x".join(str(int(side)) for side in match.groups()))
        check_int("--regions.overlap", self.overlap, 0, 1024, "pixels")
        check_int("--regions.align", self.align, 1, MOST_ALIGN, "pixels")
        check_choice("--regions.context", self.context, ("none", "joint", "remembered"))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.grid.split("x")
        return int(rows), int(columns)

    @property
    def count(self) -> int:
        """Regions of a frame."""
        return self.shape[0] * self.shape[1]

    @property
    def on(self) -> bool:
        """Is a frame more than one region?"""
        return self.count > 1

    @property
    def used(self) -> RegionsConfig:
        """What is left of it where a frame is one region: nothing."""
        return self if self.on else RegionsConfig()

    def check_used(self, given: Collection[str] = ()) -> None:
        """`ConfigError` for what is said of regions where a frame is one, which would do nothing. `given`:
        options as typed, so that one with the value that it has anyway is seen, too (unless the grid is
        typed with it: a file may name all options)."""
        alone = () if "regions.grid" in given else given
        for name in ("overlap", "align", "context"):
            own, plain = getattr(self, name), getattr(self.used, name)
            idle = not self.on and f"regions.{name}" in alone
            problem = f"{own} goes with --regions.grid, such as 2x2"
            check(own == plain and not idle, f"--regions.{name}", problem)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RegionsConfig | None:
        """Those of a run whose configuration this is; None where a frame is one region."""
        found = cls(**options.get("regions", {}))
        return found if found.on else None

    def words(self) -> str:
        """Grid and overlap, for people."""
        aligned = f", aligned to {self.align}" if self.align > 1 else ""
        aligned += f", context {self.context}" if self.context != "none" else ""
        return f"regions {self.grid} with overlap {self.overlap}{aligned}" if self.on else "whole frames"

    def recorded(self) -> dict[str, str]:
        """What tables of such regions say of them; those of whole frames say nothing."""
        if not self.on:
            return {}
        aligned = {_ALIGN: str(self.align)} if self.align > 1 else {}
        return {_GRID: self.grid, _OVERLAP: str(self.overlap), **aligned}

    @classmethod
    def of_record(cls, fields: Mapping[str, str]) -> RegionsConfig:
        """Those of tables, or of a file that has learned from tables, which say this; ValueError for what no
        regions are."""
        if _GRID not in fields:
            return cls()
        align = int(fields.get(_ALIGN, "1"))
        return cls(grid=fields[_GRID], overlap=int(fields[_OVERLAP]), align=align)

    def crops(self, size: tuple[int, int]) -> tuple[Crop, ...]:
        """The regions of frames of this size (H, W), row by row; ValueError where they do not fit."""
        return _crops(self, size)

    def shares(self, size: tuple[int, int]) -> tuple[float, ...]:
        """Pixels of each crop, in frames of this size (H, W)."""
        return tuple(crop.pixels / (size[0] * size[1]) for crop in self.crops(size))

    def inner_parts(self, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
        """Top, bottom, left and right of each region's own part, row by row; also of a size (H, W) whose
        frames have no such regions: masks may be stored smaller than frames were worked on."""
        (height, width), (rows, columns) = size, self.shape
        return tuple(
            (*of_rows, *of_columns)
            for of_rows in _parts(height, rows)
            for of_columns in _parts(width, columns)
        )

    def check_size(self, size: tuple[int, int]) -> None:
        """`ConfigError` where frames of this size (H, W) have no such regions."""
        for option, problem in (("grid", self._too_fine(size)), ("overlap", self._too_wide(size))):
            check(not problem, f"--regions.{option}", problem)

    def problem(self, size: tuple[int, int]) -> str:
        """Why frames of this size (H, W) have no such regions; empty where they have."""
        return self._too_fine(size) or self._too_wide(size)

    def _too_fine(self, size: tuple[int, int]) -> str:
        least = min(_least(length, parts) for length, parts in zip(size, self.shape, strict=True))
        if least >= LEAST_SIDE or not self.on:
            return ""
        return (
            f"{self.grid} cuts frames of {size[0]}x{size[1]} into regions of {least} pixels a side; "
            f"at least {LEAST_SIDE} are needed"
        )

    def _too_wide(self, size: tuple[int, int]) -> str:
        cut = [_least(length, parts) for length, parts in zip(size, self.shape, strict=True) if parts > 1]
        if not cut or self.overlap <= min(cut):
            return ""
        return (
            f"{self.overlap} reaches beyond the next region: with {self.grid} of {size[0]}x{size[1]} one has "
            f"{min(cut)} pixels a side"
        )


@lru_cache(maxsize=64)
def _crops(regions: RegionsConfig, size: tuple[int, int]) -> tuple[Crop, ...]:
    if why := regions.problem(size):
        raise ValueError(why)
    height, width = size
    return tuple(
        Crop(
            *_seen(top, bottom, height, regions),
            *_seen(left, right, width, regions),
            inner=(top, bottom, left, right),
        )
        for top, bottom, left, right in regions.inner_parts(size)
    )


def _parts(length: int, parts: int) -> list[tuple[int, int]]:
    """First and one past the last pixel of each part, as even as the step of the length allows."""
    step = 1 if length % STEP else STEP
    borders = [
        (2 * length * number + parts * step) // (2 * parts * step) * step for number in range(parts + 1)
    ]
    return list(zip(borders, borders[1:], strict=False))


def _least(length: int, parts: int) -> int:
    """Pixels of the shortest part."""
    return min(stop - start for start, stop in _parts(length, parts))


def _seen(start: int, stop: int, length: int, regions: RegionsConfig) -> tuple[int, int]:
    """A part with the overlap at inner borders, and what aligns it; the frame's own end is one."""
    first, last = max(0, start - regions.overlap), stop + regions.overlap
    return first // regions.align * regions.align, min(length, -(-last // regions.align) * regions.align)
