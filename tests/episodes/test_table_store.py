"""Promise: what is stored comes back bit for bit, mapped and read-only; the same table has the same bytes;
tables that were made with different things are never mixed, and a damaged file is reported as such.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.episodes.tables import random_table
from vidseg_core.episodes.store import (
    decode_table,
    encode_table,
    list_tables,
    load_tables,
    read_table,
    write_table,
)
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.store import CommitConflict, ObjectStore, open_store
from vidseg_core.store.keys import TableKey, parse_table_key


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return open_store(tmp_path / "set")
    return open_store(request.getfixturevalue("s3").url + "/some/set")


def same(a: EpisodeTable, b: EpisodeTable) -> bool:
    pairs = [(a.quality_TL1, b.quality_TL1), (a.deviation_TL1F, b.deviation_TL1F)]
    assert (a.two_sided_TL1 is None) == (b.two_sided_TL1 is None)
    if a.two_sided_TL1 is not None and b.two_sided_TL1 is not None:
        pairs.append((a.two_sided_TL1, b.two_sided_TL1))
    about = [(t.clip, t.segment, t.feature_names, dict(t.fingerprint)) for t in (a, b)]
    return about[0] == about[1] and all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def test_tables_come_back_in_order(store: ObjectStore) -> None:
    tables = [random_table(seed=n, clip=clip, segment=n) for clip in ("b", "a") for n in (1, 0)]
    assert all(write_table(store, table).created for table in tables)
    loaded = load_tables(store.root)
    assert [(t.clip, t.segment) for t in loaded] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert all(any(same(table, other) for other in tables) for table in loaded)


def test_one_sided_tables_stay_one_sided() -> None:
    table = replace(random_table(), two_sided_TL1=None)
    assert same(decode_table(encode_table(table)), table)


def test_maps_and_pictures_come_back_as_they_were() -> None:
    """Maps are kept of the frames that may be key alone: .33 GB is a clip's worth otherwise."""
    plain, numbers = random_table(9, 4), np.random.default_rng(0)
    table = replace(
        plain,
        maps_GL1M={"flownet_conv6": numbers.standard_normal((3, 5, 12)).astype(np.float16)},
        views_Thwc=numbers.integers(0, 256, (9, 4, 6, 3), np.uint8),
        fingerprint={**plain.fingerprint, "key_stride": "4"},
    )
    data = encode_table(table)
    again = decode_table(data)
    assert same(again, table) and list(again.maps_GL1M) == ["flownet_conv6"]
    assert np.array_equal(again.maps_GL1M["flownet_conv6"], table.maps_GL1M["flownet_conv6"])
    assert again.views_Thwc is not None and np.array_equal(again.views_Thwc, table.views_Thwc)  # type: ignore[arg-type]
    assert not again.maps_GL1M["flownet_conv6"].flags.owndata
    with pytest.raises(EpisodeError, match="maps flownet_conv6 are float16"):
        encode_table(replace(table, fingerprint=plain.fingerprint))


def test_loaded_arrays_cannot_be_written(store: ObjectStore) -> None:
    write_table(store, random_table())
    table = load_tables(store.root)[0]
    for array in (table.quality_TL1, table.deviation_TL1F, table.two_sided_TL1):
        assert array is not None and not array.flags.writeable and not array.flags.owndata


def test_equal_tables_have_equal_bytes_whatever_their_nans() -> None:
    table = random_table()
    other = table.quality_TL1.copy()
    other[np.isnan(other)] = np.frombuffer(np.uint32(0xFFC00001).tobytes(), np.float32)[0]
    assert encode_table(replace(table, quality_TL1=other)) == encode_table(table)


def test_built_twice_is_one_object_and_other_numbers_are_a_conflict(store: ObjectStore) -> None:
    assert write_table(store, random_table(seed=1)).created
    assert not write_table(store, random_table(seed=1)).created
    with pytest.raises(CommitConflict):
        write_table(store, random_table(seed=2))


def test_mixed_fingerprints_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write_table(store, random_table(clip="a"))
    write_table(store, replace(random_table(clip="b"), fingerprint={"segmenter": "other", "horizon": "5"}))
    with pytest.raises(EpisodeError, match="segmenter: toy and other"):
        load_tables(tmp_path)
    assert len(load_tables(tmp_path, clips=["b"])) == 1


def test_foreign_fingerprints_are_refused(tmp_path: Path) -> None:
    write_table(open_store(tmp_path), random_table())
    assert load_tables(tmp_path, fingerprint={"segmenter": "toy"})
    with pytest.raises(EpisodeError, match="segmenter: toy there, deeplab here"):
        load_tables(tmp_path, fingerprint={"segmenter": "deeplab"})
    with pytest.raises(EpisodeError, match="flow: not recorded there"):
        load_tables(tmp_path, fingerprint={"flow": "dis"})


def test_no_tables_and_unknown_clips_have_messages(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="build-episodes"):
        load_tables(tmp_path / "nothing")
    write_table(open_store(tmp_path), random_table(clip="face_1"))
    with pytest.raises(EpisodeError, match="did you mean 'face_1'"):
        load_tables(tmp_path, clips=["face1"])


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_file_is_told(store: ObjectStore, damage: str) -> None:
    data = encode_table(random_table())
    store.put(
        str(TableKey("clip", 0)), {"cut": data[: len(data) // 2], "text": b"hello", "empty": b""}[damage]
    )
    with pytest.raises(EpisodeError, match="segment-00000"):
        load_tables(store.root)


def test_shapes_and_numbers_are_checked() -> None:
    table = random_table()
    for wrong in (
        replace(table, quality_TL1=table.quality_TL1.astype(np.float64)),
        replace(table, feature_names=("one",)),
        replace(table, two_sided_TL1=table.quality_TL1[:-1]),
    ):
        with pytest.raises(ValueError):
            encode_table(wrong)


def test_keys_name_segments() -> None:
    assert parse_table_key(str(TableKey("a.b-c", 7))) == TableKey("a.b-c", 7)
    assert parse_table_key("tables/video=a/segment-1.parquet") is None
    with pytest.raises(ValueError):
        str(TableKey("../up", 0))


def test_listing_skips_what_is_no_table(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write_table(store, random_table())
    store.put("tables/notes.txt", b"x")
    assert list(list_tables(store)) == [TableKey("clip", 0)]
    assert same(read_table(store, TableKey("clip", 0)), random_table())
