"""Sequences of pictures among the inputs (what one is: `media.sequences`).

Model: folders of pictures count where nothing else was found, so that thumbnails and masks beside videos stay
what they are. A pattern takes whole sequences only.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from vidseg_core.local_name import text_of
from vidseg_core.media import sequences
from vidseg_core.media.errors import MediaError
from vidseg_core.plan.errors import InputError
from vidseg_core.plan.s3 import Found

_TOGETHER = 256


def found_in(folders: Iterable[str], rate: float) -> Iterator[Found]:
    """The sequences of each folder (addresses with a slash at their end). Raises InputError."""
    rest = iter(folders)
    with ThreadPoolExecutor(16) as pool:
        while some := list(islice(rest, _TOGETHER)):
            for listed in pool.map(_listed, some):
                yield from (_found(sequence, rate) for sequence in listed)


def matched(pictures: Sequence[str], rate: float) -> Iterator[Found]:
    """The sequences that these files make up. Raises InputError if they are a part of one."""
    names: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        folder, slash, name = picture.rpartition("/")
        names[folder + slash].add(name)
    for folder, wanted in names.items():
        yield from (_found(sequence, rate) for sequence in _listed(folder, wanted))


def looked_up(uris: Sequence[str], rate: float) -> Iterator[Found]:
    """The sequence at each address; one that is none keeps size 0 and shows its fault when it is opened."""
    with ThreadPoolExecutor(16) as pool:
        yield from pool.map(lambda uri: _at(sequences.with_rate(uri, rate)), uris)


def address_of(folder: str) -> str:
    """Address of a folder on a disk: its own name in its real folder."""
    plain = os.path.abspath(folder)
    named = os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain))
    return text_of(named).rstrip("/") + "/"


def _at(uri: str) -> Found:
    try:
        found = sequences.sequence(uri)
    except MediaError as problem:
        if problem.reason == "source_unavailable":
            raise InputError(str(problem)) from None
        return uri, 0, "missing"
    return uri, found.size, found.changed


def _listed(folder: str, names: set[str] | None = None) -> list[sequences.Sequence]:
    try:
        return sequences.sequences_in(folder, names)
    except MediaError as problem:
        raise InputError(str(problem)) from None


def _found(sequence: sequences.Sequence, rate: float) -> Found:
    return sequences.with_rate(sequence.uri, rate), sequence.size, sequence.changed
