"""Promise: a net that is trained with `--regions.grid` learns in the crops that `segment` would show it, from
what it said of the whole frame, with or without labels; killed or not, it ends with the same weights.

Why: crops cut another way than those of a run, a ring that no mask is made of, or norms that drift to the
statistics of crops would all be learned without a word, and the net would be another one on whole frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.toy import inputs, make_engine
from tests.training.small import (
    SCENES,
    VAL_CLIP,
    Stopped,
    make_folder,
    small_config,
    small_options,
    weights_in,
)
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import (
    AugmentRecipe,
    DistilRecipe,
    LearnedRegionsRecipe,
    TemporalRecipe,
    TrainRecipe,
)
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import IGNORE, DatasetError
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.metrics import ConfusionMatrix
from vidseg_core.models import build_segmenter
from vidseg_core.models.trainable import trainable_net, weights_of
from vidseg_core.training import ray_loader, segmenter_job
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.data import open_training_data
from vidseg_core.training.in_regions import InRegions, alike, see_crops
from vidseg_core.training.loop import train
from vidseg_core.training.samples import Batch, Framed
from vidseg_core.training.segmenter_job import (
    SegmenterJob,
    SegmenterTraining,
    build_beside,
    build_net,
    run_train_segmenter,
)

NET, GRID = "tiny-scenes", LearnedRegionsRecipe(grid="2x2", overlap=8, working_size="96")
PLAIN = AugmentRecipe(flip=False, scale_min=1.0, scale_max=1.0)
NAMES = build_segmenter(NET).class_names


def config_for(output: Path | str, **options: Any) -> TrainSegmenterConfig:
    """Six steps of two frames of 64x96 each, from the net in the package."""
    recipe = TrainRecipe(steps=6, batch=2, warmup=0, lr=1e-3)
    usual = {"segmenter": NET, "recipe": recipe, "regions": GRID, "augment": PLAIN, "val_clips": ()}
    return replace(small_config(output), **(usual | options))


def run(config: TrainSegmenterConfig, stop_before: int | None = None) -> Standing:
    """The run of `config` in this process, without Ray."""
    torch.set_num_threads(1)
    Path(config.output).mkdir(parents=True, exist_ok=True)
    data = open_training_data(config)
    samples = data.training_set(config)

    def batches(start: int) -> Iterator[Batch]:
        for step, batch in enumerate(samples.batches(start, config.recipe.steps), start):
            if step == stop_before:
                raise Stopped
            yield batch

    beside = build_beside(config, NAMES, "cpu")
    return train(build_net(config, data), batches, small_options(config), beside=beside)


def batch_of(sizes: list[tuple[int, int]], whole: list[bool]) -> Batch:
    side = max(map(max, sizes))
    frames_B3HW = torch.zeros(len(sizes), 3, side, side)
    labels_BHW = torch.full((len(sizes), side, side), IGNORE)
    for place, (rows, columns) in enumerate(sizes):
        generator = torch.Generator().manual_seed(place)
        frames_B3HW[place, :, :rows, :columns] = torch.rand(3, rows, columns, generator=generator)
        labels_BHW[place, :rows, :columns] = 1
    framed = Framed(torch.tensor(sizes), torch.tensor(whole))
    ids = tuple(("clip-b", number) for number in range(len(sizes)))
    return Batch(frames_B3HW=frames_B3HW, labels_BHW=labels_BHW, ids=ids, framed=framed)


# --- what the net sees -------------------------------------------------------------------------------------


class Same:
    """A net that says what it sees."""

    def __call__(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 16),
    st.sampled_from((1, 8, 32)),
    st.tuples(st.integers(48, 100), st.integers(48, 100)),
)
def test_every_pixel_is_that_of_the_region_that_its_mask_is_made_of(
    grid: tuple[int, int], overlap: int, align: int, size: tuple[int, int]
) -> None:
    regions = RegionsConfig(grid=f"{grid[0]}x{grid[1]}", overlap=overlap, align=align)
    if regions.problem(size):
        return
    frames_G3HW = torch.rand(2, 3, *size)
    seen = see_crops(Same(), frames_G3HW, regions.crops(size), nullcontext)  # type: ignore[arg-type]
    assert torch.equal(seen, frames_G3HW)


@pytest.mark.parametrize("align", [1, 32])
def test_masks_are_those_that_segment_puts_together(align: int) -> None:
    regions = RegionsConfig(grid="2x3", overlap=8, align=align)
    frame_HW3 = np.random.default_rng(0).integers(0, 256, (72, 104, 3), np.uint8)
    of_run = RegionEngine(make_engine("every", net=build_segmenter(NET)), regions)
    state = RegionStates.new(0, "a", regions.count)
    rows = of_run.step([state], inputs([frame_HW3]))[0] + of_run.finish([state])[0]
    frame_13HW = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255.0
    learner = trainable_net(NET).eval()
    scores = see_crops(learner, frame_13HW, regions.crops((72, 104)), nullcontext)
    assert (scores.argmax(1)[0].numpy() == rows[0].labels_HW).mean() > 0.999  # the last bits are others


def test_samples_are_whole_frames_of_the_working_size_and_a_share_is_seen_whole(tmp_path: Path) -> None:
    regions = LearnedRegionsRecipe(grid="2x2", overlap=8, working_size="72", whole=0.5)
    config = config_for(tmp_path, regions=regions)
    samples = open_training_data(config).training_set(config)
    batch = samples.batch(0, range(24))
    assert batch.framed is not None and batch.frames_B3HW.shape[2:] == (72, 72) == (samples.crop,) * 2
    assert batch.framed.size_2.tolist() == [[48, 72]] * 24
    assert not batch.frames_B3HW[:, :, 48:].any() and bool((batch.labels_BHW == IGNORE).all())
    assert 6 <= int(batch.framed.whole.sum()) <= 18
    again = samples.batch(0, [7])
    assert torch.equal(again.frames_B3HW[0], batch.frames_B3HW[7])
    assert again.framed is not None and again.framed.whole[0] == batch.framed.whole[7]
    varied = config_for(tmp_path, regions=regions, augment=AugmentRecipe(colour=1.0, rotate=20.0, blur=0.9))
    shape = open_training_data(varied).training_set(varied).batch(0, range(8)).frames_B3HW[:, :, 48:]
    assert not shape.any()


def test_what_tasks_read_is_what_the_loop_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for(tmp_path)
    samples = open_training_data(config).training_set(config)
    monkeypatch.setattr(ray_loader, "_training_set", lambda shared: samples)
    found = ray_loader._batch(ray_loader._read(None, {"step": np.array([3, 3]), "slot": np.array([0, 1])}))  # type: ignore[arg-type]
    wanted = samples.batch(3, range(2))
    assert found.framed is not None and wanted.framed is not None
    assert torch.equal(found.frames_B3HW, wanted.frames_B3HW)
    for part, other in zip(found.framed, wanted.framed, strict=True):
        assert torch.equal(part, other) and part.dtype == other.dtype


# --- what it learns ----------------------------------------------------------------------------------------


def test_a_frame_counts_alike_whatever_frames_share_its_step(tmp_path: Path) -> None:
    """Frames of other sizes, and such as are seen whole, where the net is its own teacher."""
    beside, net = InRegions(config_for(tmp_path), NAMES, "cpu"), trainable_net(NET)
    sizes, whole = [(64, 96), (48, 64), (64, 96), (64, 96)], [False, False, True, False]
    assert list(alike(batch_of(sizes, whole).framed).values()) == [[0, 3], [1], [2]]  # type: ignore[arg-type]
    scores, terms = beside.judge(net, batch_of(sizes, whole), nullcontext)
    alone = []
    for place in range(4):
        batch = batch_of(sizes, whole)
        one = Batch(
            frames_B3HW=batch.frames_B3HW[[place]],
            labels_BHW=batch.labels_BHW[[place]],
            ids=(batch.ids[place],),
            framed=Framed(*(part[[place]] for part in batch.framed or ())),
        )
        own, lone = beside.judge(net, one, nullcontext)
        alone.append(float(lone["single"].detach()))
        assert torch.allclose(own[0], scores[place], atol=1e-4)
    assert float(terms["single"].detach()) == pytest.approx(sum(alone) / 4, rel=1e-4)
    assert alone[2] == pytest.approx(0.0, abs=1e-6) and min(alone[0], alone[1], alone[3]) > 1e-4


def test_it_comes_nearer_to_itself_and_its_norms_stay(tmp_path: Path) -> None:
    rows = run(config_for(tmp_path, recipe=TrainRecipe(steps=12, batch=2, warmup=0, lr=1e-3))).rows
    assert rows[-1]["loss_single"] < 0.8 * rows[0]["loss_single"]
    assert all(row["loss_frame"] == 0.0 for row in rows)
    after = trainable_net(NET, weights=str(tmp_path / "last.safetensors")).net.state_dict()
    before = trainable_net(NET).net.state_dict()
    statistics = [name for name in before if "running" in name]
    assert statistics and all(torch.equal(before[name], after[name]) for name in statistics)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_labels_count_where_they_are_asked_for_and_are_not_needed_else(tmp_path: Path) -> None:
    with_labels = LearnedRegionsRecipe(grid="2x2", overlap=8, working_size="96", labels=True)
    config = config_for(tmp_path / "a", data=(f"{SCENES}?labels_every=2",), regions=with_labels)
    data = open_training_data(config)
    assert len(data.labelled) == 12 and data.class_names == NAMES
    batch = data.training_set(config).batch(0, range(12))
    known = [bool((labels_HW != IGNORE).any()) for labels_HW in batch.labels_BHW]
    assert any(known) and not all(known)  # frames without labels teach by the teacher alone
    assert run(config).rows[0]["loss_frame"] > 0.0
    make_folder(tmp_path / "bare", clips=1, side=48)
    for mask in (tmp_path / "bare" / "masks" / "clip0").iterdir():
        mask.unlink()
    bare = config_for(tmp_path / "b", data=(f"folder:{tmp_path / 'bare'}",))
    data = open_training_data(bare)
    assert len(data.labelled) == 2 and data.class_names == ()
    assert run(bare).step == 6


def test_the_best_weights_are_those_of_masks_that_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whole frames learning costs something: the best net there may be the one that learned least."""
    config = config_for(tmp_path, val_clips=(VAL_CLIP,))
    data, net = open_training_data(config), trainable_net(NET).eval()
    given: dict[str, Any] = {}
    monkeypatch.setattr(segmenter_job, "train", lambda *_, **options: given.update(options))
    job = SegmenterJob(config=config, data=data, options=small_options(config), loading=None)
    member = SimpleNamespace(group=SimpleNamespace(rank=0, size=1), device="cpu", watch=None)
    job.work(member)  # type: ignore[arg-type]
    found = given["validation"](net, torch.device("cpu"), 0, 1)
    of_regions, of_frames = ConfusionMatrix(len(NAMES)), ConfusionMatrix(len(NAMES))
    for listed in data.validation:
        record = listed.dataset.read(listed.item)
        assert record.labels_HW is not None
        frame_13HW = torch.from_numpy(record.frame_HW3).permute(2, 0, 1)[None].float() / 255.0
        for matrix, crops in ((of_regions, GRID.cut.crops((64, 96))), (of_frames, ())):
            scores = see_crops(net, frame_13HW, crops, nullcontext)
            matrix.update(scores.argmax(1)[0].to(torch.uint8).numpy(), record.labels_HW)
    assert np.array_equal(found.counts_CC, of_regions.counts_CC)
    assert not np.array_equal(found.counts_CC, of_frames.counts_CC)


