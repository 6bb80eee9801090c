"""Promise: the nets in the package are there, are what their cards say, keep the contract of every segmenter,
and work on what they were not trained on."""

from __future__ import annotations

import hashlib
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from vidseg_core.classes import FACE_CLASSES, SCENE_CLASSES
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.metrics import ConfusionMatrix
from vidseg_core.models import Segmenter, SegmenterError, build_segmenter, labels_from_scores
from vidseg_core.models.bundled import BUNDLED
from vidseg_core.models.planner import BUNDLED_PLANNER, is_planner, planner_file, read_planner
from vidseg_core.models.policy_file import policy_digest
from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES

NAMES = sorted(BUNDLED)
MOST_BYTES = 6_000_000


def frames(height: int = 96, width: int = 120) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def predict(segmenter: Segmenter, frame_HW3: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255.0
    return labels_from_scores(segmenter.head(segmenter.features(batch)))[0].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_the_file_that_is_there(name: str) -> None:
    data = BUNDLED[name].weights(name).read_bytes()
    card = BUNDLED[name].card(name).read_text(encoding="utf-8")
    assert hashlib.sha256(data).hexdigest() in card
    assert len(data) <= MOST_BYTES
    assert f"# {name}" in card and "python -m benchmarks." in card


@pytest.mark.parametrize("name", NAMES)
def test_files_and_cards_are_package_data(name: str) -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    globs = project["tool"]["setuptools"]["package-data"]["vidseg_core.models"]
    for path in (BUNDLED[name].weights(name), BUNDLED[name].card(name)):
        inside = path.relative_to(root / "vidseg_core" / "models").as_posix()
        assert any(fnmatch(inside, glob) for glob in globs)


@pytest.mark.parametrize(
    ("name", "classes", "stride"), [("tiny-face", FACE_CLASSES, 8), ("tiny-scenes", SCENE_CLASSES, 4)]
)
def test_they_are_trained_and_know_their_classes(name: str, classes: tuple[str, ...], stride: int) -> None:
    segmenter = build_segmenter(name)
    assert (segmenter.name, segmenter.class_names, segmenter.stride) == (name, classes, stride)
    assert segmenter.trained and not segmenter.note
    assert segmenter.digest == build_segmenter(name).digest


@pytest.mark.parametrize("spec", [*NAMES, "tiny:8"])
def test_the_halves_are_the_net(spec: str) -> None:
    segmenter, whole = build_segmenter(spec, seed=3), trainable_net(spec, seed=3).eval()
    for height, width in ((96, 120), (64, 64), (33, 50)):
        batch = frames(height, width)
        scores = segmenter.head(segmenter.features(batch))
        assert scores.shape == (2, len(segmenter.class_names), height, width)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, whole(batch).detach(), rtol=1e-4, atol=1e-4)


def test_tiny_scenes_is_good_on_scenes_of_other_seeds() -> None:
    segmenter, matrix = build_segmenter("tiny-scenes"), ConfusionMatrix(len(SCENE_CLASSES))
    for seed, lighting in enumerate((0.0, 0.5, 1.0)):
        scene = Scene(SceneConfig(seed=90_000 + seed, lighting=lighting))
        for index in range(0, len(scene), 40):
            item = scene.frame(index)
            matrix.update(predict(segmenter, item.frame_HW3), item.labels_HW)
    assert matrix.mean_iou() > 0.9


def test_tiny_face_sees_no_face_where_there_is_none() -> None:
    segmenter = build_segmenter("tiny-face")
    assert float((predict(segmenter, Scene(SceneConfig(seed=5)).frame(0).frame_HW3) > 0).mean()) < 0.1


def test_a_wrong_number_of_classes_is_said() -> None:
    with pytest.raises(SegmenterError, match="for 5 classes, but 3 were asked for"):
        build_segmenter("tiny-face", num_classes=3)


@pytest.mark.parametrize("spec", ["tiny:", "tiny:wide", "tiny:7", "tiny:65", "tiny:-8", "tiny:\u0663\u0662"])
def test_a_width_that_cannot_be_is_said(spec: str) -> None:
    with pytest.raises(SegmenterError, match="tiny:<width>, width from 8 to 64"):
        build_segmenter(spec)


def test_any_class_count_trains_and_comes_back(tmp_path: Path) -> None:
    names = ("nothing", "left", "right")
    net = trainable_net("tiny:8", class_names=names, seed=1)
    loss = net(frames()).square().mean()
    loss.backward()
    assert all(weight.grad is not None for weight in net.parameters())
    file = tmp_path / "w.safetensors"
    file.write_bytes(weights_bytes(weights_of(net), names))
    again = build_segmenter("tiny:8", weights=str(file))
    assert again.class_names == names and again.trained
    scores = again.head(again.features(frames()))
    torch.testing.assert_close(scores, net.eval()(frames()).detach(), rtol=1e-4, atol=1e-4)


def test_bundled_names_take_other_weights_of_their_net(tmp_path: Path) -> None:
    net = trainable_net("tiny-face")
    with torch.no_grad():
        next(net.parameters()).add_(0.1)
    file = tmp_path / "finer.safetensors"
    file.write_bytes(weights_bytes(weights_of(net), net.class_names))
    assert build_segmenter("tiny-face", weights=str(file)).digest != build_segmenter("tiny-face").digest


def test_the_planner_in_the_box_is_the_one_of_its_card_and_plans_both_ways() -> None:
    path = planner_file(BUNDLED_PLANNER)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card and f"# {BUNDLED_PLANNER}" in card
    assert "python -m benchmarks.tiny_planner" in card
    _, facts = read_planner(BUNDLED_PLANNER)
    assert {(point.sides, point.target) for point in facts.operating_points} == {
        (sides, interval) for sides in ("one", "two") for interval in (10.0, 25.0, 50.0)
    }
    assert facts.feature_names == LOOKAHEAD_FEATURES and not any(
        "/" in value for value in facts.fingerprint.values()
    )
    assert is_planner(BUNDLED_PLANNER) and policy_digest(BUNDLED_PLANNER) == policy_digest(path)
