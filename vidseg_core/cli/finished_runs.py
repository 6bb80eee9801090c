"""The verbs that take a run as it is and need little more than its store: status, compact and export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vidseg_core.cli.runner import say
from vidseg_core.config.cli import EXIT_FAILED
from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.verbs import CompactConfig, ExportConfig, StatusConfig
from vidseg_core.config.words import count

if TYPE_CHECKING:
    from vidseg_core.store import Run


LEFT_OUT = "; class 0, the background, is left out (--background: not)"


def run_status(config: StatusConfig) -> int:
    """Print the status of the run; 1 if something that was committed is missing or damaged."""
    from vidseg_core.pipeline.status import as_json, as_text, read_status

    status = read_status(config.run, verify=config.verify)
    print(as_json(status) if config.log == "json" else as_text(status))
    return 0 if status.sound else 1


def run_compact(config: CompactConfig) -> int:
    """Merge the parts of every video of the run and say what was done."""
    from vidseg_core.store import compact

    done = compact(config.run, span_bytes=config.span_mib * 2**20, force=config.force)
    text = f"{config.run}: {done.parts_removed:,} parts merged into {count(done.spans, 'file')}"
    if not done.parts_removed:
        text = f"{config.run}: nothing to merge"
    say("compact", config, text, event="done", parts_removed=done.parts_removed, spans=done.spans)
    return 0


def run_export(config: ExportConfig) -> int:
    """Export what `config` names; 1 if some of the run's frames are missing, 3 if the source of some video
    could not be read (overlay)."""
    from vidseg_core.kit.whole import lacking
    from vidseg_core.store import open_run
    from vidseg_core.store.atomic import make_folder
    from vidseg_core.store.checked import HOW_TO_REPAIR

    source = open_run(config.run)
    faults = lacking(source.store, video_ids=config.video or None, count_rows=True)
    videos = _videos(source, config, {fault.video_id for fault in faults})
    out = Path(config.output)
    make_folder(out)
    code = _written(source, videos, out, config)
    for fault in faults:
        say("export", config, f"{source.path}: {fault}", video_id=fault.video_id)
    if faults:
        say("export", config, f"the export is incomplete, since {config.run} is; {HOW_TO_REPAIR}")
    return EXIT_FAILED if faults else code


def _written(source: Run, videos: list[str], out: Path, config: ExportConfig) -> int:
    """Write what is there; the exit code."""
    from vidseg_core.store.export import export_coco, export_png, is_background

    if config.format == "overlay":
        return _overlays(source, videos, out, config)
    if config.format == "coco":
        names, path = _class_names(source), out / "coco.json"
        done = export_coco(
            source,
            path,
            video_ids=videos,
            class_names=names,
            keys_only=config.keys_only,
            background=config.background,
        )
        left_out = is_background(names) and not config.background
        text = f"{count(done, 'annotation')} in {path}{LEFT_OUT if left_out else ''}"
    else:
        done = export_png(source, out, video_ids=videos, keys_only=config.keys_only)
        text = f"{count(done, 'mask')} below {out}"
    say("export", config, text, event="done", count=done)
    return 0


def _videos(source: Run, config: ExportConfig, damaged: set[str]) -> list[str]:
    """The ids to export: all that have frames, or those asked for, each checked."""
    known = [video_id for video_id, _ in source.files()]
    for video_id in config.video:
        if video_id not in known and video_id not in damaged:
            raise ConfigError("--video", f"{config.run} has no video {video_id!r}{nearest(video_id, known)}")
    if not config.video:
        return known
    return [video_id for video_id in dict.fromkeys(config.video) if video_id in known]


def _class_names(source: Run) -> list[str]:
    return list(source.info().get("segmenter", {}).get("class_names") or ())


def _overlays(source: Run, videos: list[str], out: Path, config: ExportConfig) -> int:
    from vidseg_core.kit.progress import Reporter
    from vidseg_core.media import MediaError
    from vidseg_core.report.clip import write_clip
    from vidseg_core.store.export import Painter

    rows = {row["video_id"]: row for row in source.videos().to_pylist()}
    painter, report, code = Painter.of(source, config.opacity), Reporter(config.log), 0
    for video_id in videos:
        path = out / f"{video_id}.mp4"
        if video_id not in rows and source.complete:  # its row is missing, which is said at the end
            continue
        if video_id not in rows:
            raise ConfigError("--video", f"{video_id} is not finished in {config.run}; finish the run first")
        try:
            done = write_clip(
                source,
                rows[video_id],
                path,
                painter,
                report,
                size=config.overlay_size,
                layout=config.layout,
                legend=config.legend,
                key_marks=config.key_marks,
            )
        except MediaError as error:
            code = 3
            report.say(f"{rows[video_id]['uri']}: {error}", event="error", verb="export", video_id=video_id)
            continue
        text = f"{count(done, 'frame')} in {path}"
        report.say(text, event="done", verb="export", count=done, video_id=video_id)
    return code
