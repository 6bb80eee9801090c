"""`preprocessor_config.json`: what becomes of a frame's colours before a published net sees it.

Model: an image processor of transformers multiplies stored values (0..255) by a factor, subtracts a mean,
divides by a deviation, and may exchange red and blue; each step may be off. Frames here are RGB in 0..1, so
that all of it folds into one mean, one deviation and one yes or no. What the file leaves out is the default
of the processor that it names, where transformers knows that one: MobileViT's exchanges the colours and
never normalises, and its files do not say so. Sizes are not read: `--working_size` decides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.split import IMAGENET_MEAN, IMAGENET_STD
from vidseg_core.models.torchvision_compat import import_torchvision

NAME = "preprocessor_config.json"
_BYTE = 1.0 / 255.0
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a net is fed: (frame - mean) / std for a frame in 0..1, in RGB or BGR order."""

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    bgr: bool = False
    """Red and blue change places, after normalisation by the file's own (RGB) order."""


def read_preprocessing(folder: Path | None) -> Preprocessing:
    """What the file in `folder` says; without one ImageNet's normalisation. `SegmenterError` names it."""
    path = folder / NAME if folder is not None else None
    if path is None or not path.is_file():
        return Preprocessing()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return _preprocessing({**_defaults(path.parent, said), **said})
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise SegmenterError(f"{path} is not a readable preprocessor config: {error}") from error


def _preprocessing(said: Mapping[str, Any]) -> Preprocessing:
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    if said.get("do_normalize", True):
        mean = _triple("image_mean", said.get("image_mean", IMAGENET_MEAN))
        std = _triple("image_std", said.get("image_std", IMAGENET_STD))
    factor = float(said.get("rescale_factor", _BYTE)) if said.get("do_rescale", True) else 1.0
    if not all(math.isfinite(value) and value > 0 for value in (factor, *std)):
        raise ValueError("image_std and rescale_factor must be above 0")
    if not math.isclose(factor, _BYTE, rel_tol=1e-6):  # frames are 0..1 here, not 0..255
        white = 255.0 * factor
        mean, std = _scaled(mean, white), _scaled(std, white)
    return Preprocessing(mean=mean, std=std, bgr=bool(said.get("do_flip_channel_order", False)))


def _defaults(folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the named processor does where the file is silent; empty for one that transformers lacks."""
    import_torchvision()
    try:
        from transformers import AutoImageProcessor

        known: Any = AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception:  # whatever it is, the file alone has to do
        return {}
    steps = ("do_rescale", "do_normalize", "do_flip_channel_order")
    values = {name: getattr(known, name, None) for name in ("rescale_factor", "image_mean", "image_std")}
    return {name: bool(getattr(known, name, False)) for name in steps} | {
        name: value for name, value in values.items() if value is not None
    }


def _triple(name: str, value: Any) -> Triple:
    """Three numbers, or one for all channels."""
    values = [value] * 3 if isinstance(value, int | float) else list(value)
    if len(values) != 3:
        raise ValueError(f"{name} should be three numbers, not {value!r}")
    red, green, blue = map(float, values)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f"{name} should be finite numbers, not {value!r}")
    return red, green, blue


def _scaled(values: Triple, white: float) -> Triple:
    red, green, blue = values
    return red / white, green / white, blue / white
