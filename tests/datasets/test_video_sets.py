"""Promise: a frame of a video goes with the label of that frame, in whatever order frames are asked for.

Frames and labels lie in different files here, so a slip by one frame, or a frame of another size, would go
unnoticed by everything but the score. And a reader that starts over for each frame decodes a clip hundreds of
times: that is counted.
"""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.miniatures import columns, labelled_video, run_over, save
from tests.media.panning import encoded, panned
from tests.media.test_sequences import write as write_pictures
from tests.pipeline.conftest import small_config
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.segment import MediaConfig
from vidseg_core.datasets import clip_reader
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.frame_files import FrameFiles
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import DatasetError, iter_records
from vidseg_core.datasets.scene_files import SceneClip, make_corpus
from vidseg_core.datasets.scenes import Scene
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import Motion
from vidseg_core.pipeline.segment_job import run_segment


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> SceneClip:
    return labelled_video(tmp_path_factory.mktemp("clip"), "fast", 40, motion="fast")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frames(clip: SceneClip) -> list[np.ndarray]:
    """All frames, read in order."""
    reader = ClipReader()
    return [reader.frame(str(clip.video), number) for number in range(40)]


def refused(text: str, split: str = "all") -> str:
    with pytest.raises(DatasetError) as error:
        list(iter_records(open_dataset(text), split))
    return str(error.value)


def tolerance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


# the reader -----------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_scene(clip: SceneClip, frames: list[np.ndarray]) -> None:
    scene = Scene(clip.config)
    for number in (0, 17, 39):
        here = tolerance(frames[number], scene.frame(number).frame_HW3)
        beside = tolerance(frames[number], scene.frame((number + 1) % 40).frame_HW3)
        assert here < beside, "the lossy frame must be nearer to its own drawing than to its neighbour's"


def test_in_order_and_in_no_order_frames_are_equal_and_decoded_once(
    clip: SceneClip, frames: list[np.ndarray]
) -> None:
    order = list(range(40))
    for seed in (None, 0, 1):
        if seed is not None:
            random.Random(seed).shuffle(order)
        reader = ClipReader(memory_bytes=0)
        for number in order:
            np.testing.assert_array_equal(reader.frame(str(clip.video), number), frames[number])
        assert reader.decoded <= 41, "one look ahead may be decoded twice, no more"


def test_with_little_room_frames_are_decoded_again_and_stay_equal(
    clip: SceneClip, frames: list[np.ndarray]
) -> None:
    reader = ClipReader(memory_bytes=0, disk_bytes=5 * frames[0].nbytes)
    for number in (30, 3, 31, 4, 4, 0):
        np.testing.assert_array_equal(reader.frame(str(clip.video), number), frames[number])


def test_what_a_reader_gives_is_the_callers_to_change(clip: SceneClip, frames: list[np.ndarray]) -> None:
    reader = ClipReader()
    reader.frame(str(clip.video), 2)[:] = 0
    np.testing.assert_array_equal(reader.frame(str(clip.video), 2), frames[2])


def test_motion_comes_with_frames_in_whatever_order_they_are_read(clip: SceneClip) -> None:
    said = []
    for order in (list(range(12)), [7, 3, 11]):
        reader, found = ClipReader(), {}
        for number in order:
            reader.frame(str(clip.video), number)
            motion = reader.motion(str(clip.video), number)
            assert motion is not None
            found[number] = motion.to_bytes()
        said.append(found)
    assert said[1] == {number: said[0][number] for number in said[1]}
    assert any(motion.since for motion in map(Motion.from_bytes, said[0].values()) if motion)


def test_motion_is_there_after_a_jump_into_a_long_group_of_pictures(tmp_path: Path) -> None:
    """What was decoded ahead pushed the wanted frame's motion out: the stream seemed to say nothing of it."""
    video = encoded(tmp_path / "long.mp4", panned(clip_reader.AHEAD + 18), gop=1000)
    reader = ClipReader()
    assert reader.motion(str(video), 5) is not None
    reader.close()


