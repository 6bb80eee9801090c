"""The names of an output's objects, and nothing else: what a name says is all that resume and readers need.

A run of `segment`:

    frames/video=<id>/part-<segment>-<shard>.parquet         rows of one shard
    frames/video=<id>/span-<segment>-<first>-<last>.parquet  rows of shards first..last, merged by `compact`
    videos/<id>.parquet                                      the row of a video
    _state/video=<id>/<segment>-<next_shard>-<next_part>.state
    _state/video=<id>/verdict.json                           why a video is given up, while its run goes on
    _state/video=<id>/row.parquet                            the row of a video that is made again meanwhile
    _state/video=<id>/alone-<segment>-<shard>-<process>.<fate>  a process that ran this shard alone
    _state/engine/start-<process>.<fate>                     one that was starting its engine
    _state/engine/crash-<id>                                 a video that no engine process survived
    _state/drain-<id>                                        a driver that asks its workers to end
    _run/manifest.json, _run/inputs.parquet, _run/calibration.json, run.json, _SUCCESS
    preview/<id>.mp4, preview/<id>.jpg                       for people; nothing reads them

A set of `build-episodes` has a manifest, `segments.parquet` and

    tables/video=<clip>/segment-<number>.arrow

An evaluation has a manifest, its tables, run.json, _SUCCESS and

    cells/clip=<clip>/<method>-<stamp>.parquet               what one method gave on one clip
    net/clip=<clip>/<stamp>.parquet                          N's masks of a clip

Training leaves `curve.parquet`, a search `trials.parquet` and `pareto.parquet`, beside manifest.json and
run.json.

Names sort in frame order within a kind, and every span sorts after every part of its video. (A paged listing
that misses a part because `compact` has just removed it therefore still comes to the span that replaces it.)
A part inside the range of a span is covered: its rows are in the span, readers skip it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vidseg_core.store.errors import StoreError

FRAMES_PREFIX = "frames/"
VIDEOS_PREFIX = "videos/"
STATE_PREFIX = "_state/"
ENGINE_PREFIX = f"{STATE_PREFIX}engine/"
CRASH_PREFIX = f"{ENGINE_PREFIX}crash-"
START_PLACE = f"{ENGINE_PREFIX}start"
"""Place of the processes that died while their engine was made."""
DRAIN_PREFIX = f"{STATE_PREFIX}drain-"
MANIFEST_KEY = "_run/manifest.json"
INPUTS_KEY = "_run/inputs.parquet"
CALIBRATION_KEY = "_run/calibration.json"
RUN_KEY = "run.json"
SUCCESS_KEY = "_SUCCESS"
TABLES_PREFIX = "tables/"
SEGMENTS_KEY = "segments.parquet"
CELLS_PREFIX, NET_PREFIX = "cells/", "net/"
RESULTS_KEY, METHODS_KEY, FRAMES_KEY = "results.parquet", "methods.parquet", "frames.parquet"
QUARANTINE_KEY = "quarantine.parquet"
TRAINING_KEY = "manifest.json"
"""The manifest of a folder that a net, a policy or a search is trained into."""
CURVE_KEY = "curve.parquet"
TRIALS_KEY, PARETO_KEY = "trials.parquet", "pareto.parquet"

_ID = r"(?P<id>[A-Za-z0-9._-]+)"
_ID_PATTERN = re.compile(_ID)
_PART_PATTERN = re.compile(rf"frames/video={_ID}/part-(?P<segment>\d{{5,}})-(?P<first>\d{{6,}})\.parquet")
_SPAN_PATTERN = re.compile(
    rf"frames/video={_ID}/span-(?P<segment>\d{{5,}})-(?P<first>\d{{6,}})-(?P<last>\d{{6,}})\.parquet"
)
_STATE_PATTERN = re.compile(
    rf"_state/video={_ID}/(?P<segment>\d{{5,}})-(?P<shard>\d{{6,}})-(?P<part>\d{{6,}})\.state"
)
_TABLE_PATTERN = re.compile(rf"tables/video={_ID}/segment-(?P<segment>\d{{5,}})\.arrow")
_CELL_PATTERN = re.compile(rf"cells/clip={_ID}/(?P<method>[0-9a-f]{{10}})-(?P<stamp>[0-9a-f]{{8}})\.parquet")
_KEPT_PATTERN = re.compile(rf"_state/video={_ID}/row\.parquet")
_ATTEMPT_PATTERN = re.compile(r"-(?P<process>\w+)\.(?P<fate>[a-z-]+)")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One line of a listing."""

    key: str
    size: int
    """Bytes."""
    modified: float = 0.0
    """When it was written, seconds since 1970."""


