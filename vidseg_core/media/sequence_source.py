"""A sequence of pictures as one file: a QuickTime header of our own before the files as they are.

Model: the header says that frame i lies at an offset, has the size of its file and is shown at its tick;
reading at that offset reads the file. So a sequence takes the way of every other video (limits, index, units,
damage that is counted), FFmpeg is given no name, and any frame may be where decoding starts.
Invariant: what is read is what was listed; a file that is gone or has changed since is an error. All pictures
have one size and are turned alike; one that is damaged counts as a frame that cannot be decoded.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Sequence as Many
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple, NoReturn

from vidseg_core.aws import get_whole, input_client
from vidseg_core.media import remote
from vidseg_core.media.errors import MediaError
from vidseg_core.media.s3_source import asking_s3
from vidseg_core.media.sequences import Frame, Sequence, path_of, sequence
from vidseg_core.media.source import PieceSource, stamp_of

_AHEAD = 8
"""Files in object storage that are fetched before they are asked for, while reading runs forward."""
_KEPT = 4
_ASKED = 3
_LARGEST = 1 << 32
"""Bytes that a file has too many for the header."""
_TRIED = 16
"""Files that are looked at for some that say what the pictures are."""


class PictureKind(NamedTuple):
    """What a picture's header says."""

    codec: bytes
    """As QuickTime calls it."""
    width: int
    height: int
    turn: int = 1
    """Orientation as EXIF numbers it; 1: as it lies. Of JPEG."""


