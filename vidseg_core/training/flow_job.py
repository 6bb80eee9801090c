"""``vidseg train-flow``: what it reads, how its workers learn, how the net is scored. See `driver`.

Every worker draws and judges its share of each step's pairs. The clips lie once in Ray's object store; all
workers on a machine look at the same memory. Invariant: what the net is scored on was never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import torch

from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.config.words import count
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine.trial import trial_sizes, try_net
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.fetched import bring
from vidseg_core.models.flow import FlowNet, build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.registry import build_segmenter, resolve_device
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.driver import Ending, Run, run_training
from vidseg_core.training.flow import PARTS, FlowLoopOptions, train_flow
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.flow_score import score_clips, table
from vidseg_core.training.ray_group import GroupLayout, GroupTraining, Member

LAST = "last.safetensors"
PROBE = 512
"""Side of a picture, pixels, that every net takes as it is; features of others carry their size along."""


def run_train_flow(config: TrainFlowConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    return run_training(FlowTraining(config, reporter))


class FlowTraining(GroupTraining):
    """A flow net on clips, with N frozen."""

    verb = "train-flow"
    samples = "pairs"
    curve = ("step", "lr", *PARTS, "seconds")
    """Losses are means since the row before, null where a loss has no weight."""
    config: TrainFlowConfig
    segmenter: Segmenter | None
    scale: tuple[str, int] | None
    """Level and channels of the scale field."""
    built: FlowNet
    learn: list[FlowClip]
    held: list[FlowClip]

    def size(self) -> tuple[int, int]:
        return self.config.recipe.steps, self.config.recipe.batch

    def prepare(self) -> None:
        config = self.config
        torch.set_num_threads(config.threads)
        cv2.setNumThreads(1)
        self.report.say(f"reading {', '.join((*config.data, *config.pictures))}")
        self.device = "cpu" if config.device == "cuda" else str(resolve_device(config.device))
        if config.segmenter is not None:
            bring(config.segmenter, config.segmenter_weights, self.report)
        self.segmenter = frozen_segmenter(config, self.device)
        if self.segmenter is not None:
            self._try(self.segmenter)
        self.scale = _scale(config, self.segmenter, self.device)
        self.built = build_flow_net(config.net, config.weights, seed=config.seed, bare=True, scale=self.scale)
        if self.built.scale_level and self.scale is None:
            level = self.built.scale_level
            problem = f"was off, but --weights {config.weights} has a scale field for {level}"
            raise ConfigError("--scale_field", problem)
        self.learn, self.held = held_out(list(_clips(config, self.segmenter)), config.val_clips)
        self.report.say(_describe(config, self.built, self.learn, self.held))

    def _try(self, segmenter: Segmenter) -> None:
        recipe = self.config.recipe
        sizes = trial_sizes(f"{recipe.height}x{recipe.width}")
        tried = try_net(segmenter, sizes=sizes, batch=recipe.batch, device=self.device)
        for note in filter(None, (segmenter.note, tried.note)):
            self.report.say(f"note: {note}")

    def dry_run(self) -> None:
        self.report.say("nothing was trained (--dry_run)")

    def decides(self) -> dict[str, Any]:
        return self.config.fingerprint_fields() | {
            "data": clips_digest(self.learn),
            "weights": self.built.digest,
            "segmenter_weights": self.segmenter.digest if self.segmenter else None,
        }

    def job(self, run: Run, layout: GroupLayout) -> FlowJob:
        import ray

        config = self.config
        options = FlowLoopOptions(
            folder=layout.folder,
            seed=config.seed,
            save_every=config.save_every,
            log_every=config.log_every,
            fingerprint=run.fingerprint,
        )
        clips = tuple(ray.put(clip) for clip in self.learn)
        return FlowJob(config=config, options=options, scale=self.scale, clips=clips)

    def words(self, row: Mapping[str, Any]) -> str:
        losses = [f"{name} {row[name]:.4g}" for name in PARTS if name in row]
        return " | ".join([*losses, f"lr {row['lr']:.2e}"])

    def finish(self, run: Run, standing: Standing) -> Ending:
        config, weights = self.config, run.folder / LAST
        scores = score_clips(config, weights, self.device, self.held, self.segmenter)
        if scores:
            self.report.say("on the clips that were left out:\n" + table(scores))
        level = f" --propagation.level {config.scale_field}" if config.scale_field != "off" else ""
        return Ending(
            use=f"use it with --propagation.flow {config.net} --propagation.flow_weights {weights}{level}",
            files=(LAST,),
            parameters=_parameters(self.built),
            details={
                "clips": {clip.name: len(clip.frames_THW3) for clip in self.learn},
                "scores": [asdict(score) for score in scores],
            },
        )


# --- in a worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FlowJob:
    """What each worker gets."""

    config: TrainFlowConfig
    options: FlowLoopOptions
    scale: tuple[str, int] | None
    clips: tuple[Any, ...]
    """References into Ray's object store, one for each clip; within a tuple they are not fetched early."""

    def work(self, member: Member) -> None:
        """The first worker writes the weights."""
        import ray

        config, device = self.config, str(member.device)
        cv2.setNumThreads(1)
        built = build_flow_net(config.net, config.weights, seed=config.seed, bare=True, scale=self.scale)
        state = train_flow(
            built.net,
            ray.get(list(self.clips)),
            config.recipe,
            replace(self.options, device=device),
            segmenter=frozen_segmenter(config, device),
            group=member.group,
            watch=member.watch,
        )
        if member.group.rank == 0:
            data = weights_file(state, config.net, step=config.recipe.steps, seed=config.seed)
            write_whole(self.options.folder / LAST, data)


