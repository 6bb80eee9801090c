"""Configuration of ``vidseg train-segmenter``. The recipe, the data and the seed decide the weights; the rest
says where and how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vidseg_core.config.catalogue import FLOWS, is_of_stream
from vidseg_core.config.errors import check, check_int, check_name, check_positive
from vidseg_core.config.nets import ALIASES, NAMED_NETS, NET_FAMILIES
from vidseg_core.config.recipes import (
    AugmentRecipe,
    DistilRecipe,
    LearnedRegionsRecipe,
    TemporalRecipe,
    TrainRecipe,
)
from vidseg_core.config.schema import flat_dict, redact, to_yaml

__all__ = ["TrainSegmenterConfig"]

_WANTS_GRID = "goes with --regions.grid, such as 2x2"


@dataclass(frozen=True, kw_only=True)
class TrainSegmenterConfig:
    """Train a segmentation net on labelled frames, pseudo-labelled videos, or both.

    --data and --output suffice. The same command again continues a run that was stopped.
    """

    data: tuple[str, ...] = ()
    """labelled data sets, NAME:PATH?options, e.g. camvid:/data/CamVid; repeatable, equal classes"""
    pseudo: tuple[str, ...] = ()
    """pseudo-labelled data, runs of vidseg pseudo-label (or segment), or NAME:PATH; repeatable"""
    output: str
    """local or shared folder for weights, checkpoints, curve and run.json"""
    pseudo_ratio: float = 0.5
    """share of pseudo-labelled samples in each batch where both kinds are given; above 0, below 1"""
    split: str = "train"
    """split of --data to train on; all: every labelled frame that is not for validation"""

    val: tuple[str, ...] = ()
    """data sets to validate on (their val split, else all); none given: the val split of --data"""
    val_clips: tuple[str, ...] = ()
    """clips (video ids) of --data to validate on instead, and to leave out of training"""
    val_limit: int | None = None
    """validate on so many frames, evenly spread; None: all"""
    val_every: int = 200
    """steps between validations; the last step validates always"""

    segmenter: str = "tiny:24"
    """net to train: tiny:WIDTH, smp:ARCH/ENCODER, torchvision:NAME, hf:FOLDER or a short name"""
    weights: str | None = None
    """file with weights to begin with; None: drawn with the seed"""
    encoder_weights: str | None = None
    """file with weights of an image classifier (ImageNet; torchvision, timm) for the encoder alone"""
    teacher: str | None = None
    """net of the same classes that the trained one learns from, frozen (--distil.*); None: none, or with
    --regions.grid the trained one as it begins"""
    teacher_weights: str | None = None
    """file with the teacher's weights; None: its own"""
    steps: int | None = None
    """optimiser steps, instead of recipe.steps"""
    seed: int = 0
    """seed of weights, order and augmentation"""

    recipe: TrainRecipe = field(default_factory=TrainRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    temporal: TemporalRecipe = field(default_factory=TemporalRecipe)
    distil: DistilRecipe = field(default_factory=DistilRecipe)
    regions: LearnedRegionsRecipe = field(default_factory=LearnedRegionsRecipe)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the net runs; auto: cuda where the cluster has GPUs"""
    workers: int = 1
    """training workers; a batch is divided among them"""
    loaders: int = 0
    """data tasks at a time and worker; 0: what the machine or cluster has room for"""
    threads: int = 1
    """CPU threads of a training worker (may change the last bits); at least 1"""
    mixed_precision: bool = True
    """on a GPU: bf16 (fp16 where it has none); no effect on a CPU"""
    save_every: int = 200
    """steps between checkpoints; what a killed worker may cost"""
    max_failures: int = 3
    """so many times a killed worker is replaced; -1: without end"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory for samples under way (local Ray), MB; at least 128; None: 2000"""

    dry_run: bool = False
    """count the data, time one step, train nothing"""
    log_every: int = 20
    """steps between points of the curve"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "data": "what to learn from, and where to",
        "val": "validation",
        "segmenter": "the net, and its teacher",
        "device": "resources",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        for name in ("data", "pseudo", "val", "val_clips"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.steps is not None:
            check_int("--steps", self.steps, 1, unit="step(s)")
            object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, steps=self.steps))
            object.__setattr__(self, "steps", None)
        self._check_places()
        check(bool(self.segmenter.strip()), "--segmenter", "must name a net")
        both = self.weights is not None and self.encoder_weights is not None
        check(not both, "--encoder_weights", "goes without --weights, which hold the encoder's")
        _check_recipe(self.recipe)
        _check_augment(self.augment)
        _check_temporal(self.temporal)
        self._check_regions()
        self._check_teacher()
        self._check_effect()
        self._check_numbers()

    def _check_places(self) -> None:
        check(
            bool(self.data or self.pseudo), "--data", "needs at least one data set, e.g. camvid:/data/CamVid"
        )
        check(bool(self.output.strip()), "--output", "must name a folder")
        check("://" not in self.output, "--output", "must be a local or shared folder")
        both = bool(self.val and self.val_clips)
        check(not both, "--val_clips", "goes without --val: validation is one or the other")
        named = [("--data", self.data), ("--pseudo", self.pseudo), ("--val", self.val)]
        for option, texts in named:
            for text in texts:
                check(bool(text.strip()), option, "must not be empty")
                problem = f"holds credentials ({redact(text)}); they belong in the environment"
                check(redact(text) == text, option, problem)

    def _check_regions(self) -> None:
        regions = self.regions
        regions.cut.check_size(regions.size)  # options of the cut are checked as it is made
        _check_share("--regions.whole", regions.whole, 0.0, 1.0)
        check(regions.whole < 1 or not regions.on, "--regions.whole", "is 1: no sample would be cut")
        if not regions.on:
            for name in _asked(regions, plain=()):
                check(False, f"--regions.{name}", _WANTS_GRID)
            return
        problem = "does not go with --regions.grid: neighbours are learned in crops of one size"
        check(not self.temporal.gap, "--temporal.gap", problem)
        problem = "does not go with --regions.grid, which goes on from a net that is trained whole"
        check(self.encoder_weights is None, "--encoder_weights", problem)
        problem = "has no effect with --regions.grid: samples are frames of --regions.working_size"
        check(self.augment.crop == AugmentRecipe().crop, "--augment.crop", problem)
        if not regions.labels:
            problem = "counts labels, which do not count here: give --regions.labels true"
            check(not self.recipe.dice, "--recipe.dice", problem)
            check(not self.recipe.class_balance, "--recipe.class_balance", problem)
            check(not self.augment.focus, "--augment.focus", problem)

    def _check_teacher(self) -> None:
        distil, gap = self.distil, self.temporal.gap
        for name in ("single", "pair", "multi"):
            _check_share(f"--distil.{name}", getattr(distil, name), 0.0, 1e6)
        check_int("--distil.pair_cells", distil.pair_cells, 2, 128)
        check_int("--distil.multi_cells", distil.multi_cells, 2, 64)
        if self.teacher is None:
            check(self.teacher_weights is None, "--teacher_weights", "goes with --teacher")
            problem = "is 0: the whole frame would teach nothing"
            check(bool(distil.single) or not self.regions.on, "--distil.single", problem)
            learns = not gap or self.temporal.weight or self.temporal.labels
            check(bool(learns), "--temporal.weight", "is 0: neighbours would be read and not learned from")
            return
        check_name("--teacher", self.teacher, NAMED_NETS, NET_FAMILIES)
        learns = distil.single or (gap and (distil.pair or distil.multi))
        problem = "teaches nothing: --distil.single is 0, and the others are or want --temporal.gap"
        check(bool(learns), "--teacher", problem)

    def _check_effect(self) -> None:
        """`ConfigError` for an option of neighbours or of a teacher where there are none. What is 0, or as it
        is by itself, asks for nothing."""
        near = self.temporal.gap > 0
        for name in _asked(self.temporal):
            check(near, f"--temporal.{name}", "goes with --temporal.gap, which is 0: no neighbours are read")
        for name in _asked(self.distil):
            check(self.taught_by is not None, f"--distil.{name}", "goes with --teacher")
            problem = "wants neighbours: give --temporal.gap"
            check(near or name == "single", f"--distil.{name}", problem)

    def _check_numbers(self) -> None:
        mixes = isinstance(self.pseudo_ratio, (int, float)) and 0 < self.pseudo_ratio < 1
        check(mixes, "--pseudo_ratio", f"must be above 0 and below 1, got {self.pseudo_ratio!r}")
        for name in ("val_every", "save_every", "log_every", "threads", "workers"):
            check_int(f"--{name}", getattr(self, name), 1)
        if self.val_limit is not None:
            check_int("--val_limit", self.val_limit, 1, unit="frame(s)")
        check_int("--seed", self.seed, 0, 2**63 - 1)
        check_int("--loaders", self.loaders, 0)
        check_int("--max_failures", self.max_failures, -1)
        problem = f"must divide --recipe.batch {self.recipe.batch} without rest, got {self.workers}"
        check(self.recipe.batch % self.workers == 0, "--workers", problem)
        if self.object_store_mb is not None:
            check_int("--object_store_mb", self.object_store_mb, 128, unit="MB")

    def as_typed(self, given: Collection[str]) -> TrainSegmenterConfig:
        """Itself; `ConfigError` for an option of regions that the user gave (dotted names) without a grid."""
        for each in dataclasses.fields(self.regions) if not self.regions.on else ():
            idle = f"regions.{each.name}" in given and "regions.grid" not in given
            check(not idle, f"--regions.{each.name}", _WANTS_GRID)
        return self

    @property
    def uses_labels(self) -> bool:
        """Do labels of the frames teach?"""
        return self.regions.labels or not self.regions.on

    @property
    def taught_by(self) -> tuple[str, str | None] | None:
        """The teacher and its file of weights: with regions the net as it begins, unless another is named."""
        if self.teacher is not None:
            return self.teacher, self.teacher_weights
        return (self.segmenter, self.weights) if self.regions.on else None

    def share(self) -> float:
        """Share of pseudo-labelled samples: `pseudo_ratio` where there are both kinds."""
        return self.pseudo_ratio if self.data and self.pseudo else float(bool(self.pseudo))

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the weights, by dotted option name; data come by content, not by place."""
        names = ("segmenter", "seed", "split", "val_clips", "val_limit", "val_every", "mixed_precision")
        fields = {
            name: value
            for name, value in flat_dict(self).items()
            if name in names or name.startswith(("recipe.", "augment."))
        }
        spec = ALIASES.get(self.segmenter, "")
        named = {"segmenter": spec} if spec.startswith("net:") else {}  # some names led to other nets before
        return fields | {"pseudo_ratio": self.share()} | named | self._temporal_fields()

    def _temporal_fields(self) -> dict[str, Any]:
        """Nothing where frames are learned one by one, from their labels."""
        groups = ("temporal.",) if self.temporal.gap else ()
        groups += ("distil.", "teacher") if self.taught_by is not None else ()
        groups += ("regions.",) if self.regions.on else ()
        left_out = ("temporal.flow_weights", "teacher_weights")
        values = flat_dict(self).items()
        return {name: value for name, value in values if name.startswith(groups) and name not in left_out}

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)


