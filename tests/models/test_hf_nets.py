"""Promise: a transformers net is read from its folder whole, or one sentence says what is wrong with it.

Nets that classify masks, not pixels, must become scores whose softmax means something; and a folder with
half of the weights, a pickle or another net's weights must not become a net with random layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.split import IMAGENET_MEAN, IMAGENET_STD, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision


def transformers() -> Any:
    import_torchvision()
    import transformers as hf

    return hf


def segformer(folder: Path, labels: int = 3, seed: int = 3) -> Path:
    hf = transformers()
    torch.manual_seed(seed)
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], decoder_hidden_size=16, num_labels=labels
    )
    hf.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def mask_config(kind: str) -> Any:
    """The smallest net that classifies masks."""
    hf = transformers()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = hf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, out_features=stages
    )
    if kind == "mask2former":
        return hf.Mask2FormerConfig(
            backbone_config=swin,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=7,
            num_labels=4,
        )
    decoder = hf.DetrConfig(
        d_model=32, decoder_layers=1, encoder_layers=1, num_queries=7, decoder_ffn_dim=16, encoder_ffn_dim=16
    )
    return hf.MaskFormerConfig(
        backbone_config=swin,
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=4,
    )


def frames(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("kind", ["mask2former", "maskformer"])
def test_nets_that_classify_masks_become_scores_of_classes(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = transformers().AutoModelForUniversalSegmentation.from_config(mask_config(kind)).eval()
    model.save_pretrained(tmp_path)
    x = frames()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        found = model(pixel_values=(x - mean) * (1.0 / std))
        classes = found.class_queries_logits.softmax(-1)[..., :-1]
        masks = found.masks_queries_logits.sigmoid()
        evidence = torch.einsum("bqc,bqhw->bchw", classes, masks)
        whole = F.interpolate(evidence, size=(64, 96), mode="bilinear", align_corners=False)
    segmenter = build_segmenter(f"hf:{tmp_path}")
    assert isinstance(segmenter, SplitSegmenter) and segmenter.trained and segmenter.stride == 4
    feats = segmenter.features(x)
    assert isinstance(feats, torch.Tensor) and torch.allclose(feats, evidence, atol=1e-5)
    scores = segmenter.head(feats)
    assert scores.shape == (2, 4, 64, 96) and torch.allclose(scores, whole.log(), atol=1e-4)
    torch.testing.assert_close(scores.softmax(dim=1), whole / whole.sum(dim=1, keepdim=True))
    assert segmenter.head(segmenter.features(frames(33, 47))).shape == (2, 4, 33, 47)


def parted_model(kind: str) -> Any:
    """The smallest net of a kind that is a chain of stages."""
    hf = transformers()
    if kind == "mobilenet_v2":
        config = hf.MobileNetV2Config(depth_multiplier=0.35, num_labels=4, finegrained_output=False)
        return hf.MobileNetV2ForSemanticSegmentation(config)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    convnext = hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=stages)
    config = hf.UperNetConfig(
        backbone_config=convnext, hidden_size=8, num_labels=4, auxiliary_channels=8, use_auxiliary_head=False
    )
    return hf.UperNetForSemanticSegmentation(config)


@pytest.mark.parametrize("kind", ["upernet", "mobilenet_v2"])
def test_chains_of_stages_are_in_parts(kind: str, tmp_path: Path) -> None:
    parted_model(kind).save_pretrained(tmp_path)
    segmenter = build_segmenter(f"hf:{tmp_path}")
    assert isinstance(segmenter, SplitSegmenter) and segmenter.has_parts
    for x in (frames(), frames(33, 47)):
        whole, parted = segmenter.features(x), segmenter.high(segmenter.low(x))
        pairs = zip(
            *((one,) if isinstance(one, torch.Tensor) else one for one in (whole, parted)), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_weights_file_says_how_many_classes_there_are(tmp_path: Path) -> None:
    spec = f"hf:{segformer(tmp_path / 'three')}"
    file = str(segformer(tmp_path / "five", labels=5) / "model.safetensors")
    segmenter = build_segmenter(spec, weights=file)
    assert len(segmenter.class_names) == 5 and segmenter.trained
    with pytest.raises(SegmenterError, match="is for 5 classes, but 4 were asked for"):
        build_segmenter(spec, weights=file, num_classes=4)


def test_weights_may_go_by_published_names_or_by_the_nets_own(tmp_path: Path) -> None:
    from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of

    spec = f"hf:{segformer(tmp_path)}"
    whole = build_segmenter(spec)
    net = trainable_net(spec)
    (tmp_path / "own.safetensors").write_bytes(weights_bytes(weights_of(net), ["a", "b", "c"]))
    own = build_segmenter(spec, weights=str(tmp_path / "own.safetensors"))
    published = build_segmenter(spec, weights=str(tmp_path / "model.safetensors"))
    assert own.class_names == ("a", "b", "c")
    scores = [one.head(one.features(frames())) for one in (whole, own, published)]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


def test_a_file_of_another_net_is_refused(tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    message = r"other\.safetensors does not fit hf:segformer-b0: \d+ .*missing"
    with pytest.raises(SegmenterError, match=message):
        build_segmenter("hf:segformer-b0", weights=str(tmp_path / "other.safetensors"))


def test_another_class_count_than_the_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match="is for 3 classes, but 5 were asked for"):
        build_segmenter(f"hf:{segformer(tmp_path)}", num_classes=5)


def test_absent_tensors_are_named(tmp_path: Path) -> None:
    state = load_file(segformer(tmp_path) / "model.safetensors")
    state.pop("decode_head.classifier.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SegmenterError, match=r"lack 1 tensors, the first is decode_head\.classifier\.weight"):
        build_segmenter(f"hf:{tmp_path}")


def test_tensors_of_another_shape_are_refused_in_one_sentence(tmp_path: Path) -> None:
    state = load_file(segformer(tmp_path) / "model.safetensors")
    state["decode_head.classifier.weight"] = torch.zeros(9, 16, 1, 1)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SegmenterError, match="the weights in") as caught:
        build_segmenter(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def relabelled(folder: Path, names: dict[str, str]) -> str:
    """The net in `folder` under other labels."""
    path = folder / "config.json"
    said = json.loads(path.read_text()) | {"id2label": names, "label2id": {}}
    path.write_text(json.dumps(said))
    return f"hf:{folder}"


def test_labels_with_gaps_are_named(tmp_path: Path) -> None:
    spec = relabelled(segformer(tmp_path), {"0": "sky", "1": "road", "7": "car"})
    message = r"config.json: id2label has 3 names, but none for class 2 .there is 7.: number them from 0 to 2"
    with pytest.raises(SegmenterError, match=message):
        build_segmenter(spec)


def test_more_labels_than_the_head_has_channels_are_counted(tmp_path: Path) -> None:
    spec = relabelled(segformer(tmp_path, labels=1), {"0": "background", "1": "road"})
    message = r"are for 1 class\(es\), but id2label in config.json has 2"
    with pytest.raises(SegmenterError, match=message) as caught:
        build_segmenter(spec)
    assert "report" not in str(caught.value)


def test_labels_that_are_called_the_same_are_told_apart(tmp_path: Path) -> None:
    spec = relabelled(segformer(tmp_path), {"0": "door", "1": "road", "2": "door"})
    assert build_segmenter(spec).class_names == ("door 0", "road", "door 2")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    segformer(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "num_labels": 3})
    )
    with pytest.raises(SegmenterError, match=r"the weights in .* lack \d+ tensors"):
        build_segmenter(f"hf:{tmp_path}")


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    path = segformer(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SegmenterError, match="the weights in .* cannot be loaded"):
        build_segmenter(f"hf:{tmp_path}")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the file ran code",))


def test_a_pickle_in_the_folder_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (segformer(tmp_path) / "model.safetensors").unlink()
    torch.save({"decode_head.classifier.weight": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SegmenterError, match="the weights in .* cannot be loaded"):
        build_segmenter(f"hf:{tmp_path}")
    assert "ran code" not in capsys.readouterr().out


def test_tensors_in_a_torch_file_are_read(tmp_path: Path) -> None:
    segformer(tmp_path)
    digest = build_segmenter(f"hf:{tmp_path}").digest
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert build_segmenter(f"hf:{tmp_path}").digest == digest


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "holds a bert net, which cannot be used to segment"),
        ({"model_type": "nothing-known"}, "is not a config that transformers knows"),
        ({}, "is not a config that transformers knows"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}},
            "is not a config that transformers knows",
        ),
    ],
)
def test_a_config_of_something_else_is_refused(config: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('the folder ran code')")
    with pytest.raises(SegmenterError, match=message) as caught:
        build_segmenter(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
