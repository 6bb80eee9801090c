"""One cell of an evaluation: a method on a clip, as one small Parquet file that is put if absent.

    _run/manifest.json                                 what all cells have in common, and its fingerprint
    cells/clip=<clip>/<method>-<stamp>.parquet         a row per frame, masks too; summary in its metadata
    net/clip=<clip>/<stamp>.parquet                    N's masks, so that methods added later need no net
    results.parquet  methods.parquet  frames.parquet   the tables for people, written last (see `tables`)
    quarantine.parquet  run.json  _SUCCESS

A method's name in a key is the digest of its options, the stamp is the clip's (`clips.Clip.stamp`) together
with what the method reads from files: changed footage or a re-trained policy is another cell. Invariant:
resume is a listing; a cell that is there is never made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.kit.claim import claim, require_same
from vidseg_core.store.errors import DamagedFile, StoreError
from vidseg_core.store.keys import CELLS_PREFIX, MANIFEST_KEY, CellKey, net_key, parse_cell_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import OTHER_OUTPUT, json_object, read_object, read_table

EVALUATION_VERSION = 3
CHANGED = {
    1: "its fps and latency include reading the frames, today's do not",
    2: "its TC leaves occluded pixels out, today's column tc counts them",
}
"""What is different in evaluations of older versions."""
READABLE = (2, EVALUATION_VERSION)
"""Finished evaluations of these can be read (see `read.Evaluation`), only today's can be continued."""
_SUMMARY = b"vidseg.cell"

FRAME_FIELDS: list[tuple[str, pa.DataType]] = [
    ("run", pa.int32()),
    ("number", pa.int64()),
    ("frame_index", pa.int64()),
    ("is_key", pa.bool_()),
    ("distance", pa.int32()),
    ("lkd", pa.int32()),
    ("decision_score", pa.float64()),
    ("kar", pa.float64()),
    ("measured", pa.bool_()),
    ("miou", pa.float64()),
    ("fidelity", pa.float64()),
    ("agreement", pa.float64()),
    ("tc", pa.float64()),
    ("wait_frames", pa.int32()),
    ("tc_visible", pa.float64()),
    ("warp_accuracy", pa.float64()),
]
"""What is kept of a frame, in a cell and in the table of frames."""
_CELL_REMEDY = "remove it, and vidseg evaluate makes it again"
CELL_SCHEMA = pa.schema(
    [
        *FRAME_FIELDS,
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", pa.binary()),
    ]
)
"""`number` counts frames of the clip from 0; `distance` frames since the last key (0: a key), `wait_frames`
until the next one where propagation waits for it; `miou` against labels, `fidelity` (mIoU) and `agreement`
(pixels) against N, `tc`, `tc_visible`, `warp_accuracy` with the frame before; NaN where there is nothing to
compare with. `mask` is `rle1`
(docs/output.md)."""
NET_SCHEMA = pa.schema(
    [("number", pa.int64()), ("mask", pa.binary()), ("height", pa.int32()), ("width", pa.int32())]
)


def list_cells(store: ObjectStore) -> set[CellKey]:
    """The cells that are there."""
    found = (parse_cell_key(info.key) for info in store.list(CELLS_PREFIX))
    return {key for key in found if key is not None}


