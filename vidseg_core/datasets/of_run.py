"""How a run read its videos, so that their frames can be read again under its masks.

Invariant: what a run says wins over what would be read by default; a run that is not finished says what
decides its rows, and is read within the usual limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.media import MediaLimits
from vidseg_core.store import Run


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The options of a run that decide what its frames look like, and whether they can be read."""

    stream: int | None
    """The stream that was asked for; None: the one that is the video."""
    as_shown: bool
    """Masks lie on frames as players show them, not as nets see them."""
    maps_hdr: bool
    limits: MediaLimits

    @classmethod
    def of(cls, run: Run) -> Reading:
        """That of a run."""
        said, usual = run.options(), MediaLimits()
        memory_mib = said.get("media.memory_mib")
        return cls(
            stream=said.get("media.stream"),
            as_shown=said.get("masks.size") == "source",
            maps_hdr=said.get("media.hdr") != "raw",
            limits=MediaLimits(
                max_pixels=said.get("media.max_pixels", usual.max_pixels),
                deadline_s=said.get("media.decode_deadline_s", usual.deadline_s),
                memory_bytes=memory_mib * 2**20 if memory_mib else usual.memory_bytes,
            ),
        )

    def reader(self, stream: int | None = None) -> ClipReader:
        """Reads single frames; of `stream`, if that is known."""
        stream = self.stream if stream is None else stream
        return ClipReader(stream=stream, maps_hdr=self.maps_hdr, limits=self.limits, as_shown=self.as_shown)
