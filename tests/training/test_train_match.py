"""Promise: what `match` learns from follows from its material and a seed alone, and an interrupted training
ends with the weights of one that was not.

Why: the net in the package must be one that its command makes again; a clip or a crop that depended on what
was drawn before it would make another one after every restart.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.toy import moving_clip
from tests.training.small import killed_and_resumed
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models import build_segmenter
from vidseg_core.models.match import MatchFacts, new_match
from vidseg_core.propagation.lesson import CropForm, Lesson, draw_sample, look, losses_of
from vidseg_core.propagation.sight import OTHER
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.match import MatchLearner, lessons_of, samples_of
from vidseg_core.training.match_clips import drawn_clip, pasted_clip
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.propagation_job import run_train_propagation

RECIPE = PropagationRecipe(height=32, width=48, steps=5, batch=2, lessons=3, max_gap=6, lr=3e-3)
SLIM = MatchFacts(eye=8, trunk=8, branch=8, reach=1)


def footage(frames: int = 12, seed: int = 0) -> FlowClip:
    """Moving pictures whose classes are their strongest colours."""
    pictures = np.stack(moving_clip(frames, seed=seed))
    return FlowClip(name=f"clip-{seed}", frames_THW3=pictures, labels_THW=pictures.argmax(3).astype(np.uint8))


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return lessons_of([footage(), footage(seed=1)], 3, 0, 6)


def learner() -> MatchLearner:
    config = TrainPropagationConfig(
        data=("scenes:videos=1,frames=8",),
        segmenter="tiny-scenes",
        output="a",
        propagator="match",
        recipe=RECIPE,
    )
    return MatchLearner(config, build_segmenter("tiny-scenes"), "cpu", new_match(SLIM))


def loop(folder: Path, lessons: list[Lesson]) -> PropagationLoop:
    learns = learner()
    learns.lessons = lessons
    return PropagationLoop(learns, [footage()], PropagationOptions(folder=folder, save_every=2))


def test_a_pasted_clip_follows_from_its_material_and_the_seed() -> None:
    def made(seed: int) -> FlowClip:
        random = np.random.default_rng(seed)
        return pasted_clip("p", [footage()], [footage(seed=1)], random, frames=6, size=(40, 56))

    one, same, other = made(0), made(0), made(1)
    assert one.labels_THW is not None and same.labels_THW is not None
    assert np.array_equal(one.frames_THW3, same.frames_THW3) and np.array_equal(
        one.labels_THW, same.labels_THW
    )
    assert not np.array_equal(one.frames_THW3, other.frames_THW3)
    assert one.frames_THW3.shape == (6, 40, 56, 3) and len(np.unique(one.labels_THW)) > 1


def test_a_drawn_clip_has_exact_labels_of_every_frame() -> None:
    clip = drawn_clip(7, 3, (40, 56))
    assert clip.labels_THW is not None
    assert clip.frames_THW3.shape == (3, 40, 56, 3) and IGNORE not in clip.labels_THW


def test_lessons_are_frames_between_two_others(lessons: list[Lesson]) -> None:
    for lesson in lessons:
        assert min(lesson.distances) >= 1 and 4 <= sum(lesson.distances) <= 6
        assert [flow_hw2.shape for flow_hw2 in lesson.flows] == [(48, 64, 2)] * 2


def test_clips_without_labels_or_too_short_teach_nothing() -> None:
    with pytest.raises(TrainingError, match="no labelled clip is long enough"):
        lessons_of([footage(3)], 1, 0, 6)
    plain = footage()
    one_class = FlowClip(name="a", frames_THW3=plain.frames_THW3, labels_THW=np.zeros((12, 48, 64), np.uint8))
    with pytest.raises(TrainingError, match="hardly a frame with two classes"):
        next(
            samples_of(
                lessons_of([one_class], 1, 0, 6), np.random.default_rng(0), CropForm(height=32, width=48)
            )
        )


def test_a_sample_has_few_classes_in_any_order(lessons: list[Lesson]) -> None:
    form, first = CropForm(height=32, width=48, classes=2), set()
    for seed in range(12):
        sample = draw_sample(lessons[0], np.random.default_rng(seed), form)
        assert sample is not None and sample.classes == 2
        assert set(np.unique(sample.target_hw).tolist()) <= {0, 1, OTHER}
        colours_hw = sample.frame.now_hw3.argmax(2)
        first.add(int(np.bincount(colours_hw[sample.target_hw == 0], minlength=3).argmax()))
    assert len(first) > 1


def test_a_lesson_that_is_followed_is_learned(lessons: list[Lesson]) -> None:
    net, form = new_match(SLIM).train(), CropForm(height=32, width=48)
    random, optimiser = np.random.default_rng(0), torch.optim.AdamW(net.parameters(), 3e-3)
    samples = [sample for _ in range(4) if (sample := draw_sample(lessons[0], random, form))]
    seen = []
    for _ in range(25):
        losses = losses_of(*look(net, samples), samples)
        seen.append(float(losses["pixels"].sum().detach()))
        optimiser.zero_grad()
        sum(loss.sum() for loss in losses.values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    assert seen[-1] < 0.8 * seen[0]


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path, lessons: list[Lesson]) -> None:
    killed_and_resumed(lambda folder: loop(folder, lessons), tmp_path)


def test_clips_without_labels_are_learned_from_by_the_net_s_masks() -> None:
    bare = FlowClip(name="bare", frames_THW3=footage().frames_THW3)
    learns = learner()
    assert learns.draw([bare], np.random.default_rng(0)).classes >= 2
    assert learns.lessons is not None and len(learns.lessons) >= 3


def test_an_interval_too_short_for_a_lesson_is_refused_before_anything_is_drawn() -> None:
    """It was said that no clip is long enough, after the net had run on all of them."""
    learns = learner()
    learns.recipe = replace(RECIPE, max_gap=3)
    with pytest.raises(ConfigError, match="--recipe.max_gap: must be at least 4 for match"):
        learns.check([footage()])


def test_crops_that_do_not_fit_the_net_are_refused() -> None:
    config = TrainPropagationConfig(
        data=("scenes:videos=1,frames=8,height=48,width=64",),
        segmenter="tiny-scenes",
        output="a",
        propagator="match",
        recipe=replace(RECIPE, width=52),
        dry_run=True,
    )
    with pytest.raises(ConfigError, match="--recipe.width: must be a multiple of 8, got 52"):
        run_train_propagation(config)
