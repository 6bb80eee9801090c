"""LVS (Li, Shi, Lin 2018): low-level features say how high-level ones are carried, and when they are renewed.

Model: of a key k the features F_h and the low-level features F_l are kept; for a frame t only F_l is computed
(S_l, the cheap part of N). `CarryNet` reads both low-level features and says for each place (i, j) how its
features are put together from the key's around it (section 2.3, Eq. 1):

    F_h^t(l, i, j) = sum over u, v from -D to D of W_ij(u, v) * F_h^k(l, i - u, j - v),      D = H_K // 2

W_ij is a softmax over its H_K x H_K numbers and the same for all channels l. AdaptNet reads F_l^t, so that
what has only now come into view has features too (2.3, last paragraph): B(F_l) is what it expects F_h to be.
Instead of F_h^k its error at the key is carried, F_h^k - B(F_l^k), and B(F_l^t) is added. So a frame that is
the key's gets the key's features, however little AdaptNet knows of such footage.
`DeviationNet` reads how much the low-level features differ, in units of how large they are, and says which
share of the labels will differ (2.2). Both are in one file.

Ours, where the summary at hand says no more: three convolutions predict kernels, two are AdaptNet, one
makes features of its reading; the deviation's two convolutions have stride 2. Where S_l is coarser or finer
than F_h, what is read from it is brought to F_h's size (bilinear). A new net copies: its kernels have almost
all weight at the centre, and B is 0. In the paper the reading of F_l^t is fused with F_h^k, carried; on clips
left out that was worse than a plain copy near the key (`PlainCarry`, for files of before).

The paper pools the deviation's maps and puts one layer after that, and it reads differences alone. Here the
layer comes first and the shares that it expects are pooled, so that each place can be taught by itself. The
net reads what lies there, too, since a difference within an area changes no label and one at its border does.
And it begins with the difference itself, so that it learns what is beyond it. `PooledDeviation` is the
paper's, for files of before.

Invariant: what comes out depends on the frame and its key alone.

Legend: B pairs, C channels of F_h, L channels of F_l, K = H_K * H_K; h, w size of F_h; y, x size of F_l.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.propagation_file import check_belongs, facts_metadata, read_net
from vidseg_core.models.protocol import Features, SegmenterError, parts_of

KERNEL = 9
"""H_K: side of the kernels, pixels of F_h."""
HIDDEN = 64
"""Channels of the kernel predictor and of AdaptNet."""
DEVIATION = 256
"""Channels of the deviation's convolutions."""
LEAST = 1e-3
"""Channels whose mean size is far below count as empty."""
CENTRE = 8.0
"""Logit of a new net's kernels at their centre: its weight is .97 for H_K = 9."""


@dataclass(frozen=True, kw_only=True)
class LvsFacts:
    """What the nets belong to, and their sizes; kept in their file."""

    segmenter: str
    """Digest of N."""
    low_place: int
    """Which of the maps of N's lower part is F_l."""
    low_channels: int
    high_channels: int
    kernel: int = KERNEL
    hidden: int = HIDDEN
    relative: bool = False
    """The deviation net reads sizes of differences; older files' read differences as they are."""
    placed: bool = False
    """It speaks of each place; older files' pool first."""
    expects: bool = False
    """What AdaptNet expects amiss at the key is carried; in older files, the key's features."""


