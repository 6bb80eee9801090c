"""What the user names as input, spelled out as videos.

Model: a spec is a file, a directory (searched to any depth for `VIDEO_SUFFIXES`), a glob, an object, prefix
or glob in S3 or another storage, a file on the web, or a list: a CSV or Parquet file, or a directory of
Parquet parts and no videos (`lists`). Relative entries of a list count from the folder that the list is in,
or from the working directory if nothing is there. Where a directory, prefix or glob leads to no video, its
folders of numbered pictures are videos (`sequences`).
Invariant: the result depends on the specs and the files alone: specs in the order given, files sorted within
each; a video named twice (same file in the same real folder or same object, same `Excerpt`) comes once; ids
are unique and safe as folder names. A link to a file is a name of its own, as caches need that keep files
under hashes.

A spec that leads nowhere is an error of the user and named as such; an entry of a list or folder that cannot
be read is kept, so that it is reported with the run instead of stopping it.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from itertools import chain, groupby, islice
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from vidseg_core.config.excerpt import EXCERPT, WHOLE, Excerpt
from vidseg_core.config.schema import redact
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.local_name import FILE_SCHEME, python_name, text_of
from vidseg_core.media.remote import SCHEMES, is_remote
from vidseg_core.media.sequences import RATE, WRONG_RATE, is_picture, is_rate, is_sequence, without_rate
from vidseg_core.plan import lists, remote, s3, sequences
from vidseg_core.plan.errors import InputError
from vidseg_core.plan.ids import identity, make_video_id, safe_video_id
from vidseg_core.plan.lists import LIST_SUFFIXES
from vidseg_core.plan.video_list import SCHEMA, VideoList, alike, columns_of, text_column

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .mpg .mpeg .m2v .vob .flv .f4v .wmv .asf .ogv .ogg "
    ".3gp .3g2 .mxf .gxf .nut .dv .h264 .264 .h265 .hevc .265 .ivf .obu .y4m .rm .rmvb".split()
)
"""Names that count as videos in a directory, glob or prefix. A file named alone may be called anything."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_T = TypeVar("_T")


class _Found(NamedTuple):
    uri: str
    size: int
    stamp: str
    video_id: str | None = None
    excerpt: Excerpt = WHOLE
    """What its row of a list asks for."""


_FOUND = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("stamp", pa.string()),
        ("given_id", pa.string()),
        *((name, pa.float64()) for name in EXCERPT),
    ]
)


def inputs_of(config: SegmentConfig) -> VideoList:
    """The videos of a run, with what it processes of each."""
    media = config.media
    return expand_inputs(
        config.input, limit=config.limit, sequence_fps=media.sequence_fps, excerpt=media.excerpt
    )


def expand_inputs(
    specs: Sequence[str], *, limit: int | None = None, sequence_fps: float = RATE, excerpt: Excerpt = WHOLE
) -> VideoList:
    """The videos that `specs` name, at most `limit` of them. Raises InputError, which names the spec.

    `sequence_fps`: frames a second of sequences of pictures whose address does not say. `excerpt`: which
    frames are taken of a video of which no list says that itself.
    """
    if not specs:
        raise InputError("no input given")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    found = (_row(entry, excerpt) for some in _expand_all(specs, sequence_fps) for entry in some)
    return _checked(_unique(found, limit))


def _row(found: _Found, usual: Excerpt) -> tuple[object, ...]:
    """A row of `_FOUND`."""
    excerpt = found.excerpt.over(usual)
    if wrong := excerpt.problem():  # each of them was checked alone
        raise InputError(f"{redact(found.uri)}: {' '.join(wrong)} (its row of a list and --media together)")
    return (*found[:4], *astuple(excerpt))


