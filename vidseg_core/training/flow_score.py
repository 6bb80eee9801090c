"""Interpolation mIoU by gap: how good a key's labels still are, carried over so many frames by a flow.

Model: every `stride` frames of a labelled clip is a key. Its labels are warped to the frames at the gaps
asked for and compared with theirs; one confusion matrix per clip, method and gap. `copy` carries without
flow. A method may carry something else than labels (`Carry`), such as N's scores times a scale field. A
chained estimator sees all the frames between, as in the engine (`propagation.chain`); its time per pair is
what the last link costs. Times are CPU time of the process, which other work on the machine hardly changes;
of a net on a GPU they are the host's share only.

Legend: H, W size of a clip, h, w flow size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.datasets.records import IGNORE
from vidseg_core.engine.look import make_view
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.scores import labels_from_scores
from vidseg_core.propagation.chain import Link, Pair, complete
from vidseg_core.propagation.flow import DisFlow, FlowEstimator
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.propagation.propagators import FlowWarp
from vidseg_core.propagation.warp import warp_labels
from vidseg_core.training.flow_clips import FlowClip

COPY = "copy"
Carry = Callable[[int, np.ndarray], np.ndarray]
"""(number of the key frame, flow_hw2 to it) -> labels_HW of the current frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapScore:
    """One clip, one method, one gap."""

    clip: str
    method: str
    gap: int
    pairs: int
    miou: float
    ms_per_pair: float
    """CPU time of the flow alone; 0 for `copy`."""


def score_clip(
    name: str,
    frames: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    methods: Mapping[str, FlowEstimator],
    *,
    gaps: Sequence[int],
    flow_size: int = 256,
    stride: int = 10,
    carries: Mapping[str, Carry] | None = None,
) -> list[GapScore]:
    """Scores of `copy` and of every method at every gap that the clip is long enough for.

    `carries`: how a method, by its name, carries something else than the key's labels.
    """
    classes = 1 + max(int(ids_HW[ids_HW != IGNORE].max(initial=0)) for ids_HW in labels)
    fitting = [gap for gap in sorted(gaps) if gap < len(frames)]
    keys = range(0, len(frames) - min(fitting, default=len(frames)), stride)
    scores = []
    for method in (COPY, *methods):
        estimator = methods.get(method)
        carry = (carries or {}).get(method, lambda key, flow_hw2: warp_labels(labels[key], flow_hw2))
        counts = {gap: ConfusionMatrix(classes) for gap in fitting}
        pairs, seconds = dict.fromkeys(fitting, 0), dict.fromkeys(fitting, 0.0)
        views: dict[int, np.ndarray] = {}
        for key in keys:
            here = [gap for gap in fitting if key + gap < len(frames)]
            flows = _flows(frames, views, key, here, estimator, flow_size) if estimator else {}
            for gap in here:
                carried_HW = labels[key]
                if estimator is not None:
                    flow_hw2, took = flows[gap]
                    carried_HW, seconds[gap] = carry(key, flow_hw2), seconds[gap] + took
                counts[gap].update(*_known(carried_HW, labels[key + gap]))
                pairs[gap] += 1
        scores += [
            GapScore(
                clip=name,
                method=method,
                gap=gap,
                pairs=pairs[gap],
                miou=counts[gap].mean_iou(),
                ms_per_pair=1e3 * seconds[gap] / pairs[gap],
            )
            for gap in fitting
        ]
    return scores


def score_clips(
    config: TrainFlowConfig,
    weights: Path,
    device: str,
    held: Sequence[FlowClip],
    segmenter: Segmenter | None,
) -> list[GapScore]:
    """Scores of a flow net that was trained as `config` says, beside DIS; clips without labels that N has
    none for are left out."""
    net = NetFlow(config.net, weights=weights, device=device)
    methods: dict[str, FlowEstimator] = {"dis": DisFlow(chained=False), "dis chained": DisFlow()}
    methods[config.net] = net
    scores = []
    for clip in held:
        labels = clip.labels_THW if clip.labels_THW is not None else _labels_of(clip, segmenter, device)
        if labels is None:
            continue
        carries: dict[str, Carry] = {}
        if net.scale_level is not None and segmenter is not None:
            carries = _carries(config.net, net.scale_level, clip, segmenter, device)
        scores += score_clip(
            clip.name,
            list(clip.frames_THW3),
            list(labels),
            methods | dict.fromkeys(carries, net),
            gaps=config.gap_numbers,
            flow_size=config.size,
            carries=carries,
        )
    return scores


