"""REINFORCE on episode tables from the first batch to the last, in one process or as one worker of several.

Model: a batch of episodes is drawn, every worker walks its share of them, gradients are averaged, RMSProp
takes a step (DVRL section 4.2). Every so often the policy is walked over the validation clips, and the one
whose quality at the wanted key intervals is best is kept.

Invariant: everything random depends on the seed and the batch number, so that a run that goes on from its
checkpoint ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from vidseg_core.training.attempt import Attempt, AttemptOptions, Part, Row, Watch
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.group import Solo
from vidseg_core.training.policy_gradient import add_gradients, advantages, weight_of_entropy

POLICY = "policy.safetensors"
"""What training is for; written at the end."""
BEST = "best.safetensors"
"""The best policy so far, without operating points."""
SAMPLE = 100_000
"""Pairs, at most, from which the scaling of features is taken."""


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(AttemptOptions):
    """What the loop is given besides the tables. `val_every`, `save_every` and `log_every` count batches."""

    val_every: int | None = 25
    save_every: int = 25
    log_every: int = 5
    kind: str = "light"
    episode: EpisodeRecipe = field(default_factory=EpisodeRecipe)
    reinforce: ReinforceRecipe = field(default_factory=ReinforceRecipe)
    intervals: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """Average key intervals of the operating points; validation looks at those that tables can show."""
    decision: DecisionNet | None = None
    """A trained decision net that becomes part of the policy."""

    @property
    def batches(self) -> int:
        """Steps of the optimiser; what the last whole batch leaves over is not used."""
        return max(1, self.reinforce.episodes // self.reinforce.batch)

    def rules(self, tables: TableSet | None = None) -> EpisodeRules:
        """`tables`: what the price of a key is measured on; without them keys are free."""
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
    if tables.maps_GL1M is None:  # maps go in as they are
        policy.set_scaling(torch.from_numpy(sample_pairs(tables, seed)[0]))
    if kind == "paced":
        policy.keep_interval(POINT_INTERVAL if interval is None else interval)
    return policy


def sample_pairs(tables: TableSet, seed: int, most: int = SAMPLE) -> tuple[np.ndarray, np.ndarray]:
    """deviation_WF and quality_W of known pairs (k, k + d), d >= 1, spread over all tables."""
    cells_W, quality_W = sample_cells(tables, seed, most)
    return tables.seen(cells_W), quality_W


def sample_cells(tables: TableSet, seed: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Where those pairs are (`TableSet.seen`), and quality_W."""
    quality_RL = tables.quality_RL1[:, 1:]
    known = np.flatnonzero(np.isfinite(quality_RL))
    if len(known) > most:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 2))))
        known = np.sort(rng.choice(known, most, replace=False))
    row_W, column_W = np.divmod(known, quality_RL.shape[1])
    return row_W * (tables.horizon + 1) + column_W + 1, quality_RL[row_W, column_W]


def known_pairs(tables: TableSet, most: int) -> int:
    """How many pairs `sample_cells` finds."""
    return min(most, int(np.isfinite(tables.quality_RL1[:, 1:]).sum()))


def train_policy(
    tables: TableSet,
    validation: TableSet | None,
    options: PolicyOptions,
    *,
    group: Solo | None = None,
    watch: Watch | None = None,
) -> Standing:
    """Learn (or go on) and write `policy.safetensors`; `watch` gets each new row of the curve.

    Raises `EpisodeError` for rules that the tables do not allow, `PolicyError` for a policy that does not go
    with the features, `TrainingError` when weights are no longer finite, `CheckpointError` and `WriteError`.
    """
    loop = _Loop(tables, validation, options, group, watch)
    loop.run()
    loop.write_policy()
    return loop.standing


