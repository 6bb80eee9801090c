"""Promise: a state that was stored comes back whole, or a StateError says why not. Never silently wrong."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.toy import inputs, make_engine, moving_clip
from vidseg_core.engine import SegmentState, StateError
from vidseg_core.engine.frames import FrameInput
from vidseg_core.engine.state import STATE_VERSION


def stored_state(level: str = "labels") -> bytes:
    """Two frames wait after the second key."""
    engine, state = make_engine(level=level, interval=4), SegmentState.new(7, "video-1/00002")
    for frame in inputs(moving_clip(7)):
        engine.step([state], [frame])
    return state.to_bytes()


def test_fields_come_back() -> None:
    state = SegmentState.from_bytes(stored_state())
    assert (state.seed, state.segment, state.next_frame) == (7, "video-1/00002", 7)
    assert (state.last_frame_index, state.level) == (106, "labels")
    assert state.history.decisions == (True, False, False, False, True, False, False)
    assert state.key is not None and (state.key.ordinal, state.key.frame_index) == (4, 104)
    assert [frame.frame_index for frame in state.pending] == [105, 106]
    assert [frame.lkd for frame in state.pending] == [1, 2]


@pytest.mark.parametrize("level", ["labels", "scores", "features"])
def test_storing_twice_gives_the_same_bytes(level: str) -> None:
    data = stored_state(level)
    assert SegmentState.from_bytes(data).to_bytes() == data


def test_a_new_state_can_be_stored() -> None:
    assert SegmentState.from_bytes(SegmentState.new(1, "x").to_bytes()).key is None


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(place: int, bit: int) -> None:
    data = bytearray(stored_state())
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(StateError):
        SegmentState.from_bytes(bytes(data))


@given(length=st.integers(0, 10**6))
def test_a_cut_is_noticed(length: int) -> None:
    data = stored_state()
    with pytest.raises(StateError):
        SegmentState.from_bytes(data[: length % len(data)])


def test_another_version_is_refused_by_number() -> None:
    data = bytearray(stored_state())
    data[8:10] = struct.pack("<H", STATE_VERSION + 1)
    with pytest.raises(StateError, match=f"version {STATE_VERSION + 1}.*reads version {STATE_VERSION}"):
        SegmentState.from_bytes(bytes(data))


def test_other_bytes_are_refused() -> None:
    with pytest.raises(StateError, match="not a segment state"):
        SegmentState.from_bytes(b"PAR1" + bytes(100))


def test_a_state_of_another_level_or_size_is_refused() -> None:
    frame = inputs(moving_clip(8))[7]
    with pytest.raises(StateError, match="level 'labels'"):
        make_engine(level="scores").step([SegmentState.from_bytes(stored_state())], [frame])
    frame = FrameInput(
        frame_index=107, pts_s=0.28, is_corrupt=False, frame_HW3=np.zeros((48, 96, 3), np.uint8)
    )
    with pytest.raises(StateError, match="key seen as"):
        make_engine().step([SegmentState.from_bytes(stored_state())], [frame])
