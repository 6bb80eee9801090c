"""Decoded pictures as they travel: planar as the decoder made them where that is small, else RGB.

Model: most frames never need their colours: only on key frames does a net look at RGB, flow is made from the
luma. So a frame of a common kind (8-bit 4:2:0, progressive, even sides, not much larger than its working
size) travels as its decoded planes, and `Picture.rgb` converts it when somebody asks. Any other frame is
converted at once and travels as RGB; so is one of high dynamic range that is mapped (`hdr`).

Invariants:
- `Picture.rgb` is the same bits as PyAV's own `frame.reformat(width, height, "rgb24", "BILINEAR")`, however
  the frame travelled, unless it is mapped. swscale's result depends on where the chroma samples lie, which
  PyAV does not say: `chroma_location` finds it out by trial on a small pattern, and a frame for which no
  trial fits travels as RGB.
- How a frame travels depends on that frame and on its unit alone, never on the shard that it is in.

Imports numpy and PyAV only (the decode process starts with it). Legend: T frames, H, W working size; h, w
decoded size; 3 = RGB.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from vidseg_core.media.hdr import has_wide_primaries, to_bt709, transfer_of, with_matrix
from vidseg_core.media.model import quarter_turns
from vidseg_core.media.motion import Motion, most_bytes

PLANAR = ("yuv420p", "yuvj420p")
PLANAR_LIMIT = 3.2
"""Planes travel if they have at most so many times the bytes of the RGB picture at working size."""
CHROMA_LOCATIONS = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
ROTATIONS = (0, 90, 180, -90)
_PATTERN = 32
"""Sides of the pattern on which chroma locations are told apart, pixels."""
_CANVASES = 8
_WITH_MOTION = 1.06
"""Room for a picture with its motion, in pictures: 1.5 bytes and 1/16 a pixel (`motion.most_bytes`)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the bytes of a picture mean."""

    format: str
    """rgb24 (at working size, upright), or one of `PLANAR` (as decoded)."""
    width: int
    height: int
    colorspace: int = 0
    """AVColorSpace, as PyAV has it."""
    color_range: int = 0
    """AVColorRange."""
    chroma: str = "unspecified"
    """One of `CHROMA_LOCATIONS`."""
    rotation: int = 0
    """Degrees, counter-clockwise, by which the picture is still to be turned."""
    motion: int = 0
    """Bytes of the motion vectors that follow the picture (`motion`)."""

    @property
    def bytes(self) -> int:
        return self.picture_bytes + self.motion

    @property
    def picture_bytes(self) -> int:
        pixels = self.width * self.height
        return 3 * pixels if self.format == "rgb24" else pixels * 3 // 2

    def to_list(self) -> list[Any]:
        return list(astuple(self))

    @staticmethod
    def from_list(values: Sequence[Any]) -> Layout:
        """Inverse of `to_list`; ValueError for what cannot be one (a subverted child may have sent it)."""
        try:
            name, width, height, colorspace, color_range, chroma, rotation, motion = values
        except (TypeError, ValueError):
            raise ValueError(f"no picture layout: {values!r:.100}") from None
        numbers = (width, height, colorspace, color_range, rotation, motion)
        sound = (
            all(type(number) is int for number in numbers)
            and 0 < width < 1 << 17
            and 0 < height < 1 << 17
            and 0 <= colorspace < 256
            and 0 <= color_range < 256
            and chroma in CHROMA_LOCATIONS
            and rotation in ROTATIONS
            and 0 <= motion < 1 << 30
            and (name == "rgb24" or (name in PLANAR and width % 2 == height % 2 == 0))
        )
        if not sound:
            raise ValueError(f"no picture layout: {values!r:.100}")
        return Layout(name, width, height, colorspace, color_range, chroma, rotation, motion)


class Picture:
    """One frame; colours are made when asked for. Valid as long as the memory it lies in."""

    __slots__ = ("_layout", "_pixels", "shape")

    def __init__(self, pixels: np.ndarray, layout: Layout, height: int, width: int) -> None:
        self._pixels, self._layout = pixels, layout
        self.shape = (height, width)
        """(H, W), working size, upright."""

    def rgb(self) -> np.ndarray:
        """frame_HW3 uint8: a view of what travelled, or a new array."""
        height, width = self.shape
        if self._layout.format == "rgb24":
            return self._pixels[: self._layout.picture_bytes].reshape(height, width, 3)
        canvas = _canvas(self._layout)
        for plane, pixels_hw in zip(canvas.planes, _planes(self._pixels, self._layout), strict=True):
            plane_of(plane, *pixels_hw.shape)[...] = pixels_hw
        out_HW3 = np.empty((height, width, 3), np.uint8)
        write_rgb(canvas, self._layout.rotation, out_HW3)
        return out_HW3

    def luma(self) -> tuple[np.ndarray, bool] | None:
        """luma_hw uint8 at decoded size, upright, and whether it has the full range 0..255 (else 16..235);
        None if the picture travelled as RGB."""
        if self._layout.format == "rgb24":
            return None
        luma_hw = next(iter(_planes(self._pixels, self._layout)))
        full = self._layout.format == "yuvj420p" or self._layout.color_range == 2
        turned_hw = np.rot90(luma_hw, quarter_turns(self._layout.rotation))
        return np.ascontiguousarray(turned_hw), full

    def motion(self) -> Motion | None:
        """What the stream says of its motion; None: nothing, or it was not asked for."""
        if not self._layout.motion:
            return None
        data = self._pixels[self._layout.picture_bytes :].tobytes()
        return Motion.from_bytes(data)


class Pictures:
    """The pictures of a shard, one after the other in one piece of memory."""

    __slots__ = ("_offsets", "height", "layout_of", "layouts", "pixels", "width")

    def __init__(
        self,
        pixels: np.ndarray,
        layouts: Sequence[Layout],
        layout_of: Sequence[int],
        *,
        height: int,
        width: int,
    ) -> None:
        """`pixels` uint8, one-dimensional; picture t has layout `layouts[layout_of[t]]`. ValueError if the
        layouts want more bytes than there are, or an RGB picture is not at working size."""
        sizes = [layouts[number].bytes for number in layout_of]
        self._offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        if self._offsets[-1] > pixels.size:
            raise ValueError(f"{len(sizes)} pictures need {self._offsets[-1]} bytes, not {pixels.size}")
        for layout in layouts:
            if layout.format == "rgb24" and (layout.height, layout.width) != (height, width):
                raise ValueError(f"an RGB picture of {layout.height}x{layout.width} in {height}x{width}")
        self.pixels = pixels[: self._offsets[-1]]
        self.layouts, self.layout_of = tuple(layouts), list(layout_of)
        self.height, self.width = height, width

    def __len__(self) -> int:
        return len(self.layout_of)

    def __getitem__(self, t: int) -> Picture:
        t = range(len(self))[t]
        start, stop = self._offsets[t], self._offsets[t + 1]
        return Picture(self.pixels[start:stop], self.layouts[self.layout_of[t]], self.height, self.width)

    def rgb(self) -> np.ndarray:
        """frames_THW3 uint8: a view if all of them travelled as RGB, else a new read-only array."""
        shape = (len(self), self.height, self.width, 3)
        if all(layout.format == "rgb24" and not layout.motion for layout in self.layouts):
            return self.pixels.reshape(shape)
        frames_THW3 = np.empty(shape, np.uint8)
        for t in range(len(self)):
            frames_THW3[t] = self[t].rgb()
        frames_THW3.flags.writeable = False
        return frames_THW3


# --- how a decoded frame travels ---------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class FrameShard:
    """Consecutive frames of a unit; the number of a frame that was lost stays free."""

    frame_index: np.ndarray
    """int64[T], video-wide, strictly increasing."""
    pts_s: np.ndarray
    """float64[T], presentation times in seconds as the container gives them (a start offset is kept); NaN
    where it gives none."""
    is_corrupt: np.ndarray
    """bool[T], the decoder's own flag."""
    pictures: Pictures
    """The pictures as they travel: colours are made when asked for."""
    error: str | None = None
    """Why the shard is not what was planned (frames missing, packets refused, surplus); None: it is."""
    cpu_s: float = 0.0
    """CPU seconds of the decode process for it, as that process counts them."""

    @property
    def frames_THW3(self) -> np.ndarray:
        """uint8 RGB at working size, C-contiguous, read-only unless `pictures` are writable RGB already."""
        return self.pictures.rgb()

    def __len__(self) -> int:
        return len(self.frame_index)


