"""Promise: ``vidseg demo`` prints what its own output tables say, compares schedulers at about the same AKI,
and may be run again.

Why: it is the first thing that a newcomer runs, and the numbers that it prints are taken at their word.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import av
import duckdb
import numpy as np
import pytest
from PIL import Image

from benchmarks.run_digest import run_digest
from vidseg_core.cli.main import main
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.config.verbs import DemoConfig
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import open_corpus
from vidseg_core.datasets.scenes import Scene
from vidseg_core.demo.demo import run_demo
from vidseg_core.demo.pictures import clip_frames
from vidseg_core.demo.thresholds import calibrate, count_keys, first_frames
from vidseg_core.store import open_run

SCENES, FRAMES, INTERVAL = 2, 30, 6
CLASSES = len(Scene.class_names)


class Demo:
    """A finished demo: its folder, its lines of JSON, and the runs behind them."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        self.scores = {event["scheduler"]: event for event in self.events if event["event"] == "score"}
        self.place = folder / f"{SCENES}x{FRAMES}-seed0"

    def run(self, scheduler: str) -> Path:
        (found,) = (self.place / "runs").glob(f"{scheduler}*")
        return found


def config(folder: Path, **options: Any) -> DemoConfig:
    defaults: dict[str, Any] = {"videos": SCENES, "frames": FRAMES, "interval": INTERVAL, "workers": 1}
    return DemoConfig(output=str(folder), **(defaults | options))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder, text = tmp_path_factory.mktemp("demo") / "out", io.StringIO()
    with contextlib.redirect_stdout(text):
        assert run_demo(config(folder, log="json")) == 0
    return Demo(folder, text.getvalue())


def masks(demo: Demo, scheduler: str) -> np.ndarray:
    """uint8 [scene, frame, H, W] straight from the run."""
    run = open_run(demo.run(scheduler))
    ids = {Path(row["uri"]).name: row["video_id"] for row in run.videos().to_pylist()}
    return np.array([[run.mask(ids[name], t) for t in range(FRAMES)] for name in sorted(ids)])


def iou_by_sets(prediction: np.ndarray, reference: np.ndarray) -> float:
    """mIoU as the words say it, class by class, over all pixels at once."""
    shares = []
    for label in range(CLASSES):
        p, r = prediction == label, reference == label
        if (p | r).any():
            shares.append((p & r).sum() / (p | r).sum())
    return float(np.mean(shares))


def test_the_reference_and_every_scheduler_have_a_line(demo: Demo) -> None:
    assert list(demo.scores) == ["every", "fixed", "frame_difference", "warp_error"]
    every = demo.scores["every"]
    assert (every["aki"], every["calls_saved"]) == (1.0, 0.0)
    assert every["fidelity_miou"] == every["pixel_agreement"] == 1.0
    for name, score in demo.scores.items():
        assert score["frames"] == SCENES * FRAMES and score["fps"] > 0
        assert (score["threshold"] is not None) == (name in ("frame_difference", "warp_error"))


@pytest.mark.parametrize("scheduler", ["every", "fixed", "frame_difference", "warp_error"])
def test_keys_are_those_of_the_table(scheduler: str, demo: Demo) -> None:
    query = f"select count(*), sum(is_key::int) from '{demo.run(scheduler)}/frames/**/*.parquet'"
    ((frames, keys),) = duckdb.connect().execute(query).fetchall()
    score = demo.scores[scheduler]
    assert (score["frames"], score["keys"]) == (frames, keys)
    assert score["aki"] == pytest.approx(frames / keys)
    assert score["calls_saved"] == pytest.approx(1 - keys / frames)


@pytest.mark.parametrize("scheduler", ["every", "fixed", "frame_difference", "warp_error"])
def test_quality_is_that_of_the_masks(scheduler: str, demo: Demo) -> None:
    clips = open_corpus(demo.place / "scenes")
    truth = np.array([[frame.labels_HW for frame in Scene(clip.config)] for clip in clips])
    ours, every, score = masks(demo, scheduler), masks(demo, "every"), demo.scores[scheduler]
    assert score["truth_miou"] == pytest.approx(iou_by_sets(ours, truth))
    assert score["fidelity_miou"] == pytest.approx(iou_by_sets(ours, every))
    assert score["pixel_agreement"] == pytest.approx(float((ours == every).mean()))
    assert score["truth_miou"] > 0.6


