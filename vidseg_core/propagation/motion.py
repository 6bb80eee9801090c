"""The codec's own motion as a flow: vectors chained from reference to reference back to the key.

Model: the stream says of a frame where its blocks lie in the frame that it refers to (`media.motion`). If
that frame's flow to the key is known, the two together are the frame's own: one read of one flow where the
other points, no picture looked at. What the stream does not say (the first frame after an intra picture, a
damaged one, another codec) is estimated by DIS on pictures as ever, and the chain goes on from there.

When a frame becomes key, frames before it may still be referred to (B pictures): their flows to the old key
become flows to the new one, by asking which place in the new key has come from the same place in the old.

Invariants: flows depend on the segment's frames and keys alone; where no block has moved since the key the
flow is zero to the last bit, so the key's labels stay as they are.

Legend: h, w rows and columns of cells, or flow size; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np

from vidseg_core.media.model import quarter_turns
from vidseg_core.media.motion import CELL, UNKNOWN, Motion
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.warp import VectorFlow, read_at, warp_flow

MOST_REFERENCES = 4
"""Frames that are remembered since later ones may refer to them: enough for B pictures in three layers."""
_REBASE_STEPS = 3
_NEAR = 0.25
"""Flow pixels by which the way to a new key may differ from what is expected."""
_FILL_SIDES = (3, 5, 9, 17, 33)
"""Sides in cells of the squares in which a cell without a vector looks for others."""

References = Mapping[int, np.ndarray | None]
"""Flows to the last key of the frames that later ones may refer to, by number; None: the key itself."""


class MotionVectors(DisFlow):
    """Flow from the motion vectors of H.264 and MPEG-4 streams; DIS where they say nothing."""

    reads_motion = True


def flow_to_key(
    motion: Motion | None, frame_index: int, references: References, size: tuple[int, int]
) -> np.ndarray | None:
    """flow_hw2 of a frame to the last key at this size; None: the stream does not say."""
    if motion is None or motion.cells_hw2 is None:
        return None
    reference = frame_index - motion.since
    if reference not in references:
        return None
    to_key_hw2 = references[reference]
    if motion.is_still:
        return _as_vectors(np.zeros((*size, 2), np.float32) if to_key_hw2 is None else to_key_hw2)
    own_hw2 = dense(motion, *size)
    return _as_vectors(own_hw2 if to_key_hw2 is None else joined(own_hw2, to_key_hw2))


def references_after(
    motion: Motion | None,
    frame_index: int,
    references: References,
    flow_hw2: np.ndarray | None,
    *,
    is_key: bool,
) -> dict[int, np.ndarray | None]:
    """What is remembered once a frame is stepped over; `flow_hw2`: to the key before it, None: unknown."""
    if motion is None:
        return {}
    oldest = frame_index - motion.oldest
    kept = {number: flow for number, flow in references.items() if number >= oldest}
    if is_key:
        kept = {} if flow_hw2 is None else _to_new_key(motion, frame_index, kept, flow_hw2)
    if motion.is_reference and (is_key or flow_hw2 is not None):
        kept[frame_index] = None if is_key else flow_hw2
    return dict(list(kept.items())[-MOST_REFERENCES:])


def _to_new_key(
    motion: Motion, frame_index: int, references: References, key_hw2: np.ndarray
) -> dict[int, np.ndarray | None]:
    """The flows of frames before a new key, to that; `key_hw2`: its own to the old one."""
    size = key_hw2.shape[:2]
    own_hw2 = np.zeros((*size, 2), np.float32) if motion.cells_hw2 is None else dense(motion, *size)
    steps = {number: (frame_index - number) / max(1, motion.since) for number in references}
    return {
        number: rebased(flow, key_hw2, _turned_round(own_hw2, steps[number]))
        for number, flow in references.items()
    }


def joined(first_hw2: np.ndarray, then_hw2: np.ndarray) -> np.ndarray:
    """Two motions as one: along the first, and from there along the second."""
    return cv2.add(first_hw2, warp_flow(np.asarray(then_hw2), first_hw2))


def rebased(flow_hw2: np.ndarray | None, key_hw2: np.ndarray, guess_hw2: np.ndarray) -> np.ndarray:
    """The flow of a frame to a new key; `flow_hw2` and `key_hw2` lead to the old one (None: it is that).

    What is looked for is g with x + flow(x) = (x + g) + key(x + g). The guess stands where that holds;
    elsewhere it is replaced by what would make it hold, some times over.
    """
    key_hw2, found_hw2 = np.asarray(key_hw2), guess_hw2
    flow_hw2 = np.zeros_like(key_hw2) if flow_hw2 is None else np.asarray(flow_hw2)
    for _ in range(_REBASE_STEPS):
        better_hw2 = cv2.subtract(flow_hw2, warp_flow(key_hw2, found_hw2))
        off_hw2 = np.abs(better_hw2 - found_hw2) > _NEAR
        is_off_hw = off_hw2[..., 0] | off_hw2[..., 1]
        found_hw2 = np.where(is_off_hw[..., None], better_hw2, found_hw2)
    return found_hw2


def _turned_round(step_hw2: np.ndarray, share: float) -> np.ndarray:
    """A guess at the way from where a step leads back to where it begins; `share`: of so many such steps."""
    back_hw2 = step_hw2 * np.float32(-share)
    return warp_flow(back_hw2, back_hw2)


def dense(motion: Motion, height: int, width: int) -> np.ndarray:
    """The vectors as flow_hw2 float32 of the turned picture at this size, in its pixels."""
    assert motion.cells_hw2 is not None
    turns = quarter_turns(motion.rotation)
    rows, columns = (width, height) if turns % 2 else (height, width)
    cells_hw2 = _smoothed(_filled(motion.cells_hw2))
    cells_hw2 *= np.array([columns / motion.width, rows / motion.height], np.float32) / 4
    places_hw2 = _places((rows, columns), (motion.height, motion.width))
    flow_hw2 = read_at(cells_hw2, places_hw2)
    return flow_hw2 if turns == 0 else _turned(flow_hw2, turns)


@lru_cache(maxsize=8)
def _places(size: tuple[int, int], decoded: tuple[int, int]) -> np.ndarray:
    """Where each pixel of a picture of this size lies among the cells, (x, y)."""
    y_h, x_w = (
        (np.arange(pixels) + 0.5) * whole / pixels / CELL - 0.5
        for pixels, whole in zip(size, decoded, strict=True)
    )
    return np.stack(np.meshgrid(x_w, y_h), axis=-1).astype(np.float32)


def _smoothed(cells_hw2: np.ndarray) -> np.ndarray:
    """The cells without those that differ from all around: encoders look for likeness, not for motion."""
    median = [cv2.medianBlur(np.ascontiguousarray(cells_hw2[..., part]), 3) for part in (0, 1)]
    return np.stack(median, axis=-1)


def _turned(flow_hw2: np.ndarray, turns: int) -> np.ndarray:
    """The flow of a picture that is turned counter-clockwise so many quarters."""
    for _ in range(turns % 4):  # what points right (u) points up (-v) after a quarter
        u_hw, v_hw = np.rot90(flow_hw2[..., 0]), np.rot90(flow_hw2[..., 1])
        flow_hw2 = np.stack([v_hw, -u_hw], axis=-1)
    return np.ascontiguousarray(flow_hw2)


def _as_vectors(flow_hw2: np.ndarray) -> VectorFlow:
    return flow_hw2.view(VectorFlow)


def _filled(cells_hw2: np.ndarray) -> np.ndarray:
    """The cells as float32, those without a vector like the nearest that have one (zero if there is none)."""
    is_known_hw = cells_hw2[..., 0] != UNKNOWN
    found_hw2 = cells_hw2.astype(np.float32)
    if is_known_hw.all():
        return found_hw2
    found_hw2[~is_known_hw] = 0
    known_hw = is_known_hw.astype(np.float32)
    missing_hw = ~is_known_hw
    sums_hw2, counts_hw = found_hw2.copy(), known_hw
    for side in _FILL_SIDES:
        around_hw2 = cv2.boxFilter(sums_hw2, cv2.CV_32F, (side, side), normalize=False)
        around_hw = cv2.boxFilter(counts_hw, cv2.CV_32F, (side, side), normalize=False)
        now_hw = missing_hw & (around_hw > 0.5)
        found_hw2[now_hw] = around_hw2[now_hw] / around_hw[now_hw][:, None]
        missing_hw = missing_hw & ~now_hw
        if not missing_hw.any():
            break
    return found_hw2
