"""Where a training run stands, on disk: one file that is whole or the one before it.

Model: `checkpoint.pt` holds net, average, optimiser and scaler as tensors (`torch.load(weights_only=True)`
reads it) and the rest as JSON text; `checkpoint.json` repeats that text for people. Invariant: a file gets
its name in one step after it was written and synced; a full disk, or a kill at any moment, leaves the old
one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vidseg_core.store.atomic import write_whole
from vidseg_core.store.errors import DamagedFile

CHECKPOINT = "checkpoint.pt"
VERSION = 2


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or belongs to another run; says which file and what to do."""

    exit_code = 2


class DamagedCheckpoint(DamagedFile, CheckpointError):
    """A checkpoint that cannot be read."""


@dataclass(slots=True, kw_only=True)
class Standing:
    """What a run knows besides tensors."""

    step: int = 0
    """Steps done."""
    seed: int = 0
    best: float = -1.0
    """The best score of a validation, 0..1; below 0: not validated yet."""
    best_step: int = 0
    seconds: float = 0.0
    """Time spent in training so far, over all attempts that counted."""
    fingerprint: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The curve so far."""
    measured: dict[str, float] = field(default_factory=dict)
    """What the steps since the last row measured, sums by name: the next row's, also in another attempt."""
    measured_steps: int = 0
    """So many steps."""

    def add(self, values: Mapping[str, float]) -> None:
        """What one more step measured."""
        self.measured_steps += 1
        for name, value in values.items():
            self.measured[name] = self.measured.get(name, 0.0) + value


def save_checkpoint(folder: Path, standing: Standing, tensors: dict[str, Any]) -> None:
    """Write `checkpoint.pt` and its JSON; `tensors`: state dicts by name."""
    text = json.dumps(
        {"version": VERSION} | {name: getattr(standing, name) for name in Standing.__slots__}, indent=1
    )
    buffer = io.BytesIO()
    torch.save({"standing": text, **tensors}, buffer)
    write_whole(folder / CHECKPOINT, buffer.getvalue())
    write_whole(folder / "checkpoint.json", (text + "\n").encode())


def load_checkpoint(folder: Path, fingerprint: str) -> tuple[Standing, dict[str, Any]] | None:
    """What `save_checkpoint` wrote; None if there is nothing. `CheckpointError` for another run's."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        said = json.loads(tensors.pop("standing"))
        version = said.pop("version")
        if version != VERSION:
            raise CheckpointError(f"{path} was written by another version of vidseg; use another --output")
        standing = Standing(**said)
    except CheckpointError:
        raise
    except Exception as error:  # PyTorch's reader raises whatever the bytes lead it to
        raise DamagedCheckpoint(f"{path} is not a readable checkpoint; remove it to start anew") from error
    if standing.fingerprint != fingerprint:
        raise CheckpointError(
            f"{folder} holds a run of another recipe, data or seed; use another --output, or remove it"
        )
    return standing, tensors