def test_frames_to_validate_on_that_have_no_such_regions_are_refused_before_the_run(tmp_path: Path) -> None:
    low = "scenes:videos=1,frames=2,height=32,width=96"
    config = config_for(tmp_path / "run", val=(low,), regions=replace(GRID, grid="4x2"))
    with pytest.raises(ConfigError, match=r"--regions\.grid: 4x2 cuts frames of 32x96"):
        SegmenterTraining(config, None).prepare()


def test_a_net_whose_file_names_no_classes_teaches_itself_those_of_the_data(tmp_path: Path) -> None:
    torch.save(weights_of(trainable_net(NET)), tmp_path / "plain.pth")
    labels = replace(GRID, labels=True)
    options = {"weights": str(tmp_path / "plain.pth"), "regions": labels}
    training = SegmenterTraining(config_for(tmp_path / "run", **options), None)
    training.prepare()
    assert training.data.class_names == NAMES
    named = make_folder(tmp_path / "other", ("u", "v", "w", "x", "y", "z"), clips=1, side=48)
    other = config_for(tmp_path / "run", data=(named,), regions=labels)
    with pytest.raises(ConfigError, match=r"--segmenter: tiny-scenes has other classes than the data"):
        SegmenterTraining(other, None).prepare()


def test_classes_are_balanced_by_frames_that_have_labels(tmp_path: Path) -> None:
    text = make_folder(tmp_path / "some", clips=1, side=48)
    sorted((tmp_path / "some" / "masks" / "clip0").iterdir())[0].unlink()
    labels = LearnedRegionsRecipe(grid="2x2", overlap=8, working_size="96", labels=True)
    data = open_training_data(config_for(tmp_path, data=(text,), regions=labels))
    assert len(data.labelled) == 2 and data.class_pixels(0.0).sum() == 48 * 48