@dataclass(frozen=True, slots=True, order=True)
class PartKey:
    """Which rows a file under `frames/` holds: shards `first` to `last` (both included) of one segment."""

    video_id: str
    segment: int
    first: int
    last: int
    is_span: bool = False

    def __str__(self) -> str:
        if self.is_span:
            return span_key(self.video_id, self.segment, self.first, self.last)
        return part_key(self.video_id, self.segment, self.first)


@dataclass(frozen=True, slots=True, order=True)
class StateKey:
    """Where a segment stands: shards before `next_shard` are read, parts before `next_part` are committed."""

    video_id: str
    segment: int
    next_shard: int
    next_part: int

    def __str__(self) -> str:
        return state_key(self.video_id, self.segment, self.next_shard, self.next_part)


@dataclass(frozen=True, slots=True, order=True)
class TableKey:
    """Which segment an episode table holds."""

    clip: str
    segment: int

    def __str__(self) -> str:
        return f"{TABLES_PREFIX}video={_check_id(self.clip)}/segment-{_number(self.segment):05d}.arrow"


@dataclass(frozen=True, slots=True, order=True)
class CellKey:
    """Which cell of an evaluation an object holds."""

    clip: str
    method: str
    """Digest of the method's options."""
    stamp: str

    def __str__(self) -> str:
        return f"{CELLS_PREFIX}clip={self.clip}/{self.method}-{self.stamp}.parquet"


def check_key(key: str) -> str:
    """Return `key` if it can name an object, else raise `ValueError`.

    A key is relative, uses "/", and has no component that is empty or begins with a dot ("..", or temporary
    files of the local store), so no key leaves the root.
    """
    parts = key.split("/")
    if any(not part or part.startswith(".") for part in parts):
        raise ValueError(f"not an object key: {key!r} (a component is empty or begins with a dot)")
    if "\\" in key or any(ord(char) < 32 for char in key):
        raise ValueError(f"not an object key: {key!r} (backslash or control character)")
    return key


def beginning_with(word: str, known: Iterable[str]) -> list[str]:
    """The id that a word is, or else all ids that it begins."""
    known = list(known)
    return [word] if word in known else [name for name in known if word and name.startswith(word)]


def frames_prefix(video_id: str) -> str:
    """What the keys of a video's parts and spans begin with; `ValueError` for an id unfit for a key."""
    return f"{FRAMES_PREFIX}video={_check_id(video_id)}/"


def part_key(video_id: str, segment: int, shard: int) -> str:
    """The key of one shard's rows."""
    return f"{frames_prefix(video_id)}part-{_number(segment):05d}-{_number(shard):06d}.parquet"


def span_key(video_id: str, segment: int, first: int, last: int) -> str:
    """The key of the merged rows of shards `first` to `last`, both included."""
    name = f"span-{_number(segment):05d}-{_number(first):06d}-{_number(last):06d}.parquet"
    return f"{frames_prefix(video_id)}{name}"


def states_prefix(video_id: str) -> str:
    """What the keys of everything that is kept while a video is open begin with."""
    return f"{STATE_PREFIX}video={_check_id(video_id)}/"


def state_key(video_id: str, segment: int, next_shard: int, next_part: int) -> str:
    """The key of a segment's state after the shards before `next_shard`."""
    name = f"{_number(segment):05d}-{_number(next_shard):06d}-{_number(next_part):06d}.state"
    return f"{states_prefix(video_id)}{name}"


