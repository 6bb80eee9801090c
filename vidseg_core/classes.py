"""Class names that nets and data sets share, in the order of their ids.

A shape of the scenes has its class's base colour, then shaded by texture and lighting, so that hue names the
class while brightness says little. The background is of low saturation.
"""

from __future__ import annotations

FACE_CLASSES = ("background", "facial skin", "eyes", "outer mouth", "inner mouth")
"""The five face classes of DVRL 4.1, in the order of their ids."""

SCENE_CLASSES: tuple[str, ...] = ("background", "disc", "square", "triangle", "bar", "ring")
"""Class id i is `SCENE_CLASSES[i]`; 0 is the background, including whatever passes in front of the shapes."""

SCENE_RGB: tuple[tuple[int, int, int], ...] = (
    (120, 116, 108),
    (206, 66, 48),
    (62, 158, 70),
    (58, 96, 204),
    (214, 178, 44),
    (176, 62, 190),
)
"""Base colour of each class of the scenes, 8-bit RGB."""

VOC_CLASSES: tuple[str, ...] = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""PASCAL VOC."""

STREET_CLASSES: tuple[str, ...] = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""The train ids of Cityscapes."""
