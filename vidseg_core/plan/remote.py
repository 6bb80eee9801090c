"""Finding videos on the web, in Google and Azure storage and on the hub (reading them: `media.remote`)."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from vidseg_core.media import remote
from vidseg_core.media.errors import MediaError
from vidseg_core.plan.errors import InputError
from vidseg_core.plan.s3 import WILD, Found


def find(spec: str, wanted: Callable[[str], bool]) -> Iterator[Found]:
    """The file `spec`, or the `wanted` ones below it, or else those that it matches. Raises InputError."""
    on_the_web = remote.scheme_of(spec) in remote.WEB
    try:
        one = _file(spec, on_the_web)
        if one is not None or on_the_web:
            yield from [one] if one else []
            return
        is_pattern = WILD.search(spec) is not None
        for found in _below(spec):
            if wanted(found.uri):
                is_pattern = False
                yield found
        if is_pattern:
            for found in _below(WILD.split(spec)[0].rpartition("/")[0]):
                if fnmatch.fnmatchcase(found.uri, spec) and wanted(found.uri):
                    yield found
    except MediaError as problem:
        raise InputError(str(problem)) from None


def _file(spec: str, must_be: bool) -> remote.Entry | None:
    try:
        return remote.entry(spec)
    except MediaError as problem:
        if must_be or problem.reason != "not_found":
            raise
        return None


def _below(uri: str) -> Iterator[remote.Entry]:
    """What is below an address; nothing where there is none."""
    try:
        yield from remote.entries_below(uri)
    except MediaError as problem:
        if problem.reason != "not_found":
            raise


def heads(uris: Sequence[str]) -> dict[str, tuple[int, str]]:
    """(bytes, identity) of each file; (0, "missing") where there is none or it may not be seen."""
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(uris, pool.map(_head, uris), strict=True))


def read(uri: str) -> bytes:
    """The bytes of a file. Raises InputError."""
    try:
        return remote.read(uri)
    except MediaError as problem:
        raise InputError(str(problem)) from None


def _head(uri: str) -> tuple[int, str]:
    try:
        return remote.entry(uri)[1:]
    except MediaError as problem:
        if problem.reason == "source_unavailable":
            raise InputError(str(problem)) from None
        return 0, "missing"
