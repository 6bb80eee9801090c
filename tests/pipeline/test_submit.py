"""Promise: `vidseg submit` may be repeated without harm. The same command follows the job that runs, goes on
with one that was stopped, and nobody without the token gets in.

A real head node listens on this machine's loopback, with token authentication.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.pipeline.submit import job_name

pytestmark = pytest.mark.ray
REPO = Path(__file__).parents[2]
NEEDED = ("--input", "a", "--output", "b", "--segmenter", "plain")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def asked(environment: dict[str, str]) -> list[dict[str, Any]] | None:
    """The jobs that the head's server knows; None if it does not answer."""
    token = {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    request = Request(f"{environment['RAY_API_SERVER_ADDRESS']}/api/jobs/", headers=token)
    with suppress(OSError), urlopen(request, timeout=10) as answer:
        return json.load(answer)
    return None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the head's job server is found and answers."""
    pytest.importorskip("grpc", reason="ray[default] is not installed")
    port, jobs = free_port(), free_port()
    home = tmp_path_factory.mktemp("head")
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{jobs}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "PYTHONPATH": str(REPO),
    }
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={jobs}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=200000000", "--disable-usage-stats"]
    log = (home / "log").open("w")
    head = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=home
    )
    try:
        deadline = time.monotonic() + 90
        while asked(environment) is None:  # with our command it takes a process, and the head needs the cores
            assert head.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.2)
        while submit(environment, "--stop", "--", "segment", *NEEDED).returncode:
            assert head.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(1)
        yield environment
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def submit(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.submit", *words],
        cwd=REPO,
        env=environment,
        text=True,
        capture_output=True,
        timeout=240,
    )


def test_a_job_is_followed_stopped_resumed_and_found_complete(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    clips, output = make_corpus(tmp_path / "in", (300, 280)), tmp_path / "out"
    run_inline(small_config(clips, tmp_path / "plain", segmenter="plain", segment_frames=90), 2)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "mine.py").write_text("from tests.pipeline.slow import SlowPlain as Slow\n")
    command = ["segment", "--input", str(clips), "--output", str(output), "--segmenter", "mine:Slow"]
    command += ["--scheduler.interval", "7", "--scheduler.max_interval", "20", "--segment_frames", "90"]
    command += ["--propagation.flow_size", "96", "--shard_frames", "8", "--workers", "2"]
    options = ["--working_dir", str(plugins)]

    begun = submit(cluster, *options, "--no-follow", "--", *command)
    assert begun.returncode == 0 and f"submitted {job_name('segment', command[1:])}" in begun.stderr
    again = submit(cluster, *options, "--no-follow", "--", *command)
    assert again.returncode == 0 and "is there already" in again.stderr
    deadline = time.monotonic() + 120
    while len(list(output.glob("frames/*/*.parquet"))) < 2:
        assert time.monotonic() < deadline, "the job makes no parts"
        time.sleep(0.2)
    stopped = submit(cluster, *options, "--stop", "--", *command)
    assert "is asked to end" in stopped.stderr
    while {job["status"] for job in asked(cluster) or []} & {"PENDING", "RUNNING"}:
        assert time.monotonic() < deadline + 60, "the job does not end"
        time.sleep(0.2)
    assert "does not run" in submit(cluster, "--stop", "--", *command).stderr
    assert not (output / "_SUCCESS").exists()

    resumed = submit(cluster, *options, "--", *command)
    assert resumed.returncode == 0, resumed.stderr
    assert f"submitted {job_name('segment', command[1:])}-2" in resumed.stderr
    assert "continuing: 2 videos" in resumed.stderr and "AKI" in resumed.stderr, "the log is followed"
    assert rows_without_package(output) == rows_without_package(tmp_path / "plain")

    complete = submit(cluster, *options, "--", *command)
    assert complete.returncode == 0 and "complete already" in complete.stderr


