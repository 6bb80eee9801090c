"""Promise: what was committed is read as it was written, or the file (and the frames) that are not are named.

Why: a flipped bit in a part was read as data, `compact` copied it and deleted the part, and exports died
without a name. Disks, cables and buckets do flip bits, and files are cut short by a full disk elsewhere.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.run_digest import run_digest
from tests.store.builders import CLASSES, flip, frame_row, labels_of, older_bytes, put_parts, put_run
from vidseg_core.cli.main import main
from vidseg_core.config.export import ExportConfig
from vidseg_core.export.export_job import run_export
from vidseg_core.store import (
    CommitConflict,
    ObjectStore,
    commit_part,
    compact,
    encode_part,
    open_run,
    open_store,
)
from vidseg_core.store.checked import ARROW_ERRORS, open_checked, read_group, why_damaged
from vidseg_core.store.errors import DamagedFile, StoreError

PART = "frames/video=a/part-00000-000002.parquet"
FRAMES = range(14, 21)


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    store = open_store(tmp_path / "run")
    put_run(store)
    return store


def mask_byte(store: ObjectStore, key: str = PART) -> int:
    """Where the page of masks begins to have data."""
    group = pq.ParquetFile(pa.BufferReader(store.get(key))).metadata.row_group(0)
    column = next(
        group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "mask"
    )
    return column.data_page_offset + column.total_compressed_size - 9


def test_every_single_bit_is_found() -> None:
    data = encode_part("a", [frame_row(i) for i in range(7)], n_classes=CLASSES, key=PART)
    rows, harmless = open_checked(pa.BufferReader(data), PART, "here").read().to_pylist(), 0
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(len(data)):
        for bit in range(8) if place >= footer else (place % 4, 4 + place % 3):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            assert why_damaged(bytes(bad), PART) is not None
            read = _rows_or_none(bytes(bad))
            assert read in (None, rows)
            harmless += read == rows
    assert 0 < harmless < len(data)


def _rows_or_none(data: bytes) -> list[dict] | None:
    """What who reads rows gets; the rows that were written, or an error."""
    try:
        file = open_checked(pa.BufferReader(data), PART, "here")
        read = [row for group in range(file.num_row_groups) for row in read_group(file, group).to_pylist()]
    except (DamagedFile, StoreError, *ARROW_ERRORS):
        return None
    return read


@pytest.mark.parametrize("read", ["rows", "few columns", "mask", "dataset", "export", "digest", "compact"])
def test_a_flipped_bit_is_named_by_every_reader(local: ObjectStore, tmp_path: Path, read: str) -> None:
    flip(local, PART, mask_byte(local))
    run = open_run(local.root)
    readers = {
        "rows": lambda: list(run.rows("a")),
        "mask": lambda: run.mask("a", 15),
        "export": lambda: run_export(ExportConfig(run=local.root, output=str(tmp_path / "png"))),
        "digest": lambda: run_digest(local.root),
        "compact": lambda: compact(local.root),
    }
    if read == "few columns":  # whose bytes are sound
        assert len(list(run.rows("a", ["is_key"]))) == 30
    elif read == "dataset":
        with pytest.raises(OSError, match="CRC checksum verification failed"):
            run.frames().to_table()
    else:
        with pytest.raises(DamagedFile, match=rf"run.*{PART} is damaged \(frames 14 to 20: .*CRC.*--repair"):
            readers[read]()


def test_compact_neither_copies_nor_deletes_a_damaged_part(local: ObjectStore) -> None:
    flip(local, PART, mask_byte(local))
    before = {info.key: local.get(info.key) for info in local.list("frames/video=a/")}
    with pytest.raises(DamagedFile):
        compact(local.root)
    assert {info.key: local.get(info.key) for info in local.list("frames/video=a/")} == before


def test_compact_keeps_the_parts_that_a_damaged_span_covers(local: ObjectStore) -> None:
    parts = {info.key: local.get(info.key) for info in local.list("frames/video=a/")}
    compact(local.root)
    (span,) = (info.key for info in local.list("frames/video=a/"))
    for key, data in parts.items():  # as if it had been killed before it deleted them
        local.put(key, data)
    flip(local, span, mask_byte(local, span))
    with pytest.raises(DamagedFile, match=rf"{span} is damaged"):
        compact(local.root)
    assert {key for key in parts if local.exists(key)} == set(parts)


@pytest.mark.parametrize("size", [0, 3, 11, 700, -1, -300])
def test_a_file_that_is_cut_short_is_named(local: ObjectStore, size: int) -> None:
    local.put(PART, local.get(PART)[:size])
    for read in (
        lambda: list(open_run(local.root).rows("a", ["is_key"])),
        lambda: open_run(local.root).mask("a", 15),
    ):
        with pytest.raises(DamagedFile, match=rf"{PART} is damaged"):
            read()


def test_statistics_that_look_ups_go_by_are_checked_too(local: ObjectStore) -> None:
    sound, named = local.get(PART), 0
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    for place in random.Random(1).sample(range(footer, len(sound)), 60):
        flip(local, PART, place, place % 8)
        try:
            np.testing.assert_array_equal(open_run(local.root).mask("a", 15), labels_of(15, 1))
        except DamagedFile as error:
            named += PART in str(error)
        local.put(PART, sound)
    assert named > 50


def test_a_sound_file_of_another_place_is_not_read_as_this_one(local: ObjectStore) -> None:
    other = "frames/video=a/part-00000-000003.parquet"
    local.put(PART, local.get(other))
    with pytest.raises(DamagedFile, match=rf"{PART} is damaged \(it was written as {other}\)"):
        list(open_run(local.root).rows("a"))


def test_rows_of_videos_are_checked_too(local: ObjectStore) -> None:
    flip(local, "videos/a.parquet", 40)
    with pytest.raises(DamagedFile, match=r"videos/a\.parquet is damaged"):
        open_run(local.root).videos()


def test_a_writer_that_meets_a_damaged_part_says_so_and_speaks_of_no_other_run(local: ObjectStore) -> None:
    sound = local.get(PART)
    flip(local, PART, mask_byte(local))
    with pytest.raises(DamagedFile, match=rf"{PART} is damaged \(frames 14 to 20"):
        commit_part(local, PART, sound)
    local.put(PART, encode_part("a", [frame_row(i, 9) for i in FRAMES], key=PART))
    with pytest.raises(CommitConflict, match="exists with other content"):
        commit_part(local, PART, sound)


def test_masks_of_older_versions_are_decoded_and_counted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put_parts(store, "a", [7])
    key = "frames/video=a/part-00000-000000.parquet"
    table = pq.read_table(pa.BufferReader(store.get(key)))
    rows = table.to_pylist()
    assert why_damaged(older_bytes(table), key) is None
    for change in ({"mask": rows[3]["mask"][:-1]}, {"mask": rows[0]["mask"]}, {"mask_codec": "rle9"}):
        bad = [row | change if number == 3 else row for number, row in enumerate(rows)]
        data = older_bytes(pa.Table.from_pylist(bad, schema=table.schema))
        assert (why_damaged(data, key) or "").startswith("frame 3: "), change
    assert "another video" in (why_damaged(older_bytes(table), key.replace("=a/", "=b/")) or "")


def test_an_export_of_an_older_run_names_file_and_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(tmp_path / "run")
    put_parts(store, "a", [7, 7])
    key = "frames/video=a/part-00000-000001.parquet"
    table = pq.read_table(pa.BufferReader(store.get(key)))
    rows = table.to_pylist()
    rows[2]["mask"] = rows[2]["mask"][:-1]
    store.put(key, older_bytes(pa.Table.from_pylist(rows, schema=table.schema)))
    with pytest.raises(DamagedFile, match=rf"{key} is damaged \(frame 9: "):
        open_run(store.root).mask("a", 9)
    assert main(["export", "--run", store.root, "--output", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().err
    assert f"{key} is damaged (frame 9: " in text and "Traceback" not in text
