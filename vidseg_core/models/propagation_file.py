"""Files of train-propagation: weights of one propagator, with what they belong to.

Model: a safetensors file whose metadata say which propagator it is for, and facts (a JSON object) from which
its nets are built again; one of the facts is `segmenter`, the digest of the N that they were trained for.
Invariant: a file is read completely or refused in one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from vidseg_core.models.protocol import SegmenterError

Net = TypeVar("Net", bound=nn.Module)


def facts_metadata(name: str, facts: Any) -> dict[str, str]:
    """What the file of propagator `name` says beside the weights; `facts`: a dataclass."""
    return {"format": _format(name), name: json.dumps(asdict(facts), sort_keys=True)}


def is_propagation_file(path: str | Path) -> bool:
    """Does this file come from train-propagation?"""
    try:
        metadata = _metadata(path)
        return any(metadata.get("format") == _format(name) for name in metadata)
    except SegmenterError:
        return False


def read_net(name: str, path: str, build: Callable[[dict[str, Any]], Net]) -> Net:
    """The nets in a file of propagator `name`, frozen; `build` makes them from its facts.

    `SegmenterError` for any other file.
    """
    from safetensors.torch import load_file

    metadata = _metadata(path)
    if metadata.get("format") != _format(name):
        raise SegmenterError(f"{path} holds no weights of {name}; train-propagation writes them")
    try:
        net = build(json.loads(metadata[name]))
        net.load_state_dict(load_file(path))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SegmenterError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    return net.eval().requires_grad_(False)


def check_belongs(segmenter: Any, digest: str, file: str) -> None:
    """`SegmenterError` unless `digest` is that of the segmenter: a file belongs to the N that it learned
    from."""
    if segmenter.digest != digest:
        raise SegmenterError(
            f"{file} was trained with another net than {segmenter.name!r} (or other weights, or numbers)"
        )


def _format(name: str) -> str:
    return f"vidseg-{name}-1"


def _metadata(path: str | Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise SegmenterError(f"{path} cannot be read as safetensors ({error})") from error
