"""Promise: an evaluation's numbers are those of the engine and of the metrics, frame by frame; the same
command goes on where it stopped; a clip that cannot be read costs its own rows; nothing of another evaluation
is mixed in.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.datasets.miniatures import labelled_video
from tests.engine.toy import ThresholdNet
from tests.training.small import shaken, written
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import parse_methods
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, TtaConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.frames import FrameInput
from vidseg_core.engine.look import make_view
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.episodes.episodes_job import build_row
from vidseg_core.episodes.making import claim_set, make_builder
from vidseg_core.episodes.oracle import divide, one_sided_curve
from vidseg_core.episodes.sources import class_names, dataset_units, in_regions
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.walk import walk
from vidseg_core.evaluation import oracle
from vidseg_core.evaluation.bench import make_bench, try_methods
from vidseg_core.evaluation.cells import claim_evaluation, list_cells, read_cell
from vidseg_core.evaluation.clips import clips_of, runs_of
from vidseg_core.evaluation.ending import fingerprint, finish
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.evaluation.plan import chunks, plan
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.evaluation.tables import LATER, pooled_columns
from vidseg_core.evaluation.tasks import run_task
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.progress import Reporter
from vidseg_core.metrics import (
    ConfusionMatrix,
    PairFlow,
    TemporalConsistency,
    VideoConsistency,
    temporal_stability,
)
from vidseg_core.models.lvs import new_lvs
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.tta import with_tta
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.propagators import build_propagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.store import open_store
from vidseg_core.store.errors import StoreError

SCENES = "scenes:videos=2,frames=14,height=48,width=64"
SMALL = PropagationConfig(sides="one", flow_size=64)


def config(output: Path | str, **options: Any) -> EvaluateConfig:
    defaults: dict[str, Any] = {
        "data": (SCENES,),
        "methods": ("fixed:interval=5",),
        "propagation": SMALL,
        "segmenter": "plain",
    }
    return EvaluateConfig(output=str(output), **(defaults | options))


def evaluate_here(settings: EvaluateConfig) -> tuple[int, list[dict[str, Any]], str]:
    """As `run_evaluate`, every task in this process: exit code, rows put aside, what was said."""
    store, bench = open_store(settings.output), make_bench(settings, "cpu")
    store.check_writable()
    claim_evaluation(store, fingerprint(settings, bench))
    cells = plan(clips_of(settings), settings.parsed_methods())
    todo = [cell for cell in cells if cell.key not in list_cells(store)]
    bad = [row for task in chunks(todo, 2, asks_net=True) for row in run_task(settings, task, "cpu")]
    text = io.StringIO()
    code = finish(settings, store, bench, cells, bad, Reporter("text", text))
    return code, bad, text.getvalue()


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


def test_consistency_is_also_that_of_all_clips_at_once(tmp_path: Path) -> None:
    """As ETC's own numbers were taken. A cell that was made before its pixels were kept leaves it open."""
    assert evaluate_here(config(tmp_path, methods=("fixed:interval=5",)))[0] == 0
    data = open_evaluation(tmp_path)
    (pooled,), cells = data.methods, [read_cell(data.store, key)[0] for key in list_cells(data.store)]
    both_C, either_C = np.sum([cell["class_overlap"] for cell in cells], axis=0).T
    wanted = [b / e if e else math.nan for b, e in zip(both_C, either_C, strict=True)]
    assert len(cells) == 2 and pooled["class_tc_pooled"] == pytest.approx(wanted, nan_ok=True)
    assert pooled["tc_pooled"] == pytest.approx(np.nanmean(wanted)) and pooled["tc_pooled"] != pooled["tc"]
    assert pooled_columns([cells[0]["class_overlap"], None]) == {}


