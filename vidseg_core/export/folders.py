"""Folders of masks as PNG, with or without the pictures that they belong to."""

from __future__ import annotations

import json

from vidseg_core.drawing.palette import PALETTE
from vidseg_core.export.take import Take, jpeg, png, write_file


def write_png(take: Take) -> int:
    """`VIDEO/FRAME.png`: the pixel value is the class id, the palette only shows it."""
    count = 0
    for shot in take.all_shots():
        count += 1
        name = f"{shot.video_id}/{shot.frame_index:08d}.png"
        write_file(take.out / name, png(shot.labels_HW, PALETTE))
    return count


def write_images_masks(take: Take) -> int:
    """`images/VIDEO/FRAME.jpg` and `masks/VIDEO/FRAME.png` (class ids, 255: no label), `classes.txt`.

    What `folder:PATH` reads as a data set, and what most training code has a loader for.
    """
    count = 0
    for shot in take.all_shots():
        count += 1
        name = f"{shot.video_id}/{shot.frame_index:08d}"
        write_file(take.out / "masks" / f"{name}.png", png(shot.labels_HW, PALETTE))
        take.write_picture(f"images/{name}.jpg", shot)
    lines = "".join(f"{' '.join(name.split())}\n" for name in take.classes.names)
    write_file(take.out / "classes.txt", lines.encode())
    return count


def write_fiftyone(take: Take) -> int:
    """FiftyOne's segmentation folders: `data/NAME.jpg`, `labels/NAME.png` (class ids), `mask_targets.json`.

    `Dataset.from_dir(dataset_dir=..., dataset_type=fo.types.ImageSegmentationDirectory)` reads the first two.
    """
    count = 0
    for shot in take.all_shots():
        count += 1
        assert shot.frame_HW3 is not None
        write_file(take.out / "data" / f"{shot.name}.jpg", jpeg(shot.frame_HW3))
        write_file(take.out / "labels" / f"{shot.name}.png", png(shot.labels_HW))
    targets = {str(place): name for place, name in enumerate(take.classes.names)}
    write_file(take.out / "mask_targets.json", (json.dumps(targets, indent=1) + "\n").encode())
    return count
