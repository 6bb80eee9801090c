"""The Ray part: each task is one clip under several methods, and puts one object for each of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vidseg_core.config.build_episodes import LABELS
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import MethodConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.evaluation.answers import Answers
from vidseg_core.evaluation.bench import Bench, ClipTest, build_method, make_bench
from vidseg_core.evaluation.cells import list_cells, put_cell, put_net, read_net
from vidseg_core.evaluation.clips import Clip
from vidseg_core.evaluation.plan import Cell, chunks, quarantined
from vidseg_core.evaluation.tables import method_columns
from vidseg_core.kit.progress import Pace, Reporter, pace_text
from vidseg_core.media import MediaError
from vidseg_core.store.objects import ObjectStore, open_store


def run_tasks(config: EvaluateConfig, todo: Sequence[Cell], report: Reporter) -> list[dict[str, Any]]:
    """Everything on Ray; rows of what was put aside."""
    import ray

    from vidseg_core.kit.device import cluster_device
    from vidseg_core.kit.ray_session import ray_session

    bad: list[dict[str, Any]] = []
    with ray_session(config, report):
        resources = ray.cluster_resources()
        asked = "cpu" if config.segmenter == LABELS else config.device
        device = cluster_device(asked, resources.get("GPU", 0.0))
        room = int(resources.get("GPU", 1)) if device == "cuda" else int(resources.get("CPU", 1))
        slots = config.workers or max(1, room // (1 if device == "cuda" else config.threads))
        tasks = chunks(todo, slots, asks_net=config.segmenter != LABELS)
        options: dict[str, Any] = {"num_cpus": config.threads, "max_retries": 3}
        if device == "cuda":
            options["num_gpus"] = 1
        remote = ray.remote(**options)(run_task)
        settings = ray.put(replace(config, dry_run=False))
        waiting, running = list(reversed(tasks)), {}
        tally = _Tally(todo, report)
        with report.phase("evaluating"):
            while waiting or running:
                while waiting and len(running) < slots:
                    cells = waiting.pop()
                    running[remote.remote(settings, cells, device)] = cells
                (ready,), _ = ray.wait(list(running), num_returns=1)
                cells = running.pop(ready)
                failed = ray.get(ready)
                bad += failed
                tally.add(cells, failed)
    return bad


def run_task(config: EvaluateConfig, cells: Sequence[Cell], device: str) -> list[dict[str, Any]]:
    """What a Ray task does: one clip under several methods; the rows of those that could not be measured."""
    bench, store, clip = make_bench(config, device), open_store(config.output), cells[0].clip
    answers = _answers(bench, store, clip, device)
    kept = len(answers)
    by_method = {cell.method.digest: cell for cell in cells}
    usable, bad = _usable(bench, cells)
    try:
        for method, measure, timing in ClipTest(bench, clip, usable, answers).run():
            summary = method_columns(method, config.protocol, config.segmenter)
            summary |= measure.summary(timing) | {"clip": clip.name, "device": device}
            put_cell(store, by_method[method.digest].key, measure.rows, summary)
    except (DatasetError, MediaError) as problem:
        reason = getattr(problem, "reason", "unreadable")
        done = {cell.key for cell in cells} & list_cells(store)
        return bad + [quarantined(c, str(reason), str(problem)) for c in cells if c.key not in done]
    if bench.net is not None and len(answers) > kept and config.protocol == "whole-clip":
        put_net(store, clip.name, clip.stamp, answers.dump(), answers.call_s)
    return bad


def _usable(bench: Bench, cells: Sequence[Cell]) -> tuple[list[MethodConfig], list[dict[str, Any]]]:
    """The methods that can be built for the clip; an oracle without its table is put aside alone."""
    usable, bad = [], []
    for cell in cells:
        try:
            if cell.method.is_oracle:
                build_method(bench, cell.method, cell.clip)
            usable.append(cell.method)
        except DatasetError as problem:
            bad.append(quarantined(cell, "no_table", str(problem)))
    return usable, bad


def _answers(bench: Bench, store: ObjectStore, clip: Clip, device: str) -> Answers:
    net = None
    if bench.net is not None:
        net = ChunkedNet(bench.net, level="labels", batch=1, device=device)
    answers = Answers(net, bench.classes)
    if net is not None:
        rows, call_s = read_net(store, clip.name, clip.stamp)
        answers.load(rows, len(rows), call_s * len(rows))
    return answers


class _Tally:
    """The progress line."""

    def __init__(self, cells: Sequence[Cell], report: Reporter) -> None:
        self._cells_total, self._frames_total = len(cells), sum(cell.clip.frames for cell in cells)
        self._cells = self._frames = self._quarantined = 0
        self._report, self._started, self._pace = report, time.monotonic(), Pace()

    def add(self, cells: Sequence[Cell], failed: Sequence[Mapping[str, Any]]) -> None:
        """These cells are through, some of them without a result."""
        self._cells += len(cells)
        self._frames += sum(cell.clip.frames for cell in cells)
        self._quarantined += len(failed)
        for clip, message in dict.fromkeys((row["clip"], row["message"]) for row in failed):
            self._report.say(f"quarantined: {clip}: {message}", clip=clip)
        seconds = time.monotonic() - self._started
        text = (
            f"cells {self._cells}/{self._cells_total} | frames {self._frames:,}/{self._frames_total:,} | "
            f"{pace_text(self._pace, self._frames, self._frames_total)} | quarantined {self._quarantined}"
        )
        fields = {
            "cells": self._cells,
            "cells_total": self._cells_total,
            "frames": self._frames,
            "frames_total": self._frames_total,
            "quarantined": self._quarantined,
            "seconds": round(seconds, 1),
        }
        self._report.show(text, fields, force=self._cells == self._cells_total)
