"""REINFORCE on episode tables from the first batch to the last, in one process or as one worker of several.

Model: a batch of episodes is drawn, every worker walks its share of them, gradients are averaged, RMSProp
takes a step (DVRL section 4.2). Every so often the policy is walked over the validation clips, and the one
whose quality at the wanted key intervals is best is kept.

Invariant: everything random depends on the seed and the batch number, so that a run that goes on from its
checkpoint ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidseg_core.config.catalogue import POINT_INTERVAL
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.episodes.environment import Environment, EpisodeRules
from vidseg_core.episodes.even import even_price
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.rollout import batch_random, roll_out, sampled, start_random
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy import Policy
from vidseg_core.models.policy_file import (
    OperatingPoint,
    PolicyFacts,
    decision_facts,
    policy_bytes,
    read_policy,
)
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import Standing, load_checkpoint, save_checkpoint
from vidseg_core.training.group import Solo
from vidseg_core.training.loop import TrainingError
from vidseg_core.training.policy_gradient import Measured, add_gradients, advantages, weight_of_entropy

POLICY = "policy.safetensors"
"""What training is for; written at the end."""
BEST = "best.safetensors"
"""The best policy so far, without operating points."""
SAMPLE = 100_000
"""Pairs, at most, from which the scaling of features is taken."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """What the loop is told besides the tables."""

    folder: Path
    kind: str = "light"
    episode: EpisodeRecipe = field(default_factory=EpisodeRecipe)
    reinforce: ReinforceRecipe = field(default_factory=ReinforceRecipe)
    intervals: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """Average key intervals of the operating points; validation looks at those that tables can show."""
    seed: int = 0
    val_every: int = 25
    save_every: int = 25
    log_every: int = 5
    """Batches between validations, checkpoints and rows of the curve."""
    fingerprint: str = ""
    decision: DecisionNet | None = None
    """A trained decision net that becomes part of the policy."""

    @property
    def batches(self) -> int:
        """Steps of the optimiser; what is left over by the last whole batch is not played."""
        return max(1, self.reinforce.episodes // self.reinforce.batch)

    def rules(self, tables: TableSet | None = None) -> EpisodeRules:
        """`tables`: what the price of a key is told from; without them keys are free."""
        recipe, price = self.episode, 0.0
        if tables is not None and recipe.interval is not None:
            price = even_price(tables, recipe.interval, recipe.sides)
        return EpisodeRules(
            price=price,
            frames=recipe.frames,
            eta=recipe.eta,
            history=recipe.history,
            max_interval=recipe.max_interval,
            reward=recipe.reward,
            sides=recipe.sides,
        )


@dataclass(frozen=True, kw_only=True)
class PolicyOutcome:
    """How training ended."""

    batches: int
    best_quality: float
    """On the validation clips, mean over the intervals; below 0: nothing to validate on."""
    best_batch: int
    seconds: float
    rows: list[Row] = field(repr=False)
    points: list[dict[str, float]]
    """The operating points of the file, measured on the training clips."""


def new_policy(
    kind: str,
    tables: TableSet,
    seed: int,
    interval: float | None = None,
    decision: DecisionNet | None = None,
) -> Policy:
    """A fresh policy whose features are scaled to the tables; the same for the same arguments.

    `interval`: what a `paced` policy starts from, frames. `decision`: a trained net to put inside.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy(
            kind, tables.feature_names, fingerprint=tables.fingerprint, decision=copy.deepcopy(decision)
        )
    policy.set_scaling(torch.from_numpy(sample_pairs(tables, seed)[0]))
    if kind == "paced":
        policy.keep_interval(POINT_INTERVAL if interval is None else interval)
    return policy


def _trained(policy: Policy) -> list[torch.nn.Parameter]:
    return [weight for weight in policy.parameters() if weight.requires_grad]


def sample_pairs(tables: TableSet, seed: int, most: int = SAMPLE) -> tuple[np.ndarray, np.ndarray]:
    """deviation_WF and quality_W of known pairs (k, k + d), d >= 1, spread over all tables."""
    quality_RL = tables.quality_RL1[:, 1:]
    known = np.flatnonzero(np.isfinite(quality_RL))
    if len(known) > most:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 2))))
        known = np.sort(rng.choice(known, most, replace=False))
    row_W, column_W = np.divmod(known, quality_RL.shape[1])
    return tables.deviation_RL1F[row_W, column_W + 1], quality_RL[row_W, column_W]


