"""``vidseg inspect``: choose frames of a run, say why they were keys or not, draw them, hand them on.

Invariant: rows need no video; a picture needs the source. Where a source cannot be read any more the mask is
shown alone, and the exit code is 3.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.config.words import count
from vidseg_core.inspection.foreign import Shot, write_cvat, write_fiftyone
from vidseg_core.inspection.pick import Chosen, Row, rows_of, videos_of
from vidseg_core.inspection.sheet import frame_sheet
from vidseg_core.inspection.why import HEADS, Reasons, table, text_table
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.whole import lacking
from vidseg_core.report.footage import Footage, planned_uris
from vidseg_core.report.overlay import save_png, side_by_side
from vidseg_core.store import Run, open_run
from vidseg_core.store.atomic import make_folder, whole_text
from vidseg_core.store.errors import StoreError
from vidseg_core.store.export import Painter, export_coco, export_overlay, export_png, is_background
from vidseg_core.store.soundness import raise_for

DONE, SOURCE_LOST = 0, 3
MOST_ON_SHEET = 60
"""Frames on one sheet."""


@dataclass
class _Look:
    """An inspection under way."""

    run: Run
    config: InspectConfig
    report: Reporter
    out: Path
    class_names: list[str]
    painter: Painter
    reasons: Reasons
    footage: Footage


def run_inspect(config: InspectConfig, reporter: Reporter | None = None) -> int:
    """Show and export what `config` asks for; 3 if some source could not be read. Raises on bad usage, and
    in the end where the run lacks frames."""
    report, run = reporter or Reporter(config.log), open_run(config.run)
    faults = lacking(run.store, video_ids=config.video or None)
    if faults and not any(run.files()):
        raise_for(f"run {run.path}", faults)
    look = _begin(run, config, report)
    chosen: dict[str, set[int]] = {}
    try:
        for video_id in videos_of(run, config):
            rows = rows_of(run, video_id, config)
            chosen[video_id] = {row["frame_index"] for row in rows}
            if rows:
                _show(look, video_id, rows)
            else:
                report.say(f"{video_id}: none of its frames was chosen", video_id=video_id)
        if not chosen:
            raise StoreError(
                f"{config.run} holds no frame yet (its videos are above where they were put aside)"
            )
        if not any(chosen.values()):
            raise ConfigError("--frames", f"no frame of {', '.join(chosen) or config.run} is among them")
        if config.export != "none":
            _export(look, chosen)
    finally:
        look.footage.close()
    for video_id, why in look.footage.lost.items():
        report.say(f"{video_id}: shown without its frames: {why}", video_id=video_id)
    raise_for(f"run {run.path}", faults)
    return SOURCE_LOST if look.footage.lost else DONE


def _begin(run: Run, config: InspectConfig, report: Reporter) -> _Look:
    info, out = run.info(), Path(config.output)
    if not run.complete:
        report.say(f"note: {run.path} is not finished (no _SUCCESS); what is committed is shown")
    make_folder(out)
    videos = run.videos().to_pylist()
    for row in videos:
        if row["status"] == "quarantined" and (not config.video or row["video_id"] in config.video):
            why = (row["reason"] or "").replace(f"{row['uri']}: ", "")
            report.say(f"quarantined: {row['uri']}: {why}", video_id=row["video_id"])
    names = list(info.get("segmenter", {}).get("class_names", ()))
    unlabelled = "min_confidence" in info.get("config", {})
    return _Look(
        run=run,
        config=config,
        report=report,
        out=out,
        class_names=names,
        painter=Painter(names, unlabelled=unlabelled),
        reasons=Reasons(info),
        footage=Footage(run, planned_uris(run) | {row["video_id"]: row["uri"] for row in videos}),
    )


def _show(look: _Look, video_id: str, rows: Sequence[Row]) -> None:
    config = look.config
    if "why" in config.show:
        lines = table(rows, look.reasons, look.class_names)
        if look.report.is_json:
            for line in lines:
                look.report.event("frame", video_id=video_id, **dict(zip(HEADS, line, strict=True)))
        else:
            look.report.block(f"{video_id}\n{text_table(lines)}")
        with whole_text(look.out / f"{video_id}-why.csv", newline="") as file:
            csv.writer(file).writerows([HEADS, *lines])
    if "frame" in config.show:
        folder = look.out / video_id
        make_folder(folder)
        for row in rows:
            frame_HW3, labels_HW = _pair(look, video_id, row, look.config.size)
            shown = [look.painter.over(frame_HW3, labels_HW)]
            picture_HW3 = side_by_side(shown if frame_HW3 is None else [frame_HW3, *shown])
            if config.legend:
                picture_HW3 = look.painter.with_legend(picture_HW3)
            save_png(folder / f"{row['frame_index']:08d}.png", picture_HW3)
        look.report.say(f"{count(len(rows), 'picture')} below {folder}")
    if "sheet" in config.show:
        path = look.out / f"{video_id}-sheet.png"
        sheet_HW3 = frame_sheet(
            look.run,
            look.footage,
            look.painter,
            video_id,
            rows[:MOST_ON_SHEET],
            caption=lambda row: _caption(row, look.reasons),
            legend=config.legend,
        )
        save_png(path, sheet_HW3)
        look.report.say(f"{count(min(len(rows), MOST_ON_SHEET), 'frame')} on {path}")
    if "overlay" in config.show:
        _overlay(look, video_id, rows)


def _pair(look: _Look, video_id: str, row: Row, size: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The frame (None if it cannot be read) and its mask, the mask at its own size."""
    number = row["frame_index"]
    return look.footage.frame(video_id, number, size), look.run.mask(video_id, number)


