"""Promise: what a user types becomes a segmenter, or one sentence that says what to type instead.

Model libraries take seconds to import, so naming a small segmenter must not load them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vidseg_core.models import Segmenter, SegmenterError, build_segmenter, labels_from_scores, resolve_device

PLUGIN = """
class Dark:
    class_names = ("dark", "bright")
    stride = 1
    def __init__(self, device="cpu", weights=None): self.weights = weights
    def features(self, frames): return frames.mean(dim=1, keepdim=True)
    def head(self, feats): return (feats - 0.5) * feats.new_tensor([-1.0, 1.0]).view(1, 2, 1, 1)

class Halfway:
    def features(self, frames): return frames
"""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("plane", "did you mean 'plain'"),
        ("smp:Unett/resnet18", "did you mean 'Unet'"),
        ("smp:Unet/resnet19", "did you mean 'resnet18'"),
        ("smp:Unet", "smp:<Architecture>/<encoder>"),
        ("torchvision:fcn_resnet5", "did you mean 'fcn_resnet50'"),
        ("hf:./nowhere", "needs a local folder with a config.json"),
        ("hf:segformer-b9", "segformer-b0"),
        ("onnx:nowhere.onnx", "nowhere.onnx does not exist"),
        ("deeplabv3plus-resnet5", "did you mean 'deeplabv3plus-resnet50'"),
        ("sm:Unet/resnet18", "did you mean 'smp'"),
        ("no.such.module:Net", "cannot import 'no.such.module'"),
        ("os.path:Net", "no class 'Net'"),
    ],
)
def test_a_wrong_spec_is_answered_in_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(SegmenterError, match=message) as caught:
        build_segmenter(spec)
    assert "\n" not in str(caught.value)


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SegmenterError, match="no weights"):
        build_segmenter("plain", weights="a.safetensors")
    with pytest.raises(SegmenterError, match="6 classes"):
        build_segmenter("plain", num_classes=4)
    with pytest.raises(SegmenterError, match="class_names has 1"):
        build_segmenter("smp:FPN/resnet18", class_names=["one"], num_classes=2)
    with pytest.raises(SegmenterError, match="precision"):
        build_segmenter("plain", precision="int4")


def test_devices_are_checked_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(SegmenterError, match="'gpu' is not a torch device"):
        resolve_device("gpu")


@pytest.mark.parametrize("spec", ["constant", "plain"])
def test_small_segmenters_keep_the_protocol(spec: str) -> None:
    segmenter = build_segmenter(spec)
    assert isinstance(segmenter, Segmenter)
    assert len(segmenter.digest) == 64 and segmenter.note
    scores = segmenter.head(segmenter.features(torch.rand(2, 3, 33, 47)))
    assert scores.shape == (2, len(segmenter.class_names), 33, 47) and scores.dtype == torch.float32


def test_constant_says_class_0() -> None:
    segmenter = build_segmenter("constant", num_classes=3)
    labels = labels_from_scores(segmenter.head(segmenter.features(torch.rand(1, 3, 8, 9))))
    assert labels.shape == (1, 8, 9) and not labels.any()


def test_a_plugin_needs_four_names_and_gets_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin_nets.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    segmenter = build_segmenter("my_plugin_nets:Dark", seed=3)
    assert isinstance(segmenter, Segmenter)
    assert segmenter.class_names == ("dark", "bright") and segmenter.name == "my_plugin_nets:Dark"
    bright = labels_from_scores(segmenter.head(segmenter.features(torch.ones(1, 3, 4, 4))))
    assert bool((bright == 1).all())
    assert len(segmenter.digest) == 64
    with pytest.raises(SegmenterError, match="lacks head, class_names, stride"):
        build_segmenter("my_plugin_nets:Halfway")


@pytest.mark.parametrize("classes", [1, 2, 19, 256])
def test_labels_are_the_argmax_and_ties_go_to_the_lower_id(classes: int) -> None:
    random = torch.Generator().manual_seed(classes)
    scores = torch.randint(0, 4, (2, classes, 17, 13), generator=random).float()
    expected = torch.zeros(2, 17, 13, dtype=torch.uint8)
    for number in range(classes - 1, -1, -1):
        expected[scores[:, number] == scores.amax(dim=1)] = number
    labels = labels_from_scores(scores)
    assert torch.equal(labels, expected) and labels.dtype == torch.uint8


def test_importing_the_room_loads_no_model_library() -> None:
    heavy = ("torchvision", "timm", "transformers", "segmentation_models_pytorch", "cv2", "av", "ray")
    code = (
        "import sys; from vidseg_core.models import build_segmenter; build_segmenter('plain');"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
