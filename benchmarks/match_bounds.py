"""What choosing can bring to `match`: in each gap flow, the net or a part of it, by class, by pixel.

    python -m benchmarks.match_bounds [--data DIR] [--json FILE] [--fold 0|1] [--intervals 12 25]
        [--kinds outdoor face street drawn] [--frames N]

Fills the clips of `benchmarks.match` once, by the net of the package with its self-check, and counts what
flow and net said of each pixel and what was true. From these counts follows what any choice between the two
is worth, without filling again: `match` (the net everywhere), `part` (where the sides differ), `checked`
(what the self-check chose), `by class` (pairs of classes that the net exchanges rightly at both keys of the
gap; where the sides differ, at one of them), and bounds that know the truth: `best` (the best extent in each
gap), `class` (the best pairs of classes in each gap), `pixel`. Score: as in `benchmarks.two_sided`.

Legend: T apart (0, 1: do the sides differ?), class by flow, class by the net, true class; the first two have
one more for pixels without a label. M said, true. A apart, class by flow, class by the net.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.match import KINDS, clips_of, filled
from benchmarks.two_sided import Clip
from vidseg_core.models.match import MatchNet
from vidseg_core.propagation.asked import Asked, key_at
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.gap import Gap
from vidseg_core.propagation.match import Match, flow_says
from vidseg_core.propagation.self_check import FLOW, PART, WHOLE, SelfCheck, filled_frame
from vidseg_core.propagation.sight import SeenKey


@dataclass(slots=True)
class Counts:
    """Of one gap."""

    frames_T: np.ndarray
    ends: list[np.ndarray]
    """T of both keys, each filled in from the other; none after the last key."""
    extent: str
    """What the self-check chose."""


Choose = Callable[[Counts], np.ndarray]
"""choice_A bool: where the net is believed."""


class Watched(SelfCheck):
    """Keeps what flow and net say at the ends of a gap."""

    said: list[np.ndarray]

    def _end(self, now: SeenKey, key: SeenKey, link: Link, net: MatchNet | None) -> np.ndarray:
        self.said.append(filled_frame(now.rgb_hw3, [key], [link], net))
        return super()._end(now, key, link, net)


@dataclass(slots=True)
class Recorder:
    """A propagator that counts; masks are those of flow."""

    clip: Clip
    interval: int
    match: Match = field(default_factory=lambda: Match(self_check=True))
    level = "labels"
    needs_flow = True
    reads = "colours"
    remembers = True
    gaps: list[Counts] = field(default_factory=list)
    place: int = 0

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes."""
        return self.match.most_remembered(height, width, channels)

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        """Flow's label map of each frame."""
        for gap in gaps:
            yield from self._fill(gap)

    def _fill(self, gap: Gap) -> Iterator[np.ndarray]:
        check, two_sided = Watched(self.match.net), gap.right is not None
        check.said = []
        past = check.close(gap)
        keys = [key_at(key) for key in (gap.left, gap.right) if key is not None]
        ends = [
            tally(check.said[n], check.said[n + 2], key.labels_hw, np.zeros_like(key.labels_hw), self.clip)
            for n, key in enumerate(keys if check.said else [])
        ]
        asked, counts = Asked.about(check.net_of(past), keys), 0
        for frame in gap.frames:
            says, advantage_hw = flow_says(gap, frame)
            self.place += 1 + ((self.place + 1) % self.interval == 0)
            net_HW = says[0] if asked is None else asked.labels(frame, says, advantage_hw)
            true_HW, apart_HW = self.clip.labels[self.place], (says[1] != says[2]).astype(np.uint8)
            counts = counts + tally(says[0], net_HW, true_HW, apart_HW, self.clip)
            yield says[0]
        if gap.frames:
            self.gaps.append(Counts(np.asarray(counts), ends, past.extent(two_sided=two_sided)))


def tally(flow: np.ndarray, net: np.ndarray, true: np.ndarray, apart: np.ndarray, clip: Clip) -> np.ndarray:
    """T of a frame."""
    classes, known = clip.classes, true < clip.classes
    place = apart.astype(np.int64)
    for part in (flow, net):
        place = place * (classes + 1) + np.minimum(part & 0xFF, classes)
    place = place * classes + np.minimum(true, classes - 1)
    size = (2, classes + 1, classes + 1, classes)
    return np.bincount(place[known], minlength=int(np.prod(size))).reshape(size)


def said_by(counts_T: np.ndarray, choice_A: np.ndarray) -> np.ndarray:
    """M."""
    taken_T = np.where(choice_A[..., None], counts_T, 0)
    return taken_T.sum((0, 1)) + (counts_T - taken_T).sum((0, 2))


def mean_iou(said_M: np.ndarray) -> float:
    """Points, over the classes that are there."""
    classes = said_M.shape[1]
    both, said, true = np.diag(said_M[:classes]), said_M[:classes].sum(1), said_M.sum(0)
    there = true > 0
    return 100 * float((both / np.maximum(said + true - both, 1))[there].mean())


