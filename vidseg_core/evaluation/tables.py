"""The tables of an evaluation: a row for each (clip, method), a row for each method, a row for each frame.

`results.parquet` is tidy: one observation a row, one measure a column; `methods.parquet` has the same columns
over all clips together. Pooling: mIoU and fidelity from the summed pair counts; AKI, cost and fps from summed
frames, keys and seconds; TC as the mean over clips (ETC Eq. 6), and from summed counts (`tc_pooled`). Speed
(`fps`, latency) is that of engine and net, as the papers have it; reading, which depends on how a data set
lies there, is in `read_s` and in cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vidseg_core.config.methods import MethodConfig
from vidseg_core.evaluation.cells import FRAME_FIELDS
from vidseg_core.evaluation.measure import mean_without_void
from vidseg_core.metrics.confusion import iou_of
from vidseg_core.metrics.consistency import pooled_tc
from vidseg_core.metrics.cost import Cost
from vidseg_core.metrics.video_consistency import WINDOWS

NAN = float("nan")
BACKGROUND = "background"
LATER_MEASURES = (
    "tc_visible",
    "tc_visible_forward",
    "tc_visible_pop",
    "warp_accuracy",
    "tsb",
    "vc8",
    "vc16",
    "miou_no_background",
    "gflop",
)
POOLED = ("tc_pooled", "class_tc_pooled")
LATER = (*LATER_MEASURES, "class_tc", "parameters", "key_share", "warped_per_segmented", *POOLED)
"""Columns that evaluations of version 2 do not have."""
_COMMON = [
    ("method", pa.string()),
    ("point", pa.string()),
    ("method_id", pa.string()),
    ("scheduler", pa.string()),
    ("interval", pa.float64()),
    ("threshold", pa.float64()),
    ("propagator", pa.string()),
    ("level", pa.string()),
    ("sides", pa.string()),
    ("flow", pa.string()),
    ("protocol", pa.string()),
    ("segmenter", pa.string()),
    ("frames", pa.int64()),
    ("measured_frames", pa.int64()),
    ("keys", pa.int64()),
    ("aki", pa.float64()),
    ("calls_saved", pa.float64()),
    ("cki_median", pa.float64()),
    ("cki_max", pa.float64()),
    ("miou", pa.float64()),
    ("pixel_accuracy", pa.float64()),
    ("class_iou", pa.list_(pa.float64())),
    ("frame_miou", pa.float64()),
    ("fidelity", pa.float64()),
    ("agreement", pa.float64()),
    ("frame_fidelity", pa.float64()),
    ("tc", pa.float64()),
    ("tc_forward", pa.float64()),
    ("tc_pop", pa.float64()),
    ("fps", pa.float64()),
    ("read_s", pa.float64()),
    ("engine_s", pa.float64()),
    ("net_s", pa.float64()),
    ("cpu_s", pa.float64()),
    ("gpu_s", pa.float64()),
    ("cpu_s_per_video_hour", pa.float64()),
    ("gpu_s_per_video_hour", pa.float64()),
    ("latency_mean_s", pa.float64()),
    ("latency_max_s", pa.float64()),
    ("wait_mean_frames", pa.float64()),
    ("wait_max_frames", pa.int64()),
    *[(name, pa.float64()) for name in LATER_MEASURES],
    ("class_tc", pa.list_(pa.float64())),
    ("parameters", pa.int64()),
    ("key_share", pa.float64()),
    ("warped_per_segmented", pa.float64()),
    ("tc_pooled", pa.float64()),
    ("class_tc_pooled", pa.list_(pa.float64())),
]
RESULTS_SCHEMA = pa.schema([("clip", pa.string()), *_COMMON])
METHODS_SCHEMA = pa.schema([("clips", pa.int64()), *_COMMON])
FRAMES_SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("method", pa.string()),
        ("point", pa.string()),
        ("method_id", pa.string()),
        *FRAME_FIELDS,
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("method", pa.string()),
        ("method_id", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)


def method_columns(method: MethodConfig, protocol: str, segmenter: str) -> dict[str, Any]:
    """What identifies a method in every table."""
    return {
        "method": method.label,
        "point": method.point,
        "method_id": method.digest,
        "scheduler": "oracle" if method.is_oracle else method.scheduler.name,
        "interval": method.value("interval"),
        "threshold": method.value("threshold"),
        "propagator": method.propagation.name,
        "level": method.propagation.level,
        "sides": method.propagation.sides,
        "flow": method.propagation.flow,
        "protocol": protocol,
        "segmenter": segmenter,
    }


def numbers(
    summaries: Sequence[Mapping[str, Any]],
    *,
    fps: float,
    class_names: Sequence[str],
    knows_cost: bool = True,
) -> dict[str, Any]:
    """The measures of one or several clips together. Where nobody knows what the net costs (`knows_cost`),
    what depends on it is NaN."""
    total = {name: sum(s[name] for s in summaries) for name in ("frames", "measured_frames", "keys")}
    seconds = {name: float(sum(s[name] for s in summaries)) for name in ("read_s", "engine_s", "net_s")}
    latest_s = max((s["latency_max_s"] for s in summaries), default=NAN)
    if not knows_cost:
        seconds["net_s"] = latest_s = NAN
    frames = total["frames"]
    keys = sum(s.get("key_frames", s["keys"]) for s in summaries)  # with regions in frames' worth of pixels
    segmented = sum(s.get("segmented", s["keys"]) for s in summaries)
    warped = sum(s.get("warped", s["frames"] - s["keys"]) for s in summaries)
    spent = seconds["engine_s"] + seconds["net_s"]
    gpu_s = sum(s["net_s"] for s in summaries if s["device"] == "cuda")
    cost = Cost(cpu_s=sum(seconds.values()) - gpu_s, gpu_s=gpu_s, video_s=frames / fps)
    intervals = [interval for s in summaries for interval in s["intervals"]]
    labels_KK = np.sum([s["label_counts"] for s in summaries], axis=0)
    net_KK = np.sum([s["net_counts"] for s in summaries], axis=0)
    return {
        **total,
        **seconds,
        "aki": frames / keys if keys else NAN,
        "calls_saved": 1.0 - keys / frames if frames else NAN,
        "key_share": keys / frames if frames else NAN,
        "warped_per_segmented": warped / segmented if segmented else NAN,
        "cki_median": float(np.median(intervals)) if intervals else NAN,
        "cki_max": float(max(intervals)) if intervals else NAN,
        "miou": mean_without_void(labels_KK),
        "pixel_accuracy": _accuracy(labels_KK),
        "class_iou": iou_of(labels_KK)[:-1].tolist(),
        "miou_no_background": _without_background(iou_of(labels_KK)[:-1], class_names),
        **{f"vc{length}": _windows([s["vc"][str(length)] for s in summaries]) for length in WINDOWS},
        "frame_miou": _mean(summaries, "frame_miou"),
        "fidelity": mean_without_void(net_KK),
        "agreement": _accuracy(net_KK),
        "frame_fidelity": _mean(summaries, "frame_fidelity"),
        **{name: _mean(summaries, name, by="frames", plain=True) for name in _PLAIN},
        "class_tc": _class_means([s["class_tc"] for s in summaries]),
        **pooled_columns([s.get("class_overlap") for s in summaries]),
        "fps": frames / spent if spent > 0 else NAN,
        "cpu_s": cost.cpu_s,
        "gpu_s": cost.gpu_s,
        "cpu_s_per_video_hour": cost.cpu_s_per_video_hour,
        "gpu_s_per_video_hour": cost.gpu_s_per_video_hour,
        "latency_mean_s": spent / frames if frames else NAN,
        "latency_max_s": latest_s,
        "wait_mean_frames": _mean(summaries, "wait_mean_frames", by="frames"),
        "wait_max_frames": max((s["wait_max_frames"] for s in summaries), default=0),
    }


_PLAIN = ("tc", "tc_forward", "tc_pop", *LATER_MEASURES[:5])
"""Measures whose mean is taken plainly over clips (ETC Eq. 6)."""


def _class_means(clips: Sequence[Sequence[float | None]]) -> list[float]:
    """The mean over clips for each class, of those that hold it."""
    return [
        float(np.mean(known)) if (known := [value for value in values if value is not None]) else NAN
        for values in zip(*clips, strict=True)
    ]


def pooled_columns(overlaps: Sequence[Sequence[Sequence[int]] | None]) -> dict[str, Any]:
    """TC over all pairs of all clips, as ETC's numbers were taken; nothing where a clip was measured before
    its pixels were kept."""
    known = [np.array(overlap) for overlap in overlaps if overlap is not None]
    if not known or len(known) < len(overlaps):
        return {}
    classes_C = pooled_tc(known)
    there = classes_C[~np.isnan(classes_C)]
    return {
        "tc_pooled": float(there.mean()) if there.size else NAN,
        "class_tc_pooled": classes_C.tolist(),
    }


def _without_background(iou_C: np.ndarray, class_names: Sequence[str]) -> float:
    """mIoU without the class that is called background (ETC IV-D); NaN where none is."""
    kept = [value for value, name in zip(iou_C, class_names, strict=True) if name != BACKGROUND]
    known = [value for value in kept if not np.isnan(value)]
    return float(np.mean(known)) if known and len(kept) < len(class_names) else NAN


def _windows(totals: Sequence[tuple[float, int]]) -> float:
    """Video consistency, the mean over all windows of all clips."""
    windows = sum(number for _, number in totals)
    return sum(total for total, _ in totals) / windows if windows else NAN


def _accuracy(counts_KK: np.ndarray) -> float:
    pixels = counts_KK.sum()
    return float(np.trace(counts_KK[:-1, :-1]) / pixels) if pixels else NAN


def _mean(
    summaries: Iterable[Mapping[str, Any]], name: str, *, by: str = "measured_frames", plain: bool = False
) -> float:
    """Weighted by frames, or plainly over clips; clips without the number are left out."""
    pairs = [(s[name], 1.0 if plain else float(s[by])) for s in summaries if not np.isnan(s[name])]
    weight = sum(w for _, w in pairs)
    return sum(value * w for value, w in pairs) / weight if weight else NAN


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows in the schema's columns; what a row lacks is null."""
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )
