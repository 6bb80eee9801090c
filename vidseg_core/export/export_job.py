"""``vidseg export``: choose frames of a run and write them in one of the formats; `inspect` does so with it.

Invariant: nothing is written into the output of a run, and over nothing unless that was asked for. Every file
is there whole or not at all, and the file that a reader opens first is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from vidseg_core.config.cli import EXIT_FAILED, EXIT_OK, EXIT_QUARANTINED
from vidseg_core.config.errors import ConfigError, check, nearest
from vidseg_core.config.export import ExportConfig
from vidseg_core.config.places import check_outside
from vidseg_core.config.words import count
from vidseg_core.export.formats import FORMATS, Format
from vidseg_core.export.sources import Sources
from vidseg_core.export.take import CHOSEN_BY, Classes, Take, Wants
from vidseg_core.kit.progress import Pace, Reporter, clock
from vidseg_core.kit.whole import closed_videos, lacking
from vidseg_core.store import Run, open_run
from vidseg_core.store.checked import HOW_TO_REPAIR
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import beginning_with
from vidseg_core.store.soundness import Fault

LEFT_OUT = "; class 0, the background, is left out (--background keeps it)"


def run_export(config: ExportConfig, reporter: Reporter | None = None) -> int:
    """Export what `config` names; 1 if some of the run's frames are missing, 3 if the source of some video
    could not be read."""
    report, run = reporter or Reporter(config.log), open_run(config.run)
    check_outside(run.path, config.output)
    videos, faults = videos_of(run, config.video)
    if not videos and not faults:
        raise StoreError(f"{config.run} holds no frame yet")
    if not run.complete:
        report.say(f"note: {run.path} is not finished (no _SUCCESS); what is committed is exported")
    if not run.info():
        report.say("note: it has no run.json yet, so no class has a name and none is a background")
    wants = (lambda _, row: config.wants(row)) if config.chooses or config.keys_only else None
    if wants and not any(config.wants(row) for video_id in videos for row in run.rows(video_id, CHOSEN_BY)):
        raise ConfigError("--frames", f"no frame of {', '.join(videos[:4]) or run.path} is among them")
    with closing(Sources(run, config.sources)) as sources:
        code = export(run, videos, sources, config, wants, report)
    for fault in faults:
        report.say(f"{run.path}: {fault}", video_id=fault.video_id)
    if faults:
        report.say(f"the export is incomplete, since {config.run} is; {HOW_TO_REPAIR}")
    return EXIT_FAILED if faults else code


def export(
    run: Run,
    videos: Sequence[str],
    sources: Sources,
    config: ExportConfig,
    wants: Wants | None,
    report: Reporter,
) -> int:
    """Write the wanted frames (None: all) of these videos as `config` says; 3 if a source cannot be read."""
    form, out = FORMATS[config.format], Path(config.output).expanduser()
    _check_free(form, videos, out, config)
    progress = _Progress(report, run, videos)
    take = Take(
        run=run,
        out=out,
        videos=videos,
        classes=Classes.of(run, background=config.background and form.objects),
        sources=sources,
        options=config,
        pictures=form.pictures == "needed" or (form.pictures == "optional" and config.images),
        wants=wants,
        report=report,
        passed=progress.passed,
    )
    with report.phase("exporting"):
        done = form.write(take)
    text = f"{count(done, form.counts)} in {out}"
    if form.objects:
        text += "; each class is one object" if config.format not in ("coco", "yolo") else ""
        text += LEFT_OUT if 0 in take.classes.left_out else ""
    report.say(text, event="done", verb="export", count=done, output=str(out))
    lost = sources.lost if take.pictures or form.pictures == "own" else {}
    hint = "--sources DIR, if it has moved"
    hint += "; --no-images: masks alone" if form.pictures == "optional" else ""
    for video_id, why in lost.items():
        report.say(f"{video_id}: frames left out, no source to read ({hint}): {why}", video_id=video_id)
    return EXIT_QUARANTINED if lost else EXIT_OK


def videos_of(run: Run, asked: Sequence[str]) -> tuple[list[str], list[Fault]]:
    """The videos with frames that were asked for, by their ids or how these begin (none: all of the run), and
    what the run lacks of them; `ConfigError` for one that it does not have."""
    if not asked:
        return [video_id for video_id, _ in run.files()], lacking(run.store, count_rows=True)
    every = sorted({*(video_id for video_id, _ in run.files()), *closed_videos(run.store).to_pylist()})
    videos = list(dict.fromkeys(_one_of(word, every, run) for word in asked))
    faults = lacking(run.store, video_ids=videos, count_rows=True)
    for video_id in {*videos} - {fault.video_id for fault in faults}:
        why = (run.video(video_id) or {}).get("reason")
        why = f", which is quarantined: {why}" if why else ""
        check(any(run.files(video_id)), "--video", f"{run.path} has no frames of {video_id}{why}")
    return [video_id for video_id in videos if any(run.files(video_id))], faults


def _one_of(word: str, every: Sequence[str], run: Run) -> str:
    found = beginning_with(word, every)
    if len(found) > 1:
        some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        raise ConfigError("--video", f"{word!r} begins {len(found)} videos of {run.path}: {some}")
    if not found:
        raise ConfigError("--video", f"{run.path} has no video {word!r}{nearest(word, every)}")
    return found[0]


def _check_free(form: Format, videos: Sequence[str], out: Path, config: ExportConfig) -> None:
    there = [name for name in form.targets(videos) if _holds_something(out / name)]
    check(
        config.overwrite or not there,
        "--output",
        f"{out / there[0] if there else ''} is there already; "
        "choose another folder, or --overwrite writes over it",
    )


def _holds_something(path: Path) -> bool:
    return path.is_file() or path.is_symlink() or (path.is_dir() and any(path.iterdir()))


class _Progress:
    """Where an export stands, by frame."""

    def __init__(self, report: Reporter, run: Run, videos: Sequence[str]) -> None:
        self._report, self._done, self._pace = report, 0, Pace()
        wanted, sizes = set(videos), dict[str, int]()
        for batch in run.video_batches():
            columns = (batch[name].to_pylist() for name in ("video_id", "decoded_frames"))
            sizes |= {video_id: size for video_id, size in zip(*columns, strict=True) if video_id in wanted}
        self._total = sum(sizes.values()) if len(sizes) == len(wanted) else 0  # else some are not finished

    def passed(self) -> None:
        """One more frame is done with."""
        self._done += 1
        fps, text = self._pace.per_s(self._done), f"exporting | frames {self._done:,}"
        if self._total:
            text += f"/{self._total:,} ({100 * self._done / self._total:.0f} %)"
        text += f" | {fps:.1f} fps"
        if self._total and fps:
            text += f" | ETA {clock(max(0, self._total - self._done) / fps)}"
        self._report.show(text, {"frames": self._done, "frames_total": self._total, "fps": round(fps, 2)})
