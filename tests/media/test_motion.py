"""Promise: a frame's motion leads to a frame that was delivered before it, whatever is left out between the
two and however decoding is cut into shards; where the stream does not say, nothing is said.

Why: FFmpeg hands out vectors without saying to which picture they lead. A chain that takes the wrong one, or
that jumps over a frame that was left out, drifts away from what is seen, and no table shows it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.media.panning import SPEED, encoded, panned
from vidseg_core.media import Motion, VideoIndex, decode_unit, probe, without_motion
from vidseg_core.media.child import shard_head
from vidseg_core.media.motion import CODECS, UNKNOWN
from vidseg_core.media.pictures import Layout
from vidseg_core.plan import plan_segments

FRAMES = 20


def motions(
    path: Path, kept: list[int] | None = None, *, motion: bool = True, shard_frames: int = 7, skip: int = 0
) -> dict[int, Motion | None]:
    """What is said of each frame that is delivered, by number."""
    index = probe(str(path))
    frames = None if kept is None else np.array(kept)
    (segment,) = plan_segments(index, segment_frames=0, shard_frames=shard_frames, frames=frames)
    found: dict[int, Motion | None] = {}
    for planned in segment.units:
        unit = planned.decode_unit(str(path), index, height=64, width=96, motion=motion)
        for shard in decode_unit(unit, shard_frames=shard_frames, skip_shards=skip):
            numbers = shard.frame_index.tolist()
            found |= {number: shard.pictures[t].motion() for t, number in enumerate(numbers)}
    return found


def usual(motion: Motion | None) -> tuple[float, float]:
    """The median vector, pixels."""
    assert motion is not None and motion.cells_hw2 is not None
    known_n2 = motion.cells_hw2[motion.cells_hw2[..., 0] != UNKNOWN]
    u, v = np.median(known_n2, axis=0) / 4
    return float(u), float(v)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """P pictures, B pictures that others refer to, and B pictures that none does."""
    path = tmp_path_factory.mktemp("clips") / "pyramid.mp4"
    return encoded(path, panned(FRAMES), bframes=3, x264="scenecut=0:ref=2:b-pyramid=normal:b-adapt=0")


@pytest.mark.parametrize(("codec", "bframes"), [("libx264", 0), ("mpeg4", 0), ("libx264", 3), ("mpeg4", 2)])
def test_vectors_lead_to_the_frame_referred_to(tmp_path: Path, codec: str, bframes: int) -> None:
    found = motions(encoded(tmp_path / "clip.mp4", panned(FRAMES), codec, bframes=bframes))
    said = {number: motion for number, motion in found.items() if motion is not None and motion.since}
    assert len(said) >= FRAMES // (bframes + 1) - 1
    for motion in said.values():
        assert np.allclose(usual(motion), (motion.since * SPEED[0], motion.since * SPEED[1]), atol=0.5)


def test_b_pictures_refer_as_their_kind_does(pyramid: Path) -> None:
    found = motions(pyramid)
    assert [motion.since for motion in list(found.values())[:9] if motion] == [0, 1, 2, 1, 4, 1, 2, 1, 4]
    assert [motion.is_reference for motion in list(found.values())[1:5] if motion] == [
        False,
        True,
        False,
        True,
    ]
    oldest = {number: number - motion.oldest for number, motion in found.items() if motion}
    for number, motion in found.items():
        later = [n - m.since for n, m in found.items() if m and m.since and n > number]
        assert motion is not None and min(later, default=number) >= oldest[number]


@pytest.mark.parametrize("kept", [list(range(0, FRAMES, 3)), [0, 1, 5, 7, 11, 12, 19], [4, 8, 9, 17]])
def test_vectors_lead_over_frames_that_are_left_out(pyramid: Path, kept: list[int]) -> None:
    found = motions(pyramid, kept)
    assert list(found) == kept
    for number, motion in list(found.items())[1:]:
        assert motion is not None and motion.since and number - motion.since in kept
        assert np.allclose(usual(motion), (motion.since * SPEED[0], motion.since * SPEED[1]), atol=1.0)


def test_no_motion_is_reckoned_over_a_pause(tmp_path: Path) -> None:
    """Motion to the picture after a B picture, taken to go on as evenly for ten seconds before it, led a
    thousand pixels away, or anywhere: it did not fit into its numbers."""
    times = [number + 2500 * (number > 9) for number in range(FRAMES)]
    x264 = "scenecut=0:ref=1:b-adapt=0:weightb=0"
    found = motions(encoded(tmp_path / "clip.mp4", panned(FRAMES), bframes=3, x264=x264, times=times))
    for motion in found.values():
        if motion is not None and motion.cells_hw2 is not None:
            known_n2 = motion.cells_hw2[motion.cells_hw2[..., 0] != UNKNOWN]
            assert np.abs(known_n2).max() < 4 * 8 * max(SPEED) * motion.since


def test_shards_and_where_decoding_is_taken_up_change_nothing(pyramid: Path) -> None:
    kept = list(range(1, FRAMES, 2))
    for wanted in (None, kept):
        whole = motions(pyramid, wanted, shard_frames=20)
        resumed = motions(pyramid, wanted, shard_frames=3, skip=2)
        assert len(resumed) == len(whole) - 6
        for number, motion in resumed.items():
            before = whole[number]
            assert motion is not None and before is not None and motion.to_bytes() == before.to_bytes()


def test_after_an_intra_picture_nothing_leads_back(tmp_path: Path) -> None:
    found = motions(encoded(tmp_path / "clip.mp4", panned(FRAMES), gop=8))
    assert [number for number, motion in found.items() if motion and not motion.since] == [0, 8, 16]
    assert all(motion.is_reference for motion in found.values() if motion)


def test_a_still_scene_is_still(tmp_path: Path) -> None:
    found = motions(encoded(tmp_path / "clip.mp4", panned(FRAMES, speed=(0, 0)), bframes=2))
    assert all(motion.is_still for motion in list(found.values())[1:] if motion)


@pytest.mark.parametrize("crop", ["0,16,0,0", "64,0,0,0"])
def test_a_picture_whose_corner_is_cut_off_says_nothing(tmp_path: Path, crop: str) -> None:
    """Vectors count from the corner that is coded: what moved lay 16 rows too low."""
    pictures = panned(4, 96, 192)
    assert set(motions(encoded(tmp_path / "cut.mp4", pictures, x264=f"crop-rect={crop}")).values()) == {None}
    found = motions(encoded(tmp_path / "clip.mp4", pictures, x264="ref=1:crop-rect=0,0,16,8"))
    assert all(motion is not None and motion.since for motion in list(found.values())[1:])


def test_other_codecs_say_nothing(tmp_path: Path) -> None:
    path = encoded(tmp_path / "clip.webm", panned(6), "libvpx-vp9")
    assert set(motions(path).values()) == {None}
    said = without_motion(probe(str(path)).codec, is_regular=True)
    assert said is not None and said.endswith("flow by DIS")
    assert not any(without_motion(codec, is_regular=True) for codec in CODECS)


def test_who_does_not_ask_gets_pictures_as_ever(pyramid: Path) -> None:
    index: VideoIndex = probe(str(pyramid))
    (segment,) = plan_segments(index, segment_frames=0, shard_frames=32)
    plain, asked = (
        next(
            decode_unit(
                segment.units[0].decode_unit(str(pyramid), index, height=64, width=96, motion=motion),
                shard_frames=32,
            )
        )
        for motion in (False, True)
    )
    assert all(plain.pictures[t].motion() is None for t in range(FRAMES))
    assert all(layout.motion == 0 for layout in plain.pictures.layouts)
    np.testing.assert_array_equal(plain.frames_THW3, asked.frames_THW3)
    assert shard_head(plain).keys() == shard_head(asked).keys()


@pytest.mark.parametrize("data", [b"", b"\1" * 24, b"\1" * 40, bytes(23)])
def test_nonsense_is_no_motion(data: bytes) -> None:
    assert Motion.from_bytes(data) is None
    with pytest.raises(ValueError, match="no picture layout"):
        Layout.from_list([*Layout("rgb24", 8, 8).to_list()[:-1], -1])
