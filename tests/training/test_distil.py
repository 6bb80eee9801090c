"""Promise: what a student learns from a teacher is ETC's PF and MF; a run with all of it resumes to the same
bytes.

Why: similarities are easily taken over the wrong places or frames, and train all the same; a ConvLSTM that
two nets share can make them alike by saying nothing; and what is trained beside the net is forgotten by a
checkpoint that knows the net alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small import SCENES, Stopped, small_config, small_options, weights_in
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import DistilRecipe, TemporalRecipe, TrainRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import IGNORE, DatasetError
from vidseg_core.models.digest import digest_file
from vidseg_core.models.flow.registry import build_flow_net
from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.beside import OPTIONS, Beside, see
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.conv_lstm import CLIP, ConvLstm, multi_loss
from vidseg_core.training.distil import grid, pair_loss, self_similarities, single_loss
from vidseg_core.training.estimate import held_bytes, measure_step
from vidseg_core.training.group import Solo
from vidseg_core.training.loop import train
from vidseg_core.training.optimise import Average, build_optimiser
from vidseg_core.training.samples import Batch, Near
from vidseg_core.training.teacher import Teacher

CLASSES = ("a", "b", "c")


def maps(
    channels: int, side: int = 4, *, count: int = 1, seed: int = 0, batch: int = 2
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, side, side, generator=generator) for _ in range(count)]


def teacher_file(path: Path, classes: tuple[str, ...] = CLASSES) -> str:
    net = trainable_net("tiny:8", class_names=classes, seed=7)
    path.write_bytes(weights_bytes(weights_of(net), classes))
    return str(path)


def taught(output: Path, weights: str, **options: Any) -> TrainSegmenterConfig:
    """Twelve steps with all losses."""
    recipe = {"ema": 0.9, "batch": 2}
    parts = {"temporal": TemporalRecipe(gap=1), "teacher": "tiny:8", "teacher_weights": weights}
    return small_config(output, recipe=recipe, **(parts | options))


def batches(start: int, stop_before: int | None = None) -> Iterator[Batch]:
    """Two frames of 32 pixels a step; the second one has no neighbours, neighbours have few labels."""
    for step in range(start, 12):
        if step == stop_before:
            raise Stopped
        generator = torch.Generator().manual_seed(step)
        frames = torch.rand(2, 3, 3, 32, 32, generator=generator)
        labels = torch.randint(0, 3, (2, 3, 32, 32), generator=generator)
        labels[:, 1:, :16] = IGNORE
        near = Near(frames[:, 1:], labels[:, 1:], torch.tensor([True, False]))
        yield Batch(frames_B3HW=frames[:, 0], labels_BHW=labels[:, 0], ids=(("a", step),) * 2, near=near)


def run(
    config: TrainSegmenterConfig, stop_before: int | None = None, beside: Beside | None = None
) -> Standing:
    torch.set_num_threads(1)
    Path(config.output).mkdir(exist_ok=True)
    return train(
        trainable_net("tiny:8", class_names=CLASSES, seed=0),
        lambda start: batches(start, stop_before),
        small_options(config),
        beside=beside or Beside(config, CLASSES, "cpu"),
    )


# --- the losses --------------------------------------------------------------------------------------------


def test_pairs_of_frames_are_compared_place_by_place_as_in_equation_2() -> None:
    student, teacher = maps(3, 2, count=2), maps(3, 2, count=2, seed=1)

    def similar(first: torch.Tensor, second: torch.Tensor, i: int, j: int) -> float:
        x, y = (each[0].softmax(0).flatten(1)[:, place] for each, place in ((first, i), (second, j)))
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    differences = [
        similar(student[0], student[1], i, j) - similar(teacher[0], teacher[1], i, j)
        for i in range(4)
        for j in range(4)
    ]
    total = sum(difference**2 for difference in differences)
    found = pair_loss((student[0], student[1]), (teacher[0], teacher[1]), cells=24)
    assert float(found[0]) == pytest.approx(total / 16, rel=1e-4)
    assert float(pair_loss((student[0], student[1]), (student[0], student[1]), 24).max()) == 0.0


def test_a_teacher_is_met_by_its_own_scores_only() -> None:
    scores, others = maps(3)[0], maps(3, seed=1)[0]
    assert float(single_loss(scores, scores).max()) == pytest.approx(0.0, abs=1e-6)
    assert float(single_loss(scores, others).min()) > 0.01


def test_sequences_compare_whatever_the_channels_and_every_frame_counts() -> None:
    lstm, features = ConvLstm(0), maps(5, count=3)
    wide = [torch.cat([each, each], 1) for each in features]
    sides = grid([*features, *wide], 12)
    assert sides == (4, 4)
    ours, same = self_similarities(features, sides), self_similarities(wide, sides)
    assert float(multi_loss(lstm, ours, same).detach().max()) == pytest.approx(0.0, abs=1e-6)
    for time in range(3):
        changed = [*features]
        changed[time] = maps(5, seed=9)[0]
        assert float(multi_loss(lstm, self_similarities(changed, sides), ours).detach().min()) > 1e-6


def test_what_teacher_and_student_share_does_not_fall_silent() -> None:
    """Trained alone, on two nets that differ, it must not say the same of all places of both."""
    lstm = ConvLstm(0)
    ours, theirs = (self_similarities(maps(5, count=3, seed=seed), (4, 4)) for seed in (0, 1))
    optimiser = torch.optim.Adam(lstm.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        multi_loss(lstm, ours, theirs).mean().backward()
        optimiser.step()
        lstm.clip()
    assert float(lstm(theirs).detach().var(2).mean()) > 1e-3  # without the division 1e-8, by |E|^2 1e-4
    assert max(float(weight.detach().abs().max()) for weight in lstm.parameters()) <= CLIP


# --- a run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes], Standing]:
    """The teacher's file, and a run with all losses."""
    folder = tmp_path_factory.mktemp("taught")
    weights = teacher_file(folder / "teacher.safetensors")
    standing = run(taught(folder / "run", weights))
    return weights, weights_in(folder / "run"), standing


