"""Promise: a command says what it is at within a moment, and never stays silent for more than ten seconds;
what is left is reckoned from how fast things went of late.

Why: of the first 35 seconds of a run 20 went without a line, and a run that slowed down went on promising its
early end.
"""

from __future__ import annotations

import io
import json

import pytest

from vidseg_core.kit import progress
from vidseg_core.kit.progress import Counts, Pace, Reporter


class Clock:
    """Seconds that pass when a test says so; the pulse looks after each of them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def passes(self, seconds: float) -> None:
        for _ in range(round(2 * seconds)):
            self.now += 0.5
            progress._PULSE.look()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "_LOOK_EVERY_S", 3600.0)  # the thread sleeps
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "_PULSE", progress._Pulse())
    return clock


def test_a_phase_is_named_after_a_moment_and_one_that_is_shorter_is_not(clock: Clock) -> None:
    said = io.StringIO()
    report = Reporter("text", said)
    with report.phase("planning"):
        clock.passes(0.5)
    with report.phase("loading torch", at_once=True):
        pass
    with report.phase("loading the net"):
        clock.passes(2)
    assert said.getvalue() == "vidseg: loading torch\nvidseg: loading the net\n"


def test_nothing_is_silent_for_more_than_ten_seconds(clock: Clock) -> None:
    said = io.StringIO()
    report = Reporter("text", said)
    with report.phase("starting Ray"):
        clock.passes(25)
    assert said.getvalue().splitlines() == [
        "vidseg: starting Ray",
        "vidseg: starting Ray (0:11)",
        "vidseg: starting Ray (0:21)",
    ]


def test_what_a_phase_said_last_is_said_again_with_its_age(clock: Clock) -> None:
    said = io.StringIO()
    report = Reporter("text", said)
    with report.phase("calibrating"):
        clock.passes(1)
        report.show("calibrating: run 2/9", {"calibration_runs": 2}, force=True)
        clock.passes(15)
    assert said.getvalue().splitlines()[1:] == [
        "vidseg: calibrating: run 2/9",
        "vidseg: calibrating: run 2/9 (0:10 ago)",
    ]


def test_only_the_innermost_phase_speaks_whoever_opened_it(clock: Clock) -> None:
    said = io.StringIO()
    with Reporter("text", said).phase("segment: at work"), Reporter("text", said).phase("planning"):
        clock.passes(12)
    assert "at work" not in said.getvalue() and said.getvalue().count("planning") == 2


def test_in_json_phases_are_events_and_every_line_is_an_object(clock: Clock) -> None:
    said = io.StringIO()
    report = Reporter("json", said)
    report.bind(run="abc")
    with report.phase("segmenting"):
        clock.passes(1)
        report.tick(Counts(frames=1, frames_total=9))
        clock.passes(11)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert lines[0] == {"event": "phase", "run": "abc", "phase": "segmenting", "seconds": 1.0}
    assert lines[-1]["event"] == "progress" and lines[-1]["idle_s"] > 9


def test_frames_that_are_not_committed_yet_count_and_never_beyond_the_whole(clock: Clock) -> None:
    said = io.StringIO()
    report = Reporter("text", said)
    clock.now += 10
    report.tick(Counts(frames=128, frames_total=300, under_way=40), force=True)
    report.tick(Counts(frames=256, frames_total=300, under_way=90), force=True)
    assert "frames 168/300 (56 %)" in said.getvalue() and "frames 300/300" in said.getvalue()


def test_the_pace_is_that_of_the_last_minute(clock: Clock) -> None:
    pace = Pace()
    for _ in range(1000):
        clock.now += 1
        pace.per_s(clock.now)  # 1 a second
    done = clock.now
    for _ in range(100):
        clock.now += 1
        done += 5
        rate = pace.per_s(done)
    assert rate == pytest.approx(5, rel=0.1)


def test_rare_steps_are_looked_at_further_back(clock: Clock) -> None:
    pace = Pace()
    for step in range(1, 5):
        clock.now += 100
        rate = pace.per_s(128 * step)
    assert rate == pytest.approx(1.28)
