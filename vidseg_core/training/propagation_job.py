"""``vidseg train-propagation``: what it reads, how its workers learn, how it is scored. See `driver`.

Every worker draws and judges its share of each step's cuts; the clips lie once in Ray's object store. What is
learned is a `Learner`'s business. Invariant: what it is scored on was never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import torch

from vidseg_core.config.errors import check
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.config.words import count
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine.trial import trial_sizes, try_net
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.fetched import bring
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.registry import build_segmenter, resolve_device
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.driver import Ending, Run, run_training
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.flow_job import clips_digest, held_out
from vidseg_core.training.learner import Learner, build_learner
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.propagation_score import table
from vidseg_core.training.ray_group import GroupLayout, GroupTraining, Member


def run_train_propagation(config: TrainPropagationConfig, reporter: Reporter | None = None) -> int:
    """Train (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    return run_training(PropagationTraining(config, reporter))


class PropagationTraining(GroupTraining):
    """What a learner learns from clips."""

    verb = "train-propagation"
    samples = "samples"
    config: TrainPropagationConfig
    segmenter: Segmenter
    learner: Learner
    learn: list[FlowClip]
    held: list[FlowClip]

    def size(self) -> tuple[int, int]:
        return self.config.recipe.steps, self.config.recipe.batch

    def prepare(self) -> None:
        config = self.config
        torch.set_num_threads(config.threads)
        cv2.setNumThreads(1)
        device = "cpu" if config.device == "cuda" else str(resolve_device(config.device))
        bring(config.segmenter, config.segmenter_weights, self.report)
        self.segmenter = _segmenter(config, device)
        self.learner = build_learner(config, self.segmenter, device)
        self.curve = ("step", "lr", *self.learner.losses, "seconds")  # losses: means since the row before
        sizes = trial_sizes(f"{config.recipe.height}x{config.recipe.width}")
        tried = try_net(self.segmenter, sizes=sizes, batch=config.recipe.batch, device=device)
        for note in filter(None, (self.segmenter.note, tried.note)):
            self.report.say(f"note: {note}")
        self.report.say(f"reading {', '.join(config.data)}")
        self.learn, self.held = held_out(list(_clips(config, self.segmenter, self.learner)), config.val_clips)
        check(any(clip.moves for clip in self.learn), "--data", "has no clip of two frames to train on")
        self.learner.check(self.learn)
        frames = sum(len(clip.frames_THW3) for clip in self.learn)
        self.report.say(
            f"{config.propagator} for {self.segmenter.name} ({self.learner.parameters / 1e6:.2f} M "
            f"parameters), {self.steps} steps of {self.batch} samples, from {count(len(self.learn), 'clip')} "
            f"with {count(frames, 'frame')}; {count(len(self.held), 'clip')} left out for scores"
        )

    def dry_run(self) -> None:
        self.report.say("nothing was trained (--dry_run)")

    def decides(self) -> dict[str, Any]:
        return (
            self.config.fingerprint_fields()
            | {
                "data": clips_digest(self.learn),
                "segmenter_weights": self.segmenter.digest,
            }
            | self.learner.decides()
        )

    def job(self, run: Run, layout: GroupLayout) -> PropagationJob:
        import ray

        config = self.config
        options = PropagationOptions(
            folder=layout.folder,
            seed=config.seed,
            save_every=config.save_every,
            log_every=config.log_every,
            fingerprint=run.fingerprint,
        )
        return PropagationJob(
            config=config, options=options, clips=tuple(ray.put(clip) for clip in self.learn)
        )

    def words(self, row: Mapping[str, Any]) -> str:
        return " | ".join(f"{name} {row[name]:.4g}" for name in self.learner.losses if row[name])

    def finish(self, run: Run, standing: Standing) -> Ending:
        scores = self.learner.score(run.folder, self.held)
        if scores.carried:
            self.report.say("on the clips that were left out:\n" + table(scores))
        return Ending(
            use=f"use it with {self.learner.use(run.folder)}",
            files=self.learner.file_names,
            parameters=self.learner.parameters,
            details={
                "clips": {clip.name: len(clip.frames_THW3) for clip in self.learn},
                "scores": [asdict(score) for score in scores.carried],
                "ranks": [asdict(rank) for rank in scores.ranks],
            },
        )


# --- in a worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PropagationJob:
    """What each worker gets."""

    config: TrainPropagationConfig
    options: PropagationOptions
    clips: tuple[Any, ...]
    """References into Ray's object store, one for each clip; within a tuple they are not fetched early."""

    def work(self, member: Member) -> None:
        """The first worker writes the weights."""
        import ray

        config, device = self.config, str(member.device)
        cv2.setNumThreads(1)
        learner = build_learner(config, _segmenter(config, device), device)
        clips = ray.get(list(self.clips))
        loop = PropagationLoop(learner, clips, self.options, member.group, member.watch)
        loop.run()
        if member.group.rank == 0:
            for name, data in learner.files(loop.weights()).items():
                write_whole(self.options.folder / name, data)


def _segmenter(config: TrainPropagationConfig, device: str) -> Segmenter:
    return build_segmenter(
        config.segmenter, device=device, weights=config.segmenter_weights, seed=config.seed
    )


def _clips(config: TrainPropagationConfig, segmenter: Segmenter, learner: Learner) -> Iterator[FlowClip]:
    """All clips of all data sets; labels of other classes than N's are left out."""
    for text in config.data:
        dataset = open_dataset(text)
        keeps = tuple(segmenter.class_names) == tuple(dataset.class_names)
        clips = dataset_clips(dataset, config.split, config.size, config.max_frames, partly=learner.partly)
        for clip in clips:
            yield clip if keeps else replace(clip, labels_THW=None)
