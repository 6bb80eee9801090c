"""Promise: what N sees around a key region (`--regions.context`) depends on the frames of its segment alone:
lanes, stored states and steps that fail change no bit; where all regions are key, N sees the frame; layers
that remember their surroundings give a crop of a picture that has not changed what the frame has there.

Why: `tiny-face` on plain crops of 3x3 agrees .80 with itself on the frame, and neighbours whose surroundings
came from another video, or from a step that was made again, would be masks that nobody could explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.test_regions import rows_of, rows_of_lanes, said, whole_rows
from tests.engine.toy import ThresholdNet, inputs, make_engine, moving_clip, texture
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.methods import parse_methods
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine import Engine, FrameInput, FrameResult
from vidseg_core.engine.assemble import describe_net
from vidseg_core.engine.context import blocks_of, kept_per_pixel, place_of
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.engine.trial import crop_sizes
from vidseg_core.evaluation.bench import _try_crops
from vidseg_core.models import build_segmenter
from vidseg_core.models.surroundings import Reach, Surroundings, reach_of, surrounding

SIZE = (96, 160)
"""Five columns of 32, the multiple of the net: regions of 2x2 do not divide them."""
SCHEDULERS: dict[str, dict[str, Any]] = {
    "online": {"scheduler": "frame_difference", "threshold": 22.0, "max_interval": 6},
    "ahead": {"scheduler": "tests.pipeline.lookahead:Brightest", "max_interval": 5},
}
CONTEXTS = ("joint", "remembered")


def regions_of(context: str, grid: str = "2x2", **more: Any) -> RegionsConfig:
    return RegionsConfig(grid=grid, context=context, **{"overlap": 4, "align": 32, **more})  # type: ignore[arg-type]


def engine_of(kind: str, **more: Any) -> Engine:
    return make_engine(**{"net": build_segmenter("tiny:8", seed=1), **SCHEDULERS[kind], **more})


@cache
def clip(seed: int = 0, frames: int = 12) -> tuple[FrameInput, ...]:
    return tuple(inputs(moving_clip(frames, *SIZE, seed=seed), corrupt=[5]))


@cache
def undisturbed(kind: str, context: str, seed: int = 0) -> list[Any]:
    return said(whole_rows(engine_of(kind), clip(seed), regions_of(context)))


@given(
    keys=st.frozensets(st.integers(0, 11), min_size=1),
    shape=st.sampled_from([(3, 4), (4, 3), (2, 6), (12, 1)]),
)
def test_keys_fall_into_rectangles_each_into_one(keys: frozenset[int], shape: tuple[int, int]) -> None:
    blocks = blocks_of(keys, shape)
    assert sorted(region for block in blocks for region in block) == sorted(keys)
    for block in blocks:
        rows, columns = ({place} for place in divmod(block[0], shape[1]))
        for region in block:
            rows.add(region // shape[1])
            columns.add(region % shape[1])
        assert (
            len(block)
            == len(rows) * len(columns)
            == (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1)
        )
    if len(keys) == 12:
        assert len(blocks) == 1


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_stored_states_go_on_with_the_same_rows(kind: str, context: str) -> None:
    rows = undisturbed(kind, context)
    keys = {tuple(of_regions) for _, (of_regions, *_) in rows}
    assert len(keys) > 3  # else regions were key together always, or never
    for stores in ({0}, {1, 4, 8}, set(range(12))):
        again = whole_rows(engine_of(kind), clip(), regions_of(context), stores=stores)
        assert said(again) == rows


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("kind", "key_batch"), [("online", 1), ("online", 3), ("ahead", 1)])
def test_lanes_change_nothing(kind: str, context: str, key_batch: int) -> None:
    regions, clips = regions_of(context), [clip(0), clip(3)]
    together = rows_of_lanes(engine_of(kind, key_batch=key_batch), clips, regions)
    for rows, frames in zip(together, clips, strict=True):
        assert said(rows) == said(whole_rows(engine_of(kind, key_batch=key_batch), frames, regions))


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_step_that_fails_is_made_again_with_the_same_surroundings(kind: str) -> None:
    """What a failed step has seen would else be what the next one sees around its crops."""
    regions, engine = regions_of("remembered", "3x2"), engine_of(kind)
    here, state = RegionEngine(engine, regions), RegionStates.new(0, "s", 6)
    run, failures = engine.keys.run, iter([True, False] * 1000)

    def sometimes(*given: Any) -> Any:
        found = run(*given)
        if given[0] and next(failures):
            raise RuntimeError("after the net ran")
        return found

    engine.keys.run = sometimes  # type: ignore[method-assign]
    rows: list[FrameResult] = []
    for frame in clip():
        for _ in range(12):
            try:
                rows += here.step([state], [frame])[0]
                break
            except RuntimeError:
                continue
    engine.keys.run = run  # type: ignore[method-assign]
    rows += here.finish([state])[0]
    assert said(rows) == said(whole_rows(engine_of(kind), clip(), regions))


@pytest.mark.parametrize("context", CONTEXTS)
def test_where_all_regions_are_key_the_net_sees_the_frame(context: str) -> None:
    frames = clip(2, 3)
    engine = make_engine("every", net=build_segmenter("tiny:8", seed=1))
    rows = whole_rows(engine, frames, regions_of(context, "3x2"))
    alone = ChunkedNet(build_segmenter("tiny:8", seed=1), level="labels", batch=1, device="cpu")
    for row, frame in zip(rows, frames, strict=True):
        assert np.array_equal(row.labels_HW, alone.run([frame.frame_HW3])[0][0])
        assert row.key_share == 1.0


def test_keys_of_a_rectangle_cost_their_common_crop() -> None:
    rows = whole_rows(engine_of("online"), clip(), regions_of("joint"))
    crops = regions_of("joint").crops(SIZE)
    left = (crops[2].bottom - crops[0].top) * crops[0].shape[1]
    shares = {tuple(row.region_keys): row.key_share for row in rows if any(row.region_keys)}
    assert shares[True, True, True, True] == 1.0
    diagonal = ((True, False, False, True), (False, True, True, False))
    for keys, share in shares.items():
        alone = sum(crop.pixels for crop, key in zip(crops, keys, strict=True) if key) / (SIZE[0] * SIZE[1])
        assert (share < alone) == (sum(keys) > 1 and keys not in diagonal)
    assert shares.get((True, False, True, False), left / (SIZE[0] * SIZE[1])) == left / (SIZE[0] * SIZE[1])


def test_a_crop_whose_surroundings_are_remembered_is_as_in_the_frame() -> None:
    """Of a picture that has not changed, but for what is scaled up at the crop's border."""
    net, regions = build_segmenter("tiny-scenes"), regions_of("remembered", "2x3", overlap=8)
    frame_13HW = torch.from_numpy(texture(*SIZE, 7)).permute(2, 0, 1)[None] / 255.0
    surroundings = Surroundings(
        surrounding(net, regions.align), lambda size: [place_of(crop) for crop in regions.crops(size)], 0
    )
    whole, kept = surroundings.run(
        (0, SIZE[0], 0, SIZE[1]), SIZE, {}, lambda: net.head(net.features(frame_13HW))
    )
    for crop in regions.crops(SIZE):
        crop_13hw = frame_13HW[:, :, *crop.where]
        alone = net.head(net.features(crop_13hw))
        found, again = surroundings.run(
            place_of(crop), SIZE, kept, lambda shown=crop_13hw: net.head(net.features(shown))
        )
        wanted = whole[:, :, *crop.inner_where]
        errors = [(scores[:, :, *crop.inner_in_crop] - wanted).abs().mean() for scores in (found, alone)]

        assert errors[0] < 0.2 * errors[1]
        assert again.keys() == kept.keys()