def frozen_segmenter(config: TrainFlowConfig, device: str) -> Segmenter | None:
    """N, whose scores are warped; None: the labels stand in for its output."""
    if config.segmenter is None:
        return None
    return build_segmenter(
        config.segmenter, device=device, weights=config.segmenter_weights, seed=config.seed
    )


# --- data --------------------------------------------------------------------------------------------------


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


def held_out(clips: Sequence[FlowClip], names: Sequence[str]) -> tuple[list[FlowClip], list[FlowClip]]:
    """Clips to learn from, and those that are only scored. `ConfigError` for a name that no clip has."""
    known = {clip.name for clip in clips}
    for name in names:
        if name not in known:
            raise ConfigError("--val_clips", f"there is no clip {name!r}{nearest(name, known)}")
    learn = [clip for clip in clips if clip.name not in names]
    if not learn:
        raise ConfigError("--val_clips", "leaves no clip to train on")
    return learn, [clip for clip in clips if clip.name in names]


def _describe(
    config: TrainFlowConfig, built: FlowNet, learn: Sequence[FlowClip], held: Sequence[FlowClip]
) -> str:
    frames = sum(len(clip.frames_THW3) for clip in learn)
    labelled = sum(clip.labels_THW is not None for clip in learn)
    megabytes = sum(clip.frames_THW3.nbytes for clip in learn) / 2**20
    return (
        f"{config.net} ({_parameters(built) / 1e6:.2f} M parameters), {config.recipe.steps} steps of "
        f"{config.recipe.batch} pairs, from {count(len(learn), 'clip')} ({labelled} labelled) with "
        f"{count(frames, 'frame')} ({megabytes:.0f} MiB); {count(len(held), 'clip')} left out for scores"
    )


def clips_digest(clips: Sequence[FlowClip]) -> str:
    """SHA-256 over the pixels and labels of all clips, in order."""
    total = hashlib.sha256()
    for clip in clips:
        total.update(f"{clip.name} {clip.moves} {clip.frames_THW3.shape}".encode())
        total.update(clip.frames_THW3.tobytes())
        total.update(clip.labels_THW.tobytes() if clip.labels_THW is not None else b"")
    return total.hexdigest()


def _parameters(built: FlowNet) -> int:
    return sum(weight.numel() for weight in built.net.parameters())
