"""Promise: a corpus on disk holds what the generator drew: labels exactly, video closely, in the same frame
order."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import make_corpus, open_corpus, read_labels, write_scene_video
from vidseg_core.datasets.scenes import Scene

CONFIG = SceneConfig(height=96, width=128, frames=24, seed=5, fps=24)


def test_video_and_labels_are_the_scene(tmp_path: Path) -> None:
    clip = write_scene_video(tmp_path / "deep" / "a.mp4", CONFIG, gop=10)
    with av.open(str(clip.video)) as container:
        assert container.streams.video[0].average_rate == 24
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(clip.video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(decoded) == len(packets) == 24
    assert sum(packet.is_keyframe for packet in packets) >= 3
    for item, seen in zip(Scene(CONFIG), decoded, strict=True):
        assert np.array_equal(read_labels(clip.labels, item.index), item.labels_HW)
        assert np.abs(seen.astype(int) - item.frame_HW3).mean() < 8


def test_equal_arguments_make_equal_bytes(tmp_path: Path) -> None:
    first, second = (write_scene_video(tmp_path / name / "a.mp4", CONFIG) for name in ("x", "y"))
    assert first.video.read_bytes() == second.video.read_bytes()


def test_a_corpus_can_be_opened_again_and_moved(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "corpus", clips=3, frames=4, height=64, width=64, seed=9)
    assert open_corpus(tmp_path / "corpus") == made
    assert len({clip.config.motion for clip in made}) == 3
    assert all(clip.video.is_file() and len(list(clip.labels.glob("*.png"))) == 4 for clip in made)
    moved = (tmp_path / "corpus").rename(tmp_path / "elsewhere")
    assert read_labels(open_corpus(moved)[1].labels, 3).shape == (64, 64)
    assert json.loads((moved / "corpus.json").read_text())["class_names"][0] == "background"


def test_what_is_missing_or_impossible_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even sides, not 47x33"):
        write_scene_video(tmp_path / "a.mp4", SceneConfig(height=33, width=47))
    with pytest.raises(FileNotFoundError, match=r"000007\.png is missing"):
        read_labels(tmp_path, 7)
    with pytest.raises(FileNotFoundError):
        open_corpus(tmp_path)
    with pytest.raises(ValueError, match="clips"):
        make_corpus(tmp_path, clips=0)
