"""What can go wrong with a video, as exceptions that carry a stable short code.

Model: every failure of this package is a `MediaError` whose `reason` is one of `REASONS`. The code ends up in
the `reason` column of a quarantined video, so it never changes; the message is for people and may.
"""

from __future__ import annotations

REASONS = frozenset(
    {
        "empty_file",  # zero bytes
        "not_found",
        "source_unavailable",  # no verdict on the video: no credentials, an outage; ends a run, never a row
        "unreadable",  # exists, but cannot be read (rights, a directory, S3 refuses)
        "not_a_video",  # no demuxer recognises it
        "no_video_stream",  # audio only, or cover art only
        "forbidden_format",  # playlists and other formats that refer to further files
        "too_large",  # picture size or memory over the limits
        "decode_timeout",
        "decode_crash",
        "too_small",  # the working size has no regions of the grid that was asked for
        "no_frames",  # a video stream of which not one frame can be decoded
        "changed",  # other contents than when the run listed it
        "corrupt_header",  # recognised container, unusable header
    }
)


class MediaError(Exception):
    """A video cannot be used. `reason` is a code of `REASONS`, `str(error)` says what and where."""

    def __init__(self, reason: str, message: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown media reason {reason!r}")
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, ...]]:
        return type(self), (self.reason, str(self))


class MediaTimeout(MediaError):
    """The decode process showed no progress within its deadline and was killed."""

    def __init__(self, reason: str = "decode_timeout", message: str = "no progress") -> None:
        super().__init__(reason, message)


class MediaCrash(MediaError):
    """The decode process died (a crash of native code, or killed from outside)."""

    def __init__(self, reason: str = "decode_crash", message: str = "the decode process died") -> None:
        super().__init__(reason, message)