class Pooled(torch.nn.Module):
    """The part of a PSPNet that works on a map of 6 x 6 cells, whatever the size of the picture."""

    multiple = 32

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, frame_13HW: torch.Tensor) -> torch.Tensor:
        found = self.conv(torch.nn.functional.adaptive_avg_pool2d(frame_13HW, 6))
        return torch.nn.functional.interpolate(found, frame_13HW.shape[2:])


@pytest.mark.parametrize("size", [(192, 192), (192, 128), (64, 64)])
def test_maps_of_a_fixed_size_are_no_parts_of_the_frame(size: tuple[int, int]) -> None:
    """Those of a crop looked like a part with other cells than the frame's, and the run ended with the name
    of a band that nobody had kept."""
    net, regions = Pooled(), regions_of("remembered", overlap=0)
    own: Any = SimpleNamespace(net=net)
    around = Surroundings(own, lambda size: [place_of(crop) for crop in regions.crops(size)], 0)
    frame_13HW = torch.rand(1, 3, *size)
    _, kept = around.run((0, size[0], 0, size[1]), size, {}, lambda: net(frame_13HW))
    for crop in regions.crops(size):
        shown_13hw = frame_13HW[:, :, *crop.where]
        found, kept = around.run(place_of(crop), size, kept, lambda shown=shown_13hw: net(shown))
        assert torch.equal(found, net(shown_13hw))


