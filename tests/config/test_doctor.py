"""Promise: the doctor finds what is missing before a run does, says what to do, and leaves nothing behind.

The S3 checks talk to a real server over HTTP: a bucket that ignores conditional puts would let two jobs
overwrite each other without a word.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.s3_server import S3Bucket
from vidseg_core import doctor
from vidseg_core.config.verbs import DoctorConfig
from vidseg_core.doctor import Finding, examine, run_doctor


def found(config: DoctorConfig, name: str) -> Finding:
    return next(item for item in examine(config) if item.name == name)


def test_this_machine_can_run_the_tests_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(DoctorConfig()) == 0
    printed = capsys.readouterr().out
    for name in ("python", "torch", "pyav", "ffmpeg", "opencv", "ray", "memory", "shared memory"):
        assert name in printed


def test_json_is_one_object_per_check(capsys: pytest.CaptureFixture[str]) -> None:
    run_doctor(DoctorConfig(log="json"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"event", "name", "status", "value", "hint"} == set(rows[0])
    assert {row["status"] for row in rows} <= {"ok", "warn", "fail"}


def test_s3_is_listed_and_its_conditional_puts_are_tried(s3: S3Bucket) -> None:
    config = DoctorConfig(s3=f"{s3.url}/runs/a")
    assert found(config, "s3 list").status == "ok"
    assert found(config, "s3 write") == Finding("s3 write", "ok", "conditional put is kept")
    left = boto3.client("s3").list_objects_v2(Bucket=s3.bucket)
    assert "Contents" not in left, "the probe must be removed"


def test_a_missing_bucket_is_a_failure_with_a_hint(s3: S3Bucket) -> None:
    finding = found(DoctorConfig(s3="s3://nowhere/a"), "s3 list")
    assert finding.status == "fail" and "NoSuchBucket" in finding.value and "bucket's name" in finding.hint


def test_an_endpoint_that_does_not_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    finding = found(DoctorConfig(s3="s3://films/a"), "s3 list")
    assert finding.status == "fail" and "AWS_ENDPOINT_URL" in finding.hint


def test_a_service_that_ignores_conditions_is_a_failure() -> None:
    class Careless:
        def put_object(self, **_: Any) -> None:
            return None

    finding = doctor._second_put(Careless(), "films", "key")
    assert finding.status == "fail" and "overwrite" in finding.hint


def test_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = found(DoctorConfig(output=str(tmp_path / "file" / "run")), "output")
    assert finding.status == "fail" and "--output" in finding.hint
    assert found(DoctorConfig(output=str(tmp_path / "new" / "run")), "output").status == "ok"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_cluster_that_the_environment_names_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert found(DoctorConfig(), "ray cluster").status == "ok"
    assert found(DoctorConfig(), "ray cluster").status == "fail"
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    assert found(DoctorConfig(), "ray cluster").status == "fail"


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    findings = list(examine(DoctorConfig()))
    broken = next(item for item in findings if item.name == "opencv")
    assert broken.status == "fail" and "pip install" in broken.hint
    assert findings[-1].name.startswith("ray")
    monkeypatch.setattr(doctor, "_print_table", lambda _: None)
    assert run_doctor(DoctorConfig()) == 1


def test_a_torchvision_that_cannot_be_imported_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('built for another torch')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = found(DoctorConfig(), "torchvision")
    assert finding.status == "fail" and "cannot be imported" in finding.value
    assert "belongs to torch" in finding.hint


def test_the_data_set_that_was_asked_about_comes_first(tmp_path: Path) -> None:
    assert next(examine(DoctorConfig(dataset=f"camvid:{tmp_path}"))).name == "dataset"


def test_an_old_pyav_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "__version__", "14.2.0")
    assert found(DoctorConfig(), "pyav").status == "fail"


def test_the_table_breaks_no_name_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "segmentation-models-pytorch"
    found = doctor.Finding(name=long, status="warn", value="0.1", hint="pip install " + "x " * 60)
    doctor._print_table([found])
    printed = capsys.readouterr().out
    assert long in printed and "-> pip install" in printed
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80
