"""Promise: torchvision imports beside a torch that it was not built for, and other import errors stay errors.

A CUDA-built torchvision beside a CPU-only torch raises `operator torchvision::nms does not exist` half way
through its own import; the nets never call that operator, so a user should not have to know.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BROKEN = """
import torchvision.half_done
import torch
try:
    torch.ops.torchvision.nms
except AttributeError:
    raise RuntimeError("operator torchvision::nms does not exist")
"""
CODE = """
from vidseg_core.models.torchvision_compat import import_torchvision
print(import_torchvision().__name__, import_torchvision() is import_torchvision())
"""


def run(tmp_path: Path, init: str) -> subprocess.CompletedProcess[str]:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    (package / "half_done.py").write_text("")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    return subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)


def test_missing_operators_are_declared_and_the_import_retried(tmp_path: Path) -> None:
    assert run(tmp_path, BROKEN).stdout.strip() == "torchvision True"


def test_any_other_error_is_not_hidden(tmp_path: Path) -> None:
    done = run(tmp_path, "raise RuntimeError('something else')")
    assert done.returncode != 0 and "something else" in done.stderr