def picture_kind(data: bytes) -> PictureKind | None:
    """Kind and size of a PNG or JPEG file; None: it is neither, or broken before that is said."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        return PictureKind(b"png ", *struct.unpack(">II", data[16:24]))
    if data[:2] != b"\xff\xd8":
        return None
    at, turn = 2, 1
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return PictureKind(b"jpeg", width, height, turn)
        else:
            turn = _turn(data[at + 4 : at + 2 + length]) if marker == 0xE1 else turn
            at += 2 + length
    return None


def _turn(segment: bytes) -> int:
    """The orientation in an APP1 segment; 1 where it says none (EXIF 2.3, 4.6.2)."""
    tiff, order = segment[6:], {b"II": "<", b"MM": ">"}.get(segment[6:8])
    if segment[:6] != b"Exif\0\0" or order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        tags = dict(struct.unpack_from(f"{order}H6xH", tiff, at + 2 + 12 * n) for n in range(count))
    except struct.error:
        return 1
    turn = tags.get(0x0112, 1)
    return turn if 1 <= turn <= 8 else 1


_last: list[tuple[str, Sequence]] = []
"""The stamp and the frames of the sequence that this process has listed last."""


def _listed(uri: str, stamp: str) -> Sequence:
    """The frames at an address; units of one sequence follow one another, and a folder may be large."""
    if stamp and _last and _last[0][0] == stamp and _last[0][1].uri == uri:
        return _last[0][1]
    found = sequence(uri)
    _last[:] = [(stamp_of(found.size, found.changed), found)]
    return found


class SequenceSource(PieceSource):
    """See the module. Raises MediaError: what `sequence` does, no_frames, changed, not_a_video."""

    def __init__(self, uri: str, stamp: str = "") -> None:
        super().__init__()
        self.uri, self.name = uri, "input.mov"
        self._sequence = found = _listed(uri, stamp)
        self._frames, self.damage = found.frames, found.damage
        if large := next((frame.name for frame in self._frames if frame.size >= _LARGEST), None):
            raise MediaError("too_large", f"{uri}: {large} has 4 GiB or more")
        elsewhere = _from_storage if remote.is_remote(uri) else _from_disk
        self._load_from = _from_s3 if uri.startswith("s3://") else elsewhere
        self._pool = ThreadPoolExecutor(_AHEAD) if self._load_from is not _from_disk else None
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._ahead: dict[int, Future[bytes]] = {}
        self._kind = self._first_kind()
        sizes = [max(1, frame.size) for frame in self._frames]  # no packet is empty
        self._header = movie_header(self._kind, sizes, found.ticks, found.rate)
        self._starts = list(accumulate(sizes[:-1], initial=len(self._header)))
        self.size = self._starts[-1] + sizes[-1]

    @property
    def stamp(self) -> str:
        """What `Source.stamp` asks for; a frame that is another one by now is an error when it is read."""
        return stamp_of(self._sequence.size, self._sequence.changed)

    def close(self) -> None:
        if self._pool is not None and not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _piece(self, position: int) -> tuple[int, bytes]:
        """The header, or a file."""
        number = bisect_right(self._starts, position) - 1
        return (0, self._header) if number < 0 else (self._starts[number], self._file(number) or b"\0")

    def _first_kind(self) -> PictureKind:
        """What the pictures are, going by the first ones: one may be damaged, or of another kind."""
        found: list[PictureKind] = []
        for number in range(min(_TRIED, len(self._frames))):
            kind = picture_kind(self._load(number))
            found += [kind] if kind else []
            if len(found) == _ASKED:
                break
        if not found:
            text = f"{self.uri}: no readable JPEG or PNG file among the first {_TRIED}"
            raise MediaError("no_frames", text)
        codec = Counter(kind.codec for kind in found).most_common(1)[0][0]
        return next(kind for kind in found if kind.codec == codec)

    def _file(self, number: int) -> bytes:
        """The bytes of a frame, checked; the last ones are kept."""
        if number not in self._kept:
            fetched = self._ahead.pop(number, None)
            data = self._load(number) if fetched is None else fetched.result()
            kind = picture_kind(data)
            if kind is not None and kind[1:] != self._kind[1:]:
                self._refuse(number, kind)
            self._kept[number] = data
            self._look_ahead(number)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[number]

    def _look_ahead(self, number: int) -> None:
        if self._pool is None:
            return
        forward = number - 1 in self._kept
        wanted = range(number + 1, min(number + 1 + _AHEAD, len(self._frames))) if forward else range(0)
        for other in [other for other in self._ahead if other not in wanted]:
            self._ahead.pop(other).cancel()
        for soon in wanted:
            if soon not in self._ahead:
                self._ahead[soon] = self._pool.submit(self._load, soon)

    def _load(self, number: int) -> bytes:
        frame = self._frames[number]
        data = self._load_from(self._sequence.folder, frame)
        if len(data) != frame.size:
            raise _changed(self._sequence.folder + frame.name)
        return data

    def _refuse(self, number: int, kind: PictureKind) -> NoReturn:
        name, first = self._frames[number].name, self._kind
        text = f"size: {name} is {kind.width}x{kind.height}, the first frame {first.width}x{first.height}"
        if kind[1:3] == first[1:3]:
            text = (
                f"how they are turned: {name} has EXIF orientation {kind.turn}, the first frame {first.turn}"
            )
        raise MediaError("not_a_video", f"{self.uri}: the pictures differ in {text}")


def _from_disk(folder: str, frame: Frame) -> bytes:
    try:
        with open(
            os.open(path_of(folder, frame.name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb"
        ) as file:
            if str(os.fstat(file.fileno()).st_mtime_ns) != frame.changed:
                raise _changed(folder + frame.name)
            return file.read()
    except FileNotFoundError:
        raise _changed(folder + frame.name) from None
    except OSError as error:
        raise MediaError("unreadable", f"{folder}{frame.name}: cannot be read ({error.strerror})") from None


def _from_s3(folder: str, frame: Frame) -> bytes:
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    with asking_s3(folder + frame.name):
        return get_whole(
            input_client(), Bucket=bucket, Key=prefix + frame.name, IfMatch=f'"{frame.changed}"'
        )["Body"]


def _from_storage(folder: str, frame: Frame) -> bytes:
    if remote.entry(folder + frame.name).changed != frame.changed:
        raise _changed(folder + frame.name)
    return remote.read(folder + frame.name)


def _changed(address: str) -> MediaError:
    return MediaError("changed", f"{address}: the frame is gone or has changed since the run listed it")


# --- the header ---------------------------------------------------------------------------------------------


def movie_header(kind: PictureKind, sizes: Many[int], ticks: Many[int], rate: Fraction) -> bytes:
    """A QuickTime file up to its first frame: `sizes` in bytes, `ticks` increasing, in frames at `rate`."""
    steps = [*(b - a for a, b in pairwise(ticks)), 1]
    steps = [step * rate.denominator for step in steps]
    end = _box(b"mdat", size=sum(sizes))
    length = len(_movie(kind, sizes, steps, rate, 0) + end)  # offsets have a fixed length
    return _movie(kind, sizes, steps, rate, length) + end


def _movie(kind: PictureKind, sizes: Many[int], steps: Many[int], rate: Fraction, first: int) -> bytes:
    duration, unity = min(sum(steps), 2**32 - 1), struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    movie = struct.pack(">12xIIIH10x", rate.numerator, duration, 65536, 256) + unity + struct.pack(">24xI", 2)
    track = struct.pack(">I8xI4xI16x", 7, 1, duration) + unity
    track += struct.pack(">II", min(kind.width, 65535) << 16, min(kind.height, 65535) << 16)
    handler = struct.pack(">4x4s4s12xB", b"mhlr", b"vide", 0)
    itself = _box(b"dref", struct.pack(">4xI", 1), _box(b"url ", struct.pack(">I", 1)))
    media = _box(
        b"minf",
        _box(b"vmhd", struct.pack(">I8x", 1)),
        _box(b"dinf", itself),
        _box(b"stbl", *_tables(kind, sizes, steps, first)),
    )
    about = _box(b"mdhd", struct.pack(">12xII4x", rate.numerator, duration))
    tracks = _box(b"trak", _box(b"tkhd", track), _box(b"mdia", about, _box(b"hdlr", handler), media))
    return _box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + _box(b"moov", _box(b"mvhd", movie), tracks)


def _tables(kind: PictureKind, sizes: Many[int], steps: Many[int], first: int) -> list[bytes]:
    picture = struct.pack(
        ">4s6xH16xHHII4xH32xHh", kind.codec, 1, kind.width, kind.height, 72 << 16, 72 << 16, 1, 24, -1
    )
    described = struct.pack(">4xII", 1, 4 + len(picture)) + picture
    runs = [(len(list(run)), step) for step, run in groupby(steps)]
    offsets = list(accumulate(sizes[:-1], initial=first))
    return [
        _box(b"stsd", described),
        _box(b"stts", struct.pack(f">4xI{2 * len(runs)}I", len(runs), *(n for run in runs for n in run))),
        _box(b"stsc", struct.pack(">4x4I", 1, 1, 1, 1)),
        _box(b"stsz", struct.pack(f">8xI{len(sizes)}I", len(sizes), *sizes)),
        _box(b"co64", struct.pack(f">4xI{len(sizes)}Q", len(sizes), *offsets)),
    ]


def _box(kind: bytes, *parts: bytes, size: int | None = None) -> bytes:
    """`size`: of what follows instead of `parts`, in the long form."""
    if size is not None:
        return struct.pack(">I4sQ", 1, kind, 16 + size)
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body
