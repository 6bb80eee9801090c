"""`tiny-scenes`, `tiny-face`: nets whose weights lie inside the package, for use without any download.

Model: a bundled name is a `tiny:<width>` with class names and a weights file. Each file has a model card
beside it (same name, `.md`) that says on what and how it was trained, how it scores, its SHA-256 and the
command that makes it again. Invariant: the card's digest is the file's. Other weights of the same net
(`weights=...`, what `train-segmenter` wrote) take the place of the bundled ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vidseg_core.classes import FACE_CLASSES, SCENE_CLASSES
from vidseg_core.models.request import ModelRequest, assemble
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.tiny import tiny_recipe

FOLDER = Path(__file__).parent / "bundled"


def bundled_file(name: str) -> Path:
    """Weights in the package by name."""
    return FOLDER / f"{name}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A net that comes with the package."""

    width: int
    classes: int
    reduce: int = 1
    """The net sees frames at 1/reduce of their size, which is where it was trained."""

    def weights(self, name: str) -> Path:
        """Where the file is."""
        return bundled_file(name)

    def card(self, name: str) -> Path:
        """What a person should read before trusting it."""
        return FOLDER / f"{name}.md"


BUNDLED: Mapping[str, Bundled] = {
    "tiny-scenes": Bundled(width=12, classes=len(SCENE_CLASSES)),
    "tiny-face": Bundled(width=16, classes=len(FACE_CLASSES), reduce=2),
}


def build_bundled(request: ModelRequest) -> SplitSegmenter:
    """The segmenter that `request.spec` names, on the CPU."""
    bundled = BUNDLED[request.spec]
    weights = request.weights or str(bundled.weights(request.spec))
    return assemble(
        replace(request, weights=weights, channels_last=True),
        tiny_recipe(bundled.width, bundled.classes, reduce=bundled.reduce),
    )
