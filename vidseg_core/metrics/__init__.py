"""Quality and cost of a run, in numpy: mIoU, fidelity, and the statistics of key frames."""

from vidseg_core.metrics.confusion import IGNORE_INDEX, ConfusionMatrix, mean_iou
from vidseg_core.metrics.fidelity import Fidelity, measure_fidelity
from vidseg_core.metrics.keys import KAR_WINDOW, KeyStatistics, join, key_all_ratio, key_statistics

__all__ = [
    "IGNORE_INDEX",
    "KAR_WINDOW",
    "ConfusionMatrix",
    "Fidelity",
    "KeyStatistics",
    "join",
    "key_all_ratio",
    "key_statistics",
    "mean_iou",
    "measure_fidelity",
]
