"""Promise: no library that comes with vidseg reports home from a run.

onnxruntime does so from 1.29 on: from every process that imports it, to its maker, with an identifier that it
leaves in the home folder; and its thread for that crashed processes as they ended. A Ray head does, unless it
is told not to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.test_onnx import write
from vidseg_core.kit import ray_session

ROOT = Path(__file__).resolve().parents[2]


def test_a_net_in_an_onnx_file_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    home, net = tmp_path / "home", write(tmp_path / "net.onnx")
    home.mkdir()
    code = (
        "import os; from vidseg_core.models.registry import build_segmenter\n"
        f"build_segmenter('onnx:{net}')\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert [path for path in home.rglob("*") if "icrosoft" in str(path) or "onnx" in path.name] == []


def test_a_ray_that_is_started_here_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr(
        ray_session.ray, "init", lambda **_: told.append(os.environ.get("RAY_USAGE_STATS_ENABLED"))
    )
    monkeypatch.setattr(ray_session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: None)

    class Here:
        ray_address, object_store_mb = None, None

    with ray_session.ray_session(Here()):  # type: ignore[arg-type]
        pass
    assert told == ["0"]
    for file in ("cluster.yaml", "deploy/Dockerfile"):
        assert "RAY_USAGE_STATS_ENABLED=0" in (ROOT / file).read_text()
