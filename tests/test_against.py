"""Promise: a comparison of two versions measures each with its own code, in turns that change places, and
leaves no worktree behind.

Why: figures of two versions that were taken an hour apart compared the machine's other work, not the code.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import against


@pytest.fixture(autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository in the place of this one, which may lie here without its history."""
    place = tmp_path_factory.mktemp("here")
    for folder in ("benchmarks", "vidseg_core"):
        (place / folder).mkdir()
        (place / folder / "__init__.py").write_text("")
    shutil.copy(against.__file__, place / "benchmarks")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "begun"]):
        subprocess.run(["git", "-C", str(place), *_NOBODY, *words], check=True)
    monkeypatch.setattr(against, "HERE", place)
    return place


_NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


def worktrees() -> str:
    words = ["git", "-C", str(against.HERE), "worktree", "list"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_the_other_version_is_a_checkout_with_our_benchmarks_and_goes_away(tmp_path: Path) -> None:
    before = worktrees()
    with pytest.raises(KeyboardInterrupt), against.checkout("HEAD") as folder:
        assert (folder / "vidseg_core" / "__init__.py").is_file() and str(folder) in worktrees()
        ours = (against.HERE / "benchmarks" / "against.py").read_bytes()
        assert (folder / "benchmarks" / "against.py").read_bytes() == ours
        raise KeyboardInterrupt
    assert not folder.exists() and worktrees() == before


def test_an_unknown_revision_is_one_sentence() -> None:
    with pytest.raises(SystemExit, match="git rev-parse"):
        against.compare("benchmarks.plumbing", "no-such-revision", 1, lambda out: [])


def test_turns_change_places_and_medians_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[bool] = []

    def turn(module: str, place: Path, words: list[str]) -> dict[str, Any]:
        order.append(place == against.HERE)
        fps = [10.0, 40.0, 20.0][(len(order) - 1) // 2] * (0.5 if place == against.HERE else 1.0)
        return {"figures": {"fps": fps}}

    monkeypatch.setattr(against, "run_there", turn)
    row = against.compare("benchmarks.plumbing", "HEAD", 3, lambda out: [str(out)])
    assert order == [False, True, True, False, False, True]
    assert row["medians"]["fps"] == {"there": 20.0, "here": 10.0, "ratio": 0.5}


def test_a_turn_that_ran_other_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("from benchmarks import against; against.answer({'fps': 1.0})")
    (tmp_path / "benchmarks").symlink_to(against.HERE / "benchmarks")
    (tmp_path / "vidseg_core").symlink_to(against.HERE / "vidseg_core")
    with pytest.raises(SystemExit, match="other took the code of"):
        against.run_there("other", tmp_path, [])
