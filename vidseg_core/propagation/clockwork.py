"""`clockwork`: the levels of N are renewed at rates of their own (Shelhamer, Rakelly, Hoffman, Darrell 2016).

Model: deeper levels change more slowly than the picture does. N is `sharing:<levels>/<net>`, whose features
are the maps of all its levels (`models.levels`). Those below the cached levels are made for every frame, the
coarsest for keys, whose schedule is its clock; of those between, level i (from 1) every `clock` ** i
frames, counted from the key. What a level said last stands until it is renewed: nothing is moved.
The net's decoder puts them together. The authors' net is an FCN, whose skips add the scores of its stages.

With `clock` 1 all but the coarsest run on every frame, so that masks depend on the key and the frame alone;
otherwise the maps of the levels between are carried over.

Legend: F channels of a map, h, w its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation.gap import FramePair, Gap, in_calls
from vidseg_core.propagation.propagators import Level, NetInCalls


class _Clocked:
    level: Level = "features"
    needs_flow, needs_low = False, True
    _net: NetInCalls

    def check_net(self, segmenter: Any) -> None:
        """`SegmenterError` for a net whose levels are not at hand."""
        if not getattr(segmenter, "cached_levels", 0):
            raise SegmenterError(
                f"clockwork renews the levels of a net one by one: name sharing:2/{segmenter.name} as the "
                "segmenter"
            )

    def use_net(self, net: NetInCalls) -> None:
        """The net whose levels are renewed."""
        self._net = net

    def _between(self) -> int:
        """How many levels are cached but the coarsest."""
        return self._net.segmenter.cached_levels - 1


class AllButCoarsest(_Clocked):
    """Every level but the coarsest on every frame."""

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        """The maps of all levels for each frame."""
        return in_calls(pairs, self._net.batch, lambda pair: None, self._renewed)

    def _renewed(self, pairs: Sequence[FramePair]) -> list[Any]:
        maps = self._net.fuse([pair.low for pair in pairs], [pair.key.carried for pair in pairs])
        for level in range(1, self._between() + 1):
            maps = self._net.renew(maps, level)
        return maps


class Clockwork(_Clocked):
    """Each level between at a rate of its own."""

    def __init__(self, clock: int) -> None:
        self._clock = clock

    def check_net(self, segmenter: Any) -> None:
        """`SegmenterError` for a net without levels that this clock could be of."""
        super().check_net(segmenter)
        if segmenter.cached_levels < 2:
            raise SegmenterError(
                f"clock {self._clock} is that of the levels between, and {segmenter.name!r} has none: cache "
                "two levels (sharing:2/NET), or leave --propagation.clock out"
            )

    def fill(self, gaps: Sequence[Gap]) -> Iterator[Any]:
        """The maps of all levels for each frame."""
        for gap in gaps:
            for frame in gap.frames:
                (maps,) = self._net.fuse([frame.low], [self._last(gap)])
                for level in range(1, self._between() + 1):
                    if frame.left.distance % self._clock**level == 0:
                        (maps,) = self._net.renew([maps], level)
                between = self._places(maps)
                gap.memory = {f"level{n}": maps[n].float().cpu().numpy() for n in between}
                yield maps

    def _last(self, gap: Gap) -> Any:
        """What each level said last; memory has it in a type that numpy knows, with every bit."""
        maps = list(gap.left.carried)
        for n in self._places(maps) if gap.memory else ():
            maps[n] = torch.from_numpy(np.array(gap.memory[f"level{n}"])).to(maps[n])
        return tuple(maps)

    def _places(self, maps: Sequence[torch.Tensor]) -> range:
        """Where the levels between are, among the maps of all."""
        first = self._net.segmenter.low_levels
        return range(first, first + self._between())


def clockwork(clock: int = 1) -> AllButCoarsest | Clockwork:
    """The propagator `clockwork`; `clock`: frames, see the module."""
    return AllButCoarsest() if clock == 1 else Clockwork(clock)
