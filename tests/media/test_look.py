"""Promise: a net sees people upright whatever a display matrix says; masks of the source's size lie on the
picture as players show it: turned, mirrored, with pixels that need not be square; and a note says so.

Why: a mirrored matrix was taken for half a turn, and masks of anamorphic video had the size of its samples.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.media.decoding import by_units
from tests.pipeline.conftest import small_config
from vidseg_core.calibration.audit import Place, compare
from vidseg_core.config.segment import MaskConfig, SchedulerConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import iter_records
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import MediaError, probe
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.store import open_run

HEIGHT, WIDTH = 48, 64
TURNS = [
    (degrees, hflip, vflip)
    for degrees in (0, 90, 180, -90)
    for hflip in (False, True)
    for vflip in (False, True)
]


def corner() -> np.ndarray:
    """frame_HW3: gray, a red disc (class 1 of `plain`) at the upper left."""
    picture_HW3 = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    picture_HW3[4:20, 6:26] = (220, 30, 30)
    return picture_HW3


def write(
    path: Path, *, turn: tuple[int, bool, bool] = (0, False, False), aspect: Fraction = Fraction(1)
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if turn != (0, False, False):
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(corner(), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown_by_matrix(path: Path, coded_HW: np.ndarray) -> np.ndarray:
    """The picture as the file's display matrix moves its pixels, by definition."""
    with av.open(str(path)) as container:
        data = next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
    a, b, _, c, d = (
        (np.frombuffer(bytes(data), np.int32)[:5] / 65536).round().astype(int) if data else (1, 0, 0, 0, 1)
    )
    rows, columns = np.mgrid[: coded_HW.shape[0], : coded_HW.shape[1]]
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    out_HW = np.empty((y.max() + 1, x.max() + 1), coded_HW.dtype)
    out_HW[y, x] = coded_HW
    return out_HW


