"""Promise: the same evaluation goes on where it stopped and mixes nothing; a clip that cannot be read costs
its own rows; what is no evaluation is one sentence before anything is written.

Why: an evaluation takes hours, and a number of another run among its own is never noticed.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.evaluation.small import config, davis, evaluate_here
from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.episodes.sources import dataset_units
from vidseg_core.evaluation.clips import clips_of
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.evaluation.plan import chunks, plan
from vidseg_core.evaluation.read import open_evaluation
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.progress import Reporter
from vidseg_core.store.errors import StoreError


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


def test_labels_of_another_size_are_told_and_cost_their_clip_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        davis(tmp_path / "davis", name, [np.eye(24, 32, dtype=np.uint8)] * 6)
    cv2.imwrite(str(tmp_path / "davis" / "a" / "labels" / "00002.png"), np.zeros((12, 16), np.uint8))
    settings = config(tmp_path / "out", data=(f"davis:{tmp_path / 'davis'}",), segmenter="labels")
    code, bad, _ = evaluate_here(settings)
    assert code == 3 and [row["clip"] for row in bad] == ["a"]
    assert "00002.png: the labels are 16x12, but their image" in bad[0]["message"]
    assert "is 32x24" in bad[0]["message"] and open_evaluation(tmp_path / "out").clips == ["b"]


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
