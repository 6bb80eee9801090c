"""``vidseg evaluate``: the job, readable on one screen.

clips x methods -> without the cells that are there -> Ray tasks, each a clip under several methods -> one
object a cell, put if absent -> the tables, from all cells of this plan. A clip that cannot be read is a row
of ``quarantine.parquet`` with its reason; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from vidseg_core.config.catalogue import is_of_stream
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.words import count
from vidseg_core.datasets.records import DatasetError, motion_of
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.sources import dataset_of
from vidseg_core.evaluation.answers import Answers
from vidseg_core.evaluation.bench import Bench, ClipTest, make_bench, try_methods
from vidseg_core.evaluation.cells import claim_evaluation, list_cells
from vidseg_core.evaluation.clips import Clip, clips_of, items_of
from vidseg_core.evaluation.ending import DONE, fingerprint, finish
from vidseg_core.evaluation.plan import Cell, plan, quarantined
from vidseg_core.evaluation.tasks import run_tasks
from vidseg_core.kit.claim import require_writable
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.fetched import bring
from vidseg_core.store.keys import SUCCESS_KEY
from vidseg_core.store.objects import open_store

SAMPLE_FRAMES = 12
"""Frames that a dry run tries."""
ASKED = 32
"""Clips that are asked for motion vectors before a run."""


def run_evaluate(config: EvaluateConfig, reporter: Reporter | None = None) -> int:
    """Evaluate what is missing; the exit code: 0 all there, 3 some clips quarantined. Raises on bad usage."""
    report = reporter or Reporter(config.log)
    bring(config.segmenter, config.weights, report)
    with report.phase("loading the net and listing the clips"):
        bench, clips = make_bench(config, "cpu"), clips_of(config)
        methods = config.parsed_methods()
        for name in sorted({method.propagation.name for method in methods}):
            bring(name, None, report)
        note = try_methods(bench, methods)
    if not clips:
        raise ConfigError("--data", f"{', '.join(config.data)}: split {config.split!r} has no clips")
    cells = plan(clips, methods, config.tables)
    if note:
        report.say(f"note: {note}")
    if any(is_of_stream(method.propagation.flow) for method in methods):
        _say_what_is_silent(config, clips[:ASKED], report)
    if config.dry_run:
        with report.phase("trying out a few frames"):
            return _dry_run(config, bench, cells, report)
    store = open_store(config.output)
    require_writable(store)
    fresh = claim_evaluation(store, fingerprint(config, bench))
    report.say(f"{'new evaluation' if fresh else 'continuing'} -> {store.root}; {config.describe()}")
    store.delete(SUCCESS_KEY)
    there = list_cells(store)
    todo = [cell for cell in cells if cell.key not in there and cell.clip.runs]
    empty = [cell for cell in cells if not cell.clip.runs]
    bad = [quarantined(cell, "no_labels", "no frame that could be measured") for cell in empty]
    if len(todo) + len(bad) < len(cells):
        report.say(f"{len(cells) - len(todo) - len(bad)} of {len(cells)} cells are there already")
    if todo:
        bad += run_tasks(config, todo, report)
    with report.phase("putting the tables together"):
        return finish(config, store, bench, cells, bad, report)


def _say_what_is_silent(config: EvaluateConfig, clips: Sequence[Clip], report: Reporter) -> None:
    """Name the clips that have no motion vectors."""
    silent = [clip.name for clip in clips if _is_silent(config, clip)]
    if silent:
        more = f" and {len(silent) - 6} more" if len(silent) > 6 else ""
        report.say(f"note: flow by DIS where there are no motion vectors: {', '.join(silent[:6])}{more}")


def _is_silent(config: EvaluateConfig, clip: Clip) -> bool:
    first = items_of(clip.source, config.split, clip.video_id)[0]
    try:
        return motion_of(dataset_of(clip.source, ""), first) is None
    except DatasetError:  # it is put aside when it is run
        return False


def _dry_run(config: EvaluateConfig, bench: Bench, cells: Sequence[Cell], report: Reporter) -> int:
    """Clips, methods, and what a sample of frames takes here; nothing is written."""
    clips = list({cell.clip.name: cell.clip for cell in cells}.values())
    methods = config.parsed_methods()
    first = next((clip for clip in clips if clip.runs), None)
    if first is None:
        raise ConfigError("--data", "no clip has a frame that could be measured")
    start, stop = first.runs[0]
    sample = replace(first, runs=((start, min(stop, start + SAMPLE_FRAMES)),))
    usable = [replace(method, is_oracle=False) for method in methods]  # tables know whole clips only
    started = time.perf_counter()
    net = ChunkedNet(bench.net, level="labels", batch=1, device="cpu") if bench.net is not None else None
    test = ClipTest(bench, sample, usable, Answers(net, bench.classes))
    for _ in test.run():
        pass
    each = (time.perf_counter() - started) / max(1, sample.frames)
    frames = sum(clip.frames for clip in clips)
    seconds = each * frames
    for method in methods:
        report.say(f"method {method.name} [{method.digest}]")
    report.say(
        f"{count(len(clips), 'clip')}, {count(frames, 'frame')}, {count(len(methods), 'method')}: "
        f"{count(len(cells), 'cell')}; about "
        f"{1000 * each:.0f} ms a frame for all methods together, {clock(seconds)} of one core here "
        f"(temporal consistency: {1000 * test.tc_s / max(1, test.frames):.1f} ms of flow a frame). "
        "Nothing was written (--dry_run).",
        cells=len(cells),
        estimated_s=round(seconds, 1),
    )
    return DONE