def _expand_all(specs: Sequence[str], rate: float) -> Iterator[Iterator[_Found]]:
    """What each spec leads to; numbered pictures side by side are a pattern that a shell has spelled out."""
    for are_frames, some in groupby(specs, _is_frame):
        group = list(some)
        if are_frames and len(group) > 1:
            frames = (_local(_local_path(spec, spec)) for spec in group)
            yield _sorted_out("", frames, f"{group[0]}: no sequence", lambda part: part, rate)
        else:
            yield from (_expand(spec, rate) for spec in group)


def _is_frame(spec: str) -> bool:
    numbered = is_picture(spec) and any(map(str.isdigit, os.path.basename(spec)))
    return numbered and os.path.isfile(os.path.expanduser(python_name(spec)))


def _expand(given: str, rate: float) -> Iterator[_Found]:
    spec, own_rate = without_rate(given)
    rate = rate if own_rate is None else own_rate
    if not is_rate(rate):
        raise InputError(f"{redact(given)}: {WRONG_RATE}")
    found = _expand_at(spec, rate)
    return found if own_rate is None else map(_only_sequence, found)


def _only_sequence(found: _Found) -> _Found:
    if not is_sequence(found.uri):
        raise InputError(f"{redact(found.uri)}: {_NOT_OF_VIDEOS}")
    return found


_NOT_OF_VIDEOS = (
    "#fps= is for sequences of pictures; --media.fps, or a column fps of a list, takes some frames of a video"
)


def _expand_at(spec: str, rate: float) -> Iterator[_Found]:
    if spec.startswith("s3://"):
        return _expand_address(spec, rate, s3.find)
    if is_remote(spec):
        return _expand_address(spec, rate, remote.find)
    path = _local_path(spec, redact(spec))
    if os.path.isdir(path):
        nothing = f"{spec}: no videos in this directory ({_LOOKED_FOR})"
        return _sorted_out(spec, _directory(path), nothing, lambda _: path.rstrip("/"), rate)
    if not os.path.exists(path):
        if s3.WILD.search(path):
            nothing = f"{spec}: this pattern matches no video"
            return _sorted_out(spec, _glob(path), nothing, lambda part: part, rate)
        raise InputError(f"{spec}: no such file or directory")
    if path.lower().endswith(LIST_SUFFIXES):
        return _list(spec, [path], lambda part: part, rate)
    return iter([_local(path)])


_LOOKED_FOR = "looked for .mp4, .mov, .mkv and the like, and for numbered JPEG or PNG frames"


def _sorted_out(
    spec: str, found: Iterable[_Found], otherwise: str, list_of: Callable[[str], str], rate: float
) -> Iterator[_Found]:
    """The videos that were found; if there are none, sequences of pictures, or else what the lists name.

    `list_of`: the list of a part.
    """
    nothing, parts, folders, pictures = True, list[str](), dict[str, None](), list[str]()
    for entry in found:
        if entry.uri.endswith("/"):
            folders[entry.uri] = None
        elif entry.uri.lower().endswith(LIST_SUFFIXES):
            parts.append(entry.uri)
        elif is_picture(entry.uri) and entry.uri != spec:
            pictures.append(entry.uri)
        else:
            nothing, folders, pictures = False, {}, []
            yield entry
    if not nothing:
        return
    tables = [part for part in parts if lists.is_part(part.rpartition("/")[2])]
    for sequence in chain(sequences.found_in(folders, rate), sequences.matched(pictures, rate)):
        if tables:
            text = f"holds a list ({redact(tables[0])}) and numbered pictures ({redact(sequence[0])})"
            raise InputError(f"{spec}: {text}; name one of them")
        nothing = False
        yield _Found(*sequence)
    if nothing and parts:
        yield from _list(spec, parts, list_of, rate)
    elif nothing:
        raise InputError(otherwise)


def _some(entries: Iterable[_T], otherwise: str) -> Iterator[_T]:
    """Passes `entries` on; InputError if there are none."""
    empty = True
    for entry in entries:
        empty = False
        yield entry
    if empty:
        raise InputError(otherwise)


