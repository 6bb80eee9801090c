"""Promise: what a scheduler learns on tables of regions is what a run with these regions does: tables of
`build-episodes --regions.grid`, one file with one set of weights, and in the run each region has the keys
that the file takes on the region's table.

Why: were crops, the scale of their pictures or the split of the clips another in one of the steps, the
scheduler would look right on its tables and decide something else in a run.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.episodes.tables import random_table
from tests.pipeline.conftest import small_config
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.config.train_planner import TrainPlannerConfig
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.open import open_dataset
from vidseg_core.episodes.class_counts import count_row, counted_clips, parts_to_count
from vidseg_core.episodes.episodes_job import build_row
from vidseg_core.episodes.on_tables import keys_on
from vidseg_core.episodes.sources import chosen_videos, class_names, dataset_units, in_regions, video_units
from vidseg_core.episodes.store import encode_table, load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.store import open_run
from vidseg_core.training.decision_job import DECISION, run_train_decision
from vidseg_core.training.planner_job import PLANNER, run_train_planner
from vidseg_core.training.policy_loop import POLICY, PolicyOptions, train_policy
from vidseg_core.training.split import open_tables, split_by_clip

CUT = RegionsConfig(grid="2x2", overlap=8)
SCENES = "scenes:videos=1,frames=9,height=64,width=96"
FRAMES, LONGEST = 30, 12


def settings(output: Path, **options: Any) -> BuildEpisodesConfig:
    defaults: dict[str, Any] = {"min_frames": 8, "horizon": LONGEST, "regions": CUT}
    return BuildEpisodesConfig(output=str(output), **defaults | options)


def tables_of(config: BuildEpisodesConfig) -> list[EpisodeTable]:
    """The whole set, built here."""
    reader, units = ClipReader(), dataset_units(config)
    for video in chosen_videos(config, 0):
        units += video_units(config, video, reader)
    todo, classes = in_regions(units, config.regions), class_names(config)
    counts = [count_row(asdict(unit), config, classes, "cpu") for unit in parts_to_count(todo, todo, config)]
    for unit in todo:
        row = build_row(asdict(unit), config, classes, "cpu", counted_clips(counts)[0])
        assert row["status"] == "built", row
    reader.close()
    return load_tables(config.output)


def test_the_option_and_the_data_set_of_regions_give_the_same_tables(tmp_path: Path) -> None:
    small: dict[str, Any] = {"horizon": 4, "working_size": "64", "segment_frames": 0}
    small["propagation"] = TablePropagationConfig(flow_size=32)
    by_option = tables_of(settings(tmp_path / "a", data=(SCENES,), **small))
    by_name = tables_of(
        settings(tmp_path / "b", data=(f"{SCENES}?regions=2x2&overlap=8",), regions=RegionsConfig(), **small)
    )
    assert len(by_option) == 4
    assert [encode_table(table) for table in by_option] == [encode_table(table) for table in by_name]


def test_agreement_is_the_share_of_a_region_s_whole_crop(tmp_path: Path) -> None:
    """DVSNet Eq. 1: overlap counts, since N sees it, where `weighted` counts each pixel of the frame once."""
    plain = TablePropagationConfig(name="copy", flow_size=32)
    small: dict[str, Any] = {"horizon": 4, "working_size": "96", "segment_frames": 0, "propagation": plain}
    tables = tables_of(settings(tmp_path, data=(SCENES,), quality="accuracy", **small))
    scenes = open_dataset(SCENES)
    labels_THW = np.stack([scenes.read(item).labels_HW for item in scenes.items("all")])  # type: ignore[misc]
    for table, crop in zip(tables, CUT.crops((64, 96)), strict=True):
        crop_Thw = labels_THW[:, *crop.where]
        for k, d in ((0, 1), (0, 4), (3, 2)):
            share = (crop_Thw[k] == crop_Thw[k + d]).mean()
            assert table.quality_TL1[k, d] == pytest.approx(share, abs=1e-6)
    assert all(np.nanmin(table.quality_TL1) < 0.99 for table in tables)


def test_a_unit_s_regions_are_those_of_the_option(tmp_path: Path) -> None:
    aligned = replace(CUT, align=32)
    units = in_regions(dataset_units(settings(tmp_path, data=(SCENES,))), aligned)
    assert {unit.regions for unit in units} == {aligned} and [unit.region for unit in units] == [0, 1, 2, 3]


def test_regions_are_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--regions.grid: .*regions=3x3 is cut into regions already"):
        settings(tmp_path, data=(f"{SCENES}?regions=3x3",))


def test_tables_are_of_crops_by_themselves(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--regions.context: is joint, but tables are of crops"):
        settings(tmp_path, data=(SCENES,), regions=replace(CUT, context="joint"))


def test_regions_of_a_clip_are_not_on_both_sides_of_the_split(tmp_path: Path) -> None:
    tables = [
        replace(table, fingerprint={**table.fingerprint, **CUT.recorded()})
        for video in "abcd"
        for table in (random_table(clip=f"{video}-r{number}") for number in (1, 2, 3, 4))
    ]
    training, held = split_by_clip(tables, (), 0.25, 0)
    assert len(held) == 4 and len({table.video for table in held}) == 1
    assert not {table.video for table in training} & {table.video for table in held}
    named = split_by_clip(tables, ("c",), 0.0, 0)[1]
    assert [table.clip for table in named] == ["c-r1", "c-r2", "c-r3", "c-r4"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder `clips`, which has one video."""
    folder = tmp_path_factory.mktemp("regions")
    scenes = open_dataset(f"scenes:videos=1,frames={FRAMES},height=96,width=128,seed=2")
    (folder / "clips" / "scene").mkdir(parents=True)
    for number, item in enumerate(scenes.items("all")):  # a video's luma is not the gray of its colours
        Image.fromarray(scenes.read(item).frame_HW3).save(folder / "clips" / "scene" / f"{number:05}.png")
    return folder


