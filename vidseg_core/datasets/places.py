"""Folders and lists that data sets need, and the sentence for one that is missing or odd."""

from __future__ import annotations

from pathlib import Path

from vidseg_core.config.errors import nearest
from vidseg_core.datasets.records import IGNORE, DatasetError


def need_folder(path: str | Path, name: str, expected: str = "") -> Path:
    """`path` as a folder that exists; else `DatasetError` with the nearest name beside it and `expected`."""
    folder = Path(path).expanduser()
    if not str(path):
        raise DatasetError(f"{name}: no path given; expected {name}:PATH")
    if folder.is_dir():
        return folder
    beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    hint = nearest(folder.name, beside)
    raise DatasetError(f"{name}: {folder}: no such folder{hint}{'; ' + expected if expected else ''}")


def read_class_list(path: Path) -> tuple[str, ...]:
    """The class names in a `classes.txt`, one a line, id 0 first; empty if there is no such file."""
    if not path.is_file():
        return ()
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    names = tuple(line for line in lines if line and not line.startswith("#"))
    if not 0 < len(names) <= IGNORE or len(set(names)) != len(names):
        raise DatasetError(f"{path}: expected 1 to {IGNORE} different class names, one a line")
    return names
