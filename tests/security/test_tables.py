"""Promise: a table from elsewhere (a list of videos as CSV or Parquet, a run, an episode table) is data. It
runs no code, opens nothing but what it names, and names only videos.

The failure that motivated it: Ray registers an Arrow type whose values are pickles, and Arrow unpickles them
for whoever looks at a value, in any process that has imported Ray.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data.extensions import ArrowPythonObjectType

from tests.security.watching import knocks, opens_of
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.episodes.store import decode_table
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.kit.manifest import claim_output, fingerprint
from vidseg_core.media.remote import is_remote
from vidseg_core.plan import InputError, expand_inputs
from vidseg_core.store import FRAMES_SCHEMA, VIDEOS_SCHEMA, open_run, open_store
from vidseg_core.store.compact import compact_video
from vidseg_core.store.errors import StoreError
from vidseg_core.store.foreign import check_plain
from vidseg_core.store.keys import INPUTS_KEY, MANIFEST_KEY
from vidseg_core.store.schema import VERSION_KEY

PICKLED = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """Exists if code was run."""
    return tmp_path / "code was run"


def trapped(evidence: Path, name: str, others: pa.Schema | None = None) -> pa.Table:
    """A table of one row with a trap in the column `name`, and `others` as they are."""
    kinds = [field for field in others or () if field.name != name]
    fields = [*kinds, pa.field(name, pa.large_binary(), metadata=PICKLED)]
    plain = {"string": "x", "int64": 0, "int32": 1, "double": 0.0, "bool": True, "binary": b""}
    values = [pa.array([plain.get(str(field.type), [])], field.type) for field in kinds]
    trap = pa.array([pickle.dumps(Runs(evidence))], pa.large_binary())
    metadata = {VERSION_KEY: b"1"} | dict((others.metadata if others else None) or {})
    return pa.table([*values, trap], schema=pa.schema(fields, metadata=metadata))


def written(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_the_danger_is_real(evidence: Path, tmp_path: Path) -> None:
    """Should Ray stop doing this, the guard is not needed any more."""
    path = written(trapped(evidence, "uri"), tmp_path / "list.parquet")
    pq.read_table(path).to_pylist()
    assert evidence.exists()


@pytest.mark.parametrize("column", ["uri", "video_id"])
def test_a_list_of_videos_runs_nothing(column: str, evidence: Path, tmp_path: Path) -> None:
    others = pa.schema([("uri", pa.string())])
    path = written(trapped(evidence, column, others), tmp_path / "list.parquet")
    with pytest.raises(InputError, match=f"list.parquet: column '{column}' is of the type 'ray.data"):
        expand_inputs([str(path)])
    assert not evidence.exists()


def test_other_columns_of_a_list_are_not_looked_at(evidence: Path, tmp_path: Path) -> None:
    path = written(trapped(evidence, "note", pa.schema([("uri", pa.string())])), tmp_path / "list.parquet")
    assert len(expand_inputs([str(path)])) == 1
    assert not evidence.exists()


def _read_videos(folder: Path) -> None:
    open_run(str(folder)).videos().to_pylist()


def _read_rows(folder: Path) -> None:
    list(open_run(str(folder)).rows("x"))


def _read_mask(folder: Path) -> None:
    open_run(str(folder)).mask("x", 0)


def _compact(folder: Path) -> None:
    part = next(folder.glob("frames/*/*.parquet"))
    (part.parent / "part-00000-000001.parquet").write_bytes(part.read_bytes())
    compact_video(open_store(folder), "x")


MANIFEST = fingerprint({}, "0" * 64)


def _claim(folder: Path) -> None:
    claim_output(open_store(folder), MANIFEST, [])


def _as_data_set(folder: Path) -> None:
    videos = [dict.fromkeys(VIDEOS_SCHEMA.names) | {"video_id": "x", "uri": "x.mp4", "status": "ok"}]
    numbers = dict.fromkeys(("decoded_frames", "corrupt_frames", "keys", "cpu_s", "gpu_s"), 1)
    written(pa.Table.from_pylist([videos[0] | numbers], schema=VIDEOS_SCHEMA), folder / "videos/x.parquet")
    list(open_dataset(f"tables:{folder}").items("train"))


@pytest.mark.parametrize(
    ("key", "column", "schema", "read"),
    [
        ("videos/x.parquet", "reason", VIDEOS_SCHEMA, _read_videos),
        ("frames/video=x/part-00000-000000.parquet", "mask_codec", FRAMES_SCHEMA, _read_rows),
        ("frames/video=x/part-00000-000000.parquet", "mask_codec", FRAMES_SCHEMA, _read_mask),
        ("frames/video=x/part-00000-000000.parquet", "mask_codec", FRAMES_SCHEMA, _compact),
        ("frames/video=x/part-00000-000000.parquet", "video_id", FRAMES_SCHEMA, _as_data_set),
        (INPUTS_KEY, "uri", None, _claim),
    ],
)
def test_a_run_from_elsewhere_runs_nothing(
    key: str,
    column: str,
    schema: pa.Schema | None,
    read: Callable[[Path], None],
    evidence: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    written(trapped(evidence, column, schema), folder / key)
    for name, text in (("_SUCCESS", ""), ("run.json", "{}"), (MANIFEST_KEY, json.dumps(MANIFEST))):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(StoreError, match=f"column '{column}' is of the type"):
        read(folder)
    assert not evidence.exists()


@pytest.mark.parametrize("wrap", [pa.list_, lambda kind: pa.struct([("a", kind)])])
def test_a_type_inside_another_is_found(wrap: Callable[[Any], Any]) -> None:
    kind = wrap(ArrowPythonObjectType())
    with pytest.raises(StoreError, match="here: column 'x'"):
        check_plain(pa.schema([("x", kind)]), "here")


def test_an_episode_table_runs_nothing(evidence: Path) -> None:
    table = trapped(evidence, "quality")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(EpisodeError, match="column 'quality' is of the type"):
        decode_table(sink.getvalue())
    assert not evidence.exists()


def test_entries_of_a_list_are_videos_and_nothing_else(tmp_path: Path) -> None:
    """No list in a list, no pattern, no folder of videos, no command."""
    inner = tmp_path / "inner.csv"
    inner.write_text("uri\nfilm.mp4\n")
    (tmp_path / "film.mp4").write_bytes(b"x")
    entries = [str(inner), str(tmp_path / "*"), "$(touch ran)", "`touch ran`", "|touch ran", "../../x"]
    outer = tmp_path / "outer.csv"
    outer.write_text("uri\n" + "\n".join(entries) + "\n")
    with opens_of(inner) as opened:
        found = expand_inputs([str(outer)])
    assert len(found) == len(entries) and not opened
    assert not any("film" in video.uri for video in found)
    assert all("/" not in video.video_id and not video.video_id.startswith(".") for video in found)
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("scheme", ["http", "https", "gs", "ftp", "rtmp", "concat", "data"])
def test_an_address_of_another_kind_or_with_secrets_is_refused_unasked_and_its_secrets_not_repeated(
    scheme: str, tmp_path: Path
) -> None:
    why = "holds credentials" if is_remote(f"{scheme}://") else "only local paths and addresses of s3://"
    listing = tmp_path / "list.csv"
    with knocks() as (port, knocked):
        secret = f"{scheme}://127.0.0.1:{port}/x.mp4?X-Amz-Signature=MARKER&a=1"
        listing.write_text(f"uri\n{secret}\n")
        with pytest.raises(InputError, match=why) as caught:
            expand_inputs([str(listing)])
    assert "MARKER" not in str(caught.value) and not knocked
    with pytest.raises(ValueError, match="--input") as refused:
        SegmentConfig(input=(secret,), output="out", segmenter="plain")
    assert "MARKER" not in str(refused.value)
