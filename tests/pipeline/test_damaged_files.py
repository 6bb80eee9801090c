"""Promise: a small file of an output that is empty, cut off, of other bytes or of another shape is named in
one sentence that says what to do, with exit code 1, by every verb that reads it; no verb prints a traceback.

Why: manifest.json, run.json, inputs.parquet and rows of videos/ were taken for what they should be, and ended
in pages of traceback that named no file, with "the same command goes on from here".
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.builders import put_run
from vidseg_core.cli import main as cli
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.episodes.store import decode_table, encode_table
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.manifest import claim_output, fingerprint, read_inputs
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.ending import explain_failure
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store import (
    RUN_KEY,
    CommitConflict,
    DamagedFile,
    StoreError,
    WriteError,
    open_run,
    open_store,
)
from vidseg_core.store.keys import INPUTS_KEY, MANIFEST_KEY, video_key
from vidseg_core.store.small_files import NUMBER, json_object, read_table

MANIFEST = fingerprint({"scheduler.name": "fixed", "scheduler.interval": 6}, "0" * 64)
INPUTS = [VideoInput(video_id=name, uri=f"/films/{name}.mp4", size=9, stamp="1") for name in ("a", "a-1f")]
RUN_JSON = {"schema_version": 1, "config": {"scheduler": {"name": "fixed"}}, "segmenter": {"name": "plain"}}
VERBS = {
    "status": ("status", "--run", "RUN"),
    "inspect": ("inspect", "--run", "RUN", "--output", "OUT"),
    "report": ("report", "--input", "RUN", "--output", "OUT"),
    "overlay": ("export", "--run", "RUN", "--format", "overlay", "--output", "OUT"),
    "coco": ("export", "--run", "RUN", "--format", "coco", "--no-images", "--output", "OUT"),
}
READERS = {
    MANIFEST_KEY: ("status",),
    INPUTS_KEY: ("status", "inspect"),
    RUN_KEY: ("status", "inspect", "report", "overlay", "coco"),
    video_key("a"): ("status", "inspect", "report", "overlay"),
}
"""Which verbs read which file."""
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "other bytes": lambda data: data[:20] + bytes(byte ^ 0x55 for byte in data[20:60]) + data[60:],
    "text": lambda data: b"\xff\xfenot this\x80",
    "another shape": lambda data: b"[1]",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = open_store(tmp_path / "run")
    put_run(store)
    store.put(RUN_KEY, json.dumps(RUN_JSON).encode())
    claim_output(store, MANIFEST, INPUTS)
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("key", "verb"), [(key, verb) for key, verbs in READERS.items() for verb in verbs])
def test_a_damaged_file_is_named_by_every_verb_that_reads_it(
    key: str, verb: str, damage: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / key
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    places = {"RUN": str(run), "OUT": str(run.parent / "out")}
    words = [places[word] if word in places else word for word in VERBS[verb]]
    assert cli.main(words) == 1
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said and f"{key} is damaged" in said
    assert "; " in said or "--repair" in said  # what to do


@pytest.mark.parametrize("field", ["config", "segmenter"])
@pytest.mark.parametrize("value", [None, 7, [], "x"])
def test_a_run_json_of_another_shape_is_named(
    field: str, value: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / RUN_KEY).write_text(json.dumps(RUN_JSON | {field: value}), encoding="utf-8")
    with pytest.raises(DamagedFile, match=rf"run\.json is damaged \({field} is no object\)"):
        open_run(run)
    assert cli.main(["export", "--run", str(run), "--format", "coco", "--output", str(run) + "-o"]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("inspect", "--show", "sheet"), ("inspect", "--export", "coco"), ("export", "--format", "coco")]
)
def test_a_run_with_more_names_than_labels_can_be_shown(
    words: tuple[str, ...], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"name": "plain", "class_names": [f"class number {n}" for n in range(300)]}
    (run / RUN_KEY).write_text(json.dumps(RUN_JSON | {"segmenter": names}), encoding="utf-8")
    code = cli.main([*words, "--run", str(run), "--output", str(run.parent / "out")])
    assert code in (0, 3) and "Traceback" not in capsys.readouterr().err  # 3: the films are gone


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (
            WriteError("output x: cannot write y: No space left on device"),
            "; the same command goes on from here",
        ),
        (CommitConflict("output x: y exists with other content"), "stays.\n"),
        (DamagedFile("x: y is damaged; remove it"), "failed: x: y is damaged; remove it.\n"),
        (ZeroDivisionError("a bug"), "; the same command tries again from here"),
    ],
)
def test_that_the_same_command_goes_on_is_said_where_it_does(problem: Exception, said: str) -> None:
    text = io.StringIO()
    config = SegmentConfig(input=("in",), output="out", segmenter="plain")
    assert explain_failure(problem, config, Reporter("text", text)) == 1
    assert said in text.getvalue() and ("goes on" in text.getvalue()) == ("goes on" in said)


def test_a_run_without_its_run_json_can_be_read(run: Path) -> None:
    (run / RUN_KEY).write_bytes(b"")
    with pytest.raises(DamagedFile, match="--repair"):
        open_run(run)
    (run / RUN_KEY).unlink()
    assert len(open_run(run).videos()) == 2


def test_a_damaged_manifest_is_not_called_another_run(run: Path) -> None:
    path, store = run / MANIFEST_KEY, open_store(run)
    path.write_bytes(path.read_bytes().replace(b"fixed", b"fixec"))
    with pytest.raises(DamagedFile, match="manifest.json is damaged .*use another --output"):
        claim_output(store, MANIFEST, INPUTS)


def test_a_manifest_of_another_version_is_another_run(run: Path) -> None:
    path, store = run / MANIFEST_KEY, open_store(run)
    older = fingerprint({"scheduler.name": "random"}, "0" * 64)
    path.write_text(json.dumps(older), encoding="utf-8")
    with pytest.raises(FingerprintMismatch, match="'random' there, 'fixed' now"):
        claim_output(store, MANIFEST, INPUTS)


def test_a_list_of_inputs_that_lacks_a_column_is_damaged(run: Path) -> None:
    store = open_store(run)
    table = read_inputs(store).drop_columns(["uri"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    store.put(INPUTS_KEY, sink.getvalue().to_pybytes())
    with pytest.raises(DamagedFile, match="there is no column 'uri'"):
        claim_output(store, MANIFEST, INPUTS)


# --- any damage ---------------------------------------------------------------------------------------------


def _table() -> EpisodeTable:
    rng = np.random.default_rng(0)
    return EpisodeTable(
        clip="a",
        segment=0,
        quality_TL1=rng.random((6, 4), np.float32),
        deviation_TL1F=rng.random((6, 4, 2), np.float32),
        feature_names=("x", "y"),
        fingerprint={"segmenter": "plain"},
    )


SHAPE = {"version!": int, "rows": [{"name!": str, "share": NUMBER}], "kept": bool}
SMALL: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "json": (
        json.dumps({"version": 1, "rows": [{"name": "é", "share": 0.5}], "kept": True}).encode(),
        lambda data: json_object(data, "x", SHAPE, "remove it"),
    ),
    "episodes": (encode_table(_table()), lambda data: decode_table(data, "x")),
}


@given(st.data())
@pytest.mark.parametrize("kind", SMALL)
def test_no_damage_ends_in_another_error(kind: str, data: st.DataObject) -> None:
    whole, read = SMALL[kind]
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(StoreError, EpisodeError):
        read(bytes(broken[: data.draw(st.integers(0, len(whole)))]))


@given(st.data())
def test_no_damage_to_a_table_ends_in_another_error(data: st.DataObject) -> None:
    schema = pa.schema([("name", pa.string()), ("size", pa.int64())])
    table = pa.table({"name": ["a", "é"], "size": [1, 2]}, schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    broken = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(DamagedFile):
        found = read_table(bytes(broken), "x", "remove it", schema, schema.names)
        assert found.schema.names == schema.names and found.to_pylist() is not None


def test_shapes_are_checked_inside_lists() -> None:
    for wrong in ({}, {"version": True}, {"version": 1, "rows": [{}]}, {"version": 1, "rows": [{"name": 3}]}):
        with pytest.raises(DamagedFile, match=r"x is damaged \(.*\); remove it"):
            json_object(json.dumps(wrong).encode(), "x", SHAPE, "remove it")
