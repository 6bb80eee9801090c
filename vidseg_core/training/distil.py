"""What a student learns from a teacher on the frames of a step: single frames, pairs, sequences (ETC III-B).

- **single**: the student's class probabilities at each pixel are the teacher's (SF of Table I, after [17]);
- **pair** (PF, Eq. 2): how alike the probabilities at each two places of two neighbouring frames are, cosine,
  is as the teacher has it: 1/N^2 sum_ij (a_ij^S - a_ij^T)^2;
- **multi** (MF): the self-similarity maps of the last features before the classifier, one for each frame of
  the sequence, go through a ConvLSTM that teacher and student share; the embeddings at the end are alike.

The teacher is frozen and sees what the student sees; features of any number of channels compare, since only
similarities of places do. Maps are brought to a grid of `cells` x `cells` places first (area), as N^2 numbers
of every pixel fit no memory.

Legend: B frames, C classes or channels, H W size, N places, 3 = RGB in 0..1; T frames in the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional

from vidseg_core.training.flow_loss import divergence

LEAST = 1e-6


def single_loss(scores_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> torch.Tensor:
    """(B,): the student's probabilities against the teacher's, Kullback-Leibler, mean over the pixels."""
    return divergence(scores_BCHW, wanted_BCHW)


def pair_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], cells: int) -> torch.Tensor:
    """(B,), Eq. 2, from the scores_BCHW of two frames each."""
    sides = grid([*student, *teacher], cells)
    ours_BNN = similarity(*(places(scores_BCHW.softmax(1), sides) for scores_BCHW in student))
    theirs_BNN = similarity(*(places(scores_BCHW.softmax(1), sides) for scores_BCHW in teacher))
    return (ours_BNN - theirs_BNN).square().mean(dim=(1, 2))


def similarity(first_BCN: torch.Tensor, second_BCN: torch.Tensor) -> torch.Tensor:
    """AT of III-B, (B, N, N): the cosine between place i of the first and place j of the second."""
    first, second = (functional.normalize(each, dim=1, eps=LEAST) for each in (first_BCN, second_BCN))
    return first.transpose(1, 2) @ second


def self_similarities(features: Sequence[torch.Tensor], sides: tuple[int, int]) -> list[torch.Tensor]:
    """A_(F_t, F_t), (B, N, N) for each time."""
    at = [places(map_BChw, sides) for map_BChw in features]
    return [similarity(places_BCN, places_BCN) for places_BCN in at]


def grid(maps: Sequence[torch.Tensor], cells: int) -> tuple[int, int]:
    """Rows and columns of the grid: at most `cells`, and no finer than any of the maps."""
    rows = min(cells, *(one_map.shape[2] for one_map in maps))
    return rows, min(cells, *(one_map.shape[3] for one_map in maps))


def places(map_BChw: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """(B, C, N): means over the cells of the grid."""
    return functional.adaptive_avg_pool2d(map_BChw, sides).flatten(2)
