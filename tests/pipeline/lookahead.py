"""Schedulers that look ahead, and back, as somebody else might write them."""

from __future__ import annotations

from vidseg_core.scheduling import Deviation, LookaheadWindow


class Brightest:
    """Key at the brightest frame of each window."""

    window, stride = 8, 2

    def plan(self, window: LookaheadWindow) -> list[int]:
        places = [place for place in range(2, window.frames, 2) if window.sound_T[place]]
        return [max(places, key=lambda place: float(window.grays[place].mean()))] if places else []


class AddedUp:
    """Adds up how much darker or brighter the frames since the key were."""

    needs_flow, avoids_corrupt, threshold = False, True, 12.0

    def score(self, deviation: Deviation) -> float:
        change = abs(float(deviation.gray_current.mean()) - float(deviation.gray_key.mean()))
        deviation.remember(deviation.memory + 1.0 + change)
        return deviation.memory + 1.0 + change
