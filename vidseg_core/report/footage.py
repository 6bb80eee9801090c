"""The source frames of a run's videos, in any order, as far as the sources can be read.

Invariant: a source that cannot be read is asked once; what it lacks is a reason, not an error.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.records import DatasetError
from vidseg_core.kit.manifest import read_inputs, read_manifest
from vidseg_core.media import MediaError, working_size
from vidseg_core.store import Run


class Footage:
    """Frames by video and number; see the module. Ends a decode process when closed."""

    def __init__(self, run: Run, uris: dict[str, str]) -> None:
        """`uris`: addresses of the videos."""
        self._uris, self._reader = uris, ClipReader(stream=_stream(run))
        self.lost: dict[str, str] = {}
        """Videos whose source cannot be read, and why."""

    def frame(
        self, video_id: str, number: int, size: int, exact: tuple[int, int] | None = None
    ) -> np.ndarray | None:
        """frame_HW3, its longest side at most `size` (or `exact` height and width); None if it is lost."""
        if video_id in self.lost:
            return None
        uri = self._uris.get(video_id)
        if uri is None:
            self.lost[video_id] = "the run does not say where it lies"
            return None
        try:
            index = self._reader.index(uri)
            height, width = exact or working_size(index.width, index.height, size)
            return self._reader.frame(uri, number, height, width)
        except (DatasetError, MediaError) as problem:
            self.lost[video_id] = str(problem)
            return None

    def close(self) -> None:
        self._reader.close()


def _stream(run: Run) -> int | None:
    """The stream that the run was asked to read."""
    try:
        return read_manifest(run.store)["config"].get("media.stream")
    except FileNotFoundError:
        return None


def planned_uris(run: Run) -> dict[str, str]:
    """Addresses of all videos, also of those that are not closed yet, from the run's own list of inputs."""
    try:
        rows = read_inputs(run.store).to_pylist()
    except FileNotFoundError:
        return {}
    return {row["video_id"]: row["uri"] for row in rows}
