"""Promise: numbered pictures in a folder are a video like any other: each frame is the picture that lies
there, has the number and the time of its place; what is missing, damaged or does not belong together is said.

What motivated it: DAVIS, Cityscapes and exports of cameras come as pictures, and had to be encoded first.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from tests.media import clips
from tests.media.decoding import by_units
from tests.s3_server import S3Bucket
from vidseg_core.media import DecodeChild, MediaError, decode_unit, probe
from vidseg_core.media.sequences import is_sequence, sequence, sequences_in
from vidseg_core.plan import plan_segments

HEIGHT, WIDTH = 64, 96


def encoded(number: int, kind: str = "PNG", height: int = HEIGHT, width: int = WIDTH) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(clips.picture(number, height, width)).save(sink, kind)
    return sink.getvalue()


def write(
    folder: Path, numbers: Sequence[int] = range(20), name: Callable[[int], str] = "{:05d}.png".format
) -> str:
    """A folder of frames and its address."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        kind = "PNG" if name(number).lower().endswith("png") else "JPEG"
        (folder / name(number)).write_bytes(encoded(number, kind))
    return f"{folder}/"


def reason_of(uri: str) -> str:
    with pytest.raises(MediaError) as caught:
        probe(uri)
    return f"{caught.value.reason}: {caught.value}"


@pytest.mark.parametrize("unit_frames", [1, 7, 256])
def test_frames_are_the_pictures_that_lie_there(unit_frames: int, tmp_path: Path) -> None:
    uri = write(tmp_path / "bear", range(100, 120))
    found = by_units(uri, index=(index := probe(uri)), unit_frames=unit_frames)
    assert (index.codec, index.frames, index.regular, index.damage) == ("png", 20, True, None)
    assert found.numbers == list(range(20)) and not found.errors
    assert found.seconds == pytest.approx([number / 25 for number in range(20)])
    assert index.duration_s == pytest.approx(0.8)
    for number, pixels_HW3 in enumerate(found.pixels):
        np.testing.assert_array_equal(pixels_HW3, clips.picture(100 + number, HEIGHT, WIDTH))


def test_jpeg_frames_are_what_pillow_sees(tmp_path: Path) -> None:
    uri = write(tmp_path / "take", range(15), "IMG_{:d}.JPG".format)
    found = by_units(uri)
    assert found.numbers == list(range(15)), "by number, not by name"
    for number, pixels_HW3 in enumerate(found.pixels):
        seen_HW3 = np.asarray(Image.open(tmp_path / "take" / f"IMG_{number}.JPG")).astype(int)
        assert np.abs(seen_HW3 - pixels_HW3).mean() < 12, "two ways from YCbCr to RGB"


def test_the_address_says_the_rate(tmp_path: Path) -> None:
    uri = write(tmp_path / "bear")
    for rate, last_s in (("12.5", 1.52), ("23.976", 19 / 23.976), ("1000", 0.019)):
        found = by_units(f"{uri}#fps={rate}")
        assert found.count == 20 and found.seconds[-1] == pytest.approx(last_s, rel=1e-5)
    for wrong in ("0", "0.0001", "1001"):
        assert "a sequence has 0.001 to 1000 frames a second" in reason_of(f"{uri}#fps={wrong}")


def test_numbers_that_are_not_there_are_said_and_leave_a_gap_in_time(tmp_path: Path) -> None:
    uri = write(tmp_path / "bear", [n for n in range(20) if n not in (3, 7, 8)])
    index, found = probe(uri), by_units(uri)
    assert index.damage == "3 frames are not in the folder (number 3, 7 to 8)"
    assert found.count == 17 and found.seconds[-1] == pytest.approx(19 / 25)


@pytest.mark.parametrize("numbers", [range(7959, 8000, 2), [1, 5, 6, 30, 77, 78], [1699999999, 1700000777]])
def test_numbers_in_even_steps_or_without_any_order_are_whole(numbers: Sequence[int], tmp_path: Path) -> None:
    uri = write(tmp_path / "clip", numbers, "0016E5_{:d}.png".format)
    index, found = probe(uri), by_units(uri)
    assert index.damage is None and index.frames == len(numbers)
    assert found.seconds == pytest.approx([place / 25 for place in range(len(numbers))])


