"""Promise: a flow net learns from pairs that step and seed alone decide; a run that was stopped ends with the
weights of one that was not; what cannot be learnt from is named.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import FlowRecipe
from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.registry import build_segmenter
from vidseg_core.propagation.warp import warp_error
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.driver import Progress
from vidseg_core.training.flow import FlowData, FlowLoopOptions, train_flow
from vidseg_core.training.flow_clips import FlowClip, dataset_clips, draw_pair
from vidseg_core.training.flow_job import FlowTraining, run_train_flow
from vidseg_core.training.flow_loss import exact_loss, label_loss, photometric_loss, task_loss
from vidseg_core.training.flow_score import mean_by_gap, score_clip, table
from vidseg_core.training.moved import moved_pair

SCENES = "scenes:videos=2,frames=12,height=64,width=96"
SMALL = FlowRecipe(steps=4, batch=4, height=32, width=64, warmup=2, max_gap=5)


@pytest.fixture(scope="module")
def clips() -> list[FlowClip]:
    return list(dataset_clips(open_dataset(SCENES), "all", 96))


def trained(clips: list[FlowClip], folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    net = build_flow_net("tiny-flow", seed=1, bare=True).net
    return train_flow(net, clips, SMALL, FlowLoopOptions(folder=folder, save_every=2, **options))


def square(shift: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels of the current and the key frame, and the flow (shift, 0) between them."""
    labels = torch.zeros(2, 1, 32, 48, dtype=torch.long)
    labels[0, :, 8:24, 10:26] = 1
    labels[1, :, 8:24, 10 + shift : 26 + shift] = 1
    flow = torch.zeros(1, 2, 32, 48)
    flow[:, 0] = shift
    return labels[0], labels[1], flow


def test_a_point_of_the_curve_reads_as_that_of_train_segmenter(tmp_path: Path) -> None:
    config, text = TrainFlowConfig(data=(SCENES,), output=str(tmp_path), recipe=SMALL), io.StringIO()
    watch = Progress(FlowTraining(config, Reporter("text", text)), 0)
    for step, seconds in ((1, 2.0), (3, 4.0)):
        watch({"step": step, "lr": 1e-3, "photo": 0.51234, "task": 2.0, "seconds": seconds})
    first, second = text.getvalue().splitlines()
    assert first.endswith("lr 1.00e-03 | 0.0 pairs/s | ETA -")
    said = "vidseg: step 3/4 (75 %) | photo 0.5123 | task 2 | lr 1.00e-03 | 4.0 pairs/s | ETA 0:01"
    assert second == said


# pairs ----------------------------------------------------------------------------------------------------


def test_the_flow_of_a_made_pair_is_the_flow_between_its_pictures(clips: list[FlowClip]) -> None:
    pictures = [clip.frames_THW3[0] for clip in clips]
    gains = []
    for seed in range(12):
        pair = moved_pair(pictures, np.random.default_rng(seed), 64, 96)
        still = warp_error(pair.current_HW3, pair.key_HW3, None).mean()
        gains.append(warp_error(pair.current_HW3, pair.key_HW3, pair.flow_HW2).mean() / still)
    assert np.median(gains) < 0.7 and max(gains) < 1.05


def test_a_batch_depends_on_seed_and_step_alone(clips: list[FlowClip]) -> None:
    first, again, other = (FlowData(clips, SMALL, seed) for seed in (0, 0, 1))
    again.batch(7)
    a, b, c = (data.batch(3) for data in (first, again, other))
    assert a.ids == b.ids and a.ids[2:] != c.ids[2:]
    np.testing.assert_array_equal(a.exact[0].flow_HW2, b.exact[0].flow_HW2)
    np.testing.assert_array_equal(a.drawn[0].current_hw3, b.drawn[0].current_hw3)


def test_a_drawn_pair_is_two_frames_of_one_clip_within_the_gap(clips: list[FlowClip]) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        pair = draw_pair(clips, random, height=32, width=64, max_gap=4)
        assert 1 <= abs(pair.current - pair.key) <= 4
        assert pair.current_hw3.shape == (32, 64, 3) and pair.labels_hw.shape == (32, 64)


# losses ---------------------------------------------------------------------------------------------------


