"""Promise: every frame of a run can be looked at, with one true sentence on why it was a key or not; what is
exported is what the run holds; a source that is gone costs the pictures, not the masks.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.store.builders import video_row
from vidseg_core.cli import main as cli
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.drawing import PALETTE
from vidseg_core.engine import FrameResult
from vidseg_core.inspection.inspect_job import run_inspect
from vidseg_core.inspection.why import Reasons
from vidseg_core.kit.progress import Reporter
from vidseg_core.store import encode_part, encode_videos, open_run, open_store, part_key
from vidseg_core.store.errors import StoreError

FRAMES, HEIGHT, WIDTH = 20, 48, 64
VIDEO = "clip-0123456789"
CLASSES = ["background", "thing: a", "other"]


def mask(number: int) -> np.ndarray:
    labels_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels_HW[10:20, number : number + 8] = 1 + number % 2
    return labels_HW


def frame_row(number: int) -> FrameResult:
    key = number // 10 * 10
    return FrameResult(
        frame_index=number,
        pts_s=number / 10,
        is_key=number == key,
        key_frame_index=key,
        decision_score=math.inf if number == 0 else 2.0 + number % 10 / 5 + 3 * (number == key),
        kar=0.1,
        lkd=10 if number == 10 else number - key,
        is_corrupt=number == 13,
        labels_HW=mask(number),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one video of 20 gray frames, and one quarantined video."""
    source, folder = tmp_path / "clip.mp4", tmp_path / "run"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    store = open_store(folder)
    rows = [frame_row(number) for number in range(FRAMES)]
    store.put(str(part_key(VIDEO, 0, 0)), encode_part(VIDEO, rows))
    video: dict[str, Any] = video_row(
        VIDEO,
        FRAMES,
        uri=str(source),
        codec="mpeg4",
        width=WIDTH,
        height=HEIGHT,
        corrupt_frames=1,
        keys=2,
        aki=10.0,
        duration_s=2.0,
        cpu_s=1.0,
    )
    store.put(f"videos/{VIDEO}.parquet", encode_videos([video]))
    bad = video | {"video_id": "bad-0123456789", "uri": "bad.mp4", "status": "quarantined"}
    bad["reason"] = "crash: bad.mp4: it died"
    store.put("videos/bad-0123456789.parquet", encode_videos([bad]))
    scheduler = {"name": "warp_error", "threshold": 4.5, "max_interval": 90}
    info = {
        "schema_version": 1,
        "config": {"scheduler": scheduler},
        "segmenter": {"name": "plain", "class_names": CLASSES},
    }
    store.put("run.json", json.dumps(info).encode())
    store.put("_SUCCESS", b"")
    return folder


def look(run: Path, out: Path, **options: Any) -> tuple[int, str]:
    text = io.StringIO()
    code = run_inspect(InspectConfig(run=str(run), output=str(out), **options), Reporter("text", text))
    return code, text.getvalue()


def test_every_chosen_frame_says_why(run: Path, tmp_path: Path) -> None:
    code, said = look(run, tmp_path / "out", show=("why",), frames="0,9-11,13")
    assert code == 0 and "quarantined: bad.mp4: crash: it died" in said  # the address once
    with open(tmp_path / "out" / f"{VIDEO}-why.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "9", "10", "11", "13"]
    assert rows[0]["why"] == "key: the first frame of its segment always is"
    assert rows[1]["why"] == (
        "no key: warp_error scores 3.8 gray levels, not above the threshold 4.5 (9 frames since the last key)"
    )
    assert rows[2]["why"].startswith("key: warp_error scores 5 gray levels, above the threshold 4.5 (10")
    assert rows[4]["mask"] == "from 10 damaged" and rows[3]["classes"] == "other 2.6 %"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"is_key": True, "decision_score": math.inf, "lkd": 90},
            "90 frames since the last one, the longest",
        ),
        ({"is_key": True, "decision_score": math.inf, "lkd": 4}, "the last key was damaged, 4 frames ago"),
        ({"is_key": False, "decision_score": -math.inf, "lkd": 4}, "damaged, so the scheduler was not asked"),
        ({"is_key": False, "decision_score": None, "lkd": 4}, "no key: no score was kept"),
        ({"is_key": True, "decision_score": 12.0, "lkd": 12}, "key: 12 frames since the last key, the fixed"),
        (
            {"is_key": False, "decision_score": 1.0, "lkd": 1},
            "no key: 1 frame since the last key, of 12 (fixed)",
        ),
    ],
)
def test_decisions_without_a_score_have_a_reason_too(row: dict[str, Any], says: str) -> None:
    reasons = Reasons({"config": {"scheduler": {"name": "fixed", "interval": 12, "max_interval": 90}}})
    assert says in reasons.sentence(row) and reasons.threshold == 11.0
    assert Reasons({}).threshold is None and Reasons({}).sentence(row).startswith(("key:", "no key:"))