@pytest.mark.parametrize(
    ("regions", "options", "problem"),
    [
        (regions_of("remembered", align=16), {}, "works on multiples of 32 pixels, not of 16"),
        (regions_of("remembered"), {"net": ThresholdNet()}, "layers of 'toy' cannot be reached"),
        (regions_of("joint"), {"level": "scores"}, "does not go with --propagation.level scores"),
    ],
)
def test_what_does_not_go_together_is_refused(
    regions: RegionsConfig, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        RegionEngine(engine_of("online", **options), regions)


def test_a_context_without_regions_is_refused() -> None:
    """It did nothing, without a word."""
    alone = RegionsConfig(context="joint")
    with pytest.raises(ConfigError, match="^--regions.context: joint goes with --regions.grid, such as 2x2"):
        SegmentConfig(input=("a",), output="b", segmenter="plain", regions=alone)


class Takes(ThresholdNet):
    """A net that takes frames of these shapes alone."""

    shapes: frozenset[tuple[int, int]] = frozenset()

    def features(self, frames_B3HW: Any) -> Any:
        if tuple(frames_B3HW.shape[2:]) not in self.shapes:
            raise ValueError("not for me")
        return super().features(frames_B3HW)


@pytest.mark.parametrize(
    ("more", "refused"), [((), "96x72"), (((96, 72), (96, 128)), "56x128")], ids=["crops", "no pair of a row"]
)
def test_a_net_that_does_not_take_what_regions_run_as_is_refused_before_the_run(
    more: tuple[tuple[int, int], ...], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where regions run as one, the first call is of the frame; and a net that was tried on crops and on the
    frame ended the run when two neighbours were key."""
    monkeypatch.setattr(Takes, "shapes", frozenset(((56, 72), *more)))
    crops = RegionsConfig(grid="2x2", overlap=8)
    plain = SegmentConfig(
        input=("a",), output="b", segmenter=f"{__name__}:Takes", working_size="96x128", regions=crops
    )
    describe_net(plain)
    said = f"^--regions.grid: .*context joint: .*frame of {refused}: .*not for me"
    with pytest.raises(ConfigError, match=said):
        describe_net(replace(plain, regions=replace(crops, context="joint")))


def test_of_a_fine_grid_whole_rows_and_columns_are_tried() -> None:
    assert len(crop_sizes(regions_of("joint", "4x4", align=1), "256x256")[0]) <= 36
    sizes, whole = crop_sizes(regions_of("joint", "12x12", align=1), "512x512")
    assert whole in sizes and len(sizes) < 100


def test_a_net_that_fails_with_what_it_remembers_is_refused_before_the_run() -> None:
    net = build_segmenter("tiny:8", seed=1)
    own = surrounding(net, 32).net
    layers = [layer for layer in own.modules() if isinstance(layer, torch.nn.Conv2d) and reach_of(layer)]

    def reads_padding(layer: Any, given: Any, found: Any) -> None:
        if layer.padding == (0, 0):
            raise RuntimeError("where is my padding?")

    layers[-1].register_forward_hook(reads_padding)
    in_calls = ChunkedNet(net, level="labels", batch=1, device="cpu")
    with pytest.raises(ConfigError, match="^--regions.context: remembered does not .*where is my padding"):
        kept_per_pixel(regions_of("remembered", overlap=0), in_calls, SIZE)
    text = "fixed:interval=2,regions=2x2,overlap=0,align=32,context=remembered"
    (method,) = parse_methods([text], PropagationConfig())
    bench: Any = SimpleNamespace(net=net, config=SimpleNamespace(working_size="96x128", device="cpu"))
    with pytest.raises(ConfigError, match="^--methods: .*remembered does not .*where is my padding"):
        _try_crops(bench, method)


def test_what_layers_keep_of_a_segment_counts_before_the_run() -> None:
    """Bands along the borders of a fine grid overlap: together they are more than the maps."""
    regions = regions_of("remembered", "8x8", overlap=0)
    plain = SegmentConfig(
        input=("a",), output="b", segmenter="tiny:8", working_size="256", regions=regions, state_mb=1
    )
    with pytest.raises(ConfigError, match="^--state_mb: is 1, but 17 MB .* --regions.context remembered"):
        describe_net(plain)
    describe_net(replace(plain, state_mb=17))
    describe_net(replace(plain, regions=replace(regions, context="joint")))


def test_layers_with_windows_are_those_whose_output_has_a_cell_for_each_step() -> None:
    conv, pool = torch.nn.Conv2d, torch.nn.MaxPool2d
    assert reach_of(conv(1, 1, 3, padding=1)) == Reach(1, 1, pads=True)
    assert reach_of(conv(1, 1, 7, stride=2, padding=3)) == Reach(3, 2, pads=True)
    assert reach_of(conv(1, 1, 3, dilation=6, padding="same")) == Reach(6, 1, pads=True)
    assert reach_of(pool(3, 2, 1)) == Reach(2, 2, pads=False)
    assert reach_of(torch.nn.AvgPool2d(17, 1, 8)) == Reach(8, 1, pads=False)
    none: Sequence[torch.nn.Module] = (conv(1, 1, 1), pool(2), conv(1, 1, 3), torch.nn.ReLU())
    assert not any(map(reach_of, none))


def test_a_net_that_is_called_otherwise_is_as_it_was() -> None:
    """Regions of one engine change nothing for who else asks the same net; `evaluate` makes an engine for
    each clip, and each left its hooks there."""
    net, frame = build_segmenter("tiny:8", seed=1), clip()[0]
    before = ChunkedNet(net, level="labels", batch=1, device="cpu").run([frame.frame_HW3])[0][0]
    engine = RegionEngine(engine_of("online", net=net), regions_of("remembered"))
    rows_of(engine, RegionStates.new(0, "s", 4), clip()[:4])
    layers = surrounding(net, 32).net.modules()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    after = ChunkedNet(net, level="labels", batch=1, device="cpu").run([frame.frame_HW3])[0][0]
    assert np.array_equal(before, after)
