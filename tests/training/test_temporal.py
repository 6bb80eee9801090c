"""Promise: frames that are learned together move as the camera saw it; the temporal loss is Eq. 3 of ETC.

Why: a neighbour that is cropped, coloured or mirrored another way teaches the net to see motion where there
is none; labels that a frame has not must not slip in with its neighbours; and a net that is trained without
neighbours must stay the one it was.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.small import SCENES, small_config
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import AugmentRecipe, TemporalRecipe
from vidseg_core.datasets.records import IGNORE, Item, Record
from vidseg_core.models.trainable import trainable_net
from vidseg_core.training import ray_loader
from vidseg_core.training.augment import augment, augment_all
from vidseg_core.training.beside import Beside
from vidseg_core.training.data import TrainingData, check_gap, open_training_data
from vidseg_core.training.loop import _precision
from vidseg_core.training.neighbours import draw_neighbours
from vidseg_core.training.samples import Batch, Listed, Near
from vidseg_core.training.segmenter_job import SegmenterTraining
from vidseg_core.training.temporal_loss import FrozenFlow, temporal_loss, visible

ALL = AugmentRecipe(
    crop=48, colour=1.0, rotate=20.0, blur=0.9, stretch=0.3, focus=0.5, behind=0.5, scale_min=0.4
)


def record(seed: int = 0, *, labels: bool = True) -> Record:
    rng = np.random.default_rng(seed)
    frame_HW3 = rng.integers(0, 256, (40, 60, 3), np.uint8)
    labels_HW = rng.integers(0, 3, (40, 60), np.uint8) if labels else None
    return Record(video_id="a", frame_index=seed, frame_HW3=frame_HW3, labels_HW=labels_HW)


def clip(numbers: list[int]) -> tuple[Item, ...]:
    return tuple(Item(video_id="a", frame_index=number, image=f"{number}.png") for number in numbers)


# --- samples -----------------------------------------------------------------------------------------------


def test_a_frame_is_the_same_with_neighbours_and_without() -> None:
    for seed in range(30):
        alone_3HW, alone_HW = augment(record(1), ALL, np.random.default_rng(seed), lambda rng: record(9))
        records = [record(1), record(2), record(3, labels=False)]
        frames, labels = augment_all(records, ALL, np.random.default_rng(seed), lambda rng: record(9))
        assert np.array_equal(frames[0], alone_3HW) and np.array_equal(labels[0], alone_HW)


def test_what_did_not_move_does_not_move() -> None:
    """Sensor noise aside, of which there is none here."""
    quiet, seen = AugmentRecipe(crop=48, colour=1.0, rotate=20.0, stretch=0.3, scale_min=0.4), set()
    for seed in range(20):
        frames, labels = augment_all([record(1)] * 3, quiet, np.random.default_rng(seed))
        assert all(np.array_equal(frame_3HW, frames[0]) for frame_3HW in frames)
        assert all(np.array_equal(labels_HW, labels[0]) for labels_HW in labels)
        seen.add(frames[0].tobytes())
    assert len(seen) == 20


@given(st.sets(st.integers(0, 30), min_size=2, max_size=20), st.data(), st.integers(1, 8), st.integers(0, 99))
def test_neighbours_are_within_the_gap_one_on_each_side(
    numbers: set[int], data: st.DataObject, gap: int, seed: int
) -> None:
    order = sorted(numbers)
    here = data.draw(st.sampled_from(order))
    drawn = draw_neighbours(clip(order), here, gap, np.random.default_rng(seed))
    places = [item.frame_index for item in drawn]
    near = [number for number in order if 0 < abs(number - here) <= gap]
    assert len(places) == (2 if near else 0) and set(places) <= set(near)
    if any(number < here for number in near) and places:
        assert places[0] < here
    if any(number > here for number in near) and places:
        assert places[1] > here


def test_a_sample_of_a_run_brings_its_neighbours_and_only_the_labels_that_count(tmp_path: Path) -> None:
    config = small_config(tmp_path, data=(f"{SCENES}?labels_every=2",), temporal=TemporalRecipe(gap=1))
    training_set = open_training_data(config).training_set(config)
    batch = training_set.batch(0, range(4))
    assert batch.near is not None and batch.near.frames_K3HW.shape == (4, 2, 3, 32, 32)
    assert bool(batch.near.found.all()) and bool((batch.near.labels_KHW == IGNORE).all())
    plain = small_config(tmp_path, data=config.data)
    alone = open_training_data(plain).training_set(plain).batch(0, range(4))
    assert alone.near is None and torch.equal(alone.frames_B3HW, batch.frames_B3HW)


# --- the loss ----------------------------------------------------------------------------------------------


def test_the_loss_is_equation_3_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    now, there = (torch.randn(1, 3, 4, 5, generator=generator) for _ in "ab")
    frames, others = (torch.rand(1, 3, 4, 5, generator=generator) for _ in "ab")
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1.0, -1.0  # what is at (x, y) lies at (x + 1, y - 1)
    total = 0.0
    for y in range(4):
        for x in range(5):
            row, column = max(y - 1, 0), min(x + 1, 4)
            q, other = now[0, :, y, x].softmax(0), there[0, :, row, column].softmax(0)
            kl = sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(q, other, strict=True))
            difference = float((frames[0, :, y, x] - others[0, :, row, column]).abs().sum())
            total += math.exp(-difference) * kl
    found = temporal_loss(now, there, flow, visible(frames, others, flow))
    assert float(found) == pytest.approx(total / 20, rel=1e-4)


def test_masks_that_move_with_the_picture_cost_little_and_others_much() -> None:
    """The direction of the flow: from t to t + k, read in t + k."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, 16, 20), np.float32))
    wide = torch.nn.functional.interpolate(coarse, (96, 120), mode="bicubic").clamp(0, 1)
    before, after = wide[..., 8:72, 12:92], wide[..., 8:72, 8:88]  # everything moves four pixels right
    scores = 8.0 * (wide.sum(1, keepdim=True) > 1.5).float()
    scores = torch.cat([scores, 4.0 - scores], 1)
    of_before, of_after = scores[..., 8:72, 12:92], scores[..., 8:72, 8:88]
    flow = FrozenFlow(TemporalRecipe(gap=1), device="cpu", seed=0)(before, after)
    assert float(flow[:, 0, 16:-16, 16:-16].median()) == pytest.approx(4.0, abs=0.5)
    ones = torch.ones(1, 64, 80)
    follows = float(temporal_loss(of_before, of_after, flow, ones))
    stays = float(temporal_loss(of_before, of_before, flow, ones))
    assert follows < 0.25 * stays


