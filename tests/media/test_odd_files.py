"""Promise: whatever the container says, the frames of a file, their times and their pixels are those of a
plain decode, or the difference is reported.

What motivated it: recordings joined so that times step back lost half of their frames; decoding began where a
palette, or the picture before, was missing, because a container called every frame a key; a cover was taken
for the video. All of that with the status `ok`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.media import clips
from tests.media.decoding import Frames, by_units, plainly
from tests.media.odd_files import CODECS, JOINABLE, Recipe, make
from vidseg_core.media import MediaError, VideoIndex, probe

FAULTS = clips.DATA / "faults"


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any file that `odd_files` can write."""
    codec = draw(st.sampled_from(sorted(CODECS)))
    container = draw(st.sampled_from(CODECS[codec].containers))
    several = container in ("mkv", "mp4", "mov", "avi") and codec != "mjpeg"
    rates = (25, 30) if codec.startswith("mpeg") else (25, 30, 10)
    return Recipe(
        codec=codec,
        container=container,
        gop=draw(st.sampled_from((1, 2, 5, 8, 12, 30))),
        b_frames=draw(st.integers(0, 3)),
        open_gop=draw(st.booleans()),
        frames=draw(st.sampled_from((3, 13, 30))),
        start=draw(st.sampled_from((0, 7, 1000))),
        joined_at=draw(st.sampled_from((None, 0, 5, 20, 41, 3000))) if container in JOINABLE else None,
        joined_rate=draw(st.sampled_from(rates)),
        joined_width=draw(st.sampled_from((96, 128))),
        all_keys=draw(st.booleans()),
        still=draw(st.sampled_from(("", "before", "after"))) if several else "",
        sound=draw(st.booleans()) and container in ("mp4", "mkv", "ts", "flv", "mov", "avi"),
        flips=draw(st.sampled_from((0, 0, 0, 3, 8))),
        cut=draw(st.sampled_from((1.0, 1.0, 1.0, 0.6))),
    )


def check(path: Path, recipe: Recipe | None = None) -> tuple[Frames, VideoIndex]:
    """The promise, for one file cut into as many units as can be."""
    index = probe(str(path))
    found, expected = by_units(path, index=index), plainly(path, index)
    reported = bool(index.damage or found.errors or any(found.corrupt))
    same = found.count == expected.count and found.same_times(expected)
    if recipe is None or not recipe.flips or len(index.key_indices) == 1:
        same &= found.same_pixels(expected)  # in a picture damaged unnoticed what was decoded before may show
    assert same or reported
    if recipe is not None and recipe.is_sound:
        assert same and not reported
    return found, index


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(recipe=recipes())
def test_frames_are_those_of_a_plain_decode(recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder), recipe)
        try:
            check(path, recipe)
        except MediaError:
            assert not recipe.is_sound


TS = Recipe(codec="h264", container="ts", frames=50)
FOUND: dict[str, tuple[Recipe, int]] = {
    "times step back": (replace(TS, start=1000, joined_at=0), 100),
    "times overlap": (replace(TS, joined_at=30), 100),
    "a flash video is reset": (replace(TS, container="flv", start=700, joined_at=0), 100),
    "another rate": (replace(TS, joined_at=50, joined_rate=30), 100),
    "a palette in the first packet": (Recipe(codec="raw_pal8", container="avi"), 30),
    "a palette in the first packet, mov": (Recipe(codec="raw_pal8", container="mov"), 30),
    "a palette and frames that build on others": (Recipe(codec="smc", container="mov"), 30),
    "gray": (Recipe(codec="qtrle_gray", container="mov"), 30),
    "no list of keys": (Recipe(codec="mpeg4", container="mp4", gop=30, all_keys=True), 30),
    "every entry of the index a key": (Recipe(codec="msvideo1", container="avi", gop=30, all_keys=True), 30),
    "h264 that lies": (Recipe(codec="h264", container="mp4", gop=30, all_keys=True), 30),
}


@pytest.mark.parametrize("what", FOUND)
def test_a_file_as_it_was_found(what: str, tmp_path: Path) -> None:
    recipe, frames = FOUND[what]
    found, index = check(make(tmp_path, recipe))
    assert found.numbers == list(range(frames)) and not found.errors and index.damage is None


FAULT_FRAMES = {
    "flv_reset.flv": 200,
    "ts_back_mid.ts": 200,
    "ts_overlap.ts": 200,
    "hevc_splice.ts": 153,
    "cat_rates2.ts": 440,
    "neg.mkv": 100,
    "smc.mov": 600,
    "lied_mpeg4.mp4": 600,
    "thumb_first_default.mkv": 100,
}


@pytest.mark.parametrize("name", [name for name in FAULT_FRAMES if (FAULTS / name).exists()])
def test_a_file_of_the_collection(name: str) -> None:
    found, index = check(FAULTS / name)
    assert found.numbers == list(range(FAULT_FRAMES[name])) and found.same_pixels(
        plainly(FAULTS / name, index)
    )
    assert (name == "hevc_splice.ts") == (index.damage is not None)
    assert np.count_nonzero(np.isnan(found.seconds)) == (50 if name == "neg.mkv" else 0)


