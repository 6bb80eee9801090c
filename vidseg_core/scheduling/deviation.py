"""What a scheduler may look at when it decides about one frame: D and E of DVRL section 3.1.

Everything that costs something is computed when it is first asked for and kept, so a scheduler pays for what
it reads and no more, and the engine re-uses the flow that a scheduler has asked for.

Legend: H, W flow size (the small picture on which flow is estimated); 2 = (u, v); gray uint8.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from vidseg_core.propagation.warp import warp_error


class Deviation:
    """How the current frame differs from the last key frame, and the history of decisions.

    Plain fields:
      ordinal      number of this frame in its segment, from 0; frames lost in decoding are not counted
      frame_index  video-wide number of this frame
      lkd          frames since the last key frame, at least 1 (DVRL 3.2, Last Key Distance)
      kar          keys / decisions over the last 90 decisions before this one (DVRL 3.2, 4.2, Key All Ratio)
      memory       what the scheduler remembered at the frame before (`remember`); 0 right after a key
      is_corrupt   the decoder marked this frame as damaged
      seed         the run's seed; segment: the segment's name
    """

    __slots__ = (
        "__dict__",
        "_current",
        "_flow",
        "_key",
        "_key_low",
        "_low",
        "_map",
        "_previous",
        "frame_index",
        "is_corrupt",
        "kar",
        "lkd",
        "memory",
        "ordinal",
        "remembered",
        "seed",
        "segment",
    )

    def __init__(
        self,
        *,
        current: Callable[[], np.ndarray],
        key: Callable[[], np.ndarray],
        flow: Callable[[], np.ndarray],
        ordinal: int,
        frame_index: int,
        lkd: int,
        kar: float,
        is_corrupt: bool,
        seed: int,
        segment: str,
        memory: float = 0.0,
        previous: Callable[[], np.ndarray] | None = None,
        low: Callable[[], Any] | None = None,
        key_low: Callable[[], Any] | None = None,
        pair_map: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        self._map = pair_map
        self._current, self._key, self._flow, self._previous = current, key, flow, previous
        self._low, self._key_low = low, key_low
        self.ordinal, self.frame_index, self.lkd, self.kar = ordinal, frame_index, lkd, kar
        self.is_corrupt, self.seed, self.segment = is_corrupt, seed, segment
        self.memory = memory
        self.remembered: float | None = None

    @cached_property
    def gray_current(self) -> np.ndarray:
        """gray_HW uint8 of this frame at flow size; treat as read-only."""
        return self._current()

    @cached_property
    def gray_key(self) -> np.ndarray:
        """gray_HW uint8 of the last key frame at flow size; treat as read-only."""
        return self._key()

    @cached_property
    def gray_previous(self) -> np.ndarray:
        """gray_HW uint8 of the frame before this one, the key itself at lkd 1; for schedulers that say
        `needs_previous = True`."""
        if self.lkd == 1:
            return self.gray_key
        if self._previous is None:
            raise RuntimeError("a scheduler that reads the frame before must say so: needs_previous = True")
        return self._previous()

    @property
    def low(self) -> Any:
        """Low-level features of this frame, without batch dimension (`models.protocol.PartedSegmenter`); for
        schedulers that say `needs_low = True`."""
        return _known(self._low)

    @property
    def key_low(self) -> Any:
        """The same of the last key frame."""
        return _known(self._key_low)

    def pair_map(self, name: str) -> np.ndarray:
        """map_Cgg float16 of this frame and the last key (`pair_maps`); for schedulers that name the sets
        that they read in `map_sets`."""
        if self._map is None:
            raise RuntimeError("maps of pairs are columns of a table, not part of its deviation")
        return self._map(name)

    @cached_property
    def flow(self) -> np.ndarray:
        """flow_HW2 float32 from this frame to the last key frame, in pixels at flow size."""
        return self._flow()

    @cached_property
    def warp_error(self) -> float:
        """Mean absolute photometric error of the key frame warped to this one, in gray levels (0..255)."""
        return mean_of(warp_error(self.gray_current, self.gray_key, self.flow))

    def remember(self, value: float) -> None:
        """Keeps a number for the frames up to the next key, across kills and machines (a sum, a maximum ...).

        A frame that is not offered to the scheduler changes nothing.
        """
        self.remembered = float(value)

    @property
    def pixel_pitch(self) -> float:
        """Longest side of the flow picture in pixels; flow / pixel_pitch is free of the flow size."""
        return float(max(self.gray_current.shape))

    def random(self) -> float:
        """A uniform number in [0, 1) that depends on (seed, segment, ordinal) and on nothing else."""
        name = zlib.crc32(self.segment.encode())
        sequence = np.random.SeedSequence((self.seed & 0xFFFF_FFFF_FFFF_FFFF, name, self.ordinal))
        return float(sequence.generate_state(1, np.uint64)[0] >> np.uint64(11)) * 2.0**-53


def _known(low: Callable[[], Any] | None) -> Any:
    if low is None:
        raise RuntimeError("low-level features are known to an engine only: no table holds them")
    return low()


def mean_of(picture: np.ndarray) -> float:
    """Mean of a one-channel picture; exact for uint8, so the same on every machine."""
    return cv2.mean(picture)[0]
