"""Promise: colours can be told apart, a legend names them, and an overlay shows masks over their frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.store.builders import labels_of, put_parts, put_run
from vidseg_core.drawing import (
    PALETTE,
    Painter,
    export_overlay,
    legend_strip,
)
from vidseg_core.drawing import overlay as overlay_module
from vidseg_core.drawing.paint import KEY_RGB
from vidseg_core.drawing.palette import FIRST_RGB
from vidseg_core.store import Run, StoreError, open_run, open_store


@pytest.fixture
def run(tmp_path: Path) -> Run:
    put_run(open_store(tmp_path / "run"))
    return open_run(tmp_path / "run")


def _pictures(frames: int, height: int = 48, width: int = 80) -> list[tuple[int, np.ndarray]]:
    return [(i, np.full((height, width, 3), 4 * i % 200, np.uint8)) for i in range(frames)]


def _decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time or 0.0, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_the_palette_tells_neighbours_apart() -> None:
    assert PALETTE.shape == (256, 3)
    assert len(np.unique(PALETTE, axis=0)) == 256
    assert PALETTE[0].tolist() == [0, 0, 0]
    steps = np.abs(np.diff(PALETTE[:30].astype(int), axis=0)).max(axis=1)
    assert steps.min() > 20


def test_a_legend_names_what_it_has_room_for() -> None:
    names = ["background", "facial skin", "eyes"]
    strip = legend_strip(names, 400, unlabelled=True)
    assert strip.shape[1:] == (400, 3) and strip.shape[0] % 2 == 0
    for colour in (PALETTE[1], PALETTE[2], PALETTE[255]):
        assert (strip == colour).all(axis=2).sum() > 80
    assert legend_strip([], 400).shape[0] == 0 and legend_strip(names, 90).shape[0] > strip.shape[0]
    long = legend_strip([f"class number {n}" for n in range(150)], 640, most_rows=3)
    assert long.shape[0] == 64 and not (long == PALETTE[149]).all(axis=2).any()
    picture = np.zeros((20, 400, 3), np.uint8)
    assert (Painter(names).with_legend(picture)[:20] == picture).all()
    assert (legend_strip(["road", "car"], 400) == FIRST_RGB).all(axis=2).sum() > 80
    assert not (strip == FIRST_RGB).all(axis=2).any()


@pytest.mark.parametrize("encoders", [("libx264",), ("mpeg4",), ("no-such-encoder", "mpeg4")])
def test_an_overlay_shows_masks_and_marks_keys(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoders: tuple[str, ...]
) -> None:
    monkeypatch.setattr(overlay_module, "_ENCODERS", encoders)
    path = tmp_path / "a.mp4"
    assert export_overlay(run, "a", _pictures(30), path, Painter(opacity=1.0), legend=False) == 30
    frames = _decoded(path)
    assert [round(time * 25) for time, _ in frames] == list(range(30))
    key_HW3, other_HW3 = frames[12][1].astype(int), frames[13][1].astype(int)
    assert key_HW3.shape == (48, 80, 3)
    assert np.abs(key_HW3[1:3, 1:20] - KEY_RGB).mean() < 40 < np.abs(other_HW3[1:3, 1:20] - KEY_RGB).mean()
    labels_HW = np.repeat(np.repeat(labels_of(13, 1), 2, 0), 2, 1)
    picture_HW3 = dict(_pictures(30))[13]
    shown = np.where((labels_HW > 0)[..., None], PALETTE[labels_HW], picture_HW3).astype(int)
    assert np.abs(other_HW3[2:-2, 2:-2] - shown[2:-2, 2:-2]).mean() < 30
    assert np.abs(other_HW3[40:46, 2:20] - shown[40:46, 2:20]).mean() < 20


def test_an_overlay_beside_the_source_keeps_odd_sizes_and_leaves_out_frames_without_masks(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path / "run")
    put_parts(store, "v", [3])
    put_parts(store, "v", [3], segment=1, first=6)
    pictures = _pictures(9, height=47, width=81)
    path = tmp_path / "v.mp4"
    assert export_overlay(open_run(tmp_path / "run"), "v", pictures, path, layout="side") == 6
    frames = _decoded(path)
    assert len(frames) == 6
    assert frames[0][1].shape == (46, 160, 3)
    times = [time for time, _ in frames]
    assert times == sorted(set(times))


def test_an_overlay_of_a_later_part_begins_at_once(run: Run, tmp_path: Path) -> None:
    """Players showed black for as long as lies before the part."""
    assert export_overlay(run, "a", _pictures(30)[20:], tmp_path / "a.mp4") == 10
    times = [round(25 * time) for time, _ in _decoded(tmp_path / "a.mp4")]
    assert times == list(range(10))


def test_an_overlay_of_nothing_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no frames given"):
        export_overlay(run, "a", [], tmp_path / "a.mp4")
    with pytest.raises(StoreError, match="no frames of video nobody"):
        export_overlay(run, "nobody", _pictures(2), tmp_path / "a.mp4")


def test_an_ffmpeg_without_encoders_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_module, "_ENCODERS", ("no-such-encoder",))
    with pytest.raises(StoreError, match="none of the encoders no-such-encoder"):
        export_overlay(run, "a", _pictures(2), tmp_path / "a.mp4")


def test_wrong_options_of_an_overlay_are_named(run: Run, tmp_path: Path) -> None:
    layout: Any = "under"
    with pytest.raises(ValueError, match="layout"):
        export_overlay(run, "a", _pictures(2), tmp_path / "a.mp4", layout=layout)
    with pytest.raises(ValueError, match="opacity"):
        Painter(opacity=1.5)
