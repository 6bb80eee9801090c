"""How many floating point operations torch does in a call: what a net costs, whatever machine it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def operations_of(call: Callable[[], object]) -> float:
    """Operations of convolutions, matrix products and attention in `call`; multiplying and adding are two.

    0 where nothing can be counted: what torch does not compute (ONNX, numpy), and what its counter fails on;
    a counter must not fail what it counts.
    """
    on_cpus = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    try:
        with FlopCounterMode(display=False, custom_mapping=on_cpus) as counter:
            call()
    except Exception:
        return 0.0
    return float(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """From the three shapes; torch has this for its GPU kernels only."""
    return sdpa_flop_count(query, key, value)
