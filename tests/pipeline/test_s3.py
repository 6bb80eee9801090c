"""Promise: a run on S3 gives the table of a run on local disk, and reads its inputs from S3 just as well.

Why: object storage is where corpora and masks live; a real S3 API over HTTP answers here (moto's server).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from benchmarks.run_digest import run_digest
from tests.pipeline.conftest import OPTIONS_OF, RunJob, small_config
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.store.run import open_run


@pytest.fixture(scope="module")
def local_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    assert run_segment(small_config(corpus, output, **OPTIONS_OF["local"])) == 0
    return output


@pytest.mark.ray
def test_the_same_table_on_s3(corpus: Path, local_run: Path, s3: Any, run_job: RunJob) -> None:
    code, text = run_job(corpus, f"{s3.url}/runs/one", workers=1)
    assert code == 0, text
    assert run_digest(f"{s3.url}/runs/one") == run_digest(local_run)
    run = open_run(f"{s3.url}/runs/one")
    assert run.complete and run.videos().num_rows == 3
    code, text = run_job(corpus, f"{s3.url}/runs/one")
    assert code == 0 and "complete already" in text


def test_inputs_from_s3(corpus: Path, local_run: Path, s3: Any, tmp_path: Path, run_locally: RunJob) -> None:
    client = boto3.client("s3")
    for clip in corpus.iterdir():
        client.upload_file(str(clip), s3.bucket, f"in/{clip.name}")
    code, text = run_locally(f"{s3.url}/in/", tmp_path / "out")
    assert code == 0, text
    assert _masks(tmp_path / "out") == _masks(local_run)


def test_an_unreadable_s3_key_is_quarantined_and_named(
    corpus: Path, s3: Any, tmp_path: Path, run_locally: RunJob
) -> None:
    listing = tmp_path / "list.csv"
    clip = next(iter(sorted(corpus.iterdir())))
    listing.write_text(f"uri\n{clip}\n{s3.url}/in/not-there.mp4\n", encoding="utf-8")
    code, text = run_locally(listing, tmp_path / "out")
    assert code == 3, text
    rows = {row["status"]: row for row in open_run(tmp_path / "out").videos().to_pylist()}
    assert rows["ok"]["decoded_frames"] > 0
    assert "not-there.mp4" in rows["quarantined"]["reason"]


def test_a_bucket_that_is_not_there_is_bad_usage(corpus: Path, s3: Any, run_locally: RunJob) -> None:
    code, text = run_locally(corpus, "s3://no-such-bucket-here/run")
    assert code == 2 and "no-such-bucket-here" in text


def _masks(output: Path) -> list[bytes]:
    table = open_run(output).frames().to_table(columns=["mask"])
    return sorted(table.column("mask").to_pylist())
