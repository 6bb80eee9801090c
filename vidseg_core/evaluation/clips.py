"""Which frames are run, and which of them are measured: the two protocols.

Model: a clip has one or several `runs`, stretches of frames that are each begun anew with a key frame.

- `whole-clip` (DVRL on 300VW): one run, the whole clip; every frame that has a truth is measured.
- `snippet` (DVSNet 4.1 and DVRL 4.1 on Cityscapes): runs of `snippet_frames`; the first frame is key, and the
  last one, the annotated frame, is measured. A clip with one label gives one run that ends there (frames 1 to
  20 of a Cityscapes snippet); a clip with many gives runs one after the other, each ending at a label.

Invariant: names and runs depend on the data set and on the options alone, so that a run can be continued.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from vidseg_core.config.build_episodes import LABELS
from vidseg_core.config.catalogue import EVERY
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.datasets.records import Item
from vidseg_core.episodes.sources import dataset_of, require_neighbours
from vidseg_core.plan.ids import safe_video_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip of a data set, without pixels."""

    name: str
    source: str
    """Data set as typed."""
    video_id: str
    """The data set's name of the clip."""
    runs: tuple[tuple[int, int], ...]
    """(first frame, frame after the last) of each run, counted in frames of the clip; none: not usable."""
    measures_last: bool
    """Only the last frame of each run is measured."""
    stamp: str
    """Eight hex digits that change when a file of the clip changes."""

    @property
    def frames(self) -> int:
        """Frames that are run."""
        return sum(stop - start for start, stop in self.runs)


def clips_of(config: EvaluateConfig) -> list[Clip]:
    """All clips, in order; `ConfigError` for two of one name and for stills, `DatasetError` for data that is
    not there."""
    clips: list[Clip] = []
    origin: dict[str, str] = {}
    carries = any(method.scheduler.name != EVERY for method in config.parsed_methods())
    for source in config.data:
        for video_id, found in groupby(dataset_of(source, "").items(config.split), key=_video_of):
            name, items = safe_video_id(video_id), list(found)
            if name in origin:
                raise ConfigError("--data", f"clip {name} is in {origin[name]} and in {source}")
            if config.limit is not None and len(clips) >= config.limit:
                return clips
            origin[name] = source
            if carries:
                require_neighbours(source, name, items)
            items = items[: config.clip_frames or None]
            clips.append(
                Clip(
                    name=name,
                    source=source,
                    video_id=video_id,
                    runs=runs_of(config, [item.label is not None for item in items]),
                    measures_last=config.protocol == "snippet",
                    stamp=_stamp(items),
                )
            )
    return clips


def runs_of(config: EvaluateConfig, labelled: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """(start, stop) of each run of a clip whose frames have a label or not."""
    if config.protocol == "whole-clip":
        return ((0, len(labelled)),) if labelled else ()
    length = config.snippet_frames
    ends = [place for place, has in enumerate(labelled) if has]
    if not ends and config.segmenter != LABELS:
        ends = list(range(length - 1, len(labelled), length))
    if len(ends) == 1 and ends[0] > 0:
        return ((max(0, ends[0] + 1 - length), ends[0] + 1),)
    runs, free = [], 0
    for end in ends:
        if end + 1 - length >= free:
            runs.append((end + 1 - length, end + 1))
            free = end + 1
    return tuple(runs)


def class_names(config: EvaluateConfig) -> tuple[str, ...]:
    """Class names of the labels; empty where there are none. `ConfigError` if data sets differ."""
    named = {source: dataset_of(source, "").class_names for source in config.data}
    first = config.data[0]
    for source, names in named.items():
        if names != named[first]:
            problem = f"{first} and {source} have different classes: one evaluation each, or ?remap=FILE"
            raise ConfigError("--data", problem)
    if not named[first] and config.segmenter == LABELS:
        raise ConfigError("--data", f"{first} has no labels to stand in for the net: name a --segmenter")
    return named[first]


@lru_cache(maxsize=4)
def items_of(source: str, split: str, video_id: str) -> tuple[Item, ...]:
    """The clip's frames in order."""
    return tuple(item for item in dataset_of(source, "").items(split) if item.video_id == video_id)


def _video_of(item: Item) -> str:
    return item.video_id


def _stamp(items: Sequence[Item]) -> str:
    """Digest of names, sizes and times of the clip's files; what is no file counts by its name."""
    total = hashlib.sha256()
    for path in dict.fromkeys(path for item in items for path in (item.image, item.label or "")):
        try:
            found = os.stat(path)
            total.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        except (OSError, ValueError):
            total.update(f"{path}\n".encode("utf-8", "surrogateescape"))
    total.update(str(len(items)).encode())
    return total.hexdigest()[:8]
