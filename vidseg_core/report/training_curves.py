"""The curves of a training run as one PNG beside its Parquet file: what `curve.parquet` holds, drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidseg_core.report.of_training import STEPS, WORDS, curves_plot

PICTURE = "curve.png"


def curve_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG with a panel for each quantity that the rows know (return, entropy, KAR, weights of KAR and LKD
    as in
    DVRL Fig. 3, validation); empty bytes where there is nothing to draw."""
    columns = {name: _numbers(rows, name) for name in (*STEPS, *WORDS)}
    known = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    step = next((name for name in STEPS if name in known), None)
    shown = [name for name in WORDS if name in known]
    if step is None or not shown:
        return b""
    return curves_plot(known, step, shown, "training").save("png")


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    values = (row.get(name) for row in rows)
    return np.array([float(v) if isinstance(v, (int, float)) else math.nan for v in values])
