"""Promise: video in PQ or HLG reaches the net as ordinary video would: what was BT.709 before it was put into
an HDR file comes out as it was, light beyond white is bent and not cut, and a note says what was done.

Why: nets have seen ordinary video only, and the code values of PQ and HLG look washed out when they are taken
for it.
"""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from tests.media.decoding import by_units
from tests.pipeline.clips import moving_disc
from tests.pipeline.conftest import small_config
from vidseg_core.config.segment import MediaConfig
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.of_run import Reading
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import iter_records
from vidseg_core.export.sources import Sources
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import decode_unit, probe
from vidseg_core.media.hdr import KNEE, WHITE, to_bt709
from vidseg_core.media.pictures import write_rgb
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.plan import plan_segments
from vidseg_core.store import open_run

TRC = {"pq": 16, "hlg": 18}
BT2020 = 9
BT2020_OF_BT709 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)
LUMA = np.array([0.2627, 0.6780, 0.0593])


def pq_of(light: np.ndarray) -> np.ndarray:
    """Signal of light in units of white (SMPTE ST 2084, equation 5.2)."""
    power = np.clip(light * WHITE / 10_000, 0, 1) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_of(light: np.ndarray) -> np.ndarray:
    """The same on a screen of 1000 cd/m2 (ITU-R BT.2100, table 5)."""
    shown = light * WHITE / 1000
    scene = shown * np.maximum(shown @ LUMA, 1e-9)[..., None] ** (-0.2 / 1.2)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


SIGNAL = {"pq": pq_of, "hlg": hlg_of}


