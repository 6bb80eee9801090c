"""Forms of objects that last over a video: YouTube-VIS, DAVIS and MOTS, one track a class.

DAVIS and MOTS number pictures without gaps, from 0 and from 1; `frames.csv` says which frame each of them is.
The file that a reader opens first is written last.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidseg_core.drawing.palette import PALETTE
from vidseg_core.export.rle import Region, regions
from vidseg_core.export.take import ONE_A_CLASS, UNLABELLED, Shot, Take, png, write_file
from vidseg_core.store.atomic import make_folder, whole_text

# --- YouTube-VIS -------------------------------------------------------------------------------------------


def write_youtube_vis(take: Take) -> int:
    """`instances.json`, whose file names are those below `JPEGImages/`; returns its tracks.

    Categories are numbered from 1. Memory holds the run-lengths of one video.
    """
    videos: list[dict[str, Any]] = []
    seen: dict[int, str] = {int(take.classes.numbers[k]): name for k, name in take.classes.objects.items()}
    written = 0
    make_folder(take.out)
    with whole_text(take.out / "instances.json") as file:
        file.write('{"annotations": [')
        for video_id in take.videos:
            video, tracks = _video(take, video_id, len(videos) + 1)
            if not video["length"]:
                continue
            videos.append(video)
            for label, found in tracks.items():
                number = int(take.classes.numbers[label])
                seen.setdefault(number, take.classes.name(label))
                written += 1
                file.write("\n" if written == 1 else ",\n")
                file.write(json.dumps({"id": written, "category_id": number} | _track(video, found)))
        where = "file names are those below JPEGImages/" if take.pictures else "written without the pictures"
        tail = {
            "videos": videos,
            "categories": [{"id": number, "name": seen[number]} for number in sorted(seen)],
            "info": {"description": f"vidseg run {take.run.path}; {where}. {ONE_A_CLASS}"},
        }
        file.write("],\n" + json.dumps(tail)[1:] + "\n")
    return written


def _video(take: Take, video_id: str, number: int) -> tuple[dict[str, Any], dict[int, list[Region | None]]]:
    """The entry of a video, and for each of its classes what there is in every frame."""
    names: list[str] = []
    tracks: dict[int, list[Region | None]] = {}
    height = width = 0
    for place, shot in enumerate(take.shots(video_id)):
        height, width = shot.labels_HW.shape
        names.append(f"{video_id}/{shot.frame_index:08d}.jpg")
        take.write_picture(f"JPEGImages/{names[-1]}", shot)
        for region in regions(shot.labels_HW, take.classes.left_out):
            track = tracks.setdefault(region.label, [])
            track += [None] * (place - len(track)) + [region]
    size = {"height": height, "width": width, "length": len(names)}
    return {"id": number, "file_names": names, **size}, tracks


def _track(video: dict[str, Any], found: list[Region | None]) -> dict[str, Any]:
    found = found + [None] * (video["length"] - len(found))
    return {
        "video_id": video["id"],
        "iscrowd": 0,
        "height": video["height"],
        "width": video["width"],
        "length": video["length"],
        "segmentations": [region and region.plain_rle for region in found],
        "areas": [region and region.area for region in found],
        "bboxes": [region and region.bbox for region in found],
    }


# --- DAVIS -------------------------------------------------------------------------------------------------


def write_davis(take: Take) -> int:
    """`Annotations/480p/VIDEO/NUMBER.png` (0 background, 255 void, else an object), `JPEGImages/480p` beside
    it, `ImageSets/2017/val.txt`, `objects.json`; returns its frames.

    `480p` is where readers look; the pictures have the size of the masks.
    """
    numbers, count, videos = _davis_numbers(take), 0, []
    with _numbered_frames(take.out) as noted:
        for video_id in take.videos:
            for place, shot in enumerate(take.shots(video_id)):
                name = f"480p/{video_id}/{place:05d}"
                write_file(take.out / f"Annotations/{name}.png", png(numbers[shot.labels_HW], PALETTE))
                take.write_picture(f"JPEGImages/{name}.jpg", shot)
                noted(place, shot)
                count += 1
                videos += [video_id] if place == 0 else []
    objects = {int(numbers[label]): name for label, name in take.classes.objects.items()}
    note = {"note": ONE_A_CLASS, "objects": objects}
    write_file(take.out / "objects.json", (json.dumps(note, indent=1) + "\n").encode())
    write_file(take.out / "ImageSets/2017/val.txt", "".join(f"{name}\n" for name in videos).encode())
    return count


def _davis_numbers(take: Take) -> np.ndarray:
    numbers = take.classes.numbers_below(UNLABELLED, "davis")
    if UNLABELLED in take.classes.left_out:
        numbers[UNLABELLED] = UNLABELLED
    return numbers


# --- MOTS --------------------------------------------------------------------------------------------------

_MOTS = {"car": 1, "pedestrian": 2, "person": 2}
"""Classes that the MOTS challenge has numbers for."""
_IGNORED = 10
"""Its number of a region that is not looked at."""
_SET = "MOTS-train"


def write_mots(take: Take) -> int:
    """`MOTS-train/VIDEO` with `gt/gt.txt`, `seqinfo.ini` and `img1/`, `seqmaps/`, `classes.txt`; its frames.

    A line of `gt.txt`: frame, 1000 times the class plus 1, class, height, width, run-lengths. Car is class 1,
    a person 2, other classes follow from 3 on; 10 is what has no label.
    """
    numbers, count, videos = _mots_numbers(take), 0, []
    with _numbered_frames(take.out) as noted:
        for video_id in take.videos:
            folder, place, size = take.out / _SET / video_id, 0, (0, 0)
            make_folder(folder / "gt")
            with whole_text(folder / "gt/gt.txt") as file:
                for place, shot in enumerate(take.shots(video_id), 1):
                    size = shot.labels_HW.shape
                    file.writelines(_mots_lines(place, shot, numbers))
                    take.write_picture(f"{_SET}/{video_id}/img1/{place:06d}.jpg", shot)
                    noted(place, shot)
            _sequence(folder, video_id, place, size)
            count += place
            videos += [video_id] if place else []
    names = {number: take.classes.name(label) for label, number in numbers.items() if label != UNLABELLED}
    lines = [f"# {ONE_A_CLASS}\n", *(f"{number} {names[number]}\n" for number in sorted(names))]
    write_file(take.out / "classes.txt", "".join(lines).encode())
    listed = "".join(f"{name}\n" for name in ("name", *videos))
    write_file(take.out / f"seqmaps/{_SET}.txt", listed.encode())
    return count


def _mots_numbers(take: Take) -> dict[int, int]:
    """Class id -> its number in MOTS."""
    others = (number for number in range(3, 300) if number != _IGNORED)
    known = {label: _MOTS.get(name.strip().lower(), 0) for label, name in take.classes.objects.items()}
    alone = [number for number in known.values() if [*known.values()].count(number) == 1]
    left_out = {UNLABELLED: _IGNORED} if UNLABELLED in take.classes.left_out else {}
    return {
        label: number if number in alone and number else next(others) for label, number in known.items()
    } | left_out


def _mots_lines(place: int, shot: Shot, numbers: dict[int, int]) -> Iterator[str]:
    height, width = shot.labels_HW.shape
    for region in regions(shot.labels_HW):
        if number := numbers.get(region.label):
            track = 1000 * number + (number != _IGNORED)
            yield f"{place} {track} {number} {height} {width} {region.counts}\n"


def _sequence(folder: Path, video_id: str, length: int, size: tuple[int, ...]) -> None:
    ini = ConfigParser(interpolation=None)
    ini.optionxform = str  # type: ignore[assignment,method-assign]
    about = {"name": video_id, "imDir": "img1", "imExt": ".jpg", "seqLength": length}
    ini["Sequence"] = {key: str(value) for key, value in about.items()} | {
        "imWidth": str(size[1]),
        "imHeight": str(size[0]),
    }
    with whole_text(folder / "seqinfo.ini") as file:
        ini.write(file)


@contextmanager
def _numbered_frames(out: Path) -> Iterator[Any]:
    """`frames.csv`; gives the function that notes which frame a number is."""
    make_folder(out)
    with whole_text(out / "frames.csv", newline="") as file:
        table = csv.writer(file)
        table.writerow(("video_id", "number", "frame_index", "pts_s"))
        yield lambda number, shot: table.writerow((shot.video_id, number, shot.frame_index, shot.pts_s))
