"""`every`: N runs on each frame. The baseline of all figures, and exact."""

from __future__ import annotations

from vidseg_core.scheduling.deviation import Deviation


class Every:
    """Every frame is key, damaged ones too, since nothing is propagated."""

    needs_flow = False
    avoids_corrupt = False
    threshold = 0.0

    def score(self, deviation: Deviation) -> float:
        return 1.0
