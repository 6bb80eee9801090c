"""W of DVRL section 3.1: how what is kept of a key frame reaches a frame that is not one.

What is kept depends on the *level*, and so does its type, called `Carried` here:

| level    | Carried                                        | after propagation            |
|----------|------------------------------------------------|------------------------------|
| labels   | labels_HW uint8 at working size                | it is the mask               |
| scores   | scores_CHW tensor, as N gave them              | mask = class of highest score|
| features | what N_feat gave, one frame: tensor(s) CHW     | N_task, then as scores       |

A propagator has one of three forms: `carry` moves `Carried` along one flow (`Propagator`), `move` sees a key
and a frame (`PairPropagator`), `fill` the whole gap between two keys (`GapPropagator`). What it may have
besides is in `Extras`, and what the engine makes of it all in `filler`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import torch

from vidseg_core.config import catalogue
from vidseg_core.models.bundled import bundled_file
from vidseg_core.models.digest import digest_file
from vidseg_core.propagation.gap import FramePair, Gap, GapFrame, GapKey, Memory, Reads
from vidseg_core.propagation.scale_field import scale_of
from vidseg_core.propagation.warp import warp_labels, warp_maps
from vidseg_core.registry import PluginError, Registry

Level: TypeAlias = Literal["labels", "scores", "features"]
LEVELS: tuple[str, ...] = get_args(Level)

Carried: TypeAlias = "np.ndarray | torch.Tensor | tuple[Any, ...] | list[Any]"


@runtime_checkable
class Propagator(Protocol):
    """Moves what is kept of a key frame to another frame.

    class Forgetful:
        level, needs_flow = "labels", False
        def carry(self, carried, flow_HW2):
            return np.zeros_like(carried)
    """

    level: Level
    """What of a key frame is kept and moved."""

    needs_flow: bool
    """False: `carry` is called with None and no flow is computed for it."""

    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        """The key's `carried` as seen from the current frame; a new object or the same one, never changed."""
        ...


@runtime_checkable
class PairPropagator(Protocol):
    """Moves what is kept of a key to a frame that it may look at, one pair at a time.

    With two sides each frame is moved to from both keys, and each pixel comes from the one whose picture
    explains it better (`two_sided`).
    """

    level: Level
    needs_flow: bool
    """True: each pair's link has the flow to its key."""

    def move(self, pairs: Iterable[FramePair]) -> Iterable[Any]:
        """For each pair the key's `carried` as seen from the frame, in order. May take several pairs before
        it gives the first; what it gives for one must not depend on the others."""
        ...


@runtime_checkable
class GapPropagator(Protocol):
    """Fills gaps: the frames between two keys, or (one side) the frame after the last one, with memory.

    Where memory ends at keys, tables, oracle and dial fill the gaps of the schedules that they value.
    """

    level: Level
    needs_flow: bool
    """True: each frame's links have the flows to its keys."""

    def fill(self, gaps: Sequence[Gap]) -> Iterable[Any]:
        """For each frame of each gap, in order, what the level says: of the form of `gap.left.carried`."""
        ...


class NetInCalls(Protocol):
    """N as a propagator may use it: on frames one by one, in calls of one size, so that what it gives for one
    does not depend on the others. Features are those of one frame, without batch dimension."""

    segmenter: Any
    """The `Segmenter`."""
    batch: int
    """Frames in a call."""
    device: torch.device

    def low(self, frames: Sequence[np.ndarray]) -> list[Any]:
        """Low-level features of each frame_HW3 uint8."""
        ...

    def fuse(self, low: Sequence[Any], carried: Sequence[Any]) -> list[Any]:
        """Each frame's low-level features and the features carried to it as one (`FusingSegmenter`)."""
        ...

    def renew(self, carried: Sequence[Any], level: int) -> list[Any]:
        """Features with the map of cached level `level`, from 1, made anew from the one before it; for a net
        that has some (`sharing:<levels>/<net>`)."""
        ...

    def labels(self, carried: Sequence[Any]) -> list[np.ndarray]:
        """labels_HW of what is carried, at the propagator's level."""
        ...


class Extras(Protocol):
    """What a propagator of any form may have besides, or any part of it.

    What `keep` and `see` give is never stored: it follows from the key or the frame, and is made again.
    """

    reads: Reads
    """Of a frame that is no key; "nothing" without it."""
    needs_low: bool
    """True: low-level features of N (see `models.protocol.PartedSegmenter`) are on keys and frames."""

    remembers: bool
    """True, of one with `fill`: with two sides, too, what a gap leaves in memory the next one finds."""
    note: str
    """One sentence that a run should show; empty or missing: there is none."""

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes that its memory has at most, with flow pictures of this size; of one that `remembers`.
        Without it what a short trial leaves there counts."""
        ...

    def most_kept(self) -> int:
        """Bytes of what `keep` makes of a key, at most. Without it what is measured on keys counts, which a
        check before the run does not know."""
        ...

    def most_held(self, frames: int) -> int:
        """Bytes that it holds at most while it fills a gap of so many frames between two keys."""
        ...

    def check_net(self, segmenter: Any) -> None:
        """`SegmenterError` for a segmenter that does not go with it."""
        ...

    def use_net(self, net: NetInCalls) -> None:
        """Called before anything is filled, with the net that made the keys."""
        ...

    def keep(self, key: GapKey) -> Any:
        """Its own form of a key, from what the key shows; then it is on `key.kept`."""
        ...

    def see(self, frames: Sequence[GapFrame | GapKey]) -> Iterable[Any]:
        """For each frame in order what its own net says of it, once a frame and not once a pair; then it is
        on `pair.seen`. With `move` only. What it gives for one frame must not depend on the others."""
        ...

    def at_key(self, key: GapKey, memory: Memory) -> tuple[Any, Memory]:
        """What a new key shows in place of N's own result, in the form of `key.carried`, and what the next
        frame finds in memory, which otherwise is empty after a key. With `fill` and one side only."""
        ...


def _checked_level(level: str) -> Level:
    if level not in LEVELS:
        raise ValueError(f"propagation level {level!r} is not one of {', '.join(LEVELS)}")
    return level  # type: ignore[return-value]


class Copy:
    """The key's result as it is: the cheapest propagation, and exact while nothing moves."""

    needs_flow = False

    def __init__(self, level: str = "labels") -> None:
        self.level: Level = _checked_level(level)

    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        return carried


