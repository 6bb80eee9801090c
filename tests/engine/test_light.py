"""Promise: Accel, GRFP and Clockwork compute what their papers say, show N's own masks on keys, belong to one
N, and depend on the frames alone, wherever the state was stored and whoever shares a step.

Why: each of them keeps something between frames that no table shows: a light net's look, a recurrent
state. If that were lost or mixed up, masks would only be a little worse.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy import inputs, moving_clip, plain, records_of, run
from tests.training.small import shaken, written
from vidseg_core.calibration.calibrate import check_dial_here
from vidseg_core.calibration.tasks import fill_ops
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.look import make_view
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.clockwork import new_clock, read_clock
from vidseg_core.models.light import AccelNet, GrfpNet, light_facts
from vidseg_core.models.operations import operations_of
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.gap import Gap, GapFrame
from vidseg_core.propagation.light import Accel
from vidseg_core.propagation.propagators import FlowWarp
from vidseg_core.scheduling import build_scheduler

NET, LEVELS, LIGHT = "tiny-scenes", "sharing:2/tiny-scenes", "tiny:8"
CLASSES = 6
NAMES = ("accel", "grfp", "clockwork:1", "clockwork:3")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights that do something, as if trained."""
    folder = tmp_path_factory.mktemp("files")
    facts = light_facts(build_segmenter(NET), LIGHT)
    nets = {"accel": AccelNet(facts), "grfp": GrfpNet(facts), "clockwork": new_clock(build_segmenter(LEVELS))}
    return {name: written(shaken(net), folder / name, name) for name, net in nets.items()}


def propagator(name: str, files: dict[str, str]) -> Any:
    name, _, clock = name.partition(":")
    return build_propagator(name, **({"clock": int(clock)} if clock else {"weights": files[name]}))


def engine(name: str, files: dict[str, str], *, scheduler: Any = None, **options: Any) -> Engine:
    settings: dict[str, Any] = {"sides": "one"} | options
    return Engine(
        build_segmenter(LEVELS if name.startswith("clockwork") else NET),
        scheduler or build_scheduler("fixed", interval=5),
        propagator(name, files),
        flow_size=48,
        **settings,
    )


# --- what is computed --------------------------------------------------------------------------------------


