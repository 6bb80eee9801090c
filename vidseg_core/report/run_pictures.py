"""What a run's masks look like: frames far from keys, shares of the classes over time, a short clip.

The sources are read again. What cannot be read is shown without its frames, or named as not shown.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidseg_core.config.report import ReportConfig
from vidseg_core.config.words import count
from vidseg_core.drawing import Painter
from vidseg_core.export.clip import write_clip
from vidseg_core.export.sources import Sources
from vidseg_core.media import MediaError
from vidseg_core.metrics import far_from_keys
from vidseg_core.report.overlay import jpeg_uri
from vidseg_core.report.page import Section, class_legend, clip, image
from vidseg_core.report.style import Plot, data_uri, legend, narrow_size, plain
from vidseg_core.store import Run
from vidseg_core.store.keys import beginning_with

MOST_VIDEOS = 3
MOST_CLASSES = 8
"""Classes with an area of their own; the others are one."""
PLACES = 400
"""Points along a plot; frames between two of them are averaged."""
CLIP_S, CLIP_SIZE, CLIP_BYTES = 8.0, 480, 2 * 2**20
"""The embedded clip: seconds, longest side in pixels, most bytes."""
CLIP_QUALITIES = (25, 32, 40)
"""Tried until the clip is small enough."""
_REST_HEX, _NO_COLOUR_HEX = "#9aa3ab", "#e9edf0"


@dataclass(frozen=True, eq=False)
class Shown:
    """One video of a run."""

    video_id: str
    number: np.ndarray
    """int64 [T]: frame numbers."""
    is_key: np.ndarray
    seconds: np.ndarray
    """float64 [T]: presentation times, NaN where unknown."""
    share: np.ndarray
    """float64 [T, classes]: share of the mask's pixels."""


def sections(
    run: Run,
    videos: Sequence[Mapping[str, Any]],
    known: Sequence[str],
    config: ReportConfig,
    suffix: str,
) -> tuple[list[Section], dict[str, str]]:
    """Masks, class shares and a clip of the first videos that have frames, or of that of ``--clip``."""
    chosen = beginning_with(config.clip or "", known)[:1] or known[:MOST_VIDEOS]
    shown = [_read(run, video_id) for video_id in chosen]
    painter, found, absent = Painter.of(run), list[Section](), dict[str, str]()
    done = {row["video_id"] for row in videos}
    with closing(Sources(run, config.sources)) as sources:
        found.append(_masks(run, shown, painter, sources, config, suffix))
        found.append(_shares(shown, painter, suffix))
        row = next((sources.video(video_id) for video_id in chosen if video_id in done), None)
    try:
        if row is None:
            absent[f"clip{suffix}"] = next(iter(sources.lost.values()), "no video is closed yet")
        elif (part := _clip(run, row, painter)) is None:
            absent[f"clip{suffix}"] = f"it would take more than {CLIP_BYTES / 2**20:g} MiB"
        else:
            found[0].parts.append(part)
    except MediaError as problem:
        absent[f"clip{suffix}"] = str(problem)
    return found, absent


def _read(run: Run, video_id: str) -> Shown:
    rows = list(run.rows(video_id, ("is_key", "pts_s", "height", "width", "class_pixels")))
    share = np.zeros((len(rows), max(len(row["class_pixels"] or ()) for row in rows)))
    for t, row in enumerate(rows):
        pixels = row["class_pixels"] or ()
        share[t, : len(pixels)] = np.asarray(pixels) / (row["height"] * row["width"])
    seconds = [math.nan if row["pts_s"] is None else row["pts_s"] for row in rows]
    return Shown(
        video_id=video_id,
        number=np.array([row["frame_index"] for row in rows], np.int64),
        is_key=np.array([row["is_key"] for row in rows], bool),
        seconds=np.array(seconds, float),
        share=share,
    )


def _masks(
    run: Run,
    shown: Sequence[Shown],
    painter: Painter,
    sources: Sources,
    config: ReportConfig,
    suffix: str,
) -> Section:
    section = Section(f"Masks{suffix}")
    section.text("Frames far from keys, over the whole video.")
    section.parts.append(class_legend(painter.class_names, painter.colours.tolist()))
    for each in shown:
        places = far_from_keys([each.is_key], config.strip_frames)
        numbers = each.number[places].tolist()
        frames = [sources.frame(each.video_id, number, CLIP_SIZE) for number in numbers]
        masks = [run.mask(each.video_id, number) for number in numbers]
        over = [painter.over(*pair) for pair in zip(frames, masks, strict=True)]
        section.head(each.video_id)
        rows = [("with masks", [image(jpeg_uri(picture)) for picture in over])]
        if not any(frame is None for frame in frames):
            rows.insert(0, ("frame", [image(jpeg_uri(f)) for f in frames if f is not None]))
        section.strip([f"frame {number}" for number in numbers], rows)
    for video_id, why in sources.lost.items():
        section.note(f"{video_id} is shown without its frames: {why}")
    return section


