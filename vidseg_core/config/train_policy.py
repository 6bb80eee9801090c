"""Configuration of ``vidseg train-policy``. Tables, rules, recipe and seed decide the policy; the rest says
where and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vidseg_core.config.errors import check, check_int, check_positive
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.schema import flat_dict, redact, to_yaml

KINDS = ("light", "dvrl", "paced")
__all__ = ["TrainPolicyConfig", "check_common", "check_episode", "check_kind", "check_reinforce"]


@dataclass(frozen=True, kw_only=True)
class TrainPolicyConfig:
    """Learn a key frame policy by REINFORCE on the tables of build-episodes (DVRL, CVPR 2020).

    --tables and --output suffice. The same command again continues a run that was stopped.
    """

    tables: str
    """folder or s3://bucket/prefix that build-episodes wrote"""
    output: str
    """local or shared folder for policy.safetensors, checkpoints, curve and run.json"""
    policy: Literal["light", "dvrl", "paced"] = "light"
    """light: small, for cheap features; dvrl: the paper's net, for maps (flownet_conv6); paced: starts as a
    fixed interval (--episode.interval) and learns when to be early or late"""
    features: tuple[str, ...] = ()
    """deviation features (or sets) of the tables that the policy reads; none: all of them; for dvrl one set
    of maps"""
    decision: str | None = None
    """file of train-decision to put inside: the policy reads what it expects to be lost"""
    intervals: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """average key intervals to find thresholds for, and to validate at; above 1"""
    val_clips: tuple[str, ...] = ()
    """clips to validate on, and to leave out of training; none: drawn by --val_share"""
    val_share: float = 0.2
    """share of the clips drawn for validation; 0: none, the last policy is taken; below 1"""
    seed: int = 0
    """seed of the net, the episodes, the walks and the validation clips"""

    episode: EpisodeRecipe = field(default_factory=EpisodeRecipe)
    reinforce: ReinforceRecipe = field(default_factory=ReinforceRecipe)

    workers: int = 1
    """workers; they share the episodes of each batch"""
    threads: int = 1
    """CPU threads of a worker (may change the last bits); at least 1"""
    max_failures: int = 3
    """so many times a killed worker is replaced; -1: without end"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory for the tables (local Ray), MB; at least 128; None: 2000"""

    dry_run: bool = False
    """check the tables, time one batch, train nothing"""
    val_every: int = 25
    """batches between validations; the last one validates always"""
    save_every: int = 25
    """batches between checkpoints; what a killed worker may cost"""
    log_every: int = 5
    """batches between points of the curve"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "tables": "what to learn from, and where to",
        "policy": "the policy, and how it is judged",
        "workers": "resources",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        check_common(self)
        object.__setattr__(self, "features", tuple(self.features))
        check_kind(self.policy, self.episode)
        inside = self.decision is None or self.policy != "dvrl"
        check(inside, "--decision", "goes with --policy light or paced; dvrl reads maps")
        check_episode(self.episode)
        check_reinforce(self.reinforce)
        for name in ("val_every", "save_every", "log_every"):
            check_int(f"--{name}", getattr(self, name), 1, unit="batch(es)")
        problem = f"must divide --reinforce.batch {self.reinforce.batch} without rest, got {self.workers}"
        check(self.reinforce.batch % self.workers == 0, "--workers", problem)

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the policy besides the tables, by dotted option name."""
        names = ("policy", "features", "intervals", "val_clips", "val_share", "seed", "workers", "val_every")
        return {
            name: value
            for name, value in flat_dict(self).items()
            if name in names or name.startswith(("episode.", "reinforce."))
        }

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)


def check_common(config: Any) -> None:
    """What train-policy and train-decision have in common; lists become tuples."""
    for name in ("val_clips", "intervals"):
        object.__setattr__(config, name, tuple(getattr(config, name)))
    check(bool(config.tables.strip()), "--tables", "must name a folder or s3://bucket/prefix")
    problem = f"holds credentials ({redact(config.tables)}); they belong in the environment"
    check(redact(config.tables) == config.tables, "--tables", problem)
    check(bool(config.output.strip()), "--output", "must name a folder")
    check("://" not in config.output, "--output", "must be a local or shared folder")
    check(bool(config.intervals), "--intervals", "needs at least one")
    for interval in config.intervals:
        check_positive("--intervals", interval, "frames")
        check(interval > 1, "--intervals", f"must be above 1 frame, got {interval:g}")
    check_range("--val_share", config.val_share, 0.0, 0.99)
    check_int("--seed", config.seed, 0, 2**63 - 1)
    check_int("--workers", config.workers, 1)
    check_int("--threads", config.threads, 1)
    check_int("--max_failures", config.max_failures, -1)
    if config.object_store_mb is not None:
        check_int("--object_store_mb", config.object_store_mb, 128, unit="MB")


def check_range(option: str, value: object, low: float, high: float) -> None:
    """`ConfigError` unless the value is a number from `low` to `high`."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    check(fine, option, f"must be a number from {low:g} to {high:g}, got {value!r}")


def check_episode(episode: EpisodeRecipe) -> None:
    """What an episode may be."""
    check_int("--episode.frames", episode.frames, 2, 100_000, "frames")
    check_range("--episode.eta", episode.eta, 0.0, 1.0)
    check(episode.eta > 0, "--episode.eta", "must be above 0: the first frame is a key")
    check_int("--episode.history", episode.history, 1, 10_000, "decisions")
    if episode.max_interval is not None:
        check_int("--episode.max_interval", episode.max_interval, 1, 10_000, "frames")
    check(episode.reward in ("gain", "shown"), "--episode.reward", "must be gain or shown")
    check(episode.sides in ("one", "two"), "--episode.sides", "must be one or two")
    two = episode.sides == "two" and episode.reward != "shown"
    check(not two, "--episode.sides", "two goes with --episode.reward shown")
    if episode.interval is not None:
        check_positive("--episode.interval", episode.interval, "frames")
        check(episode.interval > 1, "--episode.interval", f"must be above 1 frame, got {episode.interval:g}")
        priced = episode.reward == "shown"
        check(priced, "--episode.interval", "goes with --episode.reward shown")


def check_kind(kind: str, episode: EpisodeRecipe) -> None:
    """A policy that exists, and episodes that it can begin with."""
    check(kind in KINDS, "--policy", f"must be light, dvrl or paced, got {kind!r}")
    bare = kind == "paced" and episode.interval is None
    check(not bare, "--episode.interval", "is needed by --policy paced, which starts from it")


def check_reinforce(recipe: ReinforceRecipe) -> None:
    """The options of the policy gradient."""
    check_int("--reinforce.episodes", recipe.episodes, 1)
    check_int("--reinforce.batch", recipe.batch, 1, 4096, "episodes")
    check_int("--reinforce.trials", recipe.trials, 1, 4096)
    check_positive("--reinforce.lr", recipe.lr)
    check_range("--reinforce.gamma", recipe.gamma, 0.0, 1.0)
    check_range("--reinforce.epsilon", recipe.epsilon, 0.5, 1.0)
    check_range("--reinforce.entropy", recipe.entropy, 0.0, 1e3)
    for name, known in (
        ("entropy_over", ("mean", "sum")),
        ("credit", ("return", "to_go")),
        ("baseline", ("none", "mean", "leave_one_out")),
    ):
        value = getattr(recipe, name)
        check(value in known, f"--reinforce.{name}", f"must be one of {', '.join(known)}, got {value!r}")
    alone = recipe.baseline != "none" and recipe.trials < 2
    check(not alone, "--reinforce.baseline", f"{recipe.baseline} needs at least 2 --reinforce.trials")
