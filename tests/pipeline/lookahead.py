"""A scheduler that looks ahead, as somebody else might write it."""

from __future__ import annotations

from vidseg_core.scheduling import PlanWindow


class Brightest:
    """Key at the brightest frame of each window."""

    window, stride = 8, 2

    def plan(self, window: PlanWindow) -> list[int]:
        places = [place for place in range(2, window.frames, 2) if window.sound_T[place]]
        return [max(places, key=lambda place: float(window.grays[place].mean()))] if places else []
