"""Promise: a file can neither make us read another file nor take the memory of the machine, and what is no
video says so with the right reason.

What motivated it: a text in ffconcat form, named x.mp4, opened and decoded another local file, even through
a file object; `max_pixels` of the container did not protect h264 decoding. The foreign contracts are pinned
here, too.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import wave
import zipfile
from pathlib import Path

import av
import av.error
import numpy as np
import pytest
from PIL import Image

from tests.media import clips
from tests.media.decoding import by_units
from vidseg_core.media import MediaError, MediaLimits, probe
from vidseg_core.media.guard import FORMATS

M3U8 = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{other}\n#EXT-X-ENDLIST\n"
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
MPD = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'


def reason_of(path: Path | str, limits: MediaLimits | None = None) -> str:
    with pytest.raises(MediaError) as caught:
        probe(str(path), limits)
    assert str(path) in str(caught.value)
    return caught.value.reason


def concat_of(other: Path) -> str:
    return f"ffconcat version 1.0\nfile '{other}'\n"


def test_ffmpeg_alone_would_follow_the_reference(tmp_path: Path) -> None:
    """The danger is real: without our guard the other file is decoded."""
    other = clips.write(tmp_path / "other.mp4", frames=3)
    trap = tmp_path / "x.mp4"
    trap.write_text(concat_of(other))
    with open(trap, "rb") as file, av.open(file, "r", options={"safe": "0"}) as container:
        assert len(list(container.decode(video=0))) == 3


@pytest.mark.parametrize("lead", ["", "\n \t", "\ufeff"])
@pytest.mark.parametrize("name", ["x.mp4", "x.ffconcat", "x"])
def test_ffconcat_text_opens_nothing(name: str, lead: str, tmp_path: Path) -> None:
    other = clips.write(tmp_path / "other.mp4", frames=3)
    trap = tmp_path / name
    trap.write_text(lead + concat_of(other))
    touched = os.stat(other).st_atime_ns
    assert reason_of(trap) == "forbidden_format"
    assert os.stat(other).st_atime_ns == touched


@pytest.mark.parametrize("name", ["x.mp4", "x.m3u8", "x.sdp", "x.mpd"])
@pytest.mark.parametrize("text", [M3U8, SDP, MPD], ids=["hls", "sdp", "dash"])
def test_playlists_are_forbidden(name: str, text: str, tmp_path: Path) -> None:
    other = clips.write(tmp_path / "other.mp4", frames=3)
    trap = tmp_path / name
    trap.write_text(text.replace("{other}", str(other)))
    assert reason_of(trap) == "forbidden_format"


def test_the_list_of_formats_holds_by_itself(tmp_path: Path) -> None:
    """Should a text slip past the look at its first bytes, FFmpeg still refuses it."""
    other = clips.write(tmp_path / "other.mp4", frames=3)
    trap = tmp_path / "x.mp4"
    trap.write_text(concat_of(other))
    with open(trap, "rb") as file, pytest.raises(av.error.ArgumentError):
        av.open(file, container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"})
    names = set(FORMATS.split(","))
    assert not names & {
        "concat",
        "hls",
        "dash",
        "sdp",
        "rtsp",
        "image2",
        "lavfi",
        "imf",
        "tty",
        "tedcaptions",
    }


def test_what_is_no_video(tmp_path: Path) -> None:
    cases = {"empty.mp4": (b"", "empty_file"), "text.mp4": (b"this is no video\n" * 200, "not_a_video")}
    cases["noise.mkv"] = (bytes(range(1, 200)) * 40, "not_a_video")
    cases["header.mkv"] = (b"\x1aE\xdf\xa3" + b"\x00" * 5000, "corrupt_header")
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert reason_of(tmp_path / name) == reason
    assert reason_of(tmp_path / "missing.mp4") == "not_found"
    assert reason_of(tmp_path) == "unreadable"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason_of(tmp_path / "pipe.mp4") == "unreadable"


def test_pictures_and_archives_are_named_as_what_they_are(tmp_path: Path) -> None:
    frames = [Image.fromarray(clips.picture(number, 48, 64)) for number in range(3)]
    for name in ("one.jpg", "one.png", "one.webp"):
        frames[0].save(tmp_path / name)
    frames[0].save(tmp_path / "moves.webp", save_all=True, append_images=frames[1:])
    with zipfile.ZipFile(tmp_path / "clips.mp4", "w") as archive:
        archive.write(tmp_path / "one.jpg")
    with tarfile.open(tmp_path / "clips.tar", "w") as archive:
        archive.add(tmp_path / "one.jpg")
    for name, words in (
        ("one.jpg", "a single picture"),
        ("one.png", "a single picture"),
        ("one.webp", "a single picture"),
        ("moves.webp", "an animated WebP, which FFmpeg cannot decode"),
        ("clips.mp4", "a ZIP archive; unpack it"),
        ("clips.tar", "a tar archive; unpack it"),
    ):
        with pytest.raises(MediaError, match=words):
            probe(str(tmp_path / name))


def test_an_animated_png_is_a_video(tmp_path: Path) -> None:
    pictures = [clips.picture(number, 48, 64) for number in range(5)]
    first, *others = map(Image.fromarray, pictures)
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=40)
    found = by_units(tmp_path / "a.png")
    assert found.numbers == [0, 1, 2, 3, 4] and not found.errors
    assert probe(str(tmp_path / "a.png")).duration_s == pytest.approx(0.2, abs=0.05)


def test_audio_alone_is_no_video_stream(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x01\x02" * 8000)
    assert reason_of(tmp_path / "sound.wav") == "no_video_stream"
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame) + stream.encode(None))
    assert reason_of(tmp_path / "sound.mp4") == "no_video_stream"


def test_pictures_over_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    huge = tmp_path / "huge.y4m"
    huge.write_bytes(b"YUV4MPEG2 W9000 H9000 F25:1 C420jpeg\nFRAME\n" + b"\x80" * 4096)
    assert reason_of(huge) == "too_large"
    huge.write_bytes(huge.read_bytes().replace(b"9000", b"900000"))
    assert reason_of(huge) == "corrupt_header"
    clip = clips.write(tmp_path / "clip.mp4", frames=3)
    assert reason_of(clip, MediaLimits(max_pixels=96 * 64 - 1)) == "too_large"
    assert probe(str(clip), MediaLimits(max_pixels=96 * 64)).frames == 3


def test_pictures_that_grow_over_the_limit_end_the_unit(tmp_path: Path) -> None:
    small = clips.write(tmp_path / "small.ts", options=clips.X264)
    large = clips.write(tmp_path / "large.ts", options=clips.X264, width=160, height=96)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    limits = MediaLimits(max_pixels=10_000)
    index = probe(str(both), limits)
    found = by_units(both, index=index, limits=limits, shard_frames=50)
    assert found.numbers == list(range(60))
    assert found.errors and all("160x96" in error for error in found.errors)


def test_only_the_codec_context_limits_the_pixels_of_h264(tmp_path: Path) -> None:
    """Pins why the limit is set there: options of the container alone decode the picture all the same."""
    clip = str(clips.write(tmp_path / "clip.mp4", width=1024, height=512, frames=2))
    limit = {"max_pixels": "1000"}
    with av.open(clip, options=limit) as container:
        assert len(list(container.decode(video=0))) == 2
    with av.open(clip) as container, pytest.raises(av.error.FFmpegError):
        container.streams.video[0].codec_context.options = limit
        list(container.decode(video=0))


def test_containers_and_files_are_closed(tmp_path: Path) -> None:
    clip = clips.make(tmp_path, "open_gop.mp4")
    by_units(clip)
    before = open_below(tmp_path)
    for _ in range(5):
        by_units(clip)
        reason_of(tmp_path)
    assert open_below(tmp_path) == before == []


def open_below(folder: Path) -> list[str]:
    """What this process holds open under a folder (other tests' threads may open sockets meanwhile)."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in names if name.startswith(f"{folder.resolve()}/")]


@pytest.mark.parametrize("field", ["max_pixels", "deadline_s", "memory_bytes"])
def test_limits_must_be_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        MediaLimits(**{field: 0})
