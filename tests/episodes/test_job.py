"""Promise: `build-episodes` continues where it stopped, never mixes sets, says beforehand what it will cost,
and puts a clip that holds no episode aside with a reason instead of failing.
"""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import make_corpus, write_scene_video
from vidseg_core.episodes.episodes_job import _open_videos, build_row, read_segments, run_build_episodes
from vidseg_core.episodes.estimate import Work, dry_run, work_of
from vidseg_core.episodes.making import claim_set, make_builder, try_making
from vidseg_core.episodes.sources import Unit, class_names, cuts, dataset_units, read_unit
from vidseg_core.episodes.store import list_tables, load_tables
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan import expand_inputs
from vidseg_core.store import open_store

SCENES = "scenes:videos=2,frames=14,height=48,width=64"


def config(output: Path | str, **options: Any) -> BuildEpisodesConfig:
    defaults: dict[str, Any] = {
        "data": (SCENES,),
        "horizon": 6,
        "min_frames": 8,
        "propagation": TablePropagationConfig(flow_size=64),
        "segment_frames": 0,
    }
    return BuildEpisodesConfig(output=str(output), **(defaults | options))


def rows_of(settings: BuildEpisodesConfig) -> list[dict[str, Any]]:
    """Every unit built here and now, as Ray tasks would."""
    classes = class_names(settings)
    return [build_row(asdict(unit), settings, classes, "cpu") for unit in dataset_units(settings)]


def labelled(folder: Path, name: str, labels: list[np.ndarray]) -> None:
    """A DAVIS-like sequence."""
    for kind in ("frames", "labels"):
        (folder / name / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, labels_HW in enumerate(labels):
        picture = cv2.blur(rng.integers(0, 256, (*labels_HW.shape, 3), dtype=np.uint8), (9, 9))
        cv2.imwrite(str(folder / name / "frames" / f"{number:05d}.jpg"), picture)
        cv2.imwrite(str(folder / name / "labels" / f"{number:05d}.png"), labels_HW * 255)


def test_tables_are_built_and_carry_what_they_were_made_with(tmp_path: Path) -> None:
    rows = rows_of(config(tmp_path, two_sided_stride=2, features=("flow", "scores")))
    assert [row["status"] for row in rows] == ["built", "built"]
    tables = load_tables(
        tmp_path, fingerprint={"segmenter": "labels", "horizon": "6", "propagation.flow": "dis"}
    )
    assert [table.frames for table in tables] == [14, 14] and tables[0].two_sided_TL1 is not None
    assert (tables[0].key_quality_T == 1.0).all()
    with pytest.raises(EpisodeError, match="segmenter: labels there, tiny-scenes here"):
        load_tables(tmp_path, fingerprint={"segmenter": "tiny-scenes"})


def test_quality_against_a_net(tmp_path: Path) -> None:
    settings = config(tmp_path, segmenter="plain", quality="fidelity", limit=1)
    assert [row["status"] for row in rows_of(settings)] == ["built"]
    table = load_tables(tmp_path)[0]
    assert (table.key_quality_T == 1.0).all() and 0.2 < np.nanmean(table.quality_TL1[:, 6]) < 1.0
    assert len(table.fingerprint["segmenter_sha256"]) == 64


def test_a_set_is_never_continued_with_something_else(tmp_path: Path) -> None:
    store, settings = open_store(tmp_path), config(tmp_path)
    making = make_builder(settings, class_names(settings), "cpu")
    assert claim_set(store, making.fingerprint) and not claim_set(store, making.fingerprint)
    other = make_builder(replace(settings, horizon=5), class_names(settings), "cpu")
    with pytest.raises(FingerprintMismatch, match="horizon: '6' there, '5' now"):
        claim_set(store, other.fingerprint)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([np.eye(24, 32, dtype=np.uint8)] * 5, "short"),
        ([np.zeros((24, 32), np.uint8)] * 9, "single_class"),
    ],
)
def test_clips_that_hold_no_episode_are_put_aside(
    tmp_path: Path, labels: list[np.ndarray], reason: str
) -> None:
    labelled(tmp_path / "davis", "dog", labels)
    settings = config(tmp_path / "set", data=(f"davis:{tmp_path / 'davis'}",))
    (row,) = rows_of(settings)
    assert (row["status"], row["reason"]) == ("quarantined", reason)
    assert "clip dog, segment 0" in row["message"]
    assert not list(list_tables(open_store(tmp_path / "set")))


