"""Where a run stands, read from its output alone: while it runs, after a crash, from any machine.

Nothing is asked of Ray or of the driver. Committed parts and saved states are counted in listings; only rows
of videos and the newest state of each open segment are read. Memory: a count per open video.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from vidseg_core.config.words import count
from vidseg_core.kit.manifest import read_inputs, read_manifest
from vidseg_core.kit.progress import clock
from vidseg_core.kit.whole import lacking
from vidseg_core.pipeline.saved import CursorError, read_saved
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import (
    DRAIN_PREFIX,
    FRAMES_PREFIX,
    MANIFEST_KEY,
    STATE_PREFIX,
    SUCCESS_KEY,
    StateKey,
    parse_part_key,
    parse_state_key,
)
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.run import Run
from vidseg_core.store.schema import VIDEOS_SCHEMA
from vidseg_core.store.soundness import Claims, Verified, damaged_files

_SHOWN = 10
_DRAIN_S = 600.0
"""An older mark was left by a driver that was killed while it drained."""


@dataclass(slots=True, kw_only=True)
class OpenVideo:
    """A video that has begun and has no row yet."""

    video_id: str
    parts: int = 0
    frames_saved: int = 0
    """Frames in committed parts, going by the newest saved state of each segment."""


@dataclass(slots=True, kw_only=True)
class RunStatus:
    """What a person wants to know of a run."""

    output: str
    complete: bool
    idle_s: float | None
    """Seconds since the last commit; None: there is none yet."""
    scheduler: str
    segmenter: str
    videos_total: int
    ok: int = 0
    partial: int = 0
    quarantined: int = 0
    frames: int = 0
    """Of videos that are done, and what is saved of the open ones."""
    keys: int = 0
    parts: int = 0
    bytes: int = 0
    """Of the committed parts."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Quarantined videos by reason code."""
    open_videos: list[OpenVideo] = field(default_factory=list)
    draining: bool = False
    missing: list[str] = field(default_factory=list)
    """What was committed and is not there."""
    damaged: list[str] = field(default_factory=list)
    """Files that are not what was written; looked for only when asked."""
    verified_files: int = 0
    """Files that were read for that."""
    without_checksums: int = 0
    """Files of an older version among them: their masks were decoded."""

    @property
    def sound(self) -> bool:
        """Whether nothing is missing or damaged, as far as was looked."""
        return not self.missing and not self.damaged

    @property
    def done(self) -> int:
        return self.ok + self.partial + self.quarantined


def read_status(output: str, *, verify: bool = False) -> RunStatus:
    """The status of the run at ``output``; `StoreError` if there is none.

    ``verify``: read every part, span and row of a video.
    """
    store = open_store(output)
    try:
        manifest = read_manifest(store)
    except FileNotFoundError:
        raise StoreError(f"{output} holds no run of vidseg segment ({MANIFEST_KEY} is missing)") from None
    config = manifest["config"]
    status = RunStatus(
        output=store.root,
        complete=store.exists(SUCCESS_KEY),
        idle_s=None,
        scheduler=str(config.get("scheduler.name", "?")),
        segmenter=str(config.get("segmenter", "?")),
        videos_total=_inputs(store),
    )
    bad = _verify(store, status) if verify else ()
    closed = _count_rows(store, status, bad)
    _count_open(store, status, closed)
    return status


def _verify(store: ObjectStore, status: RunStatus) -> set[str]:
    """Read all that is committed; the keys of damaged files."""
    verified = Verified()
    faults = list(damaged_files(Run(store), verified))
    status.damaged = list(map(str, faults))
    status.verified_files, status.without_checksums = verified.files, verified.without_checksums
    return {fault.key for fault in faults}


def _inputs(store: ObjectStore) -> int:
    try:
        return read_inputs(store).num_rows
    except FileNotFoundError:  # a driver died between the two
        return 0


def _count_rows(store: ObjectStore, status: RunStatus, bad: Collection[str]) -> set[str]:
    """Count the rows of videos, and compare what they say with what is there."""
    table = pa.concat_tables([VIDEOS_SCHEMA.empty_table(), *Run(store).video_batches(skip=bad)])
    status.missing = [str(fault) for fault in lacking(store, Claims([table])) if fault.key not in bad]
    rows = table.to_pydict()
    counts = Counter(rows["status"])
    status.ok, status.partial, status.quarantined = (counts[n] for n in ("ok", "partial", "quarantined"))
    status.frames, status.keys = sum(rows["decoded_frames"]), sum(rows["keys"])
    codes = (
        str(reason).partition(":")[0]
        for name, reason in zip(rows["status"], rows["reason"], strict=True)
        if name == "quarantined"
    )
    status.reasons = dict(Counter(codes).most_common())
    return set(rows["video_id"])


