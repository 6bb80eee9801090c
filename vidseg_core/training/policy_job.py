"""``vidseg train-policy`` from the configuration to the exit code: tables, split by clip, train, write.

Invariant: clips, not frames, are split between training and validation; what can be wrong with tables or
rules is found before Ray is started; an output holds one run, and the same command goes on with it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.config.errors import ConfigError, check, nearest
from vidseg_core.config.schema import to_dict
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.config.words import count
from vidseg_core.episodes.features import FEATURE_SETS, spelled_out
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import policy_digest, read_policy
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import load_checkpoint
from vidseg_core.training.claim import claim_folder, fingerprint, says_how_to_go_on
from vidseg_core.training.policy_loop import POLICY, PolicyOptions, PolicyOutcome, Row, new_policy

RUN, CURVE = "run.json", "curve.parquet"
CURVE_SCHEMA = pa.schema(
    [
        ("batch", pa.int64()),
        ("episodes", pa.int64()),
        ("mean_return", pa.float64()),
        ("entropy", pa.float64()),
        ("kar", pa.float64()),
        ("length", pa.float64()),
        ("kar_weight", pa.float64()),
        ("lkd_weight", pa.float64()),
        ("val_quality", pa.float64()),
        ("decisions", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
"""Means since the row before: return of a walk, entropy of a decision (nats), keys / frames, frames of a
walk. `kar_weight`, `lkd_weight`: DVRL Fig. 3, bottom row. `val_quality` is null where none was measured."""


def run_train_policy(config: TrainPolicyConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    report = reporter or Reporter(config.log)
    decision, made_with = read_decision(config.decision) if config.decision else (None, {})
    training, validation = open_tables(
        config.tables, config.val_clips, config.val_share, config.seed, _features(config, decision)
    )
    fields = config.fingerprint_fields() | {
        "tables": training.digest(),
        "validation": validation.digest() if validation is not None else None,
    }
    if config.decision:
        _check_made_alike(made_with, training.fingerprint)
        fields["decision"] = policy_digest(config.decision)
    options = policy_options(config, fingerprint(fields), decision)
    options.rules(training).check(training)
    if validation is not None:
        options.rules().check(validation)
    policy = new_policy(config.policy, training, config.seed, config.episode.interval, decision)
    weights = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    report.say(f"{config.policy} policy ({weights:,} weights); {describe_split(training, validation)}")
    if config.dry_run:
        return _dry_run(training, options, report)
    claim_folder(options.folder, fields)
    found = load_checkpoint(options.folder, options.fingerprint)
    begun = found[0].step if found else 0
    if begun >= options.batches and (options.folder / RUN).is_file():
        report.say(f"{options.folder} is complete already; nothing to do")
        return 0
    if begun:
        report.say(f"going on from batch {begun} of {options.batches}")
    try:
        with says_how_to_go_on(options.folder, options.fingerprint, "batch"):
            outcome = _train(config, options, training, validation, report)
    finally:
        _write_curve(options)
    _finish(config, options, outcome, report)
    return 0


def read_decision(path: str) -> tuple[DecisionNet, Mapping[str, str]]:
    """The net of a file of train-decision, and what its tables were made with; `PolicyError` for any other
    file."""
    net, facts = read_policy(path, role="decision")
    assert isinstance(net, DecisionNet)
    return net, facts.fingerprint


MAY_DIFFER = frozenset(
    {
        "class_names",
        "clip_frames",
        "features",
        "horizon",
        "key_stride",
        "pictures",
        "segment_frames",
        "threads",
        "two_sided_stride",
    }
)
"""Between the tables of a policy and those of the decision net inside."""


def _check_made_alike(one: Mapping[str, str], other: Mapping[str, str]) -> None:
    differs = [
        name
        for name in sorted({*one, *other})
        if name not in MAY_DIFFER and one.get(name, other.get(name)) != other.get(name, one.get(name))
    ]
    problem = f"learned on tables made with another {', '.join(differs)} than --tables"
    check(not differs, "--decision", problem)


def _features(config: TrainPolicyConfig, decision: DecisionNet | None) -> tuple[str, ...]:
    """Those of the tables that are needed; none: all of them."""
    if decision is None or not config.features:
        return config.features
    either = [name for name, chosen in FEATURE_SETS.items() if name in chosen]
    both = sorted(set(spelled_out(config.features, either)) & set(decision.feature_names))
    problem = f"{', '.join(both[:3])}: read by the decision net, which passes on what it expects to be lost"
    check(not both, "--features", problem)
    return (*config.features, *decision.feature_names)


def policy_options(
    config: TrainPolicyConfig, fingerprint: str = "", decision: DecisionNet | None = None
) -> PolicyOptions:
    """The loop's part of the configuration."""
    return PolicyOptions(
        folder=Path(config.output).resolve(),
        kind=config.policy,
        episode=config.episode,
        reinforce=config.reinforce,
        intervals=config.intervals,
        seed=config.seed,
        val_every=config.val_every,
        save_every=config.save_every,
        log_every=config.log_every,
        fingerprint=fingerprint,
        decision=decision,
    )


