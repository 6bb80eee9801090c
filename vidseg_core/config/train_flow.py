"""Configuration of ``vidseg train-flow``. Recipe, data and seed decide the weights; the rest says where."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vidseg_core.config.catalogue import NET_FLOWS, SCALED_FLOWS
from vidseg_core.config.errors import check, check_int, check_name, check_positive
from vidseg_core.config.nets import NAMED_NETS, NET_FAMILIES
from vidseg_core.config.recipes import FlowRecipe
from vidseg_core.config.schema import flat_dict, redact, to_yaml

__all__ = ["TrainFlowConfig"]

"""Those that can have a scale field."""


@dataclass(frozen=True, kw_only=True)
class TrainFlowConfig:
    """Train a flow net on clips with the segmentation net frozen (DFF, DVRL 4.2).

    --data and --output suffice. The same command again continues a run that was stopped.
    """

    data: tuple[str, ...]
    """data sets of clips, NAME:PATH?options, e.g. face:/data/face; labelled or not; repeatable"""
    pictures: tuple[str, ...] = ()
    """data sets whose frames serve only as textures of made pairs; repeatable"""
    output: str
    """local or shared folder for weights, checkpoint and run.json"""
    split: str = "all"
    """split of the data sets"""
    val_clips: tuple[str, ...] = ()
    """clips (video ids) to leave out of training and to score by gap at the end"""
    max_frames: int = 600
    """at most so many frames of a clip, from its start; clips lie in memory"""
    size: int = 256
    """longest side at which clips are kept, pixels; 32 to 4096"""

    net: str = "tiny-flow"
    """flow net to train: tiny-flow, flownet_s, flownet2_s, spynet or raft"""
    weights: str | None = None
    """file with weights to begin with; None: drawn with the seed"""
    segmenter: str | None = None
    """frozen N whose scores are warped; None: the labels themselves stand in for its output"""
    segmenter_weights: str | None = None
    """file with the segmenter's weights; None: its own"""
    scale_field: Literal["off", "scores", "features"] = "off"
    """also learn DFF's scale field, for warping at that --propagation.level; goes with --segmenter"""
    steps: int | None = None
    """optimiser steps; None: recipe.steps"""
    seed: int = 0
    """seed of weights and pairs"""

    recipe: FlowRecipe = field(default_factory=FlowRecipe)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the net is trained"""
    workers: int = 1
    """training workers; they divide the pairs of each step"""
    threads: int = 1
    """CPU threads of a worker (may change the last bits); at least 1"""
    max_failures: int = 3
    """so many times a killed worker is replaced; -1: without end"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory for the clips (local Ray), MB; at least 128; None: 2000"""
    save_every: int = 200
    """steps between checkpoints; what a killed worker may cost"""
    gaps: tuple[str, ...] = ("1", "5", "10", "20", "30")
    """gaps at which --val_clips are scored, frames"""

    dry_run: bool = False
    """count the data, train nothing"""
    log_every: int = 50
    """steps between lines of progress"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "data": "what to learn from, and where to",
        "net": "the nets",
        "device": "resources and scores",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        for name in ("data", "pictures", "val_clips", "gaps"):
            object.__setattr__(self, name, tuple(str(item) for item in getattr(self, name)))
        if self.steps is not None:
            check_int("--steps", self.steps, 1, unit="step(s)")
            object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, steps=self.steps))
        self._check_places()
        check_name("--net", self.net, NET_FLOWS)
        check(":" not in self.net, "--net", f"must be one of {', '.join(NET_FLOWS)}")
        if self.segmenter is not None:
            check_name("--segmenter", self.segmenter, NAMED_NETS, NET_FAMILIES)
        self._check_numbers()
        _check_recipe(self.recipe)

    def _check_places(self) -> None:
        check(bool(self.data), "--data", "needs at least one data set, e.g. face:/data/face")
        check(bool(self.output.strip()), "--output", "must name a folder")
        check("://" not in self.output, "--output", "must be a local or shared folder")
        for option, texts in (("--data", self.data), ("--pictures", self.pictures)):
            for text in texts:
                check(bool(text.strip()), option, "must not be empty")
                problem = f"holds credentials ({redact(text)}); they belong in the environment"
                check(redact(text) == text, option, problem)
        both = self.segmenter is None and self.segmenter_weights is not None
        check(not both, "--segmenter_weights", "goes with --segmenter")
        self._check_scale()

    def _check_scale(self) -> None:
        known = ("off", "scores", "features")
        problem = f"must be one of {', '.join(known)}, got {self.scale_field!r}"
        check(self.scale_field in known, "--scale_field", problem)
        if self.scale_field == "off":
            return
        check(self.segmenter is not None, "--scale_field", "goes with --segmenter, whose maps it multiplies")
        problem = f"goes with --net {', '.join(SCALED_FLOWS)}, not {self.net}"
        check(self.net in SCALED_FLOWS, "--scale_field", problem)

    def _check_numbers(self) -> None:
        check_int("--max_frames", self.max_frames, 2, unit="frames")
        check_int("--size", self.size, 32, 4096, "pixels")
        check_int("--seed", self.seed, 0, 2**63 - 1)
        for name in ("workers", "threads", "save_every", "log_every"):
            check_int(f"--{name}", getattr(self, name), 1)
        check_int("--max_failures", self.max_failures, -1)
        if self.object_store_mb is not None:
            check_int("--object_store_mb", self.object_store_mb, 128, unit="MB")
        problem = f"must be at most --recipe.batch {self.recipe.batch}, got {self.workers}"
        check(self.workers <= self.recipe.batch, "--workers", problem)
        for text in self.gaps:
            check(text.isdigit() and int(text) >= 1, "--gaps", f"must be whole numbers from 1, got {text!r}")

    @property
    def gap_numbers(self) -> tuple[int, ...]:
        """`gaps` as numbers."""
        return tuple(int(text) for text in self.gaps)

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the weights, by dotted option name; data come by content, not by place."""
        names = ("net", "segmenter", "scale_field", "size", "seed", "max_frames", "val_clips", "workers")
        return {
            name: value
            for name, value in flat_dict(self).items()
            if name in names or name.startswith("recipe.")
        }

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)


def _check_recipe(recipe: FlowRecipe) -> None:
    for name in ("height", "width"):
        side = getattr(recipe, name)
        check_int(f"--recipe.{name}", side, 32, 2048, "pixels")
        check(side % 32 == 0, f"--recipe.{name}", f"must be a multiple of 32, got {side}")
    check_int("--recipe.max_gap", recipe.max_gap, 1, 1000, "frames")
    for name, high in (("exact_share", 1.0), ("warm_share", 1.0), ("task", 1e6), ("photo", 1e6)):
        value = getattr(recipe, name)
        fine = isinstance(value, (int, float)) and 0 <= value <= high
        check(fine, f"--recipe.{name}", f"must be a number from 0 to {high:g}, got {value!r}")
    check(recipe.smooth >= 0, "--recipe.smooth", f"must be a number from 0 up, got {recipe.smooth!r}")
    check_int("--recipe.steps", recipe.steps, 1, unit="step(s)")
    check_int("--recipe.batch", recipe.batch, 1, 65536, "pairs")
    check_positive("--recipe.lr", recipe.lr)
    check(0 <= recipe.ema < 1, "--recipe.ema", f"must be from 0 to below 1, got {recipe.ema}")
