"""Why a frame was key or not, in one sentence, from what its row says (see `scheduling.protocol`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vidseg_core.config.catalogue import EVERY, INTERVAL, SCHEDULERS
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.scheduling.by_name import threshold_of


class Reasons:
    """What the run's configuration says about its decisions; works without one, with less to say."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        options = info.get("config", {}).get("scheduler", {})
        self.name = str(options.get("name", "scheduler"))
        self.max_interval = options.get("max_interval")
        self.interval = options.get("interval", INTERVAL)
        self.threshold = threshold_of(options)
        carried = info.get("config", {}).get("propagation", {})
        self.delay = carried.get("delay") if carried.get("latency") == "low" else None
        """Frames until the net's own result counts; None: at once."""
        self.regions = RegionsConfig.of(info.get("config", {}))
        self._entry = SCHEDULERS.get(self.name)
        """None: a plug-in."""

    def sentence(self, row: Mapping[str, Any]) -> str:
        """For example: `key: score 7.12 gray levels above the threshold 6 (14 frames since the last key)`."""
        reason = self._reason(row)
        if not row["is_key"] or self.delay is None or not row["lkd"]:
            return reason
        return f"{reason}; shows what was carried to it, the net's result counts {_frames(self.delay)} later"

    def _reason(self, row: Mapping[str, Any]) -> str:
        keys = row["region_keys"] if self.regions is not None else None
        if keys is not None and any(keys) and not all(keys):
            return self._some_regions(row)
        score, lkd = row["decision_score"], row["lkd"]
        since = f"{_frames(lkd)} since the last key"
        if score is None:
            return f"{'key' if row['is_key'] else 'no key'}: no score was kept ({since})"
        if score == math.inf:
            return self._forced(lkd)
        if score == -math.inf:
            return f"no key: the frame is damaged, so the scheduler was not asked ({since})"
        if not self.scores:
            return self._by_the_clock(bool(row["is_key"]), lkd)
        if (
            self._entry and self._entry.looks_ahead
        ):  # its threshold is the price of a key, not a limit of the score
            price = "" if self.threshold is None else f" at the price {self.threshold:.4g} of a key"
            planned = "key: planned" if row["is_key"] else "no key: none planned here"
            return f"{planned} by {self.name}{price} ({since})"
        entry = self._entry
        follows = entry is not None and bool(entry.feature or entry.reads_low)  # else it is the score's name
        scored = f"{self.name} scores {score:.4g} {entry.unit if entry and follows else ''}".rstrip()
        limit = "" if self.threshold is None else f" the threshold {self.threshold:.4g}"
        if row["is_key"]:
            return f"key: {scored}, above{limit or ' its threshold'} ({since})"
        return f"no key: {scored}, not above{limit or ' its threshold'} ({since})"

    @property
    def columns(self) -> tuple[str, ...]:
        """What of a row is read besides, with regions."""
        return () if self.regions is None else ("region_keys", "region_scores", "key_share")

    def _some_regions(self, row: Mapping[str, Any]) -> str:
        """A frame of which some regions are key and others are not."""
        assert self.regions is not None
        pairs = list(zip(row["region_keys"], row["region_scores"], strict=True))
        scores = [score for is_key, score in pairs if is_key]
        numbers = ", ".join(str(number) for number, (is_key, _) in enumerate(pairs, 1) if is_key)
        named = f"{'region' if len(scores) == 1 else 'regions'} {numbers} of {self.regions.grid}"
        seen = f"{100 * row['key_share']:.0f} % of the pixels, the oldest key {_frames(row['lkd'])} ago"
        if not self.scores:
            return f"key: {named} ({seen})"
        if self._entry and self._entry.looks_ahead:
            return f"key: {named}, planned by {self.name} ({seen})"
        found = "forced" if max(scores) == math.inf else f"up to {max(scores):.4g}"
        others = max(score for is_key, score in pairs if not is_key)
        limit = "" if self.threshold is None else f", the threshold is {self.threshold:.4g}"
        return f"key: {named}: {self.name} {found}; the others up to {others:.4g}{limit} ({seen})"

    @property
    def scores(self) -> bool:
        """Whether a frame's score says anything about the frame."""
        return self._entry is None or self._entry.scores

    def _by_the_clock(self, is_key: bool, lkd: int) -> str:
        """Schedulers that do not look at the frame."""
        if self.name == EVERY:
            return "key: every frame is"
        if self._entry and self._entry.feature:  # the distance
            if is_key:
                return f"key: {_frames(lkd)} since the last key, the fixed interval"
            return f"no key: {_frames(lkd)} since the last key, of {self.interval} (fixed)"
        chance = f"one in {self.interval:g} on average, {_frames(lkd)} since the last key"
        return f"key: drawn by chance ({chance})" if is_key else f"no key: not drawn ({chance})"

    def _forced(self, lkd: int) -> str:
        if lkd == 0:
            return "key: the first frame of its segment always is"
        if self.max_interval is not None and lkd >= self.max_interval:
            return f"key: {_frames(lkd)} since the last one, the longest interval allowed"
        return f"key: the last key was damaged, {_frames(lkd)} ago, and this is the first sound frame"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _kar(row: Mapping[str, Any]) -> str:
    """Share of keys among the last decisions; nothing where a segment begins and none has been made."""
    begins = row["lkd"] == 0 and row["decision_score"] == math.inf
    return "-" if begins else f"{row['kar']:.3f}"


def table(rows: Sequence[Mapping[str, Any]], reasons: Reasons, class_names: Sequence[str]) -> list[list[str]]:
    """A line for each row: number, time, key or from where, KAR, share of the largest classes, why."""
    lines = []
    for row in rows:
        source = "KEY" if row["is_key"] else f"from {row['key_frame_index']}"
        marked = f"{source}{' damaged' if row['is_corrupt'] else ''}"
        lines.append(
            [
                str(row["frame_index"]),
                "-" if row["pts_s"] is None else f"{row['pts_s']:.2f}",
                marked,
                str(row["lkd"]),
                _kar(row),
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
