"""Promise: what a training run writes as a curve is also there to look at; the same rows, the same bytes."""

from __future__ import annotations

from typing import Any

from vidseg_core.report.of_training import curve_picture


def rows() -> list[dict[str, Any]]:
    """As train-policy writes them; validation now and then."""
    return [
        {
            "batch": batch,
            "mean_return": 0.1 * batch,
            "entropy": 0.6 - 0.01 * batch,
            "kar": 0.05,
            "kar_weight": -0.2 * batch,
            "lkd_weight": 0.3 * batch,
            "val_quality": 0.8 if batch % 4 == 0 else None,
        }
        for batch in range(1, 9)
    ]


def test_a_curve_is_drawn_with_all_that_it_knows() -> None:
    whole = curve_picture(rows())
    assert whole.startswith(b"\x89PNG") and whole == curve_picture(rows())
    less = [{name: value for name, value in row.items() if "weight" not in name} for row in rows()]
    assert curve_picture(less) != whole


def test_decision_nets_have_curves_too() -> None:
    made = [{"step": step, "loss": 1.0 / step, "val_rmse": None if step < 3 else 0.1} for step in range(1, 5)]
    assert curve_picture(made).startswith(b"\x89PNG")


def test_nothing_known_is_no_picture() -> None:
    assert curve_picture([]) == b"" and curve_picture([{"batch": 1}]) == b""
