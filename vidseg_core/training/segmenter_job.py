"""``vidseg train-segmenter``: what it reads, how its workers learn, what it says at the end. See `driver`.

Each worker builds the same net, takes its share of each batch's slots, and goes on from the run's own
checkpoint, which the first worker writes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.config.words import count
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.digest import digest_state
from vidseg_core.models.fetched import bring
from vidseg_core.models.registry import resolve_device
from vidseg_core.models.trainable import TrainableNet, trainable_net
from vidseg_core.training.beside import Beside
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.data import TrainingData, open_training_data
from vidseg_core.training.driver import Ending, Run, output_folder, run_training
from vidseg_core.training.in_regions import InRegions
from vidseg_core.training.loop import BEST, LAST, LoopOptions, term_columns, total_parameters, train
from vidseg_core.training.loss import balance_weights
from vidseg_core.training.ray_group import GroupLayout, GroupTraining, Member
from vidseg_core.training.validate import Validation

KEPT_FRAMES = 64
"""Validation frames that a worker keeps in memory."""


def run_train_segmenter(config: TrainSegmenterConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    return run_training(SegmenterTraining(config, reporter))


class SegmenterTraining(GroupTraining):
    """A segmentation net on labelled and pseudo-labelled frames."""

    verb = "train-segmenter"
    samples = "images"
    measure = "val_miou"
    share = 0.5
    curve: Sequence[str] = ("step", "lr", "loss", "val_miou", "seconds", "data_share")
    """`loss`: mean since the row before; `val_miou`: null where nothing was validated; `seconds`: spent in
    training, attempts that were lost excluded; `data_share`: share of the time since the row before that was
    spent waiting for data, 0..1."""
    config: TrainSegmenterConfig
    data: TrainingData
    net: TrainableNet
    beside: Beside | None

    def size(self) -> tuple[int, int]:
        return self.config.recipe.steps, self.config.recipe.batch

    def prepare(self) -> None:
        config = self.config
        self.report.say(f"reading {', '.join((*config.data, *config.pseudo, *config.val))}")
        self.data = open_training_data(config)
        self.net = build_net(config, self.data)
        if config.regions.on and not self.net.trained:
            problem = f"{config.segmenter} has random weights; --regions.grid goes on from a trained net"
            raise ConfigError("--segmenter", f"{problem}: give --weights")
        self.data = replace(self.data, class_names=self.net.class_names)
        if config.taught_by is not None:
            bring(*config.taught_by, self.report)
        self.beside = build_beside(config, self.data.class_names, "cpu")
        _check_sizes(config, self.data, self.net, self.beside)
        if self.beside is not None:
            self.curve = (*self.curve, *term_columns(self.beside.losses))  # means since the row before
        self.report.say(_describe(config, self.data, self.net))

    def dry_run(self) -> None:
        from vidseg_core.training.estimate import dry_run

        config = self.config
        beside = build_beside(config, self.data.class_names, str(resolve_device(config.device)))
        dry_run(config, self.data, self.net, self.report, beside)

    def decides(self) -> dict[str, Any]:
        given = self.config.weights or self.config.encoder_weights
        weights = digest_state(self.net.net.state_dict(), {}) if given else None
        fields = self.config.fingerprint_fields() | {"data": self.data.digest(), "weights": weights}
        if self.data.has_stills(self.config.temporal.gap):  # earlier versions learned with what was near
            fields["temporal.stills"] = "no neighbours"
        return fields if self.beside is None else fields | self.beside.decides()

    def job(self, run: Run, layout: GroupLayout) -> SegmenterJob:
        from vidseg_core.training.ray_loader import loading_beside

        config, data = self.config, self.data
        weights = None
        if config.recipe.class_balance:
            weights_C = balance_weights(data.class_pixels(config.share()), config.recipe.class_balance)
            weights = tuple(weights_C.tolist()) if weights_C is not None else None
        return SegmenterJob(
            config=config,
            data=data,
            options=loop_options(config, weights=weights, fingerprint=run.fingerprint),
            loading=loading_beside(layout, config.loaders),
        )

    def words(self, row: Mapping[str, Any]) -> str:
        miou = row["val_miou"]
        return (
            f"loss {row['loss']:.4f} | lr {row['lr']:.2e}"
            + ("" if miou is None else f" | val mIoU {miou:.3f}")
            + f" | data {100 * row['data_share']:.0f} %"
        )

    def finish(self, run: Run, standing: Standing) -> Ending:
        images = standing.step * self.batch / max(standing.seconds, 1e-9)
        waited = _data_share(standing)
        return Ending(
            use=f"{images:.1f} images/s, {100 * waited:.0f} % waiting for data; use it with --segmenter "
            f"{self.config.segmenter} --weights {run.folder / BEST}",
            files=(BEST, LAST),
            parameters=total_parameters(self.net),
            details={
                "class_names": list(self.data.class_names),
                "frames": _counts(self.data),
                "images_per_s": round(images, 3),
                "data_share": round(waited, 4),
            },
        )


def build_net(config: TrainSegmenterConfig, data: TrainingData) -> TrainableNet:
    """The net as training begins; the same for every worker."""
    return trainable_net(
        config.segmenter,
        class_names=data.class_names or None,
        seed=config.seed,
        weights=config.weights,
        encoder_weights=config.encoder_weights,
    )


def build_beside(config: TrainSegmenterConfig, class_names: Sequence[str], device: str) -> Beside | None:
    """What is learned beside labels; the same for every worker."""
    if config.regions.on:
        return InRegions(config, class_names, device)
    if not config.temporal.gap and config.teacher is None:
        return None
    return Beside(config, class_names, device)


# --- in a worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SegmenterJob:
    """What each worker gets."""

    config: TrainSegmenterConfig
    data: TrainingData
    options: LoopOptions
    loading: Any
    """`ray_loader.Loading`"""

    def work(self, member: Member) -> None:
        from vidseg_core.training.ray_loader import ray_batches

        config, data = self.config, self.data
        training_set, batch = data.training_set(config), config.recipe.batch
        rank, size = member.group.rank, member.group.size
        slots = range(rank * batch // size, (rank + 1) * batch // size)
        validation = None
        if data.validation:
            cut = config.regions.cut
            validation = Validation(data.validation, len(data.class_names), cut, keep=KEPT_FRAMES)
        train(
            build_net(config, data),
            lambda start: ray_batches(training_set, start, config.recipe.steps, slots, self.loading),
            replace(self.options, device=str(member.device)),
            beside=build_beside(config, data.class_names, str(member.device)),
            validation=validation,
            group=member.group,
            watch=member.watch,
        )


def loop_options(
    config: TrainSegmenterConfig, *, weights: tuple[float, ...] | None, fingerprint: str
) -> LoopOptions:
    """The loop's part of the configuration."""
    return LoopOptions(
        recipe=config.recipe,
        folder=output_folder(config).resolve(),
        seed=config.seed,
        val_every=config.val_every,
        save_every=config.save_every,
        log_every=config.log_every,
        class_weights=weights,
        mixed_precision=config.mixed_precision,
        fingerprint=fingerprint,
    )


