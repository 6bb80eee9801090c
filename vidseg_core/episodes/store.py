"""Episode tables as objects: one Arrow file per segment, on a local disk or on S3.

Model: a set of tables is a folder of `tables/video=<clip>/segment-<number>.arrow`. Each file is one
uncompressed record batch with a row per key frame k, so that a reader maps it into memory and looks at the
numbers where they lie: many processes that learn from one set share its pages.

Invariants:
- the bytes depend on the table alone, and a file is put if absent: who builds a table again builds the same;
- all tables that are loaded together carry one fingerprint, or there is an `EpisodeError`.

Read a file without this code: `pyarrow.feather.read_table(path)`; names of features, clip and fingerprint
are JSON in the schema's metadata under `vidseg.episode`.

Legend: T frames, L horizon (1 = + 1), F deviation features.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vidseg_core.config.errors import nearest
from vidseg_core.episodes.table import DamagedTable, EpisodeError, EpisodeTable
from vidseg_core.store.errors import StoreError
from vidseg_core.store.foreign import check_plain
from vidseg_core.store.keys import TABLES_PREFIX, TableKey, parse_table_key
from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.parts import CommitResult, commit_part

TABLE_VERSION = 1
_METADATA = b"vidseg.episode"
_QUALITY, _DEVIATION, _TWO_SIDED = "quality", "deviation", "two_sided"
_GRAYS, _MASKS, _VIEWS = "gray", "mask", "view"
_MAP = "map:"
"""Before the name of a set of maps."""


def list_tables(store: ObjectStore) -> Iterator[TableKey]:
    """The tables that are there, by clip and segment."""
    found = (parse_table_key(info.key) for info in store.list(TABLES_PREFIX))
    return iter(sorted(key for key in found if key is not None))


def write_table(store: ObjectStore, table: EpisodeTable) -> CommitResult:
    """Commit one table; `CommitConflict` if the segment is there with other numbers."""
    return commit_part(store, str(TableKey(table.clip, table.segment)), encode_table(table))


def read_table(store: ObjectStore, key: TableKey) -> EpisodeTable:
    """One table: mapped into memory from a local disk, read whole from elsewhere."""
    where = f"{store.root}: {key}"
    if isinstance(store, LocalStore):
        try:
            data = pa.memory_map(os.path.join(store.root, str(key))).read_buffer()
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowInvalid) as problem:
            raise DamagedTable(f"{where} cannot be read: {problem}; {_REMEDY}") from problem
    else:
        data = pa.py_buffer(store.get(str(key)))
    return decode_table(data, where)


def load_tables(
    path: str | os.PathLike[str],
    *,
    clips: Sequence[str] | None = None,
    fingerprint: Mapping[str, str] | None = None,
) -> list[EpisodeTable]:
    """All tables of a set, by clip and segment.

    `clips`: only these. `fingerprint`: what the tables must have been made with, key by key; keys that it
    does not name are free. `EpisodeError` when there is no table, a clip is missing, or tables differ.
    """
    store = open_store(path)
    keys = list(list_tables(store))
    if not keys:
        raise EpisodeError(f"{store.root}: no episode tables here; `vidseg build-episodes` makes them")
    if clips is not None:
        keys = _chosen(keys, clips, store.root)
    tables = [read_table(store, key) for key in keys]
    for key, table in zip(keys, tables, strict=True):
        _check_equal(tables[0].fingerprint, table.fingerprint, f"{store.root}: {keys[0]}", str(key))
    check_fingerprint(tables[0].fingerprint, fingerprint or {}, store.root)
    return tables


def check_fingerprint(there: Mapping[str, str], wanted: Mapping[str, str], where: str) -> None:
    """`EpisodeError` unless `there` says what `wanted` says, key by key."""
    differs = [
        f"{name}: {there.get(name, 'not recorded')} there, {value} here"
        for name, value in sorted(wanted.items())
        if there.get(name) != value
    ]
    if differs:
        raise EpisodeError(f"{where}: these tables were made with something else ({'; '.join(differs)})")


def encode_table(table: EpisodeTable) -> bytes:
    """The bytes of a table; equal tables have equal bytes."""
    check_table(table)
    columns = {_QUALITY: table.quality_TL1, _DEVIATION: table.deviation_TL1F}
    if table.two_sided_TL1 is not None:
        columns[_TWO_SIDED] = table.two_sided_TL1
    arrays = [_column(values) for values in columns.values()]
    pictures = {_GRAYS: table.grays_Thw, _MASKS: table.masks_Thw}
    for name, pictures_Thw in pictures.items():
        if pictures_Thw is not None:
            columns[name] = pictures_Thw
            arrays.append(_bytes_column(pictures_Thw))
    for name, values_GL1M in table.maps_GL1M.items():
        columns[_MAP + name] = values_GL1M
        arrays.append(_maps_column(values_GL1M, table.frames, table.key_stride))
    if table.views_Thwc is not None:
        columns[_VIEWS] = table.views_Thwc
        arrays.append(_bytes_column(table.views_Thwc))
    about: dict[str, Any] = {
        "version": TABLE_VERSION,
        "clip": table.clip,
        "segment": table.segment,
        "feature_names": list(table.feature_names),
        "fingerprint": dict(table.fingerprint),
    }
    if table.grays_Thw is not None:
        about["picture"] = list(table.grays_Thw.shape[1:])
    if table.views_Thwc is not None:
        about["view"] = list(table.views_Thwc.shape[1:])
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in zip(columns, arrays, strict=True)],
        metadata={_METADATA: json.dumps(about, sort_keys=True).encode()},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression=None)) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


def decode_table(data: pa.Buffer | bytes, where: str = "episode table") -> EpisodeTable:
    """The table in these bytes, its arrays read-only views of them.

    `DamagedTable` for anything else, `EpisodeError` for a table of another version.
    """
    try:
        reader = pa.ipc.open_file(data)
        check_plain(reader.schema, where)
        about = json.loads((reader.schema.metadata or {})[_METADATA])
        version = about["version"]
        if version == TABLE_VERSION:
            batch = reader.get_batch(0)
            batch.validate(full=True)
            columns = {name: _values(batch.column(name)) for name in reader.schema.names}
            return check_table(_table_of(columns, about), where)
    except StoreError as problem:
        raise EpisodeError(str(problem)) from problem
    except _NO_TABLE as problem:
        raise DamagedTable(f"{where} is no episode table, or not whole ({problem}); {_REMEDY}") from problem
    raise EpisodeError(f"{where}: table version {version}, this program reads {TABLE_VERSION}")


_NO_TABLE = (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError)
"""What bytes that are no table raise; an `EpisodeError` is a ValueError."""
_REMEDY = "remove it, and vidseg build-episodes makes it again"


def _table_of(columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> EpisodeTable:
    names, quality_TL1 = tuple(map(str, about["feature_names"])), columns[_QUALITY]
    wide = quality_TL1.shape[1]
    maps = {name.removeprefix(_MAP): rows for name, rows in columns.items() if name.startswith(_MAP)}
    views = columns.get(_VIEWS)
    return EpisodeTable(
        clip=str(about["clip"]),
        segment=int(about["segment"]),
        quality_TL1=quality_TL1,
        deviation_TL1F=columns[_DEVIATION].reshape(*quality_TL1.shape, len(names)),
        feature_names=names,
        two_sided_TL1=columns.get(_TWO_SIDED),
        grays_Thw=_pictures(columns.get(_GRAYS), about),
        masks_Thw=_pictures(columns.get(_MASKS), about),
        maps_GL1M={name: rows.reshape(len(rows), wide, -1) for name, rows in maps.items()},
        views_Thwc=None if views is None else views.reshape(len(views), *about["view"]),
        fingerprint=dict(about["fingerprint"]),
    )


def check_table(table: EpisodeTable, where: str = "") -> EpisodeTable:
    """The table itself; `EpisodeError` unless its arrays are float32 and of the shapes that it promises."""
    at = where or f"clip {table.clip}, segment {table.segment}"
    shape = table.quality_TL1.shape
    wanted: dict[str, tuple[np.ndarray | None, tuple[int, ...]]] = {
        "quality_TL1": (table.quality_TL1, shape),
        "deviation_TL1F": (table.deviation_TL1F, (*shape, len(table.feature_names))),
        "two_sided_TL1": (table.two_sided_TL1, shape),
    }
    if len(shape) != 2 or min(shape) < 1:
        raise EpisodeError(f"{at}: quality_TL1 must be frames x (horizon + 1), not {shape}")
    for name, maps_GL1M in table.maps_GL1M.items():
        size = (-(-shape[0] // table.key_stride), shape[1])
        if maps_GL1M.ndim != 3 or maps_GL1M.shape[:2] != size or maps_GL1M.dtype != np.float16:
            raise EpisodeError(
                f"{at}: maps {name} are {maps_GL1M.dtype} {maps_GL1M.shape}, not float16 {size}"
            )
    views_Thwc = table.views_Thwc
    if views_Thwc is not None and (views_Thwc.ndim, len(views_Thwc), views_Thwc.dtype) != (
        4,
        shape[0],
        np.uint8,
    ):
        raise EpisodeError(f"{at}: views_Thwc is {views_Thwc.dtype} {views_Thwc.shape}")
    for name, (array, size) in wanted.items():
        if array is not None and (array.shape != size or array.dtype != np.float32):
            raise EpisodeError(f"{at}: {name} is {array.dtype} {array.shape}, expected float32 {size}")
    grays_Thw, masks_Thw = table.grays_Thw, table.masks_Thw
    if (grays_Thw is None) != (masks_Thw is None):
        raise EpisodeError(f"{at}: small pictures and masks go together")
    for name, pictures_Thw in (("grays_Thw", grays_Thw), ("masks_Thw", masks_Thw)):
        if pictures_Thw is None or grays_Thw is None:
            continue
        fine = pictures_Thw.ndim == 3 and len(pictures_Thw) == shape[0]
        if not fine or pictures_Thw.shape != grays_Thw.shape or pictures_Thw.dtype != np.uint8:
            raise EpisodeError(f"{at}: {name} is {pictures_Thw.dtype} {pictures_Thw.shape}")
    return table


def _column(values: np.ndarray) -> pa.FixedSizeListArray:
    """One row per key; every NaN with the same bits."""
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), -1)
    unknown = np.isnan(rows)
    if unknown.any():
        rows = np.where(unknown, np.float32(np.nan), rows)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), from_pandas=False), rows.shape[1])


def _bytes_column(pictures_Thw: np.ndarray) -> pa.FixedSizeListArray:
    rows = np.ascontiguousarray(pictures_Thw, dtype=np.uint8).reshape(len(pictures_Thw), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def _maps_column(values_GL1M: np.ndarray, frames: int, stride: int) -> pa.LargeBinaryArray:
    """A row's maps as bytes; none where the frame may not be key."""
    size = values_GL1M[0].nbytes
    sizes_T = np.where(np.arange(frames) % stride == 0, size, 0)
    offsets_T1 = np.concatenate([[0], np.cumsum(sizes_T)]).astype(np.int64)
    data = np.ascontiguousarray(values_GL1M, dtype=np.float16).tobytes()
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), frames, [None, pa.py_buffer(offsets_T1.tobytes()), pa.py_buffer(data)]
    )


