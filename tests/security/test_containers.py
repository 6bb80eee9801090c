"""Promise: no file makes us read another file or reach the network, whatever its container says: neither a
text that is a playlist to FFmpeg, nor a QuickTime track whose data lie elsewhere, nor a name.

The kernel is the witness: it sees what native code opens. (More of the same on the level of single functions:
`tests/media/test_guard.py`, `tests/media/test_source.py`; what such files cost others in a run:
`tests/pipeline/test_poison.py`; names as folders: `tests/plan/test_ids.py`.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from tests.media import clips
from tests.security.watching import knocks, opens_of
from vidseg_core.media import DecodeChild, MediaError

TEXTS = {
    "ffconcat": "ffconcat version 1.0\nfile '{there}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{there}\n#EXT-X-ENDLIST\n",
    "hls key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{there}"\n#EXTINF:3,\n{there}\n#EXT-X-ENDLIST\n',
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    "<Representation><BaseURL>{there}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "rtsp": "RTSPtext\nrtsp://127.0.0.1:{port}/x\n",
    "pls": "[playlist]\nFile1={there}\n",
    "shortcut": "[InternetShortcut]\nURL={there}\n",
    "smil": '<smil><body><video src="{there}"/></body></smil>',
    "asx": '<asx version="3.0"><entry><ref href="{there}"/></entry></asx>',
    "imf": '<?xml version="1.0"?><CompositionPlaylist>{there}</CompositionPlaylist>',
    "vapoursynth": "import vapoursynth\nopen('{there}')\n",
    "avisynth": 'AviSource("{there}")\n',
}


@pytest.fixture(scope="module")
def child() -> Iterator[DecodeChild]:
    with DecodeChild() as child:
        yield child


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write(tmp_path_factory.mktemp("bait") / "bait.mp4", frames=3)


@pytest.mark.parametrize("place", ["file", "network"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_leads_nowhere(kind: str, place: str, child: DecodeChild, bait: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.mp4"
    with knocks() as (port, knocked), opens_of(bait) as opened:
        there = str(bait) if place == "file" else f"http://127.0.0.1:{port}/x.mp4"
        trap.write_text(TEXTS[kind].replace("{there}", there).replace("{port}", str(port)))
        with pytest.raises(MediaError) as caught:
            child.probe(str(trap))
    assert caught.value.reason in ("forbidden_format", "not_a_video")
    assert not opened and not knocked


@pytest.mark.parametrize(
    "name",
    ["concat:{bait}|{bait}", "subfile,,start,0,end,0,,:{bait}", "tcp://127.0.0.1:{port}", "file:{bait}"],
)
def test_a_name_is_never_an_address(name: str, child: DecodeChild, bait: Path) -> None:
    with knocks() as (port, knocked), opens_of(bait) as opened:
        with pytest.raises(MediaError) as caught:
            child.probe(name.format(bait=bait, port=port))
    assert caught.value.reason == "not_found"
    assert not opened and not knocked


def test_a_track_whose_data_lie_elsewhere_is_not_followed(
    child: DecodeChild, bait: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trap.mov"
    trap.write_bytes(with_alias(clips.write(tmp_path / "plain.mov", frames=3).read_bytes(), bait))
    danger = {"enable_drefs": "1", "use_absolute_path": "1"}
    with opens_of(bait) as opened, av.open(str(trap), container_options=danger) as container:
        list(container.demux(video=0))
    assert opened, "the danger is real: with these options FFmpeg follows the alias"
    with opens_of(bait) as opened:
        with pytest.raises(MediaError) as caught:
            child.probe(str(trap))
    assert caught.value.reason == "no_frames" and not opened


def with_alias(movie: bytes, target: Path) -> bytes:
    """A QuickTime movie whose track says that its data lie in the file `target` (an alias record)."""
    return b"".join(_boxes(movie, ("moov", "trak", "mdia", "minf", "dinf", "dref"), _dref(target)))


def _boxes(data: bytes, path: tuple[str, ...], content: bytes) -> Iterator[bytes]:
    """The boxes in `data`, the one at `path` with another content (its header lies after the media data)."""
    while data:
        (size,), kind = struct.unpack(">I", data[:4]), data[4:8].decode("latin-1")
        body, data = data[8:size], data[size:]
        if path and kind == path[0]:
            body = content if len(path) == 1 else b"".join(_boxes(body, path[1:], content))
        yield struct.pack(">I", 8 + len(body)) + kind.encode("latin-1") + body


def _dref(target: Path) -> bytes:
    path = str(target).encode()
    record = bytes(10) + bytes(28) + bytes(12) + bytes([len(target.name)])
    record += target.name.encode().ljust(63, b"\0") + bytes(16) + bytes(4) + bytes(16)
    record += struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    entry = b"alis" + bytes(4) + record
    return bytes(4) + struct.pack(">I", 1) + struct.pack(">I", 4 + len(entry)) + entry