def test_a_broken_frame_costs_its_segment_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        labelled(tmp_path / "davis", name, [np.eye(24, 32, dtype=np.uint8)] * 9)
    (tmp_path / "davis" / "a" / "frames" / "00004.jpg").write_bytes(b"no picture")
    rows = rows_of(config(tmp_path / "set", data=(f"davis:{tmp_path / 'davis'}",)))
    assert [(row["status"], row["reason"]) for row in rows] == [("quarantined", "unreadable"), ("built", "")]


def test_clips_are_cut_evenly() -> None:
    assert cuts(10, 0) == [(0, 10)] and cuts(10, 10) == [(0, 10)]
    assert cuts(11, 10) == [(0, 5), (5, 11)]
    assert cuts(100, 0, clip_frames=30) == [(0, 30)]
    assert cuts(0, 10) == [(0, 0)]  # to be reported, not lost


def test_a_plain_video_is_read_at_working_size(tmp_path: Path) -> None:
    clip = write_scene_video(tmp_path / "a.mp4", SceneConfig(height=96, width=128, frames=12, seed=1))
    unit = Unit(clip="a", segment=0, source=str(clip.video), video_id="", start=3, stop=11)
    records = list(read_unit(unit, "64", "all"))
    assert [record.frame_index for record in records] == list(range(3, 11))
    assert records[0].frame_HW3.shape == (48, 64, 3) and records[0].labels_HW is None


def test_of_a_list_the_frames_that_it_asks_for_are_taken(tmp_path: Path) -> None:
    """Also after a journey as rows of Ray Data, which knows NaN for None."""
    clip = write_scene_video(tmp_path / "a.mp4", SceneConfig(height=48, width=64, frames=40, fps=10, seed=1))
    listing = tmp_path / "list.csv"
    listing.write_text(f"uri,fps,start_s\n{clip.video},5,1\n{clip.video},,9\n")
    settings = config(tmp_path / "set", data=(), input=(str(listing),), segmenter="plain", quality="fidelity")
    table = expand_inputs([str(listing)]).table.to_pandas()
    found = _open_videos({name: table[name].to_numpy() for name in table}, settings)
    found, late = (dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True))
    assert found.pop("message") == "" and "no frame" in late["message"]
    records = list(read_unit(Unit(**found), "64", "all"))
    assert [record.frame_index for record in records] == list(range(10, 40, 2))
    with pytest.raises(DatasetError, match="no frame"):
        open_dataset(f"videos:{listing}").items("train")
    listing.write_text(f"uri,fps,start_s\n{clip.video},5,1\n")
    items = [item.frame_index for item in open_dataset(f"videos:{listing}").items("train")]
    assert items == list(range(10, 40, 2))


def test_work_is_counted_as_it_is_done() -> None:
    frames, horizon, stride = 23, 7, 2
    pairs = sum(min(horizon, frames - 1 - k) for k in range(0, frames, stride))
    back = sum(min(horizon, n) for n in range(0, frames, 2 * stride))
    joins = sum(
        n - k - 1
        for k in range(0, frames, 2 * stride)
        for n in range(k + 2 * stride, min(k + horizon, frames - 1) + 1, 2 * stride)
    )
    work = work_of(frames, horizon=horizon, key_stride=stride, two_sided_stride=2 * stride, features=3)
    assert work == Work(frames=frames, pairs=pairs + back, joins=joins, table_bytes=4 * 23 * 8 * 5)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    text, settings = io.StringIO(), config(tmp_path / "set", two_sided_stride=2, dry_run=True)
    assert run_build_episodes(settings, Reporter("text", text)) == 0
    said = text.getvalue()
    assert "2 segments, 28 frames" in said and "ms a pair" in said and "nothing was written" in said
    assert not (tmp_path / "set").exists()


def test_a_set_says_which_regions_its_clips_are_and_holds_no_others(tmp_path: Path) -> None:
    cut = f"{SCENES}?regions=2x2&overlap=8"
    recorded = {"regions.grid": "2x2", "regions.overlap": "8"}
    for data, says in ((SCENES, {}), (f"{SCENES}?regions=1x1", {}), (cut, recorded)):
        settings = config(tmp_path, data=(data,))
        made = make_builder(settings, class_names(settings), "cpu").fingerprint
        assert {name: value for name, value in made.items() if name.startswith("regions")} == says
    mixes = ((SCENES, cut), (cut, cut.replace("2x2", "3x3")), (cut, cut.replace("=8", "=0")))
    for data in mixes:
        settings = config(tmp_path, data=data)
        with pytest.raises(ConfigError, match="--data: .* are not the same regions of frames"):
            make_builder(settings, class_names(settings), "cpu")


