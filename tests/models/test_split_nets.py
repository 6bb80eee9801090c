"""Promise: an adapter's two halves are the net: head(features(x)) equals the undivided library model, bit for
bit.

A split that forgets a layer, a normalisation or an upsampling still yields plausible masks, so nothing else
would notice it. Frames of any size must come back at their own size, with nothing remembered between calls.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vidseg_core.models import Segmenter, SegmenterError, build_segmenter
from vidseg_core.models.protocol import parts_of
from vidseg_core.models.split import IMAGENET_MEAN, IMAGENET_STD, SplitOptions, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision

SMP_SPECS = ("DeepLabV3Plus", "Unet", "FPN", "PSPNet", "PAN", "Linknet", "UPerNet", "Segformer")
TORCHVISION_NAMES = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")


def frames(height: int, width: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, 3, height, width, generator=generator)


def normalised(frames_B3HW: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames_B3HW - mean) * (1.0 / std)


def split(spec: str, **options: Any) -> SplitSegmenter:
    segmenter = build_segmenter(spec, **options)
    assert isinstance(segmenter, SplitSegmenter)
    return segmenter


def assert_same_net(segmenter: Segmenter, whole: torch.Tensor, frames_B3HW: torch.Tensor) -> None:
    scores = segmenter.head(segmenter.features(frames_B3HW))
    assert scores.shape == (len(frames_B3HW), len(segmenter.class_names), *frames_B3HW.shape[2:])
    assert torch.equal(scores, whole), float((scores - whole).abs().max() / whole.abs().max())


@pytest.mark.parametrize("architecture", SMP_SPECS)
def test_smp_halves_equal_the_whole(architecture: str) -> None:
    import_torchvision()
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = smp.create_model(architecture, "resnet18", encoder_weights=None, classes=5).eval()
    x = frames(128, 256) if architecture == "PAN" else frames(64, 96)
    with torch.no_grad():
        whole = model(normalised(x))
    assert_same_net(split(f"smp:{architecture}/resnet18", num_classes=5), whole, x)


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_torchvision_halves_equal_the_whole(name: str) -> None:
    models: Any = import_torchvision().models
    torch.manual_seed(0)
    kwargs = {} if name.startswith("lraspp") else {"aux_loss": False}
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=4, **kwargs).eval()
    x = frames(64, 96)
    with torch.no_grad():
        whole = model(normalised(x))["out"]
    assert_same_net(split(f"torchvision:{name}", num_classes=4), whole, x)


def tiny_hf_config(kind: str) -> Any:
    import_torchvision()
    import transformers

    hf: Any = transformers
    if kind == "segformer":
        return hf.SegformerConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], decoder_hidden_size=16, num_labels=3
        )
    if kind == "upernet":
        backbone = hf.ConvNextConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        return hf.UperNetConfig(
            backbone_config=backbone, hidden_size=16, num_labels=3, use_auxiliary_head=False
        )
    if kind == "mobilenet_v2":
        return hf.MobileNetV2Config(depth_multiplier=0.25, num_labels=3)
    return hf.DPTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        num_labels=3,
        use_auxiliary_head=False,
    )


@pytest.mark.parametrize("kind", ["segformer", "upernet", "mobilenet_v2", "dpt"])
def test_hf_halves_equal_the_whole(kind: str, tmp_path: Path) -> None:
    import transformers as hf

    torch.manual_seed(3)
    model = hf.AutoModelForSemanticSegmentation.from_config(tiny_hf_config(kind)).eval()
    model.save_pretrained(tmp_path)
    x = frames(64, 64)
    with torch.no_grad():
        logits = model(pixel_values=normalised(x)).logits
        whole = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    segmenter = split(f"hf:{tmp_path}")
    assert_same_net(segmenter, whole, x)
    assert segmenter.trained and segmenter.note == ""


def test_hf_config_alone_is_for_training_and_says_so(tmp_path: Path) -> None:
    """It became a net with random weights, whose masks look like masks."""
    tiny_hf_config("segformer").save_pretrained(tmp_path)
    asked: dict[str, Any] = {"num_classes": 7, "to_train": True}
    first, second = split(f"hf:{tmp_path}", **asked), split(f"hf:{tmp_path}", **asked)
    assert len(first.class_names) == 7 and not first.trained and "random weights" in first.note
    assert first.digest == second.digest != split(f"hf:{tmp_path}", **asked, seed=1).digest
    with pytest.raises(
        SegmenterError, match=r"has a config.json, but no weights: put .* or name a file with"
    ):
        split(f"hf:{tmp_path}", num_classes=7)


def test_hf_reads_normalisation_and_class_names(tmp_path: Path) -> None:
    config = tiny_hf_config("segformer")
    config.id2label = {0: "sky", 1: "road", 2: "car"}
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    segmenter = split(f"hf:{tmp_path}", to_train=True)
    assert segmenter.class_names == ("sky", "road", "car")
    assert torch.allclose(segmenter.normalise(torch.ones(1, 3, 8, 8)), torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize("size", [(33, 47), (64, 65), (1, 1)])
def test_any_size_comes_back_as_the_padded_frame_cropped(size: tuple[int, int]) -> None:
    segmenter = split("smp:FPN/resnet18", num_classes=3)
    x = frames(*size, batch=2)
    rows, columns = (-(-side // 32) * 32 for side in size)
    padded = F.pad(x, (0, columns - size[1], 0, rows - size[0]), mode="replicate")
    whole = segmenter.head(segmenter.features(padded))[:, :, : size[0], : size[1]]
    assert torch.equal(segmenter.head(segmenter.features(x)), whole)


@pytest.mark.parametrize(
    "spec",
    [
        "tiny:8",
        "tiny-face",
        "smp:DeepLabV3Plus/resnet18",
        "smp:Unet/resnet18",
        "smp:FPN/resnet18",
        "smp:FPN/mobilenet_v2",
        "smp:FPN/densenet121",
        "torchvision:fcn_resnet50",
        "torchvision:lraspp_mobilenet_v3_large",
        "torchvision:deeplabv3_mobilenet_v3_large",
        "fastseg:128",
        "net:pspnet-resnet18",
        "hf:segformer-b0",
    ],
)
def test_the_two_parts_of_features_are_the_whole(spec: str) -> None:
    segmenter = split(spec)
    assert segmenter.has_parts
    for x in (frames(64, 96), frames(97, 65)):
        whole, low = segmenter.features(x), segmenter.low(x)
        before = [part.clone() for part in _maps(low)]
        parted = segmenter.high(low)
        assert all(torch.equal(a, b) for a, b in zip(_maps(whole), _maps(parted), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(_maps(low), before, strict=True))


def _maps(feats: Any) -> tuple[torch.Tensor, ...]:
    return feats if isinstance(feats, tuple) else (feats,)


@pytest.mark.parametrize("spec", ["plain", "smp:PSPNet/resnet18", "smp:Unet/efficientnet-b0"])
def test_nets_without_parts_say_so(spec: str) -> None:
    with pytest.raises(SegmenterError, match="has no parts"):
        parts_of(build_segmenter(spec), "propagator 'lvs'")


def test_head_depends_on_its_argument_alone() -> None:
    segmenter = split("smp:FPN/resnet18", num_classes=3)
    odd, even = segmenter.features(frames(33, 47)), segmenter.features(frames(64, 32))
    assert segmenter.head(odd).shape[2:] == (33, 47)
    assert segmenter.head(even).shape[2:] == (64, 32)
    assert torch.equal(segmenter.head(odd), segmenter.head(odd))


def askew(tensor: torch.Tensor) -> torch.Tensor:
    """The same values at an address that no allocator would choose, as in a file mapped into memory."""
    room = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
    room[1:] = tensor.reshape(-1)
    return room[1:].view(tensor.shape)


def test_where_bytes_lie_in_memory_changes_no_bit() -> None:
    segmenter = split("smp:FPN/resnet18", num_classes=3)
    x = frames(64, 64)
    feats = segmenter.features(x)
    assert isinstance(feats, torch.Tensor)
    scores = segmenter.head(feats)
    again = segmenter.features(askew(x))
    assert isinstance(again, torch.Tensor) and torch.equal(again, feats)
    assert torch.equal(segmenter.head(askew(feats)), scores)
    assert torch.equal(segmenter.head(feats.contiguous(memory_format=torch.channels_last)), scores)
    for weight in segmenter.net.parameters():
        weight.data = askew(weight.data)
    rewrapped = SplitSegmenter(
        segmenter.net, SplitOptions(name="x", class_names=("a", "b", "c"), trained=False)
    )
    rewrapped_feats = rewrapped.features(x)
    assert isinstance(rewrapped_feats, torch.Tensor) and torch.equal(rewrapped_feats, feats)


def test_features_may_be_warped_map_by_map() -> None:
    segmenter = split("torchvision:lraspp_mobilenet_v3_large", num_classes=3)
    maps = segmenter.features(frames(33, 47))
    assert isinstance(maps, tuple)
    moved = tuple(F.grid_sample(m, torch.zeros(1, *m.shape[2:], 2), align_corners=False) for m in maps)
    assert segmenter.head(moved).shape == (1, 3, 33, 47)


def test_gradients_reach_features_and_never_weights() -> None:
    segmenter = split("smp:FPN/resnet18", num_classes=3)
    feats = segmenter.features(frames(32, 32))
    assert isinstance(feats, torch.Tensor) and not feats.requires_grad
    feats = feats.requires_grad_()
    segmenter.head(feats).sum().backward()
    assert feats.grad is not None
    assert not any(weight.requires_grad for weight in segmenter.net.parameters())


def test_random_weights_are_seeded_and_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = split("smp:FPN/resnet18")
    assert torch.equal(torch.rand(3), expected)
    assert first.digest == split("smp:FPN/resnet18").digest
    assert first.digest != split("smp:FPN/resnet18", seed=1).digest
    assert not first.trained and "seed 0" in first.note


def test_bf16_and_channels_last_still_give_float32_scores_nearby() -> None:
    x = frames(64, 64)
    plain = split("smp:FPN/resnet18")
    reference = plain.head(plain.features(x))
    for options, tolerance in (({"precision": "bf16"}, 0.1), ({"channels_last": True}, 1e-4)):
        other = split("smp:FPN/resnet18", **options)
        scores = other.head(other.features(x))
        assert scores.dtype == torch.float32
        assert float((scores - reference).abs().max()) < tolerance * max(1.0, float(reference.abs().max()))


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, 8, 8), torch.zeros(1, 8, 8, 3), torch.zeros(1, 3, 8, 8).byte()]
)
def test_frames_of_the_wrong_kind_are_refused(wrong: torch.Tensor) -> None:
    with warnings.catch_warnings(), pytest.raises(SegmenterError, match="a segmenter takes"):
        build_segmenter("plain").features(wrong)