@pytest.mark.parametrize("turn", TURNS)
def test_turning_and_mirroring_are_what_the_matrix_says(turn: tuple[int, bool, bool], tmp_path: Path) -> None:
    path = write(tmp_path / "turned.mov", turn=turn)
    index = probe(str(path))
    coded = by_units(write(tmp_path / "plain.mov")).pixels[0]
    seen = by_units(path, index=index).pixels[0]
    np.testing.assert_array_equal(seen, np.rot90(coded, index.rotation // 90))
    shown_HW3 = seen[:, ::-1] if index.mirrored else seen
    np.testing.assert_array_equal(shown_HW3[..., 0], shown_by_matrix(path, coded[..., 0]))
    assert index.mirrored == (turn[1] != turn[2])
    _, with_reader = next(source_frames(str(path), 64, as_shown=True))
    np.testing.assert_array_equal(with_reader, shown_HW3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_with_exif_are_turned_as_it_says(orientation: int, tmp_path: Path) -> None:
    """FFmpeg hands EXIF on as side data of a kind that PyAV does not know: the decode process died of it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(3):
        Image.fromarray(corner()).save(tmp_path / f"{number}.jpg", quality=95, exif=exif)
    index = probe(uri := f"{tmp_path}/")
    seen_HW3 = by_units(uri, index=index).pixels[0]
    shown_HW3 = seen_HW3[:, ::-1] if index.mirrored else seen_HW3
    expected_HW3 = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "0.jpg")))
    assert shown_HW3.shape == expected_HW3.shape == (*index.shown, 3)
    assert np.mean((shown_HW3[..., 0] > 165) == (expected_HW3[..., 0] > 165)) > 0.98


@pytest.mark.parametrize("endian", ["<", ">"])
def test_pictures_that_are_to_be_turned_otherwise_than_the_first_are_no_video(
    endian: str, tmp_path: Path
) -> None:
    """All were turned as the first one: from the first picture of a portrait on, people lay on their side."""
    for number, orientation in enumerate([1, 1, 6]):
        exif = Image.Exif()
        exif.endian, exif[0x0112] = endian, orientation
        Image.fromarray(corner()).save(tmp_path / f"{number}.jpg", exif=exif)
    with pytest.raises(MediaError, match=r"turned: 2.jpg has EXIF orientation 6, the first frame 1"):
        by_units(f"{tmp_path}/", index=probe(f"{tmp_path}/"))


@pytest.mark.parametrize(
    ("aspect", "turn", "shown"),
    [
        (Fraction(4, 3), (0, False, False), (48, 85)),
        (Fraction(1, 2), (0, False, False), (48, 32)),
        (Fraction(2), (90, False, False), (128, 48)),
        (Fraction(1, 255), (0, False, False), (48, 64)),
    ],
)
def test_pixels_need_not_be_square(
    aspect: Fraction, turn: tuple[int, bool, bool], shown: tuple[int, int], tmp_path: Path
) -> None:
    index = probe(str(write(tmp_path / "wide.mov", aspect=aspect, turn=turn)))
    assert index.shown == shown
    assert (index.note() is None) == (shown == (index.height, index.width))


@pytest.mark.parametrize("size", ["working", "source"])
def test_masks_lie_on_what_is_shown_and_a_note_says_so(size: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mov", turn=(90, True, False), aspect=Fraction(3, 2))
    options = {"masks": MaskConfig(size=size), "executor": "local", "workers": 1}
    text = io.StringIO()
    code = run_segment(small_config(path, tmp_path / "out", **options), Reporter("text", text))
    run = open_run(tmp_path / "out")
    (video,) = run.videos().to_pylist()
    assert code == 0 and video["note"] == "its pixels are not square: shown at 48x96; shown mirrored"
    assert video["note"] in text.getvalue() and (video["height"], video["width"]) == (64, 48)
    mask_HW = run.mask(video["video_id"], 1)
    assert mask_HW.shape == ((96, 48) if size == "source" else (64, 48))
    coded_HW = corner()[..., 0] == 220
    expected_HW = shown_by_matrix(path, coded_HW)
    expected_HW = expected_HW.repeat(3, axis=0)[::2] if size == "source" else expected_HW[:, ::-1]
    assert np.mean((mask_HW == 1) == expected_HW) > 0.97
    for name in ("_SUCCESS", "run.json"):
        (tmp_path / "out" / name).unlink()
    assert open_run(tmp_path / "out").masks_as_shown == (size == "source"), (
        "also of a run that is not finished"
    )


def test_labels_of_a_run_lie_on_the_frames_that_are_read_with_them(tmp_path: Path) -> None:
    """A net that learns from a run of mirrored video learned from mirror images."""
    path = write(tmp_path / "clip.mov", turn=(0, True, False), aspect=Fraction(3, 2))
    options = {"masks": MaskConfig(size="source"), "executor": "local", "workers": 1}
    run_segment(small_config(path, tmp_path / "out", **options), Reporter("text", io.StringIO()))
    for record in iter_records(open_dataset(f"tables:{tmp_path}/out"), "train"):
        assert record.labels_HW is not None
        red_HW = record.frame_HW3[..., 0] > 165
        assert np.mean((record.labels_HW == 1) == red_HW) > 0.97


@pytest.mark.parametrize("turn", [(0, True, False), (90, False, False)])
def test_an_audit_compares_masks_as_they_lie_there(turn: tuple[int, bool, bool], tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mov", turn=turn, aspect=Fraction(3, 2))
    every = SchedulerConfig(name="every")
    options = {"masks": MaskConfig(size="source"), "scheduler": every, "executor": "local", "workers": 1}
    config = small_config(path, tmp_path / "out", **options)
    run_segment(config, Reporter("text", io.StringIO()))
    (video,) = open_run(tmp_path / "out").videos().to_pylist()
    place = Place(video_id=video["video_id"], uri=video["uri"], frames=(0, 1, 2))
    assert compare(config, str(tmp_path / "out"), [place]) == [[1.0, 1.0, 1.0]], "every frame is a key"
