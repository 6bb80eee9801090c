"""Data sets in miniature, laid out as their publishers ship them, with pixels that tell where they come from.

Every frame is one colour that `colour_of(clip, number)` gives; every label image holds the ids asked for, in
columns of equal width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.store.builders import video_row
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import SceneClip, write_scene_video
from vidseg_core.engine import FrameResult
from vidseg_core.store import (
    FRAMES_SCHEMA,
    PSEUDO_SCHEMA,
    commit_part,
    encode_part,
    encode_videos,
    open_store,
    part_key,
)

HEIGHT, WIDTH = 12, 24


def colour_of(clip: str, number: int) -> tuple[int, int, int]:
    return sum(map(ord, clip)) % 256, number % 256, 77


def frame_of(clip: str, number: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.full((*size, 3), colour_of(clip, number), dtype=np.uint8)


def columns(ids: Sequence[object], size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """uint8 labels_HW (or colours_HW3) with `ids` from left to right."""
    row = np.repeat(np.array(ids, dtype=np.uint8), -(-size[1] // len(ids)), axis=0)[: size[1]]
    return np.stack([row] * size[0])


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def save_palette(path: Path, ids_HW: np.ndarray) -> Path:
    """A PNG with a palette of random colours: its indices are the labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids_HW, mode="P")
    image.putpalette(np.random.RandomState(0).randint(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path)
    return path


def cityscapes_frame(
    root: Path,
    split: str,
    city: str,
    sequence: int,
    frame: int,
    ids: Sequence[int] | None,
    kind: str = "labelIds",
) -> None:
    name = f"{city}_{sequence:06d}_{frame:06d}"
    image = frame_of(f"{city}_{sequence:06d}", frame)
    save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", image)
    if ids is not None:
        save(root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png", columns(ids))


def cityscapes_snippet(
    root: Path, split: str, city: str, sequence: int, first: int, frames: int = 30
) -> None:
    folder = root / "leftImg8bit_sequence" / split / city
    for frame in range(first, first + frames):
        clip = f"{city}_{sequence:06d}"
        save(folder / f"{clip}_{frame:06d}_leftImg8bit.png", frame_of(clip, frame, (2, 4)))


def labelled_video(folder: Path, name: str, frames: int = 8, **options: int) -> SceneClip:
    """A generated scene of 32x48 pixels as `NAME.mp4` with `NAME_labels/NNNNNN.png`."""
    config = SceneConfig(height=32, width=48, frames=frames, cuts=0, noise=0, **options)  # type: ignore[arg-type]
    return write_scene_video(folder / f"{name}.mp4", config, gop=4)


def run_over(
    output: Path,
    video: Path,
    labels: Sequence[np.ndarray],
    class_names: Sequence[str],
    *,
    first: int = 0,
    confident: bool = False,
) -> None:
    """A complete run with one part: `labels[i]` is the mask of frame `first + i` of `video`.

    `confident`: a run of pseudo-labels, with confidence i / 10.
    """
    schema = PSEUDO_SCHEMA if confident else FRAMES_SCHEMA
    store = open_store(output)
    rows = [
        FrameResult(
            frame_index=number,
            pts_s=number / 25,
            is_key=number % 3 == 0,
            key_frame_index=number - number % 3,
            decision_score=0.0,
            kar=0.3,
            lkd=number % 3,
            is_corrupt=number == first + len(labels) - 1,
            labels_HW=mask,
            confidence=(number - first) / 10,
            confident_share=float(number > 0),
        )
        for number, mask in enumerate(labels, first)
    ]
    part = encode_part("clip", rows, n_classes=len(class_names), schema=schema)
    commit_part(store, part_key("clip", 0, 0), part)
    video_facts = video_row(
        "clip",
        len(rows),
        uri=str(video),
        width=48,
        height=32,
        corrupt_frames=1,
        keys=1,
        aki=3.0,
        duration_s=1.0,
        cpu_s=1.0,
    )
    store.put("videos/clip.parquet", encode_videos([video_facts]))
    info = {"schema_version": 1, "segmenter": {"class_names": list(class_names)}}
    store.put("run.json", json.dumps(info).encode())
    store.put("_SUCCESS", b"")