def test_pixels_without_a_label_are_void_and_not_a_class_that_stays(tmp_path: Path) -> None:
    """Void was one more class, whose consistency was that of the unlabelled border."""
    labels = [np.zeros((24, 32), np.uint8) for _ in range(5)]
    for number, labels_HW in enumerate(labels):
        labels_HW[4:12, 4 + 6 * (number % 2) : 14] = 1
    davis(tmp_path / "davis", "dog", labels)
    for path in sorted((tmp_path / "davis" / "dog" / "labels").iterdir())[1:3]:
        path.unlink()  # two frames are void altogether: three of four pairs say nothing
    place = f"davis:{tmp_path / 'davis'}"
    settings = config(tmp_path / "out", data=(place,), segmenter="labels", methods=("every",))
    assert evaluate_here(settings)[0] == 0
    data = open_evaluation(tmp_path / "out")
    frames = data.frames["dog", data.results[0]["method_id"]]
    assert np.isnan(frames["tc"]).tolist() == [True, True, True, True, False]
    assert data.results[0]["tc"] == frames["tc"][4] and len(data.results[0]["class_tc"]) == 2


@pytest.mark.parametrize("occlusion", ["no", "yes"])
def test_one_kind_of_consistency_may_be_asked_for(tmp_path: Path, occlusion: Any) -> None:
    settings = config(tmp_path, tc_occlusion=occlusion, limit=1)
    code, _, said = evaluate_here(settings)
    (row,) = open_evaluation(tmp_path).results
    assert code == 0 and math.isnan(row["tc"]) == (occlusion == "yes")
    assert math.isnan(row["tc_visible"]) == (occlusion == "no")
    assert ("TC vis." in said.splitlines()[0]) == (occlusion == "yes")
    with pytest.raises(FingerprintMismatch, match=f"tc_occlusion: {occlusion!r} there, 'both' now"):
        evaluate_here(config(tmp_path, limit=1))


def test_results_of_an_older_version_keep_their_meaning(tmp_path: Path) -> None:
    """Its `tc` left occluded pixels out; shown as Eq. 5 it would be nine points too good on a street."""
    evaluate_here(config(tmp_path, limit=1))
    visible = open_evaluation(tmp_path).results[0]["tc_visible"]
    make_older(tmp_path)
    data = open_evaluation(tmp_path)
    for row in (data.results[0], data.methods[0]):
        assert row["tc"] is None and row["tc_visible"] == visible and row["class_tc"] is None
    frames = data.frames[data.clips[0], data.methods[0]["method_id"]]
    assert np.isnan(frames["tc"]).all() and not np.isnan(frames["tc_visible"][1:]).any()
    with pytest.raises(StoreError, match="version 2, this reads 3: its TC leaves occluded .* another output"):
        evaluate_here(config(tmp_path, limit=1))


def make_older(folder: Path) -> None:
    """Turn an evaluation into one of version 2."""
    manifest = folder / "_run" / "manifest.json"
    found = json.loads(manifest.read_text()) | {"version": 2}
    found["fingerprint"].pop("tc_occlusion")
    manifest.write_text(json.dumps(found))
    for name in ("results", "methods", "frames"):
        table = pq.read_table(folder / f"{name}.parquet")
        for kind in ("tc", "tc_forward", "tc_pop"):
            if kind in table.column_names:
                visible = table[kind.replace("tc", "tc_visible")] if name != "frames" else table["tc_visible"]
                table = table.set_column(table.column_names.index(kind), kind, visible)
        pq.write_table(table.drop([c for c in LATER if c in table.column_names]), folder / f"{name}.parquet")


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


def test_without_the_cost_of_a_call_there_is_no_speed_and_no_cost(tmp_path: Path) -> None:
    """Labels cost nothing, so `every` would come out as the fastest of all methods."""
    code, _, said = evaluate_here(config(tmp_path, segmenter="labels", methods=("every", "fixed:interval=7")))
    assert code == 0 and "fps" not in said.splitlines()[0] and "--key_net_ms" in said
    every, fixed = open_evaluation(tmp_path).methods
    for name in ("fps", "net_s", "cpu_s", "cpu_s_per_video_hour", "latency_mean_s", "latency_max_s"):
        assert math.isnan(every[name]) and math.isnan(fixed[name]), name
    assert every["miou"] == 1.0 and fixed["engine_s"] > 0


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


