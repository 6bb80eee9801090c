"""Promise: a table's numbers are the engine's. Whatever schedule an engine runs, its masks have exactly the
qualities that the table says, one-sided and two-sided, and online schedulers take the same keys on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pytest

from benchmarks.score_walk import SCORES, run_scores
from tests.engine.toy import ConvNet, ThresholdNet, inputs
from tests.episodes.scenes import CLASSES, GivenKeys, LabelsNet, engine_masks, records
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.records import Record
from vidseg_core.engine import Engine, regions
from vidseg_core.engine.frames import FrameResult
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.episodes.features import FEATURE_SETS, Features, spelled_out
from vidseg_core.episodes.on_tables import keys_on
from vidseg_core.episodes.quality import Truth
from vidseg_core.episodes.sources import dataset_of
from vidseg_core.episodes.store import encode_table
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.walk import two_sided_total, walk
from vidseg_core.metrics import ConfusionMatrix, mean_iou
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.scheduling.random_keys import RandomKeys

HORIZON = 12


def build(
    clip: Sequence[Record],
    *,
    net: Any = None,
    level: str = "labels",
    features: Sequence[str] = ("scores",),
    chained: bool = True,
    propagator: str = "flow_warp",
    **options: Any,
) -> EpisodeTable:
    made = TableOptions(**{"horizon": HORIZON, "flow_size": 48, "min_frames": 5, **options})
    builder = TableBuilder(
        made,
        net=None if net is None else ChunkedNet(net, level=level, batch=1, device="cpu"),
        propagator=build_propagator(propagator, level=level),
        flow=DisFlow(chained=chained),
        features=Features(features),
        classes=CLASSES,
    )
    return builder.build("clip", 0, clip, fingerprint={"who": "test"})


def qualities(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray | None]) -> np.ndarray:
    """float32 [T], written another way: IoU of the real classes from the metrics's matrix."""
    values = []
    for mask_HW, truth_HW in zip(masks, truths, strict=True):
        if truth_HW is None:
            values.append(np.nan)
            continue
        iou = ConfusionMatrix(CLASSES + 1).update(mask_HW, truth_HW).iou()[:CLASSES]
        values.append(np.nanmean(iou))
    return np.array(values, np.float32)


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("keys", [(0, 7, 9, 19, 20, 30), (0, 12, 24), (0, 11, 22, 33)])
def test_a_schedule_on_the_table_is_the_engine_with_that_schedule(
    keys: tuple[int, ...], chained: bool
) -> None:
    clip = records(36, unlabelled=[5, 20])
    table = build(clip, chained=chained)
    masks, taken = engine_masks(
        clip,
        GivenKeys(keys),
        LabelsNet(clip),
        sides="one",
        max_interval=HORIZON,
        flow=DisFlow(chained=chained),
    )
    assert tuple(taken) == keys
    expected = qualities(masks, [record.labels_HW for record in clip])
    assert np.array_equal(walk(table, keys).quality_T, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["tests.engine.fillers:Remembers", "match"])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_whoever_fills_gaps_is_tabulated_gap_by_gap(sides: Any, name: str) -> None:
    """Tables showed no colours at flow size, which `match` reads, and ended with a traceback."""
    clip, keys = records(30, unlabelled=[5]), (0, 6, 9, 21)
    table = build(clip, propagator=name, two_sided_stride=3 if sides == "two" else 0)
    masks, _ = engine_masks(
        clip, GivenKeys(keys), LabelsNet(clip), sides=sides, max_interval=HORIZON, propagator=name
    )
    expected = qualities(masks, [record.labels_HW for record in clip])
    if sides == "one":
        assert np.array_equal(walk(table, keys).quality_T, expected, equal_nan=True)
    else:
        total = np.nansum(expected, dtype=np.float64)
        assert two_sided_total(table, keys) == pytest.approx(total, abs=2e-6)


@pytest.mark.parametrize("keys", [(0, 7, 9, 19, 20, 30), (0, 10, 20, 30)])
def test_with_low_latency_a_schedule_on_the_table_is_the_engines_where_labels_are_copied(
    keys: tuple[int, ...],
) -> None:
    """What is carried in two steps there is carried in one here: of a copy that is the same."""
    clip = records(36, unlabelled=[5, 20])
    masks, _ = engine_masks(
        clip,
        GivenKeys(keys),
        LabelsNet(clip),
        sides="one",
        max_interval=HORIZON,
        propagator="copy",
        delay=3,
    )
    expected = qualities(masks, [record.labels_HW for record in clip])
    table = build(clip, propagator="copy")
    assert np.array_equal(walk(table, keys, delay=3).quality_T, expected, equal_nan=True)
    with pytest.raises(EpisodeError, match="with a delay of 6 a frame is 15 frames from what it shows"):
        walk(table, (0, 10, 20, 30), delay=6)


