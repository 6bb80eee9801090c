"""Promise: a bad video is quarantined with its reason and costs no other video a single row.

Why: corpora come from the internet. One file that hangs FFmpeg must not hang ten thousand others, and a text
file that calls itself a video must not make the job read another file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.one_ray import joining
from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import BOTH, OPTIONS_OF
from tests.pipeline.poison import write_poison
from vidseg_core.media.process import READER_VARIABLE
from vidseg_core.store.run import open_run

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=BOTH)
def poisoned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], subprocess.CompletedProcess]:
    """A run over good and bad files, in a process of its own."""
    root = tmp_path_factory.mktemp("poison")
    reasons = write_poison(root / "in")
    make_corpus(root / "in", (40, 25))
    options = {"input": root / "in", "output": root / "out", "segmenter": "plain", "shard_frames": 8}
    options |= OPTIONS_OF[request.param]
    options |= {
        "media.decode_deadline_s": 3,
        "scheduler.name": "fixed",
        "log": "json",
    }
    pairs = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    reader = {READER_VARIABLE: "tests.pipeline.poison"}
    if request.param == "ray":
        request.getfixturevalue("local_ray")
        environment = joining(**reader)
    else:
        alone = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        environment = alone | {"PYTHONPATH": str(REPO)} | reader
    done = subprocess.run(
        [sys.executable, "-m", "jobs.segment", *pairs],
        cwd=REPO,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    return root / "out", reasons, done


def test_each_bad_file_gets_its_reason(poisoned: tuple) -> None:
    output, reasons, _ = poisoned
    found = {Path(row["uri"]).name: row for row in open_run(output).videos().to_pylist()}
    for name, reason in reasons.items():
        assert found[name]["status"] == "quarantined", name
        assert found[name]["reason"].startswith(reason), (name, found[name]["reason"])


def test_the_good_ones_lose_nothing(poisoned: tuple) -> None:
    output, _, done = poisoned
    assert done.returncode == 3, done.stderr
    good = [row for row in open_run(output).videos().to_pylist() if row["status"] == "ok"]
    assert sorted(row["decoded_frames"] for row in good) == [25, 40]
    frames = open_run(output).frames().to_table(columns=["video_id", "frame_index"]).to_pylist()
    for row in good:
        mine = sorted(f["frame_index"] for f in frames if f["video_id"] == row["video_id"])
        assert mine == list(range(row["decoded_frames"]))


def test_frames_before_a_crash_are_kept(poisoned: tuple) -> None:
    output, _, _ = poisoned
    rows = {Path(row["uri"]).name: row for row in open_run(output).videos().to_pylist()}
    frames = open_run(output).frames().to_table(columns=["video_id"]).column("video_id").to_pylist()
    for name in ("SEGFAULT.mp4", "HANG.mp4"):
        assert frames.count(rows[name]["video_id"]) <= 8


def test_the_log_is_json_and_names_the_quarantined(poisoned: tuple) -> None:
    _, reasons, done = poisoned
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    named = {Path(e["uri"]).name for e in events if e["event"] == "video" and e["status"] == "quarantined"}
    assert named == set(reasons)
    assert [e for e in events if e["event"] == "summary"][0]["quarantined"] == len(reasons)
