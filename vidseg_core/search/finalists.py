"""What a search works with, and its finalists: the best policies of its front, trained in full.

Model: a finalist learns by the job of ``train-policy`` with the options of its trial, and is judged at the
trial's key interval on the clips that no trial has learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidseg_core.config.errors import ConfigError, check
from vidseg_core.config.spaces import PolicyTrial, Space
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.config.tune import TuneConfig
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import policy_digest, read_policy
from vidseg_core.search.front import choose_finalists
from vidseg_core.search.space import Definition, open_spaces
from vidseg_core.search.trial import Task, only_features
from vidseg_core.training.policy_job import check_made_alike, features_read, read_decision, run_train_policy
from vidseg_core.training.policy_loop import POLICY
from vidseg_core.training.split import digests, open_tables

FINALISTS = "finalists"


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a search works with: spaces, clips to learn from and to be judged on, a net for policies."""

    config: TuneConfig
    definition: Definition
    tables: TableSet
    validation: TableSet
    decision: DecisionNet | None

    def task(self, folder: Path, desk: str = "") -> Task:
        """What its trials have in common."""
        config = self.config
        return Task(
            definition=self.definition,
            folder=str(folder),
            desk=desk,
            sides=config.sides,
            intervals=config.intervals,
            episodes=config.episodes,
            early_stop=config.early_stop,
            threads=config.threads,
            seed=config.seed,
            decision=self.decision,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What decides its outcomes besides options and spaces."""
        inside = {"decision": policy_digest(self.config.decision)} if self.config.decision else {}
        return digests(self.tables, self.validation) | inside


def open_material(config: TuneConfig) -> Material:
    """`ConfigError`, `EpisodeError` or `PolicyError` for what is not there or does not fit together."""
    definition = open_spaces(config.space, config.spaces)
    tables, validation = open_tables(config.tables, config.val_clips, config.val_share, config.seed)
    if validation is None:
        raise ConfigError("--tables", "hold one clip only; trials need others to be judged on")
    if config.sides == "two" and validation.two_sided_RL1 is None:
        raise ConfigError("--sides", "two needs tables built with --two_sided_stride 1")
    return Material(
        config=config,
        definition=definition,
        tables=tables,
        validation=validation,
        decision=_decision(config, definition, tables),
    )


def _decision(config: TuneConfig, definition: Definition, tables: TableSet) -> DecisionNet | None:
    """The net that policies have inside; ``ConfigError`` or `PolicyError` where it does not fit."""
    if config.decision is None:
        return None
    net, made_with = read_decision(config.decision)
    check_made_alike(made_with, tables.fingerprint)
    kinds = [kind for space in definition.spaces if space.verb == "train-policy" for kind in _kinds(space)]
    check(bool(kinds), "--decision", f"is for policies, and {config.space} holds no space of train-policy")
    check("dvrl" not in kinds, "--decision", "goes with policies light and paced; dvrl reads maps")
    return net


def _kinds(space: Space) -> list[str]:
    """The kinds of policies that may come out of a space."""
    varied = [item.choices for item in space.parameters if item.option == "policy"]
    return [*(varied[0] if varied else [space.fixed.get("policy", PolicyTrial().policy)])]


def train_finalists(
    search: Material, folder: Path, outcomes: Sequence[dict[str, Any]], report: Reporter
) -> dict[str, dict[str, Any]]:
    """By trial: the folder of the policy that was trained in full, and what it reaches."""
    spaces = {space.name: space for space in search.definition.spaces}
    finals: dict[str, dict[str, Any]] = {}
    chosen = choose_finalists(outcomes, search.config.finalists)
    for number, place in enumerate(chosen):
        outcome = outcomes[place]
        options = ", ".join(f"{name} {_short(value)}" for name, value in outcome["options"].items())
        report.say(f"finalist {number + 1}/{len(chosen)}: {outcome['space']}, {options}")
        clips = tuple(sorted(set(search.validation.videos)))
        final = _final_config(search.config, folder, spaces[outcome["space"]], outcome, clips)
        run_train_policy(final, report)
        finals[outcome["trial"]] = _judged(search, final, outcome)
    return finals


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _final_config(
    config: TuneConfig, folder: Path, space: Space, outcome: dict[str, Any], val_clips: tuple[str, ...]
) -> TrainPolicyConfig:
    """The full training of a trial's policy, with an operating point at the trial's key interval."""
    trial = space.trial(outcome["options"])
    own = (round(outcome["aki"], 1),) if outcome["aki"] > 1.05 else ()
    return TrainPolicyConfig(
        tables=config.tables,
        output=str(folder / FINALISTS / outcome["trial"]),
        policy=trial.policy,
        features=trial.features,
        decision=config.decision,
        intervals=tuple(dict.fromkeys((*config.intervals, *own))),
        val_clips=val_clips,
        seed=trial.seed or config.seed,
        episode=trial.episode,
        reinforce=replace(trial.reinforce, episodes=config.final_episodes),
        workers=config.workers,
        threads=config.threads,
        max_failures=config.max_failures,
        log=config.log,
    )


def _judged(search: Material, final: TrainPolicyConfig, outcome: dict[str, Any]) -> dict[str, Any]:
    file = Path(final.output) / POLICY
    net, _ = read_policy(file)
    features = features_read(final.features, search.decision)
    seen = only_features(search.validation, features) if features else search.validation
    sides: Any = search.config.sides
    operator = Operator(
        seen, max_interval=final.episode.max_interval, history=final.episode.history, sides=sides
    )
    point = operator.find(net.key_rate, [outcome["aki"]])[0]
    return {
        "finalist": f"{FINALISTS}/{outcome['trial']}",
        "final_quality": float(point.quality_P[0]),
        "final_aki": float(point.aki_P[0]),
        "final_threshold": float(point.threshold_P[0]),
    }