def open_tables(
    path: str, val_clips: Sequence[str], val_share: float, seed: int, features: Sequence[str] = ()
) -> tuple[TableSet, TableSet | None]:
    """Training and validation tables, split by clip, with these features (none named: all).

    `EpisodeError`, or `ConfigError` for a bad split.
    """
    tables = load_tables(path)
    if features:
        tables = [with_features(t, spelled_out(features, t.feature_names)) for t in tables]
    clips = sorted({table.clip for table in tables})
    chosen = _validation_clips(clips, val_clips, val_share, seed)
    return _join(tables, [c for c in clips if c not in chosen]), _join(tables, chosen) if chosen else None  # type: ignore[return-value]


def _join(tables: Sequence[EpisodeTable], clips: Sequence[str]) -> TableSet:
    return join_tables([table for table in tables if table.clip in clips])


def _validation_clips(clips: list[str], named: Sequence[str], share: float, seed: int) -> list[str]:
    for clip in named:
        if clip not in clips:
            raise ConfigError("--val_clips", f"there are no tables of clip {clip!r}{nearest(clip, clips)}")
    if set(named) >= set(clips):
        raise ConfigError("--val_clips", "names every clip; nothing is left to train on")
    if named or share == 0 or len(clips) == 1:
        return sorted(set(named))
    count = min(max(1, round(share * len(clips))), len(clips) - 1)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 3))))
    return sorted(clips[number] for number in rng.permutation(len(clips))[:count])


def describe_split(training: TableSet, validation: TableSet | None) -> str:
    """The data in one phrase."""
    checked = (
        f"{count(len(set(validation.clips)), 'clip')}, {int(validation.frames_C.sum()):,} frames"
        if validation is not None
        else "none (one clip, or --val_share 0): the last weights are used"
    )
    return (
        f"{count(len(set(training.clips)), 'clip')}, {int(training.frames_C.sum()):,} frames, "
        f"{len(training.feature_names)} features, horizon {training.horizon}; validation: {checked}"
    )


