"""Why a frame was key or not, in one sentence, from what its row says (see `scheduling.protocol`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.schema import from_dict
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.scheduling import SCHEDULERS, Scheduler, build_scheduler

UNITS: Mapping[str, str] = {
    "frame_difference": " gray levels",
    "flow_magnitude": " % of the longest side",
    "warp_error": " gray levels",
    "fixed": " frames",
}


class Reasons:
    """What the run's configuration says about its decisions; works without one, with less to say."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        options = info.get("config", {}).get("scheduler", {})
        self.name = str(options.get("name", "scheduler"))
        self.max_interval = options.get("max_interval")
        self.threshold = _threshold(options)
        self._looks_ahead = _looks_ahead(self.name)

    def sentence(self, row: Mapping[str, Any]) -> str:
        """For example: `key: score 7.12 gray levels above the threshold 6 (14 frames since the last key)`."""
        score, lkd = row["decision_score"], row["lkd"]
        since = f"{lkd} frames since the last key"
        if score is None:
            return f"{'key' if row['is_key'] else 'no key'}: no score was kept ({since})"
        if score == math.inf:
            return self._forced(lkd)
        if score == -math.inf:
            return f"no key: the frame is damaged, so the scheduler was not asked ({since})"
        if self._looks_ahead:  # its threshold is the price of a key, not a limit of the score
            price = "" if self.threshold is None else f" at the price {self.threshold:.4g} of a key"
            planned = "key: planned" if row["is_key"] else "no key: none planned here"
            return f"{planned} by {self.name}{price} ({since})"
        unit = UNITS.get(self.name, "")
        scored = f"{self.name} scores {score:.4g}{unit}"
        limit = "" if self.threshold is None else f" the threshold {self.threshold:.4g}"
        if row["is_key"]:
            return f"key: {scored}, above{limit or ' its threshold'} ({since})"
        return f"no key: {scored}, not above{limit or ' its threshold'} ({since})"

    def _forced(self, lkd: int) -> str:
        if lkd == 0:
            return "key: the first frame of its segment always is"
        if self.max_interval is not None and lkd >= self.max_interval:
            return f"key: {lkd} frames since the last one, the longest interval allowed"
        return f"key: the last key was damaged, {lkd} frames ago, and this is the first sound frame"


def _looks_ahead(name: str) -> bool:
    try:
        return hasattr(SCHEDULERS.find(name), "plan")
    except ValueError:  # a plug-in that is not here
        return False


def _threshold(options: Mapping[str, Any]) -> float | None:
    """The threshold that the run's scheduler had, where it can be told from the configuration."""
    if not options:
        return None
    if options.get("threshold") is not None:
        return float(options["threshold"])
    try:
        config = from_dict(SchedulerConfig, dict(options))
        given = {"interval": config.interval, "policy": config.policy}
        known = {name: value for name, value in given.items() if value is not None}
        takes = {name: v for name, v in known.items() if SCHEDULERS.takes(config.name, name)}
        scheduler = build_scheduler(config.name, **takes)
        return float(scheduler.threshold) if isinstance(scheduler, Scheduler) else None
    except (ConfigError, ValueError, OSError, AttributeError, TypeError):
        return None


def table(rows: Sequence[Mapping[str, Any]], reasons: Reasons, class_names: Sequence[str]) -> list[list[str]]:
    """A line for each row: number, time, key or from where, KAR, share of the largest classes, why."""
    lines = []
    for row in rows:
        source = "KEY" if row["is_key"] else f"from {row['key_frame_index']}"
        marked = f"{source}{' damaged' if row['is_corrupt'] else ''}"
        lines.append(
            [
                str(row["frame_index"]),
                f"{row['pts_s']:.2f}",
                marked,
                str(row["lkd"]),
                f"{row['kar']:.3f}",
                classes(row["class_pixels"], class_names),
                reasons.sentence(row),
            ]
        )
    return lines


HEADS = ("frame", "time (s)", "mask", "LKD", "KAR", "classes", "why")


def classes(pixels: Sequence[int], names: Sequence[str], most: int = 3) -> str:
    """The largest classes and their share of the picture, class 0 aside."""
    total = sum(pixels) or 1
    found = sorted(((count, i) for i, count in enumerate(pixels) if count and i), reverse=True)[:most]
    return ", ".join(
        f"{names[i] if i < len(names) else f'class {i}'} {100 * count / total:.1f} %" for count, i in found
    )


def text_table(lines: Sequence[Sequence[str]], heads: Sequence[str] = HEADS) -> str:
    """Columns side by side, the last one free."""
    widths = [max(len(line[c]) for line in [heads, *lines]) for c in range(len(heads) - 1)]
    shown = []
    for line in [heads, *lines]:
        cells = [
            text.rjust(width) if place in (0, 1, 3, 4) else text.ljust(width)
            for place, (text, width) in enumerate(zip(line[:-1], widths, strict=True))
        ]
        shown.append("  " + "  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(shown)
