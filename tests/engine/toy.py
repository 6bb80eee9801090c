"""Builders for the engine's tests: small nets with an exact result, and small videos with an exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as functional

from vidseg_core.datasets.records import Record
from vidseg_core.engine import Engine, FrameInput, FrameResult, SegmentState
from vidseg_core.engine.regions import AnyEngine
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import build_scheduler


class Named:
    """The parts of the Segmenter protocol that no test here looks at."""

    name, digest, trained, note = "toy", "0" * 64, True, ""

    def to(self, device: Any) -> Self:
        return self


class ThresholdNet(Named):
    """Class = strongest colour channel: an exact per-pixel net, so truth is known for every picture."""

    class_names: tuple[str, ...] = ("red", "green", "blue")
    stride = 1

    def __init__(self) -> None:
        self.batches: list[int] = []

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(frames_B3HW))
        return frames_B3HW

    def head(self, feats: Any) -> torch.Tensor:
        return feats * 4.0 - 2.0


class ConvNet(Named):
    """Random convolutions at stride 4 with two feature maps, and a head that grows them: rounding matters."""

    class_names: tuple[str, ...] = tuple("abcdef")
    stride = 4

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.stem = torch.nn.Conv2d(3, 16, 5, stride=4, padding=2)
        self.deep = torch.nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.task = torch.nn.Conv2d(40, 6, 1)
        self.size = (0, 0)

    def features(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = torch.relu(self.stem(frames_B3HW))
        return low, torch.relu(self.deep(low))

    def head(self, feats: Any) -> torch.Tensor:
        low, high = feats
        high = functional.interpolate(high, low.shape[-2:], mode="bilinear")
        scores = self.task(torch.cat([low, high], 1))
        return functional.interpolate(scores, scale_factor=4, mode="bilinear")


def truth(frame_HW3: np.ndarray) -> np.ndarray:
    """labels_HW of ThresholdNet, written another way."""
    return np.argmax(frame_HW3, axis=2).astype(np.uint8)


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """A soft random picture HW3 with all three colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 3.0).astype(np.int32)
    return np.clip((soft - 128) * 6 + 128, 0, 255).astype(np.uint8)


def moving_clip(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """A textured square crosses a slowly panning background: motion, occlusion and uncovering."""
    back = texture(height, width + 2 * frames, seed)
    square = texture(20, 20, seed + 1)
    clip = []
    for t in range(frames):
        picture = back[:, t : t + width].copy()
        x = (3 * t + 7 * seed) % (width - 20)
        y = (height - 20) // 2 + (t % 3)
        picture[y : y + 20, x : x + 20] = square
        clip.append(picture)
    return clip


def still_clip(frames: int, seed: int = 5) -> list[np.ndarray]:
    return [texture(48, 64, seed)] * frames


def make_engine(
    scheduler: str = "fixed",
    *,
    net: Any = None,
    propagator: str = "flow_warp",
    level: str = "labels",
    sides: Any = "two",
    max_interval: int = 90,
    key_batch: int = 1,
    **options: Any,
) -> Engine:
    return Engine(
        ThresholdNet() if net is None else net,
        build_scheduler(scheduler, **options),
        build_propagator(propagator, level=level),
        sides=sides,
        max_interval=max_interval,
        key_batch=key_batch,
        flow_size=48,
    )


def inputs(clip: Sequence[np.ndarray], corrupt: Sequence[int] = (), first: int = 100) -> list[FrameInput]:
    """Frames numbered video-wide from `first`; positions in `corrupt` are marked as damaged."""
    return [
        FrameInput(frame_index=first + n, pts_s=n / 25, is_corrupt=n in corrupt, frame_HW3=frame_HW3)
        for n, frame_HW3 in enumerate(clip)
    ]


def records_of(clip: Sequence[np.ndarray]) -> list[Record]:
    """Frames as a data set without labels gives them."""
    return [
        Record(video_id="v", frame_index=t, frame_HW3=frame_HW3, labels_HW=None)
        for t, frame_HW3 in enumerate(clip)
    ]


def run(
    engine: AnyEngine, frames: Sequence[FrameInput], *, name: str = "s", seed: int = 0
) -> list[FrameResult]:
    """One segment from beginning to end."""
    state = SegmentState.new(seed, name)
    rows = [row for frame in frames for row in engine.step([state], [frame])[0]]
    return rows + engine.finish([state])[0]


def plain(rows: Sequence[FrameResult]) -> list[tuple[Any, ...]]:
    """Rows as comparable values, masks as bytes."""
    return [
        (
            row.frame_index,
            row.pts_s,
            row.is_key,
            row.key_frame_index,
            row.decision_score,
            row.kar,
            row.lkd,
            row.is_corrupt,
            row.labels_HW.shape,
            row.labels_HW.tobytes(),
        )
        for row in rows
    ]