def test_the_scheduler_of_lvs_has_a_reason_without_its_file() -> None:
    """Its threshold was not known where the file of its net was not, and its scores had no unit."""
    reasons = Reasons({"config": {"scheduler": {"name": "low_deviation", "policy": "/gone.safetensors"}}})
    said = reasons.sentence({"is_key": True, "decision_score": 7.25, "lkd": 3})
    assert said.startswith("key: low_deviation scores 7.25 % of the labels, expected, above the threshold 5 ")


def test_a_key_of_low_latency_says_whose_mask_it_shows() -> None:
    """It was called KEY like one that shows the net's own result."""
    carried = {"propagation": {"latency": "low", "delay": 3}}
    reasons = Reasons({"config": carried | {"scheduler": {"name": "fixed", "interval": 12}}})
    key = {"is_key": True, "decision_score": 12.0, "lkd": 12}
    assert reasons.sentence(key).endswith(
        "; shows what was carried to it, the net's result counts 3 frames later"
    )
    first = key | {"decision_score": math.inf, "lkd": 0}
    assert all("carried" not in reasons.sentence(row) for row in (key | {"is_key": False}, first))


def test_schedulers_that_do_not_look_give_no_scores_as_reasons(run: Path, tmp_path: Path) -> None:
    chance = Reasons({"config": {"scheduler": {"name": "random", "interval": 20}}})
    row = {"is_key": False, "decision_score": 0.3, "lkd": 3}
    assert chance.sentence(row) == "no key: not drawn (one in 20 on average, 3 frames since the last key)"
    assert "drawn by chance" in chance.sentence(row | {"is_key": True}) and not chance.scores
    every = Reasons({"config": {"scheduler": {"name": "every"}}})
    assert every.sentence(row | {"is_key": True, "decision_score": 1.0, "lkd": 1}) == "key: every frame is"
    rows = why(run, tmp_path / "out", "0-2")
    assert [row["KAR"] for row in rows] == ["-", "0.100", "0.100"]  # before frame 0 nothing was decided


