"""What training makes small: cross-entropy over the pixels that count, with class weights and Dice if asked.

Invariant: ignored pixels (255) have no part in value or gradient, and a batch that is ignored as a whole has
loss 0, not 0/0.

Shape suffixes: B batch, C classes, H W rows and columns.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from vidseg_core.datasets.records import IGNORE


def segmentation_loss(
    scores_BCHW: torch.Tensor,
    labels_BHW: torch.Tensor,
    *,
    class_weights_C: torch.Tensor | None = None,
    dice: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy (weighted mean with class weights), plus `dice` times the soft Dice loss."""
    losses_BHW = F.cross_entropy(
        scores_BCHW, labels_BHW, weight=class_weights_C, ignore_index=IGNORE, reduction="none"
    )
    counted_BHW = labels_BHW != IGNORE
    if class_weights_C is None:
        total = counted_BHW.sum()
    else:
        total = class_weights_C[labels_BHW[counted_BHW]].sum()
    loss = losses_BHW.sum() / total.clamp_min(1e-6)
    return loss + dice * dice_loss(scores_BCHW, labels_BHW) if dice else loss


def dice_loss(scores_BCHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice, averaged over the classes that the batch holds."""
    counted_B1HW = (labels_BHW != IGNORE).unsqueeze(1)
    truth_BHW = labels_BHW.masked_fill(labels_BHW == IGNORE, 0)
    truth_BCHW = F.one_hot(truth_BHW, scores_BCHW.shape[1]).movedim(-1, 1) * counted_B1HW
    chances_BCHW = scores_BCHW.softmax(dim=1) * counted_B1HW
    both_C = (chances_BCHW * truth_BCHW).sum(dim=(0, 2, 3))
    truth_C, sum_C = truth_BCHW.sum(dim=(0, 2, 3)), (chances_BCHW + truth_BCHW).sum(dim=(0, 2, 3))
    present_C = truth_C > 0
    losses_C = torch.where(present_C, 1.0 - 2.0 * both_C / sum_C.clamp_min(1e-6), torch.zeros_like(sum_C))
    return losses_C.sum() / present_C.sum().clamp_min(1)


def balance_weights(pixels_C: np.ndarray, power: float) -> np.ndarray | None:
    """Class weights (share of pixels) ** -power, of mean 1 over the pixels; None for power 0.

    A class without a pixel has weight 1: it never occurs.
    """
    if not power:
        return None
    share_C = pixels_C / max(1, pixels_C.sum())
    weights_C = np.where(share_C > 0, np.maximum(share_C, 1e-6) ** -power, 0.0)
    mean = float((weights_C * share_C).sum())
    return np.where(share_C > 0, weights_C / max(mean, 1e-12), 1.0)
