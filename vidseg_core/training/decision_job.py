"""``vidseg train-decision``: DVSNet's decision net on episode tables, and the thresholds that it needs. See
`driver`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from vidseg_core.config.catalogue import AGREEMENT, MAP_SETS
from vidseg_core.config.errors import check
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.episodes.features import MAP_SHAPES
from vidseg_core.episodes.on_tables import summed
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import OperatingPoint, PolicyFacts, policy_bytes, read_policy
from vidseg_core.models.policy_trunk import build_trunk
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.decision_loop import DecisionOptions, Lessons, learn, lessons_of
from vidseg_core.training.driver import Ending, Run, Training, run_training
from vidseg_core.training.made_maps import are_made, flow_of, made_lessons, require_room
from vidseg_core.training.policy_loop import describe_points, operating_points
from vidseg_core.training.split import (
    chosen_features,
    describe_split,
    digests,
    only_map,
    split_by_clip,
)

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
    made: bool
    """Maps are made while training; the tables do not keep them."""
    lessons: Callable[[], Lessons]

    def size(self) -> tuple[int, int]:
        return self.config.steps, self.config.batch

    def prepare(self) -> None:
        config = self.config
        torch.set_num_threads(config.threads)
        tables = load_tables(config.tables)
        name = self._map(tables[0])
        self.made = bool(name) and are_made(tables, name)
        if name or config.features:
            wanted = config.features or (name,)
            tables = [t if self.made else with_features(t, chosen_features(t, wanted)) for t in tables]
        parts = split_by_clip(tables, config.val_clips, config.val_share, config.seed)
        self.training, held = join_tables(parts[0]), parts[1]
        self.validation = join_tables(held) if held else None
        said = describe_split(self.training, self.validation)
        if self.made:
            flow = flow_of(self.training.fingerprint, config.flow_weights, config.seed)
            pairs, size = require_room(self.training, self.validation, name, config.map_pairs)
            self.lessons = lambda: made_lessons(*parts, name, flow, pairs=config.map_pairs, seed=config.seed)
            said += f"; maps of {name} are made, of {pairs:,} pairs ({size / 1e6:,.0f} MB)"
        else:
            self._check_unasked()
            self.lessons = lambda: lessons_of(self.training, self.validation, config.seed)
            build_trunk(config.net, self.training.feature_names, self.training.fingerprint, (1,))
        self.operator = Operator(self.training, max_interval=config.max_interval)
        self.report.say(f"{config.net} decision net; {said}")

    def _check_unasked(self) -> None:
        """`ConfigError` for what is for maps that are made, where none are."""
        config, problem = (
            self.config,
            "is for maps that the tables do not keep; this net reads what they keep",
        )
        check(config.flow_weights is None, "--flow_weights", problem)
        check(config.map_pairs == type(config).map_pairs, "--map_pairs", problem)

    def _map(self, table: EpisodeTable) -> str:
        """The set of maps that the net reads; empty: features."""
        named = [
            name for name in self.config.features if name in MAP_SETS and name not in table.feature_names
        ]
        if named and MAP_SHAPES in table.fingerprint:
            problem = f"light reads numbers, and {named[0]} is a map: take dvrl"
            check(self.config.net == "dvrl", "--net", problem)
            check(len(self.config.features) == 1, "--features", f"maps ({named[0]}) are read alone")
            return named[0]
        there = only_map(table) if self.config.net == "dvrl" and not self.config.features else ()
        return there[0] if there else ""

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
        lessons = self.lessons()
        outcome = learn(lessons, options, self.watch(run))
        facts = PolicyFacts(
            role="decision",
            kind=config.net,
            feature_names=lessons.feature_names,
            widths=outcome.net.widths,
            fingerprint=dict(lessons.fingerprint),
            tables=training.digest(),
            max_interval=self.operator.max_interval,
            seed=config.seed,
        )
        write_whole(run.folder / DECISION, policy_bytes(outcome.net, facts))  # whatever the walks come to
        facts = replace(facts, **self._points(outcome.net))
        write_whole(run.folder / DECISION, policy_bytes(outcome.net, facts))
        return Standing(
            step=config.steps,
            best=-1.0 if outcome.best_error is None else outcome.best_error,
            best_step=outcome.best_step,
            seconds=time.monotonic() - started,
            rows=outcome.rows,
        )

    def _points(self, net: DecisionNet) -> dict[str, Any]:
        """Thresholds, where a walk over the tables finds what the net reads."""
        if self.made:
            return {}
        adding = summed(self.training, net)
        adding_up = Operator(adding.tables, max_interval=self.config.max_interval)
        return {
            "operating_points": operating_points(self.operator, net, self.config.intervals),
            "summed_points": operating_points(adding_up, adding, self.config.intervals),
        }

    def words(self, row: Mapping[str, Any]) -> str:
        checked = "" if row["val_rmse"] is None else f" | val error {row['val_rmse']:.4f}"
        return f"loss {row['loss']:.5f}{checked}"

    def finish(self, run: Run, standing: Standing) -> Ending:
        file = run.folder / DECISION
        net, facts = read_policy(file)
        alone, added_up = _plain(facts.operating_points), _plain(facts.summed_points)
        if self.made:
            return Ending(
                use=f"no thresholds, since maps were made of some pairs only: use it with --scheduler.name "
                f"{_alone(facts)} --scheduler.policy {file} --scheduler.threshold T",
                files=(DECISION,),
                parameters=sum(weight.numel() for weight in net.parameters()),
            )
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
