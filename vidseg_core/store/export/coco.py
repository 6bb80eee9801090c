"""Masks as COCO JSON: one annotation for each class in each frame, with compressed run-length counts.

The counts are COCO's: column by column, zeros first; each count from the fourth on is stored as the
difference to the one two before; in groups of five bits, as printable characters. `pycocotools` reads them.
They are made here from the label map's runs, for all classes of a frame in one pass, which spares a
dependency and is much faster than encoding one binary mask a class.

Legend: `_HW` height, width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vidseg_core.store.atomic import whole_text
from vidseg_core.store.export.palette import is_background
from vidseg_core.store.run import Run

_COLUMNS = ("pts_s", "is_key", "height", "width", "mask")
_UNLABELLED = 255
_MAX_GROUPS = 7  # five bits each: counts below 2**34


def export_coco(
    run: Run,
    out: str | Path,
    *,
    video_ids: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    keys_only: bool = False,
    background: bool = False,
) -> int:
    """Write a run (or some videos, or key frames only) as one COCO JSON file; returns annotations written.

    `category_id` is the class id; classes without a name are called `class_<id>`. A class 0 that is called
    background is no object and is left out unless `background` asks for it, and so is 255 where the names do
    not reach it: no label. Streams: memory grows by
    the list of images only. Annotations come first in the file, since COCO does not care.
    """
    chosen = video_ids if video_ids is not None else [found for found, _ in run.files()]
    images: list[dict[str, Any]] = []
    skipped = _skipped(class_names or (), background)
    seen: set[int] = set(range(len(class_names or ()))) - skipped
    written = 0
    with whole_text(out) as file:
        file.write('{"annotations": [')
        for video_id in chosen:
            for row in run.rows(video_id, _COLUMNS):
                if keys_only and not row["is_key"]:
                    continue
                images.append(_image(len(images) + 1, video_id, row))
                labels_HW = run.labels(video_id, row)
                for annotation in _annotations(labels_HW, len(images), skipped):
                    written += 1
                    seen.add(annotation["category_id"])
                    _write_item(file, annotation | {"id": written}, first=written == 1)
        names = dict(enumerate(class_names or ()))
        categories = [{"id": i, "name": names.get(i, f"class_{i}")} for i in sorted(seen)]
        tail = {"images": images, "categories": categories, "info": {"description": f"vidseg run {run.path}"}}
        file.write("],\n" + json.dumps(tail)[1:] + "\n")
    return written


def _skipped(class_names: Sequence[str], background: bool) -> set[int]:
    found = {0} if is_background(class_names) and not background else set()
    return found | ({_UNLABELLED} if 0 < len(class_names) <= _UNLABELLED else set())


def _image(number: int, video_id: str, row: dict[str, Any]) -> dict[str, Any]:
    frame = row["frame_index"]
    return {
        "id": number,
        "file_name": f"{video_id}/{frame:08d}.png",
        "height": row["height"],
        "width": row["width"],
        "video_id": video_id,
        "frame_index": frame,
        "pts_s": row["pts_s"],
    }


def _annotations(labels_HW: np.ndarray, image: int, skipped: Set[int]) -> Iterator[dict[str, Any]]:
    height = labels_HW.shape[0]
    for class_id, counts, runs in _class_counts(labels_HW):
        if class_id in skipped:
            continue
        yield {
            "image_id": image,
            "category_id": class_id,
            "iscrowd": 0,
            "area": int(counts[1::2].sum()),
            "bbox": _box(runs, height),
            "segmentation": {"size": list(labels_HW.shape), "counts": _compress(counts)},
        }


def _class_counts(labels_HW: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
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


def _box(runs: np.ndarray, height: int) -> list[int]:
    """COCO box [x, y, width, height] of runs in column order."""
    first, last = runs[:, 0], runs[:, 1] - 1
    left, right = int(first[0]) // height, int(last[-1]) // height
    if np.any(first // height != last // height):  # a run over a column's end touches bottom and top
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return [left, top, right - left + 1, bottom - top + 1]


def _compress(counts: np.ndarray) -> str:
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


def _write_item(file: TextIO, item: dict[str, Any], *, first: bool) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(item))
