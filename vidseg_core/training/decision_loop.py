"""Training of DVSNet's decision net (section 3.4): mean squared error against the true confidence, by Adam.

The truth of a pair (k, i) is its quality in the table: on tables of `accuracy` the share of the pixels on
which the propagated mask agrees with N's own (DVSNet Eq. 1), on others mIoU, which is no confidence of the
paper and goes under another name (`expected_loss`).

Invariant: net and order of samples depend on the seed alone.

Legend: W pairs, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.decision import DecisionNet
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.policy_loop import sample_pairs

PAIRS = 2_000_000
"""Pairs, at most, that are learned from; drawn evenly from all tables."""
VALIDATION_PAIRS = 50_000


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """How the net learns."""

    kind: str = "light"
    steps: int = 2000
    batch: int = 256
    lr: float = 1e-3
    seed: int = 0
    val_every: int = 100


@dataclass(frozen=True, kw_only=True)
class DecisionOutcome:
    """The net that did best on the validation pairs, or the last one."""

    net: DecisionNet
    best_error: float | None
    """Root mean squared error on the validation pairs."""
    best_step: int
    rows: list[dict[str, Any]]


def train_decision(
    tables: TableSet,
    validation: TableSet | None,
    options: DecisionOptions,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> DecisionOutcome:
    """Fit a fresh net. `PolicyError` when it does not go with the features, `TrainingError` when the loss is
    not finite."""
    deviation_WF, quality_W = (torch.from_numpy(a) for a in sample_pairs(tables, options.seed, PAIRS))
    net = new_decision_net(options.kind, tables, options.seed, quality_W)
    optimiser = torch.optim.Adam(net.parameters(), lr=options.lr)
    held = sample_pairs(validation, options.seed, VALIDATION_PAIRS) if validation is not None else None
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((options.seed, 4))))
    rows: list[dict[str, Any]] = []
    losses: list[float] = []
    best: tuple[float | None, int, dict[str, torch.Tensor]] = (None, options.steps, {})
    for step in range(1, options.steps + 1):
        at_W = torch.from_numpy(rng.integers(0, len(quality_W), options.batch))
        loss = torch.nn.functional.mse_loss(net(deviation_WF[at_W]), quality_W[at_W])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"the loss is {losses[-1]} at step {step}; a lower --lr usually helps")
        if step % options.val_every == 0 or step == options.steps:
            error = None if held is None else _error(net, *held)
            if error is not None and (best[0] is None or error < best[0]):
                best = error, step, copy.deepcopy(net.state_dict())
            rows.append({"step": step, "loss": float(np.mean(losses)), "val_rmse": error})
            losses = []
            if watch is not None:
                watch(rows[-1])
    if best[2]:
        net.load_state_dict(best[2])
    return DecisionOutcome(net=net, best_error=best[0], best_step=best[1], rows=rows)


def new_decision_net(kind: str, tables: TableSet, seed: int, quality_W: torch.Tensor) -> DecisionNet:
    """A fresh net that begins with the mean quality as its answer to everything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DecisionNet(kind, tables.feature_names, fingerprint=tables.fingerprint)
    net.trunk.set_scaling(torch.from_numpy(sample_pairs(tables, seed)[0]))
    with torch.no_grad():
        net.last.bias.fill_(float(quality_W.mean()))
    return net


def _error(net: DecisionNet, deviation_WF: np.ndarray, quality_W: np.ndarray) -> float:
    return float(np.sqrt(np.mean((net.confidence(deviation_WF) - quality_W) ** 2)))
