"""Generated episode tables, for benchmarks and tests: no video, but the same trade between keys and quality.

Model: something moves in bursts; what a key shows gets worse with the motion that has piled up since it, and
the deviation features are noisy readings of that pile and of the motion at hand. A schedule that puts keys
behind bursts beats a fixed one, and a policy can learn it from the features.

Legend: T frames, L horizon, F features.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.episodes.table import EpisodeTable

NAMES = ("piled", "moves", "distance", "noise")


def generated_table(frames: int = 400, horizon: int = 90, *, seed: int = 0, clip: str = "") -> EpisodeTable:
    """A table that depends on its arguments alone."""
    rng = np.random.default_rng((seed, frames))
    motion_T = _bursts(rng, frames)
    pile_T = np.cumsum(motion_T)
    k, d = np.arange(frames)[:, None], np.arange(horizon + 1)[None]
    exists_TL1 = k + d < frames
    frame_TL1 = np.minimum(k + d, frames - 1)
    piled_TL1 = pile_T[frame_TL1] - pile_T[k]
    key_T = 0.85 + 0.05 * np.sin(np.arange(frames) / 40.0 + rng.random() * 6.0)
    quality_TL1 = key_T[frame_TL1] * (0.35 + 0.65 * np.exp(-piled_TL1)) - 0.0004 * d
    noise = rng.standard_normal((*exists_TL1.shape, 2))
    readings = np.stack(
        [
            np.abs(piled_TL1 * 8.0 * (1.0 + 0.25 * noise[..., 0])),
            motion_T[frame_TL1] * 40.0,
            np.broadcast_to(d.astype(np.float64), exists_TL1.shape),
            np.abs(noise[..., 1]),
        ],
        axis=2,
    )
    readings[:, 0] = 0.0
    two_TL1 = np.maximum(d - 1, 0) * (key_T[frame_TL1] * (0.35 + 0.65 * np.exp(-piled_TL1 / 4.0)))
    return EpisodeTable(
        clip=clip or f"generated-{seed}",
        segment=0,
        quality_TL1=_float32(np.where(exists_TL1, quality_TL1, np.nan)),
        deviation_TL1F=_float32(np.where(exists_TL1[..., None], readings, np.nan)),
        feature_names=NAMES,
        two_sided_TL1=_float32(np.where(exists_TL1, two_TL1, np.nan)),
        fingerprint={"tables": "generated"},
    )


def _bursts(rng: np.random.Generator, frames: int) -> np.ndarray:
    """motion_T: mostly near zero, now and then several frames of strong motion."""
    motion_T = 0.003 * rng.random(frames)
    start = int(rng.integers(5, 40))
    while start < frames:
        length = int(rng.integers(3, 20))
        motion_T[start : start + length] += rng.uniform(0.02, 0.15)
        start += length + int(rng.integers(10, 70))
    return motion_T


def _float32(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values.flags.writeable = False
    return values