def test_stopped_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    varied = AugmentRecipe(colour=0.5, rotate=10.0, behind=0.5, scale_min=0.5)
    run(config_for(tmp_path / "whole", augment=varied, save_every=2))
    broken = config_for(tmp_path / "broken", augment=varied, save_every=2)
    with pytest.raises(Stopped):
        run(broken, stop_before=3)
    run(broken)
    assert weights_in(tmp_path / "broken") == weights_in(tmp_path / "whole")


# --- what decides a run, and what is refused ---------------------------------------------------------------


def test_without_a_grid_nothing_of_it_decides_a_run(tmp_path: Path) -> None:
    off, on = small_config(tmp_path).fingerprint_fields(), config_for(tmp_path).fingerprint_fields()
    assert not [name for name in off if name.startswith("regions.")]
    assert {"regions.grid", "regions.overlap", "regions.whole", "distil.single"} <= set(on)
    beside = build_beside(config_for(tmp_path), NAMES, "cpu")
    assert beside is not None and beside.decides()["teacher_weights"] == build_segmenter(NET).digest


def test_a_dry_run_says_what_is_seen_and_what_teaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(tmp_path / "run", dry_run=True)
    assert run_train_segmenter(config) == 0
    said = capsys.readouterr().err
    assert "12 frames; regions 2x2 with overlap 8, 25 % whole; taught by tiny-scenes as it begins" in said
    assert "labels do not count" in said and "size 96" in said and "one step of 2 takes" in said
    assert not (tmp_path / "run").exists()


