"""`package.module:Class`: a segmenter of somebody else's.

The class is called with those of `device`, `weights`, `num_classes`, `class_names`, `seed` and `precision`
that its constructor takes, and must offer `features`, `head`, `class_names` and `stride`. What else the
`Segmenter` protocol holds may be left out; then the digest covers the spec, the source file of the class and
the weights file.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from vidseg_core.models.digest import digest_file
from vidseg_core.models.protocol import Features, Segmenter, SegmenterError
from vidseg_core.models.scores import check_names

NEEDED = ("features", "head", "class_names", "stride")


class PluginSegmenter:
    """Gives a plug-in the attributes that it left out, and copies to work on: it may change them in place,
    and frames and features are wanted again."""

    def __init__(self, inner: Any, *, spec: str, digest: str) -> None:
        self.inner = inner
        self.name = str(getattr(inner, "name", spec))
        self.class_names = check_names(self.name, inner.class_names)
        self.stride = _stride(self.name, inner.stride)
        self.digest = str(getattr(inner, "digest", digest))
        self.trained = bool(getattr(inner, "trained", True))
        self.note = str(getattr(inner, "note", ""))

    def features(self, frames_B3HW: torch.Tensor) -> Features:
        """N_feat of the plug-in."""
        return self.inner.features(frames_B3HW.clone())

    def head(self, feats: Features) -> torch.Tensor:
        """N_task of the plug-in."""
        return self.inner.head(_copied(feats))

    @property
    def has_parts(self) -> bool:
        """Whether the plug-in has `low` and `high`."""
        return callable(getattr(self.inner, "low", None)) and callable(getattr(self.inner, "high", None))

    def low(self, frames_B3HW: torch.Tensor) -> Features:
        """S_l of the plug-in."""
        return self.inner.low(frames_B3HW.clone())

    def high(self, low: Features) -> Features:
        """S_h of the plug-in."""
        return self.inner.high(_copied(low))

    @property
    def has_fuse(self) -> bool:
        """Whether the plug-in has parts and `fuse`."""
        return self.has_parts and callable(getattr(self.inner, "fuse", None))

    def fuse(self, low: Features, carried: Features) -> Features:
        """`fuse` of the plug-in; see `FusingSegmenter`."""
        return self.inner.fuse(_copied(low), _copied(carried))

    def to(self, device: str | torch.device) -> Self:
        """Move the plug-in, if it can be moved."""
        if hasattr(self.inner, "to"):
            self.inner.to(device)
        return self


def build_plugin(spec: str, options: Mapping[str, object]) -> Segmenter:
    """Import, call, check; `SegmenterError` names the step that failed."""
    module_name, _, class_name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a plug-in's own code runs here
        problem = f"{type(error).__name__}: {error}"
        raise SegmenterError(f"segmenter {spec!r}: cannot import {module_name!r} ({problem})") from error
    maker = getattr(module, class_name, None)
    if not callable(maker):
        raise SegmenterError(f"segmenter {spec!r}: module {module_name!r} has no class {class_name!r}")
    accepted = inspect.signature(maker).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    try:
        inner = maker(**{key: value for key, value in options.items() if takes_all or key in accepted})
    except (Exception, SystemExit) as error:  # a plug-in's own code
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise SegmenterError(f"segmenter {spec!r} cannot be built ({problem})") from error
    absent = [name for name in NEEDED if not hasattr(inner, name)]
    if absent:
        raise SegmenterError(
            f"segmenter {spec!r} lacks {', '.join(absent)}; see vidseg_core.models.Segmenter"
        )
    return PluginSegmenter(inner, spec=spec, digest=_digest(spec, module, options))


def _copied(feats: Any) -> Any:
    if isinstance(feats, torch.Tensor):
        return feats.clone()
    return type(feats)(map(_copied, feats)) if isinstance(feats, tuple | list) else feats


def _stride(name: str, stride: Any) -> int:
    whole = isinstance(stride, int) and not isinstance(stride, bool) and stride >= 1
    if not whole:
        raise SegmenterError(
            f"segmenter {name!r}: stride is {stride!r}, expected a whole number of at least 1"
        )
    return stride


def _digest(spec: str, module: Any, options: Mapping[str, object]) -> str:
    parts = [spec, str(options.get("num_classes")), str(options.get("seed"))]
    for path in (getattr(module, "__file__", None), options.get("weights")):
        parts.append(digest_file(Path(str(path))) if path and Path(str(path)).is_file() else "")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