@pytest.mark.parametrize("keys", [(0, 6, 18, 21, 30), (0, 12, 24)])
def test_two_sided_totals_are_the_engines(keys: tuple[int, ...]) -> None:
    clip = records(34, seed=2, unlabelled=[4])
    table = build(clip, two_sided_stride=3)
    masks, taken = engine_masks(clip, GivenKeys(keys), LabelsNet(clip), sides="two", max_interval=HORIZON)
    assert tuple(taken) == keys
    expected = qualities(masks, [record.labels_HW for record in clip])
    assert two_sided_total(table, keys) == pytest.approx(np.nansum(expected, dtype=np.float64), abs=2e-6)


def test_every_two_sided_interval_is_there_with_stride_one() -> None:
    clip = records(14, seed=1)
    table = build(clip, horizon=6, two_sided_stride=1)
    assert table.two_sided_TL1 is not None
    inside = np.arange(14)[:, None] + np.arange(7) < 14
    assert np.array_equal(np.isnan(table.two_sided_TL1), ~inside)
    assert (table.two_sided_TL1[:13, :2] == 0).all()
    for keys in ((0, 3, 9), (0, 1, 2, 7, 13)):
        masks, _ = engine_masks(clip, GivenKeys(keys), LabelsNet(clip), sides="two", max_interval=6)
        expected = qualities(masks, [record.labels_HW for record in clip])
        assert two_sided_total(table, keys) == pytest.approx(expected.sum(dtype=np.float64), abs=2e-6)


def test_quality_against_the_nets_own_masks_needs_no_labels() -> None:
    clip = records(20, unlabelled=range(20))
    table = build(clip, net=ThresholdNet(), quality="fidelity")
    assert (table.key_quality_T == 1.0).all()
    keys = (0, 5, 14)
    masks, _ = engine_masks(clip, GivenKeys(keys), ThresholdNet(), sides="one", max_interval=HORIZON)
    own, _ = engine_masks(clip, GivenKeys(range(20)), ThresholdNet(), sides="one", max_interval=HORIZON)
    assert np.array_equal(walk(table, keys).quality_T, qualities(masks, own))
    accuracy = build(clip, net=ThresholdNet(), quality="accuracy")
    shares = np.array([np.mean(a == b) for a, b in zip(masks, own, strict=True)], np.float32)
    assert np.array_equal(walk(accuracy, keys).quality_T, shares)


def test_agreement_with_labels_that_stand_in_for_n_counts_labelled_pixels() -> None:
    """DVSNet's confidence is a share of pixels; tables of labels once knew mIoU only."""
    clip = records(12)
    table = build(clip, quality="accuracy", horizon=4)
    first, shown = clip[0].labels_HW, clip[3].labels_HW
    assert first is not None and shown is not None and table.quality_TL1[3, 0] == 1.0
    masks, _ = engine_masks(clip, GivenKeys((0,)), LabelsNet(clip), sides="one", max_interval=4)
    known = shown != 255
    assert table.quality_TL1[0, 3] == np.float32(np.mean(masks[3][known] == shown[known]))
    with pytest.raises(EpisodeError, match="fidelity asks for a net"):
        build(clip, quality="fidelity")


@pytest.mark.parametrize("level", ["scores", "features"])
def test_other_levels_are_the_engines_too(level: str) -> None:
    clip = records(16, void=False)
    table = build(clip, net=ConvNet(), quality="accuracy", level=level, horizon=6)
    keys = (0, 4, 10)
    masks, _ = engine_masks(clip, GivenKeys(keys), ConvNet(), sides="one", max_interval=6, level=level)
    own, _ = engine_masks(clip, GivenKeys(range(16)), ConvNet(), sides="one", max_interval=6)
    shares = np.array([np.mean(a == b) for a, b in zip(masks, own, strict=True)], np.float32)
    assert np.array_equal(walk(table, keys).quality_T, shares)