def test_a_forked_reader_leaves_its_parents_process_alone(
    clip: SceneClip, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, copy = ClipReader(), ClipReader()
    for number in range(4):
        reader.frame(str(clip.video), number)
    copy.__dict__.update(reader.__dict__)
    monkeypatch.setattr(clip_reader, "getpid", lambda: -1)
    np.testing.assert_array_equal(copy.frame(str(clip.video), 20), frames[20])
    monkeypatch.undo()
    np.testing.assert_array_equal(reader.frame(str(clip.video), 4), frames[4])
    assert reader.decoded == 5, "it goes on where it was: its cursor is still open"


def test_frames_that_are_not_there_are_named(clip: SceneClip, tmp_path: Path) -> None:
    reader = ClipReader()
    with pytest.raises(DatasetError, match="no frame 40: the video has 40 frames"):
        reader.frame(str(clip.video), 40)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DatasetError, match=r"text\.mp4"):
        reader.frame(str(tmp_path / "text.mp4"), 0)


def test_a_full_disk_costs_frames_put_aside_but_no_error() -> None:
    files = FrameFiles(limit=100)
    files.put("a", 0, np.zeros((4, 4, 3), np.uint8))
    files.put("b", 7, np.ones((4, 4, 3), np.uint8))
    assert files.get("a", 0) is not None and files.get("a", 7) is None
    files.put("b", 8, np.ones((4, 4, 3), np.uint8))
    assert files.get("a", 0) is None, "the clip that was used longest ago goes first"
    files.close()


# face -----------------------------------------------------------------------------------------------------


def test_face_pairs_each_frame_with_its_label(tmp_path: Path) -> None:
    made = labelled_video(tmp_path, "one", 6)
    labelled_video(tmp_path, "two", 3, seed=1)
    (tmp_path / "classes.txt").write_text("\n".join(SCENE_CLASSES))
    dataset = open_dataset(f"face:{tmp_path}")
    assert [(i.video_id, i.frame_index) for i in dataset.items("train")][4:8] == [
        ("one", 4),
        ("one", 5),
        ("two", 0),
        ("two", 1),
    ]
    for record, drawn in zip(iter_records(dataset, "all"), Scene(made.config), strict=False):
        np.testing.assert_array_equal(record.labels_HW, drawn.labels_HW)
        assert tolerance(record.frame_HW3, drawn.frame_HW3) < 12


def test_a_generated_corpus_is_a_face_set_with_its_own_classes(tmp_path: Path) -> None:
    make_corpus(tmp_path, clips=1, frames=2, height=32, width=48)
    assert open_dataset(f"{tmp_path}").class_names == SCENE_CLASSES
    (tmp_path / "corpus.json").unlink()
    assert open_dataset(f"face:{tmp_path}").class_names[2] == "eyes"


def test_frames_come_at_the_size_of_smaller_labels(tmp_path: Path) -> None:
    labelled_video(tmp_path, "one", 2)
    for number in (0, 1):
        save(tmp_path / f"one_labels/{number:06d}.png", columns([0, 4], (16, 24)))
    (record, _) = iter_records(open_dataset(f"face:{tmp_path}"), "train")
    assert record.frame_HW3.shape == (16, 24, 3)


def test_labels_of_another_shape_or_without_a_frame_are_errors(tmp_path: Path) -> None:
    labelled_video(tmp_path, "one", 2)
    label = save(tmp_path / "one_labels/000000.png", columns([0], (40, 24)))
    message = refused(f"face:{tmp_path}")
    assert str(label) in message and "24x40" in message and "48x32" in message
    save(label, columns([0], (32, 48)))
    save(tmp_path / "one_labels/000001.png", columns([0], (32, 48)))
    save(tmp_path / "one_labels/000002.png", columns([0], (32, 48)))
    assert "no frame 2: the video has 2 frames" in refused(f"face:{tmp_path}")
    missing = [absent.text for absent in open_dataset(f"face:{tmp_path}").missing()]  # type: ignore[attr-defined]
    assert missing == ["one.mp4: 2 frames, 3 labels"]


# videos ---------------------------------------------------------------------------------------------------


def test_plain_videos_have_frames_and_no_labels(tmp_path: Path) -> None:
    labelled_video(tmp_path / "in", "one", 3)
    (tmp_path / "in/broken.mp4").write_text("no video")
    dataset = open_dataset(f"videos:{tmp_path}/in")
    assert dataset.class_names == () and len(dataset.items("train")) == 4
    skipped: list[str] = []
    records = list(iter_records(dataset, "all", on_error="skip", skipped=skipped))
    assert [record.frame_index for record in records] == [0, 1, 2] and records[0].labels_HW is None
    assert len(skipped) == 1 and "broken.mp4" in skipped[0]


# tables ---------------------------------------------------------------------------------------------------


