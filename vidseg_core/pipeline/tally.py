"""Who is done: per video, which parts are committed, and the row that closes it.

Invariant: a video's row is written when, and only when, every one of its segments is closed: all its parts
committed, or a fatal verdict. Rows of videos are put if absent, so a second driver changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidseg_core.pipeline.kept import put_back
from vidseg_core.pipeline.plan_stage import VideoWork
from vidseg_core.pipeline.rows import Receipt

SHOWN_EVIDENCE = 4
"""Segments whose evidence a video's row has."""


@dataclass(slots=True)
class SegmentTally:
    """One segment: parts to expect, parts committed, and how it ended."""

    parts: int
    committed: int = 0
    closed: bool = False
    fatal: str | None = None
    totals: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.fatal is not None or (self.closed and self.committed >= self.parts)


@dataclass(slots=True)
class VideoTally:
    """One video of the wave. ``facts`` are the columns that the probe knows."""

    video_id: str
    uri: str
    facts: Mapping[str, Any]
    frames: int
    damage: str | None
    segments: dict[int, SegmentTally]
    frames_done: int = 0
    """Frames in parts that are committed, and keys among them."""
    keys_done: int = 0
    kept: Mapping[str, Any] | None = None
    """The row of a video that was done before: it comes back as it was."""

    def take(self, receipt: Receipt) -> bool:
        """Count a receipt; True when the video became complete with it."""
        was_done = self.done
        tally = self.segments[receipt.segment]
        tally.committed += receipt.part >= 0
        self.frames_done += receipt.frames
        self.keys_done += receipt.keys
        if receipt.closed:
            tally.closed, tally.fatal, tally.totals = True, receipt.fatal, receipt.totals
        return self.done and not was_done

    @property
    def done(self) -> bool:
        return all(segment.done for segment in self.segments.values())

    def row(self, device: str) -> dict[str, Any]:
        """The video's row (``VIDEOS_SCHEMA``)."""
        if self.kept is not None:
            fatal = next((s.totals.get("error") or s.fatal for s in self.segments.values() if s.fatal), None)
            return put_back(self.kept, sum(s.parts for s in self.segments.values()), fatal)
        sums = _sums([segment.totals for segment in self.segments.values()])
        status, reason = self._verdict(sums)
        return dict(self.facts) | {
            "video_id": self.video_id,
            "uri": self.uri,
            "status": status,
            "reason": reason,
            "decoded_frames": sums["frames"],
            "corrupt_frames": sums["corrupt"],
            "keys": sums["keys"],
            "aki": sums["frames"] / sums["worth"] if sums["worth"] else None,
            "cpu_s": sums["decode_s"] + sums["engine_s"],
            "gpu_s": sums["device_s"] if device == "cuda" else 0.0,
            "parts": self._parts(),
            "filled_by": filled_by([segment.totals for segment in self.segments.values()]),
        }

    def _parts(self) -> int | None:
        """Parts that must be there; None after a fatal verdict: those that were committed before it."""
        segments = self.segments.values()
        return None if any(s.fatal for s in segments) else sum(s.parts for s in segments)

    def _verdict(self, sums: Mapping[str, Any]) -> tuple[str, str | None]:
        fatal = next((s.fatal for s in self.segments.values() if s.fatal), None)
        if fatal is not None:
            return "quarantined", sums["error"] or fatal
        if sums["frames"] == 0:
            return "quarantined", f"no_frames: {sums['error'] or 'not one frame could be decoded'}"
        lost = self.frames - sums["frames"]
        reasons = [
            *([f"lost_frames: {lost} of {self.frames} could not be decoded"] if lost > 0 else []),
            *([f"corrupt_frames: {sums['corrupt']} decoded with errors"] if sums["corrupt"] else []),
            *([f"damaged: {self.damage}"] if self.damage else []),
            *([sums["error"]] if sums["error"] and sums["error"] not in (self.damage or "") else []),
        ]
        return ("partial", "; ".join(reasons)) if reasons else ("ok", None)


def tally_of(work: VideoWork) -> VideoTally:
    """The counts of a planned video, with what an earlier driver committed."""
    segments = {
        s.segment: SegmentTally(
            parts=s.parts, committed=s.committed, closed=s.totals is not None, totals=s.totals or {}
        )
        for s in work.segments
    }
    return VideoTally(
        work.video_id,
        work.uri,
        work.facts,
        work.frames,
        work.damage,
        segments,
        frames_done=sum(s.frames_done for s in work.segments),
        keys_done=sum(s.keys_done for s in work.segments),
        kept=work.kept,
    )


def quarantine_row(
    video_id: str, uri: str, reason: str, message: str, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The row of a video that could not be opened at all. ``facts``: columns that are known all the same."""
    return dict(facts or {}) | {
        "video_id": video_id,
        "uri": uri,
        "status": "quarantined",
        "reason": f"{reason}: {message}",
        "decoded_frames": 0,
        "corrupt_frames": 0,
        "keys": 0,
        "cpu_s": 0.0,
        "gpu_s": 0.0,
    }


def _sums(totals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = ("frames", "corrupt", "keys", "decode_s", "engine_s", "device_s")
    sums: dict[str, Any] = {name: sum(t.get(name) or 0 for t in totals) for name in names}
    shares = [t["key_share"] for t in totals if t.get("key_share") is not None]
    sums["worth"] = sum(shares) if shares else sums["keys"]  # keys, in frames' worth of pixels
    sums["error"] = next((t["error"] for t in totals if t.get("error")), None)
    return sums


def filled_by(totals: Sequence[Mapping[str, Any]]) -> str | None:
    """Frames by what filled them, and what the choices of the first segments followed from."""
    frames: dict[str, int] = {}
    for total in totals:
        for way, count in (total.get("filled") or {}).items():
            frames[way] = frames.get(way, 0) + count
    if not frames:
        return None
    evidence = [total["evidence"] for total in totals if total.get("evidence")]
    counted = ", ".join(f"{way} {count}" for way, count in sorted(frames.items()))
    return "; ".join([counted, *evidence[:SHOWN_EVIDENCE]])
