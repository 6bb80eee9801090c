"""Configuration of ``vidseg train-propagation``. Recipe, data, net and seed decide the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vidseg_core.config.catalogue import BESIDE, LEARNED, PROPAGATORS
from vidseg_core.config.errors import check, check_choice, check_int, check_name, check_positive
from vidseg_core.config.nets import NAMED_NETS, NET_FAMILIES
from vidseg_core.config.recipes import PropagationRecipe, SharingRecipe
from vidseg_core.config.schema import flat_dict, redact, to_yaml

__all__ = ["TrainPropagationConfig"]

LATER = ("recipe.crossed",)
"""Switches that came later: where they are off, a run that began before goes on."""


@dataclass(frozen=True, kw_only=True)
class TrainPropagationConfig:
    """Train what fills the frames between keys for one net (lvs: the net itself frozen).

    --data, --segmenter and --output suffice. The same command again continues a run that was stopped.
    """

    data: tuple[str, ...]
    """data sets of clips, NAME:PATH?options, e.g. face:/data/face; labelled or not; repeatable"""
    segmenter: str
    """net whose gaps are to be filled, e.g. tiny-face, smp:ARCH/resnetN; lvs: one in parts, frozen"""
    segmenter_weights: str | None = None
    """file with the segmenter's weights; None: its own"""
    output: str
    """local or shared folder for weights, checkpoint and run.json"""
    propagator: str = "lvs"
    """what is trained: {learned}"""
    split: str = "all"
    """split of the data sets"""
    val_clips: tuple[str, ...] = ()
    """clips (video ids) to leave out of training and to score by gap at the end"""
    max_frames: int = 600
    """at most so many frames of a clip, from its start; clips lie in memory"""
    size: int = 256
    """longest side at which clips are kept, pixels; 32 to 4096"""

    kernel: int = 9
    """lvs: side of the kernels, pixels of the feature map (H_K); odd, 1 to 31"""
    light: str | None = None
    """accel, grfp: net that runs on every frame and is trained along, e.g. tiny:8, smp:ARCH/ENCODER"""
    light_weights: str | None = None
    """accel, grfp: file with the light net's weights to begin with; None: drawn with the seed"""
    steps: int | None = None
    """optimiser steps; None: recipe.steps"""
    seed: int = 0
    """seed of weights and pairs"""

    recipe: PropagationRecipe = field(default_factory=PropagationRecipe)
    sharing: SharingRecipe = field(default_factory=SharingRecipe)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where it is trained"""
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
    gaps: tuple[str, ...] = ("1", "2", "3", "5", "10", "20")
    """gaps at which --val_clips are scored, frames"""

    dry_run: bool = False
    """count the data, train nothing"""
    log_every: int = 50
    """steps between lines of progress"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "data": "what to learn from, and where to",
        "kernel": "the net and how it learns",
        "device": "resources and scores",
        "dry_run": "this run",
    }

    HELP_WORDS: ClassVar[Mapping[str, str]] = {"learned": ", ".join(LEARNED)}

    def __post_init__(self) -> None:
        for name in ("data", "val_clips", "gaps"):
            object.__setattr__(self, name, tuple(str(item) for item in getattr(self, name)))
        if self.steps is not None:
            check_int("--steps", self.steps, 1, unit="step(s)")
            object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, steps=self.steps))
        check_choice("--propagator", self.propagator, LEARNED)
        check_name("--segmenter", self.segmenter, NAMED_NETS, NET_FAMILIES)
        self._check_light()
        self._check_owners()
        self._check_places()
        self._check_numbers()

    def _check_light(self) -> None:
        if self.propagator in BESIDE:
            problem = f"must name the net that {self.propagator} runs on every frame, e.g. tiny:8"
            check(self.light is not None, "--light", problem)
            check_name("--light", str(self.light), NAMED_NETS, NET_FAMILIES)

    def _check_owners(self) -> None:
        """What only other propagators learn by is left as it is, since nobody would read it."""
        given = flat_dict(self)
        for option, default in _defaults().items():
            owners = [name for name in LEARNED if option in PROPAGATORS[name].takes]
            problem = f"has no effect on {self.propagator}; it goes with {', '.join(owners)}"
            check(not owners or self.propagator in owners or given[option] == default, f"--{option}", problem)

    def _check_places(self) -> None:
        check(bool(self.data), "--data", "needs at least one data set, e.g. face:/data/face")
        for text in self.data:
            check(bool(text.strip()), "--data", "must not be empty")
            problem = f"holds credentials ({redact(text)}); they belong in the environment"
            check(redact(text) == text, "--data", problem)
        check(bool(self.output.strip()), "--output", "must name a folder")
        check("://" not in self.output, "--output", "must be a local or shared folder")

    def _check_numbers(self) -> None:
        check_int("--seed", self.seed, 0, 2**63 - 1)
        if self.object_store_mb is not None:
            check_int("--object_store_mb", self.object_store_mb, 128, unit="MB")
        check_int("--max_frames", self.max_frames, 2, unit="frames")
        check_int("--size", self.size, 32, 4096, "pixels")
        check_int("--kernel", self.kernel, 1, 31, "pixels")
        check(self.kernel % 2 == 1, "--kernel", f"must be odd, got {self.kernel}")
        for name in ("workers", "threads", "save_every", "log_every"):
            check_int(f"--{name}", getattr(self, name), 1)
        check_int("--max_failures", self.max_failures, -1)
        recipe = self.recipe
        problem = f"must be at most --recipe.batch {recipe.batch}, got {self.workers}"
        check(self.workers <= recipe.batch, "--workers", problem)
        for text in self.gaps:
            check(text.isdigit() and int(text) >= 1, "--gaps", f"must be whole numbers from 1, got {text!r}")
        for name in ("height", "width"):
            check_int(f"--recipe.{name}", getattr(recipe, name), 32, 2048, "pixels")
        check_int("--recipe.max_gap", recipe.max_gap, 1, 1000, "frames")
        check_int("--recipe.lessons", recipe.lessons, 1, 10**6, "gaps")
        check_int("--recipe.frames", recipe.frames, 2, 100, "frames")
        check_int("--recipe.steps", recipe.steps, 1, unit="step(s)")
        check_int("--recipe.batch", recipe.batch, 1, 65536, "pairs")
        check_positive("--recipe.lr", recipe.lr)
        for name in (
            "scores",
            "features",
            "labels",
            "deviation",
            "pixels",
            "overlap",
            "read",
            "light",
            "fused",
        ):
            _check_weight(f"--recipe.{name}", getattr(recipe, name))
        for name in ("current", "made_key", "own_key", "levels"):
            _check_weight(f"--sharing.{name}", getattr(self.sharing, name))
        check(0 <= self.sharing.alpha <= 1, "--sharing.alpha", f"must be 0 to 1, got {self.sharing.alpha}")
        check_choice("--sharing.norm", self.sharing.norm, ("l1", "l2"))
        check_int("--sharing.distance", self.sharing.distance, 0, 1000, "frames")
        check(0 <= recipe.twice <= 1, "--recipe.twice", f"must be from 0 to 1, got {recipe.twice}")
        check(0 <= recipe.ema < 1, "--recipe.ema", f"must be from 0 to below 1, got {recipe.ema}")

    @property
    def gap_numbers(self) -> tuple[int, ...]:
        """`gaps` as numbers, increasing."""
        return tuple(sorted({int(text) for text in self.gaps}))

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the weights, by dotted option name; data come by content, not by place."""
        names = (
            "propagator",
            "segmenter",
            "kernel",
            "light",
            "size",
            "seed",
            "max_frames",
            "val_clips",
            "workers",
        )
        fields = flat_dict(self).items()
        return {
            name: value
            for name, value in fields
            if (name in names or name.startswith(("recipe.", "sharing."))) and (value or name not in LATER)
        }

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)


def _defaults() -> dict[str, Any]:
    """By dotted option name, of the options that have one."""
    fields = dataclasses.fields(TrainPropagationConfig)
    plain = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    recipes = {"recipe": PropagationRecipe(), "sharing": SharingRecipe()}
    return plain | {
        f"{group}.{name}": value
        for group, recipe in recipes.items()
        for name, value in flat_dict(recipe).items()
    }


def _check_weight(option: str, value: object) -> None:
    fine = isinstance(value, (int, float)) and 0 <= value <= 1e6
    check(fine, option, f"must be a number from 0 to 1e6, got {value!r}")
