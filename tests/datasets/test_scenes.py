"""Promise: a generated scene is a function of its config, byte for byte, and its labels are exact.

Tests, benchmarks and training refer to scenes by config, so a picture that changes with the machine, the
library version or the order of drawing would change their results without a trace.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from vidseg_core.classes import SCENE_CLASSES, SCENE_RGB
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene

SMALL = SceneConfig(height=96, width=128, frames=40, seed=5)
GOLDEN = "e3c35e77164b7c97c577f726018b102ea9a1387dfbd73f66a55461ccd581402d"


def digest(scene: Scene, indices: range) -> str:
    total = hashlib.sha256()
    for index in indices:
        item = scene.frame(index)
        total.update(item.frame_HW3.tobytes() + item.labels_HW.tobytes())
    return total.hexdigest()


def test_the_bytes_never_change() -> None:
    config = dataclasses.replace(SMALL, lighting=0.7, motion="mixed")
    assert digest(Scene(config), range(0, 40, 4)) == GOLDEN


def test_frames_do_not_depend_on_the_order_of_drawing() -> None:
    forward = list(Scene(SMALL))
    scene = Scene(SMALL)
    for index in (39, 0, 21, 20, 38):
        item = scene.frame(index)
        assert np.array_equal(item.frame_HW3, forward[index].frame_HW3)
        assert np.array_equal(item.labels_HW, forward[index].labels_HW)
    assert [item.index for item in forward] == list(range(40))


def test_another_seed_is_another_scene() -> None:
    other = Scene(dataclasses.replace(SMALL, seed=6)).frame(0)
    assert not np.array_equal(other.labels_HW, Scene(SMALL).frame(0).labels_HW)


@pytest.mark.parametrize("size", [(33, 47), (32, 200), (200, 32)])
def test_shapes_and_types_at_any_size(size: tuple[int, int]) -> None:
    item = Scene(dataclasses.replace(SMALL, height=size[0], width=size[1], noise=0)).frame(3)
    assert item.frame_HW3.shape == (*size, 3) and item.labels_HW.shape == size
    assert item.frame_HW3.dtype == item.labels_HW.dtype == np.uint8
    assert item.labels_HW.max() < len(SCENE_CLASSES)


def test_labelled_pixels_have_the_colour_family_of_their_class() -> None:
    families = np.array(SCENE_RGB, dtype=np.float64)
    families /= families.sum(axis=1, keepdims=True)
    sums, seen = np.zeros((len(SCENE_CLASSES), 3)), np.zeros(len(SCENE_CLASSES))
    for seed in range(4):
        for index in (0, 39):
            item = Scene(dataclasses.replace(SMALL, seed=seed, shapes=10)).frame(index)
            for label in np.unique(item.labels_HW):
                colours = item.frame_HW3[item.labels_HW == label].astype(np.float64) + 1
                sums[label] += (colours / colours.sum(axis=1, keepdims=True)).sum(axis=0)
                seen[label] += len(colours)
    assert (seen > 100).all()
    nearest = [int(np.abs(families - mean).sum(axis=1).argmin()) for mean in sums / seen[:, None]]
    assert nearest == list(range(len(SCENE_CLASSES)))


def test_colour_edges_lie_on_label_edges() -> None:
    config = dataclasses.replace(SMALL, height=240, width=320, noise=0, clutter=0, occluders=0)
    item = Scene(config).frame(0)
    frame = item.frame_HW3.astype(np.int64)
    across = np.abs(np.diff(frame, axis=1)).sum(axis=2)
    edge = item.labels_HW[:, 1:] != item.labels_HW[:, :-1]
    assert across[edge].mean() > 5 * across[~edge].mean()
    sides = (across[:, 2:][edge[:, 1:-1]].mean(), across[:, :-2][edge[:, 1:-1]].mean())
    assert across[edge].mean() > 1.1 * max(sides)


def test_rests_are_still_and_bursts_are_not() -> None:
    config = SceneConfig(height=96, width=128, frames=200, seed=2, noise=0, cuts=0)
    scene, activity = Scene(config), Scene(config).activity()
    assert activity.shape == (200,)
    resting = [t for t in range(1, 200) if activity[t - 1] == activity[t] == 0]
    moving = [t for t in range(1, 200) if activity[t] > 200]
    assert resting and moving
    still = scene.frame(resting[0]).frame_HW3
    assert np.array_equal(still, scene.frame(resting[0] - 1).frame_HW3)
    assert not np.array_equal(scene.frame(moving[0]).labels_HW, scene.frame(moving[0] - 1).labels_HW)


def test_motion_kinds_differ_in_pace() -> None:
    pace = {
        motion: Scene(SceneConfig(height=64, width=64, frames=400, motion=motion)).activity().mean()
        for motion in ("still", "calm", "fast")
    }
    assert pace["still"] < pace["calm"] < pace["fast"]


@pytest.mark.parametrize(("frames", "cuts"), [(40, 1), (40, 3), (5, 4), (1, 0)])
def test_cuts_fall_where_they_are_announced(frames: int, cuts: int) -> None:
    scene = Scene(dataclasses.replace(SMALL, frames=frames, cuts=cuts, noise=0, motion="calm"))
    assert len(scene.cut_frames) == cuts and len(scene) == frames
    drawn = np.stack([item.frame_HW3 for item in scene]).astype(np.int64)
    change = np.abs(np.diff(drawn, axis=0)).mean(axis=(1, 2, 3))
    assert sorted(np.argsort(change)[len(change) - cuts :] + 1) == scene.cut_frames


def test_a_higher_frame_rate_means_smaller_steps() -> None:
    def changed(fps: int) -> float:
        config = SceneConfig(height=96, width=128, frames=30, fps=fps, motion="fast", cuts=0, camera=0)
        labels = np.stack([item.labels_HW for item in Scene(config)])
        return float(np.mean(labels[1:] != labels[:-1]))

    assert changed(100) < 0.5 * changed(25)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 8),
        ("frames", 0),
        ("cuts", 40),
        ("lighting", 1.5),
        ("motion", "wild"),
        ("noise", -1),
        ("seed", -1),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})  # type: ignore[arg-type]


def test_a_frame_outside_the_clip_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="frame 40"):
        Scene(SMALL).frame(40)
