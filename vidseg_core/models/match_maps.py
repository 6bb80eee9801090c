"""How maps of the net of `match` are read and written: without copies of what need not be copied.

Model: most of the net's time could go into moving maps about. Squares of 4 by 4 pixels are read where they
lie; the places of a window are views; what is compared with all of a key is never larger than a core's cache.

Legend: B frames, F channels, X maps; h, w pixels, y, x = h/4, w/4; i, j places in a square, or of a window;
D features, P places of what is shown of a frame, Q places of both keys; C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Squares(nn.Conv2d):
    """A convolution of pixels put together in squares of 4 by 4, which reads them where they lie."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) -> (B, F, y, x)."""
        weight = self.weight.view(self.out_channels, -1, 4, 4)
        return F.conv2d(input, weight, self.bias, stride=4)


def squares(maps_BXhw: torch.Tensor) -> torch.Tensor:
    """(B, y, x, X * 16): pixels put together in squares of 4 by 4, as `pixel_unshuffle` does."""
    squares_BXyixj = maps_BXhw.unflatten(3, (-1, 4)).unflatten(2, (-1, 4))
    return squares_BXyixj.permute(0, 2, 4, 1, 3, 5).flatten(3)


def spread(squares_BXyx: torch.Tensor) -> torch.Tensor:
    """(B, X / 16, h, w): the pixels of squares of 4 by 4, as `pixel_shuffle` does."""
    squares_Byxoij = squares_BXyx.permute(0, 2, 3, 1).unflatten(3, (-1, 4, 4))
    return squares_Byxoij.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def windows(maps_BFyx: torch.Tensor, reach: int) -> torch.Tensor:
    """(B, F, i, i, y, x): the maps moved to each place of the window, without copies; beyond its border a map
    goes on as there."""
    rows, columns = maps_BFyx.shape[2:]
    padded = F.pad(maps_BFyx, (reach, reach, reach, reach), mode="replicate")
    return padded.unfold(2, rows, 1).unfold(3, columns, 1)


def alike(now_BFyx: torch.Tensor, moved_BFiiyx: torch.Tensor) -> torch.Tensor:
    """(B, i * i, y, x): products of features, in each place of the window."""
    total = moved_BFiiyx.new_zeros(len(now_BFyx), *moved_BFiiyx.shape[2:])
    for now_Byx, moved_Biiyx in zip(now_BFyx.unbind(1), moved_BFiiyx.unbind(1), strict=True):
        total = total.addcmul_(now_Byx[:, None, None], moved_Biiyx)
    return total.flatten(1, 2)


def places_of(corner: tuple[int, int], maps_BFmn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """down_P and across_P of maps that begin at `corner`."""
    (rows, columns), (top, left) = maps_BFmn.shape[2:], corner
    down = torch.arange(top, top + rows, device=maps_BFmn.device, dtype=maps_BFmn.dtype)
    across = torch.arange(left, left + columns, device=maps_BFmn.device, dtype=maps_BFmn.dtype)
    return down.repeat_interleave(columns), across.repeat(rows)


def read_far(
    asked_PD: torch.Tensor, both_DQ: torch.Tensor, shares_CQ: torch.Tensor, has_right: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """read_CP, and the best likeness of each key, best_2P; without a right key only the left one is read."""
    alike_PQ = asked_PD @ both_DQ
    best_P2 = alike_PQ.unflatten(1, (2, -1)).amax(2)
    if not has_right:
        alike_PQ, shares_CQ = (both.chunk(2, 1)[0] for both in (alike_PQ, shares_CQ))
    return shares_CQ @ alike_PQ.softmax(1).T, best_P2.T
