"""Promise: `make release` stops with one sentence where version, changelog and history do not agree.

What comes after (a wheel, tried outside of the checkout) is in `tests/test_wheel.py`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import ROOT

_NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of the files that the script looks at, with a version that could be released."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "vidseg_core").mkdir()
    shutil.copy(ROOT / ".ci" / "release", tmp_path / ".ci")
    (tmp_path / "vidseg_core" / "__init__.py").write_text('__version__ = "9.9.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 9.9.0 (2030-01-01)\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *_NOBODY, *words], check=True)


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "more")


def refusal(folder: Path) -> str:
    script = [str(folder / ".ci" / "release")]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not done.stdout
    return done.stderr


def test_what_is_not_committed_is_not_released(checkout: Path) -> None:
    (checkout / "new.py").touch()
    assert refusal(checkout) == "release: there are changes that are not committed\n"


@pytest.mark.parametrize("heading", ["## Unreleased", "## 9.9.01 (2030-01-01)"])
def test_the_changelog_names_the_version(checkout: Path, heading: str) -> None:
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    commit(checkout)
    assert "CHANGELOG.md has no '## 9.9.0 (DATE)'" in refusal(checkout)


def test_a_version_is_released_once(checkout: Path) -> None:
    git(checkout, "tag", "v9.9.0")
    assert "v9.9.0 is tagged already" in refusal(checkout)
