"""Promise: an output that fails in the middle of a run (a full disk, credentials that expire, an endpoint
that is gone) ends it with code 1 and one sentence; nothing half-written is visible, and the same command goes
on to the very rows of an undisturbed run.

(Runs go on without Ray here, whoever began them; on Ray they do in `test_submit.py`.)

(A full disk and a read-only folder on the level of one put: `tests/store/test_local_store.py`; S3 that
stumbles: `tests/store/test_s3_faults.py`, `test_s3_chaos.py`; a slow store: `test_bounded.py`.)
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.run_digest import run_digest
from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import RunJob, small_config
from tests.pipeline.failing_stores import FullDisk, S3Through
from tests.pipeline.inline import rows_without_package, run_inline
from tests.s3_faults import faulty
from vidseg_core.pipeline import segment_job
from vidseg_core.store.run import open_run


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), (50, 41))


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("plain") / "out"
    run_inline(small_config(clips, output, segmenter="plain"), 2)
    return output


def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(
    clips: Path,
    undisturbed: Path,
    tmp_path: Path,
    run_on_either: RunJob,
    run_locally: RunJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as full:
        full.setattr(segment_job, "open_output", FullDisk)
        code, text = run_on_either(clips, output, segmenter="plain")
    sentence = f"failed: WriteError: output {output}: cannot write frames/[^ ]*: No space left on device"
    assert code == 1 and re.search(rf"{sentence}\. What is committed", text), text
    assert "same command goes on" in text and "Traceback" not in text
    assert not (output / "_SUCCESS").exists() and not list(output.rglob("*.tmp"))
    rows = rows_without_package(output)
    assert 0 < len(rows) < 91
    assert set(rows) <= set(rows_without_package(undisturbed))
    code, text = run_locally(clips, output, segmenter="plain")
    assert code == 0, text
    assert rows_without_package(output) == rows_without_package(undisturbed)


def test_credentials_that_expire_in_the_middle_are_named_and_renewed(
    clips: Path,
    undisturbed: Path,
    s3: Any,
    run_on_either: RunJob,
    run_locally: RunJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    puts = []

    def expired(request: str) -> str | None:
        puts.extend([request] if request.startswith("PUT") and "/frames/" in request else [])
        return "expired" if len(puts) > 3 else None

    with faulty(s3.endpoint) as service, monkeypatch.context() as ending:
        service.chance = expired
        ending.setattr(segment_job, "open_output", partial(S3Through, endpoint=service.endpoint))
        code, text = run_on_either(clips, f"{s3.url}/out", segmenter="plain")
    assert (
        code == 1 and f"failed: StoreError: output {s3.url}/out: the AWS credentials have expired" in text
    ), text
    assert "same command goes on" in text and "Traceback" not in text
    assert not open_run(f"{s3.url}/out").complete
    code, text = run_locally(clips, f"{s3.url}/out", segmenter="plain")
    assert code == 0, text
    assert run_digest(f"{s3.url}/out") == run_digest(undisturbed)


@pytest.mark.parametrize("place", ["--output", "--input"])
def test_an_endpoint_that_nobody_answers_is_told_before_anything_starts(
    place: str, clips: Path, tmp_path: Path, run_locally: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    places = {"--output": (clips, "s3://bucket/out"), "--input": ("s3://bucket/in/", tmp_path / "out")}
    code, text = run_locally(*places[place], segmenter="plain")
    assert code == 2 and "http://127.0.0.1:1" in text and "s3://bucket" in text and "Traceback" not in text
    assert not (tmp_path / "out").exists()