def _caption(row: Row, reasons: Reasons) -> str:
    score = row["decision_score"] if reasons.scores else None
    scored = f"  score {score:.3g}" if score is not None and np.isfinite(score) else ""
    return f"frame {row['frame_index']}{scored}"


def _overlay(look: _Look, video_id: str, rows: Sequence[Row]) -> None:
    first, last = rows[0]["frame_index"], rows[-1]["frame_index"]
    if not look.config.chooses:
        last = min(last, first + 10 * 25)
    path = look.out / f"{video_id}-{first}-{last}.mp4"

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for number in range(first, last + 1):
            frame_HW3 = look.footage.frame(video_id, number, look.config.size)
            if frame_HW3 is None:
                return
            yield number, frame_HW3

    try:
        shown = export_overlay(
            look.run,
            video_id,
            frames(),
            path,
            look.painter,
            layout="side",
            legend=look.config.legend,
        )
    except StoreError:
        if video_id not in look.footage.lost:
            raise
        return
    look.report.say(f"{count(shown, 'frame')} in {path}")


# --- export ------------------------------------------------------------------------------------------------


def _export(look: _Look, chosen: dict[str, set[int]]) -> None:
    config, names = look.config, look.class_names
    videos = [video_id for video_id, numbers in chosen.items() if numbers]
    if config.export in ("png", "coco"):
        part: Any = Chosen(look.run, chosen if config.chooses else None, videos)
        if config.export == "png":
            done = export_png(part, look.out / "png", video_ids=videos, keys_only=config.keys_only)
            text = f"{count(done, 'mask')} below {look.out / 'png'}"
        else:
            path = look.out / "coco.json"
            done = export_coco(
                part,
                path,
                video_ids=videos,
                class_names=names,
                keys_only=config.keys_only,
                background=config.background,
            )
            text = f"{count(done, 'annotation')} in {path}"
            if is_background(names) and not config.background:
                text += "; class 0, the background, is left out (--background: not)"
    else:
        write = write_fiftyone if config.export == "fiftyone" else write_cvat
        known = names or _numbered_classes(look, videos)
        done = write(look.out, _shots(look, {v: chosen[v] for v in videos}), known)
        text = f"{count(done, 'frame')} in {look.out / config.export}"
    look.report.say(text, count=done)


def _shots(look: _Look, chosen: dict[str, set[int]]) -> Iterator[Shot]:
    for video_id, numbers in chosen.items():
        for number in sorted(numbers):
            labels_HW = look.run.mask(video_id, number)
            height, width = labels_HW.shape
            frame_HW3 = look.footage.frame(video_id, number, look.config.size, exact=(height, width))
            if frame_HW3 is not None:
                yield f"{video_id}-{number:08d}", frame_HW3, labels_HW


def _numbered_classes(look: _Look, videos: Sequence[str]) -> list[str]:
    """`class 0`, `class 1`, ... where the run does not name them."""
    row = next(iter(look.run.rows(videos[0], ("class_pixels",))))
    return [f"class {place}" for place in range(len(row["class_pixels"]))]
