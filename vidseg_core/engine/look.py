"""What the engine sees of one frame while it steps over it; computed when first needed, then kept.

Legend: H, W working size; h, w flow size; 3 = RGB; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from vidseg_core.config.catalogue import KEY_AND_FLOW, MAP_LAYERS
from vidseg_core.engine.frames import FrameInput
from vidseg_core.engine.state import SegmentState
from vidseg_core.engine.stats import EngineStats
from vidseg_core.propagation.chain import Link
from vidseg_core.scheduling.pair_maps import key_and_flow


def view_size(
    height: int, width: int, flow_size: int, whole: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(h, w) of the flow picture: longest side `flow_size`, aspect kept, never larger than the frame.

    Of a crop of a frame of size `whole` it has the scale of that frame's."""
    longest = max(whole or (height, width))
    if longest <= flow_size:
        return height, width
    return max(1, round(height * flow_size / longest)), max(1, round(width * flow_size / longest))


def make_view(
    frame_HW3: np.ndarray, flow_size: int, channels: int, whole: tuple[int, int] | None = None
) -> np.ndarray:
    """The flow picture, uint8: gray hw (channels 1) or RGB hw3 (channels 3), area-averaged.

    `whole`: of a crop, (H, W) of its frame."""
    size = view_size(frame_HW3.shape[0], frame_HW3.shape[1], flow_size, whole)
    return picture_of_size(frame_HW3, size, channels)


def picture_of_size(frame_HW3: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """`make_view` of a given size (h, w)."""
    height, width = size
    picture = frame_HW3 if channels == 3 else cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2GRAY)
    if picture.shape[:2] == (height, width):
        return picture.copy()
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def view_of(frame: FrameInput, flow_size: int, channels: int) -> np.ndarray:
    """What `make_view` makes; gray comes from the luma where there is one, so that no colours are made."""
    luma = frame.luma() if channels == 1 else None
    size = view_size(*frame.shape, flow_size, frame.whole)
    if luma is None:
        return picture_of_size(frame.frame_HW3, size, channels)
    luma_hw, full_range = resized_luma(luma[0], size), luma[1]
    return luma_hw.copy() if full_range else cv2.LUT(luma_hw, _FULL_RANGE)


def resized_luma(luma_hw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The luma at another size (h, w)."""
    if luma_hw.shape == size:
        return luma_hw
    interpolation = cv2.INTER_AREA if luma_hw.shape[0] >= size[0] else cv2.INTER_LINEAR
    return cv2.resize(luma_hw, size[::-1], interpolation=interpolation)


_FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
"""Luma 16..235 -> 0..255."""


def gray_of(view: np.ndarray) -> np.ndarray:
    return view if view.ndim == 2 else cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)


def _low(low_maps: Any) -> Any:
    if low_maps is None:
        raise RuntimeError("a scheduler that reads low-level features must say so: needs_low = True")
    return low_maps


class FrameLook:
    """One frame of one lane: its flow picture and its flow to the last key."""

    __slots__ = (
        *("_channels", "_flow_size", "_stats", "_view"),
        *("flow_hw2", "frame", "low_maps", "maps", "state"),
    )

    def __init__(
        self,
        state: SegmentState,
        frame: FrameInput,
        channels: int,
        flow_size: int,
        stats: EngineStats,
        view: np.ndarray | None = None,
    ) -> None:
        self.state, self.frame = state, frame
        self._channels, self._flow_size, self._stats = channels, flow_size, stats
        self._view = view
        self.flow_hw2: np.ndarray | None = None
        self.low_maps: Any = None
        """Low-level features of the frame, where scheduler or propagator say that they read them."""
        self.maps: Mapping[str, np.ndarray] | None = None
        """Layer of the flow net -> its map of the frame and the last key, where the scheduler reads some."""

    @property
    def view_shape(self) -> tuple[int, ...]:
        if self._view is not None:
            return self._view.shape
        size = view_size(*self.frame.shape, self._flow_size, self.frame.whole)
        return size if self._channels == 1 else (*size, 3)

    @property
    def view(self) -> np.ndarray:
        if self._view is None:
            with self._stats.timed("view"):
                self._view = view_of(self.frame, self._flow_size, self._channels)
        return self._view

    def known_flow(self) -> np.ndarray:
        """Flow to the last key; the engine has estimated it if the scheduler says that it needs flow."""
        if self.flow_hw2 is None:
            raise RuntimeError("a scheduler that reads the flow must say so: needs_flow = True")
        return self.flow_hw2

    def known_map(self, name: str) -> np.ndarray:
        """map_Cgg of one of `scheduling.pair_maps`."""
        if name == KEY_AND_FLOW:
            assert self.state.key is not None
            return key_and_flow(self.state.key.view, self.known_flow())
        if self.maps is None:
            raise RuntimeError(f"a scheduler that reads {name} must say so: map_sets = ({name!r},)")
        return self.maps[MAP_LAYERS[name]]

    def known_low(self) -> Any:
        """Low-level features of this frame."""
        return _low(self.low_maps)

    def key_low(self) -> Any:
        """Low-level features of the last key."""
        assert self.state.key is not None
        return _low(self.state.key.low_maps)

    def link(self) -> Link:
        """This frame and its last key, flow unknown."""
        assert self.state.key is not None
        distance = self.state.next_frame - self.state.key.ordinal
        return Link(current=self.view, key=self.state.key.view, distance=distance)

    @property
    def gray(self) -> np.ndarray:
        return gray_of(self.view)

    def previous_gray(self) -> np.ndarray:
        """The frame stepped over last; only where the state keeps it."""
        assert self.state.last_view is not None
        return gray_of(self.state.last_view)

    @property
    def key_gray(self) -> np.ndarray:
        assert self.state.key is not None
        return gray_of(self.state.key.view)