def extent(name: str, counts_T: np.ndarray) -> np.ndarray:
    """choice_A of `FLOW`, `PART` or `WHOLE`."""
    choice_A = np.zeros(counts_T.shape[:3], bool)
    choice_A[1 if name == PART else slice(None)] = name != FLOW
    return choice_A


def best_extent(gap: Counts) -> np.ndarray:
    choices = [extent(name, gap.frames_T) for name in (FLOW, PART, WHOLE)]
    return max(choices, key=lambda choice_A: mean_iou(said_by(gap.frames_T, choice_A)))


def best_classes(gap: Counts) -> np.ndarray:
    """Pairs of classes are taken in turn while the score grows, twice over."""
    choice_A, pixels = extent(FLOW, gap.frames_T), gap.frames_T.sum((0, 3))
    best = mean_iou(said_by(gap.frames_T, choice_A))
    pairs = [divmod(int(place), len(pixels)) for place in np.argsort(-pixels, axis=None)]
    for flow, net in 2 * [(a, b) for a, b in pairs if a != b and pixels[a, b]]:
        choice_A[:, flow, net] ^= True
        score = mean_iou(said_by(gap.frames_T, choice_A))
        if score > best:
            best = score
        else:
            choice_A[:, flow, net] ^= True
    return choice_A


def by_class(gap: Counts) -> np.ndarray:
    """By the gap's own keys."""
    if not gap.ends:
        return extent(gap.extent, gap.frames_T)
    choice_A = extent(FLOW, gap.frames_T)
    right = [_exchanged(end_T.sum(0)) for end_T in gap.ends]
    choice_A[:] = np.minimum(*right) > 0
    choice_A[1] |= np.maximum(*right) >= 0
    return choice_A


def _exchanged(said: np.ndarray) -> np.ndarray:
    """Pixels that the net sets right, less those that it gets wrong, by flow's class and the net's."""
    gain = np.zeros(said.shape[:2], np.int64)
    classes = range(said.shape[2])
    gain[:, classes] += said[:, classes, classes]
    gain[classes] -= said[classes, :, classes]
    return gain


CHOICES: dict[str, Choose] = {
    "flow": lambda gap: extent(FLOW, gap.frames_T),
    "match": lambda gap: extent(WHOLE, gap.frames_T),
    "part": lambda gap: extent(PART, gap.frames_T),
    "checked": lambda gap: extent(gap.extent, gap.frames_T),
    "by class": by_class,
    "best": best_extent,
    "class": best_classes,
}


def pixelwise(counts_T: np.ndarray) -> np.ndarray:
    """M where either of them is right."""
    classes = counts_T.shape[3]
    said_M = counts_T.sum((0, 2))
    for true in range(classes):
        found = counts_T[:, :, true, true].sum(0)
        found[true] = 0
        said_M[:classes, true] -= found[:classes]
        said_M[classes, true] -= found[classes]
        said_M[true, true] += found.sum()
    return said_M


def judged(clip: Clip, interval: int) -> dict[str, float]:
    """Points by choice."""
    recorder = Recorder(clip, interval)
    filled(clip, interval, "two", recorder)
    keys = np.concatenate([labels_HW.ravel() for labels_HW in clip.labels[::interval]])
    rest_M = np.zeros((clip.classes + 1, clip.classes), np.int64)
    np.fill_diagonal(rest_M, np.bincount(keys, minlength=256)[: clip.classes])
    scores = {
        name: mean_iou(rest_M + sum(said_by(gap.frames_T, choose(gap)) for gap in recorder.gaps))
        for name, choose in CHOICES.items()
    }
    return scores | {"pixel": mean_iou(rest_M + sum(pixelwise(gap.frames_T) for gap in recorder.gaps))}


def line(name: str, scores: dict[str, float]) -> str:
    """Flow's points, and what each choice adds."""
    flow, *others = scores.values()
    return f"{name:32} {flow:6.1f} " + " ".join(f"{score - flow:+8.2f}" for score in others)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fold", type=int, choices=(0, 1))
    parser.add_argument("--intervals", type=int, nargs="+", default=[12, 25])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--frames", type=int, default=101)
    options = parser.parse_args()
    root = data_dir(options.data)
    if root is None:
        parser.error("--data: no folder of labelled clips here")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    print(f"{'':32} {'flow':>6} " + " ".join(f"{name:>8}" for name in [*list(CHOICES)[1:], "pixel"]))
    for kind, fold, clip in clips_of(root, options.kinds):
        if options.fold in (None, fold):
            clip = replace(clip, frames=clip.frames[: options.frames], labels=clip.labels[: options.frames])
            for interval in options.intervals:
                scores = judged(clip, interval)
                found.setdefault((kind, interval), {})[clip.name] = scores
                print(line(f"{kind} {interval} {clip.name}", scores), flush=True)
    for (kind, interval), clips in found.items():
        means = {
            name: float(np.mean([each[name] for each in clips.values()])) for name in [*CHOICES, "pixel"]
        }
        print(line(f"{kind} {interval}, mean of {len(clips)}", means))
    if options.json:
        rows = [
            {"kind": kind, "interval": interval, "clip": clip, "points": scores}
            for (kind, interval), clips in found.items()
            for clip, scores in clips.items()
        ]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