def test_a_frame_without_neighbours_counts_in_no_loss_that_needs_them(tmp_path: Path) -> None:
    beside = Beside(small_config(tmp_path, temporal=TemporalRecipe(gap=1)), "abc", "cpu")
    net = trainable_net("tiny:8", num_classes=3, seed=0).eval()
    frames = torch.rand(2, 3, 32, 32)
    near = Near(torch.rand(2, 2, 3, 32, 32), torch.zeros(2, 2, 32, 32, dtype=torch.long), None)
    autocast = _precision(torch.device("cpu"), False)[0]

    def terms(found: list[bool]) -> dict[str, float]:
        batch = Batch(
            frames_B3HW=frames,
            labels_BHW=torch.zeros(2, 32, 32, dtype=torch.long),
            ids=(),
            near=near._replace(found=torch.tensor(found)),
        )
        _, terms = beside.judge(net, batch, autocast)
        return {name: float(term.detach()) for name, term in terms.items()}

    both, first, second, none = (
        terms(found) for found in ([True] * 2, [True, False], [False, True], [False] * 2)
    )
    assert set(both) == {"neighbours", "temporal"} == set(beside.losses) and not any(none.values())
    for name, value in both.items():
        assert value == pytest.approx((first[name] + second[name]) / 2, rel=1e-4)
    assert first["temporal"] != second["temporal"]


# --- nothing is asked for ----------------------------------------------------------------------------------


def test_without_a_gap_nothing_of_it_decides_a_run(tmp_path: Path) -> None:
    plain = small_config(tmp_path)
    assert not any(name.startswith("temporal") for name in plain.fingerprint_fields())
    assert not any(listed.clip for listed in open_training_data(plain).labelled)


