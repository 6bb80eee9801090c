"""Promise: each of the real files that broke some decoder somewhere gets its verdict: so many frames, this
size, or this reason; a damaged one keeps what can be decoded and says what is missing.

"Can be decoded" is what a plain decode gives, packet by packet. The table was made with FFmpeg as PyAV 18.1
bundles it. Files that are not at hand are left out; the damaged
ones made here at test time always run.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media import clips
from tests.media.decoding import by_units, plainly
from vidseg_core.media import MediaError, probe

VERDICTS: dict[str, tuple[int, int, int] | str] = {
    "decord_corrupted.mp4": (49, 1280, 720),
    "decord_flipping_a_pancake.mkv": (310, 426, 240),
    "decord_unordered.mov": (4, 50, 50),
    "decord_video_0.mov": (3, 568, 320),
    "decord_video_180.mov": (3, 568, 320),
    "decord_video_270.mov": (3, 320, 568),
    "decord_video_90.mov": (3, 320, 568),
    "derived_bitflips.mkv": (179, 512, 480),
    "derived_empty.mp4": "empty_file",
    "derived_interlaced_mpeg2.ts": (90, 512, 480),
    "derived_opengop_b3.mkv": (180, 512, 480),
    "derived_truncated.ts": (61, 512, 480),
    "derived_truncated_moov_front_or_missing.mp4": "corrupt_header",
    "derived_vfr.mp4": (99, 512, 480),
    "mmtracking_demo.mp4": (8, 1920, 1080),
    "opencv_Megamind.avi": (270, 720, 528),
    "opencv_Megamind_bugy.avi": (270, 720, 528),
    "opencv_tree.avi": (68, 320, 240),
    "torchcodec_av1_video.mkv": (125, 640, 360),
    "torchcodec_bt2020_10bit.mp4": (60, 320, 240),
    "torchcodec_bt601_full_range.mp4": (60, 320, 240),
    "torchcodec_bt601_limited_range.mp4": (60, 320, 240),
    "torchcodec_bt709_full_range.mp4": (30, 1280, 720),
    "torchcodec_discard_first_keyframe.mp4": (25, 64, 64),
    "torchcodec_h264_10bits.mp4": (30, 200, 200),
    "torchcodec_h265_10bits.mp4": (30, 200, 200),
    "torchcodec_h265_video.mp4": (10, 128, 128),
    "torchcodec_nasa_13013.mp4": (390, 480, 270),
    "torchcodec_nasa_13013_hdr.mp4": (325, 320, 180),
    "torchcodec_nasa_13013_rotated.mp4": (17, 270, 480),
    "torchcodec_test_non_zero_start.mp4": (12, 200, 112),
    "torchcodec_testsrc2.mp4": (60, 1280, 720),
    "torchcodec_testsrc2_12bit_hdr.mp4": (60, 320, 180),
    "torchcodec_testsrc2_444_10bit_hevc.mp4": (25, 321, 241),
    "torchcodec_testsrc2_444_12bit_hevc.mp4": (25, 321, 241),
    "torchcodec_testsrc2_444_8bit_hevc.mp4": (25, 321, 241),
    "torchcodec_testsrc2_av1_10bit.mp4": (25, 320, 240),
    "torchcodec_testsrc2_h265.mp4": (60, 1280, 720),
    "torchcodec_testsrc2_hdr.mp4": (60, 320, 180),
    "torchcodec_testsrc2_mpeg4.avi": (30, 1280, 720),
    "torchcodec_testsrc2_mpeg4.mp4": (1, 64, 64),
    "torchcodec_testsrc2_odd_height_444.mp4": (25, 320, 241),
    "torchcodec_testsrc2_odd_height_and_width_444.mp4": (25, 321, 241),
    "torchcodec_testsrc2_odd_height_and_width_444_10bit.mp4": (25, 321, 241),
    "torchcodec_testsrc2_odd_height_and_width_mpeg2.mp4": (10, 121, 81),
    "torchcodec_testsrc2_odd_height_and_width_vp9.mp4": (25, 321, 241),
    "torchcodec_testsrc2_odd_height_and_width_vp9_10bit.mp4": (25, 321, 241),
    "torchcodec_testsrc2_odd_height_vp9.mp4": (25, 320, 241),
    "torchcodec_testsrc2_odd_height_vp9_10bit.mp4": (25, 320, 241),
    "torchcodec_testsrc2_odd_width_444.mp4": (25, 321, 240),
    "torchcodec_testsrc2_odd_width_mpeg2.mp4": (10, 121, 80),
    "torchcodec_testsrc2_odd_width_vp9.mp4": (25, 321, 240),
    "torchcodec_testsrc2_odd_width_vp9_10bit.mp4": (25, 321, 240),
    "torchcodec_testsrc2_vp8.webm": (30, 1280, 720),
    "torchcodec_testsrc2_vp9.webm": (30, 1280, 720),
}
"""Frames that come out, display width, display height; or the reason why nothing does."""

DAMAGED = {"decord_corrupted.mp4", "derived_bitflips.mkv", "derived_truncated.ts"}
AT_HAND = [name for name in VERDICTS if (clips.DATA / "decoder" / name).exists()]


def check_verdict(path: Path, verdict: tuple[int, int, int] | str) -> None:
    if isinstance(verdict, str):
        with pytest.raises(MediaError) as caught:
            probe(str(path))
        assert caught.value.reason == verdict and str(path) in str(caught.value)
        return
    index = probe(str(path))
    found = by_units(path, index=index, unit_frames=256)
    assert (found.count, index.width, index.height) == verdict
    expected = plainly(path, index)
    assert np.all(np.diff(found.numbers) > 0)
    assert found.same_pixels(expected) and found.same_times(expected)
    if path.name not in DAMAGED:
        assert found.numbers == list(range(index.frames))
        assert len(index.key_indices) == 1 or by_units(path, index=index).same_pixels(found)
        assert index.damage is None and not found.errors and not any(found.corrupt)


def test_files_that_the_table_does_not_know_keep_the_invariants_or_have_a_reason() -> None:
    files = {path.name for path in (clips.DATA / "decoder").glob("*") if path.suffix != ".csv"}
    for name in sorted(files - set(VERDICTS)):
        path = str(clips.DATA / "decoder" / name)
        try:
            index = probe(path)
        except MediaError as error:
            assert path in str(error)
            continue
        found, expected = by_units(Path(path), index=index), plainly(Path(path), index)
        same = found.same_pixels(expected) and found.same_times(expected)
        assert same or found.errors or index.damage


@pytest.mark.parametrize("name", [*AT_HAND, "made here"])
def test_verdict(name: str, tmp_path: Path) -> None:
    if name == "made here":
        check_verdict(clips.make(tmp_path, "open_gop.mkv"), (60, 96, 64))
    else:
        check_verdict(clips.DATA / "decoder" / name, VERDICTS[name])


def test_damage_of_the_real_files_is_reported() -> None:
    for name in DAMAGED & set(AT_HAND):
        path = clips.DATA / "decoder" / name
        index = probe(str(path))
        found = by_units(path, index=index, size=32)
        assert found.errors or any(found.corrupt) or found.count < index.frames, name


CUT = {
    "front.mp4": dict(options=clips.X264, frames=120, container_options={"movflags": "faststart"}),
    "cut.mkv": dict(options=clips.X264, frames=120),
    "cut.avi": dict(codec="mpeg4", options={"g": "12"}, frames=120),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_cut_short_yields_what_it_can_and_says_so(name: str, tmp_path: Path) -> None:
    path = clips.write(tmp_path / name, **CUT[name])
    whole = path.read_bytes()
    expected = by_units(path)
    path.write_bytes(whole[: len(whole) * 6 // 10])
    index = probe(str(path))
    found = by_units(path, index=index)
    assert 40 < found.count < 90 and found.numbers == list(range(found.count))
    assert index.damage is not None
    intact = [number for number in found.numbers if not found.corrupt[number]]
    assert len(intact) >= found.count - 1
    for number in intact[:-1]:
        np.testing.assert_array_equal(found.pixels[number], expected.pixels[number])


def test_a_file_cut_before_its_header_is_a_corrupt_header(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "cut.mp4", options=clips.X264)
    path.write_bytes(path.read_bytes()[:3000])
    check_verdict(path, "corrupt_header")


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_lose_frames_but_neither_order_nor_the_process(seed: int, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "flips.mkv", options=clips.X264_OPEN)
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(1500, len(data), 12):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    index = probe(str(path))
    found = by_units(path, index=index)
    assert 0 < found.count <= index.frames
    expected = plainly(path, index)
    assert np.all(np.diff(found.numbers) > 0)
    assert found.same_pixels(expected) and found.same_times(expected)
    assert not expected.refused or found.errors
    again = by_units(path, index=probe(str(path)))
    assert again.numbers == found.numbers and again.same_pixels(found)


def overwrite_packet(path: Path, number: int) -> None:
    """Fills the bytes of one packet (counted in decode order) with ones."""
    with av.open(str(path)) as container:
        packet = next(islice(container.demux(video=0), number, None))
        place, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    assert place is not None
    data[place : place + size] = b"\xff" * size
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("number", [24, 26, 35])
def test_an_error_costs_the_rest_of_its_unit_only(number: int, tmp_path: Path) -> None:
    """The first packet of a unit is read by the unit before, too, whose last frames must not suffer."""
    path = clips.write(tmp_path / "hole.mp4", options=clips.X264, frames=72)
    expected, index = by_units(path), probe(str(path))
    assert index.key_indices.tolist() == [0, 12, 24, 36, 48, 60]
    overwrite_packet(path, number)
    found = by_units(path, index=index)
    assert set(range(72)) - set(range(24, 36)) <= set(found.numbers)
    assert found.count < 72 and found.errors
    for frame, pixels_HW3 in zip(found.numbers, found.pixels, strict=True):
        if not 24 <= frame < 36:
            np.testing.assert_array_equal(pixels_HW3, expected.pixels[frame])
