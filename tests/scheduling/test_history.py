"""Promise: KAR and LKD are DVRL's (sections 3.2 and 4.2), as they were when the decision was taken."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.models.protocol import Segmenter
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import HISTORY_LENGTH, DecisionHistory, Deviation


@given(decisions=st.lists(st.booleans(), max_size=250))
def test_kar_is_the_share_of_keys_in_the_last_90_decisions(decisions: list[bool]) -> None:
    history = DecisionHistory()
    for number, is_key in enumerate(decisions):
        last = decisions[max(0, number - HISTORY_LENGTH) : number]
        assert history.kar == (sum(last) / len(last) if last else 0.0)
        history.add(is_key)
    assert list(history.decisions) == decisions[-HISTORY_LENGTH:]
    assert DecisionHistory(history.decisions).kar == history.kar


class Scripted:
    """Takes decisions from a list, and notes what it was told."""

    needs_flow, avoids_corrupt, threshold = False, False, 0.5

    def __init__(self, keys: list[bool]) -> None:
        self.keys, self.seen = keys, []

    def score(self, deviation: Deviation) -> float:
        self.seen.append((deviation.ordinal, deviation.kar, deviation.lkd))
        return float(self.keys[deviation.ordinal])


@given(keys=st.lists(st.booleans(), min_size=1, max_size=130))
def test_rows_and_schedulers_see_kar_and_lkd_before_the_decision(keys: list[bool]) -> None:
    keys[0] = True
    scheduler, state = Scripted(keys), SegmentState.new(0, "s")
    engine = Engine(one_class(), scheduler, build_propagator("copy"), sides="one", max_interval=1000)
    black_HW3 = np.zeros((8, 8, 3), np.uint8)
    for number, is_key in enumerate(keys):
        frame = FrameInput(frame_index=3 * number, pts_s=0.0, is_corrupt=False, frame_HW3=black_HW3)
        (row,) = engine.step([state], [frame])[0]
        past = keys[max(0, number - 90) : number]
        kar = sum(past) / len(past) if past else 0.0
        lkd = number - max((n for n in range(number) if keys[n]), default=number)
        assert (row.is_key, row.kar, row.lkd) == (is_key, kar, lkd)
        assert number == 0 or scheduler.seen[-1] == (number, kar, lkd)


def one_class() -> Segmenter:
    from vidseg_core.models import build_segmenter

    return build_segmenter("constant")