def _dry_run(training: TableSet, options: PolicyOptions, report: Reporter) -> int:
    from vidseg_core.episodes.environment import Environment
    from vidseg_core.episodes.rollout import batch_random, roll_out, sampled, start_random

    recipe, environment = options.reinforce, Environment(training, options.rules(training))
    rare = options.episode.eta / 2
    started = time.monotonic()
    environment.reset(environment.draw_starts(start_random(options.seed, 0), recipe.batch), recipe.trials)
    uniform_SN = batch_random(
        options.seed, 0, range(recipe.batch), recipe.batch, recipe.trials, options.episode.frames - 1
    )
    policy = new_policy(options.kind, training, options.seed, options.episode.interval, options.decision)

    def rarely(deviation: np.ndarray, kar: np.ndarray, lkd: np.ndarray) -> np.ndarray:
        return np.full(len(policy.key_rate(deviation, kar, lkd)), rare)

    rollout = roll_out(environment, rarely, sampled(uniform_SN, 1.0))
    seconds = 2.0 * (time.monotonic() - started) * options.batches
    report.say(
        f"one batch: {rollout.decisions:,} decisions; {options.batches:,} batches in about "
        f"{clock(seconds)} with one worker here. Nothing was trained (--dry_run).",
        decisions=rollout.decisions,
        estimated_s=round(seconds, 1),
    )
    return 0


def _train(
    config: TrainPolicyConfig,
    options: PolicyOptions,
    training: TableSet,
    validation: TableSet | None,
    report: Reporter,
) -> PolicyOutcome:
    from vidseg_core.kit.ray_session import ray_session
    from vidseg_core.training.policy_ray import fit_policy

    with ray_session(config):
        return fit_policy(
            training,
            validation,
            options,
            workers=config.workers,
            threads=config.threads,
            max_failures=config.max_failures,
            watch=lambda row: _show(row, options, report),
        )


def _show(row: Row, options: PolicyOptions, report: Reporter) -> None:
    quality = row["val_quality"]
    shown = "" if quality is None else f" | val quality {quality:.4f}"
    text = (
        f"batch {row['batch']}/{options.batches} | return {row['mean_return']:.3f} | "
        f"KAR {row['kar']:.3f} | {row['length']:.0f} frames | entropy {row['entropy']:.3f}{shown}"
    )
    report.show(text, {**row}, force=report.is_json or quality is not None)


def write_table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, path: Path) -> None:
    """The rows as one Parquet file, in one step."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), sink)
    write_whole(path, sink.getvalue())


def write_picture(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """`curve.png`: the rows drawn, DVRL Fig. 3."""
    from vidseg_core.report.training_curves import PICTURE, curve_picture

    data = curve_picture(rows)
    if data:
        write_whole(folder / PICTURE, data)


def _write_curve(options: PolicyOptions) -> None:
    found = load_checkpoint(options.folder, options.fingerprint)
    if found is not None:
        write_table_of(found[0].rows, CURVE_SCHEMA, options.folder / CURVE)
        write_picture(found[0].rows, options.folder)


def _finish(
    config: TrainPolicyConfig, options: PolicyOptions, outcome: PolicyOutcome, report: Reporter
) -> None:
    decisions = sum(int(row["decisions"]) for row in outcome.rows)
    validated = outcome.best_batch > 0
    facts: dict[str, Any] = {
        "verb": "train-policy",
        "config": to_dict(config),
        "fingerprint": options.fingerprint,
        "batches": outcome.batches,
        "best_quality": round(outcome.best_quality, 6) if validated else None,
        "best_batch": outcome.best_batch if validated else None,
        "decisions": decisions,
        "seconds": round(outcome.seconds, 3),
        "operating_points": outcome.points,
        "finished_unix_s": round(time.time(), 3),
    }
    write_whole(options.folder / RUN, (json.dumps(facts, indent=1) + "\n").encode())
    report.say(
        f"done: {outcome.batches} batches in {clock(outcome.seconds)}, "
        f"{decisions / max(outcome.seconds, 1e-9):,.0f} decisions/s with learning; "
        f"{describe_points(outcome.points)}; use it with --scheduler.name policy --scheduler.policy "
        f"{options.folder / POLICY}",
        operating_points=outcome.points,
    )


def describe_points(points: Sequence[Mapping[str, float]]) -> str:
    """Thresholds by key interval, as measured on the training clips."""
    return "on the training clips " + ", ".join(
        f"AKI {point['aki']:.1f} -> {point['quality']:.4f} (threshold {point['threshold']:.4g})"
        for point in points
    )
