"""Counters that an operator's Prometheus scrapes from Ray (`ray.util.metrics`).

Recorded a shard or a part at a time, never a frame. Without Ray in the process nothing is recorded. Names, as
Ray exports them, have the prefix `ray_`; `deploy/grafana.json` is a dashboard over them.

    vidseg_decoded_frames     frames that came out of decoders
    vidseg_frames             frames whose mask is committed
    vidseg_keys               key frames among them
    vidseg_decode_seconds     time of decoders
    vidseg_engine_seconds     time of engines
    vidseg_retries            attempts that were made again (tag `what`)
    vidseg_quarantined        videos that were quarantined (tag `reason`)
    vidseg_commit_seconds     histogram: one part encoded and committed

Decoded minus committed frames is what waits in queues and in engines.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

COUNTERS = {
    "decoded_frames": ("frames that came out of decoders", ()),
    "frames": ("frames whose mask is committed", ()),
    "keys": ("key frames among the committed frames", ()),
    "decode_seconds": ("time of decoders, seconds", ()),
    "engine_seconds": ("time of engines, seconds", ()),
    "retries": ("attempts that were made again", ("what",)),
    "quarantined": ("videos that were quarantined", ("reason",)),
}
HISTOGRAMS = {"commit_seconds": "one part encoded and committed, seconds"}
_BOUNDARIES = [0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]


def count(name: str, value: float = 1.0, **tags: str) -> None:
    """Adds to a counter of `COUNTERS`."""
    if value > 0 and _ray_is_up():
        _metric(name).inc(value, tags or None)


def observe(name: str, value: float) -> None:
    """Adds an observation to a histogram of `HISTOGRAMS`."""
    if _ray_is_up():
        _metric(name).observe(value)


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@lru_cache(maxsize=32)
def _metric(name: str) -> Any:
    from ray.util.metrics import Counter, Histogram

    if name in HISTOGRAMS:
        return Histogram(f"vidseg_{name}", HISTOGRAMS[name], boundaries=_BOUNDARIES)
    text, tags = COUNTERS[name]
    return Counter(f"vidseg_{name}", text, tag_keys=tags)