def test_regions_that_do_not_go_with_size_or_net_are_refused_before_a_set_is_begun(tmp_path: Path) -> None:
    """Each segment was put aside instead, or all of them ended with the net's own words."""

    def tried(grid: str, **options: Any) -> None:
        settings = config(tmp_path, data=(f"{SCENES}?regions={grid}&overlap=8",), **options)
        classes = class_names(settings)
        try_making(settings, make_builder(settings, classes, "cpu"), classes)

    tall: dict[str, Any] = {"segmenter": "tests.pipeline.test_regions:Tall", "quality": "fidelity"}
    tried("2x2")
    tried("1x2", working_size="96x128", **tall)
    with pytest.raises(ConfigError, match="^--data: regions 9x9 with overlap 8: 9x9 cuts frames of 128x128"):
        tried("9x9", working_size="128")
    with pytest.raises(ConfigError, match="^--data: regions 2x1 with overlap 8: .*at least 64 rows"):
        tried("2x1", working_size="96x128", **tall)


def test_mean_iou_of_regions_is_said_to_be_no_part_of_the_frames(tmp_path: Path) -> None:
    """In it the best keys of 3x3 win 1.8 points over whole frames, of the 4.1 that there are."""

    def note(grid: str, quality: Any) -> str:
        settings = config(
            tmp_path, data=(f"{SCENES}?regions={grid}&overlap=8",) if grid else (SCENES,), quality=quality
        )
        classes = class_names(settings)
        return try_making(settings, make_builder(settings, classes, "cpu"), classes)

    assert "--quality weighted adds up" in note("2x1", "labels")
    assert not note("2x1", "accuracy") and not note("", "labels")


def test_two_data_sets_must_not_share_a_clip_or_differ_in_classes(tmp_path: Path) -> None:
    other = "scenes:videos=1,frames=9,height=48,width=64"
    with pytest.raises(ConfigError, match="clip scene-"):
        dataset_units(config(tmp_path, data=(SCENES, other)))
    labelled(tmp_path / "davis", "dog", [np.eye(24, 32, dtype=np.uint8)] * 9)
    with pytest.raises(ConfigError, match="different classes"):
        class_names(config(tmp_path, data=(SCENES, f"davis:{tmp_path / 'davis'}")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ()}, "--data: needs a data set"),
        ({"input": ("a.mp4",)}, "--input: videos have no labels"),
        ({"quality": "fidelity"}, "--segmenter: --quality fidelity compares"),
        ({"features": ("flwo",)}, r"did you mean 'flow'"),
        ({"features": ("key_and_flow",)}, "--features: key_and_flow is kept with --key_stride 4 or more"),
        ({"horizon": 0}, "--horizon: must be a whole number"),
        ({"key_stride": 7}, "--key_stride: must be a whole number between 1 and 6"),
        (
            {"key_stride": 2, "two_sided_stride": 3},
            "--two_sided_stride: must be a multiple of --key_stride 2",
        ),
        ({"segment_frames": 10}, "at least twice --min_frames 8"),
        ({"propagation": TablePropagationConfig(level="scores")}, "labels have no scores"),
    ],
)
def test_what_cannot_be_asked_for_is_told_at_once(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **options)


@pytest.mark.ray
def test_on_ray_a_set_is_resumed_added_to_and_closed(tmp_path: Path, local_ray: None) -> None:
    corpus, output = tmp_path / "corpus", tmp_path / "set"
    make_corpus(corpus, clips=2, frames=14, height=48, width=64, seed=3)
    (corpus / "bad.mp4").write_bytes(b"this is no video")
    settings = config(
        output,
        data=(),
        input=(str(corpus / "*.mp4"),),
        segmenter="plain",
        quality="weighted",  # clips are counted before their tables are made
        regions=RegionsConfig(grid="1x2", overlap=8),
        segment_frames=0,
    )
    text = io.StringIO()
    assert run_build_episodes(settings, Reporter("text", text)) == 3
    assert "quarantined: 1" in text.getvalue()
    tables = load_tables(output)
    assert len(tables) == 4 and all(table.frames == 14 for table in tables)
    rows = read_segments(open_store(output))
    assert [row["status"] for row in rows].count("built") == 4
    assert [row["reason"] for row in rows if row["status"] == "quarantined"] == ["unreadable"]
    before = {path: path.read_bytes() for path in output.rglob("*.arrow")}
    next(iter(before)).unlink()
    again = io.StringIO()
    assert run_build_episodes(settings, Reporter("text", again)) == 3
    assert "3 of 4 tables are there already" in again.getvalue()
    assert {path: path.read_bytes() for path in output.rglob("*.arrow")} == before
    assert dry_run(settings, (), Reporter("text", io.StringIO())) == 0
