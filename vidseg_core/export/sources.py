"""Where the videos of a run lie now, and their frames.

Model: the run says where each video was. With a folder of sources a video is looked for there first, by the
name of its file; of several, the one whose folders agree most. What was another file when the run read it
(its size differs) is not taken, in that folder or where it was.
Invariant: a source that cannot be read is remembered with its reason, and not tried again.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from vidseg_core.config.errors import check
from vidseg_core.config.excerpt import EXCERPT
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.of_run import Reading
from vidseg_core.datasets.records import DatasetError
from vidseg_core.kit.manifest import read_inputs
from vidseg_core.media import MediaError, working_size
from vidseg_core.media.sequences import is_sequence, split_address
from vidseg_core.plan.video_list import SCHEMA
from vidseg_core.store import Run


class Sources:
    """Reads the videos of `run`; see the module. `folder`: where they are now, None: where they were.

    Ends a decode process when closed.
    """

    def __init__(self, run: Run, folder: str | None = None) -> None:
        folder = folder and os.path.expanduser(folder)
        check(folder is None or os.path.isdir(folder), "--sources", f"{folder} is no folder")
        self._run, self._folder = run, folder
        self._found: dict[str, str | None] = {}
        self._reader: ClipReader | None = None
        self.lost: dict[str, str] = {}
        """Videos whose source cannot be read, and why."""

    def video(self, video_id: str) -> dict[str, Any] | None:
        """The row of a video with the address that it has now (of one that is not finished, what is known);
        None if it is lost."""
        address, row = self._address(video_id), self._run.video(video_id)
        if row is None:
            rows = sum(self._run.rows_in(key) for _, keys in self._run.files(video_id) for key in keys)
            row = {"video_id": video_id, "stream": self._reading.stream, "decoded_frames": rows}
            planned = self._planned(video_id)
            row |= {name: planned.get(name) for name in EXCERPT}
        return row | {"uri": address} if address else None

    def frame(
        self, video_id: str, number: int, size: int = 0, exact: tuple[int, int] | None = None
    ) -> np.ndarray | None:
        """frame_HW3 as masks of the run lie on it; None if it is lost.

        Its longest side is at most `size`, or height and width are `exact`.
        """
        address = self._address(video_id)
        if address is None:
            return None
        self._reader = self._reader or self._reading.reader()
        try:
            index = self._reader.index(address)
            shown = index.shown if self._reading.as_shown else (index.height, index.width)
            height, width = exact or working_size(shown[1], shown[0], size)
            return self._reader.frame(address, number, height, width)
        except (DatasetError, MediaError) as problem:
            return self._lose(video_id, str(problem))

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _lose(self, video_id: str, why: str) -> None:
        self.lost[video_id] = why

    def _address(self, video_id: str) -> str | None:
        """Where the video lies now; None if it is lost."""
        if video_id not in self._found:
            row = self._run.video(video_id) or self._planned(video_id)
            if not row:
                self._lose(video_id, "the run does not say where it lies")
            self._found[video_id] = self._moved(video_id, row["uri"]) if row else None
        return None if video_id in self.lost else self._found[video_id]

    @cached_property
    def _reading(self) -> Reading:
        return Reading.of(self._run)

    def _planned(self, video_id: str) -> dict[str, Any]:
        """What the run's own list of inputs says of a video, finished or not; empty if it says nothing."""
        ids = self._inputs["video_id"]
        place = bisect_left(range(len(ids)), video_id, key=lambda number: ids[number].as_py())
        found = self._inputs.slice(place, 1).to_pylist()
        return found[0] if found and found[0]["video_id"] == video_id else {}

    @cached_property
    def _inputs(self) -> pa.Table:
        try:
            return read_inputs(self._run.store).sort_by("video_id")
        except FileNotFoundError:
            return SCHEMA.empty_table()

    def _moved(self, video_id: str, uri: str) -> str | None:
        """Where the video of this address is in the folder of sources; the address if it is not there."""
        place, rest = split_address(uri) if is_sequence(uri) else (uri, "")
        parts = PurePosixPath(urlsplit(place).path if "://" in place else place).parts
        there = self._there.get(parts[-1], []) if self._folder and parts else []
        there = [path for path in there if path.is_dir() == bool(rest)]
        size = self._planned(video_id).get("size")
        if not there and size and os.path.isfile(uri) and os.path.getsize(uri) != size:
            return self._lose(video_id, f"{uri} is another file by now: its size differs")
        same = [path for path in there if path.is_dir() or not size or path.stat().st_size == size]
        if there and not same:
            return self._lose(video_id, f"{there[0]} is another file of that name: its size differs")
        agree = [_common(path.parts, parts) for path in same]
        best = [path for path, length in zip(same, agree, strict=True) if length == max(agree)]
        if len(best) > 1:
            return self._lose(video_id, f"{best[0]} and {best[1]} both have its name")
        return f"{best[0]}{rest}" if best else uri

    @cached_property
    def _there(self) -> dict[str, list[Path]]:
        """Everything in the folder of sources, by name."""
        found: dict[str, list[Path]] = {}
        for folder, folders, files in os.walk(self._folder or ""):
            for path in (Path(folder, name) for name in (*folders, *files)):
                if path.exists():  # not a link that leads nowhere
                    found.setdefault(path.name, []).append(path)
        return found


def _common(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    """How many parts at the end of two paths are the same."""
    pairs = zip(reversed(one), reversed(two), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))
