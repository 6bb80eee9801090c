"""Promise: `--regions.grid` gives a run whose rows say what each region did, that counts pixels, shows
regions in its pictures, and refuses in one sentence what cannot be.

Why: a grid that does not fit would be an error of numpy in the middle of a run, and a run that counted a
region as a frame would say that it saved what it did not.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.toy import ThresholdNet
from tests.pipeline.clips import make_corpus, moving_disc, write_video
from tests.pipeline.conftest import RunJob, small_config
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig
from vidseg_core.drawing import Painter
from vidseg_core.drawing.regions import KEY_RGB, mark_regions
from vidseg_core.engine import FrameResult
from vidseg_core.inspection.inspect_job import run_inspect
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.pace import _share
from vidseg_core.pipeline.rows import PartMessage
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.propagation import DisFlow
from vidseg_core.report.of_run import _keys
from vidseg_core.report.page import num
from vidseg_core.report.regions import read_regions, region_section, smoothed
from vidseg_core.store import FRAMES_SCHEMA, REGION_SCHEMA, open_run, open_store
from vidseg_core.store.compact import compact

GRID = RegionsConfig(grid="2x2", overlap=8)
"""Of frames of 96x128 four crops of 56x72: 1.3125 times the pixels."""
OPTIONS: dict[str, Any] = {
    "regions": GRID,
    "scheduler": SchedulerConfig(name="warp_error", threshold=3.0, max_interval=9),
    "propagation": PropagationConfig(flow_size=64),
}


class WideFlow(DisFlow):
    """An estimator that takes no picture of less than 32 rows."""

    def flow(self, current: Any, key: Any) -> Any:
        if any(len(view_hw) < 32 for view_hw in current):
            raise ValueError("at least 32 rows")
        return super().flow(current, key)


class Tall(ThresholdNet):
    """A net that takes no frame of less than 64 rows."""

    def features(self, frames_B3HW: Any) -> Any:
        if frames_B3HW.shape[2] < 64:
            raise ValueError("at least 64 rows")
        return super().features(frames_B3HW)


class Flat(ThresholdNet):
    """A net that takes no frame of more than 44 rows."""

    def features(self, frames_B3HW: Any) -> Any:
        if frames_B3HW.shape[2] > 44:
            raise ValueError("at most 44 rows")
        return super().features(frames_B3HW)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), (30,))


@pytest.fixture(scope="module")
def run_of_regions(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run by the local executor, and what it said."""
    output, text = tmp_path_factory.mktemp("run") / "out", io.StringIO()
    config = small_config(corpus, output, executor="local", workers=1, **OPTIONS)
    assert run_segment(config, Reporter("text", text)) == 0
    return output, text.getvalue()


def test_rows_say_what_each_region_did(run_of_regions: tuple[Path, str]) -> None:
    run = open_run(str(run_of_regions[0]))
    (video,) = run.videos().to_pylist()
    rows, mixed = list(run.rows(video["video_id"])), 0
    for row in rows:
        keys = row["region_keys"]
        assert len(keys) == len(row["region_scores"]) == len(row["region_key_frame_index"]) == 4
        assert row["is_key"] == any(keys)
        assert row["key_share"] == pytest.approx(sum(keys) * 56 * 72 / (96 * 128))
        assert row["key_frame_index"] == min(row["region_key_frame_index"])
        assert (row["height"], row["width"]) == (96, 128) and sum(row["class_pixels"]) == 96 * 128
        mixed += any(keys) and not all(keys)
    assert mixed > 2
    assert video["keys"] == sum(row["is_key"] for row in rows)
    assert video["aki"] == pytest.approx(len(rows) / sum(row["key_share"] for row in rows))
    assert run.info()["totals"]["aki"] == pytest.approx(video["aki"])
    assert "AKI in pixels" in run_of_regions[1] and "frames with key regions" in run_of_regions[1]


