"""Propagators as engine, tables and dial use them: something that fills a gap.

A propagator is written in one of three forms (see `propagators`), and each is a `Filler` here:

| it has                 | it sees                                | two sides                   | tables |
|------------------------|----------------------------------------|-----------------------------|--------|
| `carry(carried, flow)` | a key's result and the flow to the key | made here, by `two_sided`   | yes    |
| `move(pairs)`          | a key and a frame, one pair at a time  | made here, by `two_sided`   | yes    |
| `fill(gaps)`           | the whole gap, and its own memory      | its own business            | (yes)  |

(yes): unless its memory passes through keys; gaps are filled one by one then, which costs more than pairs.
What it may have besides, to work with the net or with nets of its own, is in `propagators.Extras`.

Invariant: what comes out for a frame has the form of what is kept of its key, and depends on the frame's own
gap alone, not on which gaps share a call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.gap import READS, FramePair, Gap, GapFrame, GapKey, Memory, Reads
from vidseg_core.propagation.propagators import LEVELS, Level, NetInCalls, check_carried
from vidseg_core.propagation.two_sided import Side, Sides, put_together
from vidseg_core.propagation.warp import warp_error
from vidseg_core.registry import PluginError


class Filler(ABC):
    """Fills gaps; what it reads and keeps is said by the propagator in it."""

    pairwise: ClassVar[bool]
    """What comes out for a frame and one key depends on these two alone: then tables of pairs can say
    beforehand what any schedule is worth."""

    def __init__(self, propagator: Any, *, two_sided: bool) -> None:
        if propagator.level not in LEVELS:
            raise ValueError(f"propagation level {propagator.level!r} is not one of {', '.join(LEVELS)}")
        self.propagator, self.name = propagator, type(propagator).__name__
        self.level: Level = propagator.level
        self.needs_flow = bool(propagator.needs_flow)
        self.reads: Reads = getattr(propagator, "reads", "nothing")
        if self.reads not in READS:
            problem = f"reads is {self.reads!r}, expected one of {', '.join(READS)}"
            raise PluginError(f"propagator {self.name!r}: {problem}")
        self.own_reads: Reads = self.reads
        """What the propagator itself looks at, whatever its flow is estimated from."""
        if self.needs_flow:
            self.reads = _at_least_view(self.reads)
        self.needs_low = bool(getattr(propagator, "needs_low", False))
        self.remembers = bool(getattr(propagator, "remembers", False))
        if self.remembers and (self.pairwise or not two_sided):
            problem = "says remembers, which goes with fill and --propagation.sides two (with one: at_key)"
            raise PluginError(f"propagator {self.name!r} {problem}")
        self._says_most = self.remembers or not (two_sided or hasattr(propagator, "remembers"))
        self.low_waits = self.needs_low and two_sided
        """Low-level features are made when a gap is filled, of frames that have waited: the features are too
        large to wait."""
        if self.low_waits and not self.pairwise:
            problem = "fills gaps: with two sides it asks the net for low-level features itself (use_net), "
            raise PluginError(f"propagator {self.name!r} {problem}or goes with --propagation.sides one")
        if self.low_waits:
            self.reads = "frame"
        self.net: NetInCalls | None = None
        """N, once it is known (`engine.lows.connect`)."""
        self.answers_keys = hasattr(propagator, "at_key")
        if self.answers_keys and (self.pairwise or two_sided):
            problem = "has at_key, which goes with fill and --propagation.sides one"
            raise PluginError(f"propagator {self.name!r} {problem}")

    @property
    def keeps_frame(self) -> bool:
        """Is a key's RGB frame kept: to be looked at, or for N to run on it again after a restore?"""
        return self.level != "labels" or self.reads == "frame" or self.needs_low

    @property
    def ends_at_keys(self) -> bool:
        """Do masks between two keys follow from these keys and the frames between them?"""
        return not (self.answers_keys or self.remembers)

    @property
    def works_with_net(self) -> bool:
        """Does it need the net itself, and not only what the net says of keys?"""
        return works_with_net(self.propagator)

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes that the propagator says it carries over at most, with flow pictures of this size."""
        says = getattr(self.propagator, "most_remembered", None)
        return says(height, width, channels) if says is not None and self._says_most else 0

    def most_kept(self) -> int:
        """Bytes that the propagator says it makes of a key at most."""
        says = getattr(self.propagator, "most_kept", None)
        return says() if says is not None else 0

    def most_held(self, frames: int) -> int:
        """Bytes that the propagator says it holds at most while it fills a gap of so many frames."""
        says = getattr(self.propagator, "most_held", None)
        return says(frames) if says is not None else 0

    @abstractmethod
    def fill(self, gaps: Sequence[Gap]) -> Iterator[Any]:
        """What the level says (labels, scores, features) of each frame of the first gap, then of the second;
        made when asked for. A gap's memory is that of its last frame once all have been taken."""

    def at_key(self, key: GapKey, memory: Memory) -> tuple[Any, Memory]:
        """What a new key shows, of the form of its `carried`, and what is carried over from it; for
        propagators that answer keys."""
        self.ready(key)
        shown, memory = self.propagator.at_key(key, dict(memory))
        check_carried(shown, key.carried, self.name)
        _check_memory(memory, self.name)
        return shown, memory

    def see(self, frames: Sequence[GapFrame | GapKey]) -> list[Any]:
        """What the propagator makes of each frame by itself; None where it makes nothing."""
        if not hasattr(self.propagator, "see"):
            return [None] * len(frames)
        seen = list(self.propagator.see(frames))
        if len(seen) != len(frames):
            raise PluginError(f"propagator {self.name!r} saw {len(seen)} frames, but was given {len(frames)}")
        return seen

    def ready(self, key: GapKey) -> None:
        """Have what the propagator makes of this key, if it makes anything."""
        if key.kept is None and hasattr(self.propagator, "keep"):
            key.kept = self.propagator.keep(key)