@pytest.mark.parametrize("number", [0, 3, 15, 19])
@pytest.mark.parametrize(
    "broken",
    [b"", b"no picture", encoded(15)[:200], encoded(15, "JPEG")],
    ids=["empty", "text", "cut", "jpeg"],
)
def test_a_picture_that_is_damaged_costs_itself_and_is_counted(
    broken: bytes, number: int, tmp_path: Path
) -> None:
    uri = write(tmp_path / "bear")
    (tmp_path / "bear" / f"{number:05d}.png").write_bytes(broken)
    found = by_units(uri, index=(index := probe(uri)), unit_frames=20)
    assert set(range(20)) - set(found.numbers) <= {number}, "frames keep the numbers of their files"
    assert index.damage or found.errors or any(found.corrupt)
    for place, pixels_HW3 in zip(found.numbers, found.pixels, strict=True):
        assert place == number or np.array_equal(pixels_HW3, clips.picture(place, HEIGHT, WIDTH))


def test_pictures_of_different_sizes_are_no_video(tmp_path: Path) -> None:
    uri = write(tmp_path / "photos")
    (tmp_path / "photos" / "00012.png").write_bytes(encoded(12, "PNG", 32, 48))
    text = reason_of(uri)
    assert text.startswith("not_a_video") and "00012.png is 48x32, the first frame 96x64" in text


def test_a_picture_that_no_header_can_describe_is_too_large(tmp_path: Path) -> None:
    uri = write(tmp_path / "photos", range(5))
    os.truncate(tmp_path / "photos" / "00004.png", 5 << 30)
    assert reason_of(uri).startswith("too_large: ") and "00004.png has 4 GiB or more" in reason_of(uri)


def test_a_frame_that_changes_after_the_plan_is_not_decoded(tmp_path: Path) -> None:
    uri, rng = write(tmp_path / "bear"), np.random.default_rng(0)
    for path in (tmp_path / "bear").iterdir():  # more than FFmpeg reads at once
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path)
    index, listed = probe(uri), sequence(uri)
    unit = plan_segments(index, segment_frames=0, shard_frames=8)[0].units[0]
    stamp = f"{listed.size}:{listed.changed}"
    shards = decode_unit(
        unit.decode_unit(uri, index, height=HEIGHT, width=WIDTH, stamp=stamp), shard_frames=8
    )
    assert len(next(shards)) == 8
    (tmp_path / "bear" / "00018.png").unlink()
    with pytest.raises(MediaError) as caught:
        list(shards)
    assert caught.value.reason == "changed" and "00018.png" in str(caught.value)
    request = unit.decode_unit(uri, index, height=HEIGHT, width=WIDTH, stamp=stamp)
    with pytest.raises(MediaError, match="changed since the run listed it"):
        list(decode_unit(request, shard_frames=8))


