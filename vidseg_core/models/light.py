"""Nets of propagators that run a light net on every frame: Accel's fusion and GRFP's recurrent unit.

Accel (Jain, Wang, Gonzalez 2019; FeatureSharing section 2.2.1): the reference branch brings the scores of
the expensive net N from the key to the frame, s^R; the update branch, a light net, scores the frame itself,
s^U. A 1x1 convolution over both, stacked, makes the scores that are shown:

    s = SF([s^R, s^U]),   2 C -> C channels.

GRFP (Nilsson, Sminchisescu 2018; FeatureSharing section 2.2.2) is a gated recurrent unit per pixel, STGRU:
w is the state of the frame before, warped to the frame; x what the light net says of the frame; both enter as
class shares less 1 / C. Where the picture is not explained by the frame before, warped, the state is reset:

    r = 1 - tanh(|W_ir * (I_t - I_t-1 warped) + b_r|)
    h~ = W_xh * x + W_hh * (r w)
    z = sigmoid(W_xz * x + W_hz * (r w) + b_z)
    h = lambda (1 - z) r w + z h~

Ours: N's scores are warped, not its features, and straight from the key; the pictures of r are gray and at
flow size. A new fusion is the reference branch, to which it learns to add: a light net that begins from
nothing has nothing to say. New kernels of the unit are those of the authors without their noise: W_xh and
W_hh 6 at the centre of the own class, lambda 2, all others 0.

Legend: B frames, C classes, H, W their size; h, w flow size; 3 = RGB in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.propagation_file import check_belongs, read_net
from vidseg_core.models.trainable import TrainableNet, trainable_net

KERNEL = 5
"""Side of the unit's kernels, pixels."""
PACE = 10.0
"""What scores are multiplied with on their way into Accel's fusion: by as much faster do its few weights
learn than those of the light net, at one learning rate. Without it they have hardly left their start when the
light net is done."""
KEEP = 6.0
"""What new kernels multiply a class's own share with."""


@dataclass(frozen=True, kw_only=True)
class LightFacts:
    """What the nets belong to, and the light net; kept in their file."""

    segmenter: str
    """Digest of N."""
    light: str
    """The light net, as `build_segmenter` reads it."""
    class_names: tuple[str, ...]
    """Of N, and so of the light net."""


class BesideNet(nn.Module):
    """A light net with what joins it with N's scores."""

    def __init__(self, facts: LightFacts, *, weights: str | None = None, seed: int = 0) -> None:
        """`weights`: of the light net to begin with; None: drawn with `seed`."""
        super().__init__()
        self.facts = facts
        self.light: TrainableNet = trainable_net(
            facts.light, class_names=facts.class_names, seed=seed, weights=weights
        )

    def check(self, segmenter: Any, file: str) -> None:
        """`SegmenterError` unless `segmenter` is the one that the nets of `file` were trained with."""
        check_belongs(segmenter, self.facts.segmenter, file)


class AccelNet(BesideNet):
    """Update branch and score fusion."""

    def __init__(self, facts: LightFacts, *, weights: str | None = None, seed: int = 0) -> None:
        super().__init__(facts, weights=weights, seed=seed)
        classes = len(facts.class_names)
        self.fuse = nn.Conv2d(2 * classes, classes, 1)
        assert self.fuse.bias is not None
        nn.init.zeros_(self.fuse.bias)
        with torch.no_grad():
            self.fuse.weight.copy_(torch.eye(classes, 2 * classes)[:, :, None, None] / PACE)

    def forward(self, reference_BCHW: torch.Tensor, update_BCHW: torch.Tensor) -> torch.Tensor:
        """SF: fused scores, (B, C, H, W)."""
        return self.fuse(PACE * torch.cat([reference_BCHW, update_BCHW], dim=1))


class GrfpNet(BesideNet):
    """The light net and STGRU."""

    def __init__(self, facts: LightFacts, *, weights: str | None = None, seed: int = 0) -> None:
        super().__init__(facts, weights=weights, seed=seed)
        classes = len(facts.class_names)

        def kernels(inputs: int, outputs: int, *, bias: bool = False) -> nn.Conv2d:
            layer = nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2, bias=bias)
            for weight in layer.parameters():
                nn.init.zeros_(weight)
            return layer

        self.picture_reset = kernels(1, 1, bias=True)
        self.x_state, self.h_state = kernels(classes, classes), kernels(classes, classes)
        self.x_update, self.h_update = kernels(classes, 1, bias=True), kernels(classes, 1)
        self.scale = nn.Parameter(torch.tensor(2.0))
        with torch.no_grad():
            for layer in (self.x_state, self.h_state):
                layer.weight[:, :, KERNEL // 2, KERNEL // 2] = KEEP * torch.eye(classes)
            self.picture_reset.weight[0, 0, KERNEL // 2, KERNEL // 2] = 1.0

    def forward(
        self, before_BCHW: torch.Tensor, update_BCHW: torch.Tensor, difference_B1hw: torch.Tensor
    ) -> torch.Tensor:
        """h of the frame, (B, C, H, W).

        `before`: h (or the key's scores) of the frame before, warped; `difference`: I_t - I_t-1 warped, 0..1.
        """
        offset = 1.0 / before_BCHW.shape[1]
        w_BCHW, x_BCHW = before_BCHW.softmax(1) - offset, update_BCHW.softmax(1) - offset
        r_B1hw = 1.0 - torch.tanh(self.picture_reset(difference_B1hw).abs())
        w_BCHW = w_BCHW * F.interpolate(r_B1hw, w_BCHW.shape[2:], mode="bilinear", align_corners=False)
        candidate_BCHW = self.x_state(x_BCHW) + self.h_state(w_BCHW)
        z_B1HW = torch.sigmoid(self.x_update(x_BCHW) + self.h_update(w_BCHW))
        return self.scale * (1.0 - z_B1HW) * w_BCHW + z_B1HW * candidate_BCHW


def light_facts(segmenter: Any, light: str) -> LightFacts:
    """What nets with this light net say of themselves, trained for this segmenter."""
    return LightFacts(segmenter=segmenter.digest, light=light, class_names=tuple(segmenter.class_names))


def read_accel(path: str) -> AccelNet:
    """The nets in a file of Accel, frozen; `SegmenterError` for any other file."""
    return read_net("accel", path, lambda facts: AccelNet(_facts(facts)))


def read_grfp(path: str) -> GrfpNet:
    """The nets in a file of GRFP, frozen; `SegmenterError` for any other file."""
    return read_net("grfp", path, lambda facts: GrfpNet(_facts(facts)))


def _facts(given: dict[str, Any]) -> LightFacts:
    names: tuple[str, ...] = tuple(given.pop("class_names"))
    return LightFacts(**given, class_names=names)