def slot_bytes_of(height: int, width: int, *, motion: bool = False) -> int:
    """The most bytes that one picture of this working size may have, with its motion where that is asked for:
    motion that has no room is left out."""
    return int(3 * height * width * max(1.0, PLANAR_LIMIT) * (_WITH_MOTION if motion else 1.0))


def usual_bytes(
    pix_fmt: str, decoded: tuple[int, int], working: tuple[int, int], *, motion: bool = False
) -> int:
    """Bytes that a picture will have, going by what is known before decoding (sizes as (height, width))."""
    vectors = most_bytes(decoded[1], decoded[0]) if motion else 0
    if travels_planar(pix_fmt, decoded[1], decoded[0], *working):
        return decoded[0] * decoded[1] * 3 // 2 + vectors
    return 3 * working[0] * working[1] + vectors


def travels_planar(pix_fmt: str, w: int, h: int, height: int, width: int) -> bool:
    """May a progressive frame of this kind travel as its planes?"""
    small = w * h * 1.5 <= PLANAR_LIMIT * 3 * height * width
    return pix_fmt in PLANAR and w % 2 == h % 2 == 0 and small


class PictureWriter:
    """Writes the decoded frames of one unit into memory, one after the other."""

    def __init__(self, height: int, width: int, rotation: int, *, maps_hdr: bool = True) -> None:
        """`maps_hdr`: pictures of high dynamic range become ordinary ones (`hdr`)."""
        self._height, self._width, self._rotation = height, width, rotation
        self._maps_hdr = maps_hdr
        self._rgb = Layout("rgb24", width, height)
        self._known: dict[tuple[Any, ...], Layout] = {}
        self._keys = 0
        """Key frames in a row: where all are, every codec is one whose chroma lies still."""

    def write(self, frame: VideoFrame, room: np.ndarray, motion: Motion | None = None) -> Layout:
        """Puts `frame` at the start of `room` (uint8, `slot_bytes_of` bytes at least), and its motion
        after it if that fits."""
        layout = self._picture(frame, room)
        data = b"" if motion is None else motion.to_bytes()
        end = layout.bytes + len(data)
        if not data or end > slot_bytes_of(self._height, self._width, motion=True):
            return layout
        room[layout.bytes : end] = np.frombuffer(data, np.uint8)
        return replace(layout, motion=len(data))

    def _picture(self, frame: VideoFrame, room: np.ndarray) -> Layout:
        layout = self._layout(frame)
        if layout is self._rgb:
            out_HW3 = room[: layout.bytes].reshape(self._height, self._width, 3)
            transfer = transfer_of(frame) if self._maps_hdr else ""
            write_rgb(frame, self._rotation, out_HW3, transfer)
            return layout
        for plane, out_hw in zip(frame.planes, _planes(room, layout), strict=True):
            out_hw[...] = plane_of(plane, *out_hw.shape)
        return layout

    def _layout(self, frame: VideoFrame) -> Layout:
        name, w, h = frame.format.name, frame.width, frame.height
        self._keys = self._keys + 1 if frame.key_frame else 0
        if frame.interlaced_frame or not travels_planar(name, w, h, self._height, self._width):
            return self._rgb
        if any(plane.line_size < 0 for plane in frame.planes):  # upside down
            return self._rgb
        if self._maps_hdr and transfer_of(frame):
            return self._rgb
        kind = (name, w, h, int(frame.colorspace), int(frame.color_range))
        if 0 < self._keys < 4 or kind not in self._known:  # where chroma lies may change at a key frame
            chroma = chroma_location(frame)
            planar = None if chroma is None else Layout(*kind, chroma, self._rotation)
            self._known[kind] = planar or self._rgb
        return self._known[kind]


