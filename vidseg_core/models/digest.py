"""One number for a net: SHA-256 over its weights and over what else decides its scores.

Invariant: the digest depends on names, types, shapes and bytes of the tensors and on the identity mapping,
not on the file they came from, its format or its path, so that the same weights read on two machines agree.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from vidseg_core.config.catalogue import plugin_module


def digest_state(state: Mapping[str, torch.Tensor], identity: Mapping[str, object]) -> str:
    """Hex SHA-256 of a state dict (any device) together with a JSON-able identity."""
    total = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        total.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()


def digest_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def digest_source(name: str) -> str:
    """Hex SHA-256 of the file with a user's `package.module:Class`; empty for a name of the package."""
    module = plugin_module(name)
    file = getattr(importlib.import_module(module), "__file__", None) if module else None
    return digest_file(Path(file)) if file else ""
