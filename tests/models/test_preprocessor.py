"""Promise: a published net sees a frame's colours as its own preprocessor would hand them over, whatever it
does: exchange red and blue, not normalise, another factor, another mean.

Why: MobileViT takes BGR that is not normalised, and was fed RGB with ImageNet's mean: other masks, no word.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.test_hf_nets import segformer, transformers
from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.preprocessor import NAME, read_preprocessing

SIDE = 64
PUBLISHED = {"feature_extractor_type": "MobileViTFeatureExtractor", "do_flip_channel_order": True}
FILES: dict[str, dict[str, Any]] = {
    "as MobileViT is published": PUBLISHED,
    "MobileViT that says nothing": {"image_processor_type": "MobileViTImageProcessor"},
    "MobileViT in RGB": {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": False},
    "not normalised": {"image_processor_type": "SegformerImageProcessor", "do_normalize": False},
    "not rescaled": {
        "image_processor_type": "SegformerImageProcessor",
        "do_rescale": False,
        "image_mean": [123.0, 117.0, 104.0],
        "image_std": [58.0, 57.0, 57.0],
    },
    "another factor": {
        "image_processor_type": "SegformerImageProcessor",
        "rescale_factor": 1 / 127.5,
        "image_mean": [1.0, 1.0, 1.0],
        "image_std": [1.0, 1.0, 1.0],
    },
    "defaults that are not ImageNet's": {"image_processor_type": "BeitImageProcessor"},
}


def write(folder: Path, said: Any) -> Path:
    (folder / NAME).write_text(said if isinstance(said, str) else json.dumps(said))
    return folder


def mobilevit(folder: Path) -> Path:
    torch.manual_seed(1)
    hf = transformers()
    config = hf.MobileViTConfig(
        hidden_sizes=[16, 20, 24],
        neck_hidden_sizes=[4, 8, 8, 12, 12, 16, 32],
        aspp_out_channels=16,
        num_labels=3,
    )
    hf.MobileViTForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def frame() -> np.ndarray:
    """frame_HW3 of a size that no processor has to pad."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", FILES)
def test_a_frame_is_fed_as_the_processor_of_the_file_feeds_it(name: str, tmp_path: Path) -> None:
    segmenter: Any = build_segmenter(f"hf:{write(segformer(tmp_path), FILES[name])}")
    processor = transformers().AutoImageProcessor.from_pretrained(str(tmp_path), local_files_only=True)
    expected = processor(frame(), do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    normal = segmenter.normalise(torch.from_numpy(frame())[None].permute(0, 3, 1, 2).float() / 255.0)
    fed = normal.flip(1) if segmenter.net.bgr else normal
    torch.testing.assert_close(fed, expected, rtol=1e-4, atol=1e-4)


def test_mobilevit_gives_the_scores_of_its_own_pipeline(tmp_path: Path) -> None:
    hf = transformers()
    segmenter = build_segmenter(f"hf:{write(mobilevit(tmp_path), PUBLISHED)}")
    model = hf.AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    frames_B3HW = torch.from_numpy(frame())[None].permute(0, 3, 1, 2).float() / 255.0
    with torch.no_grad():
        logits = model(pixel_values=frames_B3HW.flip(1)).logits
        expected = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
    found = segmenter.head(segmenter.features(frames_B3HW))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_training_sees_the_same_colours(tmp_path: Path) -> None:
    from vidseg_core.models.trainable import trainable_net

    spec = f"hf:{write(mobilevit(tmp_path), PUBLISHED)}"
    frames_B3HW = torch.from_numpy(frame())[None].permute(0, 3, 1, 2).float() / 255.0
    segmenter, net = build_segmenter(spec), trainable_net(spec).eval()
    torch.testing.assert_close(net(frames_B3HW), segmenter.head(segmenter.features(frames_B3HW)))


def test_the_order_of_colours_is_part_of_the_digest(tmp_path: Path) -> None:
    plain = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": False}
    digests = [
        build_segmenter(f"hf:{write(mobilevit(tmp_path), said)}").digest for said in (PUBLISHED, plain)
    ]
    assert digests[0] != digests[1]


def test_a_file_of_no_known_processor_is_read_as_it_stands(tmp_path: Path) -> None:
    found = read_preprocessing(write(tmp_path, {"image_mean": 0.5, "image_std": [0.2, 0.3, 0.4]}))
    assert (found.mean, found.std, found.bgr) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4), False)
    said = {
        "do_normalize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_flip_channel_order": True,
    }
    found = read_preprocessing(write(tmp_path, said))
    assert (found.mean, found.std, found.bgr) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), True)


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        {"image_mean": "red"},
        {"image_mean": [1, 2]},
        {"image_std": [0, 1, 1]},
        {"rescale_factor": 0},
    ],
)
def test_a_file_that_cannot_be_meant_is_named(said: Any, tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match=f"{NAME} is not a readable preprocessor config") as caught:
        read_preprocessing(write(tmp_path, said))
    assert "\n" not in str(caught.value)
