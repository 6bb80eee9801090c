"""Promise: every module can be imported for the API reference, without a warning of ours, and the reference
can be made.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.documents import ROOT

IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
import jobs, vidseg_core
names = [m.name for p in (vidseg_core, jobs) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
ours = []
def show(message, category, filename, lineno, file=None, line=None):
    if "vidseg_core" in filename or "/jobs/" in filename:
        ours.append(f"{filename}:{lineno}: {message}")
warnings.showwarning = show
warnings.simplefilter("always")
lacks = [name for name in names if not (importlib.import_module(name).__doc__ or "").strip()]
print(len(names), ours, lacks)
"""


def test_every_module_imports_without_a_warning_and_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, _, rest = done.stdout.strip().splitlines()[-1].partition(" ")
    assert int(count) > 150 and rest == "[] []", rest


def test_the_reference_of_a_package_can_be_made(tmp_path: object) -> None:
    pytest.importorskip("pdoc", reason="the reference needs the extra dev (pdoc)")
    command = [sys.executable, "-m", "pdoc", "--output-directory", str(tmp_path), "vidseg_core.metrics"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warn" not in done.stderr, done.stderr[-2000:]