def test_columns_are_there_with_regions_alone(
    run_of_regions: tuple[Path, str], corpus: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    assert open_run(str(run_of_regions[0])).frames().schema.names == REGION_SCHEMA.names
    assert run_locally(corpus, tmp_path / "out")[0] == 0
    assert open_run(str(tmp_path / "out")).frames().schema.names == FRAMES_SCHEMA.names


def test_parts_of_regions_can_be_merged(corpus: Path, tmp_path: Path, run_locally: RunJob) -> None:
    assert run_locally(corpus, tmp_path / "out", **OPTIONS)[0] == 0
    run = open_run(str(tmp_path / "out"))
    (video_id,) = (found for found, _ in run.files())
    before = list(run.rows(video_id))
    compact(str(tmp_path / "out"))
    assert list(open_run(str(tmp_path / "out")).rows(video_id)) == before


def test_inspect_says_which_regions_were_keys_and_frames_them(
    run_of_regions: tuple[Path, str], tmp_path: Path
) -> None:
    output, text = run_of_regions[0], io.StringIO()
    look = InspectConfig(run=str(output), output=str(tmp_path / "look"), limit=30)
    run_inspect(look, Reporter("text", text))
    assert (
        "key: region 1 of 2x2: warp_error " in text.getvalue()
        or " of 2x2: warp_error up to" in text.getvalue()
    )
    painter, size = Painter.of(open_run(str(output))), (96, 128)
    picture_HW3 = np.zeros((*size, 3), np.uint8)
    keys = [False, True, False, False]
    painter.mark_keys(picture_HW3, {"region_keys": keys, "is_key": True, "height": 96, "width": 128})
    framed_HW = (picture_HW3 == KEY_RGB).all(axis=2)
    assert framed_HW[0, 64:].all() and framed_HW[47, 64:].all()  # the region at the top right
    assert not framed_HW[:, :64].any() and not framed_HW[48:].any()
    assert picture_HW3[70, 64].any() and picture_HW3[48, 20].any()  # lines between the others


def test_a_report_says_how_often_each_region_was_key(run_of_regions: tuple[Path, str]) -> None:
    """DVSNet Table 3 counts regions that are warped for each that the net makes."""
    run = open_run(str(run_of_regions[0]))
    (video_id,) = (found for found, _ in run.files())
    rows = read_regions(run, video_id)
    assert rows.keys_TR.shape == rows.scores_TR.shape == (30, 4)
    assert rows.ratio == pytest.approx((120 - rows.keys_TR.sum()) / rows.keys_TR.sum())
    section = region_section(run, GRID, [video_id], 4, "")
    text = str(section.parts)
    assert num(rows.ratio, 2) in text and num(100 * rows.share_T.mean(), 1) in text
    assert "regions 2x2 with overlap 8" in text and "run-regions" in str(section)
    steady = smoothed(np.array([np.inf, *np.full(40, 2.0)]))
    assert steady.shape == (41,) and (steady == 2.0).all()
    assert smoothed(np.arange(4.0)).tolist() == [1.5] * 4  # shorter than the window
    shown = str(_keys(run, run.info(), [video_id], "").parts)
    assert "with key regions" in shown and num(1 / float(rows.share_T.mean()), 1) in shown  # AKI in pixels


def test_regions_are_drawn_into_frames_whose_masks_are_smaller_than_the_working_size() -> None:
    """92 rows are worked on as 96 (`--masks.size source`), which six regions fit into."""
    picture_HW3 = np.zeros((92, 128, 3), np.uint8)
    mark_regions(picture_HW3, RegionsConfig(grid="6x1"), (92, 128), [False] * 5 + [True])
    assert (
        (picture_HW3[91] == KEY_RGB).all() and (picture_HW3[78:] == KEY_RGB).any() and picture_HW3[15].any()
    )


def test_regions_of_a_mirrored_mask_are_mirrored_too(tmp_path: Path) -> None:
    regions = RegionsConfig(grid="2x3", overlap=0)
    store, labels_HW = open_store(str(tmp_path)), np.zeros((32, 48), np.uint8)
    part = PartMessage("v", 0, 0, 32, 48, source_height=32, source_width=48, mirrored=True)
    frame = FrameResult(
        frame_index=0, pts_s=0.0, is_key=True, key_frame_index=0, decision_score=1.0, kar=0.0, lkd=0,
        is_corrupt=False, labels_HW=labels_HW, region_keys=[True] + [False] * 5,
        region_key_frame_index=list(range(6)), region_scores=[float(n) for n in range(6)], key_share=1 / 6,
    )  # fmt: skip
    CommitStage(store, 2, regions=regions).commit(part, [frame])
    (row,) = open_run(str(tmp_path)).rows("v")
    assert row["region_keys"] == [False, False, True, False, False, False]
    assert row["region_key_frame_index"] == row["region_scores"] == [2, 1, 0, 5, 4, 3]
    assert frame.region_key_frame_index == list(range(6))


def test_dry_run_says_crops_batch_and_state(corpus: Path, tmp_path: Path, run_locally: RunJob) -> None:
    code, text = run_locally(corpus, tmp_path / "out", dry_run=True, key_batch=4, **OPTIONS)
    assert code == 0 and not (tmp_path / "out").exists()
    assert "regions: 2x2, so 4 crops of a frame of 96x128, of 56x72 with overlap 8" in text
    assert "costs 1.31 times its pixels, in calls of up to 4 crops" in text
    assert "state: of a segment at most 8 frames" in text


def test_the_keys_of_a_fixed_interval_are_not_those_of_the_frames_that_were_tried() -> None:
    """Of 25 frames three are keys, but of all one in twelve is; each costs the overlap."""
    fixed = SchedulerConfig(name="fixed", interval=12)
    shares = [_share(fixed, 3 / 25, each=1.0), _share(fixed, 3 / 25 * 1.3125, each=1.3125)]
    assert shares == [1 / 12, 1.3125 / 12]


def test_a_video_too_small_for_the_grid_is_put_aside_alone(tmp_path: Path, run_locally: RunJob) -> None:
    write_video(tmp_path / "in" / "flat.mp4", moving_disc(8, 40, 256))
    write_video(tmp_path / "in" / "large.mp4", moving_disc(8, 96, 128))
    options = OPTIONS | {"regions": RegionsConfig(grid="3x3", overlap=8)}
    code, text = run_locally(tmp_path / "in", tmp_path / "out", **options)
    rows = {Path(row["uri"]).stem: row for row in open_run(str(tmp_path / "out")).videos().to_pylist()}
    assert code == 3
    assert rows["large"]["status"] == "ok"
    assert rows["flat"]["reason"].startswith("too_small: ")
    assert "3x3 cuts frames of 40x256 into regions of 8 pixels a side; at least 16 are needed" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"segmenter": "tests.pipeline.test_regions:Tall"},
            r"--regions.grid: regions 2x2 .*56x72.*at least 64 rows",
        ),
        (  # corners and borders of 3x3 have 40 rows, the middle 48
            {
                "segmenter": "tests.pipeline.test_regions:Flat",
                "regions": RegionsConfig(grid="3x3", overlap=8),
            },
            r"--regions.grid: regions 3x3 .*48x.*at most 44 rows",
        ),
        (
            {"propagation": PropagationConfig(flow="motion_vectors", sides="one")},
            "--regions.grid: 2x2 does not go",
        ),
        (  # crops of 56 rows are seen with 28 at this size of the frame's flow picture
            {"propagation": PropagationConfig(flow="tests.pipeline.test_regions:WideFlow", flow_size=64)},
            "WideFlow.* fails on a small frame: .*at least 32 rows",
        ),
    ],
)
def test_what_does_not_go_with_regions_is_refused_before_anything_is_claimed(
    corpus: Path, tmp_path: Path, run_locally: RunJob, options: dict[str, Any], says: str
) -> None:
    try:
        code, text = run_locally(corpus, tmp_path / "out", working_size="96x128", **OPTIONS | options)
    except ConfigError as problem:
        code, text = 2, str(problem)
    assert code == 2 and re.search(says, text), text
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.json"))


