"""Weights files: read without running anything that they contain, and fitted to a net with a plain verdict.

Invariant: a file is either fitted completely (every parameter and buffer, equal shapes) or refused with one
sentence that names it. `.safetensors` may carry `class_names`, a JSON list, in its metadata.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidseg_core.models.protocol import SegmenterError

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts nest the state dict."""
PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel and compiled wrappers put before every key."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """What a weights file holds."""

    path: Path
    state: Mapping[str, torch.Tensor]
    class_names: tuple[str, ...] | None
    """Class names in the file's metadata, if there are any."""

    def classes(self, head_key: str) -> int | None:
        """How many classes the classifying layer `head_key` has in this file; None if it is not there."""
        tensor = self.state.get(head_key)
        return int(tensor.shape[0]) if tensor is not None else None


def read_weights(path: str | Path) -> WeightsFile:
    """Read a `.safetensors` file, or a torch file that holds tensors and nothing that would have to be
    run."""
    path = Path(path)
    if not path.is_file():
        raise SegmenterError(f"weights file {path} does not exist")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise SegmenterError(
            f"weights file {path} is not a plain torch state dict (it may be damaged, or hold pickled code, "
            "which is never run): save it as .safetensors"
        ) from error
    return WeightsFile(path=path, state=_state_dict(path, content), class_names=None)


def _numbers() -> list[Any]:
    """What numpy's numbers are made of, under the names of old and new files: checkpoints keep scores."""
    scalar: Any = np.float64(0).__reduce__()[0]
    return [
        *((scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")),
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
        type(np.dtype(np.int64)),
    ]


def _read_safetensors(path: Path) -> WeightsFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        names = json.loads(metadata.get("class_names", "null"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise SegmenterError(f"weights file {path} is not a readable safetensors file: {error}") from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise SegmenterError(
            f"weights file {path}: class_names in its metadata are no list of texts: {names!r}"
        )
    return WeightsFile(path=path, state=_state_dict(path, state), class_names=tuple(names) if names else None)


def _state_dict(path: Path, content: object) -> dict[str, torch.Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise SegmenterError(f"weights file {path} holds no state dict")
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise SegmenterError(f"weights file {path} holds something else than tensors")
    state = {str(key): value for key, value in content.items()}
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def fit_weights(
    net: nn.Module, weights: WeightsFile, *, what: str, head_key: str = "", ignored: Sequence[str] = ()
) -> None:
    """Load `weights` into `net` (called `what` in errors); keys that begin with one of `ignored` are left
    out."""
    state = {key: value for key, value in weights.state.items() if not key.startswith(tuple(ignored))}
    wanted = net.state_dict()
    if head_key in wanted and head_key in state and wanted[head_key].shape[0] != state[head_key].shape[0]:
        raise SegmenterError(
            f"weights file {weights.path} is for {state[head_key].shape[0]} classes, "
            f"but {wanted[head_key].shape[0]} were asked for"
        )
    missing, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or surplus:
        raise SegmenterError(
            f"weights file {weights.path} does not fit {what}: "
            f"{_some(missing)} missing, {_some(surplus)} too many"
        )
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise SegmenterError(
                f"weights file {weights.path} does not fit {what}: {key} is {tuple(state[key].shape)}, "
                f"not {tuple(value.shape)}"
            )
    net.load_state_dict(state)


def _some(keys: Sequence[str]) -> str:
    if not keys:
        return "none"
    return f"{len(keys)} ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})"


def metadata_of(path: str | Path) -> dict[str, str]:
    """What a safetensors file says of itself; empty for any other file, and for one that says nothing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}
