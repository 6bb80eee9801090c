"""`?remap=FILE.yaml`: other classes for a data set, by a small file that must speak of every class.

The file: `classes: [road, other]` (the new names, id 0 first) and `map: {road: road, sky: ignore, ...}`
(every old name to a new name or to `ignore`). Pixels that the data set ignores stay so, unless the map speaks
of `255`. Invariant: no class goes anywhere by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg_core.config.errors import nearest
from vidseg_core.datasets.records import IGNORE, DatasetError, FrameDataset, Item, Record
from vidseg_core.datasets.wrapped import WrappedDataset

NOWHERE = "ignore"
IGNORED = str(IGNORE)
"""What a map calls pixels that are ignored."""


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """New class names, and for each old id the new id or `IGNORE`."""

    class_names: tuple[str, ...]
    new_ids: tuple[int, ...]
    ignored_to: int | None = None
    """New id of pixels that are ignored; None: the file does not speak of them, they stay ignored."""

    def table(self) -> np.ndarray:
        """uint8[256]: old label -> new label; what is no old class is ignored."""
        table = np.full(256, IGNORE, dtype=np.uint8)
        if self.ignored_to is not None:
            table[IGNORE] = self.ignored_to
        table[: len(self.new_ids)] = self.new_ids
        return table


def load_class_map(path: str | Path, old_names: Sequence[str]) -> ClassMap:
    """The map in a YAML file, for a data set with `old_names`. `DatasetError` names what is amiss."""
    classes, mapping = _read(path)
    if not classes or len(classes) > IGNORE or len(set(classes)) != len(classes):
        raise DatasetError(f"class map {path}: classes must be 1 to {IGNORE} different names")
    for old, new in mapping.items():
        if old not in old_names and old != IGNORED:
            raise DatasetError(f"class map {path}: the data has no class {old}{nearest(old, old_names)}")
        if new != NOWHERE and new not in classes:
            hint = nearest(new, [*classes, NOWHERE])
            raise DatasetError(f"class map {path}: {old} goes to {new}, which is not in its classes{hint}")
    if absent := [name for name in old_names if name not in mapping]:
        raise DatasetError(f"class map {path} misses class {', '.join(absent)}")
    ids = {old: IGNORE if new == NOWHERE else classes.index(new) for old, new in mapping.items()}
    return ClassMap(
        class_names=tuple(classes),
        new_ids=tuple(ids[name] for name in old_names),
        ignored_to=None if IGNORED in old_names else ids.get(IGNORED),
    )


def _read(path: str | Path) -> tuple[list[str], dict[str, str]]:
    import yaml

    try:
        found: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"class map {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise DatasetError(f"class map {path}: is not YAML ({' '.join(str(error).split())})") from error
    fine = isinstance(found, dict) and set(found) == {"classes", "map"}
    if not (fine and isinstance(found["classes"], list) and isinstance(found["map"], dict)):
        raise DatasetError(f"class map {path}: expected classes: [new, ...] and map: {{old: new, ...}}")
    classes = [str(name) for name in found["classes"]]
    return classes, {str(old): str(new) for old, new in found["map"].items()}


class RemappedDataset(WrappedDataset):
    """A data set with other classes."""

    def __init__(self, inner: FrameDataset, class_map: ClassMap) -> None:
        super().__init__(inner)
        self._classes, self._table = class_map.class_names, class_map.table()
        check = getattr(inner, "check_values", None)
        if check is not None and class_map.ignored_to is None:
            check()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classes

    def read(self, item: Item) -> Record:
        record = self.inner.read(item)
        if record.labels_HW is not None:
            record.labels_HW = self._table[record.labels_HW]
        return record