def chroma_location(frame: VideoFrame) -> str | None:
    """Where the chroma samples of an 8-bit 4:2:0 frame lie, as swscale sees it; None: no location fits.

    PyAV does not show the field, but copies it: a small frame with the same properties is scaled, and what
    comes out is compared with what each location would give. The picture itself plays no part.
    """
    side = _PATTERN if frame.width != _PATTERN else _PATTERN + 16
    small = frame.reformat(side, side, frame.format.name)
    expected_HW3 = _scaled_pattern(small)
    kind = (frame.format.name, side, side, int(frame.colorspace), int(frame.color_range))
    for chroma in CHROMA_LOCATIONS:
        if np.array_equal(_scaled_pattern(_new_canvas(Layout(*kind, chroma))), expected_HW3):
            return chroma
    return None


def _scaled_pattern(frame: VideoFrame) -> np.ndarray:
    """Fills `frame` with noise and scales it, not by a whole number."""
    for number, plane in enumerate(frame.planes):
        shape = (frame.height, frame.width) if number == 0 else (frame.height // 2, frame.width // 2)
        plane_of(plane, *shape)[...] = _noise(number, shape)
    out_HW3 = np.empty((20, 24, 3), np.uint8)
    write_rgb(frame, 0, out_HW3)
    return out_HW3


@lru_cache(maxsize=16)
def _noise(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(16, 236, shape, dtype=np.uint8)


# --- conversion --------------------------------------------------------------------------------------------


def write_rgb(frame: VideoFrame, rotation: int, out_HW3: np.ndarray, transfer: str = "") -> None:
    """Scales `frame` to the size of `out_HW3` (uint8), as RGB, and turns it by `rotation` degrees.

    One copy beside swscale's own output: into `out_HW3`. `transfer`: what of high dynamic range is mapped.
    """
    height, width = out_HW3.shape[:2]
    if rotation % 180:
        height, width = width, height
    if transfer:
        scaled = with_matrix(frame).reformat(width, height, "rgb48le", Interpolation.BILINEAR, threads=1)
        rows = plane_of(scaled.planes[0], height, width * 6).view("<u2").reshape(height, width, 3)
        mapped_HW3 = to_bt709(rows, transfer, wide=has_wide_primaries(frame))
        out_HW3[...] = np.rot90(mapped_HW3, quarter_turns(rotation))
        return
    scaled = frame.reformat(width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=1)
    if scaled.planes[0].line_size < 0:  # upside down, and handed back as it is
        scaled = frame.reformat(width, height, "bgr24", threads=1).reformat(format="rgb24", threads=1)
    rows = plane_of(scaled.planes[0], height, width * 3)
    out_HW3[...] = np.rot90(_as_pixels(rows, width), quarter_turns(rotation))


def plane_of(plane: Any, rows: int, columns: int) -> np.ndarray:
    """View of the used bytes of a plane, uint8 [rows, columns]."""
    return np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[:rows, :columns]


def _as_pixels(rows: np.ndarray, width: int) -> np.ndarray:
    """View of padded rows (H, 3*W used) as (H, W, 3)."""
    return np.lib.stride_tricks.as_strided(
        rows, (rows.shape[0], width, 3), (rows.strides[0], 3, 1), writeable=False
    )


def _planes(pixels: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the three planes that lie one after the other."""
    h, w = layout.height, layout.width
    luma, quarter = h * w, (h // 2) * (w // 2)
    chroma = pixels[luma : luma + 2 * quarter].reshape(2, h // 2, w // 2)
    return pixels[:luma].reshape(h, w), chroma[0], chroma[1]


_here = threading.local()


def _canvas(layout: Layout) -> VideoFrame:
    """A frame of this layout whose planes may be written over; one a thread, kept."""
    kept: dict[Layout, VideoFrame] = _here.__dict__.setdefault("canvases", {})
    if layout not in kept:
        while len(kept) >= _CANVASES:
            del kept[next(iter(kept))]
        kept[layout] = _new_canvas(layout)
    return kept[layout]


def _new_canvas(layout: Layout) -> VideoFrame:
    frame = VideoFrame(layout.width, layout.height, layout.format)
    if layout.chroma != "unspecified":
        frame = _with_chroma(frame, layout.chroma)
    frame.colorspace, frame.color_range = layout.colorspace, layout.color_range
    return frame


def _with_chroma(frame: VideoFrame, chroma: str) -> VideoFrame:
    """The frame with its chroma location set: only FFmpeg's own filter can."""
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    mark, sink = graph.add("setparams", f"chroma_location={chroma}"), graph.add("buffersink")
    source.link_to(mark)
    mark.link_to(sink)
    graph.configure()
    graph.push(frame)
    marked = graph.pull()
    assert isinstance(marked, VideoFrame)
    return marked