def decided(folder: Path, quality: str, options: Mapping[str, Any]) -> list[EpisodeTable]:
    """Tables of the video in this quality, and a decision net that has learned from them; in folders of its
    name."""
    config = settings(
        folder / quality,
        input=(str(folder / "clips"),),
        segmenter="plain",
        quality=quality,
        propagation=TablePropagationConfig(flow_size=64),
        **options,
    )
    tables = tables_of(config)
    output = str(folder / f"decision-{quality}")
    decision = TrainDecisionConfig(
        tables=config.output, output=output, steps=20, intervals=(4.0,), val_share=0.0
    )
    assert run_train_decision(decision, Reporter("text", io.StringIO())) == 0
    return tables


@pytest.fixture(scope="module")
def weighted(clips: Path) -> list[EpisodeTable]:
    """Tables, and all that learns from them."""
    tables = decided(clips, "weighted", {"two_sided_stride": 3, "features": ("flow", "scores")})
    sets = str(clips / "weighted")
    planner = TrainPlannerConfig(tables=(sets,), output=str(clips / "planner"), intervals=(4.0,))
    assert run_train_planner(planner, Reporter("text", io.StringIO())) == 0
    (clips / "policy").mkdir()
    options = PolicyOptions(
        folder=clips / "policy",
        reinforce=ReinforceRecipe(episodes=8, batch=4, trials=2),
        intervals=(4.0,),
        episode=EpisodeRecipe(frames=20, eta=0.2),
    )
    train_policy(open_tables(sets, (), 0.0, 0)[0], None, options)
    return tables


@pytest.fixture(scope="module")
def agreed(clips: Path) -> list[EpisodeTable]:
    """Tables of agreement with N (DVSNet Eq. 1), and a decision net."""
    return decided(clips, "accuracy", {"pictures": False, "features": ("flow",)})


KINDS = {
    "expected_loss": ("weighted", f"decision-weighted/{DECISION}"),
    "policy": ("weighted", f"policy/{POLICY}"),
    "planner": ("weighted", f"planner/{PLANNER}"),
    "confidence": ("agreed", f"decision-accuracy/{DECISION}"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_takes_the_keys_of_the_tables(
    name: str, clips: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tables: list[EpisodeTable] = request.getfixturevalue(KINDS[name][0])
    asked: dict[str, Any] = {"max_interval": LONGEST, "policy": str(clips / KINDS[name][1])}
    tried = np.geomspace(1e-4, 10.0, 31)
    keys_RPT = np.stack([keys_on(table, name, tried, **asked) for table in tables])
    apart_P = (keys_RPT != keys_RPT[:1]).any(axis=(0, 2)) * (keys_RPT.sum(axis=(0, 2)) > 8)
    place = int(np.flatnonzero(apart_P)[0])  # regions have keys of their own there
    config = small_config(
        clips / "clips",
        tmp_path / "out",
        executor="local",
        workers=1,
        regions=CUT,
        segment_frames=0,
        scheduler=SchedulerConfig(name=name, threshold=float(tried[place]), **asked),
        propagation=PropagationConfig(flow_size=64),
    )
    assert run_segment(config, Reporter("text", io.StringIO())) == 0
    run = open_run(config.output)
    (video,) = run.videos().to_pylist()
    keys_TR = [row["region_keys"] for row in run.rows(video["video_id"])]
    assert np.array_equal(np.array(keys_TR), keys_RPT[:, place].T)
