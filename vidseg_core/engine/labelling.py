"""What makes a run one of pseudo-labels: the rule for doubtful pixels and the classes that come out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.remap import ClassMap, load_class_map
from vidseg_core.engine.confidence import LabelRule


def label_rule(config: SegmentConfig, teacher_classes: Sequence[str]) -> LabelRule | None:
    """The rule of a run of pseudo-labels; None for plain masks."""
    if not isinstance(config, PseudoLabelConfig):
        return None
    classes = class_map(config, teacher_classes)
    return LabelRule(min_confidence=config.min_confidence, remap=classes.new_ids if classes else ())


def class_map(config: SegmentConfig, teacher_classes: Sequence[str]) -> ClassMap | None:
    """The class map that ``--remap`` names, fitted to the teacher's classes; ``ConfigError`` if it is off."""
    if not isinstance(config, PseudoLabelConfig) or config.remap is None:
        return None
    try:
        found = load_class_map(config.remap, teacher_classes)
    except DatasetError as problem:
        raise ConfigError("--remap", str(problem)) from problem
    if found.ignored_to is not None:
        raise ConfigError("--remap", f"class map {config.remap}: 255 is no class of the segmenter")
    return found


def digest_with(classes: ClassMap | None, net_digest: str) -> str:
    """The net's digest, or that of net and class map together: both decide the labels."""
    if classes is None:
        return net_digest
    text = f"{net_digest} {classes.class_names} {classes.new_ids}"
    return hashlib.sha256(text.encode()).hexdigest()
