"""Promise: a weights file fits completely or is refused with one sentence that names it, and never runs code.

Loading "what fits" leaves random layers that look like a badly trained net; unpickling runs whatever the file
says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision
from vidseg_core.models.trainable import trainable_net

SPEC = "smp:FPN/resnet18"


def whole_state(classes: int = 3) -> dict[str, torch.Tensor]:
    import_torchvision()
    import segmentation_models_pytorch as smp

    torch.manual_seed(11)
    state = smp.create_model("FPN", "resnet18", encoder_weights=None, classes=classes).state_dict()
    return {key: value.clone() for key, value in state.items()}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return whole_state()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the file ran code",))


def test_every_format_gives_the_same_net(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    names = ["sky", "road", "car"]
    save_file(state, tmp_path / "a.safetensors", metadata={"class_names": json.dumps(names)})
    torch.save(state, tmp_path / "b.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        tmp_path / "c.pt",
    )
    built = [
        build_segmenter(SPEC, weights=str(tmp_path / name)) for name in ("a.safetensors", "b.pt", "c.pt")
    ]
    assert [segmenter.trained for segmenter in built] == [True] * 3
    assert built[0].class_names == tuple(names)
    assert built[1].class_names == ("class_0", "class_1", "class_2")
    assert built[1].digest == built[2].digest
    x = torch.rand(1, 3, 32, 32)
    scores = [segmenter.head(segmenter.features(x)) for segmenter in built]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    assert isinstance(built[0], SplitSegmenter)
    weight = built[0].net.state_dict()["segmentation_head.0.weight"]
    assert torch.equal(weight, state["segmentation_head.0.weight"])


def test_one_changed_weight_changes_the_digest(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    other = dict(state)
    other["segmentation_head.0.bias"] = other["segmentation_head.0.bias"] + 1e-3
    save_file(state, tmp_path / "a.safetensors")
    save_file(other, tmp_path / "b.safetensors")
    digests = {build_segmenter(SPEC, weights=str(tmp_path / f"{name}.safetensors")).digest for name in "ab"}
    assert len(digests) == 2


def test_a_wrong_class_count_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(SegmenterError, match=r"a\.safetensors is for 3 classes, but 5 were asked for"):
        build_segmenter(SPEC, weights=str(tmp_path / "a.safetensors"), num_classes=5)


def test_missing_and_surplus_keys_are_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    part = {key: value for key, value in state.items() if not key.startswith("encoder.conv1")}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(
        SegmenterError, match=r"part\.safetensors.*encoder\.conv1\.weight\) missing, none too many"
    ):
        build_segmenter(SPEC, weights=str(tmp_path / "part.safetensors"))
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(SegmenterError, match=r"other\.safetensors does not fit smp:Unet/resnet18"):
        build_segmenter("smp:Unet/resnet18", weights=str(tmp_path / "other.safetensors"))


def test_pickled_code_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(SegmenterError, match=r"bomb\.pt is not a plain torch state dict"):
        build_segmenter(SPEC, weights=str(tmp_path / "bomb.pt"))
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["junk.pt", "junk.safetensors"])
def test_files_that_are_not_weights_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"hello, this is text " * 20)
    with pytest.raises(SegmenterError, match=name.replace(".", r"\.")):
        build_segmenter(SPEC, weights=str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match=r"nowhere\.pt does not exist"):
        build_segmenter(SPEC, weights=str(tmp_path / "nowhere.pt"))


@pytest.mark.parametrize("names", ["5", '"sky"', "[1, 2, 3]", "{", '{"0": "sky"}'])
def test_class_names_that_are_no_list_of_texts_are_refused(names: str, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={"class_names": names})
    with pytest.raises(SegmenterError, match=r"weights file .*a\.safetensors"):
        build_segmenter(SPEC, weights=str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("content", [{}, {"weight": "text"}, [torch.zeros(2)], torch.zeros(3), {"epoch": 3}])
def test_a_torch_file_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(SegmenterError, match=r"a\.pt holds (no state dict|something else than tensors)"):
        build_segmenter(SPEC, weights=str(tmp_path / "a.pt"))


@pytest.mark.parametrize("spec", ["torchvision:lraspp_mobilenet_v3_large", "smp:FPN/mobilenet_v2"])
def test_weights_of_another_architecture_are_refused(
    spec: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "fpn.safetensors")
    with pytest.raises(SegmenterError, match=rf"fpn\.safetensors does not fit {spec}: \d+ \(.*\) missing"):
        build_segmenter(spec, weights=str(tmp_path / "fpn.safetensors"))


def test_torchvision_weights_may_carry_their_auxiliary_head(tmp_path: Path) -> None:
    models = import_torchvision().models
    name = "deeplabv3_mobilenet_v3_large"
    whole = models.get_model(name, weights=None, weights_backbone=None, num_classes=4, aux_loss=True)
    torch.save(whole.state_dict(), tmp_path / "tv.pt")
    segmenter = build_segmenter(f"torchvision:{name}", weights=str(tmp_path / "tv.pt"))
    assert len(segmenter.class_names) == 4 and segmenter.trained


@pytest.mark.parametrize(
    ("spec", "classifier"),
    [
        (SPEC, "resnet18"),
        ("smp:FPN/densenet121", "densenet121"),
        ("torchvision:lraspp_mobilenet_v3_large", "mobilenet_v3_large"),
    ],
)
def test_an_encoder_begins_with_the_weights_of_an_image_classifier(
    spec: str, classifier: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    state = import_torchvision().models.get_model(classifier, weights=None).state_dict()
    state = {key: value for key, value in state.items() if "num_batches" not in key}  # old files have none
    if classifier == "densenet121":  # nor the names of today
        state = {re.sub(r"(denselayer\d+\.(norm|conv))([12])", r"\1.\3", k): v for k, v in state.items()}
    torch.save(state, tmp_path / "imagenet.pth")
    file = str(tmp_path / "imagenet.pth")
    net, drawn = trainable_net(spec, encoder_weights=file, seed=1).net, trainable_net(spec, seed=1).net
    first = next(iter(state.values()))
    assert any(
        value.shape == first.shape and torch.equal(value, first) for value in net.state_dict().values()
    )
    same = {key: torch.equal(value, net.state_dict()[key]) for key, value in drawn.state_dict().items()}
    assert all(alike for key, alike in same.items() if not key.startswith(("encoder", "backbone")))
    assert not all(same.values())


def test_weights_that_do_not_fit_the_encoder_are_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(5)}, tmp_path / "a.pth")
    file = str(tmp_path / "a.pth")
    with pytest.raises(SegmenterError, match=r"a\.pth does not fit the encoder of smp:FPN/resnet18: \d+ \("):
        trainable_net(SPEC, encoder_weights=file)
    with pytest.raises(SegmenterError, match="'tiny:8' has no encoder that weights of its own fit"):
        trainable_net("tiny:8", encoder_weights=file)
