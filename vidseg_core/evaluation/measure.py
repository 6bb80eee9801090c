"""One method on one clip: frame by frame what its mask is worth, and what all frames come to.

Model: masks arrive with their decisions, in frame order; `Measure.frame` compares each with the labels, with
N's own mask, and with the mask before it. Sums are pair counts of pixels, so clips can be pooled exactly.

Conventions: mIoU is over the pixels of all measured frames (see `metrics.confusion`); a frame's own `miou` is
over the classes that its labels or its mask hold (DVRL Eq. 1). `void`, where labels stand in for N, is wrong
wherever a label is known, and no class of the mean.

Legend: C classes, K = C + 1 with `void`; H, W working size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidseg_core.engine.frames import FrameResult
from vidseg_core.metrics.confusion import IGNORE_INDEX, count_pairs, iou_of
from vidseg_core.metrics.consistency import Occlusion, PairFlow, PairScore, TemporalConsistency
from vidseg_core.metrics.schedule import distances, join, key_statistics, latency
from vidseg_core.metrics.stability import temporal_stability
from vidseg_core.metrics.video_consistency import WINDOWS, VideoConsistency
from vidseg_core.store.mask_codec import encode_mask

NAN = float("nan")


@dataclass(slots=True)
class Truth:
    """What a frame's masks are compared with; None: nothing is known, or the frame is not measured."""

    labels_HW: np.ndarray | None
    net_HW: np.ndarray | None
    flow: PairFlow | None
    """Flow to the frame before it in its run."""


@dataclass(slots=True)
class Timing:
    """Seconds of one method on one clip."""

    read_s: float = 0.0
    """The data set's frames and labels, and scaling; the same for all methods, and no part of speed."""
    engine_s: float = 0.0
    """Flow, decisions, propagation; without the net."""
    net_s: float = 0.0
    """The net on key frames: calls times what a call takes."""
    fast_track: bool = False
    """Keys are answered like any other frame (low latency)."""


