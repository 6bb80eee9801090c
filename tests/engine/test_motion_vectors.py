"""Promise: with motion vectors masks follow what moves about as well as with estimated flow, an estimate is
made only where the stream says nothing, and storing the state anywhere changes no mask.

Why: the vectors of a frame lead to another frame, which may lie before the last key or in a shard that
another process has seen. A state that forgets it falls back without a word, and every later frame with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.toy import ThresholdNet, plain, run, truth
from tests.media.panning import encoded, panned
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.engine.assemble import check_parts
from vidseg_core.media import decode_unit, probe
from vidseg_core.plan import plan_segments
from vidseg_core.propagation import build_flow, build_propagator
from vidseg_core.scheduling import build_scheduler

FRAMES = 24


def engine(flow: str = "motion_vectors", interval: int = 5, **options: Any) -> Engine:
    return Engine(
        ThresholdNet(),
        build_scheduler("fixed", interval=interval),
        build_propagator("flow_warp", level=options.pop("level", "labels")),
        sides="one",
        flow=flow,
        flow_size=48,
        **options,
    )


def frames_of(path: Path) -> list[FrameInput]:
    """All frames, with their motion."""
    index = probe(str(path))
    (segment,) = plan_segments(index, segment_frames=0, shard_frames=FRAMES)
    return list(_inputs(path, index, segment.units))


def _inputs(path: Path, index: Any, units: Any) -> Iterator[FrameInput]:
    for planned in units:
        unit = planned.decode_unit(str(path), index, height=64, width=96, motion=True)
        for shard in decode_unit(unit, shard_frames=FRAMES):
            for t, number in enumerate(shard.frame_index.tolist()):
                picture = shard.pictures[t]
                yield FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, picture=picture)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[FrameInput]]:
    folder, kinds = tmp_path_factory.mktemp("clips"), {"p": 0, "b": 3}
    x264 = "scenecut=0:ref=1:b-adapt=0"
    return {
        kind: frames_of(encoded(folder / f"{kind}.mp4", panned(FRAMES), bframes=bframes, x264=x264))
        for kind, bframes in kinds.items()
    }


def agreement(rows: list[Any], frames: list[FrameInput]) -> float:
    """Share of pixels that have the net's own label, away from the border that has come into view."""
    same = [
        row.labels_HW[12:-12, 16:-16] == truth(frame.frame_HW3)[12:-12, 16:-16]
        for row, frame in zip(rows, frames, strict=True)
    ]
    return float(np.mean(same))


@pytest.mark.parametrize("kind", ["p", "b"])
@pytest.mark.parametrize("interval", [5, 6, 7])
def test_masks_follow_as_well_as_with_estimated_flow(
    videos: dict[str, list[FrameInput]], kind: str, interval: int
) -> None:
    vectors, dis = engine(interval=interval), engine("dis", interval)
    found = agreement(run(vectors, videos[kind]), videos[kind])
    assert found > agreement(run(dis, videos[kind]), videos[kind]) - 0.03
    assert vectors.stats.flows == 0 and vectors.stats.followed == FRAMES - vectors.stats.keys


def test_a_frame_that_refers_to_nothing_is_estimated(tmp_path: Path) -> None:
    frames = frames_of(encoded(tmp_path / "clip.mp4", panned(FRAMES), gop=8))
    vectors = engine(interval=12)
    assert agreement(run(vectors, frames), frames) > agreement(run(engine("dis", 12), frames), frames) - 0.03
    assert vectors.stats.followed == FRAMES - vectors.stats.keys - 2
    assert vectors.stats.flows == 4  # frames 8 and 16, each improved by the frame before


def test_without_vectors_every_flow_is_that_of_dis(tmp_path: Path) -> None:
    frames = frames_of(encoded(tmp_path / "clip.webm", panned(FRAMES), "libvpx-vp9"))
    assert plain(run(engine(), frames)) == plain(run(engine("dis"), frames))


@settings(max_examples=15)
@given(
    kind=st.sampled_from(["p", "b"]),
    level=st.sampled_from(["labels", "scores"]),
    interval=st.sampled_from([5, 6, 9]),
    delay=st.sampled_from([None, 2]),
    stores=st.sets(st.integers(0, FRAMES - 1)),
)
def test_storing_the_state_anywhere_changes_nothing(
    videos: dict[str, list[FrameInput]], kind: str, level: str, interval: int, delay: Any, stores: set[int]
) -> None:
    def parts() -> Engine:
        return engine(interval=interval, level=level, delay=delay)

    frames = videos[kind]
    undisturbed = plain(run(parts(), frames))
    here, state, rows = parts(), SegmentState.new(0, "s"), []
    for t, frame in enumerate(frames):
        if t in stores:
            here, state = parts(), SegmentState.from_bytes(state.to_bytes())
        rows += here.step([state], [frame])[0]
        assert len(state.references) <= 4
    assert plain(rows) == undisturbed


def test_lanes_change_nothing(videos: dict[str, list[FrameInput]]) -> None:
    both, states = engine(), [SegmentState.new(0, "p"), SegmentState.new(0, "b")]
    rows: list[list[Any]] = [[], []]
    for pair in zip(videos["p"], videos["b"], strict=True):
        for mine, new in zip(rows, both.step(states, pair), strict=True):
            mine += new
    assert [plain(mine) for mine in rows] == [plain(run(engine(), videos[kind])) for kind in ("p", "b")]


def test_the_bound_counts_what_is_kept_for_later_frames() -> None:
    more = engine().bound((64, 96)).bytes - engine("dis").bound((64, 96)).bytes
    assert more == 4 * 8 * 32 * 48
    with pytest.raises(ValueError, match="motion vectors go with one side"):
        Engine(ThresholdNet(), build_scheduler("every"), build_propagator("copy"), flow="motion_vectors")


@pytest.mark.parametrize(
    ("options", "scheduler", "said"),
    [
        ({"sides": "two"}, {}, "--propagation.sides: must be one with --propagation.flow motion_vectors"),
        ({"flow_weights": "a"}, {}, "--propagation.flow_weights: 'motion_vectors' is not a net"),
        ({}, {"name": "planner"}, "--propagation.flow: motion_vectors does not go with planner"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(options: Any, scheduler: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_parts(
            SegmentConfig(
                input=("a",),
                output="b",
                segmenter="plain",
                scheduler=SchedulerConfig(**scheduler),
                propagation=PropagationConfig(flow="motion_vectors", **({"sides": "one"} | options)),
            )
        )


def test_the_estimator_can_be_handed_to_another_process() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(build_flow("motion_vectors"))).reads_motion