def _local_path(spec: str, named: str) -> str:
    """Path of a spec that is on a disk; file:// addresses are accepted."""
    if _SCHEME.match(spec) and not spec.startswith(FILE_SCHEME):
        schemes = ", ".join(f"{scheme}://" for scheme in ("s3", *SCHEMES))
        raise InputError(f"{named}: only local paths and addresses of {schemes} can be read")
    path = python_name(spec)
    if not path or "\0" in path:
        raise InputError(f"{named!r}: not a path")
    return os.path.expanduser(path)


def _local(path: str, video_id: str | None = None) -> _Found:
    """A local file; one that cannot be looked at keeps size 0 and shows its fault when it is opened."""
    named = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        info = os.stat(named)
    except OSError:
        return _Found(text_of(named), 0, "missing", video_id)
    return _Found(text_of(named), info.st_size, str(info.st_mtime_ns), video_id)


def _directory(path: str) -> Iterator[_Found]:
    """Videos, folders of pictures and parts of lists below `path`, sorted; hidden names left out, links
    followed, loops cut."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(map(is_picture, files)):
            yield _Found(sequences.address_of(folder), 0, "")
        for name in sorted(files):
            place = os.path.join(folder, name)
            if is_video_name(name) or lists.is_part(os.path.relpath(place, path)):
                yield _local(place)


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video when nobody named it by itself."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in VIDEO_SUFFIXES


def _glob(pattern: str) -> Iterator[_Found]:
    """Matches, sorted; directories are searched; other names than videos' only if nothing else matches."""
    matches = sorted(glob.glob(pattern, recursive=True))
    files = [match for match in matches if not os.path.isdir(match)]
    videos = {match for match in files if is_video_name(match)}
    folders = {match for match in matches if os.path.isdir(match)}
    for match in matches:
        if match in folders:
            yield from _directory(match)
        elif match in videos or not (videos or folders):
            yield _local(match)


def _expand_address(
    spec: str, rate: float, find: Callable[[str, Callable[[str], bool]], Iterable[s3.Found]]
) -> Iterator[_Found]:
    folder = spec.rstrip("/")
    is_pattern = s3.WILD.search(spec)

    def counts(uri: str) -> bool:
        return is_video_name(uri) or is_picture(uri) or lists.is_part(uri.removeprefix(folder))

    def entry_of(uri: str, size: int, stamp: str) -> _Found:
        if is_picture(uri) and uri != spec and not is_pattern:
            return _Found(uri.rpartition("/")[0] + "/", 0, "")
        return _Found(uri, size, stamp)

    def list_of(part: str) -> str:
        return folder if part.startswith(folder + "/") else part

    found = (entry_of(*entry) for entry in find(spec, counts))
    nothing = f"{spec}: no such object, and no videos under this prefix ({_LOOKED_FOR})"
    return _sorted_out(spec, found, nothing, list_of, rate)


def _list(spec: str, parts: Sequence[str], list_of: Callable[[str], str], rate: float) -> Iterator[_Found]:
    """Entries of a list; S3 objects are looked up in groups, so that their size and ETag are known."""
    rows = _some(
        (
            (list_of(part), *row)
            for part in parts
            for row in lists.read(spec if len(parts) == 1 else redact(part), python_name(part))
        ),
        f"{spec}: the list has no rows",
    )
    while group := list(islice(rows, 256)):
        resolved = [(_resolve(uri, spec, path), video_id, excerpt) for path, uri, video_id, excerpt in group]
        pictures = [uri for uri, *_ in resolved if is_sequence(uri)]
        known = dict(zip(pictures, sequences.looked_up(pictures, rate), strict=True))
        objects = [uri for uri, *_ in resolved if uri.startswith("s3://") and uri not in known]
        files = [uri for uri, *_ in resolved if is_remote(uri) and uri not in known]
        looked_at = s3.heads(objects) | remote.heads(files)
        known |= {uri: (uri, *head) for uri, head in looked_at.items()}
        for uri, video_id, excerpt in resolved:
            found = _Found(*known[uri], video_id) if uri in known else _local(uri, video_id)
            yield found._replace(excerpt=excerpt)


