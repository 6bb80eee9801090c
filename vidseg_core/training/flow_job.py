"""``vidseg train-flow`` from the configuration to the exit code: read, check, train, score, write down.

Invariant: an output holds one run; the same command goes on with it until its last step. What the net is
scored on was never trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.schema import to_dict
from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.config.words import count
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine.trial import trial_sizes, try_net
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.flow import FlowNet, build_flow_net
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.registry import resolve_device
from vidseg_core.models.scores import labels_from_scores
from vidseg_core.propagation.flow import DisFlow, FlowEstimator
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.propagation.propagators import build_propagator
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import load_checkpoint
from vidseg_core.training.claim import claim_folder, fingerprint, only_driver, says_how_to_go_on
from vidseg_core.training.flow import FlowLoopOptions
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.flow_ray import LAST, frozen_segmenter
from vidseg_core.training.flow_score import Carry, GapScore, score_clip, table

RUN = "run.json"
PROBE = 512
"""Side of a picture, pixels, that every net takes as it is; features of others carry their size along."""


def run_train_flow(config: TrainFlowConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    report = reporter or Reporter(config.log)
    device = "cpu" if config.device == "cuda" else str(resolve_device(config.device))
    report.say(f"reading {', '.join((*config.data, *config.pictures))}")
    segmenter = frozen_segmenter(config, device)
    if segmenter is not None:
        recipe = config.recipe
        sizes = trial_sizes(f"{recipe.height}x{recipe.width}")
        tried = try_net(segmenter, sizes=sizes, batch=recipe.batch, device=device)
        for note in filter(None, (segmenter.note, tried.note)):
            report.say(f"note: {note}")
    scale = _scale(config, segmenter, device)
    built = build_flow_net(config.net, config.weights, seed=config.seed, bare=True, scale=scale)
    if built.scale_level and scale is None:
        problem = f"was off, but --weights {config.weights} has a scale field for {built.scale_level}"
        raise ConfigError("--scale_field", problem)
    clips = list(_clips(config, segmenter))
    learn, held = _held_out(clips, config.val_clips)
    report.say(_describe(config, built, learn, held))
    if config.dry_run:
        return 0
    folder = Path(config.output)
    fields = config.fingerprint_fields() | {
        "data": _digest(learn),
        "weights": built.digest,
        "segmenter_weights": segmenter.digest if segmenter else None,
    }
    claim_folder(folder, fields)
    options = FlowLoopOptions(
        folder=folder.resolve(),
        seed=config.seed,
        save_every=config.save_every,
        log_every=config.log_every,
        fingerprint=fingerprint(fields),
    )
    with only_driver(folder):
        with says_how_to_go_on(options.folder, options.fingerprint):
            _train(config, learn, options, scale, report)
        _finish(config, options, learn, held, segmenter, device, report)
    return 0


def _train(
    config: TrainFlowConfig,
    learn: Sequence[FlowClip],
    options: FlowLoopOptions,
    scale: tuple[str, int] | None,
    report: Reporter,
) -> None:
    from vidseg_core.kit.ray_session import ray_session
    from vidseg_core.training.flow_ray import fit_flow

    found = load_checkpoint(options.folder, options.fingerprint)
    begun, steps = found[0].step if found else 0, config.recipe.steps
    if begun >= steps and (options.folder / LAST).is_file():
        report.say(f"all {steps} steps are done already")
        return
    if begun:
        report.say(f"going on from step {begun} of {steps}")

    report.say(
        f"training with {count(config.workers, 'worker')}; a line every {count(config.log_every, 'step')}"
    )
    with ray_session(config):
        fit_flow(config, learn, options, scale=scale, watch=_Watch(config, report, begun))


class _Watch:
    """Shows each new row of the curve, as train-segmenter does."""

    def __init__(self, config: TrainFlowConfig, report: Reporter, begun: int) -> None:
        self._recipe, self._report, self._before = config.recipe, report, begun
        self._seconds: float | None = None

    def __call__(self, row: dict[str, Any]) -> None:
        recipe, seconds = self._recipe, row["seconds"]
        pace = 0.0
        if self._seconds is not None and seconds > self._seconds:
            pace = (row["step"] - self._before) / (seconds - self._seconds)
        self._before, self._seconds = row["step"], seconds
        left = clock((recipe.steps - row["step"]) / pace) if pace > 0 else "-"
        means = {name: value for name, value in row.items() if name not in ("step", "lr", "seconds")}
        text = (
            f"step {row['step']:,}/{recipe.steps:,} ({100 * row['step'] / recipe.steps:.0f} %) | "
            + "".join(f"{name} {_short(value)} | " for name, value in means.items())
            + f"lr {row['lr']:.2e} | {pace * recipe.batch:.1f} pairs/s | ETA {left}"
        )
        self._report.show(text, row, force=True)


def _finish(
    config: TrainFlowConfig,
    options: FlowLoopOptions,
    learn: Sequence[FlowClip],
    held: Sequence[FlowClip],
    segmenter: Segmenter | None,
    device: str,
    report: Reporter,
) -> None:
    folder = Path(config.output)
    data = (folder / LAST).read_bytes()
    scores = _score(config, folder / LAST, device, held, segmenter)
    if scores:
        report.say("on the clips that were left out:\n" + table(scores))
    facts = {
        "verb": "train-flow",
        "config": to_dict(config),
        "clips": {clip.name: len(clip.frames_THW3) for clip in learn},
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "curve": found[0].rows if (found := load_checkpoint(folder, options.fingerprint)) else [],
        "scores": [asdict(score) for score in scores],
    }
    write_whole(folder / RUN, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
    report.say(
        f"weights in {folder / LAST}; use them with --propagation.flow {config.net} "
        f"--propagation.flow_weights {folder / LAST}"
        + (f" --propagation.level {config.scale_field}" if config.scale_field != "off" else "")
    )


def _scale(config: TrainFlowConfig, segmenter: Segmenter | None, device: str) -> tuple[str, int] | None:
    """Level and channels of the scale field: those of N's scores, or of its features."""
    if config.scale_field == "off" or segmenter is None:
        return None
    if config.scale_field == "scores":
        return "scores", len(segmenter.class_names)
    with torch.inference_mode():
        feats = segmenter.features(torch.zeros(1, 3, PROBE, PROBE, device=device))
    maps = [feats] if isinstance(feats, torch.Tensor) else feats
    return "features", sum(one_map.shape[1] for one_map in maps)