def video_key(video_id: str) -> str:
    """Where a video's row lives."""
    return f"{VIDEOS_PREFIX}{_check_id(video_id)}.parquet"


def preview_key(video_id: str, kind: str) -> str:
    """Where a picture or clip of a video lies that people look at."""
    return f"preview/{_check_id(video_id)}.{kind}"


def verdict_key(video_id: str) -> str:
    """Where the fatal verdict on a video is kept while its run goes on."""
    return f"{states_prefix(video_id)}verdict.json"


def kept_key(video_id: str) -> str:
    """Where the row of a video waits while what it lacks is made again."""
    return f"{states_prefix(video_id)}row.parquet"


def parse_kept(key: str) -> str | None:
    """The video whose row waits under a key; None for any other key."""
    match = _KEPT_PATTERN.fullmatch(key)
    return match and match["id"]


def net_key(clip: str, stamp: str) -> str:
    """Where an evaluation keeps N's masks of a clip."""
    return f"{NET_PREFIX}clip={clip}/{stamp}.parquet"


def shard_place(video_id: str, segment: int, shard: int) -> str:
    """What the keys of the processes that ran this shard alone begin with."""
    return f"{states_prefix(video_id)}alone-{_number(segment):05d}-{_number(shard):06d}"


def attempt_key(place: str, process: str, fate: str) -> str:
    """The key that says what became of a process at a place."""
    return f"{place}-{process}.{fate}"


def parse_attempt(place: str, key: str) -> tuple[str, str] | None:
    """(process, fate) of a key at a place; None for any other key."""
    match = _ATTEMPT_PATTERN.fullmatch(key.removeprefix(place))
    return match and (match["process"], match["fate"])


def crash_key(video_id: str) -> str:
    """The key that counts a video among those in a row on which engine processes died."""
    return f"{CRASH_PREFIX}{_check_id(video_id)}"


def parse_part_key(key: str) -> PartKey | None:
    """What a key under `frames/` says (part or span); None for any other key."""
    match = _PART_PATTERN.fullmatch(key)
    if match:
        first = int(match["first"])
        return PartKey(match["id"], int(match["segment"]), first, first)
    match = _SPAN_PATTERN.fullmatch(key)
    if match:
        return PartKey(match["id"], int(match["segment"]), int(match["first"]), int(match["last"]), True)
    return None


def parse_state_key(key: str) -> StateKey | None:
    """What a state key says; None for any other key."""
    match = _STATE_PATTERN.fullmatch(key)
    return match and StateKey(match["id"], int(match["segment"]), int(match["shard"]), int(match["part"]))


def parse_table_key(key: str) -> TableKey | None:
    """What the key of an episode table says; None for any other key."""
    match = _TABLE_PATTERN.fullmatch(key)
    return match and TableKey(match["id"], int(match["segment"]))


def parse_cell_key(key: str) -> CellKey | None:
    """What the key of a cell says; None for any other key."""
    match = _CELL_PATTERN.fullmatch(key)
    return match and CellKey(match["id"], match["method"], match["stamp"])


def visible(keys: Iterable[PartKey]) -> list[PartKey]:
    """The files of one video that readers read, in frame order: those that no span covers.

    `StoreError` if two of them overlap without one covering the other (nothing of ours writes that).
    """
    chosen: list[PartKey] = []
    for key in sorted(keys, key=lambda k: (k.segment, k.first, -k.last, not k.is_span)):
        before = chosen[-1] if chosen else None
        if before and before.segment == key.segment and key.first <= before.last:
            if key.last > before.last:
                raise StoreError(f"{before} and {key} overlap: frames would be read twice")
            continue
        chosen.append(key)
    return chosen


def _check_id(video_id: str) -> str:
    if not _ID_PATTERN.fullmatch(video_id) or not video_id.strip("."):
        raise ValueError(f"video id {video_id!r}: only letters, digits, '.', '_' and '-' may be in it")
    return video_id


def _number(value: int) -> int:
    if value < 0:
        raise ValueError(f"segment, shard and part numbers are not negative: {value}")
    return value
