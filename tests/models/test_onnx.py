"""Promise: an ONNX file segments as the net that it was made of, whatever its layout, and says what is wrong.

A file names neither its normalisation nor its layout: a wrong guess gives masks that look like a bad net. One
that fails after hours on a worker, or reads weights from somewhere else, is worse than one that is refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidseg_core.models import Segmenter, SegmenterError, build_segmenter
from vidseg_core.models.split import IMAGENET_MEAN, IMAGENET_STD

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASSES = 4
WEIGHT = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(1)) / 4
BIAS = torch.randn(CLASSES, generator=torch.Generator().manual_seed(2))


def write(
    path: Path,
    *,
    size: tuple[Any, Any] = ("h", "w"),
    batch: Any = "n",
    kind: str = "FLOAT",
    last: bool = False,
    labels: bool = False,
    classes: int = CLASSES,
    inputs: int = 1,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """A net of one convolution, stride 4, no padding, in the layout that is asked for."""
    helper, types = onnx.helper, onnx.TensorProto
    constants = [
        onnx.numpy_helper.from_array(WEIGHT[:classes].numpy(), "weight"),
        onnx.numpy_helper.from_array(BIAS[:classes].numpy(), "bias"),
    ]
    nodes, at = [], "frames"
    if kind != "FLOAT":
        nodes.append(helper.make_node("Cast", [at], ["cast"], to=types.FLOAT))
        at = "cast"
    if last:
        nodes.append(helper.make_node("Transpose", [at], ["first"], perm=[0, 3, 1, 2]))
        at = "first"
    nodes.append(helper.make_node("Conv", [at, "weight", "bias"], ["raw"], strides=[4, 4]))
    at = "raw"
    if labels:
        nodes.append(helper.make_node("ArgMax", [at], ["labels"], axis=1, keepdims=1))
        at = "labels"
    elif last:
        nodes.append(helper.make_node("Transpose", [at], ["back"], perm=[0, 2, 3, 1]))
        at = "back"
    shape = [batch, *size, 3] if last else [batch, 3, *size]
    entry = [helper.make_tensor_value_info("frames", getattr(types, kind), shape)]
    entry += [helper.make_tensor_value_info(f"more{k}", types.FLOAT, [1]) for k in range(inputs - 1)]
    out = helper.make_tensor_value_info(at, types.INT64 if labels else types.FLOAT, [None] * 4)
    graph = helper.make_graph(nodes, "net", entry, [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in (metadata or {}).items()})
    onnx.save(model, str(path))
    return path


def reference(
    frames_B3HW: torch.Tensor,
    mean: Any = IMAGENET_MEAN,
    std: Any = IMAGENET_STD,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """The convolution at `size`, by default that of the frames, which divides by 4."""
    means, deviations = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    scores = F.conv2d((frames_B3HW - means) / deviations, WEIGHT, BIAS, stride=4)
    return F.interpolate(scores, size=size or frames_B3HW.shape[2:], mode="bilinear", align_corners=False)


def frames(height: int = 64, width: int = 96, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(9))


def scores_of(segmenter: Segmenter, frames_B3HW: torch.Tensor) -> torch.Tensor:
    feats = segmenter.features(frames_B3HW)
    scores = segmenter.head(feats)
    assert isinstance(feats, torch.Tensor) and torch.equal(feats, scores), "features are the scores"
    return scores


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_it_is_the_net_that_it_was_made_of(batch: Any, last: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", batch=batch, last=last)
    segmenter = build_segmenter(f"onnx:{path}")
    assert isinstance(segmenter, Segmenter) and segmenter.trained and segmenter.stride == 1
    assert segmenter.class_names == ("class_0", "class_1", "class_2", "class_3")
    x = frames(batch=3)
    torch.testing.assert_close(scores_of(segmenter, x), reference(x), rtol=1e-4, atol=1e-5)


def test_bytes_are_fed_as_bytes(tmp_path: Path) -> None:
    segmenter = build_segmenter(f"onnx:{write(tmp_path / 'net.onnx', kind='UINT8')}")
    x = (frames() * 255).round() / 255
    expected = reference(x, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    torch.testing.assert_close(scores_of(segmenter, x), expected, rtol=1e-4, atol=1e-2)


def test_half_precision_input_is_cast(tmp_path: Path) -> None:
    segmenter = build_segmenter(f"onnx:{write(tmp_path / 'net.onnx', kind='FLOAT16')}")
    assert float((scores_of(segmenter, frames()) - reference(frames())).abs().max()) < 0.02


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 65)])
def test_a_file_of_any_size_takes_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    segmenter = build_segmenter(f"onnx:{write(tmp_path / 'net.onnx')}")
    x = frames(*size)
    rows, columns = (-(-side // 32) * 32 for side in size)
    padded = F.pad(x, (0, columns - size[1], 0, rows - size[0]), mode="replicate")
    expected = reference(padded)[:, :, : size[0], : size[1]]
    torch.testing.assert_close(scores_of(segmenter, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (70, 101), (20, 30)])
def test_a_file_of_one_size_gets_frames_of_that_size(size: tuple[int, int], tmp_path: Path) -> None:
    segmenter = build_segmenter(f"onnx:{write(tmp_path / 'net.onnx', size=(64, 96), batch=1)}")
    x = frames(*size, batch=2)
    fed = F.interpolate(x, size=(64, 96), mode="bilinear", align_corners=False, antialias=True)
    expected = reference(x if size == (64, 96) else fed, size=size)
    torch.testing.assert_close(scores_of(segmenter, x), expected, rtol=1e-4, atol=1e-5)


def test_metadata_say_normalisation_and_class_names(tmp_path: Path) -> None:
    said = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "class_names": ["a", "b", "c", "d"]}
    segmenter = build_segmenter(f"onnx:{write(tmp_path / 'net.onnx', metadata=said)}")
    assert segmenter.class_names == ("a", "b", "c", "d")
    expected = reference(frames(), mean=said["mean"], std=said["std"])
    torch.testing.assert_close(scores_of(segmenter, frames()), expected, rtol=1e-4, atol=1e-5)


def test_a_preprocessor_config_beside_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    segmenter = build_segmenter(f"onnx:{write(tmp_path / 'net.onnx')}")
    expected = reference(frames(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    torch.testing.assert_close(scores_of(segmenter, frames()), expected, rtol=1e-4, atol=1e-5)


def test_a_preprocessor_that_exchanges_red_and_blue_is_followed(tmp_path: Path) -> None:
    spec = f"onnx:{write(tmp_path / 'net.onnx')}"
    plain = build_segmenter(spec)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"do_flip_channel_order": true, "do_normalize": false, "do_rescale": true}'
    )
    segmenter = build_segmenter(spec)
    expected = reference(frames().flip(1), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    torch.testing.assert_close(scores_of(segmenter, frames()), expected, rtol=1e-4, atol=1e-5)
    assert segmenter.digest != plain.digest


def test_the_digest_is_of_the_content_and_not_of_the_path(tmp_path: Path) -> None:
    one = write(tmp_path / "one.onnx")
    (tmp_path / "two.onnx").write_bytes(one.read_bytes())
    other = write(tmp_path / "other.onnx", metadata={"mean": [0.1, 0.1, 0.1]})
    digests = [build_segmenter(f"onnx:{tmp_path / name}.onnx").digest for name in ("one", "two")]
    assert digests[0] == digests[1] != build_segmenter(f"onnx:{other}").digest


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ({}, {"num_classes": 7}, "is for 4 classes, but 7 were asked for"),
        ({}, {"precision": "bf16"}, "its own precision"),
        ({}, {"weights": "w.safetensors"}, "brings its own weights"),
        ({"labels": True}, {}, "no output with scores"),
        ({"classes": 1}, {}, r"1 score channel\(s\)"),
        ({"inputs": 2}, {}, "should have one input.* 2: frames, more0"),
        ({"kind": "INT32"}, {}, r"tensor\(int32\), not one of"),
        ({"size": (64, "w")}, {}, "one side fixed"),
        ({"size": (2, 2)}, {}, "fails on a frame of 2x2"),
        ({"metadata": {"mean": [1, 2]}}, {}, "mean should be three numbers"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(
    made: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "net.onnx", **made)
    with pytest.raises(SegmenterError, match=message) as caught:
        build_segmenter(f"onnx:{path}", **options)
    assert "\n" not in str(caught.value)


def test_junk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"this is text " * 50)
    with pytest.raises(SegmenterError, match=r"junk\.onnx is not an ONNX file that can be run"):
        build_segmenter(f"onnx:{tmp_path / 'junk.onnx'}")


def test_weights_in_a_second_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(str(write(tmp_path / "net.onnx")))
    onnx.save(
        model, str(tmp_path / "split.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (tmp_path / "w.bin").is_file()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SegmenterError, match=r"split\.onnx is not an ONNX file that can be run from itself"):
        build_segmenter(f"onnx:{tmp_path / 'split.onnx'}")


def test_without_onnxruntime_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SegmenterError, match=r"pip install 'vidseg\[onnx\]'"):
        build_segmenter(f"onnx:{write(tmp_path / 'net.onnx')}")


def test_scores_are_float32_and_writable(tmp_path: Path) -> None:
    scores = scores_of(build_segmenter(f"onnx:{write(tmp_path / 'net.onnx')}"), frames())
    assert scores.dtype == torch.float32 and scores.numpy().dtype == np.float32
