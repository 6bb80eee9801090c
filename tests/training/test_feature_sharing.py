"""Promise: the loss of FeatureSharing is the one of its chapter 4; what is trained is what runs; kills change
nothing.

Why: each term alone gives masks that look right on the frames it judges. Without those of the key the net
forgets keys, without that of the levels it makes them fit the key (its Fig. 4.3).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from tests.engine.toy import inputs, moving_clip, plain, run
from tests.training.small import killed_and_resumed
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.records import IGNORE, Record
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.metrics.schedule import distance_weighted_mean
from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.training.flow_clips import FlowClip, make_clip
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.sharing import SharingLearner, alpha, distance_of, draw_numbers, labelled_frames

NET = "sharing:2/tiny-scenes"
RECIPE = PropagationRecipe(height=32, width=64, steps=4, batch=2, warmup=1)


def learner(*, net: str = NET) -> SharingLearner:
    config = TrainPropagationConfig(
        data=("scenes:",), propagator="feature_sharing", segmenter=net, output="out", recipe=RECIPE
    )
    return SharingLearner(config, build_segmenter(net), "cpu")


def a_clip(*, labelled: bool = True, seed: int = 0) -> FlowClip:
    frames_THW3 = np.stack(moving_clip(14, seed=seed))
    labels_THW = (frames_THW3.argmax(axis=3) % 3).astype(np.uint8) if labelled else None
    return FlowClip(name=f"clip{seed}", frames_THW3=frames_THW3, labels_THW=labels_THW)


def engine(folder: Path | None = None, sides: Any = "one") -> Engine:
    weights = None if folder is None else str(folder / "sharing.safetensors")
    return Engine(
        build_segmenter(NET, weights=weights),
        build_scheduler("fixed", interval=5),
        build_propagator("feature_sharing"),
        sides=sides,
        flow_size=48,
    )


# --- chapter 4 ---------------------------------------------------------------------------------------------


def test_the_losses_are_those_of_chapter_4() -> None:
    teacher, here = build_segmenter(NET), learner()
    cut = here.draw([a_clip()], np.random.default_rng(3))
    now, key = (here.pictures([frame_hw3]) for frame_hw3 in cut.frames_Thw3)
    labels = torch.from_numpy(cut.labels_Thw[0])[None].long()
    distance = cut.numbers[0] - cut.numbers[1]
    assert distance >= 1
    of_now, of_key = (teacher.features(x) for x in (now, key))

    def nll(maps: Any, wanted: torch.Tensor) -> float:
        return float(functional.cross_entropy(teacher.head(maps), wanted, ignore_index=IGNORE))

    weight = 1.0 / (distance + 1)
    apart = torch.cat([(of_now[place] - of_key[place]).flatten() for place in (2, 3)])
    found = {name: float(value.detach()) for name, value in here.judge([cut]).items()}
    expected = {
        "current": weight * nll((*of_now[:2], *of_key[2:]), labels),
        "made_key": (1 - weight) * nll(of_key, teacher.head(of_key).argmax(1)),
        "own_key": (1 - weight) * nll(of_now, labels),
        "levels": float(apart.abs().mean()),
    }
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_frame_counts_less_the_farther_it_is_from_the_key() -> None:
    assert [alpha(d) for d in (1, 2, 15)] == [1 / 2, 1 / 3, 1 / 16]
    assert alpha(15, 0.3) == 0.3


@pytest.mark.parametrize(("distance", "found"), [(0, {1, 2, 3, 4}), (3, {3}), (90, {13})])
def test_keys_lie_before_their_frames_at_any_distance_or_at_one(distance: int, found: set[int]) -> None:
    random, recipe = np.random.default_rng(0), replace(RECIPE, max_gap=4)
    pairs = [draw_numbers([13], random, recipe, distance) for _ in range(30)]
    assert {current - key for current, key in pairs} == found


def test_frames_with_labels_are_learned_from_where_only_some_have_them() -> None:
    """Cityscapes' snippets have labels for one frame of thirty; such clips counted as without."""

    def record(number: int, frame_HW3: np.ndarray) -> Record:
        labels_HW = frame_HW3[..., 0] // 100 if number in (4, 6) else None
        return Record(video_id="x", frame_index=number, frame_HW3=frame_HW3, labels_HW=labels_HW)

    records = [record(*numbered) for numbered in enumerate(moving_clip(9))]
    clips = {partly: make_clip("x", records, 64, partly=partly) for partly in (True, False)}
    assert clips[False].labels_THW is None and labelled_frames(clips[False]) == list(range(1, 9))
    assert labelled_frames(clips[True]) == [4, 6]
    cuts = [learner().draw([clips[True]], np.random.default_rng(seed)) for seed in range(4)]
    assert {cut.numbers[0] for cut in cuts} <= {4, 6} and all(cut.numbers[1] < cut.numbers[0] for cut in cuts)


