"""Files that must not hurt anybody but themselves, made at test time, and a reader that hangs or crashes on
cue."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.pipeline.clips import moving_disc, write_video
from vidseg_core.media.decode import decode_unit as real_decode


def write_poison(folder: Path) -> dict[str, str]:
    """Bad files in ``folder``; the reason code that each must get, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = write_video(folder.parent / "secret" / "secret.mp4", moving_disc(20))
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video, whatever its name says\n" * 50)
    whole = write_video(folder.parent / "whole.mp4", moving_disc(60)).read_bytes()
    (folder / "no moov.mp4").write_bytes(whole[: len(whole) // 2])
    _audio_only(folder / "audio.mp4")
    write_video(folder / "SEGFAULT.mp4", moving_disc(30, seed=3))
    write_video(folder / "HANG.mp4", moving_disc(30, seed=4))
    return {
        "concat.mp4": "forbidden_format",
        "playlist.mp4": "forbidden_format",
        "empty.mp4": "empty_file",
        "text.mp4": "not_a_video",
        "no moov.mp4": "",
        "audio.mp4": "no_video_stream",
        "SEGFAULT.mp4": "decode_crash",
        "HANG.mp4": "decode_timeout",
    }


def decode_unit(unit: Any, **arguments: Any) -> Iterator[Any]:
    """The real decoder, except that file names may ask for a hang or a crash of native code."""
    for number, shard in enumerate(real_decode(unit, **arguments)):
        if number == 1 and "HANG" in unit.uri:
            time.sleep(3600)
        if number == 1 and "SEGFAULT" in unit.uri:
            ctypes.string_at(0)
        yield shard


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), dtype=np.float32)
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