def _resolve(uri: str, spec: str, list_path: str) -> str:
    if _is_address(uri):
        if redact(uri) != uri:
            text = f"{spec}: entry {redact(uri)} holds credentials; they belong in the environment"
            raise InputError(text)
        return uri
    if _is_address(list_path) and not os.path.isabs(uri) and not _SCHEME.match(uri):
        return s3.beside(list_path, uri, spec)
    plain, _ = without_rate(uri)
    path = _local_path(plain, f"{spec}: entry {redact(uri)}")
    beside = os.path.join(os.path.dirname(os.path.abspath(list_path)), path)
    there = beside if os.path.exists(beside) or _is_pattern(beside) else path
    if plain != uri and os.path.isfile(there):
        raise InputError(f"{spec}: entry {redact(uri)}: {_NOT_OF_VIDEOS}")
    if os.path.isdir(there) or (_is_pattern(there) and not os.path.exists(there)):
        folder, name = (there, "") if os.path.isdir(there) else os.path.split(there)
        return sequences.address_of(folder) + name + uri[len(plain) :]
    return there


def _is_address(uri: str) -> bool:
    return uri.startswith("s3://") or is_remote(uri)


def _is_pattern(path: str) -> bool:
    """Whether this may be a pattern of a sequence of pictures."""
    return is_sequence(path) and os.path.isdir(os.path.dirname(path))


_AT_LEAST = 4096
"""Entries looked at together where a limit is nearly reached: many may be named twice."""


def _unique(found: Iterator[tuple[object, ...]], limit: int | None) -> pa.Table:
    """The first so many that differ, as rows of `_FOUND`; what a list says twice must agree."""
    rows = _FOUND.empty_table()
    while True:
        if limit is not None and rows.num_rows >= limit:
            return rows.slice(0, limit)
        missing = None if limit is None else max(limit - rows.num_rows, _AT_LEAST)
        more = columns_of(islice(found, missing), _FOUND)
        if not more.num_rows:
            return rows
        rows = _first_of_each(pa.concat_tables([rows, more]))


def _first_of_each(rows: pa.Table) -> pa.Table:
    again: list[int] = []
    for first, *others in alike(_identities(rows)):
        given = rows["given_id"][first].as_py()
        for place in others:
            other = rows["given_id"][place].as_py()
            if other and other != given:
                uri = rows["uri"][place].as_py()
                raise InputError(f"{uri}: named twice, with video_id {other!r} the second time")
        again += others
    keep = np.ones(rows.num_rows, bool)
    keep[again] = False
    return rows.filter(pa.array(keep)) if again else rows


def _identities(rows: pa.Table) -> pa.ChunkedArray:
    """What makes two rows one video."""
    if all(rows[name].null_count == rows.num_rows for name in EXCERPT):
        return rows["uri"]
    return text_column(identity(uri, excerpt) for uri, _, excerpt in _cells(rows))


def _cells(rows: pa.Table) -> Iterator[tuple[str, str | None, Excerpt]]:
    """(uri, given id, excerpt) of each row."""
    for batch in rows.select(["uri", "given_id", *EXCERPT]).to_batches(max_chunksize=4096):
        for uri, given, *numbers in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield uri, given, Excerpt(**dict(zip(EXCERPT, numbers, strict=True)))


def _checked(rows: pa.Table) -> VideoList:
    """Found entries with their ids; an id that two videos would share is an error."""
    ids = text_column(
        safe_video_id(given) if given else make_video_id(uri, excerpt) for uri, given, excerpt in _cells(rows)
    )
    for one, other, *_ in alike(ids):
        uris = [rows["uri"][place].as_py() for place in (one, other)]
        raise InputError(f"video_id {ids[one].as_py()!r} is given to two videos: {uris[0]} and {uris[1]}")
    columns = [ids, *(rows[name] for name in SCHEMA.names[1:])]
    return VideoList(pa.table(columns, schema=SCHEMA))
