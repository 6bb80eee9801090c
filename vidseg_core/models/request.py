"""What all adapters of torch libraries are asked for, and the steps they share: seeded build, weights,
names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.split import SplitNet, SplitOptions, SplitSegmenter
from vidseg_core.models.weights import WeightsFile, fit_weights, read_weights

Net = TypeVar("Net", bound=nn.Module)
UNTRAINED = (
    "The segmenter '{spec}' has random weights (seed {seed}): its masks mean nothing, only its speed does."
)


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One `build_segmenter` call, as an adapter sees it."""

    spec: str
    """What was typed, for messages and as the segmenter's name."""
    body: str
    """The part after the family's prefix."""
    weights: str | None
    num_classes: int | None
    class_names: tuple[str, ...] | None
    seed: int
    precision: str
    channels_last: bool
    to_train: bool = False
    """Weights may be drawn although the spec is a folder that should hold some."""

    def __post_init__(self) -> None:
        if self.num_classes is not None and not 1 <= self.num_classes <= 255:
            raise SegmenterError(f"num_classes must be in 1..255, not {self.num_classes}")
        names, count = self.class_names, self.num_classes
        if names is not None and count is not None and len(names) != count:
            raise SegmenterError(f"class_names has {len(names)} names, but num_classes is {count}")

    def asked_classes(self) -> int | None:
        """The class count that the caller fixed, by number or by names."""
        return self.num_classes or (len(self.class_names) if self.class_names else None)

    def read(self) -> WeightsFile | None:
        """The weights file, if one was given."""
        return read_weights(self.weights) if self.weights else None

    def names_for(self, count: int, known: tuple[str, ...] | None) -> tuple[str, ...]:
        """Class names: the caller's, else `known` (file or config) if as many, else `class_0`,
        `class_1`..."""
        for names in (self.class_names, known):
            if names is not None and len(names) == count:
                return names
        return tuple(f"class_{number}" for number in range(count))


def seeded(seed: int, build: Callable[[], Net]) -> Net:
    """Call `build` with torch's generator at `seed`, in float32 on the CPU; the caller's generator is
    untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one family builds and reads its nets; `assemble` does the rest."""

    build: Callable[[int], nn.Module]
    """The undivided net for a number of classes."""
    split: Callable[[nn.Module], SplitNet]
    head_key: str
    """State-dict key of the classifying layer's weight."""
    default_classes: int
    ignored: tuple[str, ...] = ()
    """Key prefixes in weights files that no part of the net needs."""


def assemble(request: ModelRequest, recipe: Recipe) -> SplitSegmenter:
    """Build with seeded weights, read the file if there is one, split, wrap."""
    file = request.read()
    count = (
        request.asked_classes() or (file.classes(recipe.head_key) if file else None) or recipe.default_classes
    )
    model = seeded(request.seed, lambda: recipe.build(count))
    if file is not None:
        fit_weights(model, file, what=request.spec, head_key=recipe.head_key, ignored=recipe.ignored)
    options = SplitOptions(
        name=request.spec,
        class_names=request.names_for(count, file.class_names if file else None),
        trained=file is not None,
        note="" if file else UNTRAINED.format(spec=request.spec, seed=request.seed),
        architecture=request.spec,
        precision=request.precision,
        channels_last=request.channels_last,
    )
    return SplitSegmenter(recipe.split(model), options)


def measured_stride(net: SplitNet) -> int:
    """Frame pixels per pixel of the first map, found by one run on a small black frame."""
    side = 2 * net.multiple
    with torch.no_grad():
        rows = int(net.encode(torch.zeros(1, 3, side, side))[0].shape[2])
    if side % rows:
        raise SegmenterError(
            f"{type(net).__name__} makes {rows} rows of features from {side}: no whole stride"
        )
    return side // rows