def test_a_grid_written_in_another_way_is_the_same_grid() -> None:
    assert LearnedRegionsRecipe(grid="02x2") == LearnedRegionsRecipe(grid="2x2")
    assert LearnedRegionsRecipe(grid="01x1") == LearnedRegionsRecipe()
    with pytest.raises(ConfigError, match=r"--regions\.grid: must be ROWSxCOLUMNS"):
        LearnedRegionsRecipe(grid="2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regions": LearnedRegionsRecipe(overlap=8)}, r"--regions\.overlap: goes with --regions\.grid"),
        ({"regions": LearnedRegionsRecipe(whole=0.0)}, r"--regions\.whole: goes with --regions\.grid"),
        ({"regions": LearnedRegionsRecipe(grid="2x2", whole=1.0)}, r"--regions\.whole: is 1"),
        (
            {"regions": LearnedRegionsRecipe(grid="8x8", working_size="64")},
            r"--regions\.grid: 8x8 cuts frames of 64x64 into regions of 8 pixels",
        ),
        (
            {"regions": LearnedRegionsRecipe(grid="2x2", overlap=40, working_size="64")},
            r"--regions\.overlap: 40 reaches beyond the next region",
        ),
        (
            {"regions": LearnedRegionsRecipe(grid="2x2", working_size="a")},
            r"--regions\.working_size: must be a longest side",
        ),
        ({"temporal": TemporalRecipe(gap=1)}, r"--temporal\.gap: does not go with --regions\.grid"),
        ({"distil": DistilRecipe(single=0.0)}, r"--distil\.single: is 0: the whole frame would teach"),
        (
            {"recipe": TrainRecipe(class_balance=0.5)},
            r"--recipe\.class_balance: counts labels, which do not count here",
        ),
        ({"augment": AugmentRecipe(focus=0.5)}, r"--augment\.focus: counts labels"),
        ({"augment": AugmentRecipe(crop=64)}, r"--augment\.crop: has no effect with --regions\.grid"),
        ({"recipe": TrainRecipe(dice=0.5)}, r"--recipe\.dice: counts labels, which do not count here"),
        ({"encoder_weights": "a.pth"}, r"--encoder_weights: does not go with --regions\.grid"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_for("unused", **options)


class Hungry(torch.nn.Module):
    """A net that wants large frames."""

    spec = "hungry"

    def forward(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        if frames_B3HW.shape[2] < 48:
            raise ValueError("too few rows")
        return frames_B3HW


def test_a_net_that_takes_no_such_crops_and_one_that_knows_nothing_are_refused(tmp_path: Path) -> None:
    beside = InRegions(config_for(tmp_path), NAMES, "cpu")
    with pytest.raises(
        ConfigError, match=r"--regions\.grid: hungry cannot take crops of 40x56: too few rows"
    ):
        beside.try_frame(Hungry(), (64, 96))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--regions\.grid: 2x2 cuts frames of 24x96 into regions of 8"):
        beside.try_frame(trainable_net(NET), (24, 96))
    fresh = config_for(tmp_path, segmenter="tiny:8", teacher=NET, log="json")
    with pytest.raises(ConfigError, match=r"--segmenter: tiny:8 has random weights; --regions\.grid goes on"):
        SegmenterTraining(fresh, None).prepare()


def test_a_frame_of_a_size_that_was_not_tried_and_that_the_net_cannot_take_is_named(tmp_path: Path) -> None:
    """The sizes of some clips are tried beforehand; another one ended the run with what torch says."""
    beside = InRegions(config_for(tmp_path), NAMES, "cpu")
    batch = batch_of([(64, 96)], [False])
    with pytest.raises(DatasetError, match=r"^frame 0 of clip-b \(64x96\): the net cannot .*: too few rows$"):
        beside.judge(Hungry(), batch, nullcontext)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("scenes:videos=1,frames=2,height=64,width=96?regions=2x2", "its clips are regions already"),
        (
            "scenes:videos=1,frames=2,height=32,width=96",
            "frame . of scene.*: --regions.grid: 4x2 cuts frames of",
        ),
    ],
)
def test_frames_that_have_no_such_regions_are_named(data: str, said: str, tmp_path: Path) -> None:
    config = config_for(tmp_path, data=(data,), regions=replace(GRID, grid="4x2"))
    with pytest.raises((ConfigError, DatasetError), match=said):
        open_training_data(config).training_set(config).sample(0, 0)