def why(run: Path, out: Path, frames: str) -> list[dict[str, str]]:
    assert look(run, out, show=("why",), frames=frames)[0] == 0
    with open(out / f"{VIDEO}-why.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_an_export_alone_prints_no_reasons(run: Path, tmp_path: Path) -> None:
    code, said = look(run, tmp_path / "out", export="png", frames="3")
    assert code == 0 and "no key" not in said and "1 mask in" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["png"]
    assert InspectConfig(run="x").show == ("why", "sheet")
    assert InspectConfig(run="x", export="png", show=("why",)).show == ("why",)


@pytest.mark.parametrize("legend", [True, False])
def test_a_legend_goes_below_pictures_and_clips(run: Path, tmp_path: Path, legend: bool) -> None:
    look(run, tmp_path, show=("frame", "sheet", "overlay"), frames="10", size=64, legend=legend)
    shown = np.asarray(Image.open(tmp_path / VIDEO / "00000010.png").convert("RGB"))
    sheet = np.asarray(Image.open(tmp_path / f"{VIDEO}-sheet.png").convert("RGB"))
    with av.open(str(tmp_path / f"{VIDEO}-10-10.mp4")) as container:
        (frame,) = container.decode(video=0)
    below = shown[HEIGHT:]
    assert bool(len(below)) == legend == (frame.height > HEIGHT)
    assert (below == PALETTE[1]).all(axis=2).any() == legend == (below == PALETTE[2]).all(axis=2).any()
    assert (sheet == PALETTE[2]).all(axis=2).any() == legend  # frame 10 shows class 1 alone


def test_a_frame_is_shown_beside_its_mask_and_a_sheet_shows_many(run: Path, tmp_path: Path) -> None:
    code, _ = look(run, tmp_path / "out", show=("frame", "sheet"), frames="4-16:6", size=64, legend=False)
    assert code == 0
    pictures = sorted((tmp_path / "out" / VIDEO).glob("*.png"))
    assert [path.name for path in pictures] == ["00000004.png", "00000010.png", "00000016.png"]
    picture = np.asarray(Image.open(pictures[1]).convert("RGB"))
    assert picture.shape == (HEIGHT, 2 * WIDTH + 4, 3)
    left, right = picture[:, :WIDTH], picture[:, -WIDTH:]
    inside = mask(10) == 1
    inside[:-1] &= mask(10)[1:] == 1
    assert abs(left.astype(int) - 100).max() < 12 and np.abs(right[inside].astype(int) - 100).max() > 50
    sheet = Image.open(tmp_path / "out" / f"{VIDEO}-sheet.png")
    assert sheet.size[0] > 600


def test_a_time_range_becomes_a_clip(run: Path, tmp_path: Path) -> None:
    code, _ = look(run, tmp_path / "out", show=("overlay",), from_s=0.5, to_s=1.2, size=64)
    (clip,) = (tmp_path / "out").glob("*.mp4")
    assert code == 0 and clip.name == f"{VIDEO}-5-11.mp4"
    with av.open(str(clip)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 7


def test_frames_that_tell_the_most_are_chosen_when_none_are_named(run: Path, tmp_path: Path) -> None:
    look(run, tmp_path / "out", show=("why",), limit=6)
    with open(tmp_path / "out" / f"{VIDEO}-why.csv", encoding="utf-8", newline="") as file:
        numbers = [int(row["frame"]) for row in csv.DictReader(file)]
    assert len(numbers) == 6 and {0, 10} <= set(numbers) and numbers == sorted(numbers)
    assert (
        sum(number % 10 >= 4 for number in numbers) >= 3
    )  # keys are 0 and 10: not only what is close to them


def test_a_source_that_is_gone_costs_the_pictures_only(run: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").unlink()
    every = ("why", "frame", "sheet", "overlay")
    code, said = look(run, tmp_path / "out", show=every, frames="3-5", legend=False)
    assert code == 3 and "shown without its frames" in said
    picture = np.asarray(Image.open(tmp_path / "out" / VIDEO / "00000003.png").convert("RGB"))
    assert picture.shape == (HEIGHT, WIDTH, 3) and not list((tmp_path / "out").glob("*.mp4"))


def test_an_unfinished_run_is_shown_as_far_as_it_goes(run: Path, tmp_path: Path) -> None:
    (run / "_SUCCESS").unlink()
    (run / "run.json").unlink()
    code, said = look(run, tmp_path / "out", show=("why",), frames="4")
    assert code == 0 and "not finished" in said and "no key: scheduler scores 2.8" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"show": ("whay",)}, "did you mean 'why'"),
        ({"frames": "3", "from_s": 1.0}, "give one of the two"),
        ({"from_s": 5.0, "to_s": 2.0}, "--from_s"),
        ({"size": 3}, "--size"),
        ({"output": "s3://bucket/x"}, "local folder"),
    ],
)
def test_what_cannot_be_asked_for_is_told_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        InspectConfig(run="x", **options)


def test_what_is_not_there_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no video 'clap'"):
        look(run, tmp_path / "out", video=("clap",))
    with pytest.raises(ConfigError, match="no frame of clip-0123456789"):
        look(run, tmp_path / "out", frames="900")
    with pytest.raises(StoreError, match="not a vidseg run"):
        look(tmp_path / "nothing", tmp_path / "out")


def test_a_run_of_another_schema_version_is_told(run: Path, tmp_path: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"schema_version": 0}))
    with pytest.raises(StoreError, match="schema version 0, this vidseg reads 1"):
        look(run, tmp_path / "out")
    (run / "run.json").unlink()
    (part,) = (run / "frames").rglob("*.parquet")
    table = pq.read_table(part)
    old = {**table.schema.metadata, b"vidseg.schema_version": b"0"}
    pq.write_table(table.replace_schema_metadata(old), part)
    with pytest.raises(StoreError, match="schema version 0"):
        look(run, tmp_path / "out", frames="3")


def test_a_run_whose_videos_were_all_put_aside_says_which(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "frames")
    (run / "videos" / f"{VIDEO}.parquet").unlink()
    text = io.StringIO()
    with pytest.raises(StoreError, match="holds no frame yet"):
        run_inspect(InspectConfig(run=str(run), output=str(tmp_path / "out")), Reporter("text", text))
    assert "quarantined: bad.mp4: crash" in text.getvalue()


def test_the_verb_is_there(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["inspect", "--run", str(run), "--output", str(tmp_path / "o"), "--frames", "1"])
    assert code == 0 and "no key" in capsys.readouterr().err
    assert open_run(run).complete
