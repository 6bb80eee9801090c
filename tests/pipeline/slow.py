"""Plug-ins for tests: segmenters that take their time or fail on purpose."""

from __future__ import annotations

import time
from typing import Any

import torch

from vidseg_core.models.registry import build_segmenter
from vidseg_core.store.objects import open_store


class SlowPlain:
    """The plain net, a quarter of a second slower: long enough to be killed in the middle."""

    delay_s = 0.25

    def __init__(self, **_: Any) -> None:
        self._net = build_segmenter("plain")
        self.name, self.digest, self.note = "tests:slow", self._net.digest, ""
        self.class_names, self.stride, self.trained = self._net.class_names, self._net.stride, True

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        """The plain net's, later."""
        time.sleep(self.delay_s)
        return self._net.features(frames_B3HW)

    def head(self, feats: Any) -> torch.Tensor:
        """The plain net's."""
        return self._net.head(feats)

    def to(self, device: Any) -> SlowPlain:
        """Stays where it is."""
        return self


class SlowStore:
    """A local store whose commits of parts take their time."""

    delay_s = 0.3

    def __init__(self, root: str) -> None:
        self._store = open_store(root)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """The local store's, later for parts."""
        if key.startswith("frames/"):
            time.sleep(self.delay_s)
        return self._store.put_if_absent(key, data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._store, name)
