"""Promise: what `pip install vidseg` puts on a machine is one package with all that its verbs need, and works
outside of a checkout.

Why: an editable install of a checkout finds every file; wheels have lacked some, and had modules of names as
common as `jobs`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.generated_tables import generated_table
from tests.docs.documents import ROOT
from vidseg_core.episodes.store import write_table
from vidseg_core.store.objects import open_store

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel from the files that the image copies, and from nothing else."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    lines = re.findall(r"^COPY \S+ (.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(lines).split():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, tree)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    subprocess.run([*PIP, "wheel", *options, str(tree)], check=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--no-compile", "--target", str(folder)]
    subprocess.run([*PIP, "install", *options, str(wheel)], check=True, timeout=120)
    return folder


def vidseg(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed script, run in `folder`."""
    return subprocess.run(
        [str(site / "bin" / "vidseg"), *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_installs_one_package_and_its_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"vidseg_core", "vidseg"}
    data = {
        str(file.relative_to(ROOT))
        for pattern in ("models/bundled/*", "training/recipes/*", "spaces/*.yaml", "py.typed")
        for file in (ROOT / "vidseg_core").glob(pattern)
    }
    assert len(data) > 12 and data <= set(names)


def test_a_space_of_the_package_is_searched_by_name(site: Path, tmp_path: Path) -> None:
    for number in range(5):
        write_table(open_store(str(tmp_path / "tables")), generated_table(120, 20, seed=number))
    words = ["--tables", "tables", "--space", "policies", "--output", "search", "--dry-run"]
    done = vidseg(site, tmp_path, "tune", *words)
    assert done.returncode == 0, done.stderr
    assert "fixed: fine" in done.stderr


@pytest.mark.ray
def test_the_demo_runs(site: Path, tmp_path: Path) -> None:
    words = ["--output", "demo", "--videos", "1", "--frames", "24", "--schedulers", "fixed"]
    done = vidseg(site, tmp_path, "demo", *words)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "demo").rglob("_SUCCESS"))
