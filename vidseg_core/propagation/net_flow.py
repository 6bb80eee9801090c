"""Learned flow: a flow net as a `FlowEstimator`.

Pairs of one size go through the net in batches of exactly `batch` (fewer are filled up), because libraries
choose kernels by batch size and other kernels round differently: which pairs share a call then changes
nothing. Sides that are no multiple of the net's stride are padded by their border and the flow is cropped.

    estimator = build_flow("flownet2_s", weights="flownet2_s.safetensors", device="cuda")
    flows = estimator.flow(current, key)          # lists of RGB pictures HW3 uint8
    deviation_B = estimator.conv6(current_B3HW, key_B3HW)   # what DVSNet's and DVRL's decision nets read

Legend: H, W picture size; h, w padded size; B pairs; 2 = (u, v) in pixels; 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import frozen
from vidseg_core.models.geometry import pad_to_multiple
from vidseg_core.propagation.scale_field import ScaledFlow, ScaleField
from vidseg_core.registry import UnknownNameError

CPU_BATCH, GPU_BATCH = 1, 8


class NetFlow:
    """The flow net called `name`.

    `weights`: a file; None: the net's own, or random ones by `seed`. `batch`: pairs per call of the net, at
    least 1; None: 1 on a CPU, where lanes bring nothing, and 8 on a GPU. `chained`: improve each flow with
    the help of the frame before (see `chain`), at twice the cost. Weights with a scale field (DFF section 3)
    give flows that bring theirs along (see `scale_field`); `scale_level` says what for.
    """

    channels = 3

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        batch: int | None = None,
        chained: bool = False,
        seed: int = 0,
    ) -> None:
        self.device = torch.device(device)
        if batch is not None and (int(batch) != batch or batch < 1):
            raise ValueError(f"flow batch must be a whole number of at least 1, not {batch!r}")
        self.batch = int(batch) if batch else CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        built = build_flow_net(name, weights, seed=seed)
        self.name, self.digest, self.trained = built.name, built.digest, built.trained
        self.net, self.chained = frozen(built.net).to(self.device), bool(chained)
        self.scale_level = built.scale_level
        if self.chained and self.scale_level:
            raise ValueError("chained flow has no scale field, but these weights come with one")
        self.conv6_channels: int | None = getattr(self.net, "conv6_channels", None)

    @torch.inference_mode()
    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> list[np.ndarray]:
        """flow_HW2 float32 for each pair of RGB pictures."""
        flows: dict[int, np.ndarray] = {}
        for shape in sorted({picture.shape for picture in current}):
            same = [number for number, picture in enumerate(current) if picture.shape == shape]
            for start in range(0, len(same), self.batch):
                chunk = same[start : start + self.batch]
                flow_BHW2 = self._chunk([current[n] for n in chunk], [key[n] for n in chunk])
                flows.update(zip(chunk, flow_BHW2, strict=True))
        return [flows[number] for number in range(len(current))]

    @torch.inference_mode()
    def conv6(self, current_B3HW: torch.Tensor, key_B3HW: torch.Tensor) -> torch.Tensor:
        """conv6_BChw of FlowNetS and FlowNet2-s at 1/64 (rounded up): RGB pictures, float32 in 0..1.

        `UnknownNameError` for a net that has no such layer.
        """
        if self.conv6_channels is None:
            raise UnknownNameError(
                f"flow net {self.name!r} has no conv6 features; flownet2_s and flownet_s have"
            )
        pair = self._padded(current_B3HW.to(self.device)), self._padded(key_B3HW.to(self.device))
        return self.net.conv6(*pair)  # type: ignore[operator]

    def _chunk(self, current: list[np.ndarray], key: list[np.ndarray]) -> list[np.ndarray]:
        height, width = current[0].shape[:2]
        pictures, scale_BCqq = (self._tensor(current), self._tensor(key)), None
        if self.scale_level is None:
            flow_B2hw = self.net(*pictures)
        else:
            flows, scale_BCqq = self.net.levels_and_scale(*pictures)  # type: ignore[operator]
            flow_B2hw = flows[-1]
        flow_BHW2 = flow_B2hw[: len(current), :, :height, :width].permute(0, 2, 3, 1)
        arrays = list(flow_BHW2.float().contiguous().cpu().numpy())
        if scale_BCqq is None:
            return arrays
        return [self._scaled(a, scale, flow_B2hw) for a, scale in zip(arrays, scale_BCqq, strict=False)]

    def _scaled(self, flow_HW2: np.ndarray, scale_Cqq: torch.Tensor, flow_B2hw: torch.Tensor) -> np.ndarray:
        assert self.scale_level is not None
        shares = (flow_HW2.shape[0] / flow_B2hw.shape[2], flow_HW2.shape[1] / flow_B2hw.shape[3])
        covers = (scale_Cqq.shape[1] * shares[0], scale_Cqq.shape[2] * shares[1])
        scale = ScaleField(level=self.scale_level, scale_Cqq=scale_Cqq.float(), covers=covers)
        return ScaledFlow(flow_HW2, scale)

    def _tensor(self, pictures: list[np.ndarray]) -> torch.Tensor:
        """The pictures as one full batch (the first fills it up), padded, 0..1."""
        filled = [*pictures, *pictures[:1] * (self.batch - len(pictures))]
        pixels_BHW3 = torch.from_numpy(np.stack(filled)).to(self.device)
        return self._padded(pixels_BHW3.permute(0, 3, 1, 2).float().div(255.0).contiguous())

    def _padded(self, pictures_B3HW: torch.Tensor) -> torch.Tensor:
        multiple, smallest = int(self.net.multiple), int(self.net.smallest)  # type: ignore[arg-type]
        return pad_to_multiple(pictures_B3HW, multiple, smallest)
