"""What a propagator's results are worth, by gap, on clips left out: beside copying and warping.

Model: every `STRIDE` frames of a clip is a key. From it the frames after it are filled, online and one by
one, as far as the largest gap asked for; masks are made of what comes out, and compared with the clip's
labels (N's own where it has none); one confusion matrix per clip, method and gap. Where the propagator
expects how much will have changed, that and the difference of the pictures are ranked against the share of
N's labels that did change (Spearman).

Legend: H, W size of a clip; h, w flow size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from vidseg_core.engine.look import gray_of, make_view
from vidseg_core.engine.lows import connect
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.filler import Filler, filler_of
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.gap import FramePair, Gap, GapFrame, GapKey, Memory, pair_of
from vidseg_core.propagation.propagators import AnyPropagator, Copy, FlowWarp
from vidseg_core.training.flow_clips import FlowClip

STRIDE = 10
"""Frames from key to key."""
VIEW = 256
"""Longest side of flow pictures, pixels."""
Expects = Callable[[FramePair], float]
"""A number that should be the larger, the more labels differ between the two frames."""


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
    """Of the propagator's expected deviation, or of what goes with it as a scheduler."""
    difference: float
    """Of the mean difference of the gray pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of all clips left out."""

    carried: list[CarriedScore] = field(default_factory=list)
    ranks: list[RankScore] = field(default_factory=list)
    """Only where one is expected."""


def score_propagator(
    propagator: AnyPropagator,
    segmenter: Any,
    clips: Sequence[FlowClip],
    gaps: Sequence[int],
    *,
    device: str,
    beside: Sequence[AnyPropagator] = (),
    expects: Expects | None = None,
) -> Scores:
    """The scores of each clip that is longer than the smallest gap.

    `beside`: compared with it, too. `expects`: how much has changed; by default what the propagator expects.
    """
    net = ChunkedNet(segmenter, level=propagator.level, batch=1, device=device)
    ways = (Copy(propagator.level), FlowWarp(propagator.level), *beside, propagator)
    fillers = [filler_of(way, two_sided=False) for way in ways]
    for filler in fillers:
        connect(net, None, filler)
    expects = expects or getattr(propagator, "expected_deviation", None)
    scores = Scores()
    for clip in clips:
        fitting = [gap for gap in gaps if gap < len(clip.frames_THW3)]
        if fitting:
            _OneClip(clip, net, fillers, fitting, expects).measure(scores)
    return scores


class _OneClip:
    """Confusion matrices and numbers to rank, of one clip."""

    def __init__(
        self,
        clip: FlowClip,
        net: ChunkedNet,
        fillers: Sequence[Filler],
        gaps: Sequence[int],
        expects: Expects | None,
    ) -> None:
        self._clip, self._net, self._fillers, self._gaps = clip, net, fillers, gaps
        self._seen = _Seen(net, clip.frames_THW3, needs_low=any(filler.needs_low for filler in fillers))
        classes = len(net.segmenter.class_names)
        self._counts = {(f.name, gap): ConfusionMatrix(classes) for f in fillers for gap in gaps}
        self._pairs = dict.fromkeys(gaps, 0)
        self._numbers: list[tuple[float, float, float]] = []
        self._expects = expects

    def measure(self, scores: Scores) -> None:
        """Every key of the clip, and what follows it."""
        frames = len(self._clip.frames_THW3)
        for key in range(0, frames - 1, STRIDE):
            self._seen.forget_before(key)
            self._follow(key, min(max(self._gaps), frames - 1 - key))
        name = self._clip.name
        scores.carried.extend(
            CarriedScore(clip=name, method=method, gap=gap, pairs=self._pairs[gap], miou=counts.mean_iou())
            for (method, gap), counts in self._counts.items()
        )
        if self._numbers:
            changed, expected, difference = (np.array(column) for column in zip(*self._numbers, strict=True))
            ranks = {"expected": _spearman(expected, changed), "difference": _spearman(difference, changed)}
            scores.ranks.append(RankScore(clip=name, **ranks))

    def _follow(self, key: int, furthest: int) -> None:
        """Frames between the gaps asked for are seen only by what remembers them."""
        kept = self._seen.key(key)
        own = {filler.name: replace(kept) for filler in self._fillers}
        memories: dict[str, Memory] = {
            filler.name: filler.at_key(own[filler.name], {})[1] if filler.answers_keys else {}
            for filler in self._fillers
        }
        for distance in range(1, furthest + 1):
            asked = distance in self._pairs
            turn = [filler for filler in self._fillers if asked or not filler.pairwise]
            if not turn:
                continue
            frame = self._seen.after(kept, key, distance)
            if asked:
                self._count_pair(key, distance, pair_of(kept, frame, frame.left))
            for filler in turn:
                gap = Gap(left=own[filler.name], frames=[frame], memory=memories[filler.name])
                (filled,) = filler.fill([gap])
                memories[filler.name] = gap.memory
                if asked:
                    (labels_HW,) = self._net.labels([filled])
                    self._counts[filler.name, distance].update(labels_HW, self._truth(key + distance))

    def _count_pair(self, key: int, distance: int, pair: FramePair) -> None:
        self._pairs[distance] += 1
        if self._expects is not None:
            changed = self._seen.at(key).labels_HW != self._seen.at(key + distance).labels_HW
            difference = cv2.absdiff(gray_of(pair.link.current), gray_of(pair.link.key)).mean()
            self._numbers.append((float(changed.mean()), self._expects(pair), float(difference)))

    def _truth(self, number: int) -> np.ndarray:
        labels_THW = self._clip.labels_THW
        return self._seen.at(number).labels_HW if labels_THW is None else labels_THW[number]