def davis(folder: Path, name: str, labels: list[np.ndarray]) -> None:
    for kind in ("frames", "labels"):
        (folder / name / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, labels_HW in enumerate(labels):
        picture = cv2.blur(rng.integers(0, 256, (*labels_HW.shape, 3), dtype=np.uint8), (5, 5))
        cv2.imwrite(str(folder / name / "frames" / f"{number:05d}.jpg"), picture)
        cv2.imwrite(str(folder / name / "labels" / f"{number:05d}.png"), labels_HW * 255)


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


def test_resume_makes_what_is_missing_and_mixes_nothing(tmp_path: Path) -> None:
    first = config(tmp_path, limit=1)
    assert evaluate_here(first)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("cells/**/*.parquet")}
    wider = config(tmp_path, methods=("fixed:interval=5", "warp_error:threshold=3"))
    assert evaluate_here(wider)[0] == 0
    data = open_evaluation(tmp_path)
    assert len(data.results) == 4 and len(data.methods) == 2
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(tmp_path.rglob("cells/**/*.parquet"))) == 4
    with pytest.raises(FingerprintMismatch, match="working_size: '512' there, '32' now"):
        evaluate_here(config(tmp_path, working_size="32"))


def test_footage_that_changed_is_another_cell(tmp_path: Path) -> None:
    labels = [np.eye(24, 32, dtype=np.uint8)] * 6
    davis(tmp_path / "davis", "dog", labels)
    settings = config(tmp_path / "out", data=(f"davis:{tmp_path / 'davis'}",), segmenter="labels")
    evaluate_here(settings)
    picture = tmp_path / "davis" / "dog" / "frames" / "00002.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")
    evaluate_here(settings)
    assert len(list((tmp_path / "out").rglob("cells/**/*.parquet"))) == 2
    assert len(open_evaluation(tmp_path / "out").results) == 1


def test_a_broken_clip_costs_its_own_rows_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        davis(tmp_path / "davis", name, [np.eye(24, 32, dtype=np.uint8)] * 6)
    (tmp_path / "davis" / "a" / "frames" / "00004.jpg").write_bytes(b"no picture")
    settings = config(tmp_path / "out", data=(f"davis:{tmp_path / 'davis'}",), segmenter="labels")
    code, bad, said = evaluate_here(settings)
    assert code == 3 and [(row["clip"], row["reason"]) for row in bad] == [("a", "unreadable")]
    data = open_evaluation(tmp_path / "out")
    assert data.clips == ["b"] and "00004" in data.quarantine[0]["message"]
    assert "quarantined: 1" in said


def test_the_oracle_runs_the_best_schedule_of_the_tables(tmp_path: Path) -> None:
    tables = small_tables(tmp_path / "tables")
    settings = config(
        tmp_path / "out",
        segmenter="labels",
        tables=str(tables),
        methods=("oracle:interval=5,max_interval=8", "fixed:interval=5"),
    )
    code, bad, _ = evaluate_here(settings)
    data = open_evaluation(tmp_path / "out")
    (table,) = load_tables(tables)
    curve = one_sided_curve(table)
    keys = curve.schedule(curve.best_within(3))
    oracle, fixed = (row for row in data.results if row["clip"] == table.clip)
    frames = data.frames[table.clip, oracle["method_id"]]
    assert np.flatnonzero(frames["is_key"]).tolist() == keys.tolist()
    best = float(curve.total_M1[curve.best_within(3)]) / 14
    assert oracle["frame_miou"] == pytest.approx(best, abs=1e-6) and best >= fixed["frame_miou"] - 1e-9
    assert code == 3 and [(row["reason"], row["method"]) for row in bad] == [
        ("no_table", "oracle interval=5")
    ]


