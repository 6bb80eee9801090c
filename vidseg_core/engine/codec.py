"""SegmentState <-> bytes.

    magic 8 | version u16 | header length u32 | header JSON | blobs, one after the other | CRC-32 u32

All numbers little endian. The header holds the plain fields and for each array its name, dtype, shape and
stored length; a blob is the array's C-order bytes under zstd. The CRC covers everything before it. Floats are
stored as float64 arrays, so infinities and every bit survive. No pickle: reading never runs code.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pyarrow as pa

from vidseg_core.engine.state import STATE_VERSION, KeyFrame, PendingFrame, SegmentState, WaitingFrame
from vidseg_core.scheduling.history import HISTORY_LENGTH, DecisionHistory

MAGIC = b"VIDSEGST"
_PREFIX = struct.Struct("<8sHI")
_CRC = struct.Struct("<I")
_MAX_ARRAY_BYTES = 1 << 33


class StateError(ValueError):
    """Bytes that are no segment state, are damaged, or belong to another version or kind of engine."""


def encode_state(state: SegmentState) -> bytes:
    """The state as bytes; equal states give equal bytes with the same zstd release."""
    arrays = {
        "history": np.array(state.history.decisions, np.bool_),
        **_pending_arrays(state.pending),
        **_waiting_arrays(state.waiting),
    }
    header: dict[str, Any] = {
        "seed": state.seed,
        "segment": state.segment,
        "next_frame": state.next_frame,
        "last_frame_index": state.last_frame_index,
        "level": state.level,
        "planned": state.planned,
        "memory": state.memory,
        "key": None,
    }
    if state.key is not None:
        key = state.key
        header["key"] = {
            "ordinal": key.ordinal,
            "frame_index": key.frame_index,
            "is_corrupt": key.is_corrupt,
        }
        arrays["key.view"] = key.view
        kept = {"key.labels": key.carried} if state.level == "labels" else {"key.frame": key.frame_HW3}
        arrays.update(kept)
        if key.plan_labels is not None:
            arrays["key.plan"] = key.plan_labels
    if state.last_flow_hw2 is not None:
        arrays["last_flow"] = state.last_flow_hw2
    if state.last_view is not None:
        arrays["last_view"] = state.last_view
    return _pack(header, arrays)


def decode_state(data: bytes) -> SegmentState:
    """The state in `data`; StateError says what is wrong with it."""
    header, arrays = _unpack(data)
    try:
        return _state_from(header, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StateError(f"segment state is inconsistent: {type(error).__name__}: {error}") from error


def _state_from(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> SegmentState:
    if len(arrays["history"]) > HISTORY_LENGTH:
        raise ValueError(f"history of {len(arrays['history'])} decisions")
    key = None
    if header["key"] is not None:
        key = KeyFrame(
            **header["key"],
            view=arrays["key.view"],
            carried=arrays["key.labels"] if header["level"] == "labels" else None,
            frame_HW3=None if header["level"] == "labels" else arrays["key.frame"],
            plan_labels=arrays.get("key.plan"),
        )
    return SegmentState(
        seed=header["seed"],
        segment=header["segment"],
        next_frame=header["next_frame"],
        last_frame_index=header["last_frame_index"],
        level=header["level"],
        key=key,
        last_flow_hw2=arrays.get("last_flow"),
        last_view=arrays.get("last_view"),
        history=DecisionHistory(arrays["history"].tolist()),
        pending=_pending_from(arrays),
        waiting=_waiting_from(arrays),
        planned=header["planned"],
        memory=header["memory"],
    )


_PENDING_FIELDS = {
    "frame_index": np.int64,
    "pts_s": np.float64,
    "is_corrupt": np.bool_,
    "decision_score": np.float64,
    "kar": np.float64,
    "lkd": np.int64,
}


def _pending_arrays(pending: list[PendingFrame]) -> dict[str, np.ndarray]:
    if not pending:
        return {}
    arrays = {
        f"pending.{name}": np.array([getattr(frame, name) for frame in pending], dtype)
        for name, dtype in _PENDING_FIELDS.items()
    }
    return {**arrays, "pending.views": np.stack([frame.view for frame in pending])}


def _pending_from(arrays: dict[str, np.ndarray]) -> list[PendingFrame]:
    if "pending.views" not in arrays:
        return []
    columns = [arrays[f"pending.{name}"].tolist() for name in _PENDING_FIELDS]
    rows = zip(*columns, arrays["pending.views"], strict=True)
    return [PendingFrame(**dict(zip((*_PENDING_FIELDS, "view"), row, strict=True))) for row in rows]


_WAITING_FIELDS = {"frame_index": np.int64, "pts_s": np.float64, "is_corrupt": np.bool_}


def _waiting_arrays(waiting: list[WaitingFrame]) -> dict[str, np.ndarray]:
    """Pictures are kept of the frames that have one only."""
    if not waiting:
        return {}
    arrays = {
        f"waiting.{name}": np.array([getattr(frame, name) for frame in waiting], dtype)
        for name, dtype in _WAITING_FIELDS.items()
    }
    pictures = [frame.frame_HW3 for frame in waiting if frame.frame_HW3 is not None]
    if pictures:
        arrays["waiting.pictures"] = np.stack(pictures)
    return arrays | {
        "waiting.views": np.stack([frame.view for frame in waiting]),
        "waiting.shape": np.array(waiting[0].shape, np.int64),
        "waiting.kept": np.array([frame.frame_HW3 is not None for frame in waiting], np.bool_),
    }


def _waiting_from(arrays: dict[str, np.ndarray]) -> list[WaitingFrame]:
    if "waiting.views" not in arrays:
        return []
    columns = [arrays[f"waiting.{name}"].tolist() for name in _WAITING_FIELDS]
    height, width = arrays["waiting.shape"].tolist()
    pictures = iter(arrays.get("waiting.pictures", ()))
    rows = zip(*columns, arrays["waiting.views"], arrays["waiting.kept"].tolist(), strict=True)
    return [
        WaitingFrame(
            **dict(zip((*_WAITING_FIELDS, "view"), row, strict=True)),
            shape=(height, width),
            frame_HW3=next(pictures) if kept else None,
        )
        for *row, kept in rows
    ]


def _pack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    zstd = pa.Codec("zstd", compression_level=1)
    blobs, entries = [], []
    for name, array in arrays.items():
        blob = zstd.compress(np.ascontiguousarray(array).tobytes(), asbytes=True)
        entries.append({"name": name, "dtype": array.dtype.str, "shape": array.shape, "stored": len(blob)})
        blobs.append(blob)
    text = json.dumps({**header, "arrays": entries}, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join((_PREFIX.pack(MAGIC, STATE_VERSION, len(text)), text, *blobs))
    return body + _CRC.pack(zlib.crc32(body))


def _unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    data = bytes(data)
    if len(data) < _PREFIX.size + _CRC.size or not data.startswith(MAGIC):
        raise StateError(f"not a segment state ({len(data)} bytes)")
    _, version, length = _PREFIX.unpack_from(data)
    if version != STATE_VERSION:
        raise StateError(f"segment state has version {version}; this release reads version {STATE_VERSION}")
    body = memoryview(data)[: -_CRC.size]
    if zlib.crc32(body) != _CRC.unpack(data[-_CRC.size :])[0]:
        raise StateError(f"segment state is damaged: checksum differs ({len(data)} bytes)")
    try:
        header = json.loads(bytes(body[_PREFIX.size : _PREFIX.size + length]))
        arrays = _read_arrays(header.pop("arrays"), body[_PREFIX.size + length :])
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise StateError(f"segment state is damaged: {error}") from error
    return header, arrays


def _read_arrays(entries: list[dict[str, Any]], blobs: memoryview) -> dict[str, np.ndarray]:
    arrays, offset = {}, 0
    for entry in entries:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        blob = blobs[offset : offset + entry["stored"]]
        if dtype.hasobject or not 0 <= size <= _MAX_ARRAY_BYTES or len(blob) != entry["stored"]:
            raise ValueError(f"array {entry['name']} does not fit")
        raw = pa.Codec("zstd").decompress(blob, decompressed_size=size, asbytes=True) if size else b""
        arrays[entry["name"]] = np.frombuffer(raw, dtype).reshape(shape)
        offset += entry["stored"]
    return arrays