class _Loop(Attempt[PolicyOptions, Policy]):
    unit = "batch"
    advice = "A lower --reinforce.lr usually helps"

    def __init__(
        self,
        tables: TableSet,
        validation: TableSet | None,
        options: PolicyOptions,
        group: Solo | None,
        watch: Watch | None,
    ) -> None:
        policy = new_policy(options.kind, tables, options.seed, options.episode.interval, options.decision)
        super().__init__(options, options.batches, policy, group, watch)
        self._tables = tables
        trained = [weight for weight in policy.parameters() if weight.requires_grad]
        self._environment = Environment(tables, options.rules(tables))
        self._optimiser = torch.optim.RMSprop(trained, lr=options.reinforce.lr)
        self._interval = self._environment.max_interval
        self._judge = self._operator(validation) if validation is not None else None
        batch, rank, size = options.reinforce.batch, self.group.rank, self.group.size
        self._episodes = range(rank * batch // size, (rank + 1) * batch // size)
        self._digest = tables.digest() if rank == 0 else ""

    def step(self, number: int) -> None:
        options, recipe = self.options, self.options.reinforce
        starts_B2 = self._environment.draw_starts(start_random(options.seed, number), recipe.batch)
        uniform_SN = batch_random(
            options.seed, number, self._episodes, recipe.batch, recipe.trials, options.episode.frames - 1
        )
        self._environment.reset(starts_B2[self._episodes.start : self._episodes.stop], recipe.trials)
        rollout = roll_out(self._environment, self.net.key_rate, sampled(uniform_SN, recipe.epsilon))
        merit_SN = advantages(
            rollout, recipe.trials, credit=recipe.credit, baseline=recipe.baseline, gamma=recipe.gamma
        )
        self._optimiser.zero_grad(set_to_none=True)
        measured = add_gradients(
            self.net,
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
        self.group.average_gradients(self.net.parameters())
        self._optimiser.step()
        names, values = zip(*asdict(measured).items(), strict=True)
        totals = self.group.sum(torch.tensor(values, dtype=torch.float64)).tolist()
        self.measure(**dict(zip(names, totals, strict=True)))
        self.require_finite(number)

    def _mean_over_workers(self, number: float) -> float:
        return float(self.group.sum(torch.tensor(float(number), dtype=torch.float64))) / self.group.size

    def _operator(self, tables: TableSet) -> Operator:
        episode = self.options.episode
        return Operator(tables, max_interval=self._interval, history=episode.history, sides=episode.sides)

    def validate(self) -> float | None:
        """Mean quality at the intervals that can be had; the best so far is written."""
        if self._judge is None:
            return None
        reach = [aki for aki in self.options.intervals if aki <= 0.8 * self._interval]
        wanted = reach or [self._interval / 2]
        quality = float(np.mean(self._judge.quality_at(self.net.key_rate, wanted)))
        self.keep_best(quality, BEST, lambda: policy_bytes(self.net, self._facts(())))
        return quality

    def _facts(self, points: tuple[OperatingPoint, ...]) -> PolicyFacts:
        options = self.options
        return PolicyFacts(
            role="policy",
            kind=options.kind,
            feature_names=self.net.feature_names,
            widths=self.net.widths,
            fingerprint=dict(self._tables.fingerprint),
            tables=self._digest,
            eta=options.episode.eta,
            history=options.episode.history,
            max_interval=self._interval,
            sides=options.episode.sides,
            seed=options.seed,
            operating_points=points,
            decision=decision_facts(self.net.decision),
        )

    def row(self, score: float | None, elapsed: float) -> Row:
        seen = self.measured()
        kar_weight, lkd_weight = self.net.expert_weights()
        return {
            "batch": self.standing.step,
            "episodes": self.standing.step * self.options.reinforce.batch,
            "mean_return": seen["returns"] / seen["walkers"],
            "entropy": seen["entropy"] / max(1.0, seen["decisions"]),
            "kar": seen["keys"] / seen["frames"],
            "length": seen["frames"] / seen["walkers"],
            "kar_weight": kar_weight,
            "lkd_weight": lkd_weight,
            "val_quality": score,
            "decisions": int(seen["decisions"]),
            "seconds": self.standing.seconds,
        }

    def parts(self) -> Mapping[str, Part]:
        return {"policy": self.net, "optimiser": self._optimiser}

    def write_policy(self) -> None:
        """The best policy with its operating points; the first worker measures them on the training clips."""
        if self.group.rank != 0:
            return
        policy = self.net
        if self.standing.best_step:
            policy.load_state_dict(read_policy(self.options.folder / BEST)[0].state_dict())
        points = operating_points(self._operator(self._tables), policy, self.options.intervals)
        self.write(POLICY, lambda: policy_bytes(policy, self._facts(points)))


def operating_points(
    operator: Operator, net: Any, intervals: tuple[float, ...]
) -> tuple[OperatingPoint, ...]:
    """The threshold for each key interval that can be had, on the operator's clips; maybe for none."""
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


def describe_points(points: Sequence[Mapping[str, float]]) -> str:
    """Thresholds by key interval, as measured on the training clips."""
    if not points:
        return "no thresholds, since no key is forced as late as the shortest of --intervals"
    return "on the training clips " + ", ".join(
        f"AKI {point['aki']:.1f} -> {point['quality']:.4f} (threshold {point['threshold']:.4g})"
        for point in points
    )