def test_the_oracle_of_regions_has_one_budget_of_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each region has keys of its own, where they are worth most."""
    tables = small_tables(tmp_path / "tables", regions=RegionsConfig(grid="1x2", overlap=8))
    cut = "regions=1x2,overlap=8"
    settings = config(
        tmp_path / "out",
        segmenter="labels",
        tables=str(tables),
        limit=1,
        methods=(f"oracle:interval=3,max_interval=8,{cut}", f"fixed:interval=5,{cut}"),
    )
    assert evaluate_here(settings)[0] == 0
    best, even = open_evaluation(tmp_path / "out").results
    assert even["key_share"] < best["key_share"] <= 1 / 3
    left, right = load_tables(tables)
    method, (clip,) = settings.parsed_methods()[0], clips_of(settings)
    keys = oracle.oracle_keys(settings, method, clip)
    assert 4 <= sum(map(len, keys)) <= 7  # 5/8 of a frame each, of 4.67 frames
    assert keys[0] != keys[1]
    totals = [
        sum(walk(table, sorted(each)).total for table, each in zip((left, right), found, strict=True))
        for found in (keys, [set(range(0, 14, 5))] * 2)
    ]
    assert totals[0] > totals[1]
    worth: list[Any] = []

    def noting(*given: Any, **options: Any) -> Any:
        worth.append(options["worth"])
        return divide(*given, **options)

    monkeypatch.setattr(oracle, "divide", noting)
    oracle.oracle_keys(settings, method, clip)
    with monkeypatch.context() as adding_up:
        made = {**left.fingerprint, "quality": "weighted"}
        adding_up.setattr(oracle, "_made_with", lambda config: made)
        oracle.oracle_keys(settings, method, clip)
    assert worth == [[48 * 32] * 2, None]  # what adds up counts as it is
    still = [{"clip": right.clip, "reason": "single_class", "frames": 14}]
    monkeypatch.setattr(oracle, "read_segments", lambda _: still)
    alone = oracle.oracle_keys(settings, method, clip)
    assert len(alone[1]) == 2 and len(alone[0]) >= len(keys[0])  # as few as the horizon allows
    (other,) = parse_methods(("oracle:interval=3,regions=2x1,overlap=8",), SMALL)
    with pytest.raises(ConfigError, match="tables of regions 1x2 with overlap 8 there, regions 2x1"):
        oracle.check_tables(settings, other, {}, ())


def test_labels_of_another_size_are_told_and_cost_their_clip_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        davis(tmp_path / "davis", name, [np.eye(24, 32, dtype=np.uint8)] * 6)
    cv2.imwrite(str(tmp_path / "davis" / "a" / "labels" / "00002.png"), np.zeros((12, 16), np.uint8))
    settings = config(tmp_path / "out", data=(f"davis:{tmp_path / 'davis'}",), segmenter="labels")
    code, bad, _ = evaluate_here(settings)
    assert code == 3 and [row["clip"] for row in bad] == ["a"]
    assert "00002.png: the labels are 16x12, but their image" in bad[0]["message"]
    assert "is 32x24" in bad[0]["message"] and open_evaluation(tmp_path / "out").clips == ["b"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "clockwork", "level": "features", "sides": "one", "clock": 3}, "made with clock 1, not 3"),
        ({"name": "match", "sides": "two"}, "match remembers through keys"),
    ],
)
def test_masks_that_no_table_holds_have_no_oracle(
    options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best schedule would be that of other masks."""
    carried = PropagationConfig(**options)
    there = {
        "segmenter": "plain",
        "working_size": "512",
        "propagation.name": carried.name,
        "propagation.level": carried.level,
        "propagation.flow": "dis",
        "propagation.flow_size": "256",
    }
    monkeypatch.setattr(oracle, "_tables", lambda _: {"clip": [SimpleNamespace(fingerprint=there)]})
    settings = config("out", tables="tables", methods=("oracle:interval=5",), propagation=carried)
    (method,) = parse_methods(settings.methods, carried)
    with pytest.raises(ConfigError, match=f"--tables: no oracle for oracle.*{says}"):
        oracle.check_tables(settings, method, {}, ())


def test_an_oracle_is_refused_tables_of_another_net_size_or_propagation(tmp_path: Path) -> None:
    tables = small_tables(tmp_path / "tables")
    base = config(
        tmp_path / "out", segmenter="labels", tables=str(tables), methods=("oracle:interval=5",), dry_run=True
    )
    assert run_evaluate(base, Reporter("text", io.StringIO())) == 0
    for changed, says in (
        ({"segmenter": "plain"}, "segmenter: labels there, plain here"),
        ({"working_size": "48"}, "working_size: 512 there, 48 here"),
        (
            {"data": tuple(f"{source}?regions=2x2&overlap=4" for source in base.data)},
            "tables of whole frames there, regions 2x2 with overlap 4 here",
        ),
        ({"methods": ("oracle:interval=5,flow_size=32",)}, "propagation.flow_size: 64 there, 32 here"),
        (
            {"methods": ("oracle:interval=5,propagation=copy",)},
            "propagation.name: flow_warp there, copy here",
        ),
    ):
        with pytest.raises(ConfigError, match=rf"--tables: no oracle for oracle.*{says}"):
            run_evaluate(replace(base, **changed), Reporter("text", io.StringIO()))
    run_evaluate(
        replace(base, methods=("fixed:interval=5",), segmenter="plain"), Reporter("text", io.StringIO())
    )


