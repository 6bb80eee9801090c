"""`scenes:videos=8,frames=60,seed=0`: generated scenes as a data set, drawn when they are read.

Model: clip names and configs are those of `make_corpus`, so `scenes:` and the files that it writes show the
same. Invariant: no file is read or written, and what is drawn depends on the settings alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.errors import nearest
from vidseg_core.datasets.listed import ListedDataset
from vidseg_core.datasets.records import DatasetError, Item, Record
from vidseg_core.datasets.scene_config import corpus_configs
from vidseg_core.datasets.scenes import Scene
from vidseg_core.datasets.spec import DatasetSpec

SETTINGS = {"videos": 8, "frames": 60, "seed": 0, "height": 240, "width": 320, "fps": 25}
"""What may be set, and the defaults."""
DRAWN = "generated"
"""Stands where an item has a path."""
KEPT_SCENES = 8


class GeneratedScenes(ListedDataset):
    """Generated clips; every frame labelled."""

    name = "scenes"

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path or "defaults"
        settings = _settings(spec.path)
        clips, frames = settings.pop("videos"), settings.pop("frames")
        try:
            self._configs = corpus_configs(clips, frames, **settings)
        except ValueError as error:
            raise DatasetError(f"scenes: {spec.path}: {str(error).replace('clips', 'videos')}") from error
        self._scenes: OrderedDict[str, Scene] = OrderedDict()

    @property
    def class_names(self) -> tuple[str, ...]:
        return SCENE_CLASSES

    def _list(self) -> Mapping[str, Iterable[Item]]:
        clips = self._configs.items()
        return {
            "train": [
                Item(video_id=name, frame_index=index, image=DRAWN, label=DRAWN)
                for name, config in clips
                for index in range(config.frames)
            ]
        }

    def read(self, item: Item) -> Record:
        try:
            drawn = self._scene(item.video_id).frame(item.frame_index)
        except (KeyError, IndexError) as error:
            raise DatasetError(f"scenes: no frame {item.frame_index} of {item.video_id}") from error
        return Record(
            video_id=item.video_id,
            frame_index=item.frame_index,
            frame_HW3=drawn.frame_HW3,
            labels_HW=drawn.labels_HW,
        )

    def _scene(self, name: str) -> Scene:
        if name not in self._scenes:
            self._scenes[name] = Scene(self._configs[name])
        self._scenes.move_to_end(name)
        if len(self._scenes) > KEPT_SCENES:
            self._scenes.popitem(last=False)
        return self._scenes[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_scenes": OrderedDict()}


def _settings(text: str) -> dict[str, int]:
    settings = dict(SETTINGS)
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = part.partition("=")
        if key not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise DatasetError(f"scenes: no setting {key!r}{nearest(key, SETTINGS)}; known: {known}")
        if not value.isdigit():
            raise DatasetError(f"scenes: {key} must be a whole number, got {value!r}")
        settings[key] = int(value)
    return settings