def test_a_run_is_read_back_with_its_frames(
    clip: SceneClip, frames: list[np.ndarray], tmp_path: Path
) -> None:
    masks = [columns([number % 3, 255], (32, 48)) for number in range(10, 16)]
    run_over(tmp_path / "run", clip.video, masks, ("a", "b", "c"), first=10)
    dataset = open_dataset(f"tables:{tmp_path}/run")
    assert dataset.class_names == ("a", "b", "c")
    records = list(iter_records(pickle.loads(pickle.dumps(dataset)), "train", labelled_only=True))
    assert [record.frame_index for record in records] == [10, 11, 12, 13, 14], "the last one is corrupt"
    for record, mask in zip(records, masks, strict=False):
        np.testing.assert_array_equal(record.labels_HW, mask)
        np.testing.assert_array_equal(record.frame_HW3, frames[record.frame_index])
    keys = open_dataset(f"{tmp_path}/run?keys=yes")
    assert [item.frame_index for item in keys.items("train")] == [12]


def test_frames_that_the_teacher_doubts_are_left_out(clip: SceneClip, tmp_path: Path) -> None:
    run_over(tmp_path / "run", clip.video, [columns([0], (32, 48))] * 6, ("a",), confident=True)
    items = open_dataset(f"tables:{tmp_path}/run?min_confidence=0.3").items("train")
    assert [item.frame_index for item in items] == [3, 4]
    assert [item.extra["confidence"] for item in items] == [0.3, 0.4]
    every = open_dataset(f"tables:{tmp_path}/run").items("train")
    assert [item.frame_index for item in every] == [1, 2, 3, 4], "frame 0 has not one labelled pixel"


def test_masks_of_the_working_size_get_frames_of_that_size(clip: SceneClip, tmp_path: Path) -> None:
    run_over(tmp_path / "run", clip.video, [columns([0], (16, 24))] * 2, ("a",))
    (record,) = iter_records(open_dataset(f"tables:{tmp_path}/run"), "train")
    assert record.frame_HW3.shape == (16, 24, 3)


def test_sources_that_moved_are_found_by_name_or_missed(clip: SceneClip, tmp_path: Path) -> None:
    run_over(tmp_path / "run", Path("/gone") / clip.video.name, [columns([0], (16, 24))] * 2, ("a",))
    dataset = open_dataset(f"tables:{tmp_path}/run")
    (missing,) = dataset.missing()  # type: ignore[attr-defined]
    assert missing.essential and f"/gone/{clip.video.name} not found" in missing.text
    assert "/gone" in refused(f"tables:{tmp_path}/run")
    moved = open_dataset(f"tables:{tmp_path}/run?sources={clip.video.parent}")
    assert len(list(iter_records(moved, "train"))) == 1


def test_a_run_over_pictures_is_read_back_too(tmp_path: Path) -> None:
    """A folder of frames was no file, so it was said to be missing."""
    uri = write_pictures(tmp_path / "davis" / "bear", range(4))
    options = {"executor": "local", "workers": 1, "media": MediaConfig(sequence_fps=24)}
    config = small_config(tmp_path / "davis", tmp_path / "run", **options)
    run_segment(config, Reporter("text", io.StringIO()))
    dataset = open_dataset(f"tables:{tmp_path}/run")
    assert not list(dataset.missing())  # type: ignore[attr-defined]
    here = list(iter_records(dataset, "train"))
    assert len(here) == 4 and dataset.items("all")[0].image == f"{uri}#fps=24"
    (tmp_path / "davis").rename(tmp_path / "moved")
    assert "davis/bear/: no such folder" in refused(f"tables:{tmp_path}/run")
    gone = open_dataset(f"tables:{tmp_path}/run").missing()  # type: ignore[attr-defined]
    assert "davis/bear/#fps=24 not found" in next(gone).text
    there = list(iter_records(open_dataset(f"tables:{tmp_path}/run?sources={tmp_path}/moved"), "train"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.frame_HW3, other.frame_HW3)


def test_what_a_run_cannot_answer_is_refused(clip: SceneClip, tmp_path: Path) -> None:
    run_over(tmp_path / "run", clip.video, [columns([7], (16, 24))] * 2, ("a",))
    assert "label 7 is out of range" in refused(f"tables:{tmp_path}/run")
    assert "needs a confidence column" in refused(f"tables:{tmp_path}/run?min_confidence=0.5")
    assert "between 0 and 1" in refused(f"tables:{tmp_path}/run?min_confidence=5")
    assert "must be yes or no" in refused(f"tables:{tmp_path}/run?keys=perhaps")