def test_stopped_it_goes_on_to_the_same_bytes(
    undisturbed: tuple[str, dict[str, bytes], Standing], tmp_path: Path
) -> None:
    weights, expected, _ = undisturbed
    config = taught(tmp_path, weights)
    for stop in (5, 10):
        with pytest.raises(Stopped):
            run(config, stop)
    run(config)
    assert weights_in(tmp_path) == expected


def test_every_loss_is_in_the_curve_and_counts(
    undisturbed: tuple[str, dict[str, bytes], Standing], tmp_path: Path
) -> None:
    weights, expected, standing = undisturbed
    names = ("frame", "neighbours", "temporal", "single", "pair", "multi")
    for row in standing.rows:
        parts = [row[f"loss_{name}"] for name in names]
        assert min(parts) > 0 and row["loss"] == pytest.approx(sum(parts), rel=1e-4)
    without = taught(tmp_path, weights, distil=DistilRecipe(multi=0.0))
    assert Beside(without, CLASSES, "cpu").losses == names[1:-1]
    run(without)
    assert weights_in(tmp_path) != expected


def test_a_teacher_alone_teaches_single_frames(
    undisturbed: tuple[str, dict[str, bytes], Standing], tmp_path: Path
) -> None:
    config = taught(tmp_path, undisturbed[0], temporal=TemporalRecipe())
    beside = Beside(config, CLASSES, "cpu")
    assert beside.losses == ("single",) and "distil.single" in config.fingerprint_fields()
    batch = next(batches(0))
    net = trainable_net("tiny:8", class_names=CLASSES, seed=0)
    alone = measure_step(net, Batch(**_without(batch)), None, torch.device("cpu"))
    with_all = measure_step(
        net, batch, Beside(taught(tmp_path, undisturbed[0]), CLASSES, "cpu"), torch.device("cpu")
    )
    assert with_all.kept_bytes > 2 * alone.kept_bytes > 0


