"""Which frames of a video are asked for: a range of time, and a rate. What that comes to: `plan.excerpt`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

__all__ = ["EXCERPT", "WHOLE", "Excerpt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """Times in seconds from the video's first frame; None: every frame, from the beginning, to the end."""

    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        for name, given in asdict(self).items():
            object.__setattr__(self, name, None if given is None else float(given))

    @property
    def is_whole(self) -> bool:
        """Whether every frame is asked for."""
        return self == WHOLE

    def over(self, usual: Excerpt) -> Excerpt:
        """This one, what it leaves open taken from `usual`; a start of 0, which is none, wins, too."""
        values = asdict(usual) | {name: own for name, own in asdict(self).items() if own is not None}
        return Excerpt(**values | {"start_s": values["start_s"] or None})

    def problem(self) -> tuple[str, str] | None:
        """A value that cannot be, and why; None: there is none."""
        for name, value in asdict(self).items():
            least = "above 0" if name == "fps" else "0 or more"
            if value is not None and not (0 <= value < math.inf and (value > 0 or name != "fps")):
                return name, f"must be {least}, got {value:g}"
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            return "end_s", f"must be after start_s ({self.start_s or 0:g}), got {self.end_s:g}"
        return None

    def words(self) -> str:
        """`10 frames a second, from 2 s to 6 s`."""
        rate = "every frame" if self.fps is None else f"{self.fps:g} frames a second"
        start = "" if self.start_s is None else f", from {self.start_s:g} s"
        end = "" if self.end_s is None else f"{'' if start else ','} to {self.end_s:g} s"
        return rate + start + end

    def __str__(self) -> str:
        """`fps=5.0 start_s=10.0`; empty for the whole video. Part of what a video is known by."""
        return " ".join(f"{name}={given!r}" for name, given in asdict(self).items() if given is not None)


WHOLE = Excerpt()
EXCERPT = tuple(field.name for field in fields(Excerpt))
"""Names of its values, as options, columns of lists and columns of tables have them."""
