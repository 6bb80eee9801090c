"""Promise: every net that the papers name is built by its short name, halves that equal the whole included.

The table in docs/models.md is what people choose from; a library that renames an encoder or changes a head
would break a row of it unseen. Weights are random, frames are small; each net is built once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vidseg_core.models import Segmenter, build_segmenter
from vidseg_core.models.registry import ALIASES
from vidseg_core.models.request import seeded
from vidseg_core.models.split import IMAGENET_MEAN, IMAGENET_STD, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision

CLASSES = 5
DOCS = Path(__file__).parents[2] / "docs" / "models.md"
STRIDES = {"deeplabv3-resnet50": 8, "fcn-resnet50": 8}
"""Of the others it is 4."""
OF_LIBRARIES = [alias for alias, spec in ALIASES.items() if not spec.startswith("net:")]
"""The others are built here: test_papers_nets.py."""


def undivided(spec: str, normal_B3HW: torch.Tensor) -> torch.Tensor:
    """The scores of the library's own net with the same seed, at the frame's size."""
    family, _, body = spec.partition(":")
    torchvision: Any = import_torchvision()
    size = normal_B3HW.shape[2:]
    with torch.no_grad():
        if family == "smp":
            import segmentation_models_pytorch as smp

            arch, _, encoder = body.partition("/")
            net = seeded(0, lambda: smp.create_model(arch, encoder, encoder_weights=None, classes=CLASSES))
            return net(normal_B3HW)
        if family == "torchvision":
            options = {"weights": None, "weights_backbone": None, "aux_loss": False}
            net = seeded(0, lambda: torchvision.models.get_model(body, num_classes=CLASSES, **options))
            return net(normal_B3HW)["out"]
        import transformers

        hf: Any = transformers
        if body == "segformer-b0":
            config = hf.SegformerConfig(num_labels=CLASSES)
            net = seeded(0, lambda: hf.SegformerForSemanticSegmentation(config))
            logits = net(pixel_values=normal_B3HW).logits
            return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        config = hf.Mask2FormerConfig(num_labels=CLASSES)
        net = seeded(0, lambda: hf.Mask2FormerForUniversalSegmentation(config))
        found = net(pixel_values=normal_B3HW)
        classes = found.class_queries_logits.softmax(-1)[..., :-1]
        masks = found.masks_queries_logits.sigmoid()
        evidence = torch.einsum("bqc,bqhw->bchw", classes, masks)
        return F.interpolate(evidence, size=size, mode="bilinear", align_corners=False).clamp_min(1e-8).log()


@pytest.mark.parametrize(
    "alias",
    [
        pytest.param(alias, marks=[pytest.mark.slow] if "mask2former" in alias else [])
        for alias in OF_LIBRARIES
    ],
)
def test_each_named_net_is_the_librarys_in_two_halves(alias: str) -> None:
    segmenter = build_segmenter(alias, num_classes=CLASSES)
    assert isinstance(segmenter, Segmenter) and isinstance(segmenter, SplitSegmenter)
    assert segmenter.name == ALIASES[alias] and not segmenter.trained
    assert segmenter.stride == STRIDES.get(alias, 4)
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(7))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        feats = segmenter.features(x)
        assert isinstance(feats, torch.Tensor)
        assert feats.shape[2:] == (64 // segmenter.stride, 96 // segmenter.stride)
        scores = segmenter.head(feats)
        odd = segmenter.head(segmenter.features(x[:, :, :37, :61]))
    assert scores.shape == (1, CLASSES, 64, 96) and scores.dtype == torch.float32
    assert torch.equal(scores, undivided(ALIASES[alias], (x - mean) * (1.0 / std)))
    assert odd.shape == (1, CLASSES, 37, 61)


def test_the_page_lists_every_name_with_its_spec() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for alias, spec in ALIASES.items():
        assert f"| `{alias}` | `{spec}` |" in text
