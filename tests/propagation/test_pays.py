"""Promise: `benchmarks.pays` compares propagators where they cost the same, and says nothing beyond what was
measured.

Why: a better propagator is slower, so at equal intervals it would always look better than it is.
"""

from __future__ import annotations

import math

import pytest

from benchmarks.pays import compared, curves_of


def rows(way: str, ms: float, miou: dict[int, float], clip: str = "a") -> list[dict]:
    return [
        {"kind": "k", "clip": clip, "sides": "two", "way": way, "interval": i, "miou": m, "ms": ms}
        for i, m in miou.items()
    ]


MEASURED = [
    *rows("flow", 10.0, {5: 0.9, 10: 0.8, 20: 0.6}),
    *rows("match", 50.0, {5: 0.92, 10: 0.9, 20: 0.8}),
    *rows("flow", 10.0, {5: 0.1}, clip="short"),
    *rows("match", 50.0, {5: 0.1}, clip="short"),
]


def test_a_cheap_net_makes_more_keys_the_better_buy_and_an_expensive_one_the_better_propagator() -> None:
    gains = {
        (row.net_s, row.flow_interval): row.gain for row in compared(curves_of(MEASURED, "two"), [0.3, 100.0])
    }
    assert gains[100.0, 10] == pytest.approx(100 * (0.9 - 0.8), abs=0.1)
    assert gains[0.3, 5] < 0.0  # .07 s a frame: match has a key every 15 for that
    assert math.isnan(gains[0.3, 20])  # .025 s a frame is less than match alone takes


def test_a_clip_without_all_intervals_is_left_out() -> None:
    assert {curve.clips for curve in curves_of(MEASURED, "two")} == {1}
