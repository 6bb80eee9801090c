"""`rle1`: a label map as runs of equal labels.

Layout, little-endian, for a map of `height * width` labels read row by row (a run may cross row ends):

    n        uint32      number of runs
    values   n bytes     the label of each run
    lengths  n varints   the length of each run in pixels: LEB128, seven bits a byte, lowest first, high bit
                         set on all but the last byte; each at least 1, together height * width

Values and lengths lie apart because the column is compressed with zstd afterwards, frame after frame: like
bytes next to each other shrink better. Runs are maximal, so equal maps have equal bytes.
A decoder in plain Python:

    def decode(data, height, width):
        n = int.from_bytes(data[:4], "little")
        rest, labels = iter(data[4 + n :]), bytearray()
        for value in data[4 : 4 + n]:
            length = shift = 0
            for byte in rest:
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            labels += bytes([value]) * length
        return labels  # height * width bytes, row by row

Legend: `_HW` height, width.
"""

from __future__ import annotations

import numpy as np

MASK_CODEC = "rle1"
_HEADER = 4
_MAX_VARINT = 5  # bytes: runs below 2**35 pixels


def label_runs(labels_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximal runs in row-major order: values uint8[n], lengths int64[n].

    `ValueError` unless the map is uint8, two-dimensional and not empty.
    """
    if labels_HW.dtype != np.uint8 or labels_HW.ndim != 2 or labels_HW.size == 0:
        shape = list(labels_HW.shape)
        raise ValueError(f"labels must be a non-empty uint8 [H, W], not {labels_HW.dtype} {shape}")
    flat = labels_HW.reshape(-1)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], starts, [flat.size]))
    return flat[edges[:-1]], np.diff(edges)


def encode_runs(values: np.ndarray, lengths: np.ndarray) -> bytes:
    """`rle1` bytes of runs as `label_runs` returns them."""
    return np.uint32(values.size).astype("<u4").tobytes() + values.tobytes() + _to_varints(lengths)


def encode_mask(labels_HW: np.ndarray) -> bytes:
    """`rle1` bytes of a label map (uint8 [H, W])."""
    return encode_runs(*label_runs(labels_HW))


def decode_mask(data: bytes, height: int, width: int) -> np.ndarray:
    """The label map uint8 [height, width] of `rle1` bytes; `ValueError` if they are not one of that size."""
    if height < 1 or width < 1:
        raise ValueError(f"mask size {height}x{width} is not positive")
    buffer = np.frombuffer(data, np.uint8)
    n = int.from_bytes(data[:_HEADER], "little")
    if buffer.size < _HEADER + 2 * n or n < 1:
        raise ValueError(f"mask bytes cut short: {buffer.size} bytes cannot hold {n} runs")
    lengths = _from_varints(buffer[_HEADER + n :], n)
    if lengths.min() < 1 or int(lengths.sum()) != height * width:
        raise ValueError(f"mask runs cover {int(lengths.sum())} pixels, expected {height}x{width}")
    return np.repeat(buffer[_HEADER : _HEADER + n], lengths).reshape(height, width)


def _to_varints(numbers: np.ndarray) -> bytes:
    sizes = np.ones(numbers.size, np.int64)
    for k in range(1, _MAX_VARINT):
        sizes += numbers >= 1 << (7 * k)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    out = np.empty(int(ends[-1]), np.uint8)
    for k in range(int(sizes.max())):
        has = sizes > k
        out[starts[has] + k] = (numbers[has] >> (7 * k)) & 0x7F | (sizes[has] > k + 1) * 0x80
    return out.tobytes()


def _from_varints(buffer: np.ndarray, n: int) -> np.ndarray:
    """Exactly `n` varints that fill `buffer`, as int64[n]."""
    ends = np.flatnonzero(buffer < 0x80)
    if ends.size != n or ends[-1] != buffer.size - 1:
        raise ValueError(f"mask bytes damaged: {ends.size} run lengths for {n} runs, or bytes left over")
    starts = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - starts + 1
    if sizes.max() > _MAX_VARINT:
        raise ValueError("mask bytes damaged: a run length is too long")
    numbers = np.zeros(n, np.int64)
    for k in range(int(sizes.max())):
        has = sizes > k
        numbers[has] |= (buffer[starts[has] + k] & 0x7F).astype(np.int64) << (7 * k)
    return numbers
