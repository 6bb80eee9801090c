"""Video consistency VC of VSPW (Miao et al., CVPR 2021, section 5): does a mask stay where the scene does?

Model: in a window of n frames the pixels whose *label* never changes are what a perfect mask would leave
alone. VC_n of a window is the share of them whose predicted class never changes either, whether it is right
or not; VC_n of a corpus is the mean over all its windows. As the authors' published script has it, which the
field's numbers come from, the last window of a clip is left out. Other than there, pixels without a label and
void predictions are nobody's, and never unbroken.

Windows slide by one frame, so nothing but a count for each pixel is kept: for how many frames it has had its
class. Invariant: a test holds every number to one that is computed window by window.

Shape suffixes: H W rows and columns of the masks.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.metrics.confusion import IGNORE_INDEX

WINDOWS: tuple[int, ...] = (8, 16)
"""Frames of a window, n, as VSPW reports them; below 256."""


class _Unbroken:
    """For each pixel how many frames before the last one had its class, without a break."""

    def __init__(self, void: int) -> None:
        self._void = void
        self._before_HW: np.ndarray | None = None
        self.count_HW = np.zeros((0, 0), np.uint8)

    def add(self, mask_HW: np.ndarray) -> None:
        before_HW, self._before_HW = self._before_HW, mask_HW
        if before_HW is None:
            self.count_HW = np.zeros(mask_HW.shape, np.uint8)
            return
        known_HW = np.equal(before_HW, mask_HW) & np.not_equal(mask_HW, self._void)
        self.count_HW = (np.minimum(self.count_HW, 254) + 1) * known_HW.view(np.uint8)


class VideoConsistency:
    """Accumulates the windows of one clip; `void`: the id of predictions that name no class."""

    def __init__(self, void: int) -> None:
        self._void = void
        self.total = dict.fromkeys(WINDOWS, 0.0)
        """Window length -> sum of the windows' VC."""
        self.windows = dict.fromkeys(WINDOWS, 0)
        self.end_run()

    def update(self, mask_HW: np.ndarray, labels_HW: np.ndarray | None) -> None:
        """The next frame of a run; None: it has no labels, and no window reaches over it."""
        if labels_HW is None:
            self.end_run()
            return
        self._take()
        self._mask.add(mask_HW)
        self._labels.add(labels_HW)
        self._frames += 1
        for length in WINDOWS:
            if self._frames >= length:
                still_HW = self._labels.count_HW >= length - 1
                pixels = int(np.count_nonzero(still_HW))
                kept = int(np.count_nonzero(still_HW & (self._mask.count_HW >= length - 1)))
                self._last[length] = kept / pixels if pixels else None

    def end_run(self) -> None:
        """The run is over; its last window is not taken."""
        self._mask, self._labels = _Unbroken(self._void), _Unbroken(IGNORE_INDEX)
        self._frames = 0
        self._last: dict[int, float | None] = {}

    def vc(self, length: int) -> float:
        """VC over windows of so many frames; NaN without any."""
        return self.total[length] / self.windows[length] if self.windows[length] else float("nan")

    def _take(self) -> None:
        """Count the windows that ended with the frame before."""
        for length, share in self._last.items():
            if share is not None:
                self.total[length] += share
                self.windows[length] += 1
        self._last = {}
