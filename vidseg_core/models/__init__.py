"""Segmentation nets behind one protocol. Importing this package loads torch, and no model library."""

from vidseg_core.models.protocol import Features, Segmenter, SegmenterError
from vidseg_core.models.registry import SEGMENTER_NAMES, build_segmenter, resolve_device
from vidseg_core.models.scores import labels_from_scores

__all__ = [
    "SEGMENTER_NAMES",
    "Features",
    "Segmenter",
    "SegmenterError",
    "build_segmenter",
    "labels_from_scores",
    "resolve_device",
]