def _carries(name: str, level: str, clip: FlowClip, segmenter: Segmenter, device: str) -> dict[str, Carry]:
    """N's scores or features of the key, warped, without and with the scale field."""
    propagator, kept = FlowWarp(level), dict[int, Any]()

    @torch.inference_mode()
    def carry(key: int, flow_hw2: np.ndarray) -> np.ndarray:
        if key not in kept:
            kept.clear()
            kept[key] = _maps(segmenter, level, clip.frames_THW3[key], device)
        moved = propagator.carry(kept[key], flow_hw2)
        alone = moved[None] if isinstance(moved, torch.Tensor) else tuple(part[None] for part in moved)
        scores_BCHW = alone if level == "scores" else segmenter.head(alone)
        assert isinstance(scores_BCHW, torch.Tensor)
        return labels_from_scores(scores_BCHW)[0].cpu().numpy().astype(np.uint8)

    return {
        f"{name}, {level}": lambda key, flow_hw2: carry(key, np.asarray(flow_hw2)),
        f"{name}, {level} x S": carry,
    }


def _maps(segmenter: Segmenter, level: str, frame_HW3: np.ndarray, device: str) -> Any:
    """What of one frame is carried at this level."""
    feats = segmenter.features(_pixels(frame_HW3, device))
    if level == "scores":
        return segmenter.head(feats)[0]
    return feats[0] if isinstance(feats, torch.Tensor) else tuple(part[0] for part in feats)


@torch.inference_mode()
def _labels_of(clip: FlowClip, segmenter: Segmenter | None, device: str) -> np.ndarray | None:
    """What N says on every frame of a clip without labels."""
    if segmenter is None:
        return None
    feats = (segmenter.features(_pixels(frame_HW3, device)) for frame_HW3 in clip.frames_THW3)
    return np.stack([labels_from_scores(segmenter.head(one))[0].cpu().numpy() for one in feats])


def _pixels(frame_HW3: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(frame_HW3)[None].permute(0, 3, 1, 2).to(device).float() / 255.0


def mean_by_gap(scores: Sequence[GapScore]) -> dict[tuple[str, int], tuple[float, float]]:
    """(method, gap) -> (mean over clips of their mIoU, mean ms per pair)."""
    cells: dict[tuple[str, int], list[GapScore]] = {}
    for score in scores:
        cells.setdefault((score.method, score.gap), []).append(score)
    return {
        cell: (float(np.mean([s.miou for s in here])), float(np.mean([s.ms_per_pair for s in here])))
        for cell, here in cells.items()
    }


def table(scores: Sequence[GapScore]) -> str:
    """Lines for people: a method per line, a gap per column, and what a pair costs."""
    means = mean_by_gap(scores)
    gaps = sorted({gap for _, gap in means})
    methods = list(dict.fromkeys(score.method for score in scores))
    wide = max([16, *(len(method) + 2 for method in methods)])
    lines = [f"{'mIoU at gap':{wide}}" + "".join(f"{gap:8}" for gap in gaps) + "   ms/pair"]
    for method in methods:
        cells = [means[method, gap] for gap in gaps if (method, gap) in means]
        cost = np.mean([ms for _, ms in cells])
        lines.append(f"{method:{wide}}" + "".join(f"{miou:8.3f}" for miou, _ in cells) + f"{cost:10.1f}")
    return "\n".join(lines)


def _known(carried_HW: np.ndarray, truth_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference where both are labelled."""
    known_HW = (carried_HW != IGNORE) & (truth_HW != IGNORE)
    return carried_HW[known_HW], truth_HW[known_HW]


def _flows(
    frames: Sequence[np.ndarray],
    views: dict[int, np.ndarray],
    key: int,
    gaps: Sequence[int],
    estimator: FlowEstimator,
    flow_size: int,
) -> dict[int, tuple[np.ndarray, float]]:
    """Gap -> (flow_hw2 to the key, seconds)."""

    def view(number: int) -> np.ndarray:
        if number not in views:
            views[number] = make_view(frames[number], flow_size, estimator.channels)
        return views[number]

    def estimate(pairs: Sequence[Pair]) -> list[np.ndarray]:
        return estimator.flow([current for current, _ in pairs], [seen for _, seen in pairs]) if pairs else []

    distances = range(1, max(gaps, default=0) + 1) if estimator.chained else gaps
    links = [Link(current=view(key + far), key=view(key), distance=far) for far in distances]
    found = {}
    for place, link in enumerate(links):
        started = time.process_time()
        chain = links[: place + 1] if estimator.chained else [link]
        complete([chain], estimate, chained=estimator.chained)
        assert link.flow_hw2 is not None
        found[link.distance] = (link.flow_hw2, time.process_time() - started)
    return {gap: found[gap] for gap in gaps}
