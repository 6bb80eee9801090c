"""``vidseg train-decision`` from the configuration to the exit code."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from vidseg_core.config.schema import to_dict
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.episodes.on_tables import summed
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.policy_file import OperatingPoint, PolicyFacts, policy_bytes
from vidseg_core.models.policy_trunk import build_trunk
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.claim import claim_folder, fingerprint
from vidseg_core.training.decision_loop import DecisionOptions, DecisionOutcome, train_decision
from vidseg_core.training.policy_job import (
    describe_points,
    describe_split,
    open_tables,
    write_picture,
    write_table_of,
)
from vidseg_core.training.policy_loop import operating_points

DECISION = "decision.safetensors"
RUN, CURVE = "run.json", "curve.parquet"
CURVE_SCHEMA = pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("val_rmse", pa.float64())])
"""`loss`: mean squared error since the row before; `val_rmse`: null without validation clips."""


def run_train_decision(config: TrainDecisionConfig, reporter: Reporter | None = None) -> int:
    """Train as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    report, folder = reporter or Reporter(config.log), Path(config.output)
    torch.set_num_threads(config.threads)
    training, validation = open_tables(
        config.tables, config.val_clips, config.val_share, config.seed, config.features
    )
    build_trunk(config.net, training.feature_names, training.fingerprint, (1,))
    operator = Operator(training, max_interval=config.max_interval)
    report.say(f"{config.net} decision net; {describe_split(training, validation)}")
    if config.dry_run:
        report.say("the tables are fine; nothing was trained (--dry_run)")
        return 0
    fields = config.fingerprint_fields() | {
        "tables": training.digest(),
        "validation": validation.digest() if validation is not None else None,
    }
    claim_folder(folder, fields)
    if (folder / RUN).is_file():
        report.say(f"{folder} is complete already; nothing to do")
        return 0
    options = DecisionOptions(
        kind=config.net,
        steps=config.steps,
        batch=config.batch,
        lr=config.lr,
        seed=config.seed,
        val_every=config.val_every,
    )
    started = time.monotonic()
    outcome = train_decision(training, validation, options, lambda row: _show(row, config, report))
    points = operating_points(operator, outcome.net, config.intervals)
    summing = summed(training, outcome.net)
    added_up = operating_points(
        Operator(summing.tables, max_interval=config.max_interval), summing, config.intervals
    )
    _write(config, folder, training, outcome, points, added_up, operator.max_interval)
    _finish(config, folder, fields, outcome, points, added_up, time.monotonic() - started, report)
    return 0


def _show(row: dict[str, Any], config: TrainDecisionConfig, report: Reporter) -> None:
    checked = "" if row["val_rmse"] is None else f" | val error {row['val_rmse']:.4f}"
    text = f"step {row['step']:,}/{config.steps:,} | loss {row['loss']:.5f}{checked}"
    report.show(text, row, force=report.is_json)


def _write(
    config: TrainDecisionConfig,
    folder: Path,
    training: TableSet,
    outcome: DecisionOutcome,
    points: tuple[OperatingPoint, ...],
    summed: tuple[OperatingPoint, ...],
    max_interval: int,
) -> None:
    facts = PolicyFacts(
        role="decision",
        kind=config.net,
        feature_names=training.feature_names,
        widths=outcome.net.widths,
        fingerprint=dict(training.fingerprint),
        tables=training.digest(),
        max_interval=max_interval,
        seed=config.seed,
        operating_points=points,
        summed_points=summed,
    )
    write_whole(folder / DECISION, policy_bytes(outcome.net, facts))
    write_table_of(outcome.rows, CURVE_SCHEMA, folder / CURVE)
    write_picture(outcome.rows, folder)


def _finish(
    config: TrainDecisionConfig,
    folder: Path,
    fields: dict[str, Any],
    outcome: DecisionOutcome,
    points: tuple[OperatingPoint, ...],
    summed: tuple[OperatingPoint, ...],
    seconds: float,
    report: Reporter,
) -> None:
    said, summed_said = _told(points), _told(summed)
    facts = {
        "verb": "train-decision",
        "config": to_dict(config),
        "fingerprint": fingerprint(fields),
        "best_rmse": outcome.best_error,
        "best_step": outcome.best_step,
        "seconds": round(seconds, 3),
        "operating_points": said,
        "summed_points": summed_said,
        "finished_unix_s": round(time.time(), 3),
    }
    write_whole(folder / RUN, (json.dumps(facts, indent=1) + "\n").encode())
    error = "" if outcome.best_error is None else f"validation error {outcome.best_error:.4f}; "
    report.say(
        f"done: {error}{describe_points(summed_said)}; use it with --scheduler.name confidence_sum "
        f"--scheduler.policy {folder / DECISION} (a frame's loss alone, --scheduler.name confidence: "
        f"{describe_points(said)})",
        operating_points=said,
        summed_points=summed_said,
    )


def _told(points: tuple[OperatingPoint, ...]) -> list[dict[str, float]]:
    return [asdict(point) for point in points]
