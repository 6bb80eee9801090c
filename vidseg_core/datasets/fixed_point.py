"""Integer mathematics for pictures that come out the same, byte for byte, on every machine.

Model: positions are integers in 1/256 of a pixel ("units"), angles in 1/4096 of a turn, factors in 1/65536.
Random numbers come from numpy's legacy `RandomState`, the only generator whose stream numpy promises never to
change. Invariant: no float decides a pixel. The sine table is the one place where a float appears: its
entries are rounded to 1/16384, far from any rounding tie.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import RandomState

UNIT = 256
"""Units in a pixel."""
TURN = 4096
"""Angle steps in a full turn."""
ONE = 1 << 14
"""What 1.0 is in the sine table."""
SINE = np.array([round(math.sin(2.0 * math.pi * step / TURN) * ONE) for step in range(TURN)], dtype=np.int64)
"""sin of step/TURN turns, in 1/ONE."""


def sine(angle: np.ndarray) -> np.ndarray:
    """sin in 1/ONE of angles in 1/TURN turns (any integers)."""
    return SINE[np.asarray(angle) % TURN]


def cosine(angle: np.ndarray) -> np.ndarray:
    """cos in 1/ONE of angles in 1/TURN turns (any integers)."""
    return SINE[(np.asarray(angle) + TURN // 4) % TURN]


def random_stream(*keys: int) -> RandomState:
    """A generator of its own for each tuple of non-negative integers below 2**32."""
    return RandomState(np.array(keys, dtype=np.uint32))


def value_noise(random: RandomState, rows: int, columns: int, cell: int) -> np.ndarray:
    """Smooth random relief, int64 0..255 of (rows, columns): random lattice every `cell` pixels, bilinear
    between.

    Tileable if `cell` divides both sides.
    """
    lattice = random.randint(0, 256, (-(-rows // cell), -(-columns // cell))).astype(np.int64)
    down = _interpolate(lattice, rows, cell)
    return _interpolate(down.T, columns, cell).T // (cell * cell)


def _interpolate(lattice: np.ndarray, count: int, cell: int) -> np.ndarray:
    position = np.arange(count)
    low, rest = position // cell, (position % cell)[:, None]
    high = (low + 1) % lattice.shape[0]
    return lattice[low] * (cell - rest) + lattice[high] * rest


def layered_noise(random: RandomState, rows: int, columns: int, cells: tuple[int, ...]) -> np.ndarray:
    """Value noise of several cell sizes, the first weighing most: int64, about 0..255, mean near 128."""
    total, weight_sum = np.zeros((rows, columns), dtype=np.int64), 0
    for position, cell in enumerate(cells):
        weight = 1 << (len(cells) - 1 - position)
        total += weight * value_noise(random, rows, columns, max(1, cell))
        weight_sum += weight
    return total // weight_sum
