"""Promise: what is exported is read by the library it is for as the masks that the run holds, with file names
that point to the pictures that lie beside it; forms of objects say that each class is one.

YOLO and CVAT are read by their documented layout here, FiftyOne in `test_fiftyone.py` where it is installed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zipfile
from configparser import ConfigParser
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.export.runs import CLASSES, FRAMES, HEIGHT, VIDEOS, WIDTH, export, labels
from vidseg_core.config.export import FORMATS as NAMES
from vidseg_core.datasets.open import open_dataset
from vidseg_core.drawing import PALETTE, is_background
from vidseg_core.export.cvat import COLOURS
from vidseg_core.export.formats import FORMATS
from vidseg_core.export.rle import class_counts, compress
from vidseg_core.export.take import ONE_A_CLASS
from vidseg_core.export.yolo import INSIDE, polygons

MASKS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 1)
)


def is_frame(path: Path, number: int) -> bool:
    """Whether this is the picture of that frame of a test video."""
    picture = cv2.imread(str(path))
    return (
        picture is not None and picture.shape == (HEIGHT, WIDTH, 3) and abs(picture.mean() - 40 * number) < 8
    )


def test_every_format_of_the_command_line_has_a_writer() -> None:
    assert tuple(FORMATS) == NAMES


def test_png_pixels_are_class_ids(run: Path, tmp_path: Path) -> None:
    code, said = export(run, tmp_path / "png", "png")
    assert code == 0 and f"{2 * FRAMES} masks in {tmp_path / 'png'}" in said
    image = Image.open(tmp_path / "png" / VIDEOS[1] / "00000004.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels(VIDEOS[1], 4))
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), PALETTE[labels(VIDEOS[1], 4)])


def test_images_and_masks_are_a_data_set_of_ours(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out", "images-masks")[0] == 0
    data = open_dataset(f"folder:{tmp_path / 'out'}")
    assert list(data.class_names) == CLASSES
    read = map(data.read, data.items("train"))
    records = {(record.video_id, record.frame_index): record for record in read}
    assert len(records) == 2 * FRAMES
    for (video_id, number), record in records.items():
        np.testing.assert_array_equal(record.labels_HW, labels(video_id, number))
    assert is_frame(tmp_path / "out/images" / VIDEOS[0] / "00000003.jpg", 3)


def test_pycocotools_reads_coco(run: Path, tmp_path: Path) -> None:
    code, said = export(run, tmp_path / "out", "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO(str(tmp_path / "out/coco.json"))
    assert code == 0 and f"{len(coco.anns)} annotations" in said and "background, is left out" in said
    assert [category["name"] for category in coco.cats.values()] == CLASSES[1:]
    assert ONE_A_CLASS in coco.dataset["info"]["description"]
    for image in coco.imgs.values():
        assert is_frame(tmp_path / "out/images" / image["file_name"], image["frame_index"])
        found_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            mask_HW = coco.annToMask(annotation).astype(bool)
            found_HW[mask_HW] = annotation["category_id"]
            assert annotation["area"] == mask_HW.sum()
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        np.testing.assert_array_equal(found_HW, labels(image["video_id"], image["frame_index"]))


def test_the_background_is_an_object_only_where_that_is_asked_for(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", "coco", background=True, images=False)
    data = json.loads((tmp_path / "out/coco.json").read_text())
    assert [category["id"] for category in data["categories"]] == [0, 1, 2]
    assert not (tmp_path / "out/images").exists() and "without the pictures" in data["info"]["description"]
    assert is_background(["_background_"]) and not is_background(["road"]) and not is_background([])


def coco_rle(binary_HW: np.ndarray) -> dict[str, Any]:
    """As an annotation of class 1 holds it."""
    counts = {class_id: counts for class_id, counts, _ in class_counts(binary_HW)}
    return {"size": list(binary_HW.shape), "counts": compress(counts.get(1, np.array([binary_HW.size])))}


@given(MASKS)
def test_counts_are_those_of_pycocotools(binary_HW: np.ndarray) -> None:
    theirs: Any = coco_mask.encode(np.asfortranarray(binary_HW))
    assert coco_rle(binary_HW) == {"size": theirs["size"], "counts": theirs["counts"].decode()}


def test_counts_of_long_runs_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for step in (3, 300, 30_000, 400_000):
        edges = np.cumsum(rng.integers(1, step, 9))
        flat = np.searchsorted(edges, np.arange(1_000_000), side="right") % 2
        binary_HW = flat.reshape(1000, 1000, order="F").astype(np.uint8)
        theirs: Any = coco_mask.encode(np.asfortranarray(binary_HW))
        assert coco_rle(binary_HW)["counts"] == theirs["counts"].decode()


# --- YOLO, as docs.ultralytics.com/datasets/segment describes it -------------------------------------------


def filled(shares: list[float], height: int, width: int) -> np.ndarray:
    """A polygon of the file as Ultralytics draws it: scaled, cut to whole pixels, filled. Others round."""
    points_N2 = np.asarray(shares, np.float32).reshape(-1, 2) * np.array((width, height), np.float32)
    np.testing.assert_array_equal(points_N2.astype(np.int32), points_N2.round())
    mask_HW = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask_HW, [points_N2.astype(np.int32)], 1)
    return mask_HW.astype(bool)


def test_yolo_polygons_fill_to_the_masks(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out", "yolo")[0] == 0
    text = (tmp_path / "out/data.yaml").read_text()
    about = yaml.safe_load(text)
    assert about["names"] == dict(enumerate(CLASSES)) and ONE_A_CLASS in text
    images = sorted((tmp_path / "out" / about["train"]).iterdir())
    assert len(images) == 2 * FRAMES
    for image in images:
        video_id, _, number = image.stem.rpartition("-")
        assert is_frame(image, int(number))
        found_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        for line in (tmp_path / "out/labels" / f"{image.stem}.txt").read_text().splitlines():
            label, *shares = line.split()
            assert len(shares) >= 6 and all(0 <= float(share) <= 1 for share in shares)
            found_HW[filled([float(share) for share in shares], HEIGHT, WIDTH)] = int(label)
        np.testing.assert_array_equal(found_HW, labels(video_id, int(number)))


@given(MASKS)
def test_any_mask_is_what_its_polygons_fill(binary_HW: np.ndarray) -> None:
    height, width = binary_HW.shape
    found_HW = np.zeros_like(binary_HW, dtype=bool)
    for points_N2 in polygons(binary_HW.astype(bool)):
        assert len(points_N2) >= 3
        shares = ((points_N2 + INSIDE) / (width, height)).round(6).reshape(-1).tolist()
        found_HW |= filled(shares, height, width)
    np.testing.assert_array_equal(found_HW, binary_HW.astype(bool))


# --- tracks, read by TrackEval -----------------------------------------------------------------------------


def trackeval() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return pytest.importorskip("trackeval")


def evaluated(kind: str, sequence: str, classes: list[str], **options: Any) -> tuple[Any, dict[str, float]]:
    """What TrackEval reads of a sequence as truth, and HOTA of an export held against itself, by class."""
    package, quiet = trackeval(), {"PRINT_CONFIG": False}
    with contextlib.redirect_stdout(io.StringIO()):
        data = getattr(package.datasets, kind)(options | quiet)
        raw = data.get_raw_seq_data("t", sequence)
        hota = package.metrics.HOTA()
        found = {}
        for name in classes:
            result = hota.eval_sequence(data.get_preprocessed_seq_data(deepcopy(raw), name))
            found[name] = float(result["HOTA"].mean())
    return raw, found


def masks_of(dets: list[Any]) -> list[np.ndarray]:
    return [coco_mask.decode(det).astype(bool) for det in dets]


def result_of(annotation: dict[str, Any]) -> dict[str, Any]:
    """A track of the truth as a tracker reports it: run-lengths as text."""
    found: list[Any] = [
        plain and coco_mask.frPyObjects(plain, *plain["size"]) for plain in annotation["segmentations"]
    ]
    texts = [rle and rle | {"counts": rle["counts"].decode()} for rle in found]
    return annotation | {"score": 1.0, "segmentations": texts}


def test_trackeval_reads_youtube_vis(run: Path, tmp_path: Path) -> None:
    code, said = export(run, tmp_path / "out", "youtube-vis")
    data = json.loads((tmp_path / "out/instances.json").read_text())
    assert code == 0 and "4 tracks" in said and ONE_A_CLASS in data["info"]["description"]
    assert [category["name"] for category in data["categories"]] == CLASSES[1:]
    for video in data["videos"]:
        assert video["length"] == FRAMES
        for number, name in enumerate(video["file_names"]):
            assert is_frame(tmp_path / "out/JPEGImages" / name, number)
    truth, tracker = tmp_path / "gt/youtube_vis_val", tmp_path / "trackers/youtube_vis_val/t/data"
    for folder in (truth, tracker):
        folder.mkdir(parents=True)
    (truth / "instances.json").write_text(json.dumps(data))
    (tracker / "results.json").write_text(json.dumps(list(map(result_of, data["annotations"]))))
    raw, hota = evaluated(
        "YouTubeVIS",
        VIDEOS[0],
        CLASSES[1:],
        GT_FOLDER=f"{tmp_path / 'gt'}/",
        TRACKERS_FOLDER=f"{tmp_path / 'trackers'}/",
        SPLIT_TO_EVAL="val",
    )
    assert hota == {name: pytest.approx(1) for name in CLASSES[1:]}
    for number, (ids, dets) in enumerate(zip(raw["gt_classes"], raw["gt_dets"], strict=True)):
        for label, mask_HW in zip(ids, masks_of(dets), strict=True):
            np.testing.assert_array_equal(mask_HW, labels(VIDEOS[0], number) == label)


def test_trackeval_reads_davis(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(run, out, "davis")[0] == 0
    said = json.loads((out / "objects.json").read_text())
    assert said == {"note": ONE_A_CLASS, "objects": {"1": "person", "2": "thing: a"}}
    assert (out / "ImageSets/2017/val.txt").read_text().split() == list(VIDEOS)
    assert is_frame(out / "JPEGImages/480p" / VIDEOS[1] / "00005.jpg", 5)
    annotations = out / "Annotations/480p"
    (tmp_path / "trackers/t").mkdir(parents=True)
    (tmp_path / "trackers/t/data").symlink_to(annotations)
    raw, hota = evaluated(
        "DAVIS",
        VIDEOS[1],
        ["general"],
        GT_FOLDER=str(annotations),
        TRACKERS_FOLDER=str(tmp_path / "trackers"),
        SEQMAP_FILE=str(out / "ImageSets/2017/val.txt"),
    )
    assert hota == {"general": pytest.approx(1)}
    assert [ids.tolist() for ids in raw["gt_ids"]] == [[1], [1], *[[1, 2]] * 4]


def test_trackeval_reads_mots(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(run, out, "mots")[0] == 0
    assert (out / "classes.txt").read_text() == f"# {ONE_A_CLASS}\n2 person\n3 thing: a\n"
    assert is_frame(out / "MOTS-train" / VIDEOS[0] / "img1/000004.jpg", 3)
    ini = ConfigParser()
    ini.read(out / "MOTS-train" / VIDEOS[0] / "seqinfo.ini")
    assert (ini["Sequence"]["seqLength"], ini["Sequence"]["imWidth"]) == (str(FRAMES), str(WIDTH))
    tracker = tmp_path / "trackers/MOTS-train/t/data"
    tracker.mkdir(parents=True)
    for video_id in VIDEOS:
        (tracker / f"{video_id}.txt").symlink_to(out / "MOTS-train" / video_id / "gt/gt.txt")
    raw, hota = evaluated(
        "MOTSChallenge",
        VIDEOS[0],
        ["pedestrian"],
        GT_FOLDER=str(out),
        TRACKERS_FOLDER=str(tmp_path / "trackers"),
    )
    assert hota == {"pedestrian": pytest.approx(1)}
    assert raw["gt_ids"][-1].tolist() == [2001, 3001] and raw["gt_classes"][-1].tolist() == [2, 3]
    person_HW, thing_HW = masks_of(raw["gt_dets"][-1])
    np.testing.assert_array_equal(person_HW + 2 * thing_HW, labels(VIDEOS[0], FRAMES - 1))


@pytest.mark.parametrize(("form", "first"), [("davis", 0), ("mots", 1)])
def test_numbers_without_gaps_lead_back_to_the_frames(
    run: Path, tmp_path: Path, form: str, first: int
) -> None:
    export(run, tmp_path / "out", form, frames="1-5:2", images=False)
    with open(tmp_path / "out/frames.csv", encoding="utf-8", newline="") as file:
        rows = [
            (row["video_id"], int(row["number"]), int(row["frame_index"])) for row in csv.DictReader(file)
        ]
    assert rows == [(video_id, first + n, 1 + 2 * n) for video_id in VIDEOS for n in range(3)]


# --- CVAT and FiftyOne -------------------------------------------------------------------------------------


def test_cvat_can_read_the_colours_back(run: Path, tmp_path: Path) -> None:
    """The layout of docs.cvat.ai/docs/dataset_management/formats/format-smask."""
    assert export(run, tmp_path / "out", "cvat", frames="4,5")[0] == 0
    with zipfile.ZipFile(tmp_path / "out/annotations.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()
        names = archive.read("ImageSets/Segmentation/default.txt").decode().split()
        picture = Image.open(io.BytesIO(archive.read(f"SegmentationClass/{names[1]}.png")))
        assert {name.partition("/")[0] for name in archive.namelist()} == {
            "labelmap.txt",
            "ImageSets",
            "SegmentationClass",
            "SegmentationObject",
        }
    assert names == [f"{video_id}-{number:08d}" for video_id in VIDEOS for number in (4, 5)]
    assert [path.stem for path in sorted((tmp_path / "out/images").iterdir())] == names
    assert lines[:2] == ["# label:color_rgb:parts:actions", f"# {ONE_A_CLASS}"]
    colours = {tuple(map(int, line.split(":")[1].split(","))): line.split(":")[0] for line in lines[2:]}
    assert list(colours.values()) == ["background", "person", "thing a"]  # the colon would part fields
    rgb_HW3 = np.asarray(picture.convert("RGB"))
    assert {tuple(colour) for colour in rgb_HW3.reshape(-1, 3).tolist()} == set(colours)
    assert (rgb_HW3 == COLOURS[labels(VIDEOS[0], 5)]).all()
    assert COLOURS[[1, 2, 3, 8]].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0]]  # VOC's


def test_a_class_0_that_is_no_background_has_a_colour_and_a_number(run: Path, tmp_path: Path) -> None:
    info = {"schema_version": 1, "segmenter": {"class_names": ["road", "person", "car"]}}
    (run / "run.json").write_text(json.dumps(info))
    export(run, tmp_path / "davis", "davis", frames="5", images=False)
    path = tmp_path / "davis/Annotations/480p" / VIDEOS[0] / "00000.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), labels(VIDEOS[0], 5) + 1)
    export(run, tmp_path / "cvat", "cvat", frames="5")
    with zipfile.ZipFile(tmp_path / "cvat/annotations.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[2:]
        picture = Image.open(io.BytesIO(archive.read(f"SegmentationClass/{VIDEOS[0]}-00000005.png")))
    assert [line.split(":")[0] for line in lines] == ["background", "road", "person", "car"]
    assert lines[1].split(":")[1] == ",".join(map(str, np.asarray(picture.convert("RGB"))[0, 0]))


def test_fiftyone_gets_pictures_and_index_masks_of_one_name(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out", "fiftyone", frames="2-4", video=("clip",))[0] == 0
    names = [f"{VIDEOS[0]}-{number:08d}" for number in (2, 3, 4)]
    assert sorted(path.stem for path in (tmp_path / "out/data").iterdir()) == names
    for number, name in zip((2, 3, 4), names, strict=True):
        image = Image.open(tmp_path / "out/labels" / f"{name}.png")
        assert image.mode == "L" and (np.asarray(image) == labels(VIDEOS[0], number)).all()
        assert is_frame(tmp_path / "out/data" / f"{name}.jpg", number)
    targets = json.loads((tmp_path / "out/mask_targets.json").read_text())
    assert targets == {"0": "background", "1": "person", "2": "thing: a"}


def test_pixels_without_a_label_are_no_object(run: Path, tmp_path: Path) -> None:
    info = {"schema_version": 1, "segmenter": {"class_names": ["background", "person"]}}
    (run / "run.json").write_text(json.dumps(info))
    export(run, tmp_path / "mots", "mots", images=False, frames="5")
    text = (tmp_path / "mots/MOTS-train" / VIDEOS[0] / "gt/gt.txt").read_text()
    assert [line.split()[1] for line in text.splitlines()] == ["2001"]
