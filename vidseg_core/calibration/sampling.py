"""Which frames of the corpus a calibration looks at: contiguous runs, spread over videos, drawn with a seed.

Model: videos are taken in a random order, one run each, until there are enough; where videos are fewer than
runs, the order begins again, and a video with several runs is cut into as many equal strata. A run starts
at a random place of its stratum. Invariant: runs never overlap, and the same videos, lengths and seed give
the same runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEAST = 16
"""Frames of the shortest run that says anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Frames `start` to `stop` of the video with this place in the list of inputs."""

    video: int
    start: int
    stop: int

    @property
    def frames(self) -> int:
        return self.stop - self.start


def draw_runs(
    videos: int, frames_of: Callable[[int], int], *, clips: int, clip_frames: int, seed: int
) -> list[Run]:
    """Up to `clips` runs. `frames_of`: frames of a video, asked of as few as possible; 0: it cannot be
    read."""
    rng = random.Random(f"calibration {seed}")
    order = rng.sample(range(videos), videos) if videos <= 100_000 else _some(rng, videos, 50 * clips)
    lengths: dict[int, int] = {}
    for video in order:
        if len(lengths) == clips:
            break
        frames = frames_of(video)
        if frames >= LEAST:
            lengths[video] = frames
    counts = _counts(list(lengths.values()), clips, clip_frames)
    runs: list[Run] = []
    for (video, frames), count in zip(lengths.items(), counts, strict=True):
        runs += _strata(rng, video, frames, count, clip_frames)
    return runs


def _some(rng: random.Random, videos: int, wanted: int) -> list[int]:
    return rng.sample(range(videos), min(videos, wanted))


def _counts(lengths: Sequence[int], clips: int, clip_frames: int) -> list[int]:
    """Runs per video: one each, then one more wherever a whole one still fits, in turn."""
    counts = [1] * len(lengths)
    left = clips - len(counts)
    while left > 0:
        room = [i for i, frames in enumerate(lengths) if frames >= (counts[i] + 1) * clip_frames][:left]
        if not room:
            break
        for i in room:
            counts[i] += 1
        left -= len(room)
    return counts


def _strata(rng: random.Random, video: int, frames: int, count: int, clip_frames: int) -> list[Run]:
    runs = []
    for number in range(count):
        low, high = frames * number // count, frames * (number + 1) // count
        length = min(clip_frames, high - low)
        start = rng.randint(low, high - length)
        runs.append(Run(video=video, start=start, stop=start + length))
    return runs
