"""What carried features are still worth, by gap, on clips left out: LVS beside copying and warping them.

Model: every `STRIDE` frames of a clip is a key. Its features are carried to the frames at the gaps asked for,
N_task makes labels of them, and those are compared with the clip's labels (N's own where it has none); one
confusion matrix per clip, method and gap. The expected deviation and the difference of the pictures are
ranked against the share of N's labels that did change (Spearman).

Legend: H, W size of a clip; h, w flow size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.engine.look import gray_of, make_view
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.models.lvs import LvsNet
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.filler import PairFiller
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.gap import FramePair, GapKey
from vidseg_core.propagation.lvs import Lvs
from vidseg_core.propagation.propagators import Copy, FlowWarp
from vidseg_core.training.flow_clips import FlowClip

STRIDE = 10
"""Frames from key to key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedScore:
    """One clip, one method, one gap."""

    clip: str
    method: str
    gap: int
    pairs: int
    miou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankScore:
    """How well a number foretells what share of N's labels changes, over all pairs of a clip: -1 to 1."""

    clip: str
    expected: float
    """Of the deviation net."""
    difference: float
    """Of the mean difference of the gray pictures."""


def score_carried(
    weights: str, segmenter: Any, clips: Sequence[FlowClip], gaps: Sequence[int], *, device: str
) -> tuple[list[CarriedScore], list[RankScore]]:
    """The scores of each clip that is longer than the smallest gap."""
    net = ChunkedNet(segmenter, level="features", batch=1, device=device)
    lvs = Lvs(weights, device=device)
    scores, ranks = list[CarriedScore](), list[RankScore]()
    for clip in clips:
        fitting = [gap for gap in gaps if gap < len(clip.frames_THW3)]
        if fitting:
            clip_scores, rank = _one_clip(clip, net, lvs, fitting)
            scores += clip_scores
            ranks.append(rank)
    return scores, ranks


def _one_clip(
    clip: FlowClip, net: ChunkedNet, lvs: Lvs, gaps: Sequence[int]
) -> tuple[list[CarriedScore], RankScore]:
    frames = list(clip.frames_THW3)
    seen = _Seen(net, frames)
    classes = len(net.segmenter.class_names)
    methods = [
        PairFiller(method, two_sided=False) for method in (Copy("features"), FlowWarp("features"), lvs)
    ]
    counts = {(method.name, gap): ConfusionMatrix(classes) for method in methods for gap in gaps}
    pairs, numbers = dict.fromkeys(gaps, 0), list[tuple[float, float, float]]()
    for gap, key, now, pair in _pairs(frames, seen, gaps):
        pairs[gap] += 1
        said = seen.at(now).labels_HW
        for method in methods:
            (labels_HW,) = net.labels(list(method.move([pair])))
            truth_HW = said if clip.labels_THW is None else clip.labels_THW[now]
            counts[method.name, gap].update(labels_HW, truth_HW)
        changed = float((seen.at(key).labels_HW != said).mean())
        difference = cv2.absdiff(gray_of(pair.link.current), gray_of(pair.link.key)).mean()
        numbers.append((changed, _expected(lvs.net, pair.key.low, pair.low), float(difference)))
    scores = [
        CarriedScore(clip=clip.name, method=name, gap=gap, pairs=pairs[gap], miou=matrix.mean_iou())
        for (name, gap), matrix in counts.items()
    ]
    changed, expected, difference = (np.array(column) for column in zip(*numbers, strict=True))
    rank = RankScore(
        clip=clip.name, expected=_spearman(expected, changed), difference=_spearman(difference, changed)
    )
    return scores, rank


@dataclass(frozen=True, slots=True)
class _Frame:
    """What N says of one frame."""

    low: Any
    labels_HW: np.ndarray
    carried: Any


class _Seen:
    """N on the frames of a clip, each once; not kept longer than needed, since maps are large."""

    def __init__(self, net: ChunkedNet, frames: Sequence[np.ndarray]) -> None:
        self._net, self._frames = net, frames
        self._known: dict[int, _Frame] = {}

    def at(self, number: int) -> _Frame:
        if number not in self._known:
            frame_HW3 = self._frames[number]
            (low,) = self._net.low([frame_HW3])
            self._known[number] = _Frame(low, *self._net.run([frame_HW3], [low])[0])
        return self._known[number]

    def forget_before(self, number: int) -> None:
        self._known = {n: frame for n, frame in self._known.items() if n >= number}


def _pairs(
    frames: Sequence[np.ndarray], seen: _Seen, gaps: Sequence[int]
) -> Iterator[tuple[int, int, int, FramePair]]:
    """(gap, key, frame, the pair with its flow)."""
    flow = DisFlow(chained=False)
    views = [make_view(frame_HW3, 256, 1) for frame_HW3 in frames]
    for key in range(0, len(frames), STRIDE):
        seen.forget_before(key)
        kept = GapKey(view=views[key], carried=seen.at(key).carried, low_maps=seen.at(key).low)
        for gap in gaps:
            if (now := key + gap) < len(frames):
                (flow_hw2,) = flow.flow([views[now]], [views[key]])
                link = Link(current=views[now], key=views[key], distance=gap, flow_hw2=flow_hw2)
                yield gap, key, now, FramePair(key=kept, link=link, low_maps=seen.at(now).low)


@torch.inference_mode()
def _expected(net: LvsNet, low_key: Any, low_now: Any) -> float:
    return float(net.deviation(net.low_of(low_key)[None].float(), net.low_of(low_now)[None].float())[0])


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; NaN where one of them is constant."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Equal values have their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def table(scores: Sequence[CarriedScore], ranks: Sequence[RankScore]) -> str:
    """Mean over clips, a row for each method, a column for each gap; then the rank correlations."""
    gaps = sorted({score.gap for score in scores})
    lines = ["mIoU at gap " + "".join(f"{gap:>7}" for gap in gaps)]
    for method in dict.fromkeys(score.method for score in scores):
        found = [np.nanmean([s.miou for s in scores if (s.method, s.gap) == (method, gap)]) for gap in gaps]
        lines.append(f"{method:<12}" + "".join(f"{value:7.3f}" for value in found))
    if ranks:
        expected, difference = (
            np.nanmean([getattr(r, n) for r in ranks]) for n in ("expected", "difference")
        )
        lines.append(
            f"rank correlation with what changed: expected deviation {expected:.3f}, "
            f"difference of pictures {difference:.3f}"
        )
    return "\n".join(lines)
