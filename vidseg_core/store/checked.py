"""Our Parquet files, written and read so that damage is found and named, never taken for data.

Model: four things in a file speak for its content. Every page has a CRC-32 (Parquet's own, which Arrow
compares as it reads; see `read_group` for what it does not cover). The footer has a CRC-32 of itself in its
metadata, taken while that place was blank; so names, counts, offsets and statistics are as they were written.
Beside it stands that of all bytes before the footer, for those who read them all. And the footer says under
which key the file was written, so that a file under another's name is not read as the other's rows.
Invariant: with any one bit changed, whoever reads rows gets an error or those that were written, and whoever
reads all bytes (`why_damaged`) gets the reason.

Files of older versions have none of the four: of those the masks are decoded and compared with
`class_pixels`, where somebody asks for it (`why_damaged`).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidseg_core.store.errors import DamagedFile, StoreError
from vidseg_core.store.foreign import check_plain
from vidseg_core.store.keys import parse_part_key
from vidseg_core.store.mask_codec import MASK_CODEC, decode_mask
from vidseg_core.store.schema import VERSION_KEY, check_version

CRC_KEY, PLACE_KEY = b"vidseg.crc32", b"vidseg.key"
HOW_TO_REPAIR = "the command of that run with --repair makes it again (not in runs of older versions)"
_BLANK = b"-" * 8
_DIGITS = 2 * len(_BLANK)
"""Digits of both checksums: first that of the bytes before the footer, then the footer's."""
_MAGIC = b"PAR1"
_TAIL = 64 << 10
"""Bytes read at once from the end of a file: most footers are shorter."""
_MASK_COLUMNS = ("frame_index", "height", "width", "mask", "mask_codec", "class_pixels")
ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError)
"""What Arrow raises on bytes that are no table."""


def seal_fields(key: str) -> dict[bytes, bytes]:
    """Metadata of a footer that `seal` completes; no key: the file may lie anywhere."""
    return {CRC_KEY: 2 * _BLANK} | ({PLACE_KEY: key.encode()} if key else {})


def seal(file: io.BytesIO) -> bytes:
    """The bytes of a finished file whose footer has `seal_fields`, with the checksums in place."""
    with file.getbuffer() as data:
        start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        footer = bytes(data[start:])
        at = start + footer.index(2 * _BLANK, footer.index(CRC_KEY))
        data[at : at + len(_BLANK)] = _crc(data[:start])
        data[at + len(_BLANK) : at + _DIGITS] = _crc(data[start:])
    return file.getvalue()


def open_checked(source: Any, key: str, output: str) -> pq.ParquetFile:
    """A file of the output, its footer checked; pages are checked as they are read.

    `DamagedFile` names what is damaged, `StoreError` what is not ours. `source`: an Arrow file.
    """
    try:
        return _opened(source, key, output)
    except _Unsound as problem:
        raise damaged(f"{output}: {key}", str(problem)) from None


def read_checked(data: bytes, key: str, output: str) -> pa.Table:
    """The whole table of a part, a span or a row of `videos/`, every byte of it checked; errors as above."""
    try:
        return pa.concat_tables(_tables(data, key, output))
    except _Unsound as problem:
        raise damaged(f"{output}: {key}", str(problem)) from None


def why_damaged(data: bytes, key: str) -> str | None:
    """Why the bytes of a part, a span or a row of `videos/` are not what was written, reading all of them.

    None for sound ones, and for those of older versions in which nothing is found.
    """
    try:
        for _ in _tables(data, key, "it"):
            pass
    except (_Unsound, StoreError) as problem:
        return str(problem)
    return None


