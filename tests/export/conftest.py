"""The run that is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.runs import put_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return put_run(tmp_path)