class PairFiller(Filler):
    """A propagator that knows one key and one frame at a time (`carry` or `move`)."""

    pairwise = True

    def __init__(self, propagator: Any, *, two_sided: bool) -> None:
        super().__init__(propagator, two_sided=two_sided)
        if two_sided:
            self.reads = _at_least_view(self.reads)

    def fill(self, gaps: Sequence[Gap]) -> Iterator[Any]:
        return put_together(self._sides(gaps))

    def _sides(self, gaps: Sequence[Gap]) -> Iterator[Sides]:
        moved = self.move(self._pairs(gaps))
        for gap in gaps:
            for frame in gap.frames:
                left = next(moved)
                if frame.right is None:
                    yield Side(left, frame.left.distance), None
                else:
                    yield self.side(left, frame.left), self.side(next(moved), frame.right)
        for _ in moved:
            pass  # whatever it gives more is refused

    def _pairs(self, gaps: Sequence[Gap]) -> Iterator[FramePair]:
        """What the net and the propagator make of a frame is made for a few frames at a time, since it may be
        larger than the frame."""
        frames = iter([(gap, frame) for gap in gaps for frame in gap.frames])
        while few := list(islice(frames, 1 if self.net is None else self.net.batch)):
            if self.low_waits:
                assert self.net is not None
                lows = self.net.low([frame.frame_HW3 for _, frame in few])
                for (_, frame), low_maps in zip(few, lows, strict=True):
                    frame.low_maps = low_maps
            for (gap, frame), seen in zip(few, self.see([frame for _, frame in few]), strict=True):
                frame.seen = seen
                yield from gap.pairs(frame)
                frame.seen = None
                if self.low_waits:
                    frame.low_maps = None

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        """What is kept of each pair's key at its frame; `PluginError` for a propagator that gives another
        thing."""
        taken: deque[FramePair] = deque()
        given = _noted(self._readied(pairs), taken)
        for moved in self._moved(given):
            if not taken:
                raise PluginError(f"propagator {self.name!r} moved more pairs than it was given")
            check_carried(moved, taken.popleft().key.carried, self.name)
            yield moved
        if taken or next(given, None) is not None:
            raise PluginError(f"propagator {self.name!r} moved fewer pairs than it was given")

    def side(self, moved: Any, link: Link) -> Side:
        """What `move` gave for this link, and how well its key's picture explains the frame."""
        error = warp_error(link.current, link.key, self._flow_of(link))
        return Side(moved, link.distance, error)

    def _readied(self, pairs: Iterable[FramePair]) -> Iterator[FramePair]:
        for pair in pairs:
            self.ready(pair.key)
            yield pair

    def _moved(self, pairs: Iterable[FramePair]) -> Iterable[Any]:
        if hasattr(self.propagator, "move"):
            return self.propagator.move(pairs)
        return (self.propagator.carry(pair.key.carried, self._flow_of(pair.link)) for pair in pairs)

    def _flow_of(self, link: Link) -> np.ndarray | None:
        return link.flow_hw2 if self.needs_flow else None


class GapFiller(Filler):
    """A propagator with a `fill` of its own."""

    pairwise = False

    def fill(self, gaps: Sequence[Gap]) -> Iterator[Any]:
        for gap in gaps:
            self.ready(gap.left)
            if gap.right is not None:
                self.ready(gap.right)
        results = iter(self.propagator.fill(gaps))
        for gap in gaps:
            for _ in gap.frames:
                found = next(results, _NOTHING)
                if found is _NOTHING:
                    raise PluginError(f"propagator {self.name!r} filled fewer frames than it was given")
                check_carried(found, gap.left.carried, self.name)
                yield found
        if next(results, _NOTHING) is not _NOTHING:
            raise PluginError(f"propagator {self.name!r} filled more frames than it was given")
        for gap in gaps:
            _check_memory(gap.memory, self.name)


_NOTHING = object()


def works_with_net(part: Any) -> bool:
    """Does this propagator or scheduler need N itself, and not only what N says of keys?"""
    return bool(getattr(part, "needs_low", False)) or hasattr(part, "use_net") or hasattr(part, "check_net")


def filler_of(propagator: Any, *, two_sided: bool) -> Filler:
    """A propagator of any form as one that fills gaps; `PluginError` for one that has no form."""
    if hasattr(propagator, "fill"):
        return GapFiller(propagator, two_sided=two_sided)
    if hasattr(propagator, "move") or hasattr(propagator, "carry"):
        return PairFiller(propagator, two_sided=two_sided)
    raise PluginError(f"propagator {type(propagator).__name__!r} has no carry, move or fill")


def _at_least_view(reads: Reads) -> Reads:
    return "view" if reads == "nothing" else reads


def _noted(pairs: Iterable[FramePair], taken: deque[FramePair]) -> Iterator[FramePair]:
    for pair in pairs:
        taken.append(pair)
        yield pair


def _check_memory(memory: Any, name: str) -> None:
    fine = isinstance(memory, dict) and all(
        isinstance(key, str) and isinstance(value, np.ndarray) and not value.dtype.hasobject
        for key, value in memory.items()
    )
    if not fine:
        raise PluginError(f"propagator {name!r}: a gap's memory must be a dict of names and numpy arrays")
