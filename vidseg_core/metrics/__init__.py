"""Quality and cost of a run, in numpy: mIoU, fidelity, temporal consistency, keys, latency, cost."""

from vidseg_core.metrics.confusion import IGNORE_INDEX, ConfusionMatrix, count_pairs, iou_of, mean_iou
from vidseg_core.metrics.consistency import PairFlow, TemporalConsistency
from vidseg_core.metrics.cost import Cost
from vidseg_core.metrics.fidelity import Fidelity, measure_fidelity
from vidseg_core.metrics.schedule import (
    Decay,
    KeyStatistics,
    Latency,
    distances,
    far_from_keys,
    join,
    key_statistics,
    latency,
    quality_by_distance,
    waits,
)
from vidseg_core.metrics.stability import temporal_stability
from vidseg_core.metrics.video_consistency import VideoConsistency

__all__ = [
    "IGNORE_INDEX",
    "ConfusionMatrix",
    "Cost",
    "Decay",
    "Fidelity",
    "KeyStatistics",
    "Latency",
    "PairFlow",
    "TemporalConsistency",
    "VideoConsistency",
    "count_pairs",
    "distances",
    "far_from_keys",
    "iou_of",
    "join",
    "key_statistics",
    "latency",
    "mean_iou",
    "measure_fidelity",
    "quality_by_distance",
    "temporal_stability",
    "waits",
]
