"""One fixture that gives both kinds of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg_core.store import ObjectStore, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Both kinds of store, empty."""
    if request.param == "local":
        return open_store(tmp_path / "run")
    return open_store(request.getfixturevalue("s3").url + "/some/run")
