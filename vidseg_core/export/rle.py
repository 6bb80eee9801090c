"""COCO's run-length code of the classes of a label map.

The counts are COCO's: column by column, zeros first; each count from the fourth on is stored as the
difference to the one two before; in groups of five bits, as printable characters. `pycocotools` reads them.
They are made here from the label map's runs, for all classes of a frame in one pass, which spares a
dependency and is much faster than encoding one binary mask a class.

Legend: `_HW` height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import numpy as np

_MAX_GROUPS = 7  # five bits each: counts below 2**34


@dataclass(frozen=True, slots=True)
class Region:
    """The pixels of one class in one frame."""

    label: int
    size: list[int]
    """Height, width of the frame."""
    runs: np.ndarray
    """COCO's counts."""
    area: int
    bbox: list[int]
    """Left, top, width, height."""

    @property
    def counts(self) -> str:
        """The counts as text."""
        return compress(self.runs)

    @property
    def rle(self) -> dict[str, object]:
        """As COCO holds it."""
        return {"size": self.size, "counts": self.counts}

    @property
    def plain_rle(self) -> dict[str, object]:
        """As COCO holds it where counts are numbers."""
        return {"size": self.size, "counts": self.runs.tolist()}


def regions(labels_HW: np.ndarray, left_out: Set[int] = frozenset()) -> Iterator[Region]:
    """Each class of a label map, but for some."""
    for label, counts, runs in class_counts(labels_HW):
        if label not in left_out:
            area, bbox = int(counts[1::2].sum()), box(runs, labels_HW.shape[0])
            yield Region(label, list(labels_HW.shape), counts.astype(np.uint32), area, bbox)


def class_counts(labels_HW: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each class in the map: its id, its COCO counts, and its runs [n, 2] (first pixel, pixel after)."""
    flat = labels_HW.T.reshape(-1)
    edges = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    values = flat[edges[:-1]]
    for class_id in np.unique(values):
        mine = np.flatnonzero(values == class_id)
        runs = np.stack((edges[mine], edges[mine + 1]), axis=1)
        bounds = np.concatenate(([0], runs.reshape(-1), [flat.size]))
        counts = np.diff(bounds)
        yield int(class_id), counts[:-1] if counts[-1] == 0 else counts, runs


def box(runs: np.ndarray, height: int) -> list[int]:
    """COCO box [x, y, width, height] of runs in column order."""
    first, last = runs[:, 0], runs[:, 1] - 1
    left, right = int(first[0]) // height, int(last[-1]) // height
    if np.any(first // height != last // height):  # a run over a column's end touches bottom and top
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return [left, top, right - left + 1, bottom - top + 1]


def compress(counts: np.ndarray) -> str:
    """COCO's text form of counts."""
    numbers = counts.astype(np.int64)
    numbers[3:] -= counts[1:-2]
    shifts = 5 * np.arange(_MAX_GROUPS)
    groups = numbers[:, None] >> shifts  # arithmetic: what is left before group k is written
    rest = numbers[:, None] >> (shifts + 5)
    signs = (groups & 16) != 0
    done = np.where(signs, rest == -1, rest == 0)
    used = np.arange(_MAX_GROUPS) <= np.argmax(done, axis=1)[:, None]
    return ((groups & 31) + np.where(done, 0, 32) + 48)[used].astype(np.uint8).tobytes().decode("ascii")