def _count_open(store: ObjectStore, status: RunStatus, closed: set[str]) -> None:
    last, found = 0.0, {}
    for info in store.list(FRAMES_PREFIX):
        key = parse_part_key(info.key)
        if key is None:
            continue
        status.parts, status.bytes, last = (
            status.parts + 1,
            status.bytes + info.size,
            max(last, info.modified),
        )
        if key.video_id not in closed:
            found.setdefault(key.video_id, OpenVideo(video_id=key.video_id)).parts += 1
    states = []
    for info in store.list(STATE_PREFIX):
        fresh = time.time() - info.modified < _DRAIN_S
        status.draining |= fresh and info.key.startswith(DRAIN_PREFIX)
        key = parse_state_key(info.key)
        if key is not None and key.video_id not in closed:
            states.append(key)
    for key in _newest(states):
        video = found.setdefault(key.video_id, OpenVideo(video_id=key.video_id))
        try:
            saved = read_saved(store.get(str(key)))
        except (FileNotFoundError, CursorError):  # swept, or written by another version
            continue
        video.frames_saved += saved.frames_in_parts
        status.frames += saved.frames_in_parts
        status.keys += saved.keys_in_parts
    status.open_videos = sorted(found.values(), key=lambda video: video.video_id)
    status.idle_s = round(max(0.0, time.time() - last), 1) if last else None


def _newest(states: Iterable[StateKey]) -> list[StateKey]:
    newest: dict[tuple[str, int], StateKey] = {}
    for state in states:
        place = (state.video_id, state.segment)
        if place not in newest or newest[place] < state:
            newest[place] = state
    return list(newest.values())


def as_json(status: RunStatus) -> str:
    """One line."""
    return json.dumps({"event": "status"} | asdict(status) | {"done": status.done})


def as_text(status: RunStatus) -> str:
    """A table."""
    if status.complete:
        state = "complete" if status.sound else "finished, but not all of it is there as it was"
    elif status.idle_s is None:
        state = "begun, nothing committed yet"
    else:
        state = f"open, last commit {clock(status.idle_s)} ago" + (", draining" if status.draining else "")
    total = f"/{status.videos_total:,}" if status.videos_total else ""
    keys = f" ({100 * status.keys / status.frames:.1f} % keys)" if status.frames else ""
    lines = [
        ("output", status.output),
        ("state", state),
        ("net, scheduler", f"{status.segmenter}, {status.scheduler}"),
        (
            "videos done",
            f"{status.done:,}{total} ({status.ok:,} ok, {status.partial:,} partial, "
            f"{status.quarantined:,} quarantined)",
        ),
        ("frames", f"{status.frames:,}{keys}"),
        ("parts", f"{status.parts:,} ({status.bytes / 2**20:.1f} MiB)"),
    ]
    if status.reasons:
        lines.append(("quarantined", ", ".join(f"{n} {code}" for code, n in status.reasons.items())))
    lines += [
        ("open", f"{video.video_id}: {video.parts} parts, {video.frames_saved:,} frames")
        for video in status.open_videos[:_SHOWN]
    ]
    if len(status.open_videos) > _SHOWN:
        lines.append(("", f"... and {len(status.open_videos) - _SHOWN} more"))
    lines += _faults("missing", status.missing) + _faults("damaged", status.damaged)
    if status.verified_files:
        lines.append(("verified", _verified(status)))
    if not status.sound:
        lines.append(("to go on", "the command that began the run, with --repair"))
    elif not status.complete:
        lines.append(("to go on", "the command that began the run, again"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _faults(name: str, faults: list[str]) -> list[tuple[str, str]]:
    more = [("", f"... and {len(faults) - _SHOWN:,} more")] if len(faults) > _SHOWN else []
    return [(name, fault) for fault in faults[:_SHOWN]] + more


def _verified(status: RunStatus) -> str:
    older = status.without_checksums
    text = f"{count(status.verified_files, 'file')} read, {len(status.damaged):,} damaged"
    return text + (
        f"; {older:,} have no checksums (older version): their masks were decoded" if older else ""
    )
