"""Decisions per second of rollouts on episode tables, and what DVRL's 2,400 episodes x 32 trials would take.

    python -m benchmarks.rollouts [--json FILE] [--tables DIR] [--repeat N] [--train]

Baseline: the same policy net in a plain loop, one trial after the other, one decision at a time. Both run in
this process on one thread and alternate; times are CPU seconds, so that other work on the machine hardly
counts; medians are printed. The policy is biased to rare keys, so that walks are as long as those of a
trained one. Tables: generated ones (12 clips of 900 frames, horizon 90, 18 features of noise beside the four
that matter), or --tables. `--train` runs the 300 batches instead of projecting them (wall-clock).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.generated_tables import generated_table
from vidseg_core.episodes.environment import Environment
from vidseg_core.episodes.rollout import Rollout, batch_random, roll_out, sampled, start_random
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.models.policy import Policy
from vidseg_core.training.policy_gradient import add_gradients, advantages
from vidseg_core.training.policy_loop import PolicyOptions, new_policy, train_policy

EPISODES, TRIALS, BATCH, SEED = 2400, 32, 8, 0
RARE = 4.0
"""Taken off the key logit: about two keys in a hundred frames."""
PLAIN_TRIALS = 2
"""Trials of the plain loop per repetition; its rate does not depend on how many."""


def wide_table(seed: int, frames: int = 900) -> EpisodeTable:
    """A generated table with as many features as the cheap ones."""
    table = generated_table(frames, 90, seed=seed)
    noise = np.random.default_rng(seed).random((*table.quality_TL1.shape, 14), np.float32)
    return dataclasses.replace(
        table,
        deviation_TL1F=np.concatenate([table.deviation_TL1F, noise], axis=2),
        feature_names=(*table.feature_names, *(f"noise_{number}" for number in range(14))),
    )


def rare_policy(tables: TableSet) -> Policy:
    policy = new_policy("light", tables, SEED)
    with torch.no_grad():
        policy.last.weight.mul_(0.1)
        policy.last.bias.copy_(torch.tensor([RARE, 0.0]))
    return policy


def batch(environment: Environment, policy: Policy, number: int) -> tuple[Rollout, float]:
    """One batch of 8 x 32 walks and its CPU seconds."""
    frames = environment.rules.frames
    started = time.process_time()
    environment.reset(environment.draw_starts(start_random(SEED, number), BATCH), TRIALS)
    uniform_SN = batch_random(SEED, number, range(BATCH), BATCH, TRIALS, frames - 1)
    rollout = roll_out(environment, policy.key_rate, sampled(uniform_SN, 0.98))
    return rollout, time.process_time() - started


def update(environment: Environment, policy: Policy, rollout: Rollout) -> float:
    """CPU seconds of the gradient and one step of RMSProp."""
    optimiser = torch.optim.RMSprop(policy.parameters(), lr=0.0)
    started = time.process_time()
    merit_SN = advantages(rollout, TRIALS, credit="return", baseline="none", gamma=1.0)
    add_gradients(policy, environment, rollout, merit_SN, entropy_weight=0.14 / max(1, rollout.decisions))
    optimiser.step()
    return time.process_time() - started


def plain(tables: TableSet, policy: Policy, environment: Environment, number: int) -> tuple[int, float]:
    """Decisions and CPU seconds of trials that are walked one at a time, as one would write it first."""
    rules = environment.rules
    rng = np.random.default_rng(number)
    starts_B2 = environment.draw_starts(start_random(SEED, number), PLAIN_TRIALS).tolist()
    decisions, started = 0, time.process_time()
    for table, start in starts_B2:
        first, frames = int(tables.first_C[table]), int(tables.frames_C[table])
        keys, key, returned = [True], start, 0.0
        while start + len(keys) < frames and len(keys) < rules.frames:
            window = keys[-rules.history :]
            if sum(window) > rules.eta * rules.history:
                break
            frame = start + len(keys)
            lkd = frame - key
            is_key = lkd >= environment.max_interval
            if not is_key:
                state = (
                    tables.deviation_RL1F[first + key, lkd][None],
                    np.array([sum(window) / len(window)], np.float32),
                    np.array([lkd], np.float32),
                )
                rate = float(policy.key_rate(*state)[0])
                is_key = rng.random() < min(max(rate, 0.02), 0.98)
                decisions += 1
            if is_key:
                returned += tables.quality_RL1[first + frame, 0] - tables.quality_RL1[first + key, lkd]
                key = frame
            keys.append(is_key)
    return decisions, time.process_time() - started


def measure(tables: TableSet, repeat: int) -> dict[str, Any]:
    environment = Environment(tables, PolicyOptions(folder=Path()).rules())
    policy = rare_policy(tables)
    batch(environment, policy, 0)
    together, alone, gradients, per_batch = [], [], [], []
    for number in range(1, repeat + 1):
        rollout, seconds = batch(environment, policy, number)
        together.append(rollout.decisions / seconds)
        per_batch.append(seconds)
        gradients.append(update(environment, policy, rollout))
        decisions, seconds = plain(tables, policy, environment, number)
        alone.append(decisions / seconds)
    batches = EPISODES // BATCH
    return {
        "decisions_per_s": statistics.median(together),
        "plain_decisions_per_s": statistics.median(alone),
        "ratio": statistics.median(t / a for t, a in zip(together, alone, strict=True)),
        "projected_rollout_s": batches * statistics.median(per_batch),
        "projected_gradient_s": batches * statistics.median(gradients),
        "frames_per_walk": float(rollout.length_N.mean()) + 1,
    }


def train_all(tables: TableSet) -> dict[str, Any]:
    """The whole run, validation left out, by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        outcome = train_policy(tables, None, PolicyOptions(folder=Path(folder), save_every=100))
        seconds = time.perf_counter() - started
    decisions = sum(int(row["decisions"]) for row in outcome.rows)
    return {
        "trained_s": seconds,
        "trained_decisions": decisions,
        "mean_return": outcome.rows[-1]["mean_return"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--tables")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--train", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    listed = load_tables(chosen.tables) if chosen.tables else [wide_table(number) for number in range(12)]
    tables = join_tables(listed)
    found = measure(tables, chosen.repeat)
    print(
        f"decisions/s on one core: {found['decisions_per_s']:,.0f} together, "
        f"{found['plain_decisions_per_s']:,.0f} one at a time; {found['ratio']:.0f} times (asked: 30)"
    )
    projected = found["projected_rollout_s"] + found["projected_gradient_s"]
    print(
        f"{EPISODES} episodes x {TRIALS} trials of {found['frames_per_walk']:.0f} frames, `light`, one core: "
        f"{projected / 60:.1f} min (rollouts {found['projected_rollout_s'] / 60:.1f}, gradients "
        f"{found['projected_gradient_s'] / 60:.1f}); asked: 10 on two cores; DVRL: 2.5 GPU-days"
    )
    if chosen.train:
        found |= train_all(tables)
        print(f"trained in {found['trained_s'] / 60:.1f} min by the clock, operating points included")
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
