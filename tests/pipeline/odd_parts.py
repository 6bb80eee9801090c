"""Plug-ins for tests: nets, flows and propagators, each with one thing that does not fit, or that only looks
odd."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional


class Channels:
    """Class = strongest colour channel."""

    class_names: Any = ("red", "green", "blue")
    stride: Any = 1

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        return frames_B3HW

    def head(self, feats: Any) -> Any:
        return feats * 4.0 - 2.0


class Swapped(Channels):
    def head(self, feats: Any) -> Any:
        return feats.transpose(2, 3)


class Short(Channels):
    def head(self, feats: Any) -> Any:
        return feats[:, :, :-1]


class Small(Channels):
    def head(self, feats: Any) -> Any:
        return functional.avg_pool2d(feats, 2)


class PadsAndKeeps(Channels):
    """As one that pads to a multiple of 32 and forgets to crop."""

    def head(self, feats: Any) -> Any:
        rows, columns = (-feats.shape[2] % 32), (-feats.shape[3] % 32)
        return functional.pad(feats, (0, columns, 0, rows))


class Whole(Channels):
    def head(self, feats: Any) -> Any:
        return (feats * 255).to(torch.int64)


class Labels(Channels):
    def head(self, feats: Any) -> Any:
        return feats.argmax(1)


class Arrays(Channels):
    def head(self, feats: Any) -> Any:
        return feats.numpy()


class Doubled(Channels):
    def head(self, feats: Any) -> Any:
        return feats[:1].repeat(2, 1, 1, 1)


class FirstOnly(Channels):
    def head(self, feats: Any) -> Any:
        return feats[:1]


class NotANumber(Channels):
    def head(self, feats: Any) -> Any:
        return torch.where(feats > -1, torch.nan, feats)


class Ends(Channels):
    def head(self, feats: Any) -> Any:
        raise SystemExit(3)


class Dies(Channels):
    def features(self, frames_B3HW: torch.Tensor) -> Any:
        os._exit(0)


class IsKilled(Channels):
    def head(self, feats: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)


class Raises(Channels):
    def features(self, frames_B3HW: torch.Tensor) -> Any:
        raise KeyError("no such layer")


class CannotBegin(Channels):
    def __init__(self) -> None:
        raise FileNotFoundError("my_weights.pt")


class TooFewNames(Channels):
    class_names = ("red", "green")


class TooManyNames(Channels):
    class_names = ("red", "green", "blue", "white", "black")


class NoNames(Channels):
    class_names = ()


class OneName(Channels):
    class_names = ("red",)

    def head(self, feats: Any) -> Any:
        return feats[:, :1]


class ManyNames(Channels):
    class_names = tuple(f"class {number}" for number in range(300))

    def head(self, feats: Any) -> Any:
        return feats.repeat(1, 100, 1, 1)


class SameNames(Channels):
    class_names = ("red", "red", "blue")


class NamesAsText(Channels):
    class_names = "rgb"


class NamesAsNumbers(Channels):
    class_names = (0, 1, 2)


class NamesAsDict(Channels):
    class_names = {0: "red", 1: "green", 2: "blue"}


class NoStride(Channels):
    stride = 0


class PortraitSwapped(Channels):
    """Fits on landscape pictures only, and wide ones come first."""

    def head(self, feats: Any) -> Any:
        return feats.transpose(2, 3) if feats.shape[2] > feats.shape[3] else feats * 4.0 - 2.0


class Random(Channels):
    def head(self, feats: Any) -> Any:
        return torch.rand_like(feats)


class Half(Channels):
    def head(self, feats: Any) -> Any:
        return (feats * 4.0 - 2.0).half()


class WithGradients(Channels):
    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.full((1,), 4.0))

    def head(self, feats: Any) -> Any:
        return feats * self.weight - 2.0


class InPlace(Channels):
    """Works in place on all that it is handed."""

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        return frames_B3HW.mul_(0.5).mul_(2.0)

    def head(self, feats: Any) -> Any:
        return feats.mul_(-4.0).mul_(-1.0).sub_(2.0)


class LowAndHigh(Channels):
    """Has attributes of these names that are no parts of a net."""

    low, high = 0.25, 4.0

    def head(self, feats: Any) -> Any:
        return feats * self.high - 8 * self.low


class All256(Channels):
    class_names = tuple(f"class {number}" for number in range(256))

    def head(self, feats: Any) -> Any:
        scores = torch.zeros(feats.shape[0], 256, *feats.shape[2:])
        scores[:, 255] = 1
        return scores


class OnlyOneSize(Channels):
    """Made for 256 x 384 alone."""

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        if tuple(frames_B3HW.shape[2:]) != (256, 384):
            raise RuntimeError(f"size mismatch: got {tuple(frames_B3HW.shape[2:])}")
        return frames_B3HW


class OneSizeOut(Channels):
    """Its scores are always 256 x 384."""

    def head(self, feats: Any) -> Any:
        return functional.interpolate(feats, (256, 384)) * 4.0 - 2.0


class AtLeast128(Channels):
    def features(self, frames_B3HW: torch.Tensor) -> Any:
        if min(frames_B3HW.shape[2:]) < 128:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return frames_B3HW


class MultiplesOf32(Channels):
    def features(self, frames_B3HW: torch.Tensor) -> Any:
        if any(side % 32 for side in frames_B3HW.shape[2:]):
            raise RuntimeError("sides must divide by 32")
        return frames_B3HW


# --- flows -------------------------------------------------------------------------------------------------


class Still:
    """No motion."""

    channels: Any = 1
    chained = False

    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> Any:
        return [self.one(*picture.shape[:2]) for picture in current]

    def one(self, rows: int, columns: int) -> Any:
        return np.zeros((rows, columns, 2), np.float32)


class Stacked(Still):
    """All flows in one array, as a net gives them."""

    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> Any:
        return np.stack(super().flow(current, key))


class SwappedFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        return np.zeros((columns, rows, 2), np.float32)


class ChannelsFirstFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        return np.zeros((2, rows, columns), np.float32)


class HalfSizeFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        return np.zeros((rows // 2, columns // 2, 2), np.float32)


class DoubleFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        return np.zeros((rows, columns, 2))


class TensorFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        return torch.zeros(rows, columns, 2)


class NanFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        return np.full((rows, columns, 2), np.nan, np.float32)


class FirstFlowOnly(Still):
    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> Any:
        return super().flow(current, key)[:1]


class TwoChannels(Still):
    channels = 2


class DyingFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        os._exit(139)


class RaisingFlow(Still):
    def one(self, rows: int, columns: int) -> Any:
        raise SystemExit("no licence")


# --- propagators -------------------------------------------------------------------------------------------


class Keeps:
    """The key's result as it is."""

    level, needs_flow = "labels", True

    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        return carried


class SwappedCarry(Keeps):
    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        return np.ascontiguousarray(carried.T)


class WiderCarry(Keeps):
    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        return carried.astype(np.int64)


class NothingCarried(Keeps):
    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        return None


class ChangesTheKey(Keeps):
    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        carried[:] = 0
        return carried


class LabelOfNoClass(Keeps):
    def carry(self, carried: Any, flow_HW2: np.ndarray | None) -> Any:
        return np.full_like(carried, 200)
