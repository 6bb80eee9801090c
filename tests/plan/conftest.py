"""Folders of videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.named import touch


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "sub/c.avi", "sub/deep/b.mp4", "notes.txt", ".hidden.mp4", ".git/d.mp4"):
        touch(tmp_path / "tree" / name)
    return tmp_path / "tree"