def test_a_name_that_led_to_another_net_does_not_go_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Their numbers fit no net of the present name; names whose net is the same keep their runs."""
    fields = [
        small_config(tmp_path, segmenter=name).fingerprint_fields()["segmenter"]
        for name in ("pspnet-resnet18", "net:pspnet-resnet18", "fpn-densenet121", "tiny:8")
    ]
    assert fields == ["net:pspnet-resnet18", "net:pspnet-resnet18", "fpn-densenet121", "tiny:8"]


# --- what cannot be ----------------------------------------------------------------------------------------


def test_a_gap_that_no_clip_has_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path, temporal=TemporalRecipe(gap=4))
    with pytest.raises(
        ConfigError, match=r"--temporal\.gap: clip .* has 4 frames, too few for a gap of 4; give at most 3"
    ):
        open_training_data(config)


def listed(*clips: list[int]) -> TrainingData:
    """Labelled frames of clips with these frame numbers."""
    dataset: Any = SimpleNamespace(name="clips")
    found = [Listed(dataset, item, clip(numbers)) for numbers in clips for item in clip(numbers)]
    return TrainingData(class_names=("a",), labelled=tuple(found), pseudo=(), validation=())


def test_stills_are_no_video_but_may_stand_beside_one(tmp_path: Path) -> None:
    config = small_config(tmp_path, temporal=TemporalRecipe(gap=5))
    with pytest.raises(
        ConfigError, match="no training frame has another one within 5 frames; the nearest are 30"
    ):
        check_gap(config, listed([0, 30, 60], [7]))
    with pytest.raises(ConfigError, match="each is alone in its clip: they are stills"):
        check_gap(config, listed([3], [7]))
    with pytest.raises(ConfigError, match="the nearest are 6 apart: give 6 or more"):
        check_gap(config, listed([0, 6, 12], [7]))
    data = listed([0, 30, 60], [7], list(range(8)))
    check_gap(config, data)
    assert data.with_neighbours(5) == 8


def test_a_long_gap_makes_no_video_of_stills(tmp_path: Path) -> None:
    """Nothing can be followed over the second from one of CamVid's stills to the next."""
    config = small_config(tmp_path, temporal=TemporalRecipe(gap=30))
    with pytest.raises(ConfigError, match="within 10 frames; the nearest are 30 apart: they are stills"):
        check_gap(config, listed([0, 30, 60]))
    data = listed([0, 30, 60], list(range(40)))
    check_gap(config, data)
    assert data.with_neighbours(30) == 40
    assert not draw_neighbours(clip([0, 30, 60]), 30, 30, np.random.default_rng(0))
    seven = draw_neighbours(clip([0, 7, 30]), 7, 30, np.random.default_rng(0))
    assert [item.frame_index for item in seven] == [0, 30]


def test_a_run_that_learned_with_stills_does_not_go_on_without_them(tmp_path: Path) -> None:
    """Versions that knew no stills took those within a long gap for neighbours: some steps would follow one
    rule and some the other. Where no still is near, nothing decides that did not before."""
    names = []
    for gap, clips in ((12, [[0, 12, 24]]), (12, [[0, 40, 80]]), (10, [[0, 12, 24]]), (0, [[0, 12, 24]])):
        run = SegmenterTraining(small_config(tmp_path, temporal=TemporalRecipe(gap=gap)), None)
        run.data, run.beside = listed(list(range(20)), *clips), None
        run.net = trainable_net("tiny:8", class_names=("a",), seed=0)
        names.append("temporal.stills" in run.decides())
    assert names == [True, False, False, False]


def test_tasks_make_as_many_frames_with_neighbours_as_without() -> None:
    """Else they hold three times the memory; a batch is made by one task."""
    assert [ray_loader.blocks_of(96, batch=4, frames=frames) for frames in (1, 3)] == [3, 10]
    assert ray_loader.blocks_of(96, batch=48, frames=3) == 2


def test_what_tasks_read_is_what_the_loop_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path, data=(f"{SCENES}?labels_every=2",), temporal=TemporalRecipe(gap=2))
    training_set = open_training_data(config).training_set(config)
    monkeypatch.setattr(ray_loader, "_training_set", lambda shared: training_set)
    block = {"step": np.array([3, 3]), "slot": np.array([0, 1])}
    found = ray_loader._batch(ray_loader._read(None, block))  # type: ignore[arg-type]
    wanted = training_set.batch(3, range(2))
    assert found.near is not None and wanted.near is not None and found.ids == wanted.ids
    assert torch.equal(found.frames_B3HW, wanted.frames_B3HW)
    for part, other in zip(found.near, wanted.near, strict=True):
        assert torch.equal(part, other) and part.dtype == other.dtype
