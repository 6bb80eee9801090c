"""The row of a video whose missing parts are being made again: it waits beside the states, and comes back.

Model: a repair (`whole`) copies the row here before it takes the row away. Whoever plans the video finds the
copy and runs only those segments that lack a part; whoever closes the video writes the copy as its row.
Invariant: a video that was done stays what it was, or the run ends with a sentence that says why it cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidseg_core.store.checked import read_checked
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import STATE_PREFIX, parse_kept, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.schema import VIDEOS_SCHEMA, conformed


def kept_videos(store: ObjectStore) -> frozenset[str]:
    """The videos whose rows wait."""
    found = (parse_kept(info.key) for info in store.list(f"{STATE_PREFIX}video="))
    return frozenset(video_id for video_id in found if video_id is not None)


def read_row(store: ObjectStore, video_id: str, key: str) -> dict[str, Any] | None:
    """A video's row, or the copy that waits; None where there is none, or a damaged one."""
    try:
        table = read_checked(store.get(key), video_key(video_id), f"output {store.root}")
    except (FileNotFoundError, DamagedFile):
        return None
    return conformed(table, VIDEOS_SCHEMA, f"output {store.root}: {key}").to_pylist()[0]


def put_back(kept: Mapping[str, Any], parts: int, fatal: str | None) -> dict[str, Any]:
    """The row of a video whose parts are all there again; `DamagedFile` if they cannot be."""
    if fatal is not None:
        raise cannot(kept, fatal)
    if kept["parts"] not in (None, parts):
        raise cannot(kept, f"it is cut into {parts} parts now, not {kept['parts']}")
    return {**kept, "parts": parts}


def cannot(kept: Mapping[str, Any], why: str) -> DamagedFile:
    """What says that a video's missing frames cannot be had from its source any more."""
    return DamagedFile(
        f"frames of {kept['video_id']} that are missing cannot be made again from {kept['uri']}, which has "
        f"changed since or cannot be read now ({why})"
    )