def _clips(config: TrainFlowConfig, segmenter: Segmenter | None) -> Iterator[FlowClip]:
    """All clips of all data sets; labels of other classes than N's are left out."""
    for texts, moves in ((config.data, True), (config.pictures, False)):
        for text in texts:
            dataset = open_dataset(text)
            keeps = segmenter is None or tuple(segmenter.class_names) == tuple(dataset.class_names)
            for clip in dataset_clips(dataset, config.split, config.size, config.max_frames):
                clip = replace(clip, moves=clip.moves and moves)
                yield clip if keeps else replace(clip, labels_THW=None)


def _held_out(clips: Sequence[FlowClip], names: Sequence[str]) -> tuple[list[FlowClip], list[FlowClip]]:
    """Clips to learn from, and those that are only scored. `ConfigError` for a name that no clip has."""
    known = {clip.name for clip in clips}
    for name in names:
        if name not in known:
            raise ConfigError("--val_clips", f"there is no clip {name!r}{nearest(name, known)}")
    learn = [clip for clip in clips if clip.name not in names]
    if not learn:
        raise ConfigError("--val_clips", "leaves no clip to train on")
    return learn, [clip for clip in clips if clip.name in names]


def _score(
    config: TrainFlowConfig,
    weights: Path,
    device: str,
    held: Sequence[FlowClip],
    segmenter: Segmenter | None,
) -> list[GapScore]:
    net = NetFlow(config.net, weights=weights, device=device)
    methods: dict[str, FlowEstimator] = {"dis": DisFlow(chained=False), "dis chained": DisFlow()}
    methods[config.net] = net
    scores = []
    for clip in held:
        labels = clip.labels_THW if clip.labels_THW is not None else _said(clip, segmenter, device)
        if labels is None:
            continue
        carries: dict[str, Carry] = {}
        if net.scale_level is not None and segmenter is not None:
            carries = _carries(config.net, net.scale_level, clip, segmenter, device)
        scores += score_clip(
            clip.name,
            list(clip.frames_THW3),
            list(labels),
            methods | dict.fromkeys(carries, net),
            gaps=config.gap_numbers,
            flow_size=config.size,
            carries=carries,
        )
    return scores