def test_a_packet_that_is_refused_costs_itself_and_is_counted(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "hole.mp4", codec="mpeg4", options={"g": "30", "bf": "0"})
    index = probe(str(path))
    _overwrite(path, index, 7)
    found, _ = check(path)
    expected = plainly(path, index)
    assert expected.refused == 1 and found.same_pixels(expected)
    assert any("1 packet could not be decoded" in error for error in found.errors)


def _overwrite(path: Path, index: VideoIndex, number: int) -> None:
    """Fills the bytes of a packet with zeros."""
    import av

    with av.open(str(path)) as container:
        packets = list(container.demux(video=0))
        place, size = packets[number].pos, packets[number].size
    data = bytearray(path.read_bytes())
    assert place is not None
    data[place : place + size] = bytes(size)
    path.write_bytes(bytes(data))


STARTS: dict[str, tuple[dict[str, Any], int]] = {
    "h264": (dict(codec="h264", container="mkv"), 4),
    "h264 open": (dict(codec="h264", container="mkv", open_gop=True), 1),
    "h264 in ts": (dict(codec="h264", container="ts"), 4),
    "hevc open": (dict(codec="hevc", container="mp4", open_gop=True), 4),
    "hevc in ts": (dict(codec="hevc", container="ts"), 4),
    "vp8": (dict(codec="vp8", container="webm"), 4),
    "vp9": (dict(codec="vp9", container="webm"), 4),
    "mpeg2 closed": (dict(codec="mpeg2", container="ts"), 5),
    "mpeg2 open": (dict(codec="mpeg2", container="ts", open_gop=True), 1),
    "mjpeg": (dict(codec="mjpeg", container="avi"), 30),
    "prores": (dict(codec="prores", container="mov"), 30),
    "raw": (dict(codec="raw", container="avi"), 30),
    "raw with a palette": (dict(codec="raw_pal8", container="avi"), 1),
    "mpeg4": (dict(codec="mpeg4", container="mp4"), 1),
}


@pytest.mark.parametrize("what", STARTS)
def test_decoding_starts_where_the_bitstream_proves_it(what: str, tmp_path: Path) -> None:
    changes, starts = STARTS[what]
    index = probe(str(make(tmp_path, Recipe(**changes))))
    assert len(index.key_indices) == starts


def _by_an_old_encoder(packet: Any) -> None:
    """x264 says its number in the first packet; FFmpeg decodes lossless pictures by it."""
    data = bytes(memoryview(packet))
    packet.update(data.replace(b"x264 - core 165", b"x264 - core 148").replace(b"core 164", b"core 148"))


@pytest.mark.parametrize("partitions", ["i8x8", "all"])
def test_lossless_pictures_of_old_encoders_are_those_of_a_plain_decode(
    partitions: str, tmp_path: Path
) -> None:
    options = clips.x264(f"qp=0:keyint=10:min-keyint=2:scenecut=0:8x8dct=1:partitions={partitions}")
    path = clips.write(tmp_path / "lossless.mkv", options=options, alter=_by_an_old_encoder)
    assert b"core 148" in path.read_bytes()
    _, index = check(path)
    assert len(index.key_indices) == 1


def test_where_chroma_lies_may_change_in_the_middle(tmp_path: Path) -> None:
    parts = [
        clips.write(tmp_path / f"{place}.ts", options=clips.x264(f"keyint=20:scenecut=0:chromaloc={place}"))
        for place in (0, 2)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    index = probe(str(both))
    assert by_units(both, index=index, size=56).same_pixels(plainly(both, index, size=56))


def _upside_down_note(packet: Any) -> Any:
    """A comment by which FFmpeg knows an encoder that wrote pictures from below."""
    data, note = bytes(memoryview(packet)), b"Intel(R) JPEG Library, version 1.5\0"
    return clips.with_bytes(
        packet, data[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]
    )


@pytest.mark.parametrize("size", [96, 56])
def test_pictures_that_are_stored_from_below_are_upright(size: int, tmp_path: Path) -> None:
    path = clips.write(
        tmp_path / "note.mkv",
        codec="mjpeg",
        pix_fmt="yuvj420p",
        frames=5,
        options={},
        alter=_upside_down_note,
    )
    index = probe(str(path))
    found = by_units(path, index=index, size=size)
    assert found.count == 5 and found.same_pixels(plainly(path, index, size=size))


def _with_grain() -> Any:
    """Describes, in the first packet, film grain that stays in force (ITU-T H.265, D.2.20)."""
    bits = "0" + "00" + "0" + "00" + "0011" + "100" + "00000000" + "000" + "00000000" + "11111111" + "1" * 8
    payload = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    left = [b"\0\0\0\1\x4e\x01" + bytes([19, len(payload)]) + payload + b"\x80"]
    return lambda packet: clips.with_bytes(packet, left.pop() + bytes(packet)) if left else None


def test_film_grain_that_stays_in_force_leaves_one_unit(tmp_path: Path) -> None:
    options = {
        **clips.X265_OPEN,
        "x265-params": "keyint=8:min-keyint=8:open-gop=0:repeat-headers=1:pools=none:log-level=none",
    }
    path = clips.write(
        tmp_path / "grain.ts", codec="libx265", options=options, frames=32, alter=_with_grain()
    )
    assert len(check(path)[1].key_indices) == 1
    plain = clips.write(tmp_path / "plain.ts", codec="libx265", options=options, frames=32)
    assert len(probe(str(plain)).key_indices) == 4
