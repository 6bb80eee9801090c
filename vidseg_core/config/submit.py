"""Configuration of `vidseg submit`: which cluster, and how; the job itself follows after `--`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidseg_core.config.errors import check
from vidseg_core.config.schema import redact

__all__ = ["CLUSTER_VERBS", "SubmitConfig"]

CLUSTER_VERBS = (
    "segment",
    "pseudo-label",
    "build-episodes",
    "train-segmenter",
    "train-flow",
    "train-propagation",
    "train-policy",
    "train-decision",
    "train-planner",
    "evaluate",
    "tune",
)
"""Verbs that are worth a cluster."""
_DEFAULT_PLACE = "http://127.0.0.1:8265"


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Run a verb as a job of a Ray cluster: vidseg submit [options] -- VERB ...

    The job is named after the command: the same command again follows the job that runs, or goes on with one
    that has ended. Exit code: that of the verb.
    """

    address: str | None = None
    """http://HOST:PORT of the cluster's job server; default $RAY_API_SERVER_ADDRESS, else this machine's"""
    working_dir: str | None = None
    """folder to send (YAML files, plug-ins), at most 100 MiB; the job starts and looks up --config in it"""
    follow: bool = True
    """print the job's log until it ends; --no-follow returns at once"""
    stop: bool = False
    """ask the job of this command to end instead"""
    dry_run: bool = False
    """say what would be submitted"""
    log: Literal["text", "json"] = "text"
    """how messages are printed"""

    def __post_init__(self) -> None:
        if self.address is not None:
            fine = self.address.startswith(("http://", "https://")) and redact(self.address) == self.address
            check(fine, "--address", "must look like http://HOST:PORT, without credentials in it")
        if self.working_dir is not None:
            check(Path(self.working_dir).is_dir(), "--working_dir", f"{self.working_dir} is not a folder")

    @property
    def place(self) -> str:
        return self.address or os.environ.get("RAY_API_SERVER_ADDRESS") or _DEFAULT_PLACE
