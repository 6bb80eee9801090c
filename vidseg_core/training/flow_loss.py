"""What is wrong with a flow: against the exact flow, against the pictures, against labels or scores.

- `exact_loss`: end-point error at every size that the net gives (FlowNet), robust so that small errors count;
- `photometric_loss`: the key's picture, warped, should look like the current one; and flow is smooth where
  the picture is: needs no labels;
- `task_loss`: the key's class scores, warped by the flow, should say what the current frame's labels say
  (DFF section 4; DVRL 4.2 trains F in the same way with N frozen).

Legend: B pairs, C classes, h, w rows and columns; 2 = (u, v); pictures 0..1, flow in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional

from vidseg_core.datasets.records import IGNORE
from vidseg_core.models.flow.layers import backward_warp, grow_flow, places_of
from vidseg_core.propagation.scale_field import grow_scale

ROBUST = 0.7
"""Power of the end-point error."""
LEAST_SCORE = 0.02
"""Probability of a class that the warped one-hot labels do not show at all."""


def exact_loss(flows: Sequence[torch.Tensor], truth_B2hw: torch.Tensor) -> torch.Tensor:
    """Loss of each pair, (B,): the finest flow counts once, each coarser one less."""
    total = truth_B2hw.new_zeros(len(truth_B2hw))
    height, width = truth_B2hw.shape[-2:]
    for place, flow_B2hw in enumerate(reversed(flows)):
        rows, columns = flow_B2hw.shape[-2:]
        target = functional.adaptive_avg_pool2d(truth_B2hw, (rows, columns))
        scale_2 = truth_B2hw.new_tensor([width / columns, height / rows])[None, :, None, None]
        error_Bhw = torch.linalg.vector_norm(flow_B2hw * scale_2 - target, dim=1)
        total = total + 0.5**place * ((error_Bhw + 0.01) ** ROBUST).mean((1, 2))
    return total


def photometric_loss(
    current_B3hw: torch.Tensor, key_B3hw: torch.Tensor, flow_B2hw: torch.Tensor, smooth: float
) -> torch.Tensor:
    """Loss of each pair, (B,): structure and colour of what is seen in both, plus `smooth` x roughness."""
    warped = backward_warp(key_B3hw, flow_B2hw)
    seen = _inside(flow_B2hw)
    colour = (current_B3hw - warped).abs().mean(1, keepdim=True)
    structure = _dissimilarity(current_B3hw, warped)
    error = 0.85 * structure + 0.15 * colour.clamp(max=0.5)
    photo = (error * seen).sum((1, 2, 3)) / seen.sum((1, 2, 3)).clamp(min=1.0)
    return photo + smooth * _roughness(flow_B2hw, current_B3hw)


def task_loss(scores_BChw: torch.Tensor, flow_B2hw: torch.Tensor, labels_Bhw: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each pair, (B,): the key's scores warped to the current frame against its labels."""
    return scores_loss(backward_warp(scores_BChw, grow_flow(flow_B2hw, *scores_BChw.shape[-2:])), labels_Bhw)