class FlowWarp:
    """The key's result warped along the flow (DFF; DVSNet section 3.1, spatial warping path).

    Labels are read nearest, scores and features bilinear. At level `features` with several maps of different
    resolution each is warped at its own. A flow that comes with a scale field multiplies warped scores and
    features by it (DFF section 3); labels it leaves alone.
    """

    needs_flow = True

    def __init__(self, level: str = "labels") -> None:
        self.level: Level = _checked_level(level)

    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        if flow_HW2 is None:
            raise ValueError("flow_warp needs a flow")
        if isinstance(carried, np.ndarray):
            return warp_labels(carried, flow_HW2)
        single = isinstance(carried, torch.Tensor)
        warped = [_warped(part, flow_HW2) for part in ([carried] if single else carried)]
        scale = scale_of(flow_HW2)
        if scale is not None:
            warped = scale.apply(warped, self.level)
        return warped[0] if single else tuple(warped)


def check_carried(moved: Any, carried: Any, name: str) -> None:
    """`PluginError` unless `moved` is of the kind, shape and type of what was handed in."""
    if (got := _form(moved)) != (expected := _form(carried)):
        raise PluginError(f"propagator {name!r} gave {got}, expected {expected}, as it was handed")


def _form(carried: Any) -> str:
    """A `Carried` in words."""
    if isinstance(carried, np.ndarray | torch.Tensor):
        kind = "array" if isinstance(carried, np.ndarray) else "tensor"
        dtype = str(carried.dtype).removeprefix("torch.")
        return f"{kind} of shape {tuple(carried.shape)} and type {dtype}"
    if isinstance(carried, tuple | list):
        return " and ".join(map(_form, carried))
    return f"a {type(carried).__name__}"


def _warped(maps_CHW: torch.Tensor, flow_HW2: np.ndarray) -> torch.Tensor:
    if maps_CHW.ndim != 3:
        raise ValueError(f"only CHW maps can be warped, not a tensor of shape {tuple(maps_CHW.shape)}")
    return warp_maps(maps_CHW, flow_HW2)


PROPAGATORS = Registry("propagator", {name: entry.made_by for name, entry in catalogue.PROPAGATORS.items()})


AnyPropagator: TypeAlias = Propagator | PairPropagator | GapPropagator


def build_propagator(name: str = "flow_warp", **options: Any) -> AnyPropagator:
    """A propagator by registry name or `package.module:Class`; unknown names suggest the nearest.

    One that takes no `level` has its own, which must be the one that is asked for (ValueError).
    """
    if "level" not in options or PROPAGATORS.takes(name, "level"):
        return PROPAGATORS.build(name, **options)
    level = options.pop("level")
    propagator = PROPAGATORS.build(name, **options)
    if propagator.level != level:
        raise ValueError(f"propagator {name!r} works at level {propagator.level!r}, not {level!r}")
    return propagator


def weights_digest(options: Any) -> str:
    """Digest of what the propagator of a verb's options reads, the user's or the package's own; empty: it
    reads nothing. `SegmenterError` for a net that is not there."""
    name, place = catalogue.propagator_place(options.name)
    if place:
        from vidseg_core.models.memory_net import memory_digest

        return memory_digest(name, place)
    entry = catalogue.PROPAGATORS.get(name)
    file = options.weights or (bundled_file(entry.file) if entry and entry.file else None)
    return digest_file(Path(file)) if file else ""


def propagator_of(options: Any, device: str = "cpu") -> AnyPropagator:
    """The propagator of a verb's options (`PropagationConfig`), on this device.

    What it has no option for it is not given; weights that it does not take are an error (`PluginError`).
    """
    name, place = catalogue.propagator_place(options.name)
    if options.weights is not None and not PROPAGATORS.takes(name, "weights"):
        raise PluginError(f"propagator {name!r} takes no weights")
    asked = {"weights": options.weights, "device": device, "place": place}
    asked |= {
        "self_check": getattr(options, "checks_itself", False),
        "adapt_steps": getattr(options, "adapt_steps", 0),
    }
    entry = catalogue.PROPAGATORS.get(name)
    if entry is not None and entry.clocked:
        asked["clock"] = getattr(options, "clock", 1)
    given = {option: value for option, value in asked.items() if PROPAGATORS.takes(name, option)}
    return build_propagator(name, level=options.level, **given)