def stamp_of(clip_stamp: str, extra: Mapping[str, str]) -> str:
    """The clip's stamp, mixed with digests of what a method reads from files."""
    if not extra:
        return clip_stamp
    text = json.dumps([clip_stamp, dict(sorted(extra.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def put_cell(
    store: ObjectStore, key: CellKey, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> bool:
    """Write a cell; False if it is there already."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=CELL_SCHEMA)
    text = json.dumps(_plain(summary), sort_keys=True)
    return store.put_if_absent(str(key), parquet_bytes(table.replace_schema_metadata({_SUMMARY: text})))


def read_cell(
    store: ObjectStore, key: CellKey, columns: Sequence[str] | None = None
) -> tuple[dict[str, Any], pa.Table]:
    """Summary and rows of a cell (these columns only)."""
    data = _get(store, str(key))
    where = f"{store.root}: {key}"
    schema = CELL_SCHEMA if columns is None else pa.schema([CELL_SCHEMA.field(name) for name in columns])
    needed = [name for name in ("number", "height", "width", "mask") if name in schema.names]
    table = read_table(data, where, _CELL_REMEDY, schema, needed)
    return _summary(table.schema, where), table


def _get(store: ObjectStore, key: str) -> bytes:
    try:
        return store.get(key)
    except FileNotFoundError as error:
        raise StoreError(f"{store.root}: {key} is gone; run vidseg evaluate again") from error


def _summary(schema: pa.Schema, where: str) -> dict[str, Any]:
    text = (schema.metadata or {}).get(_SUMMARY)
    if text is None:
        raise StoreError(f"{where}: not a cell of vidseg evaluate")
    found = json_object(text, where, {}, _CELL_REMEDY)
    return {name: _float(value) for name, value in found.items()}


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """NaN as null: JSON has no name for it."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in summary.items()
    }


def _float(value: Any) -> Any:
    return math.nan if value is None else value


# --- N's masks ---------------------------------------------------------------------------------------------


def put_net(
    store: ObjectStore, clip: str, stamp: str, rows: Sequence[Mapping[str, Any]], call_s: float
) -> None:
    """N's masks of a whole clip, for methods that come later."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=NET_SCHEMA)
    table = table.replace_schema_metadata({b"vidseg.call_s": repr(call_s)})
    store.put_if_absent(net_key(clip, stamp), parquet_bytes(table))


def read_net(store: ObjectStore, clip: str, stamp: str) -> tuple[list[dict[str, Any]], float]:
    """N's masks and the seconds of a call; no rows if they have not been put."""
    try:
        data = store.get(net_key(clip, stamp))
    except FileNotFoundError:
        return [], 0.0
    where = f"{store.root}: {net_key(clip, stamp)}"
    table = read_table(data, where, _CELL_REMEDY, NET_SCHEMA, NET_SCHEMA.names)
    try:
        return table.to_pylist(), float((table.schema.metadata or {}).get(b"vidseg.call_s", b"0"))
    except ValueError as error:
        raise DamagedFile(f"{where} is damaged ({error}); {_CELL_REMEDY}") from None


# --- whose output ------------------------------------------------------------------------------------------


def claim_evaluation(store: ObjectStore, fingerprint: Mapping[str, Any]) -> bool:
    """Write what all cells have in common, or check that it agrees with what is there; True: it was new."""
    content = {"kind": "evaluate", "version": EVALUATION_VERSION, "fingerprint": dict(fingerprint)}
    whose = "holds an evaluation of something else"

    def check() -> None:
        require_same(
            read_manifest(store, (EVALUATION_VERSION,))["fingerprint"], fingerprint, store.root, whose
        )

    return claim(store, MANIFEST_KEY, content, check)


def read_manifest(store: ObjectStore, versions: Sequence[int] = READABLE) -> dict[str, Any]:
    """`StoreError` if the place holds no evaluation, or one of none of these versions."""
    try:
        found = read_object(store, MANIFEST_KEY, {"fingerprint": {}}, OTHER_OUTPUT)
    except FileNotFoundError:
        found = {}
    if found.get("kind") != "evaluate":
        raise StoreError(f"{store.root} is not the output of vidseg evaluate")
    if (version := found.get("version")) not in versions:
        older = CHANGED.get(version) if isinstance(version, int) else None
        why = f": {older}; evaluate again into another output" if older else ""
        raise StoreError(f"{store.root}: evaluation version {version}, this reads {EVALUATION_VERSION}{why}")
    if "fingerprint" not in found:
        raise DamagedFile(f"{store.root}: {MANIFEST_KEY} is damaged (no fingerprint); {OTHER_OUTPUT}")
    return found