def test_a_new_fusion_shows_the_keys_scores() -> None:
    """A light net from nothing has nothing to say: with a mean of both faces were worse than by flow."""
    net, (one, other) = AccelNet(light_facts(build_segmenter(NET), LIGHT)), torch.rand(2, 1, CLASSES, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(net(one, other), one)


def test_the_unit_follows_its_equations() -> None:
    net = shaken(GrfpNet(light_facts(build_segmenter(NET), LIGHT)))
    before, update = torch.rand(2, 1, CLASSES, 9, 9)
    difference = torch.rand(1, 1, 9, 9)
    with torch.no_grad():
        found = net(before, update, difference)[0, :, 4, 4]
        w, x = (torch.softmax(each, 1) - 1 / CLASSES for each in (before, update))
        weights = {name: each.detach() for name, each in net.named_parameters()}

        def at(name: str, maps: torch.Tensor) -> torch.Tensor:
            patch = maps[0, :, 2:7, 2:7]
            return torch.einsum("ocyx,cyx->o", weights[f"{name}.weight"], patch) + weights.get(
                f"{name}.bias", 0
            )

        reset = [[at("picture_reset", _around(difference, y, x_)) for x_ in range(2, 7)] for y in range(2, 7)]
        r = 1 - torch.tanh(torch.tensor(reset).abs())
        rw = w.clone()
        rw[0, :, 2:7, 2:7] *= r
        candidate = at("x_state", x) + at("h_state", rw)
        z = torch.sigmoid(at("x_update", x) + at("h_update", rw))
        expected = weights["scale"] * (1 - z) * rw[0, :, 4, 4] + z * candidate
    torch.testing.assert_close(found, expected)


def _around(maps: torch.Tensor, y: int, x: int) -> torch.Tensor:
    """The map moved so that (y, x) is at (4, 4), zero beyond its border."""
    padded = torch.nn.functional.pad(maps, (9, 9, 9, 9))
    return padded[..., y + 5 : y + 14, x + 5 : x + 14]


@pytest.mark.parametrize("clock", [1, 2])
def test_levels_run_at_their_rates(
    clock: int, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, runs = engine(f"clockwork:{clock}", files), list[int]()
    inner = here.net.segmenter.net.inner  # type: ignore[attr-defined]
    for number, level in enumerate((inner.stage8, inner.stage16, inner.stage32)):
        level.register_forward_hook(lambda *_, number=number: runs.append(number))
    run(here, inputs(moving_clip(10)))
    assert runs.count(0) == 10  # the lower part: every frame
    assert runs.count(1) == 2 + {1: 8, 2: 4}[clock]
    assert runs.count(2) == 2  # the keys


def test_a_frame_like_its_key_has_its_masks(files: dict[str, str]) -> None:
    rows = run(engine("clockwork:3", files), inputs([moving_clip(1)[0]] * 5))
    assert len({row.labels_HW.tobytes() for row in rows}) == 1


def test_the_score_is_the_share_of_places_whose_class_has_changed(files: dict[str, str]) -> None:
    scheduler = build_scheduler("low_change", policy=files["clockwork"], threshold=100.0)
    clip, net = moving_clip(3), read_clock(files["clockwork"])
    rows = run(engine("clockwork:1", files, scheduler=scheduler), inputs(clip))
    low = ChunkedNet(build_segmenter(LEVELS), level="features", batch=1, device="cpu").low(clip)
    with torch.no_grad():
        key, *others = (net(tuple(maps[None] for maps in each)).argmax(1) for each in low)
    assert [row.decision_score for row in rows[1:]] == pytest.approx(
        [100.0 * float((each != key).float().mean()) for each in others]
    )


# --- in the engine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_keys_show_what_the_net_says_and_other_frames_do_not(name: str, files: dict[str, str]) -> None:
    frames, net = inputs(moving_clip(7)), LEVELS if name.startswith("clockwork") else NET
    rows = run(engine(name, files), frames)
    whole = ChunkedNet(build_segmenter(net), level="labels", batch=1, device="cpu")
    said = [labels_HW for labels_HW, _ in whole.run([frame.frame_HW3 for frame in frames])]
    same = [np.array_equal(row.labels_HW, mask_HW) for row, mask_HW in zip(rows, said, strict=True)]
    assert [n for n, equal in enumerate(same) if equal] == [0, 5]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("delay", [None, 2])
def test_storing_the_state_anywhere_changes_nothing(
    name: str, delay: int | None, files: dict[str, str]
) -> None:
    frames, here, state, rows = inputs(moving_clip(9)), None, SegmentState.new(0, "s"), list[Any]()
    undisturbed = plain(run(engine(name, files, delay=delay), frames))
    for number, frame in enumerate(frames):
        here = here or engine(name, files, delay=delay)
        rows += here.step([state], [frame])[0]
        if number in {0, 2, 5, 6}:
            here, state = None, SegmentState.from_bytes(state.to_bytes())
    assert plain(rows) == undisturbed


@pytest.mark.parametrize("delay", [2, 7])
def test_with_low_latency_the_unit_begins_anew_with_each_result_of_the_net(
    delay: int, files: dict[str, str]
) -> None:
    """It once went on from what it remembered, and no key but the first ever counted."""
    frames, here, state = (
        inputs(moving_clip(12)),
        engine("grfp", files, delay=delay),
        SegmentState.new(0, "s"),
    )
    begins = 5 + min(delay, 5)
    rows = [here.step([state], [frame])[0][0] for frame in frames[:begins]]
    key = state.key
    assert key is not None and key.ordinal == 5 and rows[5].is_key
    key = replace(key, carried=key.own, kept=None)
    now_hw = make_view(frames[begins].frame_HW3, 48, 1)
    link = Link(current=now_hw, key=key.view, distance=begins - 5)
    gap = Gap(left=key, frames=[GapFrame(left=link, rgb_HW3=frames[begins].frame_HW3)])
    (labels_HW,) = here.net.labels(list(here.filler.fill([gap])))
    np.testing.assert_array_equal(here.step([state], [frames[begins]])[0][0].labels_HW, labels_HW)


def test_levels_are_carried_over_in_any_precision() -> None:
    def parts() -> Engine:
        net = build_segmenter(LEVELS, precision="bf16")
        return Engine(
            net, build_scheduler("fixed", interval=9), build_propagator("clockwork", clock=3), sides="one"
        )

    frames, state = inputs(moving_clip(5)), SegmentState.new(0, "s")
    undisturbed, rows = plain(run(parts(), frames)), list[Any]()
    for frame in frames:
        rows += parts().step([state], [frame])[0]
        state = SegmentState.from_bytes(state.to_bytes())
    assert plain(rows) == undisturbed


@pytest.mark.parametrize("name", NAMES)
def test_two_lanes_of_other_sizes_give_what_one_lane_gives(name: str, files: dict[str, str]) -> None:
    clips = [inputs(moving_clip(7, width=width)) for width in (64, 80)]
    alone = [plain(run(engine(name, files), clip, name=str(n))) for n, clip in enumerate(clips)]
    together, states = engine(name, files), [SegmentState.new(0, str(n)) for n in range(2)]
    rows: list[list[Any]] = [[], []]
    for frames in zip(*clips, strict=True):
        for lane, new in zip(rows, together.step(states, frames), strict=True):
            lane += new
    assert [plain(lane) for lane in rows] == alone


@pytest.mark.parametrize("name", ["accel", "clockwork:1"])
def test_a_table_says_what_the_engine_gives(name: str, files: dict[str, str]) -> None:
    clip, here = moving_clip(7), engine(name, files, scheduler=build_scheduler("fixed", interval=50))
    builder = TableBuilder(
        TableOptions(quality="fidelity", horizon=6, min_frames=2, flow_size=48),
        net=ChunkedNet(
            build_segmenter(here.net.segmenter.name), level=here.filler.level, batch=1, device="cpu"
        ),
        propagator=propagator(name, files),
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=CLASSES,
    )
    seen = builder.see(records_of(clip))
    for labels_HW, row in zip(builder.pairs(seen, 0), run(here, inputs(clip))[1:], strict=True):
        np.testing.assert_array_equal(labels_HW, row.labels_HW)


def test_the_dial_counts_a_light_net_as_part_of_the_frames_between_keys(files: dict[str, str]) -> None:
    """It was counted as part of the net on keys, which made keys look more expensive than they are."""
    here = engine("accel", files)
    net = ChunkedNet(build_segmenter(here.net.segmenter.name), level="scores", batch=1, device="cpu")
    made = {
        name: TableBuilder(
            TableOptions(quality="fidelity", horizon=3, min_frames=2, flow_size=48),
            net=net,
            propagator=carrier,
            flow=DisFlow(),
            features=Features(("frame_difference",)),
            classes=CLASSES,
        )
        for name, carrier in (("accel", propagator("accel", files)), ("flow", FlowWarp("scores")))
    }
    records = records_of(moving_clip(4))
    net_alone = operations_of(lambda: made["flow"].see(records[:1]))
    assert net_alone == operations_of(lambda: made["accel"].run_net(records[:1])) > 0
    light = operations_of(lambda: made["accel"].see(records[:1])) - net_alone
    seen = made["accel"].see(records)
    fused = fill_ops(made["accel"], seen) - light
    assert light > fused > 0
    both = fill_ops(made["accel"], seen, sides=2)
    assert both == light + 2 * fused, "the light net runs once a frame, however many keys are fused with it"
    assert made["accel"].low_of(records[:1]) == made["flow"].low_of(records[:1]) == []


def test_the_dial_counts_the_levels_that_run_between_keys(files: dict[str, str]) -> None:
    """They were counted as part of the net on keys, and a frame between keys looked nearly free."""
    made = TableBuilder(
        TableOptions(quality="fidelity", horizon=3, min_frames=2, flow_size=48),
        net=ChunkedNet(build_segmenter(LEVELS), level="features", batch=1, device="cpu"),
        propagator=propagator("clockwork:1", files),
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=CLASSES,
    )
    records = records_of(moving_clip(1))
    assert 0 < operations_of(lambda: made.low_of(records)) < operations_of(lambda: made.run_net(records))


def test_the_light_net_runs_once_a_frame_with_two_sides(files: dict[str, str]) -> None:
    here = engine("accel", files, sides="two")
    accel, runs = here.filler.propagator, [0]
    assert isinstance(accel, Accel)
    accel.net.light.register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    rows = run(here, inputs(moving_clip(11)))
    assert [row.is_key for row in rows].count(True) == 3 and runs[0] == 8


@pytest.mark.parametrize("name", ["accel", "grfp"])
def test_a_net_that_the_weights_do_not_belong_to_is_refused(name: str, files: dict[str, str]) -> None:
    with pytest.raises(SegmenterError, match="was trained with another net than 'tiny:12'"):
        Engine(build_segmenter("tiny:12"), build_scheduler("every"), propagator(name, files), sides="one")


def test_a_net_that_is_not_in_levels_is_refused() -> None:
    with pytest.raises(SegmenterError, match="name sharing:2/tiny-scenes"):
        Engine(build_segmenter(NET), build_scheduler("every"), build_propagator("clockwork"), sides="one")


def test_a_clock_of_levels_that_are_not_there_is_refused() -> None:
    """It was ignored."""
    with pytest.raises(SegmenterError, match="clock 3 is that of the levels between, and 'sharing:1/tiny"):
        Engine(
            build_segmenter("sharing:1/tiny-scenes"),
            build_scheduler("every"),
            build_propagator("clockwork", clock=3),
            sides="one",
        )


def test_the_dial_refuses_a_clock_that_no_table_knows() -> None:
    config = SegmentConfig(
        input=("a",),
        output="b",
        segmenter=LEVELS,
        budget=0.1,
        scheduler=SchedulerConfig(name="low_change", policy="clock.safetensors"),
        propagation=PropagationConfig(name="clockwork", level="features", sides="one"),
    )
    with pytest.raises(ConfigError, match="--budget: cannot set the threshold of low_change: no table holds"):
        check_dial_here(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "clockwork", "level": "features", "clock": 3},
            "--propagation.clock: 3 goes with .*sides one",
        ),
        ({"clock": 2}, "--propagation.clock: 'flow_warp' has no levels"),
        (
            {"name": "accel", "level": "scores"},
            "--propagation.weights: must name a file of train-propagation",
        ),
        ({"name": "grfp", "level": "scores", "weights": "a"}, "--propagation.sides: must be one for 'grfp'"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PropagationConfig(**options)
