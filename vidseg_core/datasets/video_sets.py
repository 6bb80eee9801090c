"""Data sets whose frames are in video files: `face:PATH` with labels beside them, `videos:PATH` without.

`face` layout: `NAME.mp4` and `NAME_labels/NNNNNN.png`, one index PNG per frame in decode order, 255 ignored;
videos without a labels folder are left out. Labels may be smaller than the video: frames are decoded at the
labels' size. Classes: `classes.txt` in the folder, else those of `corpus.json` (what the generated scenes are
written with), else the five face classes of DVRL.

`videos` takes whatever `vidseg segment --input` takes; no frame is labelled.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidseg_core.classes import FACE_CLASSES
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.listed import ListedDataset, Missing
from vidseg_core.datasets.pictures import check_ids, read_ids
from vidseg_core.datasets.places import need_folder, read_class_list
from vidseg_core.datasets.records import DatasetError, Item, Record
from vidseg_core.datasets.spec import DatasetSpec
from vidseg_core.media import MediaError, Motion
from vidseg_core.plan.errors import InputError
from vidseg_core.plan.excerpt import frames_of
from vidseg_core.plan.inputs import VIDEO_SUFFIXES, expand_inputs
from vidseg_core.plan.video_list import VideoInput

_LABELS = "_labels"
_CORPUS_FILE = "corpus.json"


class FaceVideos(ListedDataset):
    """Videos with a folder of label images beside each."""

    name = "face"

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._root = need_folder(spec.path, self.name)
        self._clips = dict(labelled_videos(self._root))
        if not self._clips:
            raise DatasetError(
                f"face: {self._root}: expected NAME.mp4 with NAME_labels/000000.png and so on beside it"
            )
        self._classes = _class_names(self._root)
        self._reader = ClipReader()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes

    def missing(self) -> Iterator[Missing]:
        videos = [path for path in self._root.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES]
        for path in sorted(path for path in videos if path not in self._clips.values()):
            yield Missing(f"{path.stem}{_LABELS}/ not found: {path.name} is left out")
        for path in sorted(self._root.glob(f"*{_LABELS}")):
            if path.name.removesuffix(_LABELS) not in self._clips:
                yield Missing(f"no video to {path.name}/: its labels are left out")
        labelled = Counter(item.video_id for item in self.items("all"))
        for name, video in self._clips.items():
            labels = labelled[name]
            frames = self._reader.index(str(video)).frames
            if labels != frames:
                yield Missing(f"{video.name}: {frames} frames, {labels} labels")

    def _list(self) -> Mapping[str, Iterable[Item]]:
        return {"train": [item for name, video in self._clips.items() for item in _labelled(name, video)]}

    def read(self, item: Item) -> Record:
        assert item.label is not None
        labels_HW = check_ids(read_ids(item.label), len(self._classes), item.label)
        height, width = labels_HW.shape
        index = self._reader.index(item.image)
        if height > index.height or abs(height * index.width - width * index.height) > 2 * index.width:
            raise DatasetError(
                f"{item.label}: the labels are {width}x{height}, "
                f"but their video {item.image} is {index.width}x{index.height}"
            )
        return Record(
            video_id=item.video_id,
            frame_index=item.frame_index,
            frame_HW3=self._reader.frame(item.image, item.frame_index, height, width),
            labels_HW=labels_HW,
        )

    def motion(self, item: Item) -> Motion | None:
        return self._reader.motion(item.image, item.frame_index)


def labelled_videos(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and video of every clip in a folder that has its labels beside it."""
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.with_name(path.stem + _LABELS).is_dir():
            yield path.stem, path


def _labelled(name: str, video: Path) -> Iterator[Item]:
    for path in video.with_name(video.stem + _LABELS).glob("*.png"):
        if not path.stem.isdigit():
            raise DatasetError(f"{path}: expected a frame number as name, like 000000.png")
        yield Item(video_id=name, frame_index=int(path.stem), image=str(video), label=str(path))


def _class_names(root: Path) -> tuple[str, ...]:
    if names := read_class_list(root / "classes.txt"):
        return names
    corpus = root / _CORPUS_FILE
    if corpus.is_file():
        try:
            return tuple(map(str, json.loads(corpus.read_text(encoding="utf-8"))["class_names"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{corpus}: expected a JSON object with class_names ({error})") from error
    return FACE_CLASSES


class PlainVideos(ListedDataset):
    """Videos without labels, at their own size."""

    name = "videos"

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._inputs: Sequence[VideoInput] | None = _expand(self.where)
        self._reader = ClipReader()

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    def _list(self) -> Mapping[str, Iterable[Item]]:
        videos = self._inputs or _expand(self.where)
        return {"train": [item for video in videos for item in self._frames(video)]}

    def _frames(self, video: VideoInput) -> Iterator[Item]:
        """One item a frame; a video that cannot be opened has one, so that reading it says why.

        `DatasetError` if a list asks for frames that there are not.
        """
        try:
            index = self._reader.index(video.uri)
            frames = frames_of(video.excerpt, index, video.uri)
            numbers = range(index.frames) if frames is None else frames.tolist()
        except DatasetError:
            numbers = range(1)
        except MediaError as error:
            raise DatasetError(str(error)) from error
        for number in numbers:
            yield Item(video_id=video.video_id, frame_index=number, image=video.uri)

    def read(self, item: Item) -> Record:
        return Record(
            video_id=item.video_id,
            frame_index=item.frame_index,
            frame_HW3=self._reader.frame(item.image, item.frame_index),
            labels_HW=None,
        )

    def motion(self, item: Item) -> Motion | None:
        return self._reader.motion(item.image, item.frame_index)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_inputs": None}


def _expand(where: str) -> Sequence[VideoInput]:
    try:
        return expand_inputs([where])
    except InputError as error:
        raise DatasetError(f"videos: {error}") from error
