"""A video to look at: the masks over the frames, or beside them, key frames with a white border.

The frames are the caller's (this package reads no media): pairs of frame number and RGB picture, in order.
Frames without a row are shown bare; a legend of the classes may go below. Presentation times that move on are
kept, so a variable frame rate stays one.

Legend: `_HW` height, width, `_HW3` with RGB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.codec
import numpy as np
from PIL import Image

from vidseg_core.store.errors import StoreError
from vidseg_core.store.export.legend import legend_strip, with_legend
from vidseg_core.store.export.palette import PALETTE
from vidseg_core.store.run import Run
from vidseg_core.store.video_file import VideoFile, video_file

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_TICKS = 10_000  # a second; mpeg4 allows up to 65535
_COLUMNS = ("pts_s", "is_key", "height", "width", "mask")
_BORDER = 0.012  # of the longer side


def export_overlay(
    run: Run,
    video_id: str,
    frames: Iterable[tuple[int, np.ndarray]],
    out: str | Path,
    *,
    layout: Literal["blend", "side"] = "blend",
    alpha: float = 0.5,
    fps: float = 25.0,
    class_names: Sequence[str] = (),
    unlabelled: bool = False,
) -> int:
    """Write an mp4 of one video; returns its frames.

    `frames`: (frame_index, uint8 [H, W, 3] RGB) with increasing numbers, all of one size, which may differ
    from the mask's. `alpha`: weight of the mask's colours, 0 to 1. `fps`: spacing of frames without a row.
    `class_names`: a legend of these goes below the picture, that of 255 too where `unlabelled`.
    `StoreError` if the run has no such video, there is no frame, or FFmpeg lacks an encoder.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} is not between 0 and 1")
    if layout not in ("blend", "side"):
        raise ValueError(f"layout {layout!r} is neither 'blend' nor 'side'")
    spacing = round(_TICKS / fps)
    written, tick = 0, -spacing
    encoder: _Encoder | None = None
    strip_HW3: np.ndarray | None = None
    with video_file(out) as file:
        for frame_HW3, row in _paired(frames, run.rows(video_id, _COLUMNS)):
            mask_HW = run.labels(video_id, row) if row else None
            picture_HW3 = _picture(frame_HW3, row, mask_HW, layout, alpha)
            if strip_HW3 is None:
                strip_HW3 = legend_strip(class_names, picture_HW3.shape[1], unlabelled=unlabelled)
            picture_HW3 = with_legend(picture_HW3, strip_HW3)
            encoder = encoder or _Encoder(file, picture_HW3.shape[1], picture_HW3.shape[0], fps)
            tick = _next_tick(tick, row["pts_s"] if row else None, spacing)
            encoder.write(picture_HW3, tick)
            written += 1
        if encoder is None:
            raise StoreError(f"overlay of {video_id}: no frames given")
        encoder.drain()
    return written


def _next_tick(last: int, seconds: float | None, spacing: int) -> int:
    """When a frame is shown: at its time, or a spacing after the last where that is unknown or steps back."""
    tick = None if seconds is None else max(0, round(seconds * _TICKS))
    return last + spacing if tick is None or tick <= last else tick


def _paired(
    frames: Iterable[tuple[int, np.ndarray]], rows: Iterator[dict[str, Any]]
) -> Iterator[tuple[np.ndarray, dict[str, Any] | None]]:
    """Each frame with its row, None if it has none."""
    row = next(rows, None)
    for index, frame_HW3 in frames:
        while row and row["frame_index"] < index:
            row = next(rows, None)
        yield frame_HW3, row if row and row["frame_index"] == index else None


def _picture(
    frame_HW3: np.ndarray,
    row: dict[str, Any] | None,
    mask_HW: np.ndarray | None,
    layout: str,
    alpha: float,
) -> np.ndarray:
    """One frame of the overlay, uint8 RGB with even sides (the last odd row and column are cut)."""
    height, width = frame_HW3.shape[0] // 2 * 2, frame_HW3.shape[1] // 2 * 2
    frame_HW3 = frame_HW3[:height, :width]
    shown_HW3 = frame_HW3.copy()
    if row and mask_HW is not None:
        labels = Image.fromarray(mask_HW)
        labels_HW = np.asarray(labels.resize((width, height), Image.Resampling.NEAREST))
        seen_HW = PALETTE[labels_HW].any(axis=2)  # class 0, black: the picture stays as it is
        mixed = frame_HW3[seen_HW] * (1 - alpha) + PALETTE[labels_HW[seen_HW]] * alpha
        shown_HW3[seen_HW] = np.round(mixed).astype(np.uint8)
        if row["is_key"]:
            _draw_border(shown_HW3)
    return np.concatenate((frame_HW3, shown_HW3), axis=1) if layout == "side" else shown_HW3


def _draw_border(picture_HW3: np.ndarray) -> None:
    thick = math.ceil(max(picture_HW3.shape) * _BORDER)
    for edge in (np.s_[:thick], np.s_[-thick:], np.s_[:, :thick], np.s_[:, -thick:]):
        picture_HW3[edge] = 255


class _Encoder:
    """Pictures into a video file."""

    def __init__(self, file: VideoFile, width: int, height: int, fps: float) -> None:
        rate = Fraction(fps).limit_denominator(1001)
        stream: Any = file.container.add_stream(_encoder_name(), rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = 1
        stream.bit_rate = max(1_000_000, width * height * 4)
        self._file, self._stream = file, stream

    def write(self, picture_HW3: np.ndarray, tick: int) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HW3), format="rgb24")
        frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
        self._file.mux(self._stream.encode(frame))

    def drain(self) -> None:
        """Write what the encoder still holds."""
        self._file.mux(self._stream.encode(None))


def _encoder_name() -> str:
    for name in _ENCODERS:
        try:
            av.codec.Codec(name, "w")
            return name
        except ValueError:  # UnknownCodecError
            continue
    raise StoreError(f"this FFmpeg has none of the encoders {', '.join(_ENCODERS)}")
