"""The error for a name that nobody knows, with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from vidseg_core.models.protocol import SegmenterError


def unknown_name(what: str, name: str, known: Sequence[str]) -> SegmenterError:
    """One sentence that suggests the nearest of `known`, or lists the first of them if none is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    hint = f"did you mean {lowered[near[0]]!r}?" if near else f"known: {', '.join(list(known)[:12])}"
    return SegmenterError(f"unknown {what} {name!r}; {hint}")