def frame_of(light_HW3: np.ndarray, transfer: str) -> VideoFrame:
    """A frame of 10 bits of light in BT.2020, in units of white."""
    signal_HW3 = SIGNAL[transfer](light_HW3)
    height, width = signal_HW3.shape[:2]
    luma = signal_HW3 @ LUMA
    blue, red = (signal_HW3[..., 2] - luma) / 1.8814, (signal_HW3[..., 0] - luma) / 1.4746
    frame = VideoFrame(width, height, "yuv444p10le")
    codes = (64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red)
    for plane, values in zip(frame.planes, codes, strict=True):
        rows = np.zeros((height, plane.line_size // 2), np.uint16)
        rows[:, :width] = np.clip(values.round(), 0, 1023)
        plane.update(rows.tobytes())
    return tagged(frame, transfer)


def tagged(frame: VideoFrame, transfer: str) -> VideoFrame:
    frame.colorspace, frame.color_primaries, frame.color_range = BT2020, BT2020, 1
    frame.color_trc = TRC[transfer]
    return frame


def light_of(frame_HW3: np.ndarray) -> np.ndarray:
    """Light in BT.2020 of an ordinary picture, in units of white."""
    return (frame_HW3 / 255) ** 2.4 @ BT2020_OF_BT709.T


def write(path: Path, frames_THW3: np.ndarray, transfer: str) -> Path:
    """A lossless file of 10 bits of ordinary pictures."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames_THW3.shape[1:3], "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_range = BT2020, BT2020, 1
        context.color_trc = TRC[transfer]
        for number, frame_HW3 in enumerate(frames_THW3):
            frame = frame_of(light_of(frame_HW3), transfer).reformat(format="yuv420p10le")
            tagged(frame, transfer).pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def means(frame_HW3: np.ndarray) -> np.ndarray:
    return frame_HW3.reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_ordinary_video_comes_out_as_it_went_in(transfer: str) -> None:
    """All but the highlights, which the knee bends by 8 of 255, and the dark channel of bright colours, which
    ten bits hold badly."""
    noise_HW3 = np.random.default_rng(0).integers(8, 256, (48, 64, 3), dtype=np.uint8)
    out_HW3, raw_HW3 = np.empty_like(noise_HW3), np.empty_like(noise_HW3)
    frame = frame_of(light_of(noise_HW3), transfer)
    write_rgb(frame, 0, out_HW3, transfer)
    write_rgb(frame, 0, raw_HW3)
    below = noise_HW3 <= 230
    off = np.abs(out_HW3.astype(int) - noise_HW3)
    assert off[below].mean() < 0.7 and np.quantile(off, 0.99) <= 9
    assert np.all(np.abs(means(out_HW3) - means(noise_HW3)) < 1.5)
    assert np.any(np.abs(means(raw_HW3) - means(noise_HW3)) > 10), "the code values themselves are others"


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_light_beyond_white_is_bent_and_not_cut(transfer: str) -> None:
    ramp = np.linspace(0.01, 4, 64)
    frame = frame_of(np.repeat(ramp[None, :, None], 3, axis=2).repeat(16, axis=0), transfer)
    out_HW3 = np.empty((16, 64, 3), np.uint8)
    write_rgb(frame, 0, out_HW3, transfer)
    gray = out_HW3[8].astype(int)
    assert np.all(np.diff(gray, axis=0) >= -1) and np.ptp(gray, axis=1).max() <= 1
    at = [int(gray[np.argmin(np.abs(ramp - light)), 1]) for light in (KNEE, 1.0, 2.0, 4.0)]
    assert at[0] == pytest.approx(232, abs=3) and at[1] == pytest.approx(247, abs=2)
    assert at[1] < at[2] <= at[3] <= 255


def test_the_ends_of_the_range_are_black_and_white() -> None:
    for transfer in ("pq", "hlg"):
        ends = np.array([[[0, 0, 0], [65535, 65535, 65535]]], np.uint16)
        assert to_bt709(ends, transfer, wide=True).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_a_file_is_mapped_by_every_reader_unless_raw_is_wanted(transfer: str, tmp_path: Path) -> None:
    frames = moving_disc(2, 48, 64)
    path = write(tmp_path / "clip.mkv", frames, transfer)
    index = probe(str(path))
    assert index.transfer == transfer and index.note() == f"HDR ({transfer}), mapped to BT.709"
    mapped_HW3 = by_units(path, index=index, maps_hdr=True).pixels[1]
    assert np.all(np.abs(means(mapped_HW3) - means(frames[1])) < 2)  # a quarter of the chroma
    reader, raw_reader = ClipReader(), ClipReader(maps_hdr=False)
    np.testing.assert_array_equal(reader.frame(str(path), 1), mapped_HW3)
    ((unit,),) = (segment.units for segment in plan_segments(index, segment_frames=0, shard_frames=9))
    request = unit.decode_unit(str(path), index, height=48, width=64, maps_hdr=False)
    (shard,) = decode_unit(request, shard_frames=9)
    assert np.any(np.abs(means(shard.frames_THW3[1]) - means(frames[1])) > 5)
    np.testing.assert_array_equal(raw_reader.frame(str(path), 1), shard.frames_THW3[1])
    reader.close()
    raw_reader.close()


@pytest.mark.parametrize("hdr", ["map", "raw"])
def test_a_run_says_what_it_did(hdr: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", moving_disc(3, 48, 64), "pq")
    options = {"media": MediaConfig(hdr=hdr), "executor": "local", "workers": 1}
    text = io.StringIO()
    code = run_segment(small_config(path, tmp_path / "out", **options), Reporter("text", text))
    run = open_run(tmp_path / "out")
    (video,) = run.videos().to_pylist()
    what = "mapped to BT.709" if hdr == "map" else "left as it is"
    assert code == 0 and video["note"] == f"HDR (pq), {what}" and video["note"] in text.getvalue()
    reader = ClipReader(maps_hdr=hdr == "map")
    frame_HW3 = reader.frame(str(path), 1)
    reader.close()
    with closing(Sources(run)) as sources:  # what exports and inspections show is what the run saw
        np.testing.assert_array_equal(sources.frame(video["video_id"], 1, 64), frame_HW3)
    record = list(iter_records(open_dataset(f"tables:{run.path}"), "train"))[1]
    np.testing.assert_array_equal(record.frame_HW3, frame_HW3)
    reading = Reading.of(run)
    (_, first_HW3), (_, second_HW3), _ = source_frames(
        str(path), 64, maps_hdr=reading.maps_hdr, limits=reading.limits
    )
    assert first_HW3.shape == frame_HW3.shape
    np.testing.assert_array_equal(second_HW3, frame_HW3)