@dataclass(slots=True)
class Measure:
    """Accumulates one method on one clip."""

    classes: int
    """Number of classes of the labels or the net, without `void`."""
    occlusion: Occlusion = "both"
    """Which pixels temporal consistency counts."""
    stability: bool = False
    """Whether temporal stability is measured, too."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    label_counts_KK: np.ndarray = field(init=False)
    net_counts_KK: np.ndarray = field(init=False)
    tc: TemporalConsistency = field(init=False)
    vc: VideoConsistency = field(init=False)
    tsb: list[float] = field(default_factory=list)
    """Temporal stability of each pair of frames."""
    key_frames: float = 0.0
    """Keys; with regions frames' worth of pixels that N saw, overlap counted."""
    segmented: int = 0
    warped: int = 0
    """Regions (frames, where they are one) that N saw, and those that propagation made."""
    _before_HW: np.ndarray | None = None

    def __post_init__(self) -> None:
        side = self.classes + 1
        self.label_counts_KK = np.zeros((side, side), np.int64)
        self.net_counts_KK = np.zeros((side, side), np.int64)
        self.tc = TemporalConsistency(side, occlusion=self.occlusion, void=self.classes)
        self.vc = VideoConsistency(self.classes)

    def frame(
        self, run: int, number: int, result: FrameResult, mask_HW: np.ndarray, truth: Truth, *, waited: int
    ) -> None:
        """Add the next frame of run `run`; `number` counts frames of the clip; `waited`: frames that went in
        after it before it came out."""
        miou, fidelity, agreement, pair = NAN, NAN, NAN, PairScore(NAN, NAN, NAN)
        if truth.labels_HW is not None:
            counts_KK = self._against_labels(mask_HW, truth.labels_HW)
            self.label_counts_KK += counts_KK
            miou = self._mean(counts_KK)
        if truth.net_HW is not None:
            counts_KK = count_pairs(truth.net_HW, mask_HW, self.classes + 1)
            self.net_counts_KK += counts_KK
            fidelity, agreement = self._mean(counts_KK), float(np.trace(counts_KK) / mask_HW.size)
        if truth.flow is not None and self._before_HW is not None:
            pair = self.tc.update(self._before_HW, mask_HW, truth.flow, at_key=result.is_key)
        if self.stability and self._before_HW is not None:
            self.tsb.append(temporal_stability(self._before_HW, mask_HW, self.classes))
        self._count(result)
        self.vc.update(mask_HW, truth.labels_HW)
        self._before_HW = mask_HW
        self.rows.append(
            {
                "run": run,
                "number": number,
                "frame_index": result.frame_index,
                "is_key": result.is_key,
                "distance": 0,
                "lkd": result.lkd,
                "decision_score": result.decision_score,
                "kar": result.kar,
                "measured": not np.isnan(miou) or not np.isnan(fidelity),
                "miou": miou,
                "fidelity": fidelity,
                "agreement": agreement,
                "tc": pair.tc,
                "wait_frames": waited,
                "tc_visible": pair.tc_visible,
                "warp_accuracy": pair.accuracy,
                "height": mask_HW.shape[0],
                "width": mask_HW.shape[1],
                "mask": encode_mask(mask_HW),
            }
        )

    def _count(self, result: FrameResult) -> None:
        keys = [result.is_key] if result.region_keys is None else result.region_keys
        self.key_frames += float(result.is_key) if result.key_share is None else result.key_share
        self.segmented += sum(keys)
        self.warped += len(keys) - sum(keys)

    def end_run(self) -> None:
        """The run's last frame is in: distances of its frames are known; the next run begins anew."""
        self._before_HW = None
        self.vc.end_run()
        run = self.rows[-1]["run"] if self.rows else None
        mine = [row for row in self.rows if row["run"] == run]
        for row, distance in zip(mine, distances([row["is_key"] for row in mine]), strict=True):
            row["distance"] = int(distance)

    def summary(self, timing: Timing) -> dict[str, Any]:
        """The numbers of the clip, and the counts that pool it with others."""
        keys_by_run = _by_run(self.rows)
        keys = join(key_statistics(run) for run in keys_by_run)
        frames = max(1, keys.frames)
        other_s = timing.engine_s / frames
        late = latency(
            [row["is_key"] for row in self.rows],
            two_sided=False,
            key_s=other_s + timing.net_s / max(1, keys.keys),
            other_s=other_s,
            fast_track=timing.fast_track,
        )
        return {
            "frames": keys.frames,
            "measured_frames": sum(row["measured"] for row in self.rows),
            "keys": keys.keys,
            "key_frames": self.key_frames,
            "segmented": self.segmented,
            "warped": self.warped,
            "read_s": timing.read_s,
            "engine_s": timing.engine_s,
            "net_s": timing.net_s,
            "latency_mean_s": late.mean_s,
            "latency_max_s": late.max_s,
            "wait_mean_frames": float(np.mean([row["wait_frames"] for row in self.rows])),
            "wait_max_frames": max(row["wait_frames"] for row in self.rows),
            "intervals": keys.intervals.tolist(),
            "frame_miou": _nanmean([row["miou"] for row in self.rows]),
            "frame_fidelity": _nanmean([row["fidelity"] for row in self.rows]),
            "label_counts": self.label_counts_KK.tolist(),
            "net_counts": self.net_counts_KK.tolist(),
            "tc": self.tc.tc,
            "tc_forward": self.tc.tc_forward,
            "tc_pop": self.tc.pop,
            "tc_visible": self.tc.visible.tc,
            "tc_visible_forward": self.tc.visible.tc_forward,
            "tc_visible_pop": self.tc.visible.pop,
            "warp_accuracy": self.tc.accuracy,
            "class_tc": _plain(self.tc.class_tc[:-1]),
            "class_overlap": self.tc.class_overlap[:-1].tolist(),
            "vc": {str(length): [self.vc.total[length], self.vc.windows[length]] for length in WINDOWS},
            "tsb": _nanmean(self.tsb),
        }

    def _against_labels(self, mask_HW: np.ndarray, labels_HW: np.ndarray) -> np.ndarray:
        known_HW = labels_HW != IGNORE_INDEX
        ids_HW = np.where(known_HW, labels_HW, 0).astype(np.uint8)
        return count_pairs(ids_HW, mask_HW, self.classes + 1, where_HW=known_HW.astype(np.uint8))

    def _mean(self, counts_KK: np.ndarray) -> float:
        return mean_without_void(counts_KK)


def mean_without_void(counts_KK: np.ndarray) -> float:
    """Mean IoU over the classes that occur, the last one (`void`) left out; NaN if none does."""
    iou = iou_of(counts_KK)[:-1]
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if present.size else NAN


def _plain(values_C: np.ndarray) -> list[float | None]:
    """NaN as None: JSON has no name for it."""
    return [None if np.isnan(value) else float(value) for value in values_C]


def _by_run(rows: list[dict[str, Any]]) -> list[list[bool]]:
    runs: dict[int, list[bool]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row["is_key"])
    return list(runs.values())


def _nanmean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NAN