def test_a_folder_is_listed_once_for_all_units_of_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unit listed it again, which takes as long as the folder is large."""
    uri, listings = write(tmp_path / "bear"), []
    listed, index = sequence(uri), probe(uri)
    plan = plan_segments(index, segment_frames=0, shard_frames=4)[0]

    def counting(uri: str) -> Any:
        listings.append(uri)
        return sequence(uri)

    monkeypatch.setattr("vidseg_core.media.sequence_source.sequence", counting)
    for stamp in (f"{listed.size}:{listed.changed}", "another"):
        unit = plan.units[0].decode_unit(uri, index, height=HEIGHT, width=WIDTH, stamp=stamp)
        for _ in range(2):
            with pytest.raises(MediaError) if stamp == "another" else nullcontext():
                list(decode_unit(unit, shard_frames=4))
    assert len(listings) == 2  # for another stamp it is looked at again, each time


def test_a_sequence_in_s3_gives_the_frames_of_the_local_one(s3: S3Bucket, tmp_path: Path) -> None:
    local = write(tmp_path / "bear", range(12))
    client = boto3.client("s3")
    for path in (tmp_path / "bear").iterdir():
        client.upload_file(str(path), s3.bucket, f"davis/bear/{path.name}")
    client.put_object(Bucket=s3.bucket, Key="davis/bear/deeper/00000.png", Body=b"of another folder")
    uri, expected = f"{s3.url}/davis/bear/", by_units(local)
    with DecodeChild() as child:
        index = child.probe(uri)
        (unit,) = plan_segments(index, segment_frames=0, shard_frames=8)[0].units
        shards = child.decode(unit.decode_unit(uri, index, height=HEIGHT, width=WIDTH), 8)
        pixels = [pixels_HW3.copy() for shard in shards for pixels_HW3 in shard.frames_THW3]
    assert len(pixels) == 12 and all(map(np.array_equal, pixels, expected.pixels))
    assert (
        reason_of(f"{s3.url}/none/").startswith("not_a_video") and sequence(uri).size == sequence(local).size
    )


# --- which pictures belong together -------------------------------------------------------------------------

CITY = [f"aachen_{take:06d}_{frame:06d}_leftImg8bit.png" for take in (0, 1) for frame in (18, 19, 20)]
STAMPED = [f"frame{n:03d}_{1699999990 + 13 * n}.jpg" for n in range(4)]
NAMES = {
    "a folder of frames": (
        ["00000.jpg", "00001.jpg", "notes.txt", ".hidden.png"],
        {"": ["00000.jpg", "00001.jpg"]},
    ),
    "several numbers, one varies": (["cam2_10.png", "cam2_9.png"], {"": ["cam2_9.png", "cam2_10.png"]}),
    "two sequences": (
        ["left_1.png", "left_2.png", "right_1.png"],
        {"left_*.png": ["left_1.png", "left_2.png"], "right_*.png": ["right_1.png"]},
    ),
    "a number that names the sequence": (
        CITY,
        {f"aachen_00000{take}_*_leftImg8bit.png": CITY[3 * take : 3 * take + 3] for take in (0, 1)},
    ),
    "a number and a time": (STAMPED, {"": STAMPED}),
    "no numbers": (["cat.jpg", "dog.jpg"], {}),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_say_what_belongs_together(what: str, tmp_path: Path) -> None:
    names, expected = NAMES[what]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    found = sequences_in(f"{tmp_path}/")
    assert {s.uri.removeprefix(f"{tmp_path}/"): [f.name for f in s.frames] for s in found} == expected
    assert all(is_sequence(s.uri) and sequence(s.uri) == s for s in found)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["1.jpg", "2.jpg", "1.png"],
            "frames of the same names as .jpg and .png; name one kind with .* [*].jpg",
        ),
        (["1.jpg", "2.jpg", "cover.jpg"], "pictures without a number beside frames .cover.jpg."),
        (["1.jpg", "01.jpg"], "two frames have one number .01.jpg and 1.jpg."),
    ],
)
def test_names_that_leave_it_open_are_refused(names: list[str], words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MediaError, match=words):
        sequences_in(f"{tmp_path}/")


def test_a_pattern_that_says_which_is_the_way_out(tmp_path: Path) -> None:
    for name in ("cover.jpg", "1.jpg", "2.jpg", "2.png"):
        (tmp_path / name).write_bytes(b"x")
    (found,) = sequences_in(f"{tmp_path}/", {"1.jpg", "2.jpg"})
    assert found.uri == f"{tmp_path}/*.jpg" and sequence(found.uri) == found
    with pytest.raises(MediaError, match="matches 1 of the 2 frames of this sequence; name it whole"):
        sequences_in(f"{tmp_path}/", {"1.jpg"})


def test_a_folder_of_several_is_no_address(tmp_path: Path) -> None:
    for name in CITY:
        (tmp_path / name).write_bytes(b"x")
    text = reason_of(f"{tmp_path}/")
    assert "2 sequences in one folder; name one of aachen_000000_*_leftImg8bit.png" in text


def test_names_that_are_not_utf8_are_read_too(tmp_path: Path) -> None:
    for number in range(2):
        with open(os.fsencode(tmp_path) + b"/caf\xe9_%d.png" % number, "wb") as file:
            file.write(encoded(number))
    assert by_units(f"{tmp_path}/").count == 2
