"""Promise: segments, units and shards cover every frame exactly once, begin where decoding may begin, and
units do not depend on how frames are grouped further.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.media import VideoIndex
from vidseg_core.plan import plan_segments


def index_of(frames: int, keys: list[int]) -> VideoIndex:
    return VideoIndex(
        codec="h264",
        container="mp4",
        pix_fmt="yuv420p",
        width=96,
        height=64,
        rotation=-90,
        time_base_num=1,
        time_base_den=25,
        declared_frames=frames,
        duration_s=frames / 25,
        frame_pts=np.arange(frames) * 3 + 7,
        key_indices=np.array(keys),
        key_dts=np.array(keys) * 3,
        regular=True,
    )


@st.composite
def indexes(draw: st.DrawFn) -> VideoIndex:
    frames = draw(st.integers(1, 400))
    keys = draw(st.sets(st.integers(0, frames - 1), max_size=30))
    return index_of(frames, sorted(keys | {0}))


@given(indexes(), st.integers(0, 120), st.integers(1, 70), st.integers(1, 90))
def test_every_frame_is_covered_once(index: VideoIndex, segment: int, shard: int, unit: int) -> None:
    plan = plan_segments(index, segment_frames=segment, shard_frames=shard, unit_frames=unit, video_id="v")
    units = [unit for piece in plan for unit in piece.units]
    assert [piece.segment for piece in plan] == list(range(len(plan)))
    assert np.array_equal(np.concatenate([u.frame_pts for u in units]), index.frame_pts)
    assert [u.first_frame for u in units] == np.cumsum([0, *(u.frames for u in units)])[:-1].tolist()
    assert {u.first_frame for u in units} <= set(index.key_indices.tolist())
    for piece in plan:
        assert piece.video_id == "v" and piece.first_frame == piece.units[0].first_frame
        assert [u.first_shard for u in piece.units] == np.cumsum([0, *(u.shards for u in piece.units)])[
            :-1
        ].tolist()
        assert piece.shards == sum(ceil(u.frames / shard) for u in piece.units)
        assert piece is plan[-1] or (segment and piece.frames >= segment)
    for u in units[:-1]:
        assert u.frames >= unit and u.end_pts == index.frame_pts[u.first_frame + u.frames]
    assert units[-1].end_pts is None


@given(indexes(), st.integers(1, 120), st.integers(1, 70))
def test_units_depend_on_the_video_alone(index: VideoIndex, segment: int, shard: int) -> None:
    one = plan_segments(index, segment_frames=0, shard_frames=64, unit_frames=20)
    other = plan_segments(index, segment_frames=segment, shard_frames=shard, unit_frames=20)
    assert len(one) == 1
    assert [u.first_frame for u in one[0].units] == [u.first_frame for p in other for u in p.units]


def test_units_are_cut_at_the_first_key_after_enough_frames() -> None:
    plan = plan_segments(
        index_of(1000, [0, 100, 250, 260, 300, 600, 999]), segment_frames=500, shard_frames=64
    )
    assert [[u.first_frame for u in piece.units] for piece in plan] == [[0, 260], [600, 999]]
    assert [(u.first_shard, u.shards) for u in plan[0].units] == [(0, 5), (5, 6)]


def test_a_unit_becomes_a_request_for_frames() -> None:
    index = index_of(40, [0, 20])
    unit = plan_segments(index, segment_frames=0, shard_frames=8, unit_frames=10)[0].units[1]
    request = unit.decode_unit("x.mp4", index, height=48, width=32)
    assert (request.uri, request.first_frame, request.key_dts, request.rotation) == ("x.mp4", 20, 60, -90)
    assert (request.height, request.width, request.end_pts, len(request.frame_pts)) == (48, 32, None, 20)
    again = type(request).from_dict(request.to_dict())
    assert np.array_equal(again.frame_pts, request.frame_pts) and again.uri == "x.mp4"
    back = VideoIndex.from_dict(
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in index.to_dict().items()}
    )
    assert np.array_equal(back.frame_pts, index.frame_pts) and back.key_indices.dtype == np.int64


@pytest.mark.parametrize("field", ["segment_frames", "shard_frames", "unit_frames"])
def test_sizes_below_their_least_are_refused(field: str) -> None:
    sizes: dict[str, int] = {"segment_frames": 10, "shard_frames": 10, "unit_frames": 10, field: -1}
    with pytest.raises(ValueError, match=field):
        plan_segments(index_of(10, [0]), **sizes)  # type: ignore[arg-type]
