"""``--dry-run``: what there is to learn from, and what time and memory it would take, from a measured step.

Memory is what a step keeps for its way back, counted by what autograd saves, weights with their optimiser,
and those of a teacher and of F: the same on every device. Kernels need some more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from vidseg_core.config.recipes import TrainRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.registry import resolve_device
from vidseg_core.models.trainable import TrainableNet
from vidseg_core.training.beside import Beside
from vidseg_core.training.data import TrainingData
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.neighbours import COUNT
from vidseg_core.training.samples import Batch
from vidseg_core.training.validate import Validation

MEASURED = 8
"""At most so many samples of a batch, and so many frames of the validation, are timed."""
MOMENTS = {"adamw": 2, "sgd": 1}
"""Numbers that an optimiser keeps for each weight."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measured step."""

    seconds: float
    kept_bytes: int
    """What it keeps for the way back, weights left out: grows with the batch."""


def dry_run(
    config: TrainSegmenterConfig,
    data: TrainingData,
    net: TrainableNet,
    report: Reporter,
    beside: Beside | None = None,
) -> int:
    """Print counts and the estimate for one worker on this machine; writes nothing."""
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    recipe, measured = config.recipe, min(MEASURED, config.recipe.batch)
    training_set = data.training_set(config)
    started = time.perf_counter()
    batch = training_set.batch(0, range(measured))
    read_s = (time.perf_counter() - started) / measured
    beside = None if beside is None else beside.to(device)
    step = measure_step(net.to(device), batch, beside, device)
    step_s, kept_MB = (each * recipe.batch / measured for each in (step.seconds, step.kept_bytes / 2**20))
    weights_MB = held_bytes(net, recipe, beside) / 2**20
    validate_s = _validate_seconds(config, data, net, device)
    validations = -(-recipe.steps // config.val_every)
    total_s = recipe.steps * step_s + validations * validate_s
    read_total_s = recipe.steps * recipe.batch * read_s
    frames = f" with {COUNT} neighbours each" if config.temporal.gap else ""
    report.say(
        f"one step of {recipe.batch}{frames} takes {step_s:.2f} s on {device.type} with {config.threads} "
        f"thread(s) and {kept_MB + weights_MB:,.0f} MB of memory, "
        f"a sample {1000 * read_s:.0f} ms to read, a validation {validate_s:.0f} s: about {clock(total_s)} "
        f"with one worker, if {max(1.0, read_total_s / max(total_s, 1e-9)):.1f} CPU(s) or more read data",
        step_s=round(step_s, 4),
        step_MB=round(kept_MB + weights_MB, 1),
        read_s=round(read_s, 5),
        validate_s=round(validate_s, 2),
        total_s=round(total_s, 1),
    )
    return 0


def held_bytes(net: TrainableNet, recipe: TrainRecipe, beside: Beside | None = None) -> int:
    """Of all nets of a step: what is trained with gradient and what the optimiser keeps of it (AdamW two
    moments, SGD one momentum), the average of the weights where there is one, what is frozen once."""
    trained = [*net.parameters(), *(() if beside is None else beside.parameters())]
    frozen = [] if beside is None else beside.frozen()
    once = [*net.buffers(), *(each for part in frozen for each in (*part.parameters(), *part.buffers()))]
    if recipe.ema:
        once += net.net.state_dict().values()
    copies = 2 + MOMENTS[recipe.optimiser]
    return sum(number * each.nbytes for number, kind in ((copies, trained), (1, once)) for each in kind)


def measure_step(net: TrainableNet, batch: Batch, beside: Beside | None, device: torch.device) -> Step:
    """Forward and backward, the second time. Autograd saves weights, too: those are in `held_bytes`."""
    batch = batch.to(device)
    nets = [net] if beside is None else [net, beside]
    held = {
        each.untyped_storage().data_ptr() for part in nets for each in (*part.parameters(), *part.buffers())
    }
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    seconds = 0.0
    for _ in range(2):
        kept.clear()
        started = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms: Mapping[str, torch.Tensor] = {}
            if beside is None:
                scores_BCHW = net(batch.frames_B3HW)
            else:
                scores_BCHW, terms = beside.judge(net, batch, nullcontext)
            loss = segmentation_loss(scores_BCHW, batch.labels_BHW) + sum(terms.values())
        loss.backward()
        float(loss.detach())
        seconds = time.perf_counter() - started
    return Step(seconds=seconds, kept_bytes=sum(kept.values()))


def _validate_seconds(
    config: TrainSegmenterConfig, data: TrainingData, net: TrainableNet, device: torch.device
) -> float:
    if not data.validation:
        return 0.0
    some = data.validation[:MEASURED]
    started = time.perf_counter()
    Validation(some, len(data.class_names), config.regions.cut)(net, device, 0, 1)
    return (time.perf_counter() - started) * len(data.validation) / len(some)
