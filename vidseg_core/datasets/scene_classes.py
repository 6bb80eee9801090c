"""The classes of the generated scenes and the colour family of each: plain data, shared with the `plain`
segmenter.

A shape's colour is its family's base colour, then shaded by texture and lighting, so that hue names the class
while brightness says little. The background is of low saturation.
"""

from __future__ import annotations

CLASS_NAMES: tuple[str, ...] = ("background", "disc", "square", "triangle", "bar", "ring")
"""Class id i is `CLASS_NAMES[i]`; 0 is the background, including whatever passes in front of the shapes."""

FAMILY_RGB: tuple[tuple[int, int, int], ...] = (
    (120, 116, 108),
    (206, 66, 48),
    (62, 158, 70),
    (58, 96, 204),
    (214, 178, 44),
    (176, 62, 190),
)
"""Base colour of each class, 8-bit RGB."""