def _check_recipe(recipe: TrainRecipe) -> None:
    check_int("--recipe.steps", recipe.steps, 1, unit="step(s)")
    check_int("--recipe.batch", recipe.batch, 1, 65536, "samples")
    check_int("--recipe.warmup", recipe.warmup, 0, unit="steps")
    check_positive("--recipe.lr", recipe.lr)
    for name in ("poly", "weight_decay", "dice"):
        _check_share(f"--recipe.{name}", getattr(recipe, name), 0.0, 1e6)
    _check_share("--recipe.class_balance", recipe.class_balance, 0.0, 1.0)
    _check_share("--recipe.ema", recipe.ema, 0.0, 0.999999)


def _check_augment(augment: AugmentRecipe) -> None:
    check_int("--augment.crop", augment.crop, 32, 2048, "pixels")
    check_positive("--augment.scale_min", augment.scale_min)
    check_positive("--augment.scale_max", augment.scale_max)
    problem = f"is {augment.scale_max}, below --augment.scale_min {augment.scale_min}"
    check(augment.scale_min <= augment.scale_max, "--augment.scale_max", problem)
    _check_share("--augment.rotate", augment.rotate, 0.0, 180.0)
    for name in ("colour", "blur", "stretch", "focus", "behind"):
        _check_share(f"--augment.{name}", getattr(augment, name), 0.0, 1.0)


