"""Configuration of ``vidseg tune``: what is searched, on which tables, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vidseg_core.config.errors import check, check_int
from vidseg_core.config.schema import flat_dict, to_yaml
from vidseg_core.config.train_policy import check_common

__all__ = ["TuneConfig"]


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Search policies and schedulers for quality and key interval at once (Optuna on Ray Tune).

    Trials learn on the tables of build-episodes; the best are trained again in full. The same command again
    continues a search that was stopped.
    """

    tables: str
    """folder or s3://bucket/prefix that build-episodes wrote"""
    space: str
    """search spaces: policies, schedulers (both in the package), or a YAML file (tune_spaces/README.md)"""
    output: str
    """local or shared folder for trials.parquet, pareto.parquet, pareto.png, finalists and run.json"""
    spaces: tuple[str, ...] = ()
    """only these spaces of the file (repeatable); none: all"""
    trials: int = 30
    """settings to try"""
    sides: Literal["one", "two"] = "one"
    """propagation under which trials are judged; two needs two-sided tables"""
    val_clips: tuple[str, ...] = ()
    """clips that trials are judged on, and do not learn from; none: drawn by --val_share"""
    val_share: float = 0.3
    """share of the clips drawn for that; above 0, below 1"""
    seed: int = 0
    """seed of the search, of the policies and of the clips that are judged on"""

    decision: str | None = None
    """file of train-decision to put inside of every policy (not dvrl), as --decision of train-policy"""
    episodes: int = 240
    """episodes that a policy of a trial learns from (its space may set reinforce.episodes instead)"""
    early_stop: bool = True
    """end a trial whose policy falls behind the median of the others, or whose entropy has collapsed"""
    finalists: int = 3
    """policies of the Pareto front that are trained again, on Ray Train; 0: none"""
    final_episodes: int = 2400
    """episodes that finalists learn from"""
    intervals: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """average key intervals at which policies are validated and finalists get operating points; above 1"""

    concurrent: int = 0
    """trials at a time; 0: one per CPU"""
    workers: int = 1
    """workers that train a finalist"""
    threads: int = 1
    """CPU threads of a trial (may change the last bits); at least 1"""
    max_failures: int = 3
    """so many times a killed trial or worker is started again; -1: without end"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory for the tables (local Ray), MB; at least 128; None: 2000"""

    dry_run: bool = False
    """check space and tables, time one batch, search nothing"""
    limit: int | None = None
    """only the first so many trials; at least 1"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "tables": "what is searched, on what, and where to",
        "decision": "trials and finalists",
        "concurrent": "resources",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", tuple(self.spaces))
        check_common(self)
        check(bool(self.space.strip()), "--space", "must name search spaces, or a YAML file of them")
        check(self.sides in ("one", "two"), "--sides", f"must be one or two, got {self.sides!r}")
        judged = bool(self.val_clips) or self.val_share > 0
        check(
            judged, "--val_share", "must be above 0: trials are judged on clips that they do not learn from"
        )
        check_int("--trials", self.trials, 1, 100_000)
        for name in ("episodes", "final_episodes"):
            check_int(f"--{name}", getattr(self, name), 8, unit="episodes")
        check_int("--finalists", self.finalists, 0, 1000)
        check_int("--concurrent", self.concurrent, 0)
        if self.limit is not None:
            check_int("--limit", self.limit, 1, unit="trial(s)")

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the search besides the tables and the space, by dotted option name."""
        names = (
            "spaces",
            "trials",
            "limit",
            "sides",
            "val_clips",
            "val_share",
            "seed",
            "episodes",
            "early_stop",
            "intervals",
        )
        return {name: value for name, value in flat_dict(self).items() if name in names}

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)
