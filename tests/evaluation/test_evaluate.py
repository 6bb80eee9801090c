"""Promise: an evaluation's numbers are those of the engine and of the metrics, frame by frame, whatever the
schedulers, regions, sides, protocol and labels.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.datasets.miniatures import labelled_video
from tests.engine.toy import ThresholdNet
from tests.evaluation.small import SCENES, config, davis, evaluate_here, small_tables
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import TtaConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.frames import FrameInput
from vidseg_core.engine.look import make_view
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.evaluation.bench import make_bench, try_methods
from vidseg_core.evaluation.clips import runs_of
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.kit.progress import Reporter
from vidseg_core.metrics import (
    ConfusionMatrix,
    PairFlow,
    TemporalConsistency,
)
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.tta import with_tta
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.propagators import build_propagator
from vidseg_core.scheduling import build_scheduler


def engine_masks(sides: str, interval: int, clip: str, ahead: str = "") -> list[tuple[bool, np.ndarray]]:
    """The engine on its own, with N itself: (key, mask) of every frame."""
    engine = Engine(
        build_segmenter("plain"),
        build_scheduler(ahead) if ahead else build_scheduler("fixed", interval=interval),
        build_propagator("flow_warp", level="labels"),
        sides=sides,  # type: ignore[arg-type]
        flow_size=64,
    )
    dataset, state = open_dataset(SCENES), SegmentState.new(0, f"{clip}/0")
    results = []
    for item in dataset.items("all"):
        if item.video_id != clip:
            continue
        frame_HW3 = dataset.read(item).frame_HW3
        frame = FrameInput(frame_index=item.frame_index, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        results += engine.step([state], [frame])[0]
    results += engine.finish([state])[0]
    return [(result.is_key, result.labels_HW) for result in results]


@pytest.mark.parametrize("sides", ["one", "two"])
def test_numbers_are_those_of_the_engine_and_the_metrics(tmp_path: Path, sides: str) -> None:
    settings = config(tmp_path, methods=(f"fixed:interval=5,sides={sides}",), limit=1)
    assert evaluate_here(settings)[0] == 0
    data = open_evaluation(tmp_path)
    (clip,), (row,) = data.clips, data.results
    masks = engine_masks(sides, 5, clip)
    kept = data.masks(clip, row["method_id"], range(14))
    assert all((kept[n] == mask).all() for n, (_, mask) in enumerate(masks))
    records = [data.record(clip, n) for n in range(14)]
    net = build_segmenter("plain")
    matrix, fidelity, tc = ConfusionMatrix(6), ConfusionMatrix(6, ignore_index=None), TemporalConsistency(6)
    scores = []
    own = engine_masks("one", 1, clip)
    dis, views = DisFlow(chained=False), [make_view(r.frame_HW3, 256, 1) for r in records if r]
    for n, record in enumerate(records):
        assert record is not None and record.labels_HW is not None
        matrix.update(masks[n][1], record.labels_HW)
        fidelity.update(masks[n][1], own[n][1])
        if n:
            flows = dis.flow([views[n], views[n - 1]], [views[n - 1], views[n]])
            pair = PairFlow(*flows)
            scores.append(tc.update(masks[n - 1][1], masks[n][1], pair, at_key=masks[n][0]))
    assert len(net.class_names) == 6
    assert row["miou"] == pytest.approx(matrix.mean_iou())
    assert row["pixel_accuracy"] == pytest.approx(matrix.pixel_accuracy())
    assert row["fidelity"] == pytest.approx(fidelity.mean_iou())
    for kind, counts in (("tc", tc), ("tc_visible", tc.visible)):
        found = tuple(row[kind + what] for what in ("", "_forward", "_pop"))
        assert found == pytest.approx((counts.tc, counts.tc_forward, counts.pop))
    assert row["tc"] != row["tc_visible"] and row["warp_accuracy"] == pytest.approx(tc.accuracy)
    assert row["class_tc"] == pytest.approx(tc.class_tc.tolist(), nan_ok=True)
    assert row["tc_pooled"] == pytest.approx(row["tc"]) and row["class_tc_pooled"] == row["class_tc"]
    assert (row["frames"], row["keys"], row["aki"]) == (14, 3, pytest.approx(14 / 3))
    assert row["wait_max_frames"] == (4 if sides == "two" else 0)
    frames = data.frames[clip, row["method_id"]]
    assert frames["is_key"].tolist() == [key for key, _ in masks]
    assert frames["distance"].tolist() == [n % 5 for n in range(14)]
    for name in ("tc", "tc_visible"):
        assert np.isnan(frames[name][0])
        assert frames[name][1:].tolist() == [getattr(score, name) for score in scores]
    assert frames["warp_accuracy"][1:].tolist() == [score.accuracy for score in scores]


@pytest.mark.parametrize("net", ["labels", "plain"])
def test_regions_are_evaluated_with_what_their_crops_give(tmp_path: Path, net: str) -> None:
    """N is asked about crops; keys, cost and calls saved count its pixels (DVSNet Table 3: regions)."""
    online = "frame_difference:threshold=5,sides=two,regions=2x2,overlap=4"
    methods = ("fixed:interval=5", "fixed:interval=5,regions=2x2,overlap=4", online)
    settings = config(tmp_path, methods=methods, segmenter=net, limit=1)
    code, bad, _ = evaluate_here(settings)
    assert (code, bad) == (0, [])
    data = open_evaluation(tmp_path)
    whole, even, own = data.results
    pixels = 4 * 28 * 36 / (48 * 64)
    assert whole["key_share"] == 3 / 14 and whole["warped_per_segmented"] == 11 / 3
    assert even["keys"] == 3 and even["key_share"] == pytest.approx(3 / 14 * pixels)
    assert even["warped_per_segmented"] == 11 / 3
    assert even["aki"] == pytest.approx(14 / (3 * pixels))
    regions, ask = RegionsConfig(grid="2x2", overlap=4), build_segmenter("plain")
    differ = build_scheduler("frame_difference", threshold=5)
    engine = RegionEngine(Engine(ask, differ, build_propagator("flow_warp"), flow_size=64), regions)
    state, rows = RegionStates.new(0, f"{data.clips[0]}/0", 4), []
    for n in range(14):
        frame_HW3 = data.record(data.clips[0], n).frame_HW3  # type: ignore[union-attr]
        frame = FrameInput(frame_index=n, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        rows += engine.step([state], [frame])[0]
    rows += engine.finish([state])[0]
    assert own["key_share"] == pytest.approx(sum(row.key_share for row in rows) / 14)
    some = sum(any(row.region_keys) and not all(row.region_keys) for row in rows)
    assert some, "regions had no keys of their own"
    masks = data.masks(data.clips[0], own["method_id"], range(14))
    if net == "plain":
        assert all((masks[n] == row.labels_HW).all() for n, row in enumerate(rows))
    else:  # where N has just seen a region, it has its labels
        for n, row in enumerate(rows):
            record = data.record(data.clips[0], n)
            assert record is not None and record.labels_HW is not None and row.region_keys is not None
            labels_HW = record.labels_HW
            for crop, is_key in zip(regions.crops((48, 64)), row.region_keys, strict=True):
                assert not is_key or (masks[n][crop.inner_where] == labels_HW[crop.inner_where]).all()


class Tall(ThresholdNet):
    """A net that takes no frame of less than 64 rows."""

    def features(self, frames_B3HW: Any) -> Any:
        if frames_B3HW.shape[2] < 64:
            raise ValueError("at least 64 rows")
        return super().features(frames_B3HW)


def test_regions_that_do_not_go_with_a_clip_or_the_net_are_one_sentence(tmp_path: Path) -> None:
    """They were tracebacks in the middle of an evaluation."""
    flat = config(tmp_path, methods=("fixed", "fixed:regions=6x1,overlap=0"), segmenter="labels", limit=1)
    code, bad, _ = evaluate_here(flat)
    assert code == 3 and len(bad) == 2
    assert all("6x1 cuts frames of 48x64 into regions of 8 pixels a side" in str(row) for row in bad)
    fine = config(tmp_path, methods=("fixed:regions=9x9",), working_size="128", segmenter="labels")
    with pytest.raises(ConfigError, match="^--methods: fixed .*9x9 cuts frames of 128x128 into regions of 8"):
        try_methods(make_bench(fine, "cpu"), fine.parsed_methods())
    small = config(tmp_path, methods=("fixed:regions=2x1,overlap=8",), working_size="96x128")
    bench = replace(make_bench(small, "cpu"), net=Tall())
    with pytest.raises(ConfigError, match="^--methods: fixed .*frame of 56x128: .*at least 64 rows"):
        try_methods(bench, small.parsed_methods())


def test_the_net_on_every_frame_is_the_reference_and_clips_are_pooled_by_pixels(tmp_path: Path) -> None:
    assert evaluate_here(config(tmp_path, methods=("every",)))[0] == 0
    data = open_evaluation(tmp_path)
    assert [row["fidelity"] for row in data.results] == [1.0, 1.0] and data.complete
    (pooled,) = data.methods
    dataset, matrix = open_dataset(SCENES), ConfusionMatrix(6)
    for clip in data.clips:
        masks = data.masks(clip, pooled["method_id"], range(14))
        for item in dataset.items("all"):
            if item.video_id == clip:
                labels_HW = dataset.read(item).labels_HW
                assert labels_HW is not None
                matrix.update(masks[item.frame_index], labels_HW)
    assert pooled["miou"] == pytest.approx(matrix.mean_iou()) and pooled["clips"] == 2
    assert pooled["class_iou"] == pytest.approx(matrix.iou().tolist(), nan_ok=True)
    assert set(data.net_masks(data.clips[0], range(14))) == set(range(14))


@pytest.mark.parametrize("sides", ["one", "two"])
def test_a_scheduler_that_looks_ahead_asks_the_net_about_the_right_frames(tmp_path: Path, sides: str) -> None:
    name = "tests.pipeline.lookahead:Brightest"
    assert evaluate_here(config(tmp_path, methods=(f"{name}:sides={sides}",), limit=1))[0] == 0
    data = open_evaluation(tmp_path)
    (clip,), (row,) = data.clips, data.results
    masks = engine_masks(sides, 0, clip, name)
    kept = data.masks(clip, row["method_id"], range(14))
    frames = data.frames[clip, row["method_id"]]
    assert frames["is_key"].tolist() == [key for key, _ in masks] and frames["is_key"].sum() > 1
    assert all((kept[n] == mask).all() for n, (_, mask) in enumerate(masks))
    assert 7 <= row["wait_max_frames"] <= 15  # its window, and with two sides the next key's


def test_motion_vectors_come_from_videos_and_their_lack_is_said(tmp_path: Path) -> None:
    labelled_video(tmp_path / "clips", "one", 14, motion="fast")  # type: ignore[arg-type]
    (tmp_path / "clips" / "classes.txt").write_text("\n".join(SCENE_CLASSES))
    for source, has_vectors in ((f"face:{tmp_path / 'clips'}", True), (SCENES, False)):
        output = tmp_path / f"out-{has_vectors}"
        methods = ("fixed:interval=5", "fixed:interval=5,flow=motion_vectors")
        settings = config(output, data=(source,), methods=methods, segmenter="labels", tc=False, limit=1)
        assert evaluate_here(settings)[0] == 0
        dis, vectors = (row["miou"] for row in open_evaluation(output).results)
        assert (dis != vectors) == has_vectors
        text = io.StringIO()
        run_evaluate(replace(settings, dry_run=True), Reporter("text", text))
        assert ("flow by DIS where there are no motion vectors" in text.getvalue()) != has_vectors


def test_labels_may_stand_in_for_the_net(tmp_path: Path) -> None:
    settings = config(tmp_path, segmenter="labels", methods=("every", "fixed:interval=7"), key_net_ms=100.0)
    code, _, said = evaluate_here(settings)
    assert code == 0 and "fps" in said.splitlines()[0]
    every, fixed = open_evaluation(tmp_path).methods
    assert every["miou"] == 1.0 and math.isnan(every["fidelity"]) and 0.1 < fixed["miou"] < 1.0
    assert every["net_s"] == pytest.approx(28 * 0.1) and fixed["net_s"] == pytest.approx(4 * 0.1)


def test_unlabelled_pixels_count_nowhere_and_a_frame_without_labels_has_no_quality(tmp_path: Path) -> None:
    labels = [np.zeros((24, 32), np.uint8) for _ in range(6)]
    for number, labels_HW in enumerate(labels):
        labels_HW[4:12, 4 + number : 14 + number] = 1
    davis(tmp_path / "davis", "dog", labels)
    (tmp_path / "davis" / "dog" / "labels" / "00003.png").unlink()
    place = f"davis:{tmp_path / 'davis'}"
    assert evaluate_here(config(tmp_path / "out", data=(place,), segmenter="labels"))[0] == 0
    data = open_evaluation(tmp_path / "out")
    frames = data.frames["dog", data.results[0]["method_id"]]
    assert frames["measured"].tolist() == [True, True, True, False, True, True]
    assert np.isnan(frames["miou"][3]) and data.results[0]["measured_frames"] == 5


def test_a_snippet_begins_with_a_key_and_measures_its_last_frame(tmp_path: Path) -> None:
    settings = config(
        tmp_path, protocol="snippet", snippet_frames=6, methods=("fixed:interval=4,sides=one,two",)
    )
    assert evaluate_here(settings)[0] == 0
    data = open_evaluation(tmp_path)
    for row in data.results:
        frames = data.frames[row["clip"], row["method_id"]]
        assert frames["run"].tolist() == [0] * 6 + [1] * 6  # 14 frames hold two snippets of 6
        assert frames["is_key"].tolist() == 2 * [True, False, False, False, True, False]
        assert np.flatnonzero(frames["measured"]).tolist() == [5, 11] and row["measured_frames"] == 2
        assert frames["wait_frames"].tolist() == 2 * (
            [0, 3, 2, 1, 0, 0] if row["sides"] == "two" else [0] * 6
        )


def test_runs_of_a_clip_follow_the_protocol() -> None:
    whole = config("x")
    snippet = config("x", protocol="snippet", snippet_frames=20)
    cityscapes = [False] * 19 + [True] + [False] * 10
    assert runs_of(whole, cityscapes) == ((0, 30),)
    assert runs_of(snippet, cityscapes) == ((0, 20),)
    assert runs_of(snippet, [False] * 40 + [True]) == ((21, 41),)
    assert runs_of(snippet, [True] * 45) == ((0, 20), (20, 40))
    assert runs_of(snippet, [True]) == () and runs_of(whole, []) == ()
    assert runs_of(snippet, [False] * 41) == ((0, 20), (20, 40))  # a net needs no labels
    assert runs_of(config("x", protocol="snippet", segmenter="labels"), [False] * 41) == ()


def test_several_scales_and_the_mirror_image_are_the_net_of_evaluation_and_tables(tmp_path: Path) -> None:
    tta = TtaConfig(scales=(0.75, 1.0), flip=True)
    tables = small_tables(tmp_path / "tables", segmenter="plain", quality="fidelity", tta=tta)
    asked: dict[str, Any] = {"limit": 1, "clip_frames": 3, "methods": ("every",)}
    assert evaluate_here(config(tmp_path / "out", tta=tta, **asked))[0] == 0
    data, net = (
        open_evaluation(tmp_path / "out"),
        with_tta(build_segmenter("plain"), scales=tta.scales, flip=True),
    )
    record = data.record(data.clips[0], 2)
    assert record is not None
    frame_13HW = torch.from_numpy(record.frame_HW3).permute(2, 0, 1)[None].float() / 255
    mask_HW = net.head(net.features(frame_13HW)).argmax(1)[0].numpy()
    assert (data.masks(data.clips[0], data.methods[0]["method_id"], [2])[2] == mask_HW).all()
    assert (mask_HW != data_without(tmp_path / "plain", asked)).any()
    oracle = config(tmp_path / "o", tables=str(tables), methods=("oracle:interval=5",), tta=tta, dry_run=True)
    assert run_evaluate(oracle, Reporter("text", io.StringIO())) == 0
    with pytest.raises(ConfigError, match="--tables: no oracle for oracle.*segmenter_sha256"):
        run_evaluate(replace(oracle, tta=TtaConfig()), Reporter("text", io.StringIO()))
    for settings in (config, small_tables):
        with pytest.raises(ConfigError, match="--tta: .*labels have one: name a --segmenter"):
            settings(tmp_path / "no", segmenter="labels", tta=tta)


def data_without(folder: Path, asked: dict[str, Any]) -> np.ndarray:
    """The mask of the third frame without test-time augmentation."""
    evaluate_here(config(folder, **asked))
    data = open_evaluation(folder)
    return data.masks(data.clips[0], data.methods[0]["method_id"], [2])[2]