def test_a_dry_run_counts_the_weights_of_every_net_that_a_step_runs(tmp_path: Path) -> None:
    """A teacher is often the largest of them."""
    net, recipe = trainable_net("tiny:8", class_names=CLASSES, seed=0), TrainRecipe()
    file = teacher_file(tmp_path / "teacher.safetensors")
    alone, once = held_bytes(net, recipe), sum(each.nbytes for each in net.buffers())
    assert alone == 4 * sum(4 * weight.numel() for weight in net.parameters()) + once
    nets = {}
    for flow in ("dis", "tiny-flow"):
        parts = {"temporal": TemporalRecipe(gap=1, flow=flow), "distil": DistilRecipe(multi=0.0)}
        nets[flow] = held_bytes(net, recipe, Beside(taught(tmp_path, file, **parts), CLASSES, "cpu"))
    assert nets["dis"] - alone == pytest.approx(alone / 4, rel=0.05)  # the teacher is another tiny:8
    flow_net = build_flow_net("tiny-flow").net
    held = [*flow_net.parameters(), *flow_net.buffers()]
    assert nets["tiny-flow"] - nets["dis"] == sum(each.nbytes for each in held)
    with_lstm = Beside(taught(tmp_path, file), CLASSES, "cpu")
    lstm = sum(weight.nbytes for weight in with_lstm.parameters())
    assert lstm and held_bytes(net, recipe, with_lstm) == nets["dis"] + 4 * lstm


def test_a_dry_run_counts_weights_once_however_large_the_batch() -> None:
    """Autograd saves them as well: they were counted among what grows with the batch, and grew with it."""
    net = trainable_net("tiny:16", class_names=CLASSES, seed=0)
    kept = []
    for count in (2, 4):
        labels = torch.zeros(count, 32, 32, dtype=torch.long)
        batch = Batch(frames_B3HW=torch.zeros(count, 3, 32, 32), labels_BHW=labels, ids=(("a", 0),) * count)
        kept.append(measure_step(net, batch, None, torch.device("cpu")).kept_bytes)
    assert kept[1] == pytest.approx(2 * kept[0], rel=0.1)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_dry_run_counts_what_the_optimiser_and_the_average_keep(optimiser: Any) -> None:
    net = trainable_net("tiny:8", class_names=CLASSES, seed=0)
    recipe = TrainRecipe(optimiser=optimiser, ema=0.9)
    made, average = build_optimiser(net, recipe), Average(net.net, recipe.ema)
    net(torch.zeros(2, 3, 64, 64)).sum().backward()
    made.step()
    moments = [
        each for kept in made.state.values() for each in kept.values() if each is not None and each.ndim
    ]
    weights = [*net.parameters(), *(weight.grad for weight in net.parameters()), *net.buffers()]
    held = [*weights, *moments, *average.state.values()]
    assert all(weight.grad is not None for weight in net.parameters())
    assert held_bytes(net, recipe) == sum(each.nbytes for each in held if each is not None)


def _without(batch: Batch) -> dict[str, Any]:
    return {"frames_B3HW": batch.frames_B3HW, "labels_BHW": batch.labels_BHW, "ids": batch.ids}


