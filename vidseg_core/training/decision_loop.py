"""Training of DVSNet's decision net (section 3.4): mean squared error against the true confidence, by Adam.

The truth of a pair (k, i) is its quality in the table: on tables of `accuracy` the share of the pixels on
which the propagated mask agrees with N's own (DVSNet Eq. 1), on others mIoU, which is no confidence of the
paper and goes under another name (`expected_loss`).

Invariant: net and order of samples depend on the seed alone.

Legend: W pairs, B of a batch, F features or values of a map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.decision import DecisionNet
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.policy_loop import sample_cells, sample_pairs

PAIRS = 2_000_000
"""Pairs, at most, that are learned from; drawn evenly from all tables."""
VALIDATION_PAIRS = 50_000
AT_ONCE = 2**25
"""Numbers that a net is shown at once in validation."""


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """How the net learns."""

    kind: str = "light"
    widths: tuple[int, ...] | None = None
    """Of the hidden layers; None: those of the kind."""
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


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pairs to learn from."""

    quality_W: np.ndarray
    seen: Callable[[np.ndarray], np.ndarray]
    """places_B -> float32 [B, F]."""


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What a net learns from, and what it is told of it."""

    feature_names: tuple[str, ...]
    fingerprint: Mapping[str, str]
    training: Samples
    validation: Samples | None
    scale_WF: np.ndarray | None
    """What features are scaled to; None: maps go in as they are."""


def lessons_of(tables: TableSet, validation: TableSet | None, seed: int) -> Lessons:
    """Pairs of tables."""
    return Lessons(
        feature_names=tables.feature_names,
        fingerprint=tables.fingerprint,
        training=_samples_of(tables, seed, PAIRS),
        validation=None if validation is None else _samples_of(validation, seed, VALIDATION_PAIRS),
        scale_WF=sample_pairs(tables, seed)[0] if tables.maps_GL1M is None else None,
    )


def _samples_of(tables: TableSet, seed: int, most: int) -> Samples:
    cells_W, quality_W = sample_cells(tables, seed, most)
    return Samples(quality_W=quality_W, seen=lambda places_B: tables.seen(cells_W[places_B]))


def train_decision(
    tables: TableSet,
    validation: TableSet | None,
    options: DecisionOptions,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> DecisionOutcome:
    """`learn` from tables."""
    return learn(lessons_of(tables, validation, options.seed), options, watch)


def learn(
    lessons: Lessons, options: DecisionOptions, watch: Callable[[dict[str, Any]], None] | None = None
) -> DecisionOutcome:
    """Fit a fresh net. `PolicyError` when it does not go with the features, `TrainingError` when the loss is
    not finite."""
    quality_W = torch.from_numpy(lessons.training.quality_W)
    net = new_decision_net(options.kind, lessons, options.seed, options.widths)
    optimiser = torch.optim.Adam(net.parameters(), lr=options.lr)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((options.seed, 4))))
    rows: list[dict[str, Any]] = []
    losses: list[float] = []
    best: tuple[float | None, int, dict[str, torch.Tensor]] = (None, options.steps, {})
    for step in range(1, options.steps + 1):
        at_B = rng.integers(0, len(quality_W), options.batch)
        seen_BF = torch.from_numpy(lessons.training.seen(at_B))
        loss = torch.nn.functional.mse_loss(net(seen_BF), quality_W[torch.from_numpy(at_B)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"the loss is {losses[-1]} at step {step}; a lower --lr usually helps")
        if step % options.val_every == 0 or step == options.steps:
            error = None if lessons.validation is None else _error(net, lessons.validation)
            if error is not None and (best[0] is None or error < best[0]):
                best = error, step, copy.deepcopy(net.state_dict())
            rows.append({"step": step, "loss": float(np.mean(losses)), "val_rmse": error})
            losses = []
            if watch is not None:
                watch(rows[-1])
    if best[2]:
        net.load_state_dict(best[2])
    return DecisionOutcome(net=net, best_error=best[0], best_step=best[1], rows=rows)


def new_decision_net(
    kind: str, lessons: Lessons, seed: int, widths: tuple[int, ...] | None = None
) -> DecisionNet:
    """A fresh net that begins with the mean quality as its answer to everything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        about = lessons.fingerprint
        net = DecisionNet(kind, lessons.feature_names, fingerprint=about, widths=widths)
    if lessons.scale_WF is not None:
        net.trunk.set_scaling(torch.from_numpy(lessons.scale_WF))
    with torch.no_grad():
        net.last.bias.fill_(float(torch.from_numpy(lessons.training.quality_W).mean()))
    return net


def _error(net: DecisionNet, held: Samples) -> float:
    most = max(1, min(VALIDATION_PAIRS, AT_ONCE // held.seen(np.zeros(1, np.int64)).shape[1]))
    places = np.array_split(np.arange(len(held.quality_W)), -(-len(held.quality_W) // most))
    confidence_W = np.concatenate([net.confidence(held.seen(places_B)) for places_B in places])
    return float(np.sqrt(np.mean((confidence_W - held.quality_W) ** 2)))