LATE = """
import sys
from vidseg_core.config.submit import SubmitConfig
from vidseg_core.pipeline import submit
from vidseg_core.pipeline.submit import Attempt

name = sys.argv[1]
client = submit._client(SubmitConfig())
print("got", submit._begin(client, Attempt(name, 1, "NEW"), name, "echo late", None, "segment"))
"""
"""Somebody who looked at the cluster before the other's job was there."""


def test_of_two_who_submit_at_once_one_begins_and_the_other_finds_it(cluster: dict[str, str]) -> None:
    command = ["segment", "--input", "nowhere.mp4", "--output", "out", "--segmenter", "plain"]
    name = job_name("segment", command[1:])
    first = submit(cluster, "--no-follow", "--", *command)
    assert first.returncode == 0 and f"submitted {name}" in first.stderr
    late = subprocess.run(
        [sys.executable, "-c", LATE, name], cwd=REPO, env=cluster, text=True, capture_output=True, timeout=120
    )
    assert late.returncode == 0 and late.stdout == f"got {name}\n", late.stderr
    assert f"{name} is there already" in late.stderr and "submitted" not in late.stderr


def test_without_the_token_nobody_gets_in(cluster: dict[str, str]) -> None:
    for change in ({"RAY_AUTH_TOKEN": secrets.token_hex(16)}, {"RAY_AUTH_MODE": "disabled"}):
        refused = submit(cluster | change, "--", "segment", *NEEDED)
        assert refused.returncode == 1
        assert cluster["RAY_AUTH_TOKEN"] not in refused.stderr


def run_main(words: list[str]) -> int:
    from jobs.submit import main

    try:
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_a_folder_that_is_too_large_is_named_before_it_is_sent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server answered with an HTTP error after the upload."""
    with (tmp_path / "film.mp4").open("wb") as film:
        film.truncate(101 * 2**20)
    words = ["--address", "http://127.0.0.1:1", "--working_dir", str(tmp_path), "--dry-run", "--", "segment"]
    words += NEEDED
    assert run_main(words) == 2
    said = capfd.readouterr().err
    assert f"--working_dir: {tmp_path} takes 101 MiB, more than the 100 MiB" in said and "film.mp4" in said
    (tmp_path / ".rayignore").write_text("*.mp4\n")
    assert run_main(words) == 0


def test_config_is_looked_up_where_the_job_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "job.yaml").write_text("input: [a]\noutput: b\nsegmenter: plain\n")
    (tmp_path / "here.yaml").write_text("input: [a]\noutput: b\nsegmenter: plain\n")
    monkeypatch.chdir(tmp_path)
    options = ["--working_dir", "sent", "--dry-run", "--"]
    assert run_main([*options, "segment", "--config", "job.yaml"]) == 0
    for verb in ("segment", "evaluate"):
        assert run_main([*options, verb, "--config", "here.yaml"]) == 2
        assert "there is no here.yaml inside --working_dir sent" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "VERB: is missing"),
        (["--", "segmant"], "did you mean 'segment'"),
        (["--", "doctor"], "unknown name 'doctor'"),
        (["--address", "http://me:secret@host:1", "--", "segment"], "--address"),
        (["--working_dir", "not there", "--", "segment"], "not there is not a folder"),
        (["--", "segment", *NEEDED, "--shard_frames", "0"], "--shard_frames"),
        (
            ["--address", "http://127.0.0.1:1", "--", "segment", *NEEDED],
            "no Ray cluster",
        ),
    ],
)
def test_bad_usage_is_reported_before_anything_is_sent(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_main(words)
    told = capfd.readouterr().err
    assert code in (1, 2) and message in told and "secret" not in told, told


def test_the_name_is_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    from jobs.submit import main

    words = ["--input", "a b", "--output", "c", "--segmenter", "plain"]
    assert main(["--dry-run", "--", "segment", *words]) == 0
    told = capfd.readouterr().err
    assert job_name("segment", words) in told and "--input 'a b'" in told
    assert job_name("segment", ["--input", "a"]) != job_name("segment", ["--input", "b"])
