"""The ConvLSTM of multi-frame distillation: a sequence of similarity maps -> one embedding (ETC III-B, MF).

Model: a map A (N x N, one channel) and the state of the times before go through one convolution to the gates
of an LSTM whose state has the map's size [50]; the embedding is the last hidden state, averaged over the
second place, so that it has `HIDDEN` numbers for each place. Teacher and student share the weights, which are
trained with the student: they look for what tells the two apart least, and would collapse to zero. Against
that ETC clips the weights and enlarges E^T. Here the distance is a share of how far E^T of the places of a
frame lie from their mean,

    l_MF = |E^T - E^S|^2 / |E^T - mean E^T|^2,

which falls where E^T tells places apart, and neither with the scale of both nor with what is added to both.
The weights are clipped to `CLIP`.

Legend: B frames, N places of a grid, K channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

HIDDEN = 4
"""Channels of the state."""
CLIP = 1.0
"""Largest absolute value of a weight."""
LEAST = 1e-8
"""Added to what is divided by, of numbers that are 1 at most."""


class ConvLstm(nn.Module):
    """See the module; weights drawn with `seed`."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.gates = nn.Conv2d(1 + HIDDEN, 4 * HIDDEN, 3, padding=1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """embedding_BKN of the maps_BNN of each time."""
        first_BNN = maps[0]
        batch, rows, columns = first_BNN.shape
        hidden = cell = first_BNN.new_zeros(batch, HIDDEN, rows, columns)
        for map_BNN in maps:
            gates = self.gates(torch.cat([map_BNN[:, None], hidden], 1))
            enter, forget, leave, new = gates.chunk(4, dim=1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
        return hidden.mean(3)

    @torch.no_grad()
    def clip(self) -> None:
        """Bring the weights back into their range; called after each step."""
        for weight in self.parameters():
            weight.clamp_(-CLIP, CLIP)


def multi_loss(
    lstm: ConvLstm, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(B,), MF, from the similarity maps_BNN of each time."""
    ours_BKN, theirs_BKN = lstm(student), lstm(teacher)
    apart_B = (theirs_BKN - ours_BKN).square().mean(dim=(1, 2))
    spread_B = (theirs_BKN - theirs_BKN.mean(2, keepdim=True)).square().mean(dim=(1, 2))
    return apart_B / (spread_B + LEAST)
