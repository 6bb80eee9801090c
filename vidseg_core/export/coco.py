"""Masks as COCO JSON: one annotation for each class in each frame, with compressed run-length counts."""

from __future__ import annotations

import json
from typing import Any, TextIO

from vidseg_core.export.rle import regions
from vidseg_core.export.take import ONE_A_CLASS, Shot, Take
from vidseg_core.store.atomic import make_folder, whole_text

FILE, IMAGES = "coco.json", "images"


def write_coco(take: Take) -> int:
    """`coco.json`, whose file names are those below `images/`; returns its annotations.

    `category_id` is the class id. Streams: memory grows by the list of images only. Annotations come first
    in the file, since COCO does not care.
    """
    make_folder(take.out)
    images: list[dict[str, Any]] = []
    seen = set(take.classes.objects)
    written = 0
    with whole_text(take.out / FILE) as file:
        file.write('{"annotations": [')
        for shot in take.all_shots():
            images.append(_image(len(images) + 1, shot))
            take.write_picture(f"{IMAGES}/{images[-1]['file_name']}", shot)
            for region in regions(shot.labels_HW, take.classes.left_out):
                written += 1
                seen.add(region.label)
                item = {
                    "id": written,
                    "image_id": len(images),
                    "category_id": region.label,
                    "iscrowd": 0,
                    "area": region.area,
                    "bbox": region.bbox,
                    "segmentation": region.rle,
                }
                _write_item(file, item, first=written == 1)
        categories = [{"id": label, "name": take.classes.name(label)} for label in sorted(seen)]
        where = f"file names are those below {IMAGES}/" if take.pictures else "written without the pictures"
        info = {"description": f"vidseg run {take.run.path}; {where}. {ONE_A_CLASS}"}
        tail = {"images": images, "categories": categories, "info": info}
        file.write("],\n" + json.dumps(tail)[1:] + "\n")
    return written


def _image(number: int, shot: Shot) -> dict[str, Any]:
    height, width = shot.labels_HW.shape
    return {
        "id": number,
        "file_name": f"{shot.video_id}/{shot.frame_index:08d}.jpg",
        "height": height,
        "width": width,
        "video_id": shot.video_id,
        "frame_index": shot.frame_index,
        "pts_s": shot.pts_s,
    }


def _write_item(file: TextIO, item: dict[str, Any], *, first: bool) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(item))
