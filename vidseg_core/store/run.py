"""A finished or running job's output, read back.

Readers see the committed rows, each once: of a video's files those that no span covers (see `keys`), never
the states. Nothing here holds more than a row group and one video's listing; `frames()` leaves it to Arrow.

Legend: `_HW` height, width.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

if TYPE_CHECKING:
    import pyarrow.dataset as ds

from vidseg_core.store.arrow_files import arrow_filesystem
from vidseg_core.store.checked import (
    ARROW_ERRORS,
    damaged,
    one_line,
    open_checked,
    read_checked,
    read_group,
    why_damaged,
)
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import (
    FRAMES_PREFIX,
    MANIFEST_KEY,
    RUN_KEY,
    SUCCESS_KEY,
    VIDEOS_PREFIX,
    PartKey,
    frames_prefix,
    parse_part_key,
    video_key,
    visible,
)
from vidseg_core.store.mask_codec import MASK_CODEC, decode_mask
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.schema import (
    FRAMES_SCHEMA,
    SCHEMA_VERSION,
    VIDEOS_SCHEMA,
    conformed,
    frames_schema,
)
from vidseg_core.store.small_files import NUMBER, OTHER_OUTPUT, TEXT, Shape, read_object

_FRAME_COLUMN = FRAMES_SCHEMA.get_field_index("frame_index")
_BATCH_VIDEOS = 1000
"""Rows of videos that are put together before the next are read."""
_READERS = 16
_RUN_SHAPE: Shape = {
    "schema_version": int,
    "config": {
        "scheduler": {"name": str, "interval": NUMBER, "threshold": (*NUMBER, type(None))},
        "propagation": {},
        "media": {"max_pixels": int, "decode_deadline_s": NUMBER, "memory_mib": int},
    },
    "segmenter": {"name": TEXT, "weights_sha256": TEXT, "class_names": [str], "warning": TEXT},
}
_RUN_REMEDY = "the command of that run with --repair writes it again"
_MASK_COLUMNS = ("frame_index", "height", "width", "mask", "mask_codec")


def open_run(path: str | os.PathLike[str]) -> Run:
    """The run at a local path or `s3://bucket/prefix`, complete or not.

    `StoreError` if nothing there looks like a run, or if it has another schema version.
    """
    store = open_store(path)
    run = Run(store)
    if store.exists(RUN_KEY):
        version = run.info().get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise StoreError(f"run {path}: schema version {version}, this vidseg reads {SCHEMA_VERSION}")
    elif not any(next(iter(store.list(prefix)), None) for prefix in (FRAMES_PREFIX, VIDEOS_PREFIX)):
        raise StoreError(f"{path} is not a vidseg run: it has neither {RUN_KEY} nor {FRAMES_PREFIX}")
    return run


class Run:
    """Read access to one output; made by `open_run`."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.path = store.root
        self._finder: dict[str, _FrameFinder] = {}

    @cached_property
    def _files(self) -> fs.FileSystem:
        return arrow_filesystem(self.store)

    @property
    def complete(self) -> bool:
        """Whether the job has finished (`_SUCCESS` is there)."""
        return self.store.exists(SUCCESS_KEY)

    def info(self) -> dict[str, Any]:
        """The content of `run.json`; empty if the run has not written it yet."""
        try:
            return read_object(self.store, RUN_KEY, _RUN_SHAPE, _RUN_REMEDY)
        except FileNotFoundError:
            return {}

    def options(self) -> dict[str, Any]:
        """The options by their dotted names; of a run that is not finished those that decide its rows."""
        if config := self.info().get("config"):
            groups = {name: value for name, value in config.items() if isinstance(value, dict)}
            dotted = {
                f"{name}.{last}": value for name, group in groups.items() for last, value in group.items()
            }
            return {name: value for name, value in config.items() if name not in groups} | dotted
        try:
            return read_object(self.store, MANIFEST_KEY, {"config!": {}}, OTHER_OUTPUT)["config"]
        except FileNotFoundError:
            return {}

    @property
    def masks_as_shown(self) -> bool:
        """Whether masks lie on frames as players show them (`--masks.size source`), not as nets see them."""
        return self.options().get("masks.size") == "source"

    def videos(self) -> pa.Table:
        """One row per video that is done (`VIDEOS_SCHEMA`)."""
        return pa.concat_tables([VIDEOS_SCHEMA.empty_table(), *self.video_batches()])

    def video(self, video_id: str) -> dict[str, Any] | None:
        """The row of a video; None if it is not done."""
        try:
            rows = self._video_rows(video_key(video_id), self.store.get(video_key(video_id)))
        except FileNotFoundError:
            return None
        return rows.to_pylist()[0] if len(rows) else None

    def video_batches(self, skip: Collection[str] = ()) -> Iterator[pa.Table]:
        """The rows of `videos`, some thousand at a time: a run may have more videos than fit memory.

        `skip`: keys of rows that are left out.
        """
        listed = (info.key for info in self.store.list(VIDEOS_PREFIX) if info.key.endswith(".parquet"))
        keys = (key for key in listed if key not in skip)
        with ThreadPoolExecutor(_READERS) as pool:  # a file a video: on S3 it is the waiting that takes long
            while batch := list(islice(keys, _BATCH_VIDEOS)):
                found = zip(batch, pool.map(self.store.get, batch), strict=True)
                yield pa.concat_tables(self._video_rows(*part) for part in found).combine_chunks()

    def _video_rows(self, key: str, data: bytes) -> pa.Table:
        table = read_checked(data, key, f"run {self.path}")
        return conformed(table, VIDEOS_SCHEMA, f"run {self.path}: {key}")

    def files(self, video_id: str | None = None) -> Iterator[tuple[str, list[PartKey]]]:
        """For each video (or the one named) its id and the files that hold its rows, in frame order."""
        listing = self.store.list(frames_prefix(video_id) if video_id else FRAMES_PREFIX)
        keys = (key for info in listing if (key := parse_part_key(info.key)))
        for found, group in groupby(keys, key=lambda key: key.video_id):
            yield found, visible(group)

    def frames(self, video_ids: Iterable[str] | None = None) -> ds.FileSystemDataset:
        """All rows (or those of some videos) as an Arrow dataset, in the schema of the run's kind.

        An id may be given by its beginning. A filter on `video_id` opens that video's files only. The files
        are those of this moment: after a `compact`, ask again. Arrow compares the checksums of pages, and
        raises `OSError`.
        """
        import pyarrow.dataset as ds  # imports pandas: not for a run that only writes

        named = () if video_ids is None else video_ids
        wanted = [None] if video_ids is None else [found for name in named for found in self._ids(name)]
        groups = (group for video_id in wanted for group in self.files(video_id))
        checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        kind = ds.ParquetFileFormat(default_fragment_scan_options=checked)
        fragments = [
            kind.make_fragment(str(key), self._files, partition_expression=ds.field("video_id") == video_id)
            for video_id, keys in groups
            for key in keys
        ]
        schema = FRAMES_SCHEMA
        if fragments:
            with self._parquet(fragments[0].path) as file:  # raises for another schema version
                schema = frames_schema(file.schema_arrow.names)
        return ds.FileSystemDataset(fragments, schema, kind, self._files)

    def video_id(self, beginning: str) -> str:
        """The id of the video with frames that this is or that alone begins so; else `StoreError`."""
        for video_id in self._ids(beginning):
            return video_id
        raise StoreError(f"run {self.path}: no frames of video {beginning}")

    def _ids(self, beginning: str) -> list[str]:
        """That id in a list, which is empty if there is none."""
        if not beginning or any(self.files(beginning)):
            return [beginning] if beginning else []
        listed = self.store.list(f"{FRAMES_PREFIX}video={beginning}")
        found = list(dict.fromkeys(key.video_id for info in listed if (key := parse_part_key(info.key))))
        if len(found) > 1:
            some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
            raise StoreError(f"run {self.path}: {beginning!r} begins several videos: {some}")
        return found

    def rows(self, video_id: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """A video's rows in frame order, streamed. `StoreError` for an unknown video or a repeated frame."""
        return self._rows_of(self._keys_of(video_id), columns)

    def mask(self, video_id: str, frame_index: int) -> np.ndarray:
        """The label map of one frame, uint8 [H, W]. `KeyError` if the run has no such frame."""
        for _ in range(2):  # a file may have gone into a span, or have come, since we last looked
            finder = self._finder.get(video_id)
            if finder is None:
                finder = _FrameFinder(self, self._keys_of(video_id) if self._ids(video_id) else [])
                self._finder = {video_id: finder}
            try:
                return finder.mask(frame_index)
            except (KeyError, FileNotFoundError):
                self._finder = {}
        raise KeyError(f"run {self.path}: no frame {frame_index} of video {video_id}")

    def _keys_of(self, video_id: str) -> list[PartKey]:
        """The files of a video, which its id may be the beginning of."""
        keys = [key for _, found in self.files(video_id) for key in found]
        return keys or [key for _, found in self.files(self.video_id(video_id)) for key in found]

    def _parquet(self, key: str) -> pq.ParquetFile:
        with self._reading(key):
            return open_checked(self._files.open_input_file(key), key, f"run {self.path}")

    def rows_in(self, key: PartKey) -> int:
        """Rows of a file, going by its footer."""
        with self._parquet(str(key)) as file:
            return file.metadata.num_rows

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """What goes wrong as a file is read, with its name, and with the frames where it is damaged."""
        try:
            yield
        except FileNotFoundError:
            raise
        except ARROW_ERRORS as error:
            where = f"run {self.path}: {key}"
            if why := why_damaged(self.store.get(key), key):
                raise damaged(where, why) from None
            raise StoreError(f"{where} cannot be read: {one_line(error)}") from error

    def labels(self, video_id: str, row: Mapping[str, Any]) -> np.ndarray:
        """The label map of a row of `rows` that has the columns height, width and mask, uint8 [H, W]."""
        try:
            return decode_mask(row["mask"], row["height"], row["width"])
        except ValueError as error:
            frame = row["frame_index"]
            keys = self._keys_of(video_id)
            where = f"run {self.path}: {_FrameFinder(self, keys).file_of(frame)}"
            raise damaged(where, f"frame {frame}: {error}") from None

    def _rows_of(self, keys: Sequence[PartKey], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        last = -1
        for key in keys:
            with self._parquet(str(key)) as file:
                there = file.schema_arrow.names
                wanted = list(dict.fromkeys(("frame_index", *(columns or frames_schema(there).names))))
                absent = _absent(wanted, there, f"run {self.path}: {key}")
                for row in self._stream(file, key, wanted):
                    if row["frame_index"] <= last:
                        frame = row["frame_index"]
                        raise StoreError(f"run {self.path}: {key}: frame {frame} after frame {last}")
                    last = row["frame_index"]
                    yield row | absent

    def _stream(self, file: pq.ParquetFile, key: PartKey, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for group in range(file.num_row_groups):
            with self._reading(str(key)):
                rows = read_group(file, group, columns).to_pylist()
            yield from rows


def _absent(wanted: Sequence[str], there: Sequence[str], where: str) -> dict[str, None]:
    """Columns that came after the file was written, as null; `StoreError` for one that no version lacks."""
    absent = [name for name in wanted if name not in there]
    schema = frames_schema(there)
    for name in absent:
        if name not in schema.names or not schema.field(name).nullable:
            raise StoreError(f"{where}: there is no column {name!r}")
    return dict.fromkeys(absent)


class _FrameFinder:
    """Which row group of a video holds a frame: bisection over footers, which are read once each."""

    def __init__(self, run: Run, keys: Sequence[PartKey]) -> None:
        self._run = run
        self._keys = list(keys)
        self._groups: dict[int, list[tuple[int, int]]] = {}
        self._last: tuple[int, int, dict[int, dict[str, Any]]] = (-1, -1, {})

    def mask(self, frame_index: int) -> np.ndarray:
        """The label map of a frame; `KeyError` if no row has it."""
        row = self._last[2].get(frame_index) or self._load(*self._place(frame_index))[frame_index]
        where, codec = f"run {self._run.path}: {self._keys[self._last[0]]}", row["mask_codec"]
        if codec != MASK_CODEC:
            raise StoreError(f"{where}: frame {frame_index}: mask codec {codec!r} is not {MASK_CODEC}")
        try:
            return decode_mask(row["mask"], row["height"], row["width"])
        except ValueError as error:
            raise damaged(where, f"frame {frame_index}: {error}") from None

    def file_of(self, frame_index: int) -> PartKey:
        """The file that holds a frame; `KeyError` if none does."""
        return self._keys[self._place(frame_index)[0]]

    def _place(self, frame_index: int) -> tuple[int, int]:
        """The file and the row group that would hold the frame."""
        low, high = 0, len(self._keys)
        while low < high:
            middle = (low + high) // 2
            probe = next((i for i in range(middle, high) if self._ranges(i)), None)  # past empty parts
            if probe is None or frame_index < self._ranges(probe)[0][0]:
                high = middle
            elif frame_index > self._ranges(probe)[-1][1]:
                low = probe + 1
            else:
                for group, (first, last) in enumerate(self._ranges(probe)):
                    if first <= frame_index <= last:
                        return probe, group
                break
        raise KeyError(frame_index)

    def _ranges(self, index: int) -> list[tuple[int, int]]:
        """First and last frame of each row group of a file; empty for an empty part."""
        if index not in self._groups:
            with self._run._parquet(str(self._keys[index])) as file:
                groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
                columns = [group.column(_FRAME_COLUMN) for group in groups]
                self._groups[index] = [
                    (column.statistics.min, column.statistics.max) for column in columns if column.num_values
                ]
        return self._groups[index]

    def _load(self, index: int, group: int) -> dict[int, dict[str, Any]]:
        if self._last[:2] != (index, group):
            key = str(self._keys[index])
            with self._run._parquet(key) as file, self._run._reading(key):
                rows = read_group(file, group, _MASK_COLUMNS).to_pylist()
            self._last = (index, group, {row["frame_index"]: row for row in rows})
        return self._last[2]
