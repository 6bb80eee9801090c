"""A colour for each of the 256 labels, the same wherever masks are shown, also for colour-blind eyes.

Labels 1 to 7 have the hues of Okabe and Ito ("Color Universal Design", 2008), label 0 is black and label 255
(void, by custom) grey. Later labels repeat the hues lighter or darker: with many classes no palette is safe
for every eye, but neighbours in it differ in lightness too. A label 0 that is a class like any other has a
colour of its own over a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OKABE_ITO: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""8-bit RGB: black and seven hues."""
_HUES = OKABE_ITO[1:]
_SHADES = (0.0, 0.55, -0.45, 0.3, -0.25)
_GOLDEN = 0.618034


def _shade(ring: int) -> float:
    """Shade of a ring of colours, from -1 (black) to 1 (white)."""
    return _SHADES[ring] if ring < len(_SHADES) else (ring * _GOLDEN % 1) * 1.5 - 0.75


def _palette() -> np.ndarray:
    colours = np.zeros((256, 3), np.uint8)
    for label in range(1, 255):
        ring, hue = divmod(label - 1, len(_HUES))
        shade = _shade(ring)
        target = 255.0 if shade > 0 else 0.0
        colour = np.asarray(_HUES[hue], float)
        colours[label] = np.round(colour + abs(shade) * (target - colour))
    colours[255] = 128
    colours.flags.writeable = False
    return colours


PALETTE = _palette()
"""uint8 [256, 3], RGB of each label. Read-only."""

FIRST_RGB = (80, 60, 230)
"""Class 0 over a frame, where it is no background: far from all others, also for colour-blind eyes."""
_BACKGROUND = ("background", "bg")


def is_background(class_names: Sequence[str]) -> bool:
    """Whether class 0 is what is behind the objects, by its name."""
    return bool(class_names) and class_names[0].strip(" _").lower() in _BACKGROUND


def class_colours(class_names: Sequence[str]) -> np.ndarray:
    """uint8 [256, 3]: colours over a frame; black for what is left as it is, a class 0 that is background or
    that nobody has named."""
    colours = PALETTE.copy()
    if class_names and not is_background(class_names):
        colours[0] = FIRST_RGB
    return colours
