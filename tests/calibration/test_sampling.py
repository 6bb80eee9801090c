"""Promise: a calibration looks at runs of frames spread over the corpus, the same ones every time, and
opens no more videos than it must.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.calibration.sampling import LEAST, draw_runs


@given(
    lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=20),
    clips=st.integers(2, 20),
    clip_frames=st.integers(16, 200),
    seed=st.integers(0, 5),
)
def test_runs_lie_inside_their_videos_and_never_overlap(
    lengths: list[int], clips: int, clip_frames: int, seed: int
) -> None:
    runs = draw_runs(len(lengths), lengths.__getitem__, clips=clips, clip_frames=clip_frames, seed=seed)
    assert len(runs) <= clips
    seen = [np.zeros(length, bool) for length in lengths]
    for run in runs:
        assert LEAST <= run.frames <= clip_frames or run.frames <= lengths[run.video]
        assert not seen[run.video][run.start : run.stop].any()
        seen[run.video][run.start : run.stop] = True
        assert run.stop <= lengths[run.video]
    assert runs == draw_runs(
        len(lengths), lengths.__getitem__, clips=clips, clip_frames=clip_frames, seed=seed
    )


def test_every_video_comes_before_any_comes_twice() -> None:
    runs = draw_runs(8, lambda video: 1000, clips=12, clip_frames=96, seed=0)
    assert len(runs) == 12 and {run.video for run in runs} == set(range(8))


def test_of_many_videos_no_more_are_opened_than_needed() -> None:
    asked: list[int] = []

    def frames_of(video: int) -> int:
        asked.append(video)
        return 0 if len(asked) == 1 else 500  # the first one cannot be read

    runs = draw_runs(100_000, frames_of, clips=5, clip_frames=50, seed=1)
    assert len(runs) == 5 and len(asked) == 6


def test_another_seed_looks_elsewhere() -> None:
    one, other = (draw_runs(50, lambda video: 900, clips=6, clip_frames=50, seed=s) for s in (0, 1))
    assert one != other
