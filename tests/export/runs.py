"""A finished run of two small videos that can be read, made without a net."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.store.builders import video_row
from vidseg_core.config.export import ExportConfig
from vidseg_core.engine import FrameResult
from vidseg_core.export.export_job import run_export
from vidseg_core.kit.progress import Reporter
from vidseg_core.store import encode_part, encode_videos, open_store, part_key

FRAMES, HEIGHT, WIDTH = 6, 48, 64
CLASSES = ["background", "person", "thing: a"]
VIDEOS = ("clip-0123456789", "other-abcdef0123")


def labels(video_id: str, number: int) -> np.ndarray:
    """A ring that grows, and from the third frame on a bar of two pieces."""
    labels_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels_HW[5 : 25 + number, 4:30] = 1
    labels_HW[12:18, 10 : 14 + number] = 0
    if number > 1:
        labels_HW[30:34, 34:60] = 2
        labels_HW[30:34, 40 : 42 + len(video_id) % 3] = 0
    return labels_HW


def write_video(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def put_video(folder: Path, video_id: str, source: Path | str) -> None:
    store = open_store(folder)
    rows = [
        FrameResult(
            frame_index=number,
            pts_s=number / 10,
            is_key=number % 3 == 0,
            key_frame_index=number // 3 * 3,
            decision_score=1.0,
            kar=0.3,
            lkd=number % 3,
            is_corrupt=False,
            labels_HW=labels(video_id, number),
        )
        for number in range(FRAMES)
    ]
    store.put(str(part_key(video_id, 0, 0)), encode_part(video_id, rows, n_classes=3))
    row: dict[str, Any] = video_row(
        video_id,
        FRAMES,
        uri=str(source),
        codec="mpeg4",
        width=WIDTH,
        height=HEIGHT,
        keys=2,
        aki=3.0,
        duration_s=FRAMES / 10,
        cpu_s=1.0,
    )
    store.put(f"videos/{video_id}.parquet", encode_videos([row]))


def put_run(place: Path) -> Path:
    """A run of two videos, whose sources are `films/clip.mp4` and `films/other.mp4`; its folder."""
    folder = place / "run"
    (place / "films").mkdir()
    for video_id in VIDEOS:
        source = place / "films" / f"{video_id.partition('-')[0]}.mp4"
        write_video(source)
        put_video(folder, video_id, source)
    info = {"schema_version": 1, "segmenter": {"name": "plain", "class_names": CLASSES}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "_SUCCESS").touch()
    return folder


def export(run: Path, out: Path, form: Any, **options: Any) -> tuple[int, str]:
    """Exit code, and what was said."""
    text = io.StringIO()
    config = ExportConfig(run=str(run), output=str(out), format=form, **options)
    return run_export(config, Reporter("text", text)), text.getvalue()
