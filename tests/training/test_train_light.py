"""Promise: train-propagation trains Accel, GRFP and the clock of Clockwork by the one loop that there is:
kills change no weight, what is written is what runs read, Accel is scored beside both of its branches and
the clock by what it reports; options that only other propagators learn by are refused.

Why: their light net has running statistics, which a checkpoint that holds weights alone would lose.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from tests.engine.toy import moving_clip
from tests.training.small import killed_and_resumed
from vidseg_core.config.catalogue import BESIDE, LEARNED, PROPAGATORS
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import PropagationRecipe, SharingRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.clockwork import new_clock
from vidseg_core.models.light import AccelNet, light_facts
from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.learner import Learner, build_learner
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions

NAMES = ("accel", "grfp", "clockwork")


def config_of(name: str, **options: Any) -> TrainPropagationConfig:
    light = {"light": "tiny:8"} if name in BESIDE else {}
    return TrainPropagationConfig(
        data=("scenes:",), segmenter="tiny-scenes", output="out", propagator=name, **light, **options
    )


def learner(name: str, **options: Any) -> Learner:
    net = "sharing:2/tiny-scenes" if name == "clockwork" else "tiny-scenes"
    recipe = PropagationRecipe(height=32, width=64, steps=4, batch=2, warmup=1)
    if name == "grfp":
        recipe = replace(recipe, frames=3)
    if name == "accel":
        recipe = replace(recipe, crossed=True)
    given: dict[str, Any] = (
        ({} if name == "clockwork" else {"light": "tiny:8"}) | {"recipe": recipe} | options
    )
    config = TrainPropagationConfig(
        data=("scenes:",),
        segmenter=net,
        output="out",
        propagator=name,
        **given,
    )
    return build_learner(config, build_segmenter(net), "cpu")


def loop(name: str, folder: Path) -> PropagationLoop:
    clips = [FlowClip(name=str(n), frames_THW3=np.stack(moving_clip(8, seed=n))) for n in range(2)]
    return PropagationLoop(learner(name), clips, PropagationOptions(folder=folder, save_every=2))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_killed_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    before = learner(name).net.state_dict()
    weights = killed_and_resumed(lambda folder: loop(name, folder), tmp_path)
    assert any(not torch.equal(value, before[key]) for key, value in weights.items())


def test_the_fusion_learns_which_branch_to_believe_while_the_light_net_learns_its_part() -> None:
    """At the light net's rate it had hardly left its start when the run was over: the light net alone was
    better."""
    torch.manual_seed(0)
    net, labels = AccelNet(light_facts(build_segmenter("tiny-scenes"), "tiny:8")), torch.randint(6, (4, 8, 8))
    right = 2.0 * functional.one_hot(labels, 6).permute(0, 3, 1, 2).float()
    optimiser = torch.optim.AdamW(net.fuse.parameters(), lr=1e-3)
    for _ in range(60):
        fused = net(8.0 * torch.rand_like(right), right)
        optimiser.zero_grad()
        functional.cross_entropy(fused, labels).backward()
        optimiser.step()
    with torch.no_grad():
        fused = net(8.0 * torch.rand_like(right), right)
    assert float((fused.argmax(1) == labels).float().mean()) > 0.95


def test_the_fusion_learns_the_masks_of_the_net_whatever_a_clip_says() -> None:
    """From labels of a few clips it learned to say rare classes less often than the net does."""
    frames_THW3 = np.stack(moving_clip(8, seed=1))
    truth_THW = np.random.default_rng(0).integers(0, 6, frames_THW3.shape[:3], np.uint8)
    mine, losses = learner("accel"), []
    for labels_THW in (None, truth_THW):
        clip = FlowClip(name="a", frames_THW3=frames_THW3, labels_THW=labels_THW)
        losses.append(mine.judge([mine.draw([clip], np.random.default_rng(3))])["fused"])
    assert torch.equal(*losses)


def test_the_fusion_learns_from_clips_that_the_light_net_it_sees_has_not_learned_from() -> None:
    """It trusted a light net that knew its clips by heart, and on other clips gave worse masks than flow."""
    clips = [FlowClip(name=str(n), frames_THW3=np.stack(moving_clip(8, seed=n))) for n in range(3)]
    mine: Any = learner("accel")
    drawn = [mine.draw(clips, np.random.default_rng(n)) for n in range(12)]
    assert {(each.cut.clip, each.half) for each in drawn} == {("0", 0), ("1", 1), ("2", 0)}
    sample = next(each for each in drawn if each.half == 0)

    def fused() -> torch.Tensor:
        return mine.judge([sample])["fused"].detach()

    def spoil(net: torch.nn.Module) -> None:
        for weight in net.parameters():
            weight.data += 0.1 * torch.randn_like(weight)

    torch.nn.init.normal_(mine.net.fuse.weight)
    first, learned, unseen = fused(), mine.net.twins[0], mine.net.twins[1]
    spoil(mine.net.light)
    spoil(learned)
    assert torch.equal(fused(), first)
    mine.judge([sample])["light"].sum().backward()
    assert learned.net.classify.weight.grad is not None
    assert unseen.net.classify.weight.grad is None
    spoil(unseen)
    assert not torch.equal(fused(), first)


@pytest.mark.parametrize("crossed", [True, False])
def test_runs_without_twins_that_began_before_there_were_any_go_on(crossed: bool) -> None:
    fields = config_of("accel", recipe=PropagationRecipe(crossed=crossed)).fingerprint_fields()
    assert ("recipe.crossed" in fields) == crossed


def test_one_clip_is_enough_and_twins_may_be_left_out() -> None:
    clips = [FlowClip(name="only", frames_THW3=np.stack(moving_clip(8)))]
    recipe = PropagationRecipe(height=32, width=64, steps=4, batch=2, warmup=1)
    losses = []
    for crossed in (True, False):
        mine: Any = learner("accel", recipe=replace(recipe, crossed=crossed))
        assert len(mine.net.twins) == (2 if crossed else 0)
        losses.append(mine.judge([mine.draw(clips, np.random.default_rng(0))]))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in ("fused", "light"))


def test_a_lone_picture_of_a_half_teaches_a_net_that_pools() -> None:
    """Norms of what is pooled to one place want two pictures: training ended with what torch says of it."""
    clips = [FlowClip(name=str(n), frames_THW3=np.stack(moving_clip(4, seed=n))) for n in range(2)]
    mine: Any = learner("accel")
    twin = mine.net.twins[0]
    twin.register_module(
        "pooled", torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(3))
    )
    twin.register_forward_pre_hook(lambda net, given: (given[0] + net.pooled(given[0]),))
    drawn = [mine.draw(clips, np.random.default_rng(n)) for n in range(12)]
    one, other = (next(each for each in drawn if each.half == half) for half in (0, 1))
    mine.judge([one, other])["light"].sum().backward()
    assert twin.net.classify.weight.grad is not None and twin.training and twin.pooled[1].training


def test_clips_of_one_name_are_in_one_half_and_both_halves_have_clips() -> None:
    """Names of two data sets may be equal; one half without clips is a twin that has learned nothing."""
    names = ("a", "a", "b", "b")
    clips = [FlowClip(name=n, frames_THW3=np.stack(moving_clip(4, seed=i))) for i, n in enumerate(names)]
    mine: Any = learner("accel")
    drawn = [mine.draw(clips, np.random.default_rng(n)) for n in range(12)]
    assert {(each.cut.clip, each.half) for each in drawn} == {("a", 0), ("b", 1)}
    mine.check(clips)
    with pytest.raises(ConfigError, match=r"^--recipe\.crossed: wants clips of two names or more"):
        mine.check(clips[:2])
    learner("accel", recipe=PropagationRecipe(crossed=False)).check(clips[:2])


def test_accel_is_read_back_and_scored_beside_its_branches(tmp_path: Path) -> None:
    trained, mine = loop("accel", tmp_path), learner("accel")
    trained.run()
    for name, data in mine.files(trained.weights()).items():
        (tmp_path / name).write_bytes(data)
    clip = FlowClip(name="left out", frames_THW3=np.stack(moving_clip(8, seed=2)))
    scores = mine.score(tmp_path, [clip])
    assert {score.method for score in scores.carried} == {"Copy", "FlowWarp", "Update", "Accel"}


def test_a_light_net_may_begin_with_weights_of_its_own(tmp_path: Path) -> None:
    names = build_segmenter("tiny-scenes").class_names
    light, file = trainable_net("tiny:8", class_names=names, seed=5), tmp_path / "light.safetensors"
    file.write_bytes(weights_bytes(weights_of(light), names))
    found: Any = learner("accel", light_weights=str(file))
    assert torch.equal(found.net.light.net.classify.weight, light.net.classify.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"light": None}, "--light: must name the net that accel runs on every frame, e.g. tiny:8"),
        ({"light": "tinny:8"}, "--light"),
        (
            {"light": None, "propagator": "lvs", "light_weights": "a"},
            "--light_weights: has no effect on lvs; it goes with accel, grfp",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(options.pop("propagator", "accel"), **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("match", {"kernel": 5}, "--kernel: has no effect on match; it goes with lvs"),
        ("lvs", {"recipe": PropagationRecipe(light=2.0)}, "--recipe.light: .* lvs; it goes with accel, grfp"),
        ("accel", {"sharing": SharingRecipe(norm="l2")}, "--sharing.norm: .* goes with feature_sharing"),
        (
            "clockwork",
            {"recipe": PropagationRecipe(max_gap=9)},
            "--recipe.max_gap: has no effect on clockwork",
        ),
    ],
)
def test_options_of_other_learners_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    """They were ignored: a run of hours did not do what its command said."""
    with pytest.raises(ConfigError, match=message):
        config_of(name, **options)


@pytest.mark.parametrize("name", LEARNED)
def test_defaults_fit_and_every_loss_of_a_learner_has_a_weight_that_it_may_be_given(name: str) -> None:
    config_of(name)
    module, _, cls = PROPAGATORS[name].learner.partition(":")
    group = "sharing" if name == "feature_sharing" else "recipe"
    losses = {f"{group}.{loss}" for loss in getattr(import_module(module), cls).losses}
    assert losses <= set(PROPAGATORS[name].takes)


def test_the_clock_is_scored_by_what_its_layer_reports(tmp_path: Path) -> None:
    """Its masks do not depend on the layer, so nothing printed distinguished a trained one from another."""
    found, clip = learner("clockwork"), FlowClip(name="c", frames_THW3=np.stack(moving_clip(12, seed=1)))

    def ranked(seed: int) -> float:
        layer = new_clock(found.segmenter, seed=seed)
        (data,) = found.files(layer.state_dict()).values()
        (tmp_path / found.file_names[0]).write_bytes(data)
        (rank,) = found.score(tmp_path, [clip]).ranks
        return rank.expected

    assert len({ranked(seed) for seed in range(3)}) > 1


def test_a_net_that_learns_nothing_is_no_light_net() -> None:
    with pytest.raises(SegmenterError, match="'constant' cannot be trained here"):
        learner("accel", light="constant")
