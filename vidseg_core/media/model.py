"""The nouns of the package: limits, index of a video, unit of decoding.

Model: a video is what one plain decode of its stream delivers, packets in file order; frame number = place in
that output (`VideoIndex.frame_pts`). A `DecodeUnit` is a run of frames that a fresh decoder, started at one
proven key frame, delivers alone; a `pictures.FrameShard` is what comes out of it, piece by piece.
Invariant: numbers and bytes of a frame depend on the file and the unit only, never on what was decoded
before.

Legend: T frames of a shard, H height, W width, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

NO_TIME = int(np.iinfo(np.int64).min)
"""Stands for a time that the container does not give, in arrays of presentation or decode times."""


def seconds_of(pts: np.ndarray, num: int, den: int) -> np.ndarray:
    """float64 seconds of int64 times in units of num/den; NaN for `NO_TIME`."""
    return np.where(pts == NO_TIME, np.nan, pts.astype(np.float64) * num / den)


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """How much one video may cost."""

    max_pixels: int = 64_000_000
    """Largest width x height of a picture, pixels."""
    deadline_s: float = 120.0
    """A decode process that shows no progress for so long is killed, seconds."""
    memory_bytes: int = 4 << 30
    """Address space a decode process may take beyond what it starts with, bytes."""

    def __post_init__(self) -> None:
        for name in ("max_pixels", "deadline_s", "memory_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"MediaLimits.{name} must be positive, got {getattr(self, name)!r}")


class _Plain:
    """to_dict / from_dict over the dataclass fields; arrays stay numpy arrays."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; lists are accepted for arrays (as Arrow hands them back)."""
        values = {name: data[name] for name in (field.name for field in fields(cls))}  # type: ignore[arg-type]
        for name in ("frame_pts", "key_indices", "key_dts", "kept"):
            if values.get(name) is not None and not np.isscalar(values[name]):
                values[name] = np.asarray(values[name], dtype=np.int64)
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoIndex(_Plain):
    """What a probe learns about a video."""

    codec: str
    container: str
    pix_fmt: str
    width: int
    """Width of the first decoded frame, after rotation, pixels."""
    height: int
    rotation: int
    """Degrees, counter-clockwise, by which a decoded frame is to be turned: 0, 90, 180 or -90."""
    time_base_num: int
    time_base_den: int
    declared_frames: int
    """Frames the container claims to hold; 0: it says nothing."""
    duration_s: float
    frame_pts: np.ndarray
    """int64[N] presentation times of the frames to expect, in time base units, as the container gives them
    (`NO_TIME`: it does not); strictly increasing in a regular video."""
    key_indices: np.ndarray
    """int64[K] frame numbers at which a fresh decoder may start; `key_indices[0] == 0`."""
    key_dts: np.ndarray
    """int64[K] decode times of those key packets, `NO_TIME` where there is none."""
    regular: bool
    """False: packet times do not give the frames; indexed by decoding once, one unit."""
    stream: int = 0
    """Number of the video stream among all streams of the file."""
    other_streams: str | None = None
    """What else the file holds, in words."""
    damage: str | None = None
    """What the index already knows to be missing or broken; None: nothing."""
    frame_duration: int = 1
    """Time from frame to frame by the container's rate, in time base units; for frames without a time."""
    shown_width: int = 0
    """Width at which the video is shown: pixels need not be square; 0: `width`."""
    shown_height: int = 0
    mirrored: bool = False
    """Whether it is shown with left and right changed, after rotation."""
    transfer: str = ""
    """`pq` or `hlg`: its first frame has high dynamic range."""

    @property
    def frames(self) -> int:
        return len(self.frame_pts)

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) at which the video is shown."""
        return self.shown_height or self.height, self.shown_width or self.width

    def note(self, *, maps_hdr: bool = True) -> str | None:
        """What is special about its pictures and what is done about it, in words; None: nothing."""
        height, width = self.shown
        stretched = self.shown != (self.height, self.width)
        notes = [
            *([f"its pixels are not square: shown at {width}x{height}"] if stretched else []),
            *(["shown mirrored"] if self.mirrored else []),
            *(
                [f"HDR ({self.transfer}), {'mapped to BT.709' if maps_hdr else 'left as it is'}"]
                if self.transfer
                else []
            ),
        ]
        return "; ".join(notes) or None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodeUnit(_Plain):
    """What one decode call covers: all or some of `first_frame .. first_frame + len(frame_pts) - 1`."""

    uri: str
    first_frame: int
    frame_pts: np.ndarray
    """int64[n], as `VideoIndex.frame_pts`."""
    end_pts: int | None
    """Presentation time of the first frame after the unit; None: the unit ends with the file."""
    key_dts: int
    """Decode time of its key packet (`NO_TIME`: unknown); not used if first_frame == 0."""
    regular: bool
    time_base_num: int
    time_base_den: int
    rotation: int
    width: int
    """Output width, after rotation, pixels."""
    height: int
    stream: int = 0
    stamp: str = ""
    """What `Source.stamp` must say, now and at every shard; "": anything."""
    kept: np.ndarray | None = None
    """int64[k], increasing: places in `frame_pts` of the frames that are delivered; None: all of them."""
    starts_anywhere: bool = False
    """Whether a fresh decoder may start at every frame of it."""
    maps_hdr: bool = True
    """Whether pictures of high dynamic range become ordinary ones."""
    motion: bool = False
    """Whether frames bring what the stream says of their motion (`motion`)."""

    @property
    def frames(self) -> int:
        """Frames that are delivered."""
        return len(self.frame_pts) if self.kept is None else len(self.kept)


def quarter_turns(degrees: float) -> int:
    """Counter-clockwise quarter turns, -1 .. 2, nearest to a rotation in degrees."""
    return (round(degrees / 90) + 1) % 4 - 1


def working_size(width: int, height: int, spec: int | str) -> tuple[int, int]:
    """(height, width) at which frames are delivered.

    `spec` an integer (or its text): longest side in pixels, aspect kept, never scaled up, both sides rounded
    to a multiple of 8 and at least 8. `spec` "HxW": exactly that. Raises ValueError for anything else.
    """
    text = str(spec).strip().lower()
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise ValueError(
            f"working size {spec!r}: expected a longest side like 512 or HEIGHTxWIDTH like 512x512"
        )
    if len(parts) == 2:
        return int(parts[0]), int(parts[1])
    scale = min(1.0, int(text) / max(width, height))
    return _multiple_of_8(height * scale), _multiple_of_8(width * scale)


def _multiple_of_8(pixels: float) -> int:
    return max(8, int(pixels / 8 + 0.5) * 8)