def scores_loss(warped: torch.Tensor, labels_Bhw: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each pair, (B,), of scores for the current frame against its labels."""
    if warped.shape[-2:] != labels_Bhw.shape[-2:]:
        warped = functional.interpolate(warped, labels_Bhw.shape[-2:], mode="bilinear", align_corners=False)
    loss_Bhw = functional.cross_entropy(warped, labels_Bhw, ignore_index=IGNORE, reduction="none")
    known_Bhw = (labels_Bhw != IGNORE).to(loss_Bhw.dtype)
    return loss_Bhw.sum((1, 2)) / known_Bhw.sum((1, 2)).clamp(min=1.0)


def divergence(scores_BChw: torch.Tensor, wanted_BChw: torch.Tensor) -> torch.Tensor:
    """(B,): Kullback-Leibler divergence of the classes of a pixel from those wanted, on average."""
    found, target = scores_BChw.log_softmax(1), wanted_BChw.log_softmax(1)
    return (target.exp() * (target - found)).sum(1).mean(dim=(1, 2))


def warp_scaled(
    maps: Sequence[torch.Tensor], flow_B2hw: torch.Tensor, scale_BCqq: torch.Tensor
) -> list[torch.Tensor]:
    """The key's scores or features, each BChw at its own size, warped and multiplied by the scale field (DFF
    section 3): W(f_k, M) * S. Maps after its last channel are only warped; `ScaleField` does the same in a
    run."""
    warped, done = [], 0
    for one_map in maps:
        size, channels = one_map.shape[-2:], one_map.shape[1]
        moved = backward_warp(one_map, grow_flow(flow_B2hw, *size))
        part = scale_BCqq[:, done : done + channels]
        if part.shape[1]:
            moved = moved * grow_scale(part, (part.shape[2], part.shape[3]), *size)
        done += channels
        warped.append(moved)
    return warped


def label_loss(
    key_labels_Bhw: torch.Tensor, flow_B2hw: torch.Tensor, labels_Bhw: torch.Tensor
) -> torch.Tensor:
    """`task_loss` for a perfect N, whose scores on the key frame are its labels, (B,).

    Pixels that are unlabelled in either frame do not count. Every class that occurs weighs the same: most
    pixels lie inside large classes, where a flow can hardly be wrong.
    """
    classes = _classes(key_labels_Bhw, labels_Bhw)
    shares_BChw = _one_hot(key_labels_Bhw, classes)
    warped_BChw = backward_warp(shares_BChw, flow_B2hw)
    truth_BChw = _one_hot(labels_Bhw, classes)
    right_Bhw = (warped_BChw * truth_BChw).sum(1)
    known_Bhw = (warped_BChw.sum(1) > 0.5).to(flow_B2hw.dtype)
    loss_Bhw = -torch.log(LEAST_SCORE + (1.0 - LEAST_SCORE) * right_Bhw)
    counts_BChw = truth_BChw * known_Bhw[:, None]
    sizes_BC = counts_BChw.sum((2, 3))
    means_BC = (counts_BChw * loss_Bhw[:, None]).sum((2, 3)) / sizes_BC.clamp(min=1.0)
    return means_BC.sum(1) / (sizes_BC > 0).sum(1).clamp(min=1)


def _classes(*labels: torch.Tensor) -> int:
    return 1 + max(int(ids.masked_fill(ids == IGNORE, 0).max()) for ids in labels)


def _one_hot(labels_Bhw: torch.Tensor, classes: int) -> torch.Tensor:
    """float32 (B, C, h, w); all zero where unlabelled."""
    known = labels_Bhw != IGNORE
    hot = functional.one_hot(labels_Bhw.masked_fill(~known, 0), classes) * known[..., None]
    return hot.permute(0, 3, 1, 2).float()


def _inside(flow_B2hw: torch.Tensor) -> torch.Tensor:
    """(B, 1, h, w): 1 where the flow points into the key picture."""
    height, width = flow_B2hw.shape[-2:]
    place = places_of(flow_B2hw).detach()
    x, y = place[:, :1], place[:, 1:]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).to(flow_B2hw.dtype)


def _dissimilarity(a_B3hw: torch.Tensor, b_B3hw: torch.Tensor) -> torch.Tensor:
    """(1 - SSIM) / 2 over 3x3 windows, (B, 1, h, w), 0 where equal and at most 1."""

    def mean(maps: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)

    a, b = mean(a_B3hw), mean(b_B3hw)
    var_a, var_b = mean(a_B3hw**2) - a * a, mean(b_B3hw**2) - b * b
    cov = mean(a_B3hw * b_B3hw) - a * b
    ssim = (2 * a * b + 1e-4) * (2 * cov + 9e-4) / ((a * a + b * b + 1e-4) * (var_a + var_b + 9e-4))
    return ((1 - ssim) / 2).clamp(0, 1).mean(1, keepdim=True)


def _roughness(flow_B2hw: torch.Tensor, current_B3hw: torch.Tensor) -> torch.Tensor:
    """Mean change of the flow (pixels per pixel) between neighbours that look alike, (B,)."""
    total = flow_B2hw.new_zeros(len(flow_B2hw))
    for dim in (2, 3):
        flow_step = flow_B2hw.diff(dim=dim).abs().sum(1)
        edge = current_B3hw.diff(dim=dim).abs().mean(1)
        total = total + (flow_step * torch.exp(-10.0 * edge)).mean((1, 2))
    return total
