"""Whose folder is this: what decides a run's weights, written once, checked by every later driver."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.small_files import OTHER_OUTPUT, json_object
from vidseg_core.training.checkpoint import CheckpointError, load_checkpoint

MANIFEST = "manifest.json"


def fingerprint(fields: Mapping[str, Any]) -> str:
    """SHA-256 over the fields, by name."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def claim_folder(folder: Path, fields: Mapping[str, Any]) -> None:
    """Make the folder this run's. `CheckpointError` says what differs from the run that it holds."""
    make_folder(folder)
    path = folder / MANIFEST
    if not path.is_file():
        write_whole(path, (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode())
        return
    there = json_object(path.read_bytes(), str(path), {}, OTHER_OUTPUT)
    ours = json.loads(json.dumps(fields))
    names = sorted(name for name in {*there, *ours} if there.get(name) != ours.get(name))
    if names:
        differs = "; ".join(_difference(name, there.get(name), ours.get(name)) for name in names)
        raise CheckpointError(
            f"--output {folder} belongs to another run ({differs}). Choose another output, or the options "
            "of that run to continue it."
        )


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Inside the block no other driver works on the folder; the system drops the lock if this one dies."""
    with open(folder / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("--output", f"another command is training into {folder}") from error
        except OSError:  # a network file system without locks
            pass
        yield


@contextmanager
def says_how_to_go_on(folder: Path, fingerprint: str, unit: str = "step") -> Iterator[None]:
    """A `KeyboardInterrupt` leaves the block with the step that the same command goes on from."""
    try:
        yield
    except KeyboardInterrupt:
        found = load_checkpoint(folder, fingerprint)
        if found is None:
            text = "there is no checkpoint yet (--save_every); the same command begins again"
            raise KeyboardInterrupt(text) from None
        raise KeyboardInterrupt(f"the same command goes on from {unit} {found[0].step}") from None


def _difference(name: str, there: Any, ours: Any) -> str:
    if name in ("data", "weights"):
        return f"the {'frames' if name == 'data' else 'weights to begin with'} are others"
    return f"{name}: {there!r} there, {ours!r} now"
