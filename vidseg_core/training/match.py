"""What `match` learns: a frame of a clip from two others that stand in for keys (`models.match`).

Model: lessons are frames between two keys of a clip, with the flows that the engine would have found,
chained over the frames between. They are drawn once, from the clips and the seed, and from clips in which
objects of these clips are pasted before them; a sample is a crop of a lesson (`propagation.lesson`). Clips
without labels of N's classes have N's masks for labels, on keys and between them. N is not changed.

Legend: h, w size of a clip; 2 = (u, v).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator

from vidseg_core.config.errors import check
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.models.match import STRIDE, MatchNet, match_metadata, read_match
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation.chain import Link, complete
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.lesson import LOSSES, CropForm, Lesson, Sample, draw_sample, look, losses_of
from vidseg_core.propagation.match import Match
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.learner import Learner
from vidseg_core.training.match_clips import pasted_clip

FILE = "match.safetensors"
PASTED, PASTED_FRAMES = 16, 60
"""Clips that are made, and their frames."""
SHORTEST, MIDDLES = 4, 4
"""Frames from key to key at least; lessons that one gap gives."""
TRIES = 40


class MatchLearner(Learner):
    """`net`: where it begins; None: `tiny-match`, which gets used to the clips."""

    losses = LOSSES
    file_names = (FILE,)

    def __init__(
        self, config: TrainPropagationConfig, segmenter: Segmenter, device: str, net: MatchNet | None = None
    ) -> None:
        super().__init__(config, segmenter, device)
        self.net = self._match = (net or read_match()).to(self.device).requires_grad_(True)
        self._form = _form(self.recipe)
        self.lessons: list[Lesson] | None = None
        """What it learns from; None: not drawn yet."""

    def check(self, clips: Sequence[FlowClip]) -> None:
        for name in ("height", "width"):
            size = getattr(self.recipe, name)
            check(size % STRIDE == 0, f"--recipe.{name}", f"must be a multiple of {STRIDE}, got {size}")
        check(self.recipe.max_gap >= SHORTEST, "--recipe.max_gap", f"must be at least {SHORTEST} for match")
        long_enough = any(len(clip.frames_THW3) > SHORTEST for clip in clips)
        check(long_enough, "--data", f"has no clip of more than {SHORTEST} frames to train on")

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> Sample:
        if self.lessons is None:
            self.lessons = self._lessons(clips)
        return next(samples_of(self.lessons, random, self._form))

    def judge(self, cuts: Sequence[Sample]) -> Mapping[str, torch.Tensor]:
        return losses_of(*look(self._match, cuts, self.device), cuts)

    def _lessons(self, clips: Sequence[FlowClip]) -> list[Lesson]:
        recipe, seed = self.recipe, self.config.seed
        labelled = list(as_seen_by(self.segmenter, clips, str(self.device)))
        size = (min(clip.frames_THW3.shape[1] for clip in clips), min(c.frames_THW3.shape[2] for c in clips))
        made = [
            pasted_clip(
                f"pasted-{number}",
                labelled,
                labelled,
                np.random.default_rng((seed, number)),
                frames=PASTED_FRAMES,
                size=size,
            )
            for number in range(PASTED)
        ]
        return lessons_of([*labelled, *made], recipe.lessons, seed, recipe.max_gap)

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        return {FILE: weights_bytes(weights, (), **match_metadata(self._match.facts))}

    def read(self, folder: Path) -> tuple[Segmenter, Match]:
        return self.segmenter, Match(str(folder / FILE), device=str(self.device))

    def use(self, folder: Path) -> str:
        return f"--propagation.name match --propagation.weights {folder / FILE}"


def _form(recipe: PropagationRecipe) -> CropForm:
    return CropForm(height=recipe.height, width=recipe.width)


def as_seen_by(segmenter: Segmenter, clips: Sequence[FlowClip], device: str) -> Iterator[FlowClip]:
    """Clips that have no labels with N's masks for labels."""
    net = ChunkedNet(segmenter, level="labels", batch=1, device=device)
    for clip in clips:
        if clip.labels_THW is None:
            masks = [labels_HW for labels_HW, _ in net.run(list(clip.frames_THW3))]
            clip = replace(clip, labels_THW=np.stack(masks))
        yield clip


def lessons_of(clips: Sequence[FlowClip], gaps: int, seed: int, max_gap: int) -> list[Lesson]:
    """Lessons of so many gaps; long clips come more often, and so do short gaps."""
    longest = [0 if clip.labels_THW is None else min(max_gap, len(clip.frames_THW3) - 1) for clip in clips]
    odds = np.array([math.sqrt(frames) if frames >= SHORTEST else 0.0 for frames in longest])
    if not odds.any():
        raise TrainingError("no labelled clip is long enough to train on")
    found: list[Lesson] = []
    for number in range(gaps):
        random = np.random.default_rng((seed, number))
        place = int(random.choice(len(clips), p=odds / odds.sum()))
        clip = clips[place]
        gap = int(np.exp(random.uniform(math.log(SHORTEST), math.log(longest[place] + 1))))
        left = int(random.integers(len(clip.frames_THW3) - gap))
        found += _lessons_of_gap(clip, left, left + gap, random)
    return found


def _lessons_of_gap(clip: FlowClip, left: int, right: int, random: Generator) -> Iterator[Lesson]:
    """Frames spread over one gap."""
    assert clip.labels_THW is not None
    inner = np.arange(left + 1, right)
    middles = sorted(random.choice(inner, min(MIDDLES, len(inner)), replace=False).tolist())
    grays = {t: cv2.cvtColor(clip.frames_THW3[t], cv2.COLOR_RGB2GRAY) for t in range(left, right + 1)}
    to_left = chained(grays, left, range(left + 1, middles[-1] + 1))
    to_right = chained(grays, right, range(right - 1, middles[0] - 1, -1))
    for t in middles:
        yield Lesson(
            pictures=[clip.frames_THW3[n] for n in (left, t, right)],
            labels=[clip.labels_THW[n] for n in (left, t, right)],
            flows=[to_left[t], to_right[t]],
            distances=[t - left, right - t],
            name=f"{clip.name} frames {left}, {t}, {right}",
        )


def chained(grays: Mapping[int, np.ndarray], key: int, frames: Sequence[int]) -> dict[int, np.ndarray]:
    """Flow (float16) of each of `frames`, which begin next to the key, to the key."""
    flow = DisFlow()
    links = [Link(current=grays[t], key=grays[key], distance=abs(t - key)) for t in frames]
    complete([links], lambda pairs: flow.flow([a for a, _ in pairs], [b for _, b in pairs]), chained=True)
    found = (link.flow_hw2 for link in links)
    return {t: f.astype(np.float16) for t, f in zip(frames, found, strict=True) if f is not None}


def samples_of(lessons: Sequence[Lesson], random: Generator, form: CropForm) -> Iterator[Sample]:
    """Random samples of random lessons, without end."""
    misses = 0
    while misses < TRIES:
        sample = draw_sample(lessons[int(random.integers(len(lessons)))], random, form)
        misses = misses + 1 if sample is None else 0
        if sample is not None:
            yield sample
    raise TrainingError("the clips hold hardly a frame with two classes in it")
