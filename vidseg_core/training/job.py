"""``vidseg train-segmenter`` from the configuration to the exit code: check, train, write down.

Invariant: whatever can be wrong with data, weights or output is found before Ray is started; an output holds
one run, and the same command goes on with it until its last step.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.schema import to_dict
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.config.words import count
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.digest import digest_state
from vidseg_core.models.trainable import TrainableNet, trainable_net
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import load_checkpoint
from vidseg_core.training.claim import claim_folder, fingerprint, only_driver, says_how_to_go_on
from vidseg_core.training.curve import write_curve
from vidseg_core.training.data import TrainingData, open_training_data
from vidseg_core.training.loop import BEST, LAST, Outcome, Row, total_parameters
from vidseg_core.training.loss import balance_weights

RUN = "run.json"


def run_train_segmenter(config: TrainSegmenterConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    report = reporter or Reporter(config.log)
    report.say(f"reading {', '.join((*config.data, *config.pseudo, *config.val))}")
    data = open_training_data(config)
    net = trainable_net(
        config.segmenter, class_names=data.class_names, seed=config.seed, weights=config.weights
    )
    _check_share(config, net)
    report.say(_describe(config, data, net))
    if config.dry_run:
        from vidseg_core.training.estimate import dry_run

        return dry_run(config, data, net, report)
    return _Job(config, data, net, report).run()


class _Job:
    """One driver of one run."""

    def __init__(
        self, config: TrainSegmenterConfig, data: TrainingData, net: TrainableNet, report: Reporter
    ) -> None:
        self._config, self._data, self._net, self._report = config, data, net, report
        self._folder = Path(config.output)
        self._fields = config.fingerprint_fields() | {
            "data": data.digest(),
            "weights": digest_state(net.net.state_dict(), {}) if config.weights else None,
        }
        self._fingerprint = fingerprint(self._fields)

    def run(self) -> int:
        claim_folder(self._folder, self._fields)
        with only_driver(self._folder):
            return self._run()

    def _run(self) -> int:
        folder, report, steps = self._folder, self._report, self._config.recipe.steps
        found = load_checkpoint(folder, self._fingerprint)
        begun = found[0].step if found else 0
        if begun >= steps and (folder / RUN).is_file():
            report.say(f"{folder} is complete already; nothing to do")
            return 0
        if begun:
            report.say(f"going on from step {begun} of {steps}")
        try:
            with says_how_to_go_on(folder, self._fingerprint):
                outcome = self._train(begun)
        finally:
            self._write_curve()
        self._finish(outcome)
        return 0

    def _train(self, begun: int) -> Outcome:
        from vidseg_core.kit.ray_session import ray_session
        from vidseg_core.training.ray_train import WorkerJob, fit, lay_out

        config, data = self._config, self._data
        weights = None
        if config.recipe.class_balance:
            weights_C = balance_weights(data.class_pixels(config.share()), config.recipe.class_balance)
            weights = tuple(weights_C.tolist()) if weights_C is not None else None
        with ray_session(config):
            device, worker_cpus, loading = lay_out(config)
            self._report.say(
                f"training with {count(config.workers, 'worker')} on {device}; a line every "
                f"{count(config.log_every, 'step')}, validation every {config.val_every:,}"
            )
            job = WorkerJob(
                config=replace(config, output=str(self._folder.resolve())),
                data=data,
                device=device,
                loading=loading,
                fingerprint=self._fingerprint,
                class_weights=weights,
            )
            return fit(job, worker_cpus, _Watch(config, self._report, begun))

    def _write_curve(self) -> None:
        found = load_checkpoint(self._folder, self._fingerprint)
        if found is not None:
            write_curve(self._folder, found[0].rows)

    def _finish(self, outcome: Outcome) -> None:
        config, folder = self._config, self._folder
        images = outcome.step * config.recipe.batch / max(outcome.seconds, 1e-9)
        validated = outcome.best_miou >= 0
        facts: dict[str, Any] = {
            "verb": "train-segmenter",
            "config": to_dict(config),
            "fingerprint": self._fingerprint,
            "class_names": list(self._data.class_names),
            "frames": _counts(self._data),
            "weights_sha256": {name: _sha256(folder / name) for name in (BEST, LAST)},
            "parameters": total_parameters(self._net),
            "steps": outcome.step,
            "best_miou": round(outcome.best_miou, 6) if validated else None,
            "best_step": outcome.best_step if validated else None,
            "seconds": round(outcome.seconds, 3),
            "images_per_s": round(images, 3),
            "data_share": round(_data_share(outcome), 4),
            "versions": _versions(),
            "finished_unix_s": round(time.time(), 3),
        }
        write_whole(folder / RUN, (json.dumps(facts, indent=1) + "\n").encode())
        best = (
            f"best val mIoU {outcome.best_miou:.3f} at step {outcome.best_step}"
            if validated
            else "no validation"
        )
        self._report.say(
            f"done: {outcome.step} steps in {clock(outcome.seconds)} ({images:.1f} images/s, "
            f"{100 * facts['data_share']:.0f} % waiting for data); {best}; use it with "
            f"--segmenter {config.segmenter} --weights {folder / BEST}",
            **{name: facts[name] for name in ("steps", "best_miou", "best_step", "images_per_s")},
        )


class _Watch:
    """Shows each new row of the curve."""

    def __init__(self, config: TrainSegmenterConfig, report: Reporter, begun: int) -> None:
        self._config, self._report, self._before = config, report, begun
        self._best = -math.inf
        self._seconds: float | None = None

    def __call__(self, row: Row) -> None:
        recipe = self._config.recipe
        steps, seconds = row["step"] - self._before, row["seconds"] - (self._seconds or 0.0)
        pace = steps / seconds if steps > 0 and seconds > 0 and self._seconds is not None else 0.0
        self._before, self._seconds = row["step"], row["seconds"]
        left = clock((recipe.steps - row["step"]) / pace) if pace else "-"
        miou = row["val_miou"]
        self._best = max(self._best, -math.inf if miou is None else miou)
        shown = "" if miou is None else f" | val mIoU {miou:.3f} (best {self._best:.3f})"
        text = (
            f"step {row['step']:,}/{recipe.steps:,} ({100 * row['step'] / recipe.steps:.0f} %) | "
            f"loss {row['loss']:.4f} | lr {row['lr']:.2e}{shown} | {pace * recipe.batch:.1f} images/s | "
            f"data {100 * row['data_share']:.0f} % | ETA {left}"
        )
        if miou is not None and not self._report.is_json:
            self._report.say(text)
        else:
            self._report.show(text, {**row}, force=self._report.is_json)


def _check_share(config: TrainSegmenterConfig, net: TrainableNet) -> None:
    """`ConfigError` where a worker's single sample would leave a batch norm one value to learn from.

    Such a norm follows a map of one pixel: a pooled branch, or the deepest map of a small crop. It is found
    without arithmetic, on torch's `meta` device.
    """
    recipe, crop = config.recipe, config.augment.crop
    if recipe.batch > config.workers:
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
    kinds = f"{counts['labelled']:,} labelled frames" if counts["labelled"] else ""
    if counts["pseudo"]:
        kinds += f"{' and ' if kinds else ''}{counts['pseudo']:,} pseudo-labelled"
        kinds += f" ({100 * config.share():.0f} % of each batch)" if counts["labelled"] else ""
    checked = f"{counts['validation']:,} frames" if counts["validation"] else "none given"
    return (
        f"{config.segmenter} ({total_parameters(net) / 1e6:.2f} M weights), {len(data.class_names)} classes; "
        f"{kinds}; validation: {checked}; {recipe.steps:,} steps of {recipe.batch}, crop "
        f"{config.augment.crop}, {recipe.optimiser} lr {recipe.lr:g} -> {config.output}"
    )


def _counts(data: TrainingData) -> dict[str, int]:
    return {
        "labelled": len(data.labelled),
        "pseudo": len(data.pseudo),
        "validation": len(data.validation),
    }


def _data_share(outcome: Outcome) -> float:
    """Over the whole run: each row's share, weighted by its time."""
    waited, before = 0.0, 0.0
    for row in outcome.rows:
        waited += row["data_share"] * (row["seconds"] - before)
        before = row["seconds"]
    return waited / before if before else 0.0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from vidseg_core import __version__

    return {"vidseg": __version__} | {name: version(name) for name in ("torch", "ray", "numpy")}