def test_an_oracle_is_refused_tables_of_other_weights_of_lvs(tmp_path: Path) -> None:
    """It took its keys from what other weights carry, and was called the best schedule."""
    net = new_lvs(build_segmenter("tiny-scenes"))
    plain, other = written(net, tmp_path / "a.safetensors"), written(shaken(net), tmp_path / "b.safetensors")
    way: dict[str, Any] = {"name": "lvs", "level": "features", "flow_size": 64}
    propagation = TablePropagationConfig(**way, weights=plain)
    tables = small_tables(tmp_path / "tables", segmenter="tiny-scenes", propagation=propagation)

    def settings(weights: str) -> EvaluateConfig:
        return config(
            tmp_path / "out",
            segmenter="tiny-scenes",
            tables=str(tables),
            methods=("oracle:interval=5",),
            propagation=PropagationConfig(**way, sides="one", weights=weights),
            dry_run=True,
        )

    assert run_evaluate(settings(plain), Reporter("text", io.StringIO())) == 0
    with pytest.raises(ConfigError, match="--tables: no oracle for oracle.*propagation_sha256"):
        run_evaluate(settings(other), Reporter("text", io.StringIO()))


def test_steadiness_size_and_quality_without_background_are_in_the_tables(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"segmenter": "tiny:8", "num_classes": 6, "tsb": True, "methods": ("every",)}
    asked |= {"limit": 1, "clip_frames": 10}
    assert evaluate_here(config(tmp_path, **asked))[0] == 0
    data, net = open_evaluation(tmp_path), build_segmenter("tiny:8", num_classes=6)
    (row,) = data.methods
    assert isinstance(net, SplitSegmenter) and data.class_names[0] == "background"
    assert row["parameters"] == sum(weight.numel() for weight in net.net.parameters())
    with FlopCounterMode(display=False) as counter:
        net.head(net.features(torch.zeros(1, 3, 48, 64)))
    assert row["gflop"] == counter.get_total_flops() / 1e9 > 0
    known = [value for value in row["class_iou"][1:] if not math.isnan(value)]
    assert row["miou_no_background"] == pytest.approx(np.mean(known))
    vc, tsb = VideoConsistency(6), []
    for clip in data.clips:
        masks = data.masks(clip, row["method_id"], range(10))
        for number in range(10):
            record = data.record(clip, number)
            assert record is not None
            vc.update(masks[number], record.labels_HW)
        vc.end_run()
        pairs = [temporal_stability(masks[n - 1], masks[n], 6) for n in range(1, 10)]
        tsb.append(np.nanmean(pairs))
    assert vc.windows == {8: 10 - 8, 16: 0}
    assert row["vc8"] == pytest.approx(vc.vc(8)) and math.isnan(row["vc16"])
    assert row["tsb"] == pytest.approx(np.mean(tsb))


