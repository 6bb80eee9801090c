"""Promise: a data set is named in one line, and whatever is wrong with it is one sentence that says where.

What training must never do is learn from half a data set, from labels of another size or from ids that no
class has, without a word.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.miniatures import columns, frame_of, save
from vidseg_core.datasets.open import LAYOUTS, open_dataset
from vidseg_core.datasets.records import DatasetError, FrameDataset, iter_records
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene

SCENES = "scenes:videos=3,frames=2,height=32,width=48"


def folder_set(root: Path, ids: tuple[int, ...] = (0, 1), names: str = "sea\nland\n") -> Path:
    for number in (1, 2):
        save(root / f"images/clip/{number}.png", frame_of("clip", number))
        save(root / f"masks/clip/{number}.png", columns(ids))
    (root / "classes.txt").write_text(names)
    return root


def refused(text: str, split: str = "all") -> str:
    """The message with which opening, listing or reading `text` ends."""
    with pytest.raises(DatasetError) as error:
        list(iter_records(open_dataset(text), split))
    return str(error.value)


# what is typed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no data set given"),
        ("camvd:/x", "did you mean 'camvid'"),
        ("scenes:vidoes=3", "did you mean 'videos'"),
        ("scenes:videos=0", "videos must be at least 1"),
        ("scenes:frames=many", "must be a whole number"),
        (f"{SCENES}?sise=3", "did you mean 'size'"),
        (f"{SCENES}?size", "after '?' expected options"),
        (f"{SCENES}?size=3&size=4", "given twice"),
        (f"{SCENES}?size=big", "size=big"),
        (f"{SCENES}?val_clips=scene-009-*", "no clip scene-009-*"),
        ("cityscapes:", "no path given"),
        ("tables:", "no path given"),
        ("tables:/nowhere/at/all", "/nowhere/at/all"),
        ("videos:/nowhere/at/all", "no such file"),
        ("/nowhere/at/all", "no such folder"),
    ],
)
def test_a_wrong_text_is_refused_with_the_reason(text: str, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"scenes", "tables", "videos"}))
def test_every_layout_names_the_folder_that_is_missing_or_of_another_kind(name: str, tmp_path: Path) -> None:
    assert f"{tmp_path / 'gone'}: no such folder" in refused(f"{name}:{tmp_path / 'gone'}")
    assert str(tmp_path) in (message := refused(f"{name}:{tmp_path}")), message


def test_the_nearest_folder_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "CamVid").mkdir()
    assert "did you mean 'CamVid'" in refused(f"camvid:{tmp_path}/CamVids")


def test_scenes_are_those_that_the_configuration_draws() -> None:
    dataset = open_dataset(f"{SCENES},seed=5")
    records = list(iter_records(dataset, "all"))
    assert [record.video_id for record in records[::2]] == [
        "scene-000-mixed",
        "scene-001-still",
        "scene-002-fast",
    ]
    config = SceneConfig(
        height=32, width=48, frames=2, seed=5 * 1009 + 1, motion="still", cuts=0, lighting=0.6
    )
    drawn = Scene(config).frame(1)
    np.testing.assert_array_equal(records[3].frame_HW3, drawn.frame_HW3)
    np.testing.assert_array_equal(records[3].labels_HW, drawn.labels_HW)


# splits ---------------------------------------------------------------------------------------------------


def test_validation_clips_leave_training_whole() -> None:
    dataset = open_dataset(f"{SCENES}?val_clips=scene-001*")
    assert dataset.splits == ("train", "val", "all")
    clips = {split: sorted({item.video_id for item in dataset.items(split)}) for split in dataset.splits}
    assert clips["val"] == ["scene-001-still"] and clips["train"] == ["scene-000-mixed", "scene-002-fast"]
    assert len(open_dataset(f"{SCENES}?clips=*-mixed").items("train")) == 2


def test_an_unknown_or_empty_split_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    assert "no split 'vall'" in refused(f"{SCENES}?val_clips=*-mixed", "vall")
    assert "there are: train, all" in refused(SCENES, "test")
    assert "split 'train' is empty" in refused(f"{SCENES}?val_clips=*", "train")
    (tmp_path / "images").mkdir()
    assert "split 'train' is empty" in refused(f"folder:{tmp_path}", "train")


def test_frames_shrink_with_their_labels_and_never_grow() -> None:
    (record, *_) = iter_records(open_dataset(f"{SCENES}?size=24"), "all")
    assert record.frame_HW3.shape == (16, 24, 3) and record.labels_HW is not None
    assert record.labels_HW.shape == (16, 24)
    (record, *_) = iter_records(open_dataset(f"{SCENES}?size=500"), "all")
    assert record.frame_HW3.shape == (32, 48, 3)


@pytest.mark.parametrize("text", [SCENES, f"{SCENES}?size=24&val_clips=*-mixed", "folder"])
def test_a_pickled_data_set_reads_the_same(text: str, tmp_path: Path) -> None:
    dataset = open_dataset(f"folder:{folder_set(tmp_path)}" if text == "folder" else text)
    item = dataset.items("train")[-1]
    again: FrameDataset = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.read(item).labels_HW, dataset.read(item).labels_HW)
    assert again.splits == dataset.splits and again.items("all") == dataset.items("all")


# bad files ------------------------------------------------------------------------------------------------


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    image = folder_set(tmp_path) / "images/clip/2.png"
    image.write_bytes(image.read_bytes()[:40])
    assert str(image) in refused(f"folder:{tmp_path}")
    skipped: list[str] = []
    records = list(iter_records(open_dataset(str(tmp_path)), "all", on_error="skip", skipped=skipped))
    assert [record.frame_index for record in records] == [1] and len(skipped) == 1


def test_an_image_cut_short_is_not_filled_up_with_grey(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    image = save(tmp_path / "images/1.jpg", noise)
    image.write_bytes(image.read_bytes()[:-800])
    assert "cannot be read as an image" in refused(f"folder:{tmp_path}")


def test_labels_of_another_size_are_named_with_both_sizes(tmp_path: Path) -> None:
    save(folder_set(tmp_path) / "masks/clip/1.png", columns([0, 1], (6, 12)))
    message = refused(f"folder:{tmp_path}")
    assert "12x6" in message and "24x12" in message and "masks/clip/1.png" in message


def test_labels_out_of_range_are_named_with_the_range(tmp_path: Path) -> None:
    message = refused(f"folder:{folder_set(tmp_path, (0, 7, 255))}")
    assert "label 7 is out of range" in message and "0 to 1" in message and "masks/clip/1.png" in message


def test_labels_with_colours_or_16_bits_are_no_ids(tmp_path: Path) -> None:
    mask = folder_set(tmp_path) / "masks/clip/1.png"
    save(mask, frame_of("clip", 1))
    assert "one channel" in refused(f"folder:{tmp_path}")
    save(mask, np.zeros((12, 24), np.uint16))
    assert "8 bits" in refused(f"folder:{tmp_path}")


def test_a_mask_without_an_image_is_an_error(tmp_path: Path) -> None:
    save(folder_set(tmp_path) / "masks/clip/3.png", columns([0]))
    assert "masks/clip/3.png: there is no image" in refused(f"folder:{tmp_path}")


def test_a_camvid_colour_that_is_none_is_named_with_its_place(tmp_path: Path) -> None:
    save(tmp_path / "701_StillsRaw_full/0016E5_00390.png", frame_of("0016E5", 390))
    save(tmp_path / "LabeledApproved_full/0016E5_00390_L.png", columns([(0, 0, 0), (64, 64, 64)]))
    assert "colour (64, 64, 64) at row 0, column 12" in refused(f"camvid:{tmp_path}")


# class maps -----------------------------------------------------------------------------------------------


def class_map(tmp_path: Path, text: str) -> str:
    file = tmp_path / "map.yaml"
    file.write_text(text)
    return f"folder:{folder_set(tmp_path, (0, 1, 2, 255), 'road sign x'.replace(' ', chr(10)))}?remap={file}"


def test_a_class_map_renames_merges_and_ignores(tmp_path: Path) -> None:
    dataset = open_dataset(
        class_map(tmp_path, "classes: [rest, way]\nmap: {road: way, sign: rest, x: ignore}\n")
    )
    assert dataset.class_names == ("rest", "way")
    (record, _) = iter_records(dataset, "train")
    np.testing.assert_array_equal(record.labels_HW, columns([1, 0, 255, 255]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("classes: [way]\nmap: {road: way, x: ignore}", "misses class sign"),
        (
            "classes: [way]\nmap: {road: way, sign: way, x: ignore, raod: way}",
            "no class raod (did you mean 'road'?)",
        ),
        ("classes: [way]\nmap: {road: wya, sign: way, x: way}", "did you mean 'way'"),
        ("classes: []\nmap: {road: ignore, sign: ignore, x: ignore}", "classes must be"),
        ("map: {road: way}", "expected classes"),
        ("classes: [", "is not YAML"),
    ],
)
def test_a_class_map_that_does_not_fit_says_why(text: str, says: str, tmp_path: Path) -> None:
    message = refused(class_map(tmp_path, text))
    assert says in message and "map.yaml" in message


def test_a_class_map_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "gone.yaml: cannot be read" in refused(f"{SCENES}?remap={tmp_path}/gone.yaml")
