"""A video to look at: the masks over the frames, or beside them, key frames marked.

The frames are the caller's (this package reads no media): pairs of frame number and RGB picture, in order.
Those without a row are left out (a run may take every third frame); a legend of the classes may go below.
Presentation times that move on are kept, counted from the first: a variable frame rate stays one. Masks are
drawn in threads, a few frames ahead of the encoder, which has threads of its own.

Legend: `_HW` height, width, `_HW3` with RGB.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import av.codec
import numpy as np

from vidseg_core.drawing.paint import Painter
from vidseg_core.store.errors import StoreError
from vidseg_core.store.run import Run
from vidseg_core.store.video_file import VideoFile, video_file

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_BT709 = 1
"""Colours as players expect them: FFmpeg's number, and PyAV's name of it below."""
_TICKS = 10_000  # a second; mpeg4 allows up to 65535
_COLUMNS = ("pts_s", "is_key", "height", "width", "mask")
_THREADS = min(4, os.cpu_count() or 1)

Row = dict[str, Any]


def export_overlay(
    run: Run,
    video_id: str,
    frames: Iterable[tuple[int, np.ndarray]],
    out: str | Path,
    painter: Painter | None = None,
    *,
    layout: Literal["blend", "side"] = "blend",
    legend: bool = True,
    key_marks: bool = True,
    fps: float = 25.0,
    quality: int = 20,
    most: int | None = None,
    on_frame: Callable[[int], None] = lambda written: None,
) -> int:
    """Write an mp4 of one video; returns its frames.

    `frames`: (frame_index, uint8 [H, W, 3] RGB) with increasing numbers, all of one size, which may differ
    from the mask's. `painter`: how masks look; None: classes without names. `legend`: names and colours go
    below the picture. `fps`: spacing of frames without a time. `quality`: x264's CRF, lower is better.
    `most`: frames that are written at most. `on_frame` is called with the number of frames written so far.
    `StoreError` if the run has no such video, there is no frame with a row, or FFmpeg lacks an encoder.
    """
    if layout not in ("blend", "side"):
        raise ValueError(f"layout {layout!r} is neither 'blend' nor 'side'")
    painter = painter or Painter()
    draw = partial(_picture, run, video_id, painter, layout, legend, key_marks)
    spacing = round(_TICKS / fps)
    written, tick, begin = 0, -spacing, 0.0
    encoder: _Encoder | None = None
    with video_file(out) as file:
        pairs = islice(_paired(frames, run.rows(video_id, (*_COLUMNS, *painter.columns))), most)
        for picture, row in _drawn(draw, pairs):
            if encoder is None:
                encoder = _Encoder(file, picture.width, picture.height, fps, quality)
                begin = row["pts_s"] or 0.0
            seconds = None if row["pts_s"] is None else row["pts_s"] - begin
            tick = _next_tick(tick, seconds, spacing)
            encoder.write(picture, tick)
            written += 1
            on_frame(written)
        if encoder is None:
            raise StoreError(f"overlay of {video_id}: no frames given")
        encoder.drain()
    return written


def _next_tick(last: int, seconds: float | None, spacing: int) -> int:
    """When a frame is shown: at its time, or a spacing after the last where that is unknown or steps back."""
    tick = None if seconds is None else max(0, round(seconds * _TICKS))
    return last + spacing if tick is None or tick <= last else tick


def _paired(
    frames: Iterable[tuple[int, np.ndarray]], rows: Iterator[Row]
) -> Iterator[tuple[np.ndarray, Row]]:
    """Each frame that has a row with it; no frame is asked for after the last one."""
    row = next(rows, None)
    for index, frame_HW3 in frames if row else ():
        while row and row["frame_index"] < index:
            row = next(rows, None)
        if row and row["frame_index"] == index:
            yield frame_HW3, row
            row = next(rows, None)
        if row is None:
            return


def _drawn(
    draw: Callable[[np.ndarray, Row], av.VideoFrame],
    pairs: Iterable[tuple[np.ndarray, Row]],
) -> Iterator[tuple[av.VideoFrame, Row]]:
    """Pictures with their rows, in order; a few are drawn ahead."""
    waiting: deque[tuple[Future[av.VideoFrame], Row]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for frame_HW3, row in pairs:
            own_HW3 = frame_HW3.copy()  # the caller's is valid until the next is asked for
            waiting.append((pool.submit(draw, own_HW3, row), row))
            if len(waiting) > 2 * _THREADS:
                done, its_row = waiting.popleft()
                yield done.result(), its_row
        for done, its_row in waiting:
            yield done.result(), its_row


def _picture(
    run: Run,
    video_id: str,
    painter: Painter,
    layout: str,
    legend: bool,
    key_marks: bool,
    frame_HW3: np.ndarray,
    row: Row,
) -> av.VideoFrame:
    """One frame of the overlay as encoders take it, with even sides (the last odd row and column are cut)."""
    height, width = frame_HW3.shape[0] // 2 * 2, frame_HW3.shape[1] // 2 * 2
    frame_HW3 = frame_HW3[:height, :width]
    shown_HW3 = painter.over(frame_HW3, run.labels(video_id, row))
    if key_marks:
        painter.mark_keys(shown_HW3, row)
    if layout == "side":
        shown_HW3 = np.concatenate((frame_HW3, shown_HW3), axis=1)
    if legend:
        shown_HW3 = painter.with_legend(shown_HW3)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown_HW3), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace="ITU709", threads=1)


class _Encoder:
    """Pictures into a video file."""

    def __init__(self, file: VideoFile, width: int, height: int, fps: float, quality: int) -> None:
        name, rate = _encoder_name(), Fraction(fps).limit_denominator(1001)
        options = {"preset": "veryfast", "crf": str(quality)} if name == "libx264" else {}
        stream: Any = file.container.add_stream(name, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.colorspace = _BT709
        if not options:
            stream.bit_rate = max(1_000_000, width * height * 4)
        self._file, self._stream = file, stream

    def write(self, picture: av.VideoFrame, tick: int) -> None:
        picture.pts, picture.time_base = tick, Fraction(1, _TICKS)
        self._file.mux(self._stream.encode(picture))

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
