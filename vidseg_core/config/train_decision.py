"""Configuration of ``vidseg train-decision``. Tables, steps and seed decide the net; the rest says where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vidseg_core.config.errors import check, check_int, check_positive
from vidseg_core.config.schema import flat_dict, to_yaml
from vidseg_core.config.train_policy import check_common

__all__ = ["TrainDecisionConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainDecisionConfig:
    """Learn DVSNet's decision net on the tables of build-episodes: how good a propagated frame will be.

    --tables and --output suffice. It takes seconds to minutes and starts no Ray.
    """

    tables: str
    """folder or s3://bucket/prefix that build-episodes wrote"""
    output: str
    """local folder for decision.safetensors, curve and run.json"""
    net: Literal["light", "dvrl"] = "light"
    """light: small, for cheap features; dvrl: one convolution and layers, for maps of the flow net"""
    features: tuple[str, ...] = ()
    """deviation features, or sets (flow), that the net reads; none: all; for dvrl one set of maps"""
    intervals: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """average key intervals to find thresholds for; above 1"""
    max_interval: int | None = None
    """forced key interval for them, frames; None: the horizon of the tables"""
    val_clips: tuple[str, ...] = ()
    """clips to validate on, and to leave out of training; none: drawn by --val_share"""
    val_share: float = 0.2
    """share of the clips drawn for validation; 0: none, the last net is taken; below 1"""
    seed: int = 0
    """seed of the net, the order and the validation clips"""

    steps: int = 2000
    """steps of Adam"""
    batch: int = 256
    """pairs per step"""
    lr: float = 1e-3
    """learning rate of Adam"""
    flow_weights: str | None = None
    """file with the weights of the tables' flow net, where maps are not in the tables and are made again"""
    map_pairs: int = 4000
    """pairs of which maps are made then"""

    threads: int = 1
    """CPU threads (may change the last bits); at least 1"""

    dry_run: bool = False
    """check the tables, train nothing"""
    val_every: int = 100
    """steps between validations and points of the curve"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "tables": "what to learn from, and where to",
        "steps": "the recipe",
        "threads": "resources",
        "dry_run": "this run",
    }

    workers: ClassVar[int] = 1
    max_failures: ClassVar[int] = 0
    object_store_mb: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_common(self)
        object.__setattr__(self, "features", tuple(self.features))
        check(self.net in ("light", "dvrl"), "--net", f"must be light or dvrl, got {self.net!r}")
        check_int("--map_pairs", self.map_pairs, 1, 1_000_000, "pairs")
        check_int("--steps", self.steps, 1)
        check_int("--batch", self.batch, 1, 65_536, "pairs")
        check_positive("--lr", self.lr)
        check_int("--val_every", self.val_every, 1, unit="step(s)")
        if self.max_interval is not None:
            check_int("--max_interval", self.max_interval, 1, 10_000, "frames")

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the net besides the tables, by option name."""
        places = ("tables", "output", "flow_weights", "threads", "dry_run", "log")
        unsaid = ("features",) * (not self.features) + ("map_pairs",) * (
            self.map_pairs == type(self).map_pairs
        )
        return {name: value for name, value in flat_dict(self).items() if name not in (*places, *unsaid)}

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)
