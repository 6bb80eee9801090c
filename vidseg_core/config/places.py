"""What can be said of a command's files at once, before anything heavy is imported: whether there is what it
reads, and may be what it writes. Invariant: nothing is made and nothing is opened here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from vidseg_core.config.catalogue import FILES as PACKAGED
from vidseg_core.config.errors import check, nearest
from vidseg_core.config.schema import flat_dict
from vidseg_core.config.spaces import space_file

__all__ = ["check_outside", "check_places"]

FILES = frozenset(
    {
        "weights",
        "segmenter_weights",
        "teacher_weights",
        "feature_weights",
        "flow_weights",
        "propagation.flow_weights",
        "temporal.flow_weights",
        "scheduler.policy",
        "decision",
        "remap",
        "space",
    }
)
"""Options, by dotted name, whose value is one file."""
FOLDERS = frozenset({"run", "tables", "sources"})
"""Options whose values are outputs of other verbs, or folders of videos."""
DATA_SETS = frozenset({"data", "val", "pseudo", "dataset"})
"""Options whose values are NAME:PATH?options, or paths."""
_SETTINGS = ("scenes:",)
"""Data sets that are not on a disk."""


def check_places(config: Any) -> None:
    """`ConfigError` for a file or folder that is not there, or an `output` that cannot be a folder or be
    written to."""
    if any_of := getattr(config, "ANY_OF", ""):
        missing = [place for place in getattr(config, any_of) if not _is_there(place)]
        if len(missing) == len(getattr(config, any_of)):
            _check_there(any_of, missing[0])
    writes = not getattr(config, "dry_run", False)
    values = flat_dict(config)
    for name, value in values.items():
        if name in FOLDERS | DATA_SETS:
            for place in [value] if isinstance(value, str) else value or ():
                _check_there(name, _path_of(place) if name in DATA_SETS else place)
        if not isinstance(value, str) or "://" in value:
            continue
        if name == "scheduler.policy" and value in PACKAGED:
            continue
        if name in FILES:
            value = str(space_file(value)) if name == "space" else value
            there = "is no file" if os.path.lexists(value) else "does not exist"
            check(os.path.isfile(value), f"--{name}", f"{value} {there}" if value else "is empty")
        elif name == "output":
            _check_output(Path(os.path.expanduser(value)), writes)
            if "run" in values:
                check_outside(values["run"], value)


def _path_of(data_set: str) -> str:
    """The folder of a data set as typed; empty where it has none."""
    if data_set.startswith(_SETTINGS):
        return ""
    return re.sub(r"^[A-Za-z0-9][A-Za-z0-9_-]+:(?!//)", "", data_set.partition("?")[0])


def _is_there(place: str) -> bool:
    """Whether a place is there, or it cannot be said at once."""
    elsewhere = "://" in place or re.search(r"[*?\[]", place) is not None
    return not place or elsewhere or os.path.lexists(os.path.expanduser(place))


def _check_there(option: str, place: str) -> None:
    if not _is_there(place):
        path = Path(os.path.expanduser(place))
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        check(False, f"--{option}", f"{place} does not exist{nearest(path.name, beside)}")


def check_outside(run: str, output: str) -> None:
    """`ConfigError` if a folder belongs to a run: to this one, or to any other."""
    out = Path(os.path.realpath(os.path.expanduser(output)))
    own = None if "://" in run else Path(os.path.realpath(os.path.expanduser(run)))
    for folder in (out, *out.parents):
        is_run = folder == own or (folder / "_run/manifest.json").exists()
        is_run = is_run or any((folder / "frames").glob("video=*"))
        problem = f"{output} belongs to the run {folder}; choose a folder outside of it"
        check(not is_run, "--output", problem)


def _check_output(folder: Path, writes: bool) -> None:
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), None)
    if there is None:
        return
    check(there.is_dir(), "--output", f"{there} is a file, not a folder")
    check(not writes or os.access(there, os.W_OK | os.X_OK), "--output", f"no right to write to {there}")
