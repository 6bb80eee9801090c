"""``vidseg demo``: generated scenes with exact truth through the real job, once per scheduler, and a
comparison.

Every run is a ``vidseg segment`` of its own, in this process (on Ray with several workers). Its net is one
that costs some ten times what propagation does, as nets in earnest do and more: with one that costs nothing a
comparison would argue for the net on every frame.
Schedulers that score get a threshold at which they take about as many keys as ``fixed`` does (see
`thresholds`). Folders are named after what decides their contents: the same demo again continues or re-reads
its runs, another one has folders of its own, and the pictures are those of the last one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vidseg_core.config.catalogue import EVERY, SCHEDULERS, no_interval
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig, TtaConfig
from vidseg_core.config.verbs import DemoConfig
from vidseg_core.datasets.scene_files import SceneClip, make_corpus, open_corpus
from vidseg_core.demo.measure import Score, measure
from vidseg_core.demo.pictures import clip_frames, write_sheet, write_video
from vidseg_core.demo.table import Line, print_lines
from vidseg_core.demo.thresholds import calibrate, first_frames
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.pipeline.segment_job import BAD_USAGE, DONE, run_segment
from vidseg_core.store import SUCCESS_KEY, Run, open_run
from vidseg_core.store.atomic import make_folder

NET, TTA = "tiny-scenes", TtaConfig(scales=(0.75, 1.0), flip=True)
"""The net of the package that knows the scenes, at two sizes and mirrored."""
LONGEST = 90
"""Least `scheduler.max_interval`, frames; three times the interval where that is more."""


def run_demo(config: DemoConfig) -> int:
    """Make scenes, run the reference and the schedulers, print and draw the comparison; the exit code.

    ``ConfigError`` if ``--output`` is not a folder that can be written.
    """
    report, started = Reporter(config.log), time.monotonic()
    place = _place(config)
    clips = _scenes(place / "scenes", config, report)
    report.say(
        f"the net is {NET}, in the package, at two sizes and mirrored (--tta.scales 0.75 1 --tta.flip): it "
        "knows these scenes and nothing else"
    )
    jobs = _jobs(place, clips, config, report)
    code = _run_all(jobs, report, config.log)
    if code != DONE:
        return code
    report.say("comparing with the truth and with the net on every frame")
    runs = {name: open_run(job.output) for name, job in jobs.items()}
    scored = {name: (run, measure(run, runs[EVERY], clips)) for name, run in runs.items()}
    lines = [Line(scheduler=jobs[name].scheduler, score=score) for name, (_, score) in scored.items()]
    files = _pictures(Path(config.output), clips[0], scored)
    print_lines(lines, files, config.log)
    report.say(f"done in {time.monotonic() - started:.0f} s; the runs are in {place / 'runs'}")
    return DONE


def _place(config: DemoConfig) -> Path:
    """The folder of these scenes, made and writable."""
    place = Path(config.output) / f"{config.videos}x{config.frames}-seed{config.seed}"
    make_folder(place)
    if not os.access(place, os.W_OK):
        raise ConfigError("--output", f"{place} is not writable")
    return place


def _scenes(folder: Path, config: DemoConfig, report: Reporter) -> list[SceneClip]:
    """The scenes that are there, if they are complete, else new ones."""
    try:
        clips = open_corpus(folder)
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none yet, or broken off while being listed
        clips = []
    if len(clips) == config.videos and all(clip.video.is_file() for clip in clips):
        report.say(f"scenes: {len(clips)} of {config.frames} frames are in {folder} already")
        return clips
    report.say(f"scenes: drawing {config.videos} of {config.frames} frames into {folder}")
    return make_corpus(folder, clips=config.videos, frames=config.frames, seed=config.seed)


# --- what is run ------------------------------------------------------------------------------------------


def _jobs(
    place: Path, clips: Sequence[SceneClip], config: DemoConfig, report: Reporter
) -> dict[str, SegmentConfig]:
    """By scheduler, the reference first. Only schedulers that score are calibrated."""
    names = [name for name in dict.fromkeys(config.schedulers) if name != EVERY]
    jobs = {name: _job(place, clips, name, config) for name in (EVERY, *names)}
    scoring = [name for name in names if SCHEDULERS[name].scores]
    frames = first_frames([clip_frames(clip) for clip in clips]) if scoring else []
    for name in scoring:
        threshold = calibrate(jobs[name], frames, min(config.interval, config.frames))
        jobs[name] = _job(place, clips, name, config, threshold)
        report.say(
            f"{name}: threshold {threshold:g} for about as many keys as fixed takes at interval "
            f"{config.interval} (found from the frames alone)"
        )
    return jobs


def _job(
    place: Path,
    clips: Sequence[SceneClip],
    name: str,
    config: DemoConfig,
    threshold: float | None = None,
) -> SegmentConfig:
    """The configuration of one ``vidseg segment``; scenes are not cut into segments."""
    interval = min(config.interval, config.frames)
    scheduler = SchedulerConfig(
        name=name,
        interval=SchedulerConfig.interval if no_interval(name) else interval,
        threshold=threshold,
        max_interval=min(10_000, max(LONGEST, 3 * interval)),
    )
    if name == EVERY:
        scheduler, folder = SchedulerConfig(name=name), name
    else:
        number = interval if threshold is None else threshold
        folder = f"{re.sub('[^A-Za-z0-9._-]+', '-', name)}-{number:g}-of-{interval}-{config.sides}"
    return SegmentConfig(
        input=tuple(str(clip.video) for clip in clips),
        output=str(place / "runs" / folder),
        segmenter=NET,
        tta=TTA,
        scheduler=scheduler,
        propagation=PropagationConfig(sides="two" if name == EVERY else config.sides),
        segment_frames=0,
        seed=config.seed,
        executor="ray" if config.workers > 1 else "local",
        workers=config.workers,
        log=config.log,
    )


def _run_all(jobs: dict[str, SegmentConfig], report: Reporter, log: str) -> int:
    """Each job in turn, and one Ray for those that want it; the first exit code but 0."""
    with ExitStack() as stack:
        for name, job in jobs.items():
            was_complete, started = _complete(job), time.monotonic()
            if job.executor == "ray" and not was_complete:
                stack.enter_context(_ray(name, job, report))
            inner = _InnerReporter(name, log)
            code = run_segment(job, inner)
            inner.end(failed=code != DONE)
            if code != DONE:
                advice = "; remove the folder or give another --output" if code == BAD_USAGE else ""
                report.say(f"{name}: exit code {code} in {job.output}{advice}")
                return code
            took = "complete already" if was_complete else f"{time.monotonic() - started:.1f} s"
            report.say(f"{name}: {len(job.input)} scene(s) segmented, {took}")
    return DONE


@contextmanager
def _ray(name: str, job: SegmentConfig, report: Reporter) -> Iterator[None]:
    from vidseg_core.kit.ray_session import ray_session

    report.say(f"{name}: on Ray, as a large corpus would be")
    with ray_session(job, report):
        yield


def _complete(job: SegmentConfig) -> bool:
    return (Path(job.output) / SUCCESS_KEY).exists()


class _InnerReporter(Reporter):
    """An inner run: its progress is shown while it lasts, its words only if it fails."""

    def __init__(self, name: str, style: str) -> None:
        super().__init__(style)
        self._name = name
        self._said: list[tuple[str, dict[str, Any]]] = []

    def say(self, text: str, **fields: Any) -> None:
        self._said.append((text, fields))

    def event(self, kind: str, **fields: Any) -> None:
        """Dropped: the demo has its own summary."""

    def block(self, text: str) -> None:
        """Dropped likewise."""

    def tick(self, counts: Counts, force: bool = False) -> None:
        if counts.frames and not force:
            super().tick(counts)

    def end(self, *, failed: bool) -> None:
        """Clear the progress line; print what was held back if it matters."""
        self._clear()
        for text, fields in self._said if failed else ():
            super().say(f"{self._name}: {text}", **fields)


# --- what is shown ----------------------------------------------------------------------------------------


def _pictures(folder: Path, clip: SceneClip, scored: dict[str, tuple[Run, Score]]) -> dict[str, Path]:
    """Sheet and video of one scene; the video shows the last scheduler that scores, else the last."""
    shown = [name for name in scored if SCHEDULERS[name].scores] or list(scored)
    sheet, video = folder / "sheet.png", folder / "overlay.mp4"
    write_sheet(sheet, clip, scored)
    write_video(video, scored[shown[-1]][0], clip)
    return {f"sheet of {clip.name}": sheet, f"video of {clip.name}, {shown[-1]}": video}
