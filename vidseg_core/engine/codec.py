"""What a segment's state is stored as: a header of plain fields and arrays, as bytes.

    magic 8 | version u16 | header length u32 | header JSON | blobs, one after the other | CRC-32 u32

All numbers little endian. The header holds for each array its name, dtype, shape and stored length; a blob is
the array's C-order bytes under zstd. The CRC covers everything before it. No pickle: reading never runs code.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pyarrow as pa

MAGIC = b"VIDSEGST"
_PREFIX = struct.Struct("<8sHI")
_CRC = struct.Struct("<I")
_MAX_ARRAY_BYTES = 1 << 33


class StateError(ValueError):
    """Bytes that are no segment state, are damaged, or belong to another version or kind of engine."""


def pack(version: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Equal contents give equal bytes with the same zstd release."""
    zstd = pa.Codec("zstd", compression_level=1)
    blobs, entries = [], []
    for name, array in arrays.items():
        blob = zstd.compress(np.ascontiguousarray(array).tobytes(), asbytes=True)
        entries.append({"name": name, "dtype": array.dtype.str, "shape": array.shape, "stored": len(blob)})
        blobs.append(blob)
    text = json.dumps({**header, "arrays": entries}, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join((_PREFIX.pack(MAGIC, version, len(text)), text, *blobs))
    return body + _CRC.pack(zlib.crc32(body))


def has_version(data: bytes, version: int) -> bool:
    """Were these bytes packed under this version? False for what is too short, or none of ours."""
    return len(data) >= _PREFIX.size and _PREFIX.unpack_from(data)[:2] == (MAGIC, version)


def unpack(version: int, data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays in `data`; StateError for damaged bytes or another version."""
    data = bytes(data)
    if len(data) < _PREFIX.size + _CRC.size or not data.startswith(MAGIC):
        raise StateError(f"not a segment state ({len(data)} bytes)")
    _, found, length = _PREFIX.unpack_from(data)
    if found != version:
        raise StateError(f"segment state has version {found}; this release reads version {version}")
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
