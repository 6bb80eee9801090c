"""Promise: `benchmarks.figures` says at once what it cannot do.

Clips of fewer frames than an episode were all quarantined, minutes later, and it ended in a traceback.
"""

from __future__ import annotations

import sys

import pytest

from benchmarks import figures


def test_clips_without_an_episode_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["figures", "--frames", "29"])
    with pytest.raises(SystemExit) as stop:
        figures.main()
    assert stop.value.code == 2
    assert "--frames must be at least 30: shorter clips hold no episode" in capsys.readouterr().err