def test_levels_are_compared_in_either_norm() -> None:
    one, other = [torch.zeros(1, 1, 2, 2), torch.zeros(1, 4, 1, 1)], [torch.zeros(1, 1, 2, 2)] * 1
    other.append(torch.full((1, 4, 1, 1), 3.0))
    assert float(distance_of(one, other, "l1")) == 1.5
    assert float(distance_of(one, other, "l2")) == 4.5


def test_clips_without_labels_learn_from_the_net_as_it_was() -> None:
    here = learner()
    cut = here.draw([a_clip(labelled=False)], np.random.default_rng(0))
    other = replace(cut, labels_Thw=[np.zeros_like(labels_hw) for labels_hw in cut.labels_Thw])
    from_net, from_labels = (here.judge([one])["own_key"].item() for one in (cut, other))
    assert from_net < from_labels


def test_the_mean_of_keys_and_frames_is_weighted_by_distance() -> None:
    assert distance_weighted_mean(80.0, 60.0, 5) == 64.0
    assert distance_weighted_mean(80.0, 60.0, 1) == 80.0


# --- training ----------------------------------------------------------------------------------------------


def loop(folder: Path) -> PropagationLoop:
    return PropagationLoop(
        learner(), [a_clip(), a_clip(labelled=False, seed=1)], PropagationOptions(folder=folder, save_every=2)
    )


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    before = learner().net.state_dict()
    for name, value in killed_and_resumed(loop, tmp_path).items():
        settled = "running_" in name or "num_batches" in name
        assert torch.equal(value, before[name]) == settled or value.ndim < 1, name


def test_what_is_written_is_a_net_that_shares(tmp_path: Path) -> None:
    done = loop(tmp_path)
    done.run()
    here = learner()
    for name, data in here.files(done.weights()).items():
        (tmp_path / name).write_bytes(data)
    segmenter, _ = here.read(tmp_path)
    assert segmenter.trained and segmenter.note == "" and segmenter.digest != build_segmenter(NET).digest
    assert "sharing.safetensors" in here.use(tmp_path)
    frames = inputs(moving_clip(7))
    assert plain(run(engine(tmp_path), frames)) != plain(run(engine(), frames))
    with pytest.raises(SegmenterError, match=r"2 cached level\(s\), not 1"):
        build_segmenter("sharing:1/tiny-scenes", weights=str(tmp_path / "sharing.safetensors"))


def test_a_net_that_shares_nothing_is_refused() -> None:
    with pytest.raises(SegmenterError, match="name it sharing:1/tiny-scenes"):
        learner(net="tiny-scenes")


# --- in the engine -----------------------------------------------------------------------------------------


def test_keys_are_the_nets_and_frames_between_share_its_levels() -> None:
    clip = moving_clip(7)
    rows = run(engine(), inputs(clip))
    net = build_segmenter(NET)

    def features(number: int) -> Any:
        return net.features(torch.from_numpy(clip[number]).permute(2, 0, 1)[None].float() / 255.0)

    for number, key in ((0, 0), (3, 0), (5, 5), (6, 5)):
        maps = (*features(number)[:2], *features(key)[2:])
        labels_HW = net.head(maps).argmax(1)[0].numpy().astype(np.uint8)
        np.testing.assert_array_equal(rows[number].labels_HW, labels_HW)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_storing_the_state_anywhere_changes_nothing(sides: str) -> None:
    frames, stores = inputs(moving_clip(9)), {1, 4, 5, 7}
    here, state, rows = engine(sides=sides), SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += here.step([state], [frame])[0]
        if number in stores:
            here, state = engine(sides=sides), SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + here.finish([state])[0]) == plain(run(engine(sides=sides), frames))


def test_a_net_without_fuse_is_refused() -> None:
    with pytest.raises(SegmenterError, match="'tiny-scenes' has no fuse"):
        Engine(
            build_segmenter("tiny-scenes"),
            build_scheduler("fixed"),
            build_propagator("feature_sharing"),
            sides="one",
        )