def train_policy(
    tables: TableSet,
    validation: TableSet | None,
    options: PolicyOptions,
    *,
    group: Solo | None = None,
    watch: Callable[[Row], None] | None = None,
) -> PolicyOutcome:
    """Learn (or go on) and write `policy.safetensors`; `watch` gets each new row of the curve.

    Raises `EpisodeError` for rules that the tables do not allow, `PolicyError` for a policy that does not go
    with the features, `TrainingError` when weights are no longer finite, `CheckpointError` and `WriteError`.
    """
    return _Loop(tables, validation, options, group or Solo(), watch).run()


class _Loop:
    """One attempt at a run."""

    def __init__(
        self,
        tables: TableSet,
        validation: TableSet | None,
        options: PolicyOptions,
        group: Solo,
        watch: Callable[[Row], None] | None,
    ) -> None:
        self._tables, self._options, self._group, self._watch = tables, options, group, watch
        self._environment = Environment(tables, options.rules(tables))
        self._policy = new_policy(
            options.kind, tables, options.seed, options.episode.interval, options.decision
        )
        self._optimiser = torch.optim.RMSprop(_trained(self._policy), lr=options.reinforce.lr)
        self._interval = self._environment.max_interval
        self._judge = self._operator(validation) if validation is not None else None
        self._standing = Standing(seed=options.seed, fingerprint=options.fingerprint)
        batch = options.reinforce.batch
        self._episodes = range(group.rank * batch // group.size, (group.rank + 1) * batch // group.size)
        self._seen: list[list[float]] = []
        self._digest = tables.digest() if group.rank == 0 else ""

    def run(self) -> PolicyOutcome:
        self._restore()
        options, standing = self._options, self._standing
        self._mark = time.monotonic()
        for number in range(standing.step, options.batches):
            self._batch(number)
            standing.step = done = number + 1
            last = done == options.batches
            validates = last or done % options.val_every == 0
            if validates or done % options.log_every == 0:
                self._write_row(self._validate() if validates else None)
            if validates or done % options.save_every == 0:
                self._save()
        return self._finish()

    def _batch(self, number: int) -> None:
        options, recipe = self._options, self._options.reinforce
        starts_B2 = self._environment.draw_starts(start_random(options.seed, number), recipe.batch)
        uniform_SN = batch_random(
            options.seed, number, self._episodes, recipe.batch, recipe.trials, options.episode.frames - 1
        )
        self._environment.reset(starts_B2[self._episodes.start : self._episodes.stop], recipe.trials)
        rollout = roll_out(self._environment, self._policy.key_rate, sampled(uniform_SN, recipe.epsilon))
        merit_SN = advantages(
            rollout, recipe.trials, credit=recipe.credit, baseline=recipe.baseline, gamma=recipe.gamma
        )
        self._optimiser.zero_grad(set_to_none=True)
        measured = add_gradients(
            self._policy,
            self._environment,
            rollout,
            merit_SN,
            entropy_weight=weight_of_entropy(
                recipe.entropy,
                over=recipe.entropy_over,
                walkers=rollout.decided_SN.shape[1],
                decisions=self._mean_over_workers(rollout.decisions),
            ),
        )
        self._group.average_gradients(self._policy.parameters())
        self._optimiser.step()
        self._note(measured)

    def _mean_over_workers(self, number: float) -> float:
        return float(self._group.sum(torch.tensor(float(number), dtype=torch.float64))) / self._group.size

    def _note(self, measured: Measured) -> None:
        total = self._group.sum(torch.tensor(measured.vector(), dtype=torch.float64))
        self._seen.append(total.tolist())
        if not all(bool(torch.isfinite(weight).all()) for weight in self._policy.parameters()):
            raise TrainingError(
                f"the weights are not finite after batch {self._standing.step}; a lower --reinforce.lr "
                "usually helps, and the checkpoint before is kept"
            )

    def _operator(self, tables: TableSet) -> Operator:
        episode = self._options.episode
        return Operator(tables, max_interval=self._interval, history=episode.history, sides=episode.sides)

    def _validate(self) -> float | None:
        """Mean quality at the intervals that can be had; the best so far is written."""
        if self._judge is None:
            return None
        rate, judge = self._policy.key_rate, self._judge
        wanted = [aki for aki in self._options.intervals if aki <= 0.8 * self._interval] or [
            self._interval / 2
        ]
        quality = float(np.mean(judge.quality_at(rate, wanted)))
        standing = self._standing
        if quality > standing.best_miou:
            standing.best_miou, standing.best_step = quality, standing.step
            self._write(BEST, self._policy, ())
        return quality

    def _write(self, name: str, policy: Policy, points: tuple[OperatingPoint, ...]) -> None:
        if self._group.rank == 0:
            data = policy_bytes(policy, self._facts(points))
            write_whole(self._options.folder / name, data)

    def _facts(self, points: tuple[OperatingPoint, ...]) -> PolicyFacts:
        options = self._options
        return PolicyFacts(
            role="policy",
            kind=options.kind,
            feature_names=self._policy.feature_names,
            widths=self._policy.widths,
            fingerprint=dict(self._tables.fingerprint),
            tables=self._digest,
            eta=options.episode.eta,
            history=options.episode.history,
            max_interval=self._interval,
            sides=options.episode.sides,
            seed=options.seed,
            operating_points=points,
            decision=decision_facts(self._policy.decision),
        )

    def _write_row(self, quality: float | None) -> None:
        now, standing = time.monotonic(), self._standing
        returns, walkers, entropy, decisions, keys, frames = np.sum(self._seen, axis=0).tolist()
        kar_weight, lkd_weight = self._policy.expert_weights()
        standing.seconds += now - self._mark
        row = {
            "batch": standing.step,
            "episodes": standing.step * self._options.reinforce.batch,
            "mean_return": returns / walkers,
            "entropy": entropy / max(1.0, decisions),
            "kar": keys / frames,
            "length": frames / walkers,
            "kar_weight": kar_weight,
            "lkd_weight": lkd_weight,
            "val_quality": quality,
            "decisions": int(decisions),
            "seconds": standing.seconds,
        }
        standing.rows.append(row)
        self._mark, self._seen = now, []
        if self._watch is not None:
            self._watch(row)

    def _save(self) -> None:
        if self._group.rank == 0:
            tensors: Mapping[str, Any] = {
                "policy": self._policy.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            }
            save_checkpoint(self._options.folder, self._standing, dict(tensors))

    def _restore(self) -> None:
        found = load_checkpoint(self._options.folder, self._options.fingerprint)
        if found is not None:
            self._standing, tensors = found
            self._policy.load_state_dict(tensors["policy"])
            self._optimiser.load_state_dict(tensors["optimiser"])

    def _finish(self) -> PolicyOutcome:
        standing, policy = self._standing, self._policy
        points: tuple[OperatingPoint, ...] = ()
        if self._group.rank == 0:
            if standing.best_step:
                policy.load_state_dict(read_policy(self._options.folder / BEST)[0].state_dict())
            points = operating_points(self._operator(self._tables), policy, self._options.intervals)
            self._write(POLICY, policy, points)
        return PolicyOutcome(
            batches=standing.step,
            best_quality=standing.best_miou,
            best_batch=standing.best_step,
            seconds=standing.seconds,
            rows=standing.rows,
            points=[
                {"target": p.target, "threshold": p.threshold, "aki": p.aki, "quality": p.quality}
                for p in points
            ],
        )


def operating_points(
    operator: Operator, net: Any, intervals: tuple[float, ...]
) -> tuple[OperatingPoint, ...]:
    """The threshold for each key interval that can be had, on the operator's clips."""
    wanted = [aki for aki in intervals if aki <= operator.max_interval]
    found = operator.find(net.key_rate, wanted)
    return tuple(
        OperatingPoint(
            target=target,
            threshold=float(point.threshold_P[0]),
            aki=float(point.aki_P[0]),
            quality=float(point.quality_P[0]),
        )
        for target, point in zip(wanted, found, strict=True)
    )
