"""How an evaluation ends: the tables from the cells themselves, then ``run.json``, then ``_SUCCESS``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.schema import to_dict
from vidseg_core.config.words import count
from vidseg_core.evaluation.bench import Bench
from vidseg_core.evaluation.cells import list_cells, parquet_bytes, read_cell
from vidseg_core.evaluation.plan import Cell
from vidseg_core.evaluation.tables import (
    FRAMES_SCHEMA,
    METHODS_SCHEMA,
    QUARANTINE_SCHEMA,
    RESULTS_SCHEMA,
    method_columns,
    numbers,
    table,
)
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.versions import versions
from vidseg_core.models.size import gflop_of, parameters_of
from vidseg_core.store.keys import FRAMES_KEY, METHODS_KEY, QUARANTINE_KEY, RESULTS_KEY, RUN_KEY, SUCCESS_KEY
from vidseg_core.store.objects import ObjectStore

DONE, QUARANTINED = 0, 3
NO_COST = "no fps, no cost: labels stand in for the net; --key_net_ms says what one call of yours takes"


def fingerprint(config: EvaluateConfig, bench: Bench) -> dict[str, Any]:
    """What all cells of an output have in common."""
    fields = config.fingerprint_fields() | bench.digests
    return json.loads(json.dumps(fields | {"class_names": list(bench.class_names)}, default=list))


def finish(
    config: EvaluateConfig,
    store: ObjectStore,
    bench: Bench,
    cells: Sequence[Cell],
    bad: Sequence[Mapping[str, Any]],
    report: Reporter,
) -> int:
    """The tables from the cells themselves, then ``run.json``, then ``_SUCCESS``."""
    there = list_cells(store)
    results, by_method, frame_tables = [], dict[str, list[dict[str, Any]]](), []
    read = [(cell, *read_cell(store, cell.key, _FRAME_COLUMNS)) for cell in cells if cell.key in there]
    _even_out(read)
    size = _net_size(store, bench, [cell for cell, _, _ in read], report)
    for cell, summary, frames in read:
        named = method_columns(cell.method, config.protocol, config.segmenter)
        results.append({"clip": cell.clip.name} | named | _numbers(bench, [summary]) | size)
        by_method.setdefault(cell.method.digest, []).append(summary)
        frame_tables.append(_named_frames(frames, cell))
    pooled = [
        method_columns(method, config.protocol, config.segmenter)
        | _numbers(bench, by_method[method.digest])
        | size
        | {"clips": len(by_method[method.digest])}
        for method in config.parsed_methods()
        if method.digest in by_method
    ]
    all_frames = pa.concat_tables(frame_tables) if frame_tables else FRAMES_SCHEMA.empty_table()
    store.put(RESULTS_KEY, parquet_bytes(table(results, RESULTS_SCHEMA)))
    store.put(METHODS_KEY, parquet_bytes(table(pooled, METHODS_SCHEMA)))
    store.put(FRAMES_KEY, parquet_bytes(all_frames))
    store.put(QUARANTINE_KEY, parquet_bytes(table(bad, QUARANTINE_SCHEMA)))
    info = {
        "kind": "evaluate",
        "config": to_dict(config),
        "fingerprint": fingerprint(config, bench),
        "class_names": list(bench.class_names),
        "clips": len({cell.clip.name for cell in cells}),
        "cells": {str(cell.key): cell.method.name for cell in cells if cell.key in there},
        "versions": versions(),
        "finished_unix_s": round(time.time(), 3),
    }
    store.put(RUN_KEY, json.dumps(info, indent=1, sort_keys=True, default=list).encode())
    store.put_if_absent(SUCCESS_KEY, b"")
    report.block(closing(pooled, config.knows_cost)) if not report.is_json else report.event(
        "summary", methods=pooled
    )
    tail = f"; quarantined: {len(bad)} (reasons in {QUARANTINE_KEY})" if bad else ""
    report.say(
        f"{count(len(results), 'cell')} in {store.root}{tail}; vidseg report --input {store.root} shows them"
    )
    return QUARANTINED if bad else DONE


def _numbers(bench: Bench, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = bench.config
    return numbers(summaries, fps=config.fps, class_names=bench.class_names, knows_cost=config.knows_cost)


def _net_size(
    store: ObjectStore, bench: Bench, cells: Sequence[Cell], report: Reporter
) -> dict[str, float | None]:
    """Parameters of N, and 10^9 operations for a frame of the first clip's size. Nothing else depends on
    them: where they cannot be measured they are unknown, and the evaluation ends all the same."""
    if bench.net is None or not cells:
        return {}
    _, frames = read_cell(store, cells[0].key, ("height", "width"))
    height, width = (int(frames.column(name)[0].as_py()) for name in ("height", "width"))
    try:
        return {
            "parameters": parameters_of(bench.net),
            "gflop": gflop_of(bench.net, height, width, bench.device),
        }
    except Exception as error:  # plug-ins and devices raise what they like
        report.say(f"the net's size is not known: {type(error).__name__}: {error}")
        return {}


def _even_out(read: Sequence[tuple[Cell, dict[str, Any], Any]]) -> None:
    """Reading a clip is the same work for every method: the least disturbed measurement stands for all."""
    least: dict[str, float] = {}
    for cell, summary, _ in read:
        least[cell.clip.name] = min(summary["read_s"], least.get(cell.clip.name, summary["read_s"]))
    for cell, summary, _ in read:
        summary["read_s"] = least[cell.clip.name]


_FRAME_COLUMNS = [
    name for name in FRAMES_SCHEMA.names if name not in ("clip", "method", "point", "method_id")
]


def _named_frames(frames: Any, cell: Cell) -> Any:
    named = {
        "clip": cell.clip.name,
        "method": cell.method.label,
        "point": cell.method.point,
        "method_id": cell.method.digest,
    }
    for place, (name, value) in enumerate(named.items()):
        frames = frames.add_column(place, name, pa.array([value] * len(frames), pa.string()))
    return frames.select(FRAMES_SCHEMA.names).cast(FRAMES_SCHEMA)


_TC_HEADS = {"tc": "TC", "tc_visible": "TC vis."}


def closing(pooled: Sequence[Mapping[str, Any]], knows_cost: bool = True) -> str:
    """The table that ends a run; without fps where nothing says what the net costs."""
    kinds = {name: head for name, head in _TC_HEADS.items() if any(row[name] == row[name] for row in pooled)}
    kinds = kinds or {"tc": "TC"}
    pop = f"{next(iter(kinds))}_pop"
    heads = ["AKI", "mIoU", "fidel.", *kinds.values(), "pop", *(["fps"] if knows_cost else []), "wait"]
    lines = [f"  {'method':34} " + " ".join(f"{head:>7}" for head in heads)]
    for row in pooled:
        name = f"{row['method']} {row['point']}".strip()
        shown = [f"{row['aki']:.1f}", *(_three(row[what]) for what in ("miou", "fidelity", *kinds))]
        shown += [_three(row[pop], "+"), *([f"{row['fps']:.1f}"] if knows_cost else [])]
        shown += [str(row["wait_max_frames"])]
        lines.append(f"  {name:34} " + " ".join(f"{value:>7}" for value in shown))
    if not knows_cost:
        lines.append(f"  {NO_COST}")
    return "\n".join(lines)


def _three(value: float, sign: str = "") -> str:
    return "-" if value != value else f"{value:{sign}.3f}"
