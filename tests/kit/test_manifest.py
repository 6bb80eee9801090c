"""Promise: an output whose fingerprint is another run's is refused, also where no option tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.manifest import claim_output, fingerprint
from vidseg_core.store.objects import open_store


def test_an_option_without_a_value_is_not_an_option_that_is_missing(tmp_path: Path) -> None:
    store, digest = open_store(tmp_path), "0" * 64
    assert claim_output(store, fingerprint({"x": None}, digest), [])
    assert not claim_output(store, fingerprint({"x": None}, digest), [])
    with pytest.raises(FingerprintMismatch, match="belongs to another run"):
        claim_output(store, fingerprint({}, digest), [])