def test_schedulers_are_compared_at_about_the_same_aki(demo: Demo) -> None:
    fixed = demo.scores["fixed"]["keys"]
    assert fixed == SCENES * FRAMES / INTERVAL
    for name in ("frame_difference", "warp_error"):
        assert abs(demo.scores[name]["keys"] - fixed) <= 2


def test_the_job_takes_the_keys_that_the_search_counted(demo: Demo) -> None:
    clips = open_corpus(demo.place / "scenes")
    frames = first_frames([clip_frames(clip) for clip in clips])
    assert [len(clip) for clip in frames] == [FRAMES] * SCENES
    for name in ("frame_difference", "warp_error"):
        threshold = demo.scores[name]["threshold"]
        job = SegmentConfig(
            input=("x",),
            output="y",
            segmenter="plain",
            scheduler=SchedulerConfig(name=name, threshold=threshold),
        )
        assert count_keys(job, frames) == demo.scores[name]["keys"]


def test_a_threshold_is_found_for_other_intervals_too() -> None:
    scene = Scene(SceneConfig(frames=40, height=96, width=128))
    frames = [[item.frame_HW3 for item in scene]]
    job = SegmentConfig(
        input=("x",),
        output="y",
        segmenter="plain",
        scheduler=SchedulerConfig(name="flow_magnitude"),
        propagation=PropagationConfig(flow_size=128),
    )
    coarse, fine = calibrate(job, frames, 20), calibrate(job, frames, 4)
    assert fine < coarse
    assert calibrate(job, frames, 4) == fine


def test_the_pictures_open_and_the_video_has_every_frame(demo: Demo) -> None:
    paths = [Path(event["path"]) for event in demo.events if event["event"] == "file"]
    assert [path.name for path in paths] == ["sheet.png", "overlay.mp4"]
    with Image.open(paths[0]) as sheet:
        sheet.load()
        assert sheet.width > 1000 and sheet.height > 800
    with av.open(str(paths[1])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    height, *rest = frames[0].shape  # the legend is below the pictures
    assert len(frames) == FRAMES and 480 < height < 560 and rest == [1280, 3]
    left, right = np.split(frames[INTERVAL + 1][:480].astype(float), 2, axis=1)
    assert np.abs(left - right).mean() > 2, "masks lie over the right half"


def test_the_same_demo_again_reads_what_is_there(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: run_digest(demo.run(name)) for name in demo.scores}
    stamps = {path: path.stat().st_mtime_ns for path in demo.place.rglob("*") if path.is_file()}
    assert run_demo(config(demo.folder)) == 0
    shown = capsys.readouterr()
    assert shown.err.count("complete already") == len(demo.scores) and "starting Ray" not in shown.err
    assert "tiny-scenes" in shown.err and str(demo.folder / "overlay.mp4") in shown.out
    for name, score in demo.scores.items():
        (line,) = (line for line in shown.out.splitlines() if line.startswith(f"{name} "))
        assert line.rstrip().endswith(f"{score['fps'] / demo.scores['every']['fps']:.1f} x")
        assert f" {score['aki']:.1f} " in line and f" {score['truth_miou']:.3f} " in line
    assert {name: run_digest(demo.run(name)) for name in demo.scores} == before
    assert {path: path.stat().st_mtime_ns for path in demo.place.rglob("*") if path.is_file()} == stamps


def test_other_options_get_folders_of_their_own(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_digest(demo.run("fixed"))
    other = config(demo.folder, schedulers=("fixed", "every", "fixed"), interval=10, sides="one", log="json")
    try:
        assert run_demo(other) == 0
        shown = capsys.readouterr()
        scores = [json.loads(line) for line in shown.out.splitlines()]
        akis = {score["scheduler"]: score["aki"] for score in scores if score["event"] == "score"}
        assert akis == {"every": 1.0, "fixed": 10.0}
        assert all(json.loads(line)["event"] for line in shown.err.splitlines() if line.startswith("{"))
        assert shown.err.count("complete already") == 1
    finally:
        shutil.rmtree(demo.place / "runs" / "fixed-10-of-10-one", ignore_errors=True)
    assert run_digest(demo.run("fixed")) == before


def test_runs_of_other_scenes_are_refused_with_advice(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(demo.folder, tmp_path / "moved")
    assert run_demo(config(tmp_path / "moved", schedulers=("fixed",))) == 2
    said = capsys.readouterr().err
    assert "begun with other videos" in said and "remove the folder or give another --output" in said


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--output", str(tmp_path / "file" / "out")]) == 2
    assert "--output" in capsys.readouterr().err
