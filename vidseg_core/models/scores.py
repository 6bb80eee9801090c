"""What N must give for a batch of frames, what its classes may be called (checked wherever N is called), and
the labels that scores mean.

Invariant: scores that pass have one channel for each name and cover the frames that went in, so that a mask
never holds a class without a name or the pixels of another shape. The checks look at shapes and types alone
and cost nothing.

Shape suffixes: B batch, C classes, H W the frame's rows and columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from vidseg_core.config.words import count
from vidseg_core.models.protocol import ScoresError, SegmenterError

MOST_NAMES = 256
"""Label maps are uint8."""


class SwappedAxes(ScoresError):
    """Rows and columns are swapped."""


def check_scores(
    scores: Any, name: str, class_names: Sequence[str], batch: int, size: tuple[int, int] | None
) -> None:
    """`ScoresError` unless `scores` are those of `batch` frames of `size`, one channel for each name.

    `size`: (rows, columns); None: any, for features whose frame is not at hand.
    """
    if not isinstance(scores, torch.Tensor):
        raise ScoresError(f"segmenter {name!r}: head gave a {_type_name(scores)}, expected a torch.Tensor")
    got = tuple(scores.shape)
    expected = (batch, len(class_names), *(size or got[2:4]))
    if got != expected:
        kind = SwappedAxes if got == (*expected[:2], *expected[:1:-1]) else ScoresError
        raise kind(
            f"segmenter {name!r}: head gave scores of shape {got}, expected {expected} "
            f"(batch, classes, rows, columns){_difference(got, expected, class_names)}"
        )
    if not scores.is_floating_point():
        raise ScoresError(
            f"segmenter {name!r}: head gave scores of type {str(scores.dtype).removeprefix('torch.')}, "
            "expected floating point"
        )


def _difference(got: tuple[int, ...], expected: tuple[int, ...], class_names: Sequence[str]) -> str:
    """What is wrong, in words."""
    if len(got) != len(expected):
        return ": one score for each class and pixel"
    if got[1] != expected[1]:
        listed = ", ".join(map(str, class_names[:6])) + (", ..." if len(class_names) > 6 else "")
        return f": {got[1]} channels, but class_names has {expected[1]} ({listed})"
    if got[0] != expected[0]:
        return ": another batch size"
    return ": rows and columns are swapped" if got[2:] == expected[:1:-1] else ": not the frame's size"


def check_names(name: str, class_names: Any, most: int = MOST_NAMES) -> tuple[str, ...]:
    """The names as a tuple; `SegmenterError` unless they are 2 to `most` different texts in a fixed order."""
    said = f"segmenter {name!r}: class_names"
    if not isinstance(class_names, (list, tuple)):
        raise SegmenterError(f"{said} is a {_type_name(class_names)}, expected a list or tuple of texts")
    for each in class_names:
        if not isinstance(each, str) or not each:
            raise SegmenterError(f"{said} holds {each!r}, expected texts that are not empty")
    twice = [each for each, times in Counter(class_names).items() if times > 1]
    if twice:
        raise SegmenterError(f"{said} has {twice[0]!r} more than once: each class needs its own")
    if not 2 <= len(class_names) <= most:
        few = ": with one class every pixel would get it" if len(class_names) == 1 else ""
        raise SegmenterError(f"{said} has {count(len(class_names), 'name')}, expected 2 to {most}{few}")
    return tuple(class_names)


def _type_name(value: Any) -> str:
    module = type(value).__module__.partition(".")[0]
    return type(value).__name__ if module == "builtins" else f"{module}.{type(value).__name__}"


def labels_from_scores(scores_BCHW: torch.Tensor) -> torch.Tensor:
    """uint8 labels (B, H, W), equal to `scores_BCHW.argmax(1)` where no score is NaN; at most 256 classes.

    `argmax` over the channels of a BCHW tensor strides through memory; on a CPU a running maximum, which
    reads each channel once and in order, takes a tenth of the time (4 against 44 ms for 19 classes at 512 x
    512).
    """
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
