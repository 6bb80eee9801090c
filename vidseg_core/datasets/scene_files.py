"""Generated scenes on disk: an mp4 for each clip, its labels as one gray PNG for each frame, and a list of
clips.

Layout of a corpus: `<name>.mp4`, `<name>_labels/NNNNNN.png` (pixel value = class id, native size, decode
order) and `corpus.json`. Invariant: `corpus.json` is written last and names only finished clips; the video is
lossy but close, the labels are exact. One frame is in memory at a time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.datasets.scene_config import SceneConfig, corpus_configs
from vidseg_core.datasets.scenes import Scene
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.video_file import video_file

CORPUS_FILE = "corpus.json"
ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "10", "preset": "veryfast", "threads": "1"}),
    ("mpeg4", {"qmin": "2", "qmax": "2", "threads": "1"}),
)
"""Tried in this order; each visually lossless. An FFmpeg build may lack the first."""


@dataclass(frozen=True, kw_only=True)
class SceneClip:
    """One generated clip on disk."""

    name: str
    video: Path
    labels: Path
    """Folder of PNG files; see `read_labels`."""
    config: SceneConfig


def write_scene_video(
    path: str | Path, config: SceneConfig, *, labels: str | Path | None = None, gop: int = 50
) -> SceneClip:
    """Draw and encode one clip to the mp4 `path`, its labels to a folder (default: `<stem>_labels` beside
    it).

    `gop`: frames between container key frames at most. Raises ValueError for odd sides, which 4:2:0 cannot
    hold.
    """
    path = Path(path)
    labels = Path(labels) if labels is not None else path.with_name(f"{path.stem}_labels")
    if config.height % 2 or config.width % 2:
        raise ValueError(f"a scene video needs even sides, not {config.width}x{config.height}")
    make_folder(labels)
    make_folder(path.parent)
    encoder, options = _available_encoder()
    with video_file(path) as file:
        stream: Any = file.container.add_stream(encoder, rate=config.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = config.width, config.height, "yuv420p"
        stream.codec_context.gop_size = gop
        for item in Scene(config):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(item.frame_HW3, format="rgb24")))
            _write_png(labels / f"{item.index:06d}.png", item.labels_HW)
        file.mux(stream.encode(None))
    return SceneClip(name=path.stem, video=path, labels=labels, config=config)


def make_corpus(
    folder: str | Path,
    *,
    clips: int = 4,
    frames: int = 150,
    seed: int = 0,
    height: int = 240,
    width: int = 320,
    fps: int = 25,
) -> list[SceneClip]:
    """Write `clips` varied clips into `folder` and list them in `corpus.json`; equal arguments, equal corpus.

    What the clips are like: `corpus_configs`.
    """
    folder = Path(folder)
    configs = corpus_configs(clips, frames, seed, height, width, fps)
    made = [write_scene_video(folder / f"{name}.mp4", config) for name, config in configs.items()]
    _write_corpus_file(folder, made)
    return made


def open_corpus(folder: str | Path) -> list[SceneClip]:
    """The clips that `make_corpus` listed; FileNotFoundError if the folder holds no corpus."""
    folder = Path(folder)
    listed = json.loads((folder / CORPUS_FILE).read_text(encoding="utf-8"))
    return [
        SceneClip(
            name=clip["name"],
            video=folder / clip["video"],
            labels=folder / clip["labels"],
            config=SceneConfig(**clip["config"]),
        )
        for clip in listed["clips"]
    ]


def read_labels(folder: str | Path, index: int) -> np.ndarray:
    """uint8 labels_HW of frame `index` from a folder of `NNNNNN.png`; FileNotFoundError names the file."""
    path = Path(folder) / f"{index:06d}.png"
    if not path.is_file():
        raise FileNotFoundError(f"no labels for frame {index}: {path} is missing")
    labels_HW = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels_HW is None or labels_HW.ndim != 2 or labels_HW.dtype != np.uint8:
        raise ValueError(f"{path} is not an 8-bit PNG with one channel")
    return labels_HW


def _available_encoder() -> tuple[str, dict[str, str]]:
    for name, options in ENCODERS:
        if name in av.codecs_available:
            return name, options
    raise RuntimeError(f"this FFmpeg has none of the encoders {', '.join(name for name, _ in ENCODERS)}")


def _write_png(path: Path, labels_HW: np.ndarray) -> None:
    ok, data = cv2.imencode(".png", labels_HW, (cv2.IMWRITE_PNG_COMPRESSION, 4))
    if not ok:
        raise OSError(f"could not encode {path}")
    write_whole(path, data.tobytes(), sync=False)


def _write_corpus_file(folder: Path, clips: Sequence[SceneClip]) -> None:
    listed = [
        {
            "name": clip.name,
            "video": clip.video.relative_to(folder).as_posix(),
            "labels": clip.labels.relative_to(folder).as_posix(),
            "config": dataclasses.asdict(clip.config),
        }
        for clip in clips
    ]
    text = json.dumps({"class_names": SCENE_CLASSES, "clips": listed}, indent=1)
    write_whole(folder / CORPUS_FILE, (text + "\n").encode())
