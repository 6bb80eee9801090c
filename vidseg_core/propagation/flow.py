"""Optical flow from a frame to its key frame.

Flow is always estimated *directly* between the two pictures, never chained over the frames between them, so
errors do not add up and any frame can be recomputed on its own. `flow_HW2[y, x] = (u, v)` in pixels of the
picture handed in: what is seen at (x, y) in the current frame lies at (x + u, y + v) in the key frame
(M_{i->k} of DFF and DVRL section 3.1; a backward warp reads the key there).

Legend: H, W picture height and width; 2 = (u, v) horizontal and vertical; uint8 pictures, float32 flow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self, runtime_checkable

import cv2
import numpy as np

from vidseg_core.config.catalogue import MOTION_VECTORS, NET_FLOWS
from vidseg_core.registry import PluginError, Registry, UnknownNameError


@runtime_checkable
class FlowEstimator(Protocol):
    """Anything that tells where each pixel of a frame lies in another one.

    Results must depend on the two pictures of a pair alone, never on which pairs share the call: that is what
    makes masks independent of the number of lanes.

        class Still:
            channels, chained = 1, False
            def flow(self, current, key):
                return [np.zeros((*picture.shape[:2], 2), np.float32) for picture in current]
    """

    channels: int
    """1: takes gray pictures (HW uint8); 3: takes RGB pictures (HW3 uint8)."""

    chained: bool
    """True: each flow is improved with the help of the frame before (see `chain`), at the price of a second
    estimate. False: plain estimates, all frames in one call: right for nets that want large batches."""

    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each pair the flow_HW2 float32 from the current picture to the key picture."""
        ...


DIS_PRESETS = {"fast": (2, 4, 12), "standard": (1, 4, 12), "fine": (1, 3, 25)}
"""Name -> (finest pyramid level, distance of the 8-pixel patches in pixels, steps of descent per patch)."""

MIN_DIS_SIDE = 16
"""Pictures with a shorter side (pixels) are grown before DIS, whose coarsest pyramid level needs a patch."""


class DisFlow:
    """OpenCV's DIS (dense inverse search) flow on gray pictures, one pair after the other.


    Its output is the same on every run, for every number of OpenCV threads and for a used or a fresh DIS
    object (pinned by a test). A DIS object keeps buffers, so each thread has its own.

    `preset`: "fast", "standard" or "fine", all without variational refinement, which costs a third of the
    time of OpenCV's medium preset and made masks no better. With `chained` two "standard" estimates together
    cost what one of that preset costs. `threads`: pairs that are worked on side by side, for hosts whose GPU
    waits for the flow.
    """

    channels = 1

    def __init__(self, preset: str = "standard", chained: bool = True, threads: int = 1) -> None:
        if preset not in DIS_PRESETS:
            raise ValueError(f"flow preset {preset!r} is not one of {', '.join(DIS_PRESETS)}")
        if int(threads) != threads or threads < 1:
            raise ValueError(f"flow threads must be a whole number of at least 1, not {threads!r}")
        self.preset, self.chained, self.threads = preset, bool(chained), int(threads)
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(self.threads, "dis") if self.threads > 1 else None

    def __reduce__(self) -> tuple[type[Self], tuple[str, bool, int]]:
        return type(self), (self.preset, self.chained, self.threads)

    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self._pool is not None and len(current) > 1:
            return list(self._pool.map(self._one, current, key))
        return [self._one(a_HW, b_HW) for a_HW, b_HW in zip(current, key, strict=True)]

    def _one(self, current_HW: np.ndarray, key_HW: np.ndarray) -> np.ndarray:
        height, width = current_HW.shape
        if min(height, width) >= MIN_DIS_SIDE:
            return self._dis().calc(current_HW, key_HW, None)
        pad_y, pad_x = max(0, MIN_DIS_SIDE - height), max(0, MIN_DIS_SIDE - width)
        grown = [
            cv2.copyMakeBorder(p_HW, 0, pad_y, 0, pad_x, cv2.BORDER_REPLICATE)
            for p_HW in (current_HW, key_HW)
        ]
        return np.ascontiguousarray(self._dis().calc(grown[0], grown[1], None)[:height, :width])

    def _dis(self) -> Any:
        dis = getattr(self._local, "dis", None)
        if dis is None:
            finest, stride, steps = DIS_PRESETS[self.preset]
            dis = self._local.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            dis.setFinestScale(finest)
            dis.setPatchStride(stride)
            dis.setGradientDescentIterations(steps)
            dis.setVariationalRefinementIterations(0)
        return dis


def _net_flow(name: str) -> Callable[..., FlowEstimator]:
    """A factory that loads torch and the net when it is called, not before."""

    def build(
        *,
        weights: str | None = None,
        device: str = "cpu",
        batch: int | None = None,
        chained: bool = False,
        seed: int = 0,
    ) -> FlowEstimator:
        from vidseg_core.propagation.net_flow import NetFlow

        return NetFlow(name, weights=weights, device=device, batch=batch, chained=chained, seed=seed)

    return build


FLOW_ESTIMATORS = Registry(
    "flow estimator",
    {"dis": DisFlow, MOTION_VECTORS: "vidseg_core.propagation.motion:MotionVectors"}
    | {name: _net_flow(name) for name in NET_FLOWS},
)


def build_flow(name: str = "dis", **options: Any) -> FlowEstimator:
    """A flow estimator by registry name or `package.module:Class`; unknown names suggest the nearest."""
    estimator = FLOW_ESTIMATORS.build(name, **options)
    lacks = [part for part in ("flow", "channels", "chained") if not hasattr(estimator, part)]
    if lacks:
        raise UnknownNameError(
            f"flow estimator {name!r} lacks {', '.join(lacks)}; see FlowEstimator in propagation/flow.py"
        )
    return estimator


def check_flows(flows: Any, current: Sequence[np.ndarray], name: str) -> None:
    """`PluginError` unless there is one flow_HW2, float32 and finite, for each picture of `current`.

    A flow of another shape would be resized to the picture without a word.
    """
    listed = isinstance(flows, Sequence | np.ndarray)
    if not listed or len(flows) != len(current):
        got = f"{len(flows)} flows" if listed else f"a {type(flows).__name__}"
        raise PluginError(f"flow estimator {name!r} gave {got}, expected a list of {len(current)}")
    for flow_HW2, picture in zip(flows, current, strict=True):
        if not isinstance(flow_HW2, np.ndarray):
            raise PluginError(
                f"flow estimator {name!r} gave a {type(flow_HW2).__name__}, expected numpy arrays"
            )
        expected = (*picture.shape[:2], 2)
        if flow_HW2.shape != expected or flow_HW2.dtype != np.float32:
            raise PluginError(
                f"flow estimator {name!r} gave a flow of shape {flow_HW2.shape} and type {flow_HW2.dtype}, "
                f"expected {expected} (rows, columns, 2) and float32"
            )
        if not np.isfinite(flow_HW2).all():
            raise PluginError(f"flow estimator {name!r} gave a flow that is NaN or Inf")


def takes(name: str, option: str) -> bool:
    """Does the flow estimator called `name` have this option?"""
    return FLOW_ESTIMATORS.takes(name, option)