def _pictures(rows: np.ndarray | None, about: Mapping[str, Any]) -> np.ndarray | None:
    return None if rows is None else rows.reshape(len(rows), *about["picture"])


def _values(column: Any) -> np.ndarray:
    if pa.types.is_large_binary(column.type):
        _, offsets, data = column.buffers()
        offsets_T1 = np.frombuffer(offsets, np.int64)[: len(column) + 1]
        return np.frombuffer(data, np.float16).reshape(int((np.diff(offsets_T1) > 0).sum()), -1)
    return column.values.to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)


def _chosen(keys: Sequence[TableKey], clips: Sequence[str], root: str) -> list[TableKey]:
    known = sorted({key.clip for key in keys})
    for clip in clips:
        if clip not in known:
            raise EpisodeError(f"{root}: no tables of clip {clip!r}{nearest(clip, known)}")
    return [key for key in keys if key.clip in set(clips)]


def _check_equal(first: Mapping[str, str], other: Mapping[str, str], where: str, key: str) -> None:
    names = [name for name in sorted({*first, *other}) if first.get(name) != other.get(name)]
    if names:
        texts = [f"{name}: {first.get(name, '-')} and {other.get(name, '-')}" for name in names]
        raise EpisodeError(f"{where} and {key} were not made with the same things ({'; '.join(texts)})")
