"""Promise: an output belongs to the first command that claims it; one with other options is refused with what
differs, and changes nothing.

Why: five verbs had five copies of this, and one of them showed digests of 64 letters as what differs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg_core.config.errors import ConfigError
from vidseg_core.kit.claim import FingerprintMismatch, claim, only_driver, require_same
from vidseg_core.store.objects import open_store

KEY = "manifest.json"


def claimed(folder: Path, **fields: object) -> bool:
    store = open_store(folder)
    return claim(store, KEY, fields, lambda: require_same({"seed": 0, "sizes": [1, 2]}, fields, "x"))


def test_the_first_claim_stands_and_its_like_go_on(tmp_path: Path) -> None:
    assert claimed(tmp_path, seed=0, sizes=(1, 2))
    before = (tmp_path / KEY).read_bytes()
    assert not claimed(tmp_path, seed=0, sizes=(1, 2))
    with pytest.raises(
        FingerprintMismatch, match=r"--output x belongs to another run \(seed: 0 there, 7 now"
    ):
        claimed(tmp_path, seed=7, sizes=(1, 2))
    assert (tmp_path / KEY).read_bytes() == before


def test_digests_are_not_shown() -> None:
    there, ours = {"data": "0" * 64, "lr": 1}, {"data": "1" * 64, "steps": 2}
    with pytest.raises(FingerprintMismatch, match=r"\(other data; lr: 1 there, None now; steps: None there"):
        require_same(there, ours, "x")


def test_a_folder_has_one_driver(tmp_path: Path) -> None:
    with only_driver(tmp_path), pytest.raises(ConfigError, match="another command is working in"):
        with only_driver(tmp_path):
            pass
    with only_driver(tmp_path):
        pass
