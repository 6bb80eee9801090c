"""How still it is: the motion at a frame, and how that compares with the frames since the key.

A frame that moves is a poor key for the frames on both of its sides; one that has come to rest is a good one.
Nothing in D(i -> k) distinguishes the two, so the frame before is looked at, too.

Model: m(i) is the mean gray difference between frame i and the one before. `moving_share` is m(i) over its
mean since the key, which makes clips with much and little motion alike; the sum is what the scheduler
remembers (`Deviation.remember`).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vidseg_core.scheduling.deviation import Deviation, mean_of

MOVING_NAMES = (
    "moving",  # mean gray difference to the frame before, gray levels
    "moving_share",  # the same, in units of its mean over the frames since the key
)
REST = 0.05
"""Gray levels, added to both sides of the share: noise of a scene that rests."""


def moving_of(deviation: Deviation) -> np.ndarray:
    """float32 [2]; remembers the sum of the differences since the key."""
    now = np.float32(mean_of(cv2.absdiff(deviation.gray_current, deviation.gray_previous)))
    total = np.float32(deviation.memory) + now
    deviation.remember(float(total))
    return np.array([now, moving_share(now, total, deviation.lkd)], np.float32)


def moving_share(now: Any, total: Any, distance: Any) -> Any:
    """The share, from the difference at a frame and the sum of all since the key."""
    return (now + REST) / (total / distance + REST)