def _carries(name: str, level: str, clip: FlowClip, segmenter: Segmenter, device: str) -> dict[str, Carry]:
    """N's scores or features of the key, warped, without and with the scale field."""
    propagator, kept = build_propagator("flow_warp", level=level), dict[int, Any]()

    @torch.inference_mode()
    def carry(key: int, flow_hw2: np.ndarray) -> np.ndarray:
        if key not in kept:
            kept.clear()
            kept[key] = _maps(segmenter, level, clip.frames_THW3[key], device)
        moved = propagator.carry(kept[key], flow_hw2)
        alone = moved[None] if isinstance(moved, torch.Tensor) else tuple(part[None] for part in moved)
        scores_BCHW = alone if level == "scores" else segmenter.head(alone)
        assert isinstance(scores_BCHW, torch.Tensor)
        return labels_from_scores(scores_BCHW)[0].cpu().numpy().astype(np.uint8)

    return {
        f"{name}, {level}": lambda key, flow_hw2: carry(key, np.asarray(flow_hw2)),
        f"{name}, {level} x S": carry,
    }


def _maps(segmenter: Segmenter, level: str, frame_HW3: np.ndarray, device: str) -> Any:
    """What of one frame is carried at this level."""
    pixels = torch.from_numpy(frame_HW3)[None].permute(0, 3, 1, 2).to(device).float() / 255.0
    feats = segmenter.features(pixels)
    if level == "scores":
        return segmenter.head(feats)[0]
    return feats[0] if isinstance(feats, torch.Tensor) else tuple(part[0] for part in feats)


@torch.inference_mode()
def _said(clip: FlowClip, segmenter: Segmenter | None, device: str) -> np.ndarray | None:
    """What N says on every frame of a clip without labels."""
    if segmenter is None:
        return None
    said = []
    for frame_HW3 in clip.frames_THW3:
        pixels = torch.from_numpy(frame_HW3)[None].permute(0, 3, 1, 2).to(device).float() / 255.0
        said.append(labels_from_scores(segmenter.head(segmenter.features(pixels)))[0].cpu().numpy())
    return np.stack(said)


def _describe(
    config: TrainFlowConfig, built: FlowNet, learn: Sequence[FlowClip], held: Sequence[FlowClip]
) -> str:
    frames = sum(len(clip.frames_THW3) for clip in learn)
    labelled = sum(clip.labels_THW is not None for clip in learn)
    megabytes = sum(clip.frames_THW3.nbytes for clip in learn) / 2**20
    parameters = sum(weight.numel() for weight in built.net.parameters())
    return (
        f"{config.net} ({parameters / 1e6:.2f} M parameters), {config.recipe.steps} steps of "
        f"{config.recipe.batch} pairs, from {count(len(learn), 'clip')} ({labelled} labelled) with "
        f"{count(frames, 'frame')} ({megabytes:.0f} MiB); {count(len(held), 'clip')} left out for scores"
    )


def _digest(clips: Sequence[FlowClip]) -> str:
    """SHA-256 over the pixels and labels of all clips, in order."""
    total = hashlib.sha256()
    for clip in clips:
        total.update(f"{clip.name} {clip.moves} {clip.frames_THW3.shape}".encode())
        total.update(clip.frames_THW3.tobytes())
        total.update(clip.labels_THW.tobytes() if clip.labels_THW is not None else b"")
    return total.hexdigest()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