@pytest.mark.parametrize("name", ["fixed", "random", "frame_difference", "flow_magnitude", "warp_error"])
def test_online_schedulers_take_the_same_keys_on_table_and_engine(name: str) -> None:
    clip = records(40, seed=4)
    table = build(clip)
    score_TL1 = SCORES[name](table, 0)
    known = np.sort(score_TL1[:, 1:][np.isfinite(score_TL1[:, 1:])])
    middle = len(known) // 2
    threshold = float(known[middle] + known[middle + 1]) / 2
    if name == "fixed":
        scheduler: Any = build_scheduler(name, interval=7)
        threshold = scheduler.threshold
    elif name == "random":
        scheduler = RandomKeys(interval=5.0)
        threshold = scheduler.threshold
    else:
        scheduler = build_scheduler(name, threshold=threshold)
    masks, taken = engine_masks(clip, scheduler, LabelsNet(clip), sides="one", max_interval=HORIZON)
    keys = np.flatnonzero(run_scores(table, score_TL1, np.array([threshold]))[0])
    assert keys.tolist() == taken and 3 < len(keys) < 40
    if name != "random":
        walked_PT = keys_on(table, name, [threshold, threshold / 2], max_interval=HORIZON)
        assert np.flatnonzero(walked_PT[0]).tolist() == taken and walked_PT[1].sum() > len(taken)
    expected = qualities(masks, [record.labels_HW for record in clip])
    assert np.array_equal(walk(table, keys).quality_T, expected)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_tables_of_regions_are_what_the_engine_makes_of_regions(
    sides: Literal["one", "two"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops were cut before frames had their working size, and their flow pictures were those of frames."""
    source, cut = "scenes:videos=1,frames=16,height=96,width=128", RegionsConfig(grid="2x2", overlap=8)
    frames, crops = read_at("64", source), read_at("64", f"{source}?regions=2x2&overlap=8")
    clips = [list(found) for _, found in groupby(crops, key=lambda record: record.video_id)]
    tables = [build(clip, flow_size=32, two_sided_stride=int(sides == "two")) for clip in clips]
    threshold = float(np.nanmedian([SCORES["warp_error"](table, 0)[:, 1:] for table in tables])) + 1e-4
    net: Any = LabelsNet(crops)
    engine = Engine(
        net,
        build_scheduler("warp_error", threshold=threshold),
        build_propagator("flow_warp"),
        sides=sides,
        max_interval=HORIZON,
        flow_size=32,
        flow=DisFlow(),
    )
    parts: list[Sequence[FrameResult]] = []
    monkeypatch.setattr(regions, "joined", lambda rows, *_: parts.append(rows))
    state = RegionStates.new(0, "clip/0", cut.count)
    for frame in inputs([record.frame_HW3 for record in frames], first=0):
        RegionEngine(engine, cut).step([state], [frame])
    RegionEngine(engine, cut).finish([state])
    keys = [keys_on(table, "warp_error", [threshold], max_interval=HORIZON)[0] for table in tables]
    assert len({is_key_T.tobytes() for is_key_T in keys}) > 1
    for table, clip, is_key_T, rows in zip(tables, clips, keys, zip(*parts, strict=True), strict=True):
        assert [row.is_key for row in rows] == is_key_T.tolist()
        expected = qualities([row.labels_HW for row in rows], [record.labels_HW for record in clip])
        if sides == "one":
            assert np.array_equal(walk(table, np.flatnonzero(is_key_T)).quality_T, expected)
        else:
            total = two_sided_total(table, np.flatnonzero(is_key_T))
            assert total == pytest.approx(float(np.sum(expected, dtype=np.float64)), abs=2e-6)


def read_at(size: str, source: str) -> list[Record]:
    """A data set's frames as `build-episodes` reads them, with the classes that `build` has."""
    dataset = dataset_of(source, size)
    clip = [dataset.read(item) for item in dataset.items("all")]
    for record in clip:
        labels_HW = record.labels_HW
        assert labels_HW is not None
        record.labels_HW = np.where(labels_HW == 255, 255, labels_HW % CLASSES).astype(np.uint8)
    return clip


def test_thinned_keys_are_not_known_and_say_so() -> None:
    clip = records(30)
    table, full = build(clip, key_stride=4), build(clip)
    assert np.array_equal(table.quality_TL1[::4], full.quality_TL1[::4], equal_nan=True)
    assert np.array_equal(table.quality_TL1[:, 0], full.quality_TL1[:, 0])
    assert np.isnan(table.quality_TL1[1:4, 1:]).all() and np.isnan(table.deviation_TL1F[1:4, 1:]).all()
    with pytest.raises(EpisodeError, match="key 6 is not in the table"):
        walk(table, (0, 6, 16, 24))
    keys_PT = run_scores(table, SCORES["frame_difference"](table, 0), np.array([-1.0, 5.0, np.inf]))
    assert keys_PT[0].nonzero()[0].tolist() == [*range(0, 30, 4), 29]  # the last frame serves itself
    assert keys_PT[2].nonzero()[0].tolist() == [0, 12, 24]


def test_feature_sets_stand_behind_each_other_without_doubles() -> None:
    clip = records(8)
    table = build(clip, features=("scores", "flow", "frame_difference"))
    names = [*FEATURE_SETS["scores"], *FEATURE_SETS["flow"]]
    assert table.feature_names == tuple(dict.fromkeys(names))
    assert len(set(table.feature_names)) == table.deviation_TL1F.shape[2]
    place = table.feature_names.index("distance")
    assert table.deviation_TL1F[0, :8, place].tolist() == list(range(8))
    assert (table.deviation_TL1F[:, 0] == 0).all()
    with pytest.raises(EpisodeError, match="did you mean 'flow'"):
        Features(("flwo",))


def test_a_set_is_a_name_for_its_features() -> None:
    tables = ("flow_mean", "moving", "moving_share", "frame_difference", "distance")
    assert spelled_out(("moving_share", "flow"), tables) == ("moving_share", *FEATURE_SETS["flow"])
    assert set(spelled_out(("flow", "flow"), tables)) == set(FEATURE_SETS["flow"])
    assert spelled_out(("moving", "frame_difference"), tables) == ("moving", "frame_difference")
    means = ("conv6_0", "conv6_1")
    for older in ("flownet_conv6_mean", "flownet_conv6"):  # what means were called before there were maps
        assert spelled_out((older,), ("conv6_0", "flow_mean", "conv6_1")) == means
    assert spelled_out(("flownet_conv6",), means, maps=True) == ("flownet_conv6",)
    assert spelled_out(("scores", "else"), ()) == (*FEATURE_SETS["scores"], "else")


def test_a_table_built_twice_has_the_same_bytes() -> None:
    tables = [build(records(12), features=("flow",), two_sided_stride=2) for _ in range(2)]
    assert encode_table(tables[0]) == encode_table(tables[1])


@pytest.mark.parametrize(
    ("clip", "options", "message"),
    [
        (records(4), {}, "shorter than an episode: 4 frames, at least 5 needed"),
        (records(9, unlabelled=range(9)), {}, "no labels"),
        ([Record(video_id="c", frame_index=n, frame_HW3=r.frame_HW3, labels_HW=np.ones((48, 64), np.uint8))
          for n, r in enumerate(records(9))], {}, "a single class: the labels show nothing but class 1"),
        (records(9), {"quality": "fidelity"}, "asks for a net"),
        (records(9), {"level": "scores"}, "no scores to propagate"),
        (records(9), {"net": ConvNet()}, "6 classes, the labels 3"),
        (records(9), {"key_stride": 2, "two_sided_stride": 3}, "must be a multiple of key_stride 2"),
        (records(9), {"key_stride": 20}, "leaves no schedule"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_has_a_reason(clip: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        build(clip, **options)


def test_quality_is_the_metric_of_the_metrics_room() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 5, 15, 16, 40):
        truth_HW = rng.integers(0, classes, (31, 17)).astype(np.uint8)
        truth_HW[rng.random(truth_HW.shape) < 0.2] = 255
        mask_HW = rng.integers(0, max(2, classes // 2), truth_HW.shape).astype(np.uint8)
        assert Truth(truth_HW, classes, "labels").quality(mask_HW) == mean_iou(mask_HW, truth_HW, classes)
    assert np.isnan(Truth(np.full((4, 4), 255, np.uint8), 3, "labels").quality(np.zeros((4, 4), np.uint8)))
    with pytest.raises(EpisodeError, match="class 7"):
        Truth(np.full((4, 4), 7, np.uint8), 3, "labels")


def test_void_is_wrong_where_a_label_is_known_but_no_class_of_its_own() -> None:
    truth_HW = np.array([[0, 0, 1, 255]], np.uint8)
    mask_HW = np.array([[0, 2, 1, 2]], np.uint8)  # 2 = void of two classes
    assert Truth(truth_HW, 2, "labels").quality(mask_HW) == pytest.approx((0.5 + 1.0) / 2)
