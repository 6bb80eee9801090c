"""Promise: a list names videos, their ids and their frames; one that is damaged, odd or makes no sense is one
sentence that says where.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.named import names, touch, write_list
from vidseg_core.config.excerpt import Excerpt
from vidseg_core.plan import InputError, expand_inputs, make_video_id

LIST = pa.table({"uri": ["a.mp4"], "video_id": ["one"]})


def _written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


BAD_LISTS = {
    "twice.csv": (b"uri,uri\na.mp4,b.mp4\n", "several columns 'uri'"),
    "twice.parquet": (
        _written(pa.Table.from_arrays([*LIST.columns, LIST["uri"]], names=["uri", "video_id", "uri"])),
        "several columns 'uri'",
    ),
    "ids-twice.parquet": (
        _written(pa.Table.from_arrays([*LIST.columns, LIST["uri"]], names=["uri", "video_id", "video_id"])),
        "several columns 'video_id'",
    ),
    "numbers.parquet": (_written(pa.table({"uri": [1, 2]})), "column 'uri' holds int64, not text"),
    "bytes.parquet": (_written(pa.table({"uri": [b"a.mp4"]})), "column 'uri' holds binary, not text"),
    "null.parquet": (_written(pa.table({"uri": [None]})), "column 'uri' holds null, not text"),
    "float-ids.parquet": (
        _written(pa.table({"uri": ["a.mp4", "b.mp4"], "video_id": [1.0, float("nan")]})),
        "column 'video_id' holds double, neither text nor whole numbers",
    ),
    "nan.csv": (b"uri,video_id\na.mp4,nan\n", "row 2 has the video_id 'nan'"),
    "gap.parquet": (_written(pa.table({"uri": ["a.mp4", None]})), "row 2 has no uri"),
    "empty.csv": (b"", "no column 'uri'"),
    "empty.parquet": (b"", "not a readable Parquet file"),
    "half.parquet": (_written(LIST)[:-40], "not a readable Parquet file"),
    "text.parquet": (b"uri\na.mp4\n", "not a readable Parquet file"),
    "zip.csv": (b"PK\x03\x04\xff\xfe\x00", "no.* 'uri'|not a readable CSV"),
    "utf16.csv": ("uri\na.mp4\n".encode("utf-16"), "not a readable CSV file"),
    "nul.csv": (b"uri\na\x00.mp4\n", "not a"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_a_damaged_or_odd_list_is_one_sentence(name: str, tmp_path: Path) -> None:
    data, why = BAD_LISTS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=why) as caught:
        expand_inputs([str(tmp_path / name)])
    assert name in str(caught.value) and "\n" not in str(caught.value)


@given(st.data())
def test_no_damage_to_a_list_is_anything_but_an_input_error(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kind = data.draw(st.sampled_from(["l.csv", "l.parquet"]))
        whole = bytearray(_written(LIST) if kind == "l.parquet" else b"uri,video_id\na.mp4,one\n")
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        Path(folder, kind).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        with suppress(InputError):
            expand_inputs([f"{folder}/{kind}"])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_lists(suffix: str, tree: Path) -> None:
    rows: list[dict[str, str | None]] = [
        {"note": "first", "uri": "sub/c.avi", "video_id": "mine"},
        {"note": "again", "uri": str(tree / "sub" / "c.avi"), "video_id": None},
        {"note": "not there", "uri": "gone.mp4", "video_id": ""},
        {"note": "unsafe", "uri": "b.mp4", "video_id": "../../etc"},
    ]
    first, missing, unsafe = expand_inputs([write_list(tree / f"list.{suffix}", rows)])
    assert (first.video_id, first.uri, first.size) == ("mine", str(tree / "sub" / "c.avi"), 1)
    assert missing.size == 0 and missing.stamp == "missing" and missing.uri.endswith("gone.mp4")
    assert unsafe.uri == str(tree / "b.mp4") and unsafe.video_id.startswith("etc-")


def test_whole_numbers_are_ids_and_a_column_without_any_is_none(tree: Path) -> None:
    for ids, expected in ([7, None], "7"), ([None, None], make_video_id(str(tree / "b.mp4"))):
        pq.write_table(pa.table({"uri": ["b.mp4", "a.MKV"], "video_id": ids}), tree / "list.pq")
        assert expand_inputs([str(tree / "list.pq")])[0].video_id == expected


PARTS = {
    "part-1.parquet": _written(pa.table({"uri": ["clips/3.mp4"], "video_id": [None]})),
    "day=2/part-0.parquet": _written(pa.table({"uri": ["clips/2.mp4"], "video_id": ["two"]})),
    "part-0.parquet": _written(pa.table({"uri": ["clips/1.mp4"], "video_id": ["one"]})),
    "_temporary/part-2.parquet": b"not finished",
    ".part-0.parquet.crc": b"crc",
    "_SUCCESS": b"",
}


def test_a_folder_of_parquet_parts_is_one_list(tmp_path: Path) -> None:
    """As Spark, pandas and the like write them."""
    for name, data in PARTS.items():
        touch(tmp_path / "clips.parquet" / name, data)
    for number in "123":
        touch(tmp_path / "clips" / f"{number}.mp4")
    found = expand_inputs([f"{tmp_path}/clips.parquet/"])
    assert [Path(video.uri).name for video in found] == ["1.mp4", "3.mp4", "2.mp4"]
    assert found[0].video_id == "one" and all(video.size == 1 for video in found)
    assert names(str(tmp_path)) == ["1.mp4", "2.mp4", "3.mp4"], "beside videos, Parquet files are no list"
    touch(tmp_path / "clips.parquet" / "part-9.parquet", b"half")
    with pytest.raises(InputError, match=r"part-9\.parquet: not a readable Parquet file"):
        expand_inputs([str(tmp_path / "clips.parquet")])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_list_says_which_frames_are_taken(suffix: str, tree: Path) -> None:
    plain = expand_inputs([str(tree / "b.mp4")])[0]
    texts = [(None, None), ("5", None), ("5.0", "0"), (None, "7.5"), ("nan", "")]
    rows = [{"uri": "b.mp4", "fps": fps, "start_s": start_s} for fps, start_s in texts]
    path = write_list(tree / f"list.{suffix}", rows)
    found = expand_inputs([path])
    assert [(video.fps, video.start_s) for video in found] == [(None, None), (5.0, None), (None, 7.5)]
    assert found[0] == plain and len({video.video_id for video in found}) == 3
    assert {video.uri for video in found} == {plain.uri}
    usual = expand_inputs([path], excerpt=Excerpt(fps=2, end_s=9))
    assert [(v.fps, v.start_s, v.end_s) for v in usual] == [(2, None, 9), (5, None, 9), (2, 7.5, 9)]
    late = expand_inputs([path], excerpt=Excerpt(start_s=3))
    assert [video.start_s for video in late] == [3, 3, None, 7.5], "the row that says 0 begins at 0"
    with pytest.raises(InputError, match=r"b\.mp4: end_s must be after start_s \(7\.5\), got 3 \(its row"):
        expand_inputs([path], excerpt=Excerpt(end_s=3))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "b.mp4"}], "no column 'uri'"),
        ([{"uri": "b.mp4", "video_id": "x"}, {"uri": "a.MKV", "video_id": "x"}], "'x' is given to two"),
        ([{"uri": "b.mp4", "video_id": "x"}, {"uri": "b.mp4", "video_id": "y"}], "named twice"),
        ([{"uri": "b.mp4", "x": "1"}, {"uri": "", "x": "1"}], "row"),
        ([{"uri": "ftp://x/b.mp4", "x": "1"}], "only local paths"),
        ([{"uri": "b.mp4", "start_s": "soon"}], "row .: start_s is no number: 'soon'"),
        ([{"uri": "b.mp4", "fps": "-2"}], "row .: fps must be above 0, got -2"),
    ],
)
def test_lists_that_make_no_sense(
    suffix: str, rows: list[dict[str, str | None]], message: str, tree: Path
) -> None:
    path = write_list(tree / f"list.{suffix}", rows)
    with pytest.raises(InputError, match=message):
        expand_inputs([path])


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_lists_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    for data in (b"", b"\xff\xfe\x00garbage\x00", b"uri\n"):
        with pytest.raises(InputError, match=name):
            expand_inputs([str(touch(tmp_path / name, data))])