class _Carry(nn.Module):
    """Kernel predictor, spatially variant convolution, AdaptNet; `fuse` is built for what it reads."""

    reads_carried: ClassVar[bool]

    def __init__(self, facts: LvsFacts) -> None:
        super().__init__()
        hidden, low = facts.hidden, facts.low_channels
        last = nn.Conv2d(hidden, facts.kernel**2, 3, padding=1)
        self.predict = nn.Sequential(
            nn.Conv2d(2 * low, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            last,
        )
        self.adapt = nn.Sequential(
            nn.Conv2d(low, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        read = hidden + (facts.high_channels if self.reads_carried else 0)
        self.fuse = nn.Conv2d(read, facts.high_channels, 3, padding=1)
        for layer in (last, self.fuse):
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            last.bias[facts.kernel**2 // 2] = CENTRE  # type: ignore[index]

    def kernels(
        self, low_key_BLyx: torch.Tensor, low_now_BLyx: torch.Tensor, like_BChw: torch.Tensor
    ) -> torch.Tensor:
        """W: (B, K, h, w)."""
        logits_BKyx = self.predict(torch.cat([low_key_BLyx, low_now_BLyx], dim=1))
        return _sized(logits_BKyx, like_BChw).softmax(dim=1)


class CarryNet(_Carry):
    """What AdaptNet expects amiss at the key is carried, and what it expects of the frame is added."""

    reads_carried = False

    def forward(
        self, low_key_BLyx: torch.Tensor, low_now_BLyx: torch.Tensor, high_key_BChw: torch.Tensor
    ) -> torch.Tensor:
        """F_h of the frame: (B, C, h, w)."""
        error_BChw = high_key_BChw - self.expected(low_key_BLyx, high_key_BChw)
        carried_BChw = spatially_variant(error_BChw, self.kernels(low_key_BLyx, low_now_BLyx, high_key_BChw))
        return carried_BChw + self.expected(low_now_BLyx, high_key_BChw)

    def expected(self, low_BLyx: torch.Tensor, like_BChw: torch.Tensor) -> torch.Tensor:
        """B, of the size of `like`: (B, C, h, w)."""
        return self.fuse(_sized(self.adapt(low_BLyx), like_BChw))


class PlainCarry(_Carry):
    """The key's features are carried, and AdaptNet's reading of the frame is fused with them."""

    reads_carried = True

    def forward(
        self, low_key_BLyx: torch.Tensor, low_now_BLyx: torch.Tensor, high_key_BChw: torch.Tensor
    ) -> torch.Tensor:
        """F_h of the frame, fused: (B, C, h, w)."""
        weights_BKhw = self.kernels(low_key_BLyx, low_now_BLyx, high_key_BChw)
        carried_BChw = spatially_variant(high_key_BChw, weights_BKhw)
        adapted_BFhw = _sized(self.adapt(low_now_BLyx), carried_BChw)
        return carried_BChw + self.fuse(torch.cat([carried_BChw, adapted_BFhw], dim=1))


class DeviationNet(nn.Module):
    """Two convolutions, one layer at each place, global pooling.

    A place is about 4 x 4 of those of F_l: (B, y', x').
    """

    def __init__(self, facts: LvsFacts) -> None:
        super().__init__()
        self.convolve, self.last = _convolutions(2 * facts.low_channels), nn.Linear(DEVIATION, 1)
        self.power = nn.Parameter(torch.ones(1))

    def forward(self, low_key_BLyx: torch.Tensor, low_now_BLyx: torch.Tensor) -> torch.Tensor:
        """Expected share of labels that differ, 0..1: (B,)."""
        return torch.sigmoid(self.logits(low_key_BLyx, low_now_BLyx)).mean(dim=(1, 2))

    def logits(self, low_key_BLyx: torch.Tensor, low_now_BLyx: torch.Tensor) -> torch.Tensor:
        """The same at each place, before the sigmoid: (B, y', x')."""
        differs_BLyx, size_BL11 = _relative(low_key_BLyx, low_now_BLyx)
        there_BLyx = 0.5 * (low_key_BLyx + low_now_BLyx) / size_BL11
        maps_BFyx = self.convolve(torch.cat([differs_BLyx, there_BLyx], dim=1))
        logits_Byx = self.last(maps_BFyx.movedim(1, 3))[..., 0]
        differs_Byx = F.adaptive_avg_pool2d(differs_BLyx.mean(dim=1), logits_Byx.shape[1:])
        return logits_Byx + self.power * (differs_Byx + LEAST).log()


class PooledDeviation(nn.Module):
    """Two convolutions, global pooling, one layer."""

    def __init__(self, facts: LvsFacts) -> None:
        super().__init__()
        self.convolve, self.last = _convolutions(facts.low_channels), nn.Linear(DEVIATION, 1)
        self.relative = facts.relative

    def forward(self, low_key_BLyx: torch.Tensor, low_now_BLyx: torch.Tensor) -> torch.Tensor:
        """Expected share of labels that differ, 0..1: (B,)."""
        differs_BLyx = low_now_BLyx - low_key_BLyx
        if self.relative:
            differs_BLyx, _ = _relative(low_key_BLyx, low_now_BLyx)
        return torch.sigmoid(self.last(self.convolve(differs_BLyx).mean(dim=(2, 3)))[:, 0])


def _convolutions(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, DEVIATION, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(DEVIATION, DEVIATION, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    )


def _relative(one_BLyx: torch.Tensor, other_BLyx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sizes of differences in units of how large each channel is on average, and that: (B, L, 1, 1)."""
    sizes_BLyx = 0.5 * (other_BLyx.abs() + one_BLyx.abs())
    size_BL11 = sizes_BLyx.mean(dim=(2, 3), keepdim=True) + LEAST
    return (other_BLyx - one_BLyx).abs() / size_BL11, size_BL11


class LvsNet(nn.Module):
    """All that is trained for one N."""

    def __init__(self, facts: LvsFacts) -> None:
        super().__init__()
        self.facts = facts
        self.carrier = CarryNet(facts) if facts.expects else PlainCarry(facts)
        self.deviation = DeviationNet(facts) if facts.placed else PooledDeviation(facts)

    def low_of(self, low: Features) -> torch.Tensor:
        """F_l among the maps of N's lower part."""
        maps = (low,) if isinstance(low, torch.Tensor) else tuple(low)
        return maps[self.facts.low_place]

    def check(self, segmenter: Any, file: str) -> None:
        """`SegmenterError` unless `segmenter` is the one that the nets of `file` were trained with."""
        parts_of(segmenter, "lvs")
        check_belongs(segmenter, self.facts.segmenter, file)


def spatially_variant(maps_BChw: torch.Tensor, weights_BKhw: torch.Tensor) -> torch.Tensor:
    """Eq. 1: each place a weighted sum of the places around it, the same for all channels; beyond its border
    the map goes on as there."""
    side = round(weights_BKhw.shape[1] ** 0.5)
    if side * side != weights_BKhw.shape[1] or side % 2 == 0:
        raise ValueError(f"kernels have {weights_BKhw.shape[1]} weights, which is no odd side squared")
    reach = side // 2
    height, width = maps_BChw.shape[2:]
    around = F.pad(maps_BChw, (reach, reach, reach, reach), mode="replicate")
    total = torch.zeros_like(maps_BChw)
    for number in range(side * side):
        u, v = number // side - reach, number % side - reach
        moved = around[:, :, reach - u : reach - u + height, reach - v : reach - v + width]
        total = torch.addcmul(total, moved, weights_BKhw[:, number : number + 1])
    return total


def new_lvs(
    segmenter: Any, *, kernel: int = KERNEL, hidden: int = HIDDEN, seed: int = 0, device: str = "cpu"
) -> LvsNet:
    """Untrained nets for this segmenter: its deepest low-level map is F_l, its one feature map F_h.

    `device`: where the segmenter is. A further map of one channel may carry the frame's size; more maps than
    that are a `SegmenterError`, since nothing would carry them.
    """
    parts = parts_of(segmenter, "lvs")
    side = 64 * 4
    with torch.inference_mode():
        frames_B3HW = torch.zeros(1, 3, side, side, device=device)
        low, high = parts.low(frames_B3HW), parts.features(frames_B3HW)
    lows, highs = ([maps] if isinstance(maps, torch.Tensor) else list(maps) for maps in (low, high))
    if any(map_BFhw.shape[1] > 1 for map_BFhw in highs[1:]):
        raise SegmenterError(f"lvs carries one map of features, and {segmenter.name!r} has {len(highs)}")
    facts = LvsFacts(
        segmenter=parts.digest,
        low_place=len(lows) - 1,
        low_channels=lows[-1].shape[1],
        high_channels=highs[0].shape[1],
        kernel=kernel,
        hidden=hidden,
        relative=True,
        placed=True,
        expects=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LvsNet(facts)


def _sized(maps_BFyx: torch.Tensor, like_BChw: torch.Tensor) -> torch.Tensor:
    if maps_BFyx.shape[2:] == like_BChw.shape[2:]:
        return maps_BFyx
    return F.interpolate(maps_BFyx, size=like_BChw.shape[2:], mode="bilinear", align_corners=False)


# --- their file --------------------------------------------------------------------------------------------


def lvs_metadata(facts: LvsFacts) -> dict[str, str]:
    """What the file says beside the weights."""
    return facts_metadata("lvs", facts)


def read_lvs(path: str) -> LvsNet:
    """The nets in a file of train-propagation, frozen; `SegmenterError` for any other file."""
    return read_net("lvs", path, lambda facts: LvsNet(LvsFacts(**facts)))