def test_pseudo_labels_are_of_whole_frames() -> None:
    with pytest.raises(ConfigError, match="--regions.grid: 2x2 does not go with pseudo-label"):
        PseudoLabelConfig(input=("a",), output="b", segmenter="plain", regions=GRID)


@pytest.mark.ray
def test_ray_writes_the_same_bytes(
    run_of_regions: tuple[Path, str], corpus: Path, tmp_path: Path, run_job: RunJob
) -> None:
    code, _ = run_job(corpus, tmp_path / "out", executor="ray", lanes=2, object_store_mb=200, **OPTIONS)
    assert code == 0
    parts, others = (
        {path.name: path.read_bytes() for path in (folder / "frames").rglob("*.parquet")}
        for folder in (run_of_regions[0], tmp_path / "out")
    )
    assert len(parts) == 4 and parts == others


def test_a_run_goes_on_with_the_same_grid_alone(
    run_of_regions: tuple[Path, str], corpus: Path, run_locally: RunJob
) -> None:
    code, text = run_locally(corpus, run_of_regions[0], **OPTIONS | {"regions": RegionsConfig(grid="2x1")})
    assert code == 2 and "regions.grid" in text
    code, text = run_locally(corpus, run_of_regions[0], **OPTIONS)
    assert code == 0 and "complete already" in text