def test_the_losses_are_least_at_the_true_flow() -> None:
    current, key, flow = square(6)
    still = torch.zeros_like(flow)
    assert float(label_loss(key, flow, current)) < 0.01 < float(label_loss(key, still, current))
    scores = torch.nn.functional.one_hot(key, 2).permute(0, 3, 1, 2).float() * 8.0
    assert float(task_loss(scores, flow, current)) < float(task_loss(scores, still, current))
    pictures = torch.rand(1, 3, 32, 60, generator=torch.manual_seed(0))
    now, before = pictures[..., 6:54], pictures[..., :48]
    assert float(photometric_loss(now, before, flow, 0.0)) < 0.01
    assert float(photometric_loss(now, before, still, 0.0)) > 0.1
    assert float(exact_loss([flow], flow)) < float(exact_loss([still], flow))


def test_unlabelled_pixels_do_not_count() -> None:
    current, key, flow = square(6)
    blank = torch.full_like(key, 255)
    assert float(label_loss(blank, flow, current)) == 0.0 and float(label_loss(key, flow, blank)) == 0.0


@pytest.mark.parametrize("name", ["tiny-flow", "flownet2_s", "spynet"])
def test_every_weight_of_a_net_learns(name: str, clips: list[FlowClip]) -> None:
    net = build_flow_net(name, bare=True).net
    pair = torch.rand(2, 1, 3, 64, 64, generator=torch.manual_seed(0))
    flow = net.levels(pair[0], pair[1])  # type: ignore[operator]
    exact_loss(flow, torch.ones(1, 2, 64, 64)).sum().backward()
    assert [key for key, weight in net.named_parameters() if weight.grad is None] == []


# the loop -------------------------------------------------------------------------------------------------


