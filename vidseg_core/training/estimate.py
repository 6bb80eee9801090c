"""``--dry-run``: what there is to learn from, and how long it would take, from one measured step."""

from __future__ import annotations

import time

import torch

from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.registry import resolve_device
from vidseg_core.models.trainable import TrainableNet
from vidseg_core.training.data import TrainingData
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.validate import Validation

MEASURED = 8
"""At most so many samples of a batch, and so many frames of the validation, are timed."""


def dry_run(config: TrainSegmenterConfig, data: TrainingData, net: TrainableNet, report: Reporter) -> int:
    """Print counts and the estimate for one worker on this machine; writes nothing."""
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    recipe, measured = config.recipe, min(MEASURED, config.recipe.batch)
    training_set = data.training_set(config)
    started = time.perf_counter()
    batch = training_set.batch(0, range(measured))
    read_s = (time.perf_counter() - started) / measured
    step_s = _step_seconds(net.to(device), batch.frames_B3HW.to(device), batch.labels_BHW.to(device))
    step_s *= recipe.batch / measured
    validate_s = _validate_seconds(data, net, device)
    validations = -(-recipe.steps // config.val_every)
    total_s = recipe.steps * step_s + validations * validate_s
    read_total_s = recipe.steps * recipe.batch * read_s
    report.say(
        f"one step of {recipe.batch} takes {step_s:.2f} s on {device.type} with {config.threads} thread(s), "
        f"a sample {1000 * read_s:.0f} ms to read, a validation {validate_s:.0f} s: about {clock(total_s)} "
        f"with one worker, if {max(1.0, read_total_s / max(total_s, 1e-9)):.1f} CPU(s) or more read data",
        step_s=round(step_s, 4),
        read_s=round(read_s, 5),
        validate_s=round(validate_s, 2),
        total_s=round(total_s, 1),
    )
    return 0


def _step_seconds(net: TrainableNet, frames_B3HW: torch.Tensor, labels_BHW: torch.Tensor) -> float:
    """Forward and backward, the second time."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        loss = segmentation_loss(net(frames_B3HW), labels_BHW)
        loss.backward()
        float(loss.detach())
        seconds = time.perf_counter() - started
    return seconds


def _validate_seconds(data: TrainingData, net: TrainableNet, device: torch.device) -> float:
    if not data.validation:
        return 0.0
    some = data.validation[:MEASURED]
    started = time.perf_counter()
    Validation(some, len(data.class_names))(net, device, 0, 1)
    return (time.perf_counter() - started) * len(data.validation) / len(some)