def _asked(
    recipe: TemporalRecipe | DistilRecipe | LearnedRegionsRecipe, plain: tuple[int, ...] = (0,)
) -> list[str]:
    """Options that are neither the default nor `plain`, which asks for nothing."""
    usual = type(recipe)()
    names = (each.name for each in dataclasses.fields(recipe))
    return [name for name in names if getattr(recipe, name) not in (*plain, getattr(usual, name))]


def _check_temporal(temporal: TemporalRecipe) -> None:
    check_int("--temporal.gap", temporal.gap, 0, 1000, "frames")
    for name in ("weight", "labels", "sharpness"):
        _check_share(f"--temporal.{name}", getattr(temporal, name), 0.0, 1e6)
    check_name("--temporal.flow", temporal.flow, FLOWS)
    problem = f"{temporal.flow} are of the stream, and lead nowhere in a crop; use dis or a flow net"
    check(not is_of_stream(temporal.flow), "--temporal.flow", problem)
    if temporal.flow_weights is not None:
        problem = f"{temporal.flow!r} is not a net and has no weights"
        has_weights = temporal.flow not in FLOWS or bool(FLOWS[temporal.flow].net)
        check(has_weights, "--temporal.flow_weights", problem)


def _check_share(option: str, value: object, low: float, high: float) -> None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    check(fine, option, f"must be a number from {low:g} to {high:g}, got {value!r}")
