"""What is exported: chosen frames of some videos of a run, with their masks, their pictures and class names.

Model: a writer asks for the shots of each video, in frame order, and writes them. A writer of objects numbers
the classes that are objects from 1: runs have no objects yet, so there is one object, one track, a class.
Invariant: a shot's picture is the frame itself, decoded as the run decoded it, at the size of the mask. If a
source cannot be read, the shots of that video end; `Sources.lost` knows why.

Legend: `_HW` height, width, `_HW3` with RGB.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vidseg_core.config.export import ExportConfig
from vidseg_core.drawing.palette import is_background
from vidseg_core.export.sources import Sources
from vidseg_core.kit.progress import Reporter
from vidseg_core.store import Run
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.errors import StoreError

UNLABELLED = 255
ONE_A_CLASS = "Runs hold classes, not objects: all pixels of a class are one object, one track a video."
"""What a format of objects says in its files."""
CHOSEN_BY = ("pts_s", "is_key")
"""Columns that say whether a frame is chosen."""
_COLUMNS = (*CHOSEN_BY, "height", "width", "mask")
Wants = Callable[[str, Mapping[str, Any]], bool]
"""Of a video's id and a row: is the frame exported?"""


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame."""

    video_id: str
    frame_index: int
    pts_s: float | None
    labels_HW: np.ndarray
    frame_HW3: np.ndarray | None
    """None where no pictures were asked for."""

    @property
    def name(self) -> str:
        """`VIDEO-FRAME`."""
        return f"{self.video_id}-{self.frame_index:08d}"


@dataclass(frozen=True)
class Classes:
    """The classes of a run, and which of them are objects."""

    names: tuple[str, ...]
    left_out: frozenset[int]
    """Classes that are no objects: a background, and 255 where the names do not reach it."""

    @classmethod
    def of(cls, run: Run, *, background: bool) -> Classes:
        """`background`: a class 0 that is called background is an object too."""
        names = tuple(run.info().get("segmenter", {}).get("class_names") or ())
        left_out = {0} if is_background(names) and not background else set()
        names = (names or _numbered(run))[: UNLABELLED + 1]  # a mask holds no other
        left_out |= {UNLABELLED} if len(names) <= UNLABELLED else set()
        return cls(names, frozenset(left_out))

    def name(self, label: int) -> str:
        """The name of a class; `class_<id>` if it has none."""
        return self.names[label] if label < len(self.names) else f"class_{label}"

    @property
    def objects(self) -> dict[int, str]:
        """Class id -> name of those that are objects."""
        return {label: name for label, name in enumerate(self.names) if label not in self.left_out}

    @property
    def numbers(self) -> np.ndarray:
        """int64 [256]: number of the object that a class is, from 1; 0: it is none."""
        numbers = np.arange(256) + (0 if 0 in self.left_out else 1)
        numbers[list(self.left_out)] = 0
        return numbers

    def numbers_below(self, limit: int, form: str) -> np.ndarray:
        """The same, uint8; `StoreError` if a format has too few of them."""
        if self.numbers[list(self.objects)].max(initial=0) >= limit:
            problem = f"has room for {limit - 1} objects, and the run has {len(self.objects)} classes"
            raise StoreError(f"--format: {form} {problem}")
        return self.numbers.astype(np.uint8)


@dataclass
class Take:
    """See the module."""

    run: Run
    out: Path
    videos: Sequence[str]
    classes: Classes
    sources: Sources
    options: ExportConfig
    pictures: bool
    """Whether the shots have pictures."""
    wants: Wants | None
    """Which frames; None: all of them."""
    report: Reporter
    passed: Callable[[], None] = field(default=lambda: None)
    """Called for every frame that is done with."""

    def shots(self, video_id: str) -> Iterator[Shot]:
        """The chosen frames of a video, in order."""
        for row in self.run.rows(video_id, _COLUMNS):
            if self.wants is None or self.wants(video_id, row):
                labels_HW = self.run.labels(video_id, row)
                frame_HW3 = None
                if self.pictures:
                    height, width = labels_HW.shape
                    frame_HW3 = self.sources.frame(video_id, row["frame_index"], exact=(height, width))
                    if frame_HW3 is None:
                        return
                yield Shot(video_id, row["frame_index"], row["pts_s"], labels_HW, frame_HW3)
            self.passed()

    def all_shots(self) -> Iterator[Shot]:
        """Those of all videos, one after the other."""
        for video_id in self.videos:
            yield from self.shots(video_id)

    def write_picture(self, name: str, shot: Shot) -> None:
        """The picture of a shot as JPEG, if pictures are wanted."""
        if shot.frame_HW3 is not None:
            write_file(self.out / name, jpeg(shot.frame_HW3))


def write_file(path: Path, data: bytes) -> None:
    """Write one of many files, and the folders above it."""
    make_folder(path.parent)
    write_whole(path, data, sync=False)


def png(picture: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """A gray or RGB picture as PNG; with a palette [256, 3] its values keep their numbers."""
    image = Image.fromarray(picture)
    if palette is not None:
        image.putpalette(palette.tobytes())
    sink = io.BytesIO()
    image.save(sink, format="png", optimize=False)
    return sink.getvalue()


def jpeg(picture_HW3: np.ndarray) -> bytes:
    """An RGB picture as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return cv2.imencode(".jpg", cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _numbered(run: Run) -> tuple[str, ...]:
    """`class_0`, `class_1`, ... of a run that names none."""
    for video_id, _ in run.files():
        for row in run.rows(video_id, ("class_pixels",)):
            return tuple(f"class_{place}" for place in range(len(row["class_pixels"])))
    return ()
