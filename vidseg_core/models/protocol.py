"""What vidseg asks of a segmentation net N: two halves, N_feat and N_task, and a name for its weights.

Model: N(frame) = head(features(frame)). `features` is the heavy half that runs on key frames only and whose
output may be propagated; `head` is the light half that turns features into class scores (DVRL section 1 and
Fig. 1). Invariant: for every batch, `head(features(frames))` are the scores of the undivided net, at the
frames' own size, and no call leaves anything behind in the segmenter: equal arguments give equal results in
any order.

Where the split lies decides what level `features` means. DVRL section 4.2 lets N_feat end at the per-pixel
posterior, which is our level `scores`; deep feature flow, its baseline, ends N_feat before the classifying
layer. The bundled adapters take the second split, because the first is then available too, as the output of
`head`.

Shape suffixes: B batch, C classes, H W the frame's rows and columns, 3 = RGB.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol, Self, TypeAlias, cast, runtime_checkable

import torch

Features: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]
"""One map or several, each (B, channels, rows, columns); rows and columns cover the whole frame at some
stride."""


class SegmenterError(ValueError):
    """A segmenter cannot be built or fed as asked; the message is one sentence that names what is wrong."""

    exit_code = 2


class ScoresError(ValueError):
    """A net gave scores that mean nothing."""


@runtime_checkable
class Segmenter(Protocol):
    """A segmentation net as the engine sees it; see the module docstring for the invariant."""

    name: str
    """The spec it was built from, for people and for `run.json`."""
    class_names: tuple[str, ...]
    """Class id i is called `class_names[i]`; its length is the number of score channels."""
    stride: int
    """Frame pixels per pixel of the (first, finest) feature map."""
    digest: str
    """SHA-256 in hex: equal digests promise equal scores, given equal frames, software and device."""
    trained: bool
    """False when the weights were never fitted to data, so that masks serve plumbing and timing only."""
    note: str
    """One sentence a job should show to its user before it trusts the masks; empty if there is none."""

    def features(self, frames_B3HW: torch.Tensor) -> Features:
        """N_feat. `frames_B3HW`: float32 RGB in 0..1 on the segmenter's device, any H and W."""
        ...

    def head(self, feats: Features) -> torch.Tensor:
        """N_task. From features, warped or not, to float32 scores (B, C, H, W) at the frame's size."""
        ...

    def to(self, device: str | torch.device) -> Self:
        """Move the weights; returns itself."""
        ...


class PartedSegmenter(Segmenter, Protocol):
    """A segmenter whose N_feat is in two parts of its own, S_l and S_h of LVS section 2.1; optional.

    Invariant: `high(low(frames))` is `features(frames)`, bit for bit.
    """

    has_parts: bool
    """False: it has neither `low` nor `high`."""

    def low(self, frames_B3HW: torch.Tensor) -> Features:
        """S_l: low-level features, cheap enough to be computed for every frame."""
        ...

    def high(self, low: Features) -> Features:
        """S_h: from low-level features to those of `features`; must leave `low` as it is."""
        ...


class FusingSegmenter(PartedSegmenter, Protocol):
    """A segmenter in parts that puts a frame's low-level features and a key's features together; optional.

    Invariant: `fuse(low(frames), features(frames))` is `features(frames)`, bit for bit: frames that are their
    own keys.
    """

    has_fuse: bool
    """False: it has no `fuse`."""

    def fuse(self, low: Features, carried: Features) -> Features:
        """What `head` takes, of frames whose `low` it is and whose keys' features are `carried`, moved there
        or not; must leave both as they are."""
        ...


def parts_of(segmenter: Segmenter, asked_by: str) -> PartedSegmenter:
    """The segmenter as one in parts; `SegmenterError` if it has none."""
    if not getattr(segmenter, "has_parts", False):
        raise SegmenterError(
            f"{asked_by} reads low-level features, but the segmenter {segmenter.name!r} has no parts "
            "(low and high, see docs/plugins.md)"
        )
    return cast(PartedSegmenter, segmenter)


def fusing(segmenter: Segmenter, asked_by: str) -> FusingSegmenter:
    """The segmenter as one that can `fuse`; `SegmenterError` if it cannot."""
    parts_of(segmenter, asked_by)
    if not getattr(segmenter, "has_fuse", False):
        raise SegmenterError(
            f"{asked_by} puts features of two frames together, but the segmenter {segmenter.name!r} has no "
            "fuse (see docs/plugins.md)"
        )
    return cast(FusingSegmenter, segmenter)


def unknown_name(what: str, name: str, known: Sequence[str]) -> SegmenterError:
    """One sentence that suggests the nearest of `known`, or lists the first of them if none is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    hint = f"did you mean {lowered[near[0]]!r}?" if near else f"known: {', '.join(list(known)[:12])}"
    return SegmenterError(f"unknown {what} {name!r}; {hint}")