# --- words -------------------------------------------------------------------------------------------------


def _check_sizes(
    config: TrainSegmenterConfig, data: TrainingData, net: TrainableNet, beside: Beside | None
) -> None:
    """`ConfigError` where a net cannot learn from samples of their size."""
    if isinstance(beside, InRegions):
        for size in sorted(data.sizes()):
            beside.try_frame(net, size)
        return
    _check_share(config, net)
    if beside is not None:
        beside.try_on(config.augment.crop)


def _check_share(config: TrainSegmenterConfig, net: TrainableNet) -> None:
    """`ConfigError` where a worker's single sample would leave a batch norm one value to learn from; one with
    neighbours leaves it three.

    Such a norm follows a map of one pixel: a pooled branch, or the deepest map of a small crop. It is found
    without arithmetic, on torch's `meta` device.
    """
    recipe, crop = config.recipe, config.augment.crop
    if recipe.batch > config.workers or config.temporal.gap:
        return
    try:
        with torch.no_grad():
            copy.deepcopy(net).to("meta").train()(torch.zeros(1, 3, crop, crop, device="meta"))
    except ValueError as problem:
        if "more than 1 value per channel" not in str(problem):
            raise
        text = (
            f"gives a worker one sample a step, but {config.segmenter} has a batch norm after a map of one "
            f"pixel and needs two: give {2 * config.workers} for {count(config.workers, 'worker')}"
        )
        raise ConfigError("--recipe.batch", text) from problem


def _describe(config: TrainSegmenterConfig, data: TrainingData, net: TrainableNet) -> str:
    counts, recipe = _counts(data), config.recipe
    kind = "frames" if config.regions.on else "labelled frames"
    kinds = f"{counts['labelled']:,} {kind}" if counts["labelled"] else ""
    if counts["pseudo"]:
        kinds += f"{' and ' if kinds else ''}{counts['pseudo']:,} pseudo-labelled"
        kinds += f" ({100 * config.share():.0f} % of each batch)" if counts["labelled"] else ""
    checked = f"{counts['validation']:,} frames" if counts["validation"] else "none given"
    if gap := config.temporal.gap:
        near, frames = data.with_neighbours(gap), counts["labelled"] + counts["pseudo"]
        kinds += (
            f", {'all' if near == frames else f'{near:,}'} with neighbours up to {count(gap, 'frame')} away"
        )
    if config.regions.on:
        kinds += f"; {_in_regions(config)}"
    elif config.teacher is not None:
        kinds += f"; taught by {config.teacher}"
    crop = f"size {config.regions.working_size}" if config.regions.on else f"crop {config.augment.crop}"
    return (
        f"{config.segmenter} ({total_parameters(net) / 1e6:.2f} M weights), {len(data.class_names)} classes; "
        f"{kinds}; validation: {checked}; {recipe.steps:,} steps of {recipe.batch}, {crop}, "
        f"{recipe.optimiser} lr {recipe.lr:g} -> {config.output}"
    )


def _in_regions(config: TrainSegmenterConfig) -> str:
    regions, teacher = config.regions, config.teacher or f"{config.segmenter} as it begins"
    labels = "labels count" if regions.labels else "labels do not count"
    seen = f"{regions.cut.words()}, {100 * regions.whole:.0f} % whole"
    return f"{seen}; taught by {teacher} on whole frames, {labels}"


def _counts(data: TrainingData) -> dict[str, int]:
    return {
        "labelled": len(data.labelled),
        "pseudo": len(data.pseudo),
        "validation": len(data.validation),
    }


def _data_share(standing: Standing) -> float:
    """Over the whole run: each row's share, weighted by its time."""
    waited, before = 0.0, 0.0
    for row in standing.rows:
        waited += row["data_share"] * (row["seconds"] - before)
        before = row["seconds"]
    return waited / before if before else 0.0
