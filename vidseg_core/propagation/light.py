"""`accel` and `grfp`: a light net looks at every frame, and N's scores of the key come to its help.

Accel fuses them with the key's, warped straight to the frame: it depends on the pair alone. GRFP's state goes
from frame to frame, so it keeps the state and the picture of the frame before. See `models.light`.

Legend: B frames of a call, C classes, H, W working size; h, w flow size; 2 = (u, v), 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.models.light import BesideNet, read_accel, read_grfp
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.gap import FramePair, Gap, GapFrame, GapKey, Memory, Reads, in_calls
from vidseg_core.propagation.propagators import FlowWarp, Level
from vidseg_core.propagation.warp import warp_maps, warp_picture

_CALLS = {"cpu": 1, "cuda": 8}
"""Frames in a call: lanes bring nothing on a CPU."""


class _Beside:
    """`weights`: a file of train-propagation; it belongs to one segmenter."""

    level: Level = "scores"
    reads: Reads = "frame"
    net: BesideNet

    def __init__(self, weights: str, device: str) -> None:
        self._file, self._device = weights, torch.device(device)
        self._size = _CALLS.get(self._device.type, 1)

    def check_net(self, segmenter: Any) -> None:
        """`SegmenterError` for a segmenter that the weights do not belong to."""
        self.net.check(segmenter, self._file)

    @torch.inference_mode()
    def _update(self, frames: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """scores_CHW of the light net for each frame_HW3 of one size."""
        pixels = [torch.from_numpy(frame_HW3).permute(2, 0, 1) for frame_HW3 in frames]
        return list(self.net.light(self._filled(pixels) / 255.0)[: len(frames)])

    def _filled(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """The maps as a call of one size, float32."""
        empty = [torch.zeros_like(maps[0])] * (self._size - len(maps))
        return torch.stack([*maps, *empty]).to(self._device).float()


class Accel(_Beside):
    """The key's scores, warped, and the light net's, fused."""

    needs_flow = True

    def __init__(self, weights: str, device: str = "cpu") -> None:
        super().__init__(weights, device)
        self.net = read_accel(weights).to(self._device)
        self._reference = FlowWarp("scores")

    def see(self, frames: Iterable[GapFrame | GapKey]) -> Iterator[torch.Tensor]:
        """What the light net says of each frame."""
        pictures = (frame.frame_HW3 for frame in frames)
        return in_calls(pictures, self._size, lambda frame_HW3: frame_HW3.shape, self._update)

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        """Fused scores of each frame."""
        return in_calls(pairs, self._size, lambda pair: pair.key.carried.shape, self._fused)

    @torch.inference_mode()
    def _fused(self, pairs: Sequence[FramePair]) -> list[torch.Tensor]:
        warped = [self._reference.carry(pair.key.carried, pair.link.flow_hw2) for pair in pairs]
        fused_BCHW = self.net(self._filled(warped), self._filled([pair.seen for pair in pairs]))
        return list(fused_BCHW[: len(pairs)])


class Update(Accel):
    """The light net alone, whatever the key says: the branch that Accel is compared with."""

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        """The light net's scores of each frame."""
        return (pair.seen.to(pair.key.carried) for pair in pairs)


class Grfp(_Beside):
    """A gated recurrent unit from frame to frame; it estimates the flow to the frame before itself (DIS)."""

    needs_flow = False

    def __init__(self, weights: str, device: str = "cpu") -> None:
        super().__init__(weights, device)
        self.net = read_grfp(weights).to(self._device)
        self._flow = DisFlow(chained=False)

    def fill(self, gaps: Sequence[Gap]) -> Iterator[torch.Tensor]:
        """The unit's state at each frame: scores."""
        for gap in gaps:
            for frame in gap.frames:
                yield self._stepped(gap, frame)

    @torch.inference_mode()
    def _stepped(self, gap: Gap, frame: GapFrame) -> torch.Tensor:
        """h of the frame; it is left in the gap's memory, in half precision, with the frame's picture."""
        key = gap.left
        before = _before(key, gap.memory)
        current_hw = _gray(frame.view)
        warped_CHW, difference_hw = warped_state(*before, current_hw, self._flow)
        (update_CHW,) = self._update([frame.frame_HW3])
        difference_1hw = torch.from_numpy(difference_hw)[None]
        state_BCHW = self.net(*map(self._filled, ([warped_CHW], [update_CHW], [difference_1hw])))
        half_CHW = state_BCHW[0].half()
        gap.memory = {"state": half_CHW.cpu().numpy(), "picture": current_hw}
        return half_CHW.to(key.carried)


def warped_state(
    state_CHW: torch.Tensor, picture_hw: np.ndarray, current_hw: np.ndarray, flow: DisFlow
) -> tuple[torch.Tensor, np.ndarray]:
    """The state of the frame before at the current frame, and difference_hw float32: I_t - I_t-1 warped."""
    (flow_hw2,) = flow.flow([current_hw], [picture_hw])
    warped_hw = warp_picture(picture_hw, flow_hw2)
    difference_hw = (current_hw.astype(np.float32) - warped_hw) / np.float32(255.0)
    return warp_maps(state_CHW, flow_hw2), difference_hw


def _before(key: GapKey, memory: Memory) -> tuple[torch.Tensor, np.ndarray]:
    """State and picture of the frame before: those of the key right after it."""
    if not memory:
        return key.carried, _gray(key.view)
    state_CHW = torch.from_numpy(np.array(memory["state"])).to(key.carried)
    return state_CHW, np.ascontiguousarray(memory["picture"])


def _gray(view: np.ndarray) -> np.ndarray:
    return view if view.ndim == 2 else cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
