"""Propagators of every form for tests, nets in parts, and engines around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from tests.engine.toy import ConvNet, ThresholdNet
from vidseg_core.config.segment import PropagationConfig, SegmentConfig
from vidseg_core.engine import Engine
from vidseg_core.propagation import FlowWarp
from vidseg_core.propagation.gap import FramePair, Gap, in_calls
from vidseg_core.scheduling import build_scheduler


class Moves:
    """What `flow_warp` does, as one that moves pairs; takes some before it gives the first."""

    needs_flow = True

    def __init__(self, level: Any = "labels", ahead: int = 3) -> None:
        self.level, self._ahead, self._warp = level, ahead, FlowWarp(level)

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        taken = []
        for pair in pairs:
            taken.append(self._warp.carry(pair.key.carried, pair.link.flow_hw2))
            if len(taken) > self._ahead:
                yield taken.pop(0)
        yield from taken


class Looks:
    """Where a frame has the brightness that the key had, the key's labels; else the class of its colours."""

    level, needs_flow, reads = "labels", False, "frame"

    def move(self, pairs: Iterable[FramePair]) -> Iterator[np.ndarray]:
        for pair in pairs:
            now_HW3, key_HW3 = pair.frame_HW3, pair.key.frame_HW3
            same_HW = cv2.absdiff(now_HW3, key_HW3).max(axis=2) < 20
            yield np.where(same_HW, pair.key.carried, now_HW3.argmax(axis=2)).astype(np.uint8)


class Remembers:
    """Labels of the frame before where the view is bright; elsewhere those of the key, turned."""

    level, needs_flow, reads = "labels", False, "view"

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            last_HW: Any = gap.memory.get("last", gap.left.carried)
            for frame in gap.frames:
                bright_HW = cv2.resize(frame.view, last_HW.shape[::-1]) > 128
                last_HW = np.where(bright_HW, last_HW, np.roll(gap.left.carried, frame.left.distance, 1))
                yield last_HW
            gap.memory = {"last": last_HW}


class Blind(Looks):
    """Says that it reads nothing, has a `fill`, and looks only if it is asked to."""

    reads = "nothing"

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            for _ in gap.frames:
                yield gap.left.carried


class Parted(ConvNet):
    """`ConvNet` in parts, counting what runs."""

    has_parts = True

    def __init__(self) -> None:
        super().__init__()
        self.lows, self.wholes = 0, 0

    def low(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        self.lows += len(frames_B3HW)
        return torch.relu(self.stem(frames_B3HW))

    def high(self, low: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return low, torch.relu(self.deep(low))

    def features(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.wholes += len(frames_B3HW)
        return super().features(frames_B3HW)


class Sharp:
    """Fresh low-level features beside the key's high-level ones."""

    level, needs_flow, needs_low = "features", False, True

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        for pair in pairs:
            yield pair.low, pair.key.carried[1]


class Fusing(Parted):
    """Its fresh and its carried features are maps of their own."""

    has_fuse = True

    def fuse(self, low: Any, carried: Any) -> Any:
        return low, carried[1]


class Shares:
    """`Sharp`, by the net's own `fuse`."""

    level, needs_flow, needs_low = "features", False, True

    def use_net(self, net: Any) -> None:
        self._net = net

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        return in_calls(pairs, 2, lambda pair: pair.low.shape, self._fused)

    def _fused(self, pairs: list[FramePair]) -> list[Any]:
        return self._net.fuse([pair.low for pair in pairs], [pair.key.carried for pair in pairs])


class Sees:
    """Where its own net finds in the frame what it found in the key, the key's labels; else those, mirrored.
    Notes what it was shown."""

    level, needs_flow, reads = "labels", False, "frame"

    def __init__(self) -> None:
        self.kept = list[Any]()
        self.saw = list[Any]()

    def keep(self, key: Any) -> np.ndarray:
        self.kept.append(key)
        return cv2.blur(key.frame_HW3, (5, 5)) + key.carried[..., None]

    def see(self, frames: Sequence[Any]) -> Iterator[np.ndarray]:
        for frame in frames:
            self.saw.append(frame.view.tobytes())
            yield cv2.blur(frame.frame_HW3, (5, 5))

    def move(self, pairs: Iterable[FramePair]) -> Iterator[np.ndarray]:
        for pair in pairs:
            same_HW = cv2.absdiff(pair.seen, pair.key.kept).max(axis=2) < 20
            yield np.where(same_HW, pair.key.carried, pair.key.carried[:, ::-1]).astype(np.uint8)


class Recurs:
    """A state that passes through keys: half of the scores that come, half of what was there."""

    level, needs_flow = "scores", False

    def at_key(self, key: Any, memory: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
        state_CHW = key.carried
        if "state" in memory:
            state_CHW = (state_CHW + torch.from_numpy(memory["state"].copy())) / 2
        return state_CHW, {"state": state_CHW.numpy()}

    def fill(self, gaps: Sequence[Gap]) -> Iterator[Any]:
        for gap in gaps:
            state_CHW = torch.from_numpy(gap.memory["state"].copy())
            for _ in gap.frames:
                state_CHW = torch.roll((state_CHW + gap.left.carried) / 2, 1, 2)
                yield state_CHW
            gap.memory = {"state": state_CHW.numpy()}


class LowDistance:
    """Key where low-level features are far from the key's."""

    needs_flow, avoids_corrupt, needs_low = False, True, True

    def __init__(self, threshold: float = 0.02) -> None:
        self.threshold = threshold

    def score(self, deviation: Any) -> float:
        return float((deviation.low - deviation.key_low).abs().mean())


EXAMPLES = ("looks", "sees", "remembers", "recurs", "sharp", "shares")


def engine(
    propagator: Any, *, sides: Any = "one", net: Any = None, scheduler: Any = None, **options: Any
) -> Engine:
    return Engine(
        net or ThresholdNet(),
        scheduler or build_scheduler("fixed", interval=5),
        propagator,
        sides=sides,
        max_interval=6,
        flow_size=48,
        **options,
    )


def parts(name: str, sides: Any = "one") -> Engine:
    if name in ("sharp", "shares"):
        propagator = Sharp() if name == "sharp" else Shares()
        return engine(propagator, sides=sides, net=Fusing(), scheduler=LowDistance())
    if name == "recurs":
        return engine(Recurs(), net=ConvNet())
    return engine({"looks": Looks, "sees": Sees, "remembers": Remembers}[name](), sides=sides)


def settings_of(name: str, **options: Any) -> SegmentConfig:
    """A run with the propagator of this name."""
    propagation = PropagationConfig(name=f"tests.engine.fillers:{name}")
    return SegmentConfig(input=("a",), output="b", segmenter="plain", propagation=propagation, **options)