@dataclass(frozen=True, slots=True)
class _Said:
    """What N says of one frame."""

    labels_HW: np.ndarray
    carried: Any


class _Seen:
    """N on the frames of a clip, each once; not kept longer than needed, since maps are large."""

    def __init__(self, net: ChunkedNet, frames_THW3: np.ndarray, *, needs_low: bool) -> None:
        self._net, self._frames, self._needs_low = net, frames_THW3, needs_low
        self._views = [make_view(frame_HW3, VIEW, 1) for frame_HW3 in frames_THW3]
        self._flow = DisFlow(chained=False)
        self._said: dict[int, _Said] = {}

    def at(self, number: int) -> _Said:
        if number not in self._said:
            ((labels_HW, carried),) = self._net.run([self._frames[number]])
            self._said[number] = _Said(labels_HW, carried)
        return self._said[number]

    def forget_before(self, number: int) -> None:
        self._said = {n: said for n, said in self._said.items() if n >= number}

    def key(self, number: int) -> GapKey:
        return GapKey(
            view=self._views[number],
            carried=self.at(number).carried,
            low_maps=self._low(number),
            rgb_HW3=self._frames[number],
        )

    def after(self, kept: GapKey, key: int, distance: int) -> GapFrame:
        """The frame so far after the key, with its flow."""
        view = self._views[key + distance]
        (flow_hw2,) = self._flow.flow([view], [kept.view])
        link = Link(current=view, key=kept.view, distance=distance, flow_hw2=flow_hw2)
        number = key + distance
        return GapFrame(left=link, rgb_HW3=self._frames[number], low_maps=self._low(number))

    def _low(self, number: int) -> Any:
        return self._net.low([self._frames[number]])[0] if self._needs_low else None


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; NaN where one of them is constant."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Equal values have their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def table(scores: Scores) -> str:
    """Mean over clips, a row for each method, a column for each gap; then the rank correlations."""
    gaps = sorted({score.gap for score in scores.carried})
    lines = ["mIoU at gap " + "".join(f"{gap:>7}" for gap in gaps)]
    for method in dict.fromkeys(score.method for score in scores.carried):
        found = [
            np.nanmean([s.miou for s in scores.carried if (s.method, s.gap) == (method, gap)]) for gap in gaps
        ]
        lines.append(f"{method:<12}" + "".join(f"{value:7.3f}" for value in found))
    if scores.ranks:
        expected, difference = (
            np.nanmean([getattr(rank, name) for rank in scores.ranks]) for name in ("expected", "difference")
        )
        lines.append(
            f"rank correlation with what changed: expected deviation {expected:.3f}, "
            f"difference of pictures {difference:.3f}"
        )
    return "\n".join(lines)
