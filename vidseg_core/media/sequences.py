"""Numbered pictures of one folder as one video: which belong together, and how that is called.

Model: a sequence is the JPEG or PNG files of one folder whose names differ in their numbers alone. Its
address is the folder with a slash at its end ("takes/bear/"), or a pattern in which `*` is for digits where
a folder holds several ("aachen/aachen_000000_*_leftImg8bit.png"); "#fps=24" after it says its rate (else
`RATE`). Where several numbers of the names vary, the last one counts the frames and the others name the
sequence, unless no two names would then belong together.
Invariant: an address names the same frames in the same order for everybody who lists the folder; what the
names leave open is refused, never guessed.

A frame has the place in time of its number if the numbers go up in equal steps with fewer gaps than frames;
if they do not, frames follow one another evenly. Numbers that are not there are `Sequence.damage`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NoReturn

from vidseg_core.aws import input_client
from vidseg_core.local_name import bytes_of, python_name
from vidseg_core.media import remote
from vidseg_core.media.errors import MediaError
from vidseg_core.media.s3_source import asking_s3

RATE = 25.0
"""Frames a second of a sequence that does not say."""
LEAST_RATE, MOST_RATE = 0.001, 1000.0
WRONG_RATE = f"a sequence has {LEAST_RATE:g} to {MOST_RATE:g} frames a second"
_KINDS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
_RATE = re.compile(r"#fps=(\d+(?:\.\d+)?)$")
_DIGITS = re.compile(r"([0-9]+)")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """One file of a sequence."""

    name: str
    size: int
    changed: str
    """Time of change (nanoseconds) or ETag."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The frames of one address, in order."""

    uri: str
    frames: tuple[Frame, ...]
    numbers: tuple[int, ...]

    @property
    def folder(self) -> str:
        """The folder's address, with a slash at its end."""
        return _parts(self.uri)[0]

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(_parts(self.uri)[2]).limit_denominator(1001)

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(frame.size for frame in self.frames)

    @property
    def changed(self) -> str:
        """Another text for other frames, with `size` the identity of the contents."""
        listing = "\0".join(f"{frame.name}\0{frame.size}\0{frame.changed}" for frame in self.frames)
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @property
    def ticks(self) -> list[int]:
        """The place of each frame in time, in frames."""
        step = self._step
        if not step:
            return list(range(len(self.frames)))
        return [(number - self.numbers[0]) // step for number in self.numbers]

    @property
    def damage(self) -> str | None:
        """The numbers that are not there; None: none is missing."""
        step = self._step
        gaps = [(a + step, b - step) for a, b in pairwise(self.numbers) if step and b - a > step]
        if not gaps:
            return None
        missing = sum((last - first) // step + 1 for first, last in gaps)
        shown = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in gaps[:_SHOWN])
        more = ", ..." if len(gaps) > _SHOWN else ""
        are = "frame is" if missing == 1 else "frames are"
        return f"{missing} {are} not in the folder (number {shown}{more})"

    @property
    def _step(self) -> int:
        """What a number differs from the one before, most often; 0: numbers say nothing about time."""
        steps = Counter(b - a for a, b in pairwise(self.numbers))
        if not steps:
            return 0
        most = max(steps.values())
        step = min(step for step, count in steps.items() if count == most)
        missing = sum((found // step - 1) * count for found, count in steps.items())
        return 0 if any(found % step for found in steps) or missing > len(self.numbers) else step


def is_sequence(uri: str) -> bool:
    """Whether this is the address of a sequence, going by its form."""
    plain = _RATE.sub("", uri)
    name = plain.rpartition("/")[2]
    return plain.endswith("/") or ("*" in name and is_picture(name))


def is_picture(name: str) -> bool:
    """Whether a file of this name may be a frame."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in _KINDS


def without_rate(uri: str) -> tuple[str, float | None]:
    """An address and its rate, if it has one."""
    found = _RATE.search(uri)
    return (uri[: found.start()], float(found[1])) if found else (uri, None)


def split_address(uri: str) -> tuple[str, str]:
    """The folder of a sequence without the slash at its end, and the rest of the address."""
    folder = without_rate(uri)[0].rpartition("/")[0]
    return folder, uri[len(folder) :]


def with_rate(uri: str, rate: float) -> str:
    """The address of a sequence at this rate, unless it has one; a rate is written in one way only."""
    plain, own = without_rate(uri)
    rate = rate if own is None else own
    if not is_rate(rate):
        return uri
    return plain if rate == RATE else f"{plain}#fps={rate:.10g}"


def is_rate(rate: float) -> bool:
    """Whether a sequence may have so many frames a second."""
    return LEAST_RATE <= rate <= MOST_RATE


def sequence(uri: str) -> Sequence:
    """The frames at this address. Raises MediaError."""
    folder, pattern, _ = _parts(uri)
    frames = list(_pictures(folder))
    if pattern:
        return _ordered(uri, _matching(frames, pattern), pattern)
    found = _grouped(folder, frames)
    if len(found) > 1:
        names = ", ".join(list(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise MediaError("not_a_video", f"{uri}: {len(found)} sequences in one folder; name one of {names}")
    pattern, frames = next(iter(found.items()), ("", []))
    return _ordered(uri, frames, pattern)


def sequences_in(folder: str, names: Collection[str] | None = None) -> list[Sequence]:
    """All sequences of a folder (an address with a slash at its end), or those that these names make up.

    Raises MediaError, also if the names are a part of a sequence.
    """
    pictures = list(_pictures(folder))
    wanted = pictures if names is None else [frame for frame in pictures if frame.name in names]
    found = _grouped(folder, wanted)
    if len(found) == 1 and len(wanted) == len(pictures):
        return [_ordered(folder, wanted, next(iter(found)))]
    return [_whole(folder, pictures, pattern, len(frames)) for pattern, frames in found.items()]


def _whole(folder: str, pictures: list[Frame], pattern: str, count: int) -> Sequence:
    whole = _ordered(folder + pattern, _matching(pictures, pattern), pattern)
    if len(whole.frames) > count:
        text = f"{whole.uri}: the pattern matches {count} of the {len(whole.frames)} frames of this sequence"
        _refuse(f"{text}; name it whole")
    return whole


def _parts(uri: str) -> tuple[str, str, float]:
    """Folder, pattern ("": the folder has one sequence) and rate."""
    plain, rate = without_rate(uri)
    folder, slash, pattern = plain.rpartition("/")
    if rate is not None and not is_rate(rate):
        _refuse(f"{uri}: {WRONG_RATE}")
    return folder + slash, pattern, rate or RATE


def _grouped(folder: str, frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    """Patterns and what matches them, in the order of the patterns."""
    alike: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        stem, suffix = os.path.splitext(_plain(frame.name))
        alike[(*_DIGITS.split(stem)[::2], suffix)].append(frame)
    _check_names(folder, alike)
    if any(not _is_utf8(frame.name) for frames in alike.values() for frame in frames) and len(alike) > 1:
        _refuse(f"{folder}: several sequences, and names that are not valid UTF-8")
    found: dict[str, list[Frame]] = {}
    for members in alike.values():
        by_pattern: dict[str, list[Frame]] = defaultdict(list)
        pieces = [_DIGITS.split(_plain(frame.name)) for frame in members]
        varying = [at for at in range(1, len(pieces[0]), 2) if len({piece[at] for piece in pieces}) > 1]
        starred = varying[-1:] or [len(pieces[0]) - 2]
        if len({_starred(piece, starred) for piece in pieces}) == len(members):
            starred = varying or starred
        for frame, piece in zip(members, pieces, strict=True):
            by_pattern[_starred(piece, starred)].append(frame)
        found |= by_pattern
    return dict(sorted(found.items()))


def _starred(pieces: list[str], at: list[int]) -> str:
    return "".join("*" if number in at else piece for number, piece in enumerate(pieces))


def _check_names(folder: str, alike: dict[tuple[str, ...], list[Frame]]) -> None:
    """Raises MediaError where names leave open what the frames are."""
    plain = [frames[0].name for texts, frames in alike.items() if len(texts) == 2]
    if plain and len(plain) < len(alike):
        text = f"{folder}: pictures without a number beside frames ({', '.join(plain[:_SHOWN])}); "
        _refuse(text + "name the frames with a pattern such as frame_*.jpg")
    if plain:
        alike.clear()
    stems = Counter(texts[:-1] for texts in alike)
    twice = next((texts for texts, count in stems.items() if count > 1), None)
    if twice is not None:
        kinds = sorted(texts[-1] for texts in alike if texts[:-1] == twice)
        text = f"{folder}: frames of the same names as {' and '.join(kinds)}; "
        _refuse(text + f"name one kind with a pattern such as {'*'.join(twice)}{kinds[0]}")


def _is_utf8(name: str) -> bool:
    return name.encode("utf-8", "replace").decode() == name


def _refuse(text: str) -> NoReturn:
    raise MediaError("not_a_video", text)


def _plain(name: str) -> str:
    """The name with its suffix in small letters."""
    stem, suffix = os.path.splitext(name)
    return stem + suffix.lower()


def _matching(frames: list[Frame], pattern: str) -> list[Frame]:
    wanted = _expression(pattern)
    return [frame for frame in frames if wanted.fullmatch(_plain(frame.name))]


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(r"([0-9]+)".join(map(re.escape, _plain(pattern).split("*"))))


def _ordered(uri: str, frames: list[Frame], pattern: str) -> Sequence:
    if not frames:
        _refuse(f"{uri}: no numbered JPEG or PNG frames there")
    expression, keyed = _expression(pattern), []
    for frame in frames:
        match = expression.fullmatch(_plain(frame.name))
        assert match is not None
        keyed.append((tuple(map(int, match.groups())), frame.name, frame))
    keyed.sort(key=lambda entry: entry[:2])
    for (one, first, _), (two, second, _) in pairwise(keyed):
        if one == two:
            _refuse(f"{uri}: two frames have one number ({first} and {second})")
    numbers = [key[0] for key, _, _ in keyed]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(len(keyed)))
    return Sequence(uri, tuple(frame for _, _, frame in keyed), tuple(numbers))


def _pictures(folder: str) -> Iterator[Frame]:
    if remote.is_remote(folder):
        return _in_storage(folder)
    return _in_s3(folder) if folder.startswith("s3://") else _on_disk(folder)


def _on_disk(folder: str) -> Iterator[Frame]:
    try:
        with os.scandir(python_name(folder)) as entries:
            for entry in entries:
                if is_picture(entry.name) and entry.is_file():
                    info = entry.stat()
                    yield Frame(entry.name, info.st_size, str(info.st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError("not_found", f"{folder}: no such folder") from None
    except OSError as error:
        raise MediaError("unreadable", f"{folder}: cannot be read ({error.strerror})") from None


def _in_s3(folder: str) -> Iterator[Frame]:
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    with asking_s3(folder):
        pages = input_client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
            for item in page.get("Contents", ()):
                name = item["Key"][len(prefix) :]
                if is_picture(name):
                    yield Frame(name, item["Size"], item["ETag"].strip('"'))


def _in_storage(folder: str) -> Iterator[Frame]:
    for entry in remote.entries_in(folder):
        name = entry.uri.rpartition("/")[2]
        if is_picture(name):
            yield Frame(name, entry.size, entry.changed)


def path_of(folder: str, name: str) -> bytes:
    """The file of a frame on a disk."""
    return os.path.join(bytes_of(folder), os.fsencode(name))
