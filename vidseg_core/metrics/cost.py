"""What a run costs: compute time, and money per hour of video at a given price.

Model: CPU seconds are seconds of one core, GPU seconds of one GPU; a price is per hour of one of them. A
machine's price split over its cores is such a price; idle time of a machine is not in here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Compute of some footage."""

    cpu_s: float
    """Seconds of one core."""
    gpu_s: float
    """Seconds of one GPU."""
    video_s: float
    """Duration of the footage, seconds."""

    @property
    def cpu_s_per_video_hour(self) -> float:
        return _per_hour(self.cpu_s, self.video_s)

    @property
    def gpu_s_per_video_hour(self) -> float:
        return _per_hour(self.gpu_s, self.video_s)

    def money_per_video_hour(self, *, cpu_hour: float, gpu_hour: float) -> float:
        """At these prices for an hour of one core and of one GPU; NaN without footage."""
        if cpu_hour < 0 or gpu_hour < 0:
            raise ValueError(f"prices must be at least 0, not {cpu_hour} and {gpu_hour}")
        return (self.cpu_s_per_video_hour * cpu_hour + self.gpu_s_per_video_hour * gpu_hour) / 3600.0


def _per_hour(seconds: float, video_s: float) -> float:
    return seconds * 3600.0 / video_s if video_s > 0 else float("nan")
