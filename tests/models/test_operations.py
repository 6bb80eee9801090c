"""Promise: a net's operations are counted, on any machine the same; a net that cannot be counted has none."""

from __future__ import annotations

import torch

from vidseg_core.models.operations import operations_of


def test_convolutions_and_attention_are_counted() -> None:
    with torch.inference_mode():
        convolution = torch.nn.Conv2d(3, 8, 5, padding=2)
        assert operations_of(lambda: convolution(torch.zeros(2, 3, 10, 12))) == 2 * 2 * 10 * 12 * 3 * 8 * 25
        q = torch.zeros(1, 4, 16, 8)
        attended = operations_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
        assert attended == 2 * 2 * 4 * 16 * 16 * 8


def test_what_cannot_be_counted_has_none() -> None:
    def fails() -> None:
        raise AssertionError("an odd net")

    assert operations_of(lambda: 3) == 0
    assert operations_of(fails) == 0
