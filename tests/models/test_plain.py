"""Promise: `plain` segments the generated scenes well enough for a demo, from colour alone, and knows nothing
else."""

from __future__ import annotations

import torch

from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.metrics import ConfusionMatrix
from vidseg_core.models import build_segmenter, labels_from_scores


def test_plain_is_good_on_scenes_of_every_kind() -> None:
    segmenter = build_segmenter("plain")
    assert segmenter.class_names == Scene.class_names
    for seed, lighting in enumerate((0.0, 0.5, 1.0)):
        scene = Scene(SceneConfig(seed=seed, lighting=lighting))
        matrix = ConfusionMatrix(len(Scene.class_names))
        for index in range(0, len(scene), 25):
            item = scene.frame(index)
            frames = torch.from_numpy(item.frame_HW3).permute(2, 0, 1)[None].float() / 255.0
            labels = labels_from_scores(segmenter.head(segmenter.features(frames)))[0].numpy()
            matrix.update(labels, item.labels_HW)
        assert matrix.mean_iou() > 0.75
        assert matrix.mean_iou() < 0.999


def test_brightness_hardly_changes_the_verdict() -> None:
    segmenter = build_segmenter("plain")
    item = Scene(SceneConfig(noise=0)).frame(0)
    frames = torch.from_numpy(item.frame_HW3).permute(2, 0, 1)[None].float() / 255.0
    bright, dim = (
        labels_from_scores(segmenter.head(segmenter.features(frames * gain))) for gain in (1.0, 0.6)
    )
    assert float((bright == dim).float().mean()) > 0.97