def test_a_stopped_run_ends_with_the_same_weights(clips: list[FlowClip], tmp_path: Path) -> None:
    whole = trained(clips, tmp_path / "whole")

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            raise KeyboardInterrupt

    net = build_flow_net("tiny-flow", seed=1, bare=True).net
    options = FlowLoopOptions(folder=tmp_path / "cut", save_every=2, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        train_flow(net, clips, SMALL, options, watch=stop)
    resumed = trained(clips, tmp_path / "cut")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_loss_that_is_no_number_stops_with_step_and_pairs(clips: list[FlowClip], tmp_path: Path) -> None:
    net = build_flow_net("tiny-flow", bare=True).net
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 0, batch: made pair 0;.* <- \d+; the che"):
        train_flow(net, clips, SMALL, FlowLoopOptions(folder=tmp_path))


def test_with_a_frozen_segmenter_its_scores_are_warped(clips: list[FlowClip], tmp_path: Path) -> None:
    unlabelled = [FlowClip(name=clip.name, frames_THW3=clip.frames_THW3) for clip in clips]
    seen: list[dict[str, Any]] = []
    segmenter, net = build_segmenter("plain"), build_flow_net("flownet2_s", bare=True).net
    recipe = FlowRecipe(steps=2, batch=2, height=64, width=64, exact_share=0.0, photo=0.0, warm_share=0.0)
    options = FlowLoopOptions(folder=tmp_path, log_every=1)
    before = segmenter.digest
    train_flow(net, unlabelled, recipe, options, segmenter=segmenter, watch=seen.append)
    assert [row["step"] for row in seen] == [1, 2] and all(row["task"] > 0 for row in seen)
    assert segmenter.digest == before


@pytest.mark.parametrize("level", ["scores", "features"])
def test_a_scale_field_learns_with_the_flow(level: str, clips: list[FlowClip], tmp_path: Path) -> None:
    segmenter = build_segmenter("tiny-scenes")
    channels = len(segmenter.class_names) if level == "scores" else 24
    net = build_flow_net("tiny-flow", scale=(level, channels)).net
    recipe = FlowRecipe(steps=3, batch=2, height=64, width=96, exact_share=0.5, photo=0.0, warmup=1, ema=0.0)
    torch.set_num_threads(1)
    state = train_flow(net, clips, recipe, FlowLoopOptions(folder=tmp_path), segmenter=segmenter)
    weight, bias = state[f"scale.by.{level}.weight"], state[f"scale.by.{level}.bias"]
    assert weight.shape[0] == channels and bool(weight.any()) and not torch.equal(bias, torch.ones(channels))


def test_a_scale_field_needs_a_segmenter(clips: list[FlowClip], tmp_path: Path) -> None:
    net = build_flow_net("tiny-flow", scale=("scores", 3)).net
    with pytest.raises(TrainingError, match="needs a segmenter"):
        train_flow(net, clips, SMALL, FlowLoopOptions(folder=tmp_path))


def test_weights_that_are_no_numbers_never_replace_a_checkpoint(
    clips: list[FlowClip], tmp_path: Path
) -> None:
    net = build_flow_net("tiny-flow", seed=1, bare=True).net

    def poison(row: dict[str, Any]) -> None:
        if row["step"] == 4:
            with torch.no_grad():
                next(net.parameters()).fill_(float("inf"))

    options = FlowLoopOptions(folder=tmp_path, save_every=2, log_every=1)
    with pytest.raises(TrainingError, match="the weights are not finite at step 3.*of step 2 is kept"):
        train_flow(net, clips, SMALL, options, watch=poison)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 2


# scores ---------------------------------------------------------------------------------------------------


def test_scores_by_gap_show_what_flow_is_worth(clips: list[FlowClip]) -> None:
    from vidseg_core.propagation import DisFlow

    clip = next(clip for clip in clips if "mixed" in clip.name)
    assert clip.labels_THW is not None
    methods = {"dis": DisFlow(chained=False), "dis chained": DisFlow()}
    frames, labels = list(clip.frames_THW3), list(clip.labels_THW)
    scores = score_clip(clip.name, frames, labels, methods, gaps=(1, 4, 99), stride=3)
    assert {(s.method, s.gap) for s in scores} == {
        (method, gap) for method in ("copy", "dis", "dis chained") for gap in (1, 4)
    }
    means = mean_by_gap(scores)
    assert all(0.0 < miou <= 1.0 for miou, _ in means.values())
    assert means["copy", 1][0] >= means["copy", 4][0]
    assert table(scores).splitlines()[0].split() == ["mIoU", "at", "gap", "1", "4", "ms/pair"]


# the verb -------------------------------------------------------------------------------------------------


def config(output: Path, **changes: Any) -> TrainFlowConfig:
    return TrainFlowConfig(
        **{
            "data": (SCENES,),
            "output": str(output),
            "val_clips": ("scene-000-mixed",),
            "recipe": SMALL,
            "steps": 2,
            "gaps": ("1", "5"),
            "device": "cpu",
            **changes,
        }
    )


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert run_train_flow(config(tmp_path / "dry", dry_run=True)) == 0
    assert not (tmp_path / "dry").exists()


def test_weights_with_a_scale_field_are_not_trained_on_without_it(tmp_path: Path) -> None:
    net, path = build_flow_net("tiny-flow", scale=("scores", 3)).net, tmp_path / "scaled.safetensors"
    path.write_bytes(weights_file(net.state_dict(), "tiny-flow"))
    with pytest.raises(ConfigError, match="was off, but --weights .* has a scale field for scores"):
        run_train_flow(config(tmp_path / "x", weights=str(path)))


def test_a_clip_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no clip 'scene-000-mixd' .did you mean 'scene-000-mixed'"):
        run_train_flow(config(tmp_path, val_clips=("scene-000-mixd",)))


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"net": "dis"}, "--net"),
        ({"net": "my.nets:Flow"}, "--net"),
        ({"data": ()}, "--data"),
        ({"gaps": ("0",)}, "--gaps"),
        ({"recipe": FlowRecipe(height=100)}, "--recipe.height"),
        ({"recipe": FlowRecipe(exact_share=1.5)}, "--recipe.exact_share"),
        ({"segmenter_weights": "n.safetensors"}, "--segmenter_weights"),
        ({"scale_field": "scores"}, "--scale_field"),
        ({"scale_field": "scores", "segmenter": "plain", "net": "raft"}, "--scale_field"),
        ({"scale_field": "labels", "segmenter": "plain"}, "--scale_field"),
        ({"workers": 9}, "--workers"),
    ],
)
def test_a_bad_option_is_refused_by_its_name(tmp_path: Path, changes: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, **changes)
    assert caught.value.option == option
