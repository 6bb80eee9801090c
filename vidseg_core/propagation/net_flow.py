"""Learned flow: a flow net as a `FlowEstimator`.

Pairs of one size go through the net in batches of exactly `batch` (fewer are filled up), because libraries
choose kernels by batch size and other kernels round differently: which pairs share a call then changes
nothing. Sides that are no multiple of the net's stride are padded by their border and the flow is cropped.

    estimator = build_flow("flownet2_s", weights="flownet2_s.safetensors", device="cuda")
    flows = estimator.flow(current, key)          # lists of RGB pictures HW3 uint8
    flows, maps = estimator.flow_and_maps(current, key, ("conv6",))   # what DVSNet's and DVRL's nets read

Legend: H, W picture size; h, w padded size; B pairs; 2 = (u, v) in pixels; 3 = RGB; C channels and g rows and
columns of a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional

from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import frozen
from vidseg_core.models.geometry import pad_to_multiple
from vidseg_core.propagation.scale_field import ScaledFlow, ScaleField
from vidseg_core.registry import UnknownNameError

CPU_BATCH, GPU_BATCH = 1, 8
MAP_GRIDS: Mapping[str, int] = {"conv4": 16, "conv5": 8, "conv6": 4}
"""Layer of FlowNetS -> rows and columns that its maps are pooled to, whatever the picture: those of 256 x
256."""
PairMaps = dict[str, np.ndarray]
"""Layer -> map_Cgg float16 of one pair."""


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
        self.map_channels: Mapping[str, int] = getattr(self.net, "map_channels", {})

    @torch.inference_mode()
    def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> list[np.ndarray]:
        """flow_HW2 float32 for each pair of RGB pictures."""
        return self.flow_and_maps(current, key, ())[0]

    @torch.inference_mode()
    def flow_and_maps(
        self, current: Sequence[np.ndarray], key: Sequence[np.ndarray], layers: Sequence[str]
    ) -> tuple[list[np.ndarray], list[PairMaps]]:
        """The flows, and the maps of these layers, in one pass of the net."""
        flows: dict[int, np.ndarray] = {}
        maps: dict[int, PairMaps] = {}
        for chunk in self._chunks(current):
            pictures = [current[n] for n in chunk], [key[n] for n in chunk]
            flow_BHW2, encoded = self._chunk(*pictures, layers)
            flows.update(zip(chunk, flow_BHW2, strict=True))
            maps.update(zip(chunk, _pooled(encoded, layers, len(chunk)), strict=True))
        return [flows[n] for n in range(len(current))], [maps[n] for n in range(len(current))]

    @torch.inference_mode()
    def maps(
        self, current: Sequence[np.ndarray], key: Sequence[np.ndarray], layers: Sequence[str]
    ) -> list[PairMaps]:
        """The maps that `flow_and_maps` gives, bit by bit, from the cheaper half of the net."""
        maps: dict[int, PairMaps] = {}
        for chunk in self._chunks(current):
            pictures = self._tensor([current[n] for n in chunk]), self._tensor([key[n] for n in chunk])
            encoded = self.net.encode(*pictures)  # type: ignore[operator]
            maps.update(zip(chunk, _pooled(encoded, layers, len(chunk)), strict=True))
        return [maps[n] for n in range(len(current))]

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

    def _chunks(self, current: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Numbers of the pairs that go through the net together: one size, a batch at most."""
        for shape in sorted({picture.shape for picture in current}):
            same = [number for number, picture in enumerate(current) if picture.shape == shape]
            for start in range(0, len(same), self.batch):
                yield same[start : start + self.batch]

    def _chunk(
        self, current: list[np.ndarray], key: list[np.ndarray], layers: Sequence[str]
    ) -> tuple[list[np.ndarray], Mapping[str, torch.Tensor]]:
        """The flows, and the encoder's maps where `layers` are asked for."""
        height, width = current[0].shape[:2]
        pictures, scale_BCqq = (self._tensor(current), self._tensor(key)), None
        encoded = self.net.encode(*pictures) if layers else {}  # type: ignore[operator]
        known = {"encoded": encoded} if layers else {}
        if self.scale_level is None:
            flow_B2hw = self.net(*pictures, **known)
        else:
            flows, scale_BCqq = self.net.levels_and_scale(*pictures, **known)  # type: ignore[operator]
            flow_B2hw = flows[-1]
        flow_BHW2 = flow_B2hw[: len(current), :, :height, :width].permute(0, 2, 3, 1)
        arrays = list(flow_BHW2.float().contiguous().cpu().numpy())
        if scale_BCqq is not None:
            arrays = [self._scaled(a, s, flow_B2hw) for a, s in zip(arrays, scale_BCqq, strict=False)]
        return arrays, encoded

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


def _pooled(encoded: Mapping[str, torch.Tensor], layers: Sequence[str], pairs: int) -> list[PairMaps]:
    """float16: what tables keep and the engine hands out is one and the same."""
    most = torch.finfo(torch.float16).max
    pooled = {
        layer: functional.adaptive_avg_pool2d(encoded[layer], MAP_GRIDS[layer])
        .clamp(-most, most)
        .half()
        .cpu()
        for layer in layers
    }
    return [{layer: maps_BCgg[pair].numpy() for layer, maps_BCgg in pooled.items()} for pair in range(pairs)]