def test_a_net_whose_size_cannot_be_measured_costs_that_number_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the one call that counts operations: all cells were there, and no table ever."""

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("vidseg_core.evaluation.ending.gflop_of", fail)
    code, _, said = evaluate_here(config(tmp_path, segmenter="tiny:8", num_classes=6, limit=1))
    (row,) = open_evaluation(tmp_path).methods
    assert code == 0 and row["gflop"] is None and row["parameters"] is None and row["miou"] > 0
    assert "the net's size is not known: RuntimeError: out of memory" in said


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


def small_tables(folder: Path, **options: Any) -> Path:
    """A table of the first scene, labels as the net."""
    options = {"propagation": TablePropagationConfig(flow_size=64)} | options
    build = BuildEpisodesConfig(
        data=(SCENES,),
        output=str(folder),
        limit=1,
        horizon=8,
        min_frames=8,
        segment_frames=0,
        **options,
    )
    claim_set(open_store(folder), make_builder(build, class_names(build), "cpu").fingerprint)
    for unit in in_regions(dataset_units(build), build.regions):
        build_row(asdict(unit), build, class_names(build), "cpu")
    return folder


def test_classes_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    davis(tmp_path / "davis", "dog", [np.eye(24, 32, dtype=np.uint8)] * 6)
    with pytest.raises(ConfigError, match="plain has 6 classes, the labels 2: remap"):
        evaluate_here(config(tmp_path / "out", data=(f"davis:{tmp_path / 'davis'}",)))


def test_stills_are_refused_where_something_is_carried_between_them(tmp_path: Path) -> None:
    """Published CamVid has a frame a second: what is carried over it says nothing about video."""
    for number in range(30, 181, 30):
        for folder, ending, picture in (
            ("701_StillsRaw_full", "", np.zeros((24, 32, 3), np.uint8)),
            ("LabeledApproved_full", "_L", np.full((24, 32, 3), 128, np.uint8)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"0006R0_f{number:05d}{ending}.png"), picture)
    place, says = (
        f"camvid:{tmp_path}",
        "--data: .* clip 0006R0 has stills 30 frames apart: nothing can be carried",
    )
    settings = config(tmp_path / "out", data=(place,), segmenter="labels")
    with pytest.raises(ConfigError, match=says):
        clips_of(settings)
    with pytest.raises(ConfigError, match=says):
        dataset_units(BuildEpisodesConfig(data=(place,), output=str(tmp_path / "tables")))
    assert [clip.frames for clip in clips_of(replace(settings, methods=("every",)))] == [6]


def test_what_is_no_evaluation_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not the output of vidseg evaluate"):
        open_evaluation(tmp_path)
    (tmp_path / "_run").mkdir()
    manifest = tmp_path / "_run" / "manifest.json"
    manifest.write_text('{"kind": "evaluate", "version": 2, "fingerprint": {}}')
    with pytest.raises(StoreError, match="never finished"):
        open_evaluation(tmp_path)
    manifest.write_text('{"kind": "evaluate", "version": 1, "fingerprint": {}}')
    with pytest.raises(StoreError, match="version 1, this reads 3: its fps .* include reading .* again into"):
        open_evaluation(tmp_path)
    manifest.write_text('{"kind": "evaluate", "version": 99, "fingerprint": {}}')
    with pytest.raises(StoreError, match="evaluation version 99, this reads 3$"):
        open_evaluation(tmp_path)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    text = io.StringIO()
    settings = config(tmp_path / "out", dry_run=True, methods=("fixed:interval=5,9",))
    assert run_evaluate(settings, Reporter("text", text)) == 0
    assert "2 clips, 28 frames, 2 methods: 4 cells" in text.getvalue() and not (tmp_path / "out").exists()


def test_every_cell_is_in_one_task_and_the_first_of_each_clip_comes_first() -> None:
    settings = config("x", methods=("fixed:interval=" + ",".join(map(str, range(1, 20))),))
    cells = plan(clips_of(settings), settings.parsed_methods())
    tasks = chunks(cells, 2, asks_net=True)
    assert sorted(str(cell.key) for task in tasks for cell in task) == sorted(str(cell.key) for cell in cells)
    assert [len(task) for task in tasks] == [7, 7, 6, 6, 6, 6]
    assert len({task[0].clip.name for task in tasks[:2]}) == 2
    assert all(len({cell.clip.name for cell in task}) == 1 for task in tasks)
    assert len(chunks(cells[:4], 8, asks_net=False)) == 4


@pytest.mark.ray
def test_on_ray_the_tables_come_out_and_a_second_run_makes_nothing(tmp_path: Path, local_ray: None) -> None:
    settings = config(tmp_path, methods=("fixed:interval=5", "every"), tc=False)
    text = io.StringIO()
    assert run_evaluate(settings, Reporter("text", text)) == 0
    assert "cells 4/4" in text.getvalue()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cells/**/*.parquet")}
    again = io.StringIO()
    assert run_evaluate(settings, Reporter("text", again)) == 0
    assert "4 of 4 cells are there already" in again.getvalue()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cells/**/*.parquet")} == before
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == 4 and all(math.isnan(row["tc"]) for row in rows)
