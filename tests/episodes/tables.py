"""Tables for tests: random ones, small enough for brute force."""

from __future__ import annotations

import numpy as np

from vidseg_core.episodes.table import EpisodeTable


def inside(frames: int, horizon: int) -> np.ndarray:
    """bool [T, L + 1]: does frame k + d exist?"""
    return np.arange(frames)[:, None] + np.arange(horizon + 1)[None] < frames


def random_table(
    frames: int = 12,
    horizon: int = 5,
    *,
    seed: int = 0,
    clip: str = "clip",
    segment: int = 0,
    features: int = 2,
) -> EpisodeTable:
    """Qualities that fall with the distance and some noise; two-sided sums at least as good."""
    rng = np.random.default_rng(seed)
    known = inside(frames, horizon)
    fall = np.linspace(0, 0.5, horizon + 1)[None]
    quality = np.where(known, 1.0 - fall + 0.1 * rng.random((frames, horizon + 1)), np.nan)
    between = np.maximum(np.arange(horizon + 1) - 1, 0)[None]
    two = np.where(known, between * (0.7 + 0.3 * rng.random((frames, horizon + 1))), np.nan)
    deviation = np.where(known[..., None], rng.random((frames, horizon + 1, features)), np.nan)
    deviation[:, 0] = 0.0
    return EpisodeTable(
        clip=clip,
        segment=segment,
        quality_TL1=quality.astype(np.float32),
        deviation_TL1F=deviation.astype(np.float32),
        feature_names=tuple(f"f{number}" for number in range(features)),
        two_sided_TL1=two.astype(np.float32),
        fingerprint={"segmenter": "toy", "horizon": str(horizon)},
    )
