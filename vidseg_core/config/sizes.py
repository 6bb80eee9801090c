"""Sizes of frames as users write them: one spelling for every verb."""

from __future__ import annotations

import re

from vidseg_core.config.errors import ConfigError, check

__all__ = ["parse_working_size"]


def parse_working_size(text: str, option: str = "--working_size") -> int | tuple[int, int]:
    """``"512"`` -> 512 (longest side); ``"384x512"`` -> (384, 512), height first."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text) if isinstance(text, str) else None
    problem = f"must be a longest side such as 512 or HEIGHTxWIDTH such as 512x1024, got {text!r}"
    if match is None:
        raise ConfigError(option, problem)
    sides = [int(side) for side in match.groups() if side is not None]
    check(all(8 <= side <= 16384 for side in sides), option, "must be 8 to 16384 pixels a side")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
