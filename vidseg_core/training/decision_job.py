"""``vidseg train-decision``: DVSNet's decision net on episode tables, and the thresholds that it needs. See
`driver`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from vidseg_core.config.catalogue import AGREEMENT
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.episodes.on_tables import summed
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.policy_file import OperatingPoint, PolicyFacts, policy_bytes, read_policy
from vidseg_core.models.policy_trunk import build_trunk
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.decision_loop import DecisionOptions, train_decision
from vidseg_core.training.driver import Ending, Run, Training, run_training
from vidseg_core.training.policy_loop import describe_points, operating_points
from vidseg_core.training.split import describe_split, digests, open_tables

DECISION = "decision.safetensors"


def run_train_decision(config: TrainDecisionConfig, reporter: Reporter | None = None) -> int:
    """Train as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    return run_training(DecisionTraining(config, reporter))


class DecisionTraining(Training):
    """A decision net, in seconds to minutes: there is nothing to go on from."""

    verb = "train-decision"
    saves = False
    measure = "val_rmse"
    curve = ("step", "loss", "val_rmse")
    """`loss`: mean squared error since the row before; `val_rmse`: null without validation clips."""
    config: TrainDecisionConfig
    training: TableSet
    validation: TableSet | None
    operator: Operator

    def size(self) -> tuple[int, int]:
        return self.config.steps, self.config.batch

    def prepare(self) -> None:
        config = self.config
        torch.set_num_threads(config.threads)
        self.training, self.validation = open_tables(
            config.tables, config.val_clips, config.val_share, config.seed, config.features
        )
        build_trunk(config.net, self.training.feature_names, self.training.fingerprint, (1,))
        self.operator = Operator(self.training, max_interval=config.max_interval)
        self.report.say(f"{config.net} decision net; {describe_split(self.training, self.validation)}")

    def decides(self) -> dict[str, Any]:
        return self.config.fingerprint_fields() | digests(self.training, self.validation)

    def train(self, run: Run) -> Standing:
        config, training = self.config, self.training
        options = DecisionOptions(
            kind=config.net,
            steps=config.steps,
            batch=config.batch,
            lr=config.lr,
            seed=config.seed,
            val_every=config.val_every,
        )
        started = time.monotonic()
        outcome = train_decision(training, self.validation, options, self.watch(run))
        adding = summed(training, outcome.net)
        adding_up = Operator(adding.tables, max_interval=config.max_interval)
        facts = PolicyFacts(
            role="decision",
            kind=config.net,
            feature_names=training.feature_names,
            widths=outcome.net.widths,
            fingerprint=dict(training.fingerprint),
            tables=training.digest(),
            max_interval=self.operator.max_interval,
            seed=config.seed,
            operating_points=operating_points(self.operator, outcome.net, config.intervals),
            summed_points=operating_points(adding_up, adding, config.intervals),
        )
        write_whole(run.folder / DECISION, policy_bytes(outcome.net, facts))
        return Standing(
            step=config.steps,
            best=-1.0 if outcome.best_error is None else outcome.best_error,
            best_step=outcome.best_step,
            seconds=time.monotonic() - started,
            rows=outcome.rows,
        )

    def words(self, row: Mapping[str, Any]) -> str:
        checked = "" if row["val_rmse"] is None else f" | val error {row['val_rmse']:.4f}"
        return f"loss {row['loss']:.5f}{checked}"

    def finish(self, run: Run, standing: Standing) -> Ending:
        file = run.folder / DECISION
        net, facts = read_policy(file)
        alone, added_up = _plain(facts.operating_points), _plain(facts.summed_points)
        return Ending(
            use=f"{describe_points(added_up)}; use it with --scheduler.name confidence_sum "
            f"--scheduler.policy {file} (a frame's loss alone, --scheduler.name {_alone(facts)}: "
            f"{describe_points(alone)})",
            files=(DECISION,),
            parameters=sum(weight.numel() for weight in net.parameters()),
            points=alone,
            details={"summed_points": added_up},
        )


def _alone(facts: PolicyFacts) -> str:
    """The scheduler that looks at the loss of one frame."""
    return "confidence" if facts.fingerprint.get("quality") == AGREEMENT else "expected_loss"


def _plain(points: Sequence[OperatingPoint]) -> list[dict[str, float]]:
    return [asdict(point) for point in points]
