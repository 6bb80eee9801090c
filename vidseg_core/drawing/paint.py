"""Masks over frames so that both can be seen: a tint for each class, and a line of its colour around it.

Model: a mask is drawn at the size of the frame, whatever its own. Each class is a field that is scaled and
smoothed; a pixel belongs to the strongest field, and where the two strongest are about equal runs the border.
So borders are smooth where the mask has the steps of its own pixels; what is thinner than about two of these
may vanish. Lines have the colour of the legend, the area inside has `opacity` of it. What is called
background is left as it is.

Legend: H, W size of the frame; h, w that of the mask; 3 = RGB, 4 = RGB and opacity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.drawing.legend import legend_strip
from vidseg_core.drawing.palette import class_colours
from vidseg_core.drawing.regions import KEY_RGB, mark_regions
from vidseg_core.store.run import Run

OPACITY = 0.35
"""Of the areas, where nobody says another."""
_SOFT = 1.0
"""Standard deviation of the smoothing, pixels of the mask (of the frame, where that is smaller)."""
_LINE = 0.002
"""Width of a line on each side of a border, of the longer side; at least a pixel."""


class Painter:
    """How the masks of one run look: names and colours of its classes, and how strong they are."""

    def __init__(
        self,
        class_names: Sequence[str] = (),
        *,
        opacity: float = OPACITY,
        unlabelled: bool = False,
        regions: RegionsConfig | None = None,
    ) -> None:
        """`opacity`: of the areas, 0 (lines alone) to 1. `unlabelled`: masks may hold 255, no label.
        `regions`: of a run whose frames have several."""
        if not 0.0 <= opacity <= 1.0:
            raise ValueError(f"opacity must be in 0..1, not {opacity}")
        self.class_names, self._unlabelled, self._regions = tuple(class_names), unlabelled, regions
        self.colours = class_colours(class_names)
        self._area, self._line = _table(self.colours, opacity), _table(self.colours, 1.0)
        self._legends: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, run: Run, opacity: float = OPACITY) -> Painter:
        """That of a run; of one that has no run.json yet, without names."""
        info = run.info()
        names, config = info.get("segmenter", {}).get("class_names") or (), info.get("config", {})
        regions = RegionsConfig.of(config)
        return cls(names, opacity=opacity, unlabelled="min_confidence" in config, regions=regions)

    @property
    def columns(self) -> tuple[str, ...]:
        """What of a row besides `is_key`, `height` and `width` says what `mark_keys` draws."""
        return () if self._regions is None else ("region_keys",)

    def mark_keys(self, picture_HW3: np.ndarray, row: Mapping[str, Any], *, corner: bool = True) -> None:
        """Draw into the picture that the frame is key, or which of its regions are. `corner`: a small KEY,
        where the frame has no regions."""
        keys = row["region_keys"] if self._regions is not None else None
        if self._regions is not None and keys is not None:
            mark_regions(picture_HW3, self._regions, (row["height"], row["width"]), keys)
        elif row["is_key"] and corner:
            mark_key(picture_HW3)

    def over(self, frame_HW3: np.ndarray | None, labels_hw: np.ndarray) -> np.ndarray:
        """A new uint8 RGB picture of the frame's size: the frame with the mask over it.

        Without a frame the mask alone, in full colours.
        """
        if frame_HW3 is None:
            return self.colours[labels_hw]
        labels_HW, border_HW = smooth_labels(labels_hw, frame_HW3.shape[:2])
        paint_HW = cv2.LUT(labels_HW, self._area)
        cv2.copyTo(cv2.LUT(labels_HW, self._line), border_HW, paint_HW)
        paint_HW4 = paint_HW.view(np.uint8).reshape(*labels_HW.shape, 4)
        paint_HW4 = cv2.GaussianBlur(paint_HW4, (3, 3), 0.45)  # lines without steps, too
        rest_HW = cv2.bitwise_not(cv2.extractChannel(paint_HW4, 3))
        rest_HW3 = cv2.multiply(frame_HW3, cv2.cvtColor(rest_HW, cv2.COLOR_GRAY2RGB), scale=1 / 255)
        return cv2.add(rest_HW3, cv2.cvtColor(paint_HW4, cv2.COLOR_RGBA2RGB))

    def legend(self, width: int) -> np.ndarray:
        """The strip of colours and names that goes below a picture so wide; of height 0 without names."""
        if width not in self._legends:
            self._legends[width] = legend_strip(self.class_names, width, unlabelled=self._unlabelled)
        return self._legends[width]

    def with_legend(self, picture_HW3: np.ndarray) -> np.ndarray:
        """The picture with the strip below it."""
        return np.concatenate((picture_HW3, self.legend(picture_HW3.shape[1])))


def smooth_labels(labels_hw: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The label map at another size without steps, and 255 where a border's line runs (0 elsewhere)."""
    height, width = size
    shrinks = labels_hw.shape[0] > height or labels_hw.shape[1] > width
    soft = _SOFT if shrinks else _SOFT * max(size) / max(labels_hw.shape)
    line = max(1.0, _LINE * max(size))
    best_HW, second_HW, labels_HW = np.zeros((3, height, width), np.uint8)
    for label in np.flatnonzero(cv2.calcHist([labels_hw], [0], None, [256], [0, 256])):
        field = (labels_hw == label) * np.uint8(255)
        if shrinks:
            field = cv2.resize(field, (width, height), interpolation=cv2.INTER_AREA)
        field = cv2.GaussianBlur(field, (5, 5), _SOFT)
        field_HW = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.copyTo(np.full_like(labels_HW, label), cv2.compare(field_HW, best_HW, cv2.CMP_GT), labels_HW)
        cv2.max(second_HW, cv2.min(field_HW, best_HW), second_HW)
        cv2.max(best_HW, field_HW, best_HW)
    lead_HW = cv2.subtract(best_HW, second_HW)
    lead = 255 * math.erf(line / (soft * math.sqrt(2)))  # of one field, so far from a straight border
    return labels_HW, cv2.compare(lead_HW, lead, cv2.CMP_LT)  # type: ignore[call-overload]


def mark_key(picture_HW3: np.ndarray) -> None:
    """A small KEY in the corner of a picture, drawn into it."""
    scale = max(0.4, min(picture_HW3.shape[:2]) / 900)
    (width, height), base = cv2.getTextSize("KEY", cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    edge = base + 1
    cv2.rectangle(picture_HW3, (0, 0), (width + 2 * edge, height + 2 * edge), KEY_RGB, cv2.FILLED)
    thick = max(1, round(1.6 * scale))
    at = (edge, height + edge)
    cv2.putText(picture_HW3, "KEY", at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA)


def _table(colours: np.ndarray, opacity: float) -> np.ndarray:
    """For each label its colour, times the opacity, and the opacity (0 where black), as four bytes."""
    opaque = np.full(256, 255) * colours.any(axis=1)
    four = opacity * np.concatenate((colours, opaque[:, None]), axis=1)
    return np.round(four).astype(np.uint8).view(np.int32).reshape(1, 256)
