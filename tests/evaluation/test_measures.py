"""Promise: what an evaluation measures beside quality (consistency, steadiness, size, speed) is what the
metrics give for the masks of the run, and one that cannot be measured costs that number only.

Why: such numbers look right whatever frames, pixels or nets they are of.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.evaluation.small import config, davis, evaluate_here
from vidseg_core.evaluation.cells import list_cells, read_cell
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.evaluation.tables import LATER, pooled_columns
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.metrics import (
    VideoConsistency,
    temporal_stability,
)
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.store.errors import StoreError


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


def test_without_the_cost_of_a_call_there_is_no_speed_and_no_cost(tmp_path: Path) -> None:
    """Labels cost nothing, so `every` would come out as the fastest of all methods."""
    code, _, said = evaluate_here(config(tmp_path, segmenter="labels", methods=("every", "fixed:interval=7")))
    assert code == 0 and "fps" not in said.splitlines()[0] and "--key_net_ms" in said
    every, fixed = open_evaluation(tmp_path).methods
    for name in ("fps", "net_s", "cpu_s", "cpu_s_per_video_hour", "latency_mean_s", "latency_max_s"):
        assert math.isnan(every[name]) and math.isnan(fixed[name]), name
    assert every["miou"] == 1.0 and fixed["engine_s"] > 0


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
