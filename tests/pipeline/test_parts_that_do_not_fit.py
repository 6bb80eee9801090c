"""Promise: a net, a flow or a propagator whose results do not fit is refused in one sentence that names it,
before anything is claimed; one that only looks odd keeps working.

Why: nets with swapped axes, half the size, or more channels than names ran to exit code 0, and their masks
held other pixels, or classes that have no name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy import inputs, moving_clip, run
from tests.pipeline import odd_parts
from tests.pipeline.test_messages import said
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig, TtaConfig
from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.engine.assemble import build_engine, describe_net
from vidseg_core.engine.trial import trial_sizes
from vidseg_core.episodes.episodes_job import run_build_episodes
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.models.protocol import ScoresError, SegmenterError
from vidseg_core.registry import PluginError
from vidseg_core.training.flow_job import run_train_flow

PARTS = "tests.pipeline.odd_parts:"
SCENES = "scenes:videos=1,frames=14,height=48,width=64"
ODD_NETS = {
    "Swapped": r"shape \(1, 3, 104, 72\), expected \(1, 3, 72, 104\).*rows and columns are swapped",
    "Short": r"shape \(1, 3, 71, 104\).*not the frame's size",
    "Small": r"shape \(1, 3, 36, 52\)",
    "PadsAndKeeps": r"shape \(1, 3, 96, 128\)",
    "Whole": "type int64, expected floating point",
    "Labels": r"shape \(1, 72, 104\).*one score for each class",
    "Arrays": "numpy.ndarray, expected a torch.Tensor",
    "Doubled": "another batch size",
    "NotANumber": "NaN or Inf",
    "Ends": "SystemExit: 3",
    "Dies": r"ends the process \(exit status 0\)",
    "IsKilled": r"ends the process \(signal SIGSEGV\)",
    "Raises": "KeyError: 'no such layer'",
    "CannotBegin": "cannot be built .FileNotFoundError: my_weights.pt",
    "TooFewNames": "3 channels, but class_names has 2 .red, green",
    "TooManyNames": "3 channels, but class_names has 5",
    "NoNames": "0 names",
    "OneName": "with one class every pixel would get it",
    "ManyNames": "300 names, expected 2 to 256",
    "SameNames": "'red' more than once",
    "NamesAsText": "class_names is a str",
    "NamesAsNumbers": "class_names holds 0",
    "NamesAsDict": "class_names is a dict",
    "NoStride": "stride is 0",
}
ODD_FLOWS = {
    "SwappedFlow": r"shape \(104, 72, 2\) and type float32, expected \(72, 104, 2\)",
    "ChannelsFirstFlow": r"shape \(2, 72, 104\)",
    "HalfSizeFlow": r"shape \(36, 52, 2\)",
    "DoubleFlow": "type float64",
    "TensorFlow": "gave a Tensor",
    "NanFlow": "NaN",
    "FirstFlowOnly": "1 flows, expected a list of 2",
    "TwoChannels": "channels is 2",
    "DyingFlow": r"ends the process \(exit status 139\)",
    "RaisingFlow": "SystemExit: no licence",
}
ODD_PROPAGATORS = {
    "SwappedCarry": r"shape \(104, 72\) and type uint8, expected array of shape \(72, 104\)",
    "WiderCarry": "type int64",
    "NothingCarried": "gave a NoneType",
    "ChangesTheKey": "changes what it is handed",
    "LabelOfNoClass": "label 200: there are 3 classes",
}


def config(net: str = "Channels", **options: Any) -> SegmentConfig:
    return SegmentConfig(input=("-",), output="-", segmenter=PARTS + net, **options)


def carrying(**options: Any) -> PropagationConfig:
    named = {key: PARTS + value for key, value in options.items() if key in ("flow", "name")}
    return PropagationConfig(**(options | named))


# --- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "message"), ODD_NETS.items())
def test_a_net_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(SegmenterError, match=message) as caught:
        describe_net(config(name))
    assert PARTS + name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dry_run", [False, True])
def test_segment_ends_with_2_and_claims_nothing(corpus: Path, tmp_path: Path, dry_run: bool) -> None:
    code, text = said(corpus, tmp_path / "out", segmenter=PARTS + "Swapped", dry_run=dry_run)
    assert code == 2 and PARTS + "Swapped" in text and "expected (1, 3, 72, 104)" in text
    assert not (tmp_path / "out" / "_run").exists()


def test_a_net_that_gives_one_frame_of_a_batch_is_refused_where_batches_are_asked_for() -> None:
    assert describe_net(config("FirstOnly")).class_names == ("red", "green", "blue")
    with pytest.raises(SegmenterError, match="another batch size"):
        describe_net(config("FirstOnly", key_batch=4))


def test_averaging_over_scales_hides_no_wrong_size() -> None:
    with pytest.raises(SegmenterError, match="swapped"):
        describe_net(config("Swapped", tta=TtaConfig(scales=(0.5, 1.0), flip=True)))


def test_swapped_axes_do_not_hide_behind_a_square_working_size() -> None:
    with pytest.raises(SegmenterError, match="swapped"):
        describe_net(config("Swapped", working_size="256x256"))


def test_pseudo_labels_have_room_for_255_classes() -> None:
    asked = PseudoLabelConfig(input=("-",), output="-", segmenter=PARTS + "All256")
    with pytest.raises(SegmenterError, match="256 names, expected 2 to 255"):
        describe_net(asked)


@pytest.mark.parametrize(("name", "message"), ODD_FLOWS.items())
def test_a_flow_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        describe_net(config(propagation=carrying(flow=name)))
    assert PARTS + name in str(caught.value) and "--propagation.flow" in str(caught.value)


@pytest.mark.parametrize(("name", "message"), ODD_PROPAGATORS.items())
def test_a_propagator_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        describe_net(config(propagation=carrying(name=name)))
    assert PARTS + name in str(caught.value)


def test_evaluate_refuses_them_too(corpus: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"data": (f"videos:{corpus}",), "output": str(tmp_path / "out")}
    with pytest.raises(SegmenterError, match="swapped"):
        run_evaluate(EvaluateConfig(**asked, segmenter=PARTS + "Swapped", methods=("fixed",)))
    asked["data"] = (SCENES,)
    for method in (f"fixed:interval=4,flow={PARTS}SwappedFlow", f"fixed:propagation={PARTS}SwappedCarry"):
        with pytest.raises(PluginError, match="Swapped"):
            run_evaluate(EvaluateConfig(**asked, segmenter="labels", methods=(method,)))
    assert not (tmp_path / "out").exists()


def test_build_episodes_refuses_them_too(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "data": (SCENES,),
        "output": str(tmp_path / "out"),
        "horizon": 6,
        "min_frames": 8,
    }
    with pytest.raises(SegmenterError, match="swapped"):
        run_build_episodes(
            BuildEpisodesConfig(**asked, segmenter=PARTS + "Swapped", quality="fidelity", dry_run=True)
        )
    with pytest.raises(PluginError, match="SwappedFlow"):
        options = TablePropagationConfig(flow=PARTS + "SwappedFlow")
        run_build_episodes(BuildEpisodesConfig(**asked, propagation=options))
    assert not (tmp_path / "out").exists()


def test_train_flow_refuses_a_net_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match="swapped"):
        run_train_flow(
            TrainFlowConfig(data=(SCENES,), output=str(tmp_path / "out"), segmenter=PARTS + "Swapped")
        )
    assert not (tmp_path / "out").exists()


# --- what only shows later ---------------------------------------------------------------------------------


def test_scores_of_another_shape_are_refused_at_any_frame() -> None:
    engine = build_engine(config("PortraitSwapped", propagation=PropagationConfig(flow_size=48)), "cpu")
    assert len(run(engine, inputs(moving_clip(2)))) == 2
    with pytest.raises(ScoresError, match="PortraitSwapped.*swapped"):
        run(engine, inputs([np.ascontiguousarray(p.transpose(1, 0, 2)) for p in moving_clip(2)]))


# --- sound, however odd ------------------------------------------------------------------------------------


def test_a_net_that_gives_other_scores_each_time_is_named() -> None:
    note = describe_net(config("Random")).note
    assert PARTS + "Random" in note and "other scores for the same frame" in note
    assert describe_net(config("Channels")).note == ""


@pytest.mark.parametrize("level", ["labels", "scores", "features"])
@pytest.mark.parametrize("name", ["Half", "WithGradients", "InPlace", "LowAndHigh"])
def test_an_odd_but_sound_net_gives_the_masks_of_a_plain_one(name: str, level: Any) -> None:
    masks = []
    for net in ("Channels", name):
        asked = config(
            net,
            scheduler=SchedulerConfig(name="fixed", interval=4),
            propagation=PropagationConfig(level=level, flow_size=48),
        )
        describe_net(asked)
        masks.append([row.labels_HW for row in run(build_engine(asked, "cpu"), inputs(moving_clip(9)))])
    agree = np.mean(np.array(masks[0]) == np.array(masks[1]))
    assert agree == 1.0 if name != "Half" else agree > 0.97  # half precision ties where float does not


def test_a_net_that_works_in_place_does_not_spoil_the_mirror_image() -> None:
    frames_B3HW = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    scores = []
    for net in ("Channels", "InPlace"):
        from vidseg_core.engine.assemble import build_net

        averaged = build_net(config(net, tta=TtaConfig(flip=True)), "cpu")
        scores.append(averaged.head(averaged.features(frames_B3HW.clone())))
    torch.testing.assert_close(*scores)


def test_256_classes_are_as_many_as_a_mask_holds() -> None:
    assert len(describe_net(config("All256")).class_names) == 256


@pytest.mark.parametrize(
    ("name", "working_size"),
    [
        ("OnlyOneSize", "256x384"),
        ("OneSizeOut", "256x384"),
        ("AtLeast128", "512"),
        ("AtLeast128", "300x300"),
        ("MultiplesOf32", "512"),
        ("MultiplesOf32", "384x640"),
    ],
)
def test_a_net_of_one_size_or_a_least_size_is_tried_at_the_working_size(name: str, working_size: str) -> None:
    assert describe_net(config(name, working_size=working_size)).class_names == ("red", "green", "blue")


def test_a_net_that_takes_no_frame_of_the_working_size_is_refused() -> None:
    with pytest.raises(SegmenterError, match="fails on a frame of 72x104.*greater than actual input"):
        describe_net(config("AtLeast128", working_size="64"))


def test_a_net_for_gpus_alone_is_left_untried_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    facts = describe_net(config("Raises", device="cuda", propagation=carrying(name="Keeps")))
    assert "could not be tried before the run" in facts.note
    with pytest.raises(SegmenterError, match="fails on a frame"):
        describe_net(config("Raises", device="auto"))
    for name in ("Swapped", "Ends", "Dies"):
        with pytest.raises(SegmenterError):
            describe_net(config(name, device="cuda"))


def test_flows_may_come_in_one_array() -> None:
    describe_net(config(propagation=carrying(flow="Stacked", name="Keeps")))


def test_the_small_frame_has_unequal_sides_and_the_working_size_s_remainders() -> None:
    assert trial_sizes(512)[0] == (72, 104) and trial_sizes("100x97")[0] == (68, 97)
    assert all(rows != columns for rows, columns in (trial_sizes(f"{n}x{n}")[0] for n in range(8, 99)))


def test_every_net_and_part_above_is_tried() -> None:
    named = {*ODD_NETS, *ODD_FLOWS, *ODD_PROPAGATORS}
    sound = {
        "Channels",
        "FirstOnly",
        "PortraitSwapped",
        "Random",
        "Half",
        "WithGradients",
        "InPlace",
        "LowAndHigh",
        "All256",
    }
    sound |= {"OnlyOneSize", "OneSizeOut", "AtLeast128", "MultiplesOf32", "Still", "Stacked", "Keeps"}
    there = {
        name
        for name, value in vars(odd_parts).items()
        if isinstance(value, type) and value.__module__ == odd_parts.__name__
    }
    assert there == named | sound