def _shares(shown: Sequence[Shown], painter: Painter, suffix: str) -> Section:
    section = Section(f"Classes over time{suffix}")
    section.plot(
        share_plot(shown, painter, f"run-classes{suffix.replace(' ', '-')}"),
        "Share of the picture that each class has, frame by frame; key frames as marks at the bottom."
        + ("" if painter.colours[0].any() else " The background is the rest."),
    )
    return section


def share_plot(shown: Sequence[Shown], painter: Painter, name: str) -> Plot:
    """Stacked shares of the classes over time, a row for each video."""
    classes = max(each.share.shape[1] for each in shown)
    mean = np.zeros(classes)
    for each in shown:
        mean[: each.share.shape[1]] += each.share.mean(axis=0)
    background = bool(painter.class_names) and not painter.colours[0].any()
    if background:  # the rest of the picture, and mostly all of it
        mean[0] = 0
    largest = sorted(label for label in np.argsort(-mean, kind="stable")[:MOST_CLASSES] if mean[label] > 0)
    names = [_named(painter, label) for label in largest]
    colours = [_hex(painter, label) for label in largest]
    rest = classes > len(largest) and mean.sum() - mean[largest].sum() > 0
    labels = [*names, "other classes"] if rest else names

    def draw(figure: Figure, narrow: bool) -> None:
        rows = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, each in zip(rows, shown, strict=True):
            timed = bool(np.isfinite(each.seconds).all() and np.all(np.diff(each.seconds) > 0))
            x = each.seconds if timed else each.number.astype(float)
            share = np.zeros((len(x), classes))
            share[:, : each.share.shape[1]] = 100 * each.share
            share[:, 0] *= not background
            stacks = share[:, largest].T
            if rest:
                stacks = np.vstack((stacks, share.sum(axis=1) - stacks.sum(axis=0)))
            parts = np.array_split(np.arange(len(x)), min(PLACES, len(x)))
            at = [float(x[part].mean()) for part in parts]
            thinned = np.array([stacks[:, part].mean(axis=1) for part in parts]).T
            axes.stackplot(at, thinned, colors=[*colours, _REST_HEX], labels=labels, linewidth=0)
            keys = x[each.is_key]
            if len(keys) <= PLACES / 2:
                axes.vlines(keys, 0, 0.06, transform=axes.get_xaxis_transform(), color="black", linewidth=0.8)
            axes.set_ylim(0, max(1e-3, min(100, 1.1 * thinned.sum(axis=0).max())))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.margins(x=0)
            axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 10))
            axes.set_title(plain(each.video_id, 34 if narrow else 80), loc="left", fontsize=9)
            axes.set_xlabel("time (s)" if timed else "frame")
        figure.supylabel("share of the picture (%)", fontsize=10)
        legend(rows[0], narrow)

    height = 1.0 + 1.6 * len(shown)
    return Plot(
        name=name,
        alt="Share of the picture of each class over time, one row for each video.",
        draw=draw,
        wide=(8.2, height),
        narrow=narrow_size(labels, height),
    )


def _named(painter: Painter, label: int) -> str:
    if label == 255:
        return "no label"
    return painter.class_names[label] if label < len(painter.class_names) else f"class {label}"


def _hex(painter: Painter, label: int) -> str:
    red, green, blue = painter.colours[label]
    return f"#{red:02x}{green:02x}{blue:02x}" if painter.colours[label].any() else _NO_COLOUR_HEX


def _clip(run: Run, row: Mapping[str, Any], painter: Painter) -> str | None:
    """The beginning of a video with its masks, as HTML; None if it cannot be made small enough."""
    frames, seconds = row["decoded_frames"], row["duration_s"]
    rate = frames / seconds if seconds else 25.0
    most = max(1, min(frames, round(CLIP_S * min(rate, 60.0))))
    with tempfile.TemporaryDirectory(prefix="vidseg-clip-") as scratch:
        path = Path(scratch) / "clip.mp4"
        for quality in CLIP_QUALITIES:
            shown = write_clip(
                run, row, path, painter, size=CLIP_SIZE, most=most, legend=False, quality=quality
            )
            if path.stat().st_size <= CLIP_BYTES:
                caption = f"{row['video_id']}: {count(shown, 'frame')} with masks, a mark on key frames."
                return clip(data_uri(path.read_bytes(), "video/mp4"), caption)
    return None
