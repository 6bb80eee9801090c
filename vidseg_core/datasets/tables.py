"""`tables:RUN`: the mask table of a run (`vidseg segment`, `vidseg pseudo-label`) with its source videos.

Every row of the run is a labelled frame: the mask is the label, the frame is decoded from the video that the
run names, at the mask's size and as the mask lies on it. Rows of frames that the decoder called corrupt are
left out. `sources=FOLDER` looks for the videos there, by file name; `keys=yes` takes key frames only;
`min_confidence=0.8` takes frames whose `confidence` column says at least so much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.listed import ListedDataset, Missing
from vidseg_core.datasets.of_run import Reading
from vidseg_core.datasets.pictures import check_ids
from vidseg_core.datasets.records import DatasetError, Item, Record
from vidseg_core.datasets.spec import DatasetSpec
from vidseg_core.media.sequences import is_sequence, split_address
from vidseg_core.store import Run, StoreError, open_run
from vidseg_core.store.soundness import Claims, missing, raise_for

CONFIDENCE = "confidence"
LABELLED = "confident_share"
"""Share of the pixels with a label: a frame without any teaches nothing."""
"""Optional column: how sure the teacher is of a frame, 0 to 1."""
_COLUMNS = ("frame_index", "height", "width", "is_key", "is_corrupt", CONFIDENCE, LABELLED)


class MaskTables(ListedDataset):
    """A run read back as labelled frames."""

    name = "tables"
    OPTIONS = frozenset(("sources", "keys", "min_confidence"))

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        if not spec.path:
            raise DatasetError("tables: no path given; expected tables:RUN, the --output of a run")
        self._sources = spec.option("sources")
        self._keys_only = spec.flag("keys")
        self._least = _share(spec.option("min_confidence"))
        self._readers: dict[int | None, ClipReader] = {}
        self._classes = tuple(map(str, self._run.info().get("segmenter", {}).get("class_names", ())))

    @cached_property
    def _run(self) -> Run:
        try:
            return open_run(self.where)
        except StoreError as error:
            raise DatasetError(f"tables: {error}") from error

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes

    def missing(self) -> Iterator[Missing]:
        if not self._run.complete:
            yield Missing(f"{self.where} is not complete: finish it with the command that made it")
        if not self._classes:
            yield Missing(f"{self.where}: run.json names no classes", True)
        for uri in dict.fromkeys(item.image for item in self.items("all")):
            place, rest = _place_of(uri)
            if "://" not in uri and not (Path(place).is_dir() if rest else Path(place).is_file()):
                yield Missing(f"{uri} not found: the source of some masks; sources=FOLDER says where", True)

    def _list(self) -> Mapping[str, Iterable[Item]]:
        table = self._run.videos()
        raise_for(f"run {self.where}", list(missing(self._run, Claims([table]))))
        videos = table.select(["video_id", "uri", "stream"]).to_pylist()
        items = [item for video in videos for item in self._items(**video)]
        return {"train": items}

    def _items(self, video_id: str, uri: str, stream: int | None) -> Iterator[Item]:
        place, rest = _place_of(uri)
        source = str(Path(self._sources) / PurePosixPath(place).name) + rest if self._sources else uri
        known = {} if stream is None else {"stream": stream}
        for row in self._rows(video_id):
            extra = {key: row[key] for key in ("height", "width", CONFIDENCE) if row.get(key) is not None}
            yield Item(
                video_id=video_id,
                frame_index=row["frame_index"],
                image=source,
                label=self.where,
                extra=extra | known,
            )

    def _rows(self, video_id: str) -> Iterator[dict[str, Any]]:
        if not any(self._run.files(video_id)):
            return
        names = self._run.frames([video_id]).schema.names
        if self._least is not None and CONFIDENCE not in names:
            raise DatasetError(f"tables: {self.where}: min_confidence needs a confidence column")
        rows = self._run.rows(video_id, [name for name in _COLUMNS if name in names])
        yield from filter(self._wanted, rows)

    def _wanted(self, row: Mapping[str, Any]) -> bool:
        if row["is_corrupt"] or (self._keys_only and not row["is_key"]):
            return False
        if row.get(LABELLED) == 0:
            return False
        return self._least is None or (row[CONFIDENCE] is not None and row[CONFIDENCE] >= self._least)

    def read(self, item: Item) -> Record:
        where = f"{self.where}: {item.video_id}, frame {item.frame_index}"
        try:
            labels_HW = self._run.mask(item.video_id, item.frame_index)
        except (KeyError, StoreError, ValueError) as error:
            raise DatasetError(f"{where}: the mask cannot be read ({error})") from error
        height, width = labels_HW.shape
        return Record(
            video_id=item.video_id,
            frame_index=item.frame_index,
            frame_HW3=self._reader_of(item).frame(item.image, item.frame_index, height, width),
            labels_HW=check_ids(labels_HW, len(self._classes), where),
        )

    def _reader_of(self, item: Item) -> ClipReader:
        """A reader of the stream that was segmented."""
        stream = item.extra.get("stream")
        number = None if stream is None else int(stream)
        if number not in self._readers:
            self._readers[number] = Reading.of(self._run).reader(number)
        return self._readers[number]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_run"}


def _place_of(uri: str) -> tuple[str, str]:
    """Where a video lies, and what follows in the address of a sequence of pictures."""
    return split_address(uri) if is_sequence(uri) else (uri, "")


def _share(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise DatasetError(f"tables: min_confidence must be between 0 and 1, got {text!r}")
    return value
