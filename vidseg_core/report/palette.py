"""The colour of each class id, 0..255: distinguishable to colour-blind eyes, the same wherever masks are
shown.

Ids 0 to 7 are the colours of Okabe and Ito (Color Universal Design, 2008): black for the background, then
their seven hues. Ids from 8 on repeat the seven hues, mixed ever differently with white, black and gray; they
stay distinct, but no palette keeps that many apart at a glance. Id 255, "no label" in most data sets, is mid
gray.
"""

from __future__ import annotations

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
"""8-bit RGB."""
UNLABELLED_RGB = (128, 128, 128)
MIX_TOWARDS = (255, 0, 128)
"""White, black, gray: what extended colours are mixed with, in turn."""
MIX_STEPS = 12
"""Shares of the mixture: MIX_STEPS of each kind times seven hues are more than enough for 256 ids."""


def _extended() -> list[tuple[int, int, int]]:
    colours = list(OKABE_ITO)
    order = [(step * 5 + 4) % MIX_STEPS for step in range(MIX_STEPS)]
    for step in order:
        for grey in MIX_TOWARDS:
            share = 35 + step * 4
            for hue in OKABE_ITO[1:]:
                mixed = [(channel * (100 - share) + grey * share) // 100 for channel in hue]
                colours.append((mixed[0], mixed[1], mixed[2]))
    return [*colours[:255], UNLABELLED_RGB]


PALETTE_RGB: tuple[tuple[int, int, int], ...] = tuple(_extended())
"""256 colours, 8-bit RGB; index = class id."""


def palette_array() -> np.ndarray:
    """uint8 (256, 3): `palette_array()[labels_HW]` is the picture of a mask."""
    return np.array(PALETTE_RGB, dtype=np.uint8)
