"""Promise: a run with credentials leaves none of them anywhere: not in its output, its logs or its report,
and not in what Ray writes down about it.

A whole run in processes of its own, on S3 (moto) with keys, a session token and a Ray token that no other
text contains; then every byte is looked through.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.pipeline.clips import make_corpus

REPO = Path(__file__).parents[2]
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAMARKERIDMARKERID",
    "AWS_SECRET_ACCESS_KEY": "MARKERsecret0MARKERsecret1MARKERsecret22",
    "AWS_SESSION_TOKEN": "MARKERsession0123456789MARKERsession",
    "RAY_AUTH_TOKEN": "0badf00d0badf00d0badf00d0badf00d",
    "HF_TOKEN": "hf_MARKERofthehubMARKERofthehub",
}


@pytest.fixture
def ray_home() -> Iterator[Path]:
    """Where Ray keeps its session: a short path, for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="vs", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_no_secret_is_left_anywhere(s3: Any, ray_home: Path, tmp_path: Path) -> None:
    client, output, page = boto3.client("s3"), f"{s3.url}/out", tmp_path / "page"
    for clip in make_corpus(tmp_path / "in", (20,)).iterdir():
        client.upload_file(str(clip), s3.bucket, f"in/{clip.name}")
    client.put_object(Bucket=s3.bucket, Key="in/bad.mp4", Body=b"no video, so that reasons are written" * 9)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= SECRETS | {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(ray_home), "PYTHONPATH": str(REPO)}

    def vidseg(verb: str, *words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", f"jobs.{verb}", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=240
        )
        return done.returncode, done.stdout + done.stderr

    options = [
        "--input",
        f"{s3.url}/in/",
        "--output",
        output,
        "--segmenter",
        "plain",
        "--executor",
        "ray",
        "--object_store_mb",
        "200",
        "--shard_frames",
        "8",
    ]
    code, told = vidseg("segment", *options, "--log", "json")
    assert code == 3, told
    logs = [told, vidseg("segment", *options, "--seed", "7")[1]]
    logs += [vidseg("status", output)[1], vidseg("report", "--input", output, "--output", str(page))[1]]
    assert "belongs to another run" in logs[1] and (page / "index.html").exists()

    listing = client.list_objects_v2(Bucket=s3.bucket, Prefix="out/")["Contents"]
    places = {"log": "\n".join(logs).encode()}
    for item in listing:
        places[item["Key"]] = client.get_object(Bucket=s3.bucket, Key=item["Key"])["Body"].read()
    files = [path for folder in (page, ray_home) for path in folder.rglob("*") if path.is_file()]
    places |= {str(path): path.read_bytes() for path in files}
    assert any("session_" in name and "/logs/" in name for name in places) and "out/run.json" in places
    found = [
        (name, key) for name, data in places.items() for key, text in SECRETS.items() if text.encode() in data
    ]
    assert not found