class Counted(Solo):
    """A worker that says how many numbers it adds up with the others'."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self.lengths.append(len(tensor))
        return tensor


def test_a_worker_without_a_batch_adds_up_as_many_numbers_as_the_others(
    undisturbed: tuple[str, dict[str, bytes], Standing], tmp_path: Path
) -> None:
    """Else the others wait for ever, or fail by the way they are connected, and nobody says which frame."""
    config, group = taught(tmp_path, undisturbed[0]), Counted()

    def torn(start: int) -> Iterator[Batch]:
        yield from islice(batches(start), 2)
        raise DatasetError("b.png is torn")

    with pytest.raises(DatasetError, match="b.png is torn"):
        train(
            trainable_net("tiny:8", class_names=CLASSES, seed=0),
            torn,
            small_options(config),
            beside=Beside(config, CLASSES, "cpu"),
            group=group,
        )
    assert group.lengths == [2 + 6] * 3


def test_labels_of_neighbours_weigh_as_those_of_the_frame(tmp_path: Path) -> None:
    """Class weights and Dice, too."""
    config = small_config(tmp_path, temporal=TemporalRecipe(gap=1, weight=0.0), recipe={"steps": 2})
    options = small_options(config, weights=(5.0, 1.0, 0.2))

    def twice(start: int) -> Iterator[Batch]:
        for batch in batches(start):
            near = Near(
                batch.frames_B3HW[:, None].repeat(1, 2, 1, 1, 1), None, torch.ones(2, dtype=torch.bool)
            )
            labels = batch.labels_BHW[:, None].repeat(1, 2, 1, 1)
            yield replace(batch, near=near._replace(labels_KHW=labels))

    net = trainable_net("tiny:8", class_names=CLASSES, seed=0)
    for row in train(net, twice, options, beside=Beside(config, CLASSES, "cpu")).rows:
        assert row["loss_neighbours"] == pytest.approx(row["loss_frame"], rel=1e-4)


def test_nets_that_pad_differently_are_compared_at_the_same_places(
    undisturbed: tuple[str, dict[str, bytes], Standing], tmp_path: Path
) -> None:
    """What a net pads a crop with to a multiple of its own is no place of the frame."""
    net, side = trainable_net("tiny:8", class_names=CLASSES), 33
    assert -(-side // net.net.multiple) * net.net.multiple // net.net.stride > -(-side // net.net.stride)
    frames = torch.rand(2, 3, side, side)
    teacher = Teacher(taught(tmp_path, undisturbed[0]), CLASSES, "cpu")
    for seen in (see(net, frames, None, nullcontext), teacher([frames], nullcontext)):
        assert seen.features[0].shape[2:] == (-(-side // net.net.stride),) * 2


# --- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_a_loss_that_is_no_number_is_named(
    name: str, undisturbed: tuple[str, dict[str, bytes], Standing], tmp_path: Path
) -> None:
    config = taught(tmp_path, undisturbed[0])
    beside = Beside(config, CLASSES, "cpu")
    beside.weights[name] = math.nan
    said = rf"the {name} loss \({re.escape(OPTIONS[name])}\) is nan at step 0.*a frame 0"
    with pytest.raises(TrainingError, match=said):
        run(config, beside=beside)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (
            ("a", "b", "d"),
            r"--teacher: tiny:8 has other classes than the data: it lacks 'c' and has 'd' besides",
        ),
        (("b", "a", "c"), r"--teacher: tiny:8 has the classes of the data in another order"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(classes: tuple[str, ...], said: str, tmp_path: Path) -> None:
    config = taught(tmp_path, teacher_file(tmp_path / "teacher.safetensors", classes))
    with pytest.raises(ConfigError, match=said):
        Beside(config, CLASSES, "cpu")


def test_a_teacher_that_knows_nothing_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path, teacher="tiny:8")
    with pytest.raises(ConfigError, match="random weights and nothing to teach; give --teacher_weights"):
        Beside(config, CLASSES, "cpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temporal": TemporalRecipe(gap=1, flow="motion_vectors")}, r"--temporal\.flow: .* of the stream"),
        ({"temporal": TemporalRecipe(gap=1, flow="dis", flow_weights="f.pt")}, r"--temporal\.flow_weights: "),
        (
            {"temporal": TemporalRecipe(gap=1, weight=0.0, labels=0.0)},
            r"--temporal\.weight: is 0: neighbours",
        ),
        ({"teacher_weights": "t.pt"}, r"--teacher_weights: goes with --teacher"),
        ({"teacher": "tiny:8", "distil": DistilRecipe(single=0.0)}, r"--teacher: teaches nothing"),
        ({"temporal": TemporalRecipe(weight=0.5)}, r"--temporal\.weight: goes with --temporal\.gap"),
        ({"temporal": TemporalRecipe(flow="tiny-flow")}, r"--temporal\.flow: goes with --temporal\.gap"),
        ({"distil": DistilRecipe(single=0.5)}, r"--distil\.single: goes with --teacher"),
        ({"teacher": "tiny:8", "distil": DistilRecipe(pair=0.5)}, r"--distil\.pair: wants neighbours"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small_config("unused", data=(SCENES,), **options)


class Picky:
    """A flow that wants another size."""

    channels, chained = 1, False

    def flow(self, current: object, key: object) -> list[object]:
        raise ValueError("sides must divide by 64")


def test_a_flow_that_needs_another_size_is_refused(tmp_path: Path) -> None:
    place = "tests.training.test_distil:Picky"
    config = small_config(tmp_path, temporal=TemporalRecipe(gap=1, flow=place))
    said = (
        r"--temporal\.flow: .*does not take pictures of 32x32 \(--augment\.crop 32\): sides must divide by 64"
    )
    beside = Beside(config, CLASSES, "cpu")
    assert beside.decides()["flow_weights"] == digest_file(Path(__file__))  # its code decides the weights
    with pytest.raises(ConfigError, match=said):
        beside.try_on(32)
