"""Promise: every frame of an intact video comes exactly once, in the order and with the time that a plain
decode gives it, and a unit decoded by seeking gives the very bytes that one run from the start gives.

What motivated it: open GOPs whose leading frames go missing after a seek, containers whose packet times
contradict the decoder (box.mp4 shows frame 4 second), key frames that are none (moving refresh), hidden
reference frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.media import clips
from tests.media.decoding import by_units, plainly
from vidseg_core.media import decode_unit, probe, working_size
from vidseg_core.plan import plan_segments

IRREGULAR = {"no_reordering_known.mp4", "elementary.h264", "elementary.hevc"}
"""Clips whose packet times do not give the frames."""
ONE_UNIT_ONLY = IRREGULAR | {
    "full_chroma.mp4",
    "interlaced.ts",
    "lossless.mkv",
    "moving_refresh.mkv",
    "mpeg4.avi",
    "mpeg4_b.avi",
    "odd_size.mkv",
    "open_gop.mkv",
    "open_gop.mp4",
    "open_gop.ts",
    "program_stream.mpg",
    "uneven.mkv",
}
"""Clips in which the bitstream proves no second start."""


@pytest.mark.parametrize("name", clips.INTACT)
def test_seeking_equals_one_run(name: str, tmp_path: Path) -> None:
    path = clips.make(tmp_path, name)
    index = probe(str(path))
    found, expected = by_units(path, index=index), plainly(path, index)
    assert found.numbers == list(range(index.frames)) == expected.numbers
    assert found.same_pixels(expected)
    assert not any(found.corrupt) and not found.errors and index.damage is None
    assert found.same_times(expected)
    assert name in IRREGULAR or np.all(np.diff(found.seconds) > 0)


@pytest.mark.parametrize("name", clips.INTACT)
def test_units_are_as_many_as_keys_allow(name: str, tmp_path: Path) -> None:
    index = probe(str(clips.make(tmp_path, name)))
    assert (len(index.key_indices) == 1) == (name in ONE_UNIT_ONLY)
    assert index.regular == (name not in IRREGULAR)
    assert index.key_indices[0] == 0 and np.all(np.diff(index.key_indices) > 0)


def test_lossless_frames_are_the_pictures_that_went_in(tmp_path: Path) -> None:
    path = clips.make(tmp_path, "lossless.mkv")
    for number, pixels_HW3 in enumerate(by_units(path).pixels):
        np.testing.assert_array_equal(pixels_HW3, clips.picture(number, 64, 96))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_applied_counter_clockwise(degrees: int, tmp_path: Path) -> None:
    upright = clips.write(tmp_path / "upright.mov", options=clips.X264, width=96, height=48, frames=3)
    turned = clips.write(
        tmp_path / "turned.mov", options=clips.X264, width=96, height=48, frames=3, rotation=degrees
    )
    index = probe(str(turned))
    assert (index.width, index.height) == ((96, 48) if degrees == 180 else (48, 96))
    assert index.rotation == degrees
    for plain, pixels in zip(by_units(upright).pixels, by_units(turned).pixels, strict=True):
        np.testing.assert_array_equal(np.rot90(plain, degrees // 90), pixels)


def test_a_change_of_resolution_changes_nothing_in_the_output_size(tmp_path: Path) -> None:
    small = clips.write(tmp_path / "small.ts", options=clips.X264_OPEN)
    large = clips.write(tmp_path / "large.ts", options=clips.X264_OPEN, width=160, height=96)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    index = probe(str(both))
    found = by_units(both, index=index)
    assert found.numbers == list(range(120))
    assert {pixels.shape for pixels in found.pixels} == {(64, 96, 3)}
    expected = plainly(both, index)
    assert found.same_pixels(expected) and found.same_times(expected)


def test_a_recording_that_begins_inside_a_gop_counts_what_can_be_decoded(tmp_path: Path) -> None:
    whole = clips.write(tmp_path / "whole.ts", options=clips.X264_OPEN).read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(whole[188 * 25 :])
    index = probe(str(path))
    found = by_units(path, index=index)
    assert 0 < index.frames < 60 and found.numbers == list(range(index.frames))
    assert found.same_pixels(plainly(path, index))


def test_a_stream_that_joins_in_the_middle_disturbs_nobody(tmp_path: Path) -> None:
    alone = clips.write(tmp_path / "alone.ts", options=clips.X264_OPEN)
    joined = clips.write(tmp_path / "joined.ts", options=clips.X264_OPEN, audio=True)
    both = tmp_path / "both.ts"
    for copies in (1, 8):
        both.write_bytes(alone.read_bytes() * copies + joined.read_bytes())
        index = probe(str(both))
        assert by_units(both, index=index).numbers == list(range(60 * (copies + 1)))


@pytest.mark.parametrize("shard_frames", [1, 5, 12, 64])
def test_shards_are_cut_and_skipped_as_planned(shard_frames: int, tmp_path: Path) -> None:
    path = clips.make(tmp_path, "open_gop.mkv")
    index = probe(str(path))
    expected = plainly(path, index)
    for unit in plan_segments(index, segment_frames=0, shard_frames=shard_frames, unit_frames=20)[0].units:
        request = unit.decode_unit(str(path), index, height=64, width=96)
        for skip in range(unit.shards + 1):
            shards = list(decode_unit(request, shard_frames=shard_frames, skip_shards=skip))
            assert len(shards) == unit.shards - skip
            first = unit.first_frame + skip * shard_frames
            numbers = [int(number) for shard in shards for number in shard.frame_index]
            assert numbers == list(range(first, unit.first_frame + unit.frames))
            assert all(len(shard) == shard_frames for shard in shards[:-1])
            for shard in shards:
                for number, pixels_HW3 in zip(shard.frame_index, shard.frames_THW3, strict=True):
                    np.testing.assert_array_equal(pixels_HW3, expected.pixels[number])


def test_a_unit_does_not_depend_on_the_size_of_its_shards(tmp_path: Path) -> None:
    path = clips.make(tmp_path, "b_frames.mp4")
    assert by_units(path, shard_frames=3).same_pixels(by_units(path, shard_frames=50))


@pytest.mark.parametrize(
    ("width", "height", "spec", "expected"),
    [
        (1920, 1080, 512, (288, 512)),
        (1080, 1920, "512", (512, 288)),
        (97, 63, 512, (64, 96)),
        (4, 4000, 512, (512, 8)),
        (1920, 1080, "480x640", (480, 640)),
    ],
)
def test_working_size(width: int, height: int, spec: int | str, expected: tuple[int, int]) -> None:
    assert working_size(width, height, spec) == expected


@pytest.mark.parametrize("spec", ["", "0", "-5", "ax5", "5x", "1x2x3", "5.5", "²"])
def test_working_size_refuses_nonsense(spec: str) -> None:
    with pytest.raises(ValueError, match="working size"):
        working_size(640, 480, spec)
