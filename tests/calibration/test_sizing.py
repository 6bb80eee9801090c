"""Promise: a calibration costs at most half of the job that keeps the promise without it, and what it looks
at follows from the corpus and the net alone.

Why: for a clip of a minute four minutes were spent to find out how to save some seconds.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.training.small import written
from vidseg_core.calibration import sizing
from vidseg_core.calibration.choice import LEAST_CLIPS
from vidseg_core.calibration.sizing import Sample, job_ops, sample_ops
from vidseg_core.calibration.tasks import sample_builder
from vidseg_core.config.dial import CLIP_FRAMES, CLIPS, CalibrationConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.datasets.records import Record
from vidseg_core.models import build_segmenter
from vidseg_core.models.lvs import new_lvs
from vidseg_core.models.operations import operations_of
from vidseg_core.plan.video_list import VideoInput

PAIR = 2e8
CHEAP, EXPENSIVE = 4e8, 6e10
"""Operations a frame, about those of tiny-face and of DeepLabV3+ with ResNet-50 at 512 px."""


def drawn(
    monkeypatch: pytest.MonkeyPatch, frames: int, net: float, videos: int = 20, **options: Any
) -> Sample:
    """The sample of so many videos of so many frames."""
    monkeypatch.setattr(sizing, "prices", lambda config, index: (net, PAIR))
    inputs: Any = [VideoInput(video_id=f"v{n}", uri=f"v{n}.mp4", size=1, stamp="") for n in range(videos)]
    reader: Any = SimpleNamespace(index=lambda uri: SimpleNamespace(frames=frames))
    asked: dict[str, Any] = {"max_drop": 1.0} | options
    config = SegmentConfig(input=("x",), output="y", segmenter="plain", **asked)
    return sizing._Drawing(config, inputs, reader).sample()


def shape(sample: Sample) -> tuple[int, int]:
    return len(sample.units), max(unit.frames for unit in sample.units)


def test_a_large_corpus_gets_the_full_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = drawn(monkeypatch, 30_000, CHEAP)
    assert shape(sample) == (CLIPS, CLIP_FRAMES) and not sample.declined


@pytest.mark.parametrize(("frames", "net"), [(4_000, CHEAP), (60, EXPENSIVE), (130, EXPENSIVE)])
@pytest.mark.parametrize("options", [{"max_drop": 1.0}, {"max_drop": None, "budget": 0.04}])
def test_the_sample_never_costs_more_than_half_of_the_job(
    monkeypatch: pytest.MonkeyPatch, frames: int, net: float, options: dict[str, Any]
) -> None:
    sample = drawn(monkeypatch, frames, net, **options)
    fits = sample_ops(sample, net, PAIR) <= job_ops(sample.config, 20 * frames, net, PAIR) / 2
    assert fits != bool(sample.declined)
    if not sample.declined:
        assert len(sample.units) >= LEAST_CLIPS


def test_a_middling_corpus_gets_a_smaller_sample_of_nine_runs_or_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = drawn(monkeypatch, 3000, CHEAP)
    runs, frames = shape(sample)
    assert not sample.declined and LEAST_CLIPS <= runs < CLIPS and frames < CLIP_FRAMES
    assert sample.config.calibration.clip_frames == frames


def test_a_small_one_gets_none_and_it_is_said_how_to_have_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = drawn(monkeypatch, 250, EXPENSIVE, videos=1)
    assert "calibrating would cost" in sample.declined and "all frames" in sample.declined
    typed = drawn(monkeypatch, 250, EXPENSIVE, videos=1, calibration=CalibrationConfig(clips=2))
    assert not typed.declined and shape(typed) == (2, CLIP_FRAMES)


def test_a_pair_costs_what_carries_it_too(tmp_path: Path) -> None:
    """Nets that carry features took ten times as long as the flow that was reckoned with."""
    file = written(new_lvs(build_segmenter("tiny-scenes")), tmp_path / "lvs.safetensors")
    index: Any = SimpleNamespace(width=64, height=48)
    costs = {}
    for name, weights in (("copy", None), ("lvs", file)):
        way = PropagationConfig(name=name, level="features", sides="one", weights=weights)
        config = SegmentConfig(
            input=("x",), output="y", segmenter="tiny-scenes", propagation=way, max_drop=1.0
        )
        costs[name] = sizing.prices(config, index)
    (net, copied), (_, carried) = costs["copy"], costs["lvs"]
    assert carried - copied > net / 2


def test_low_level_features_that_the_scheduler_alone_reads_are_counted(tmp_path: Path) -> None:
    """Beside flow they had no price, though N's first layers run on every frame."""
    file = written(new_lvs(build_segmenter("tiny-scenes")), tmp_path / "lvs.safetensors")
    asked = SchedulerConfig(name="low_deviation", policy=file)
    config = SegmentConfig(
        input=("x",), output="y", segmenter="tiny-scenes", scheduler=asked, max_drop=1.0, working_size="64"
    )
    made, frame_HW3 = sample_builder(config, "cpu"), np.zeros((48, 64, 3), np.uint8)
    records = [Record(video_id="", frame_index=n, frame_HW3=frame_HW3, labels_HW=None) for n in range(2)]
    seen = made.run_net(records)
    net_ops = operations_of(lambda: made.run_net(records[:1]))
    assert 0 < operations_of(lambda: made.expect(seen, 0, 1)) < net_ops
    assert 0 < operations_of(lambda: made.low_of(records[:1])) < net_ops and not made.filler.needs_low


def test_a_net_that_cannot_be_counted_is_looked_at_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not drawn(monkeypatch, 200, 0.0).declined
