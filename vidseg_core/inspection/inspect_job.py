"""``vidseg inspect``: choose frames of a run, say why they were keys or not, draw them, hand them on.

Invariant: rows need no video; a picture needs the source. Where a source cannot be read any more the mask is
shown alone, and the exit code is 3.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.export import ExportConfig, FormatName
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.config.places import check_outside
from vidseg_core.config.words import count
from vidseg_core.drawing import Painter, export_overlay
from vidseg_core.export.export_job import export, videos_of
from vidseg_core.export.sources import Sources
from vidseg_core.inspection.pick import COLUMNS, Row, rows_of
from vidseg_core.inspection.sheet import frame_sheet
from vidseg_core.inspection.why import HEADS, Reasons, table, text_table
from vidseg_core.kit.progress import Reporter
from vidseg_core.report.overlay import save_png, side_by_side
from vidseg_core.store import Run, open_run
from vidseg_core.store.atomic import make_folder, whole_text
from vidseg_core.store.errors import StoreError
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
    sources: Sources


def run_inspect(config: InspectConfig, reporter: Reporter | None = None) -> int:
    """Show and export what `config` asks for; 3 if some source could not be read. Raises on bad usage, and
    in the end where the run lacks frames."""
    report, run = reporter or Reporter(config.log), open_run(config.run)
    check_outside(run.path, config.output)
    videos, faults = videos_of(run, config.video)
    if faults and not any(run.files()):
        raise_for(f"run {run.path}", faults)
    look = _begin(run, config, videos, report)
    chosen: dict[str, set[int]] = {}
    try:
        for video_id in videos if config.video else videos[: config.limit]:
            rows = rows_of(run, video_id, config, (*COLUMNS, *look.reasons.columns))
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
        look.sources.close()
    for video_id, why in look.sources.lost.items() if config.show else ():
        report.say(f"{video_id}: shown without its frames: {why}", video_id=video_id)
    raise_for(f"run {run.path}", faults)
    return SOURCE_LOST if look.sources.lost else DONE


def _begin(run: Run, config: InspectConfig, videos: Sequence[str], report: Reporter) -> _Look:
    info, out = run.info(), Path(config.output)
    if not run.complete:
        report.say(f"note: {run.path} is not finished (no _SUCCESS); what is committed is shown")
    make_folder(out)
    for row in run.videos().to_pylist():
        if row["status"] == "quarantined" and (not config.video or row["video_id"] in videos):
            why = (row["reason"] or "").replace(f"{row['uri']}: ", "")
            report.say(f"quarantined: {row['uri']}: {why}", video_id=row["video_id"])
        if row["filled_by"] and row["video_id"] in videos:
            report.say(f"{row['video_id']}: gaps filled by {row['filled_by']}", video_id=row["video_id"])
    names = list(info.get("segmenter", {}).get("class_names", ()))
    return _Look(
        run=run,
        config=config,
        report=report,
        out=out,
        class_names=names,
        painter=Painter.of(run),
        reasons=Reasons(info),
        sources=Sources(run, config.sources),
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
            look.painter.mark_keys(shown[0], row, corner=False)
            picture_HW3 = side_by_side(shown if frame_HW3 is None else [frame_HW3, *shown])
            if config.legend:
                picture_HW3 = look.painter.with_legend(picture_HW3)
            save_png(folder / f"{row['frame_index']:08d}.png", picture_HW3)
        look.report.say(f"{count(len(rows), 'picture')} below {folder}")
    if "sheet" in config.show:
        path = look.out / f"{video_id}-sheet.png"
        sheet_HW3 = frame_sheet(
            look.run,
            look.sources,
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
    return look.sources.frame(video_id, number, size), look.run.mask(video_id, number)


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
        for row in look.run.rows(video_id, ("frame_index",)):
            number = row["frame_index"]
            if not first <= number <= last:
                continue
            frame_HW3 = look.sources.frame(video_id, number, look.config.size)
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
        if video_id not in look.sources.lost:
            raise
        return
    look.report.say(f"{count(shown, 'frame')} in {path}")


def _export(look: _Look, chosen: dict[str, set[int]]) -> None:
    """The frames that were looked at, in the format that was asked for."""
    config = look.config
    options = ExportConfig(
        run=config.run,
        output=str(look.out / config.export),
        format=cast(FormatName, config.export),
        overwrite=config.overwrite,
        background=config.background,
        legend=config.legend,
        overlay_size=config.size,
    )
    videos = [video_id for video_id, numbers in chosen.items() if numbers]
    wants = lambda video_id, row: row["frame_index"] in chosen[video_id]  # noqa: E731
    export(look.run, videos, look.sources, options, wants, look.report)
