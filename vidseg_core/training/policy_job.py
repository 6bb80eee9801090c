"""``vidseg train-policy``: what it learns from, how its workers learn, what the policy reaches. See `driver`.

Every worker walks its share of each batch. The tables lie once in Ray's object store; all workers on a
machine look at the same memory.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidseg_core.config.errors import check
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.episodes.features import FEATURE_SETS, spelled_out
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import policy_digest, read_policy
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.driver import Ending, Run, output_folder, run_training
from vidseg_core.training.policy_loop import (
    BEST,
    POLICY,
    PolicyOptions,
    describe_points,
    new_policy,
    train_policy,
)
from vidseg_core.training.ray_group import GroupLayout, GroupTraining, Member
from vidseg_core.training.split import describe_split, digests, open_tables


def run_train_policy(config: TrainPolicyConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    return run_training(PolicyTraining(config, reporter))


class PolicyTraining(GroupTraining):
    """A policy on episode tables, by REINFORCE."""

    verb = "train-policy"
    unit = "batch"
    samples = "episodes"
    measure = "val_quality"
    curve = (
        *("batch", "episodes", "mean_return", "entropy", "kar", "length", "kar_weight", "lkd_weight"),
        *("val_quality", "decisions", "seconds"),
    )
    """Means since the row before: return of a walk, entropy of a decision (nats), keys / frames, frames of a
    walk. `kar_weight`, `lkd_weight`: DVRL Fig. 3, bottom row. `val_quality`: null where none was measured."""
    config: TrainPolicyConfig
    decision: DecisionNet | None
    training: TableSet
    validation: TableSet | None
    parameters: int

    def size(self) -> tuple[int, int]:
        return policy_options(self.config).batches, self.config.reinforce.batch

    def prepare(self) -> None:
        config = self.config
        self.decision, made_with = read_decision(config.decision) if config.decision else (None, {})
        features = features_read(config.features, self.decision)
        self.training, self.validation = open_tables(
            config.tables,
            config.val_clips,
            config.val_share,
            config.seed,
            features,
            map_net=config.policy == "dvrl",
        )
        if config.decision:
            check_made_alike(made_with, self.training.fingerprint)
        options = policy_options(config, decision=self.decision)
        options.rules(self.training).check(self.training)
        if self.validation is not None:
            options.rules().check(self.validation)
        policy = new_policy(config.policy, self.training, config.seed, config.episode.interval, self.decision)
        self.parameters = sum(w.numel() for w in policy.parameters() if w.requires_grad)
        split = describe_split(self.training, self.validation)
        self.report.say(f"{config.policy} policy ({self.parameters:,} weights); {split}")

    def dry_run(self) -> None:
        _dry_run(self.training, policy_options(self.config, decision=self.decision), self.report)

    def decides(self) -> dict[str, Any]:
        inside = {"decision": policy_digest(self.config.decision)} if self.config.decision else {}
        return self.config.fingerprint_fields() | digests(self.training, self.validation) | inside

    def job(self, run: Run, layout: GroupLayout) -> PolicyJob:
        import ray

        return PolicyJob(
            tables=ray.put(self.training),
            validation=ray.put(self.validation),
            options=policy_options(self.config, run.fingerprint, self.decision),
        )

    def words(self, row: Mapping[str, Any]) -> str:
        quality = row["val_quality"]
        return (
            f"return {row['mean_return']:.3f} | KAR {row['kar']:.3f} | {row['length']:.0f} frames | "
            f"entropy {row['entropy']:.3f}" + ("" if quality is None else f" | val quality {quality:.4f}")
        )

    def finish(self, run: Run, standing: Standing) -> Ending:
        decisions = sum(int(row["decisions"]) for row in standing.rows)
        points = [asdict(point) for point in read_policy(run.folder / POLICY)[1].operating_points]
        return Ending(
            use=f"{decisions / max(standing.seconds, 1e-9):,.0f} decisions/s with learning; "
            f"{describe_points(points)}; use it with --scheduler.name policy --scheduler.policy "
            f"{run.folder / POLICY}",
            files=(POLICY, *((BEST,) if standing.best_step else ())),
            parameters=self.parameters,
            points=points,
            details={"decisions": decisions},
        )


# --- in a worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PolicyJob:
    """What each worker gets; the tables come as references into Ray's object store."""

    tables: Any
    validation: Any
    options: PolicyOptions

    def work(self, member: Member) -> None:
        import ray

        tables, validation = ray.get([self.tables, self.validation])
        train_policy(tables, validation, self.options, group=member.group, watch=member.watch)


# --- tables and options ------------------------------------------------------------------------------------


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


def check_made_alike(one: Mapping[str, str], other: Mapping[str, str]) -> None:
    """``ConfigError`` unless the tables of a decision net (`one`) and those at hand fit together."""
    differs = [
        name
        for name in sorted({*one, *other})
        if name not in MAY_DIFFER and one.get(name, other.get(name)) != other.get(name, one.get(name))
    ]
    if RegionsConfig.of_record(one) != RegionsConfig.of_record(other):  # what says none has whole frames
        differs = sorted({*differs, *RegionsConfig.of_record({**other, **one}).recorded()})
    problem = f"learned on tables made with another {', '.join(differs)} than --tables"
    check(not differs, "--decision", problem)


def features_read(features: tuple[str, ...], decision: DecisionNet | None) -> tuple[str, ...]:
    """Those of the tables that a policy with these `features` needs; none: all of them."""
    if decision is None or not features:
        return features
    either = [name for name, chosen in FEATURE_SETS.items() if name in chosen]
    both = sorted(set(spelled_out(features, either)) & set(decision.feature_names))
    problem = f"{', '.join(both[:3])}: read by the decision net, which passes on what it expects to be lost"
    check(not both, "--features", problem)
    return (*features, *decision.feature_names)


def policy_options(
    config: TrainPolicyConfig, fingerprint: str = "", decision: DecisionNet | None = None
) -> PolicyOptions:
    """The loop's part of the configuration."""
    return PolicyOptions(
        folder=output_folder(config).resolve(),
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


def _dry_run(training: TableSet, options: PolicyOptions, report: Reporter) -> None:
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