def read_group(file: pq.ParquetFile, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of one row group; one of `ARROW_ERRORS` where they are damaged.

    How many values a page has is said beside its checksum, not under it; Arrow notices a wrong number but in
    lists, so those are counted here.
    """
    table = file.read_row_group(group, columns=list(columns) if columns else None, use_threads=False)
    chunks = file.metadata.row_group(group)
    for number in range(chunks.num_columns):
        name, inside, _ = chunks.column(number).path_in_schema.partition(".")
        if inside and name in table.column_names:
            lengths = pc.list_value_length(table[name]).to_pylist()  # type: ignore[attr-defined]
            values = sum(max(1, length) for length in lengths)
            if values != chunks.column(number).num_values:
                raise ValueError(f"column {name}: {values} of {chunks.column(number).num_values} values")
    return table


def is_sealed(data: bytes) -> bool:
    """Whether a file was written with checksums; those of older versions were not."""
    return CRC_KEY in data[-int.from_bytes(data[-8:-4], "little") - 8 :]


def damaged(where: str, why: str) -> DamagedFile:
    """What says that a committed file is damaged, why, and what to do."""
    return DamagedFile(f"{where} is damaged ({why}); {HOW_TO_REPAIR}")


def one_line(error: BaseException) -> str:
    """An error of Arrow, which may have several lines, as a clause."""
    return " ".join(str(error).split()).rstrip(".")


class _Unsound(Exception):
    """Why a file is not what was written."""


def _opened(source: Any, key: str, output: str) -> pq.ParquetFile:
    footer = _footer(source)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
        fields = metadata.metadata or {}
    except ARROW_ERRORS as error:
        raise _Unsound(f"the footer cannot be read: {one_line(error)}") from None
    if CRC_KEY not in fields and (CRC_KEY in footer or PLACE_KEY in footer):
        raise _Unsound("it has lost its checksum")
    if CRC_KEY in fields and not _is_sound(footer, fields[CRC_KEY]):
        if VERSION_KEY in fields:  # another one may take its checksum in another way
            check_version(fields, f"{output}: {key}")
        raise _Unsound("the checksum of the footer does not match")
    check_version(fields, f"{output}: {key}")
    if fields.get(PLACE_KEY, key.encode()) != key.encode():
        raise _Unsound(f"it was written as {fields[PLACE_KEY].decode(errors='replace')}")
    file = pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True)
    check_plain(file.schema_arrow, f"{output}: {key}")
    return file


def _tables(data: bytes, key: str, output: str) -> Iterator[pa.Table]:
    """The row groups of a file, checked one after the other; the first is empty and has the schema."""
    file, last, sealed = _opened(pa.BufferReader(data), key, output), -1, is_sealed(data)
    yield file.schema_arrow.empty_table()
    for group in range(file.num_row_groups):
        try:
            table = read_group(file, group)
            table.validate(full=not sealed)  # of older versions: text that is no UTF-8
        except ARROW_ERRORS as error:
            raise _Unsound(f"{_frames_of(file, group)}{one_line(error)}") from None
        if parse_part_key(key) is not None:
            last = _check_frames(table, key, last, decode=not sealed)
        yield table
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if sealed and (file.metadata.metadata or {})[CRC_KEY][: len(_BLANK)] != _crc(memoryview(data)[:start]):
        raise _Unsound("the checksum of all pages does not match")


def _footer(source: Any) -> bytes:
    """The end of a file: footer, its length, magic."""
    size = source.size()
    tail = source.read_at(min(size, _TAIL), max(0, size - _TAIL))
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if size < 12 or tail[-4:] != _MAGIC or length > size - 4:
        raise _Unsound(f"its {size} bytes do not end as a Parquet file does")
    return tail[-length:] if length <= len(tail) else source.read_at(length, size - length)


def _is_sound(footer: bytes, digits: bytes) -> bool:
    at = footer.find(digits, footer.find(CRC_KEY) + len(CRC_KEY)) + len(_BLANK)
    blank = footer[:at] + _BLANK + footer[at + len(_BLANK) :]
    return len(digits) == _DIGITS and digits[len(_BLANK) :] == _crc(blank)


def _crc(data: bytes | memoryview) -> bytes:
    return b"%08x" % zlib.crc32(data)


def _frames_of(file: pq.ParquetFile, group: int) -> str:
    """Which frames a row group holds, as the beginning of a sentence; empty where that is not known.

    Of a footer without a checksum nothing is asked: Arrow ends the process on one that contradicts itself.
    """
    if CRC_KEY not in (file.metadata.metadata or {}):
        return ""
    columns = file.metadata.row_group(group)
    for number, name in enumerate(file.schema_arrow.names):
        if name == "frame_index":
            found = columns.column(number).statistics
            return f"frames {found.min} to {found.max}: " if found and found.has_min_max else ""
    return ""


def _check_frames(table: pa.Table, key: str, last: int, *, decode: bool) -> int:
    """The last frame number of rows of frames; `_Unsound` for what speaks against them."""
    part = parse_part_key(key)
    try:
        numbers = [last, *table["frame_index"].to_pylist()]
        if part and set(table["video_id"].to_pylist()) - {part.video_id}:
            raise _Unsound("it holds rows of another video")
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            raise _Unsound("its frame numbers do not increase")
        for row in table.select(_MASK_COLUMNS).to_pylist() if decode else ():
            if why := why_mask_damaged(row):
                raise _Unsound(f"frame {row['frame_index']}: {why}")
    except ARROW_ERRORS as error:  # bytes of an older version that are no text, or lack a column
        raise _Unsound(one_line(error)) from None
    return numbers[-1]


def why_mask_damaged(row: Mapping[str, Any]) -> str | None:
    """Why a row's mask is not the one that was counted in `class_pixels`."""
    if row["mask_codec"] != MASK_CODEC:
        return f"mask codec {row['mask_codec']!r} is not {MASK_CODEC}"
    try:
        labels_HW = decode_mask(row["mask"], row["height"], row["width"])
    except ValueError as error:
        return str(error)
    said = np.array(row["class_pixels"])
    if not np.array_equal(np.bincount(labels_HW.reshape(-1), minlength=len(said)), said):
        return "the mask has other classes than class_pixels says"
    return None
