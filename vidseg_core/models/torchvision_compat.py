"""Import torchvision even where its compiled operators are missing.

A torchvision wheel built for another torch (typically the CUDA wheel beside a CPU-only torch) fails to import
with `operator torchvision::nms does not exist`, because it registers shape rules for operators that its
library did not bring. The nets here never call those operators. Invariant: when torchvision imports by
itself, nothing is touched; on exactly that error the two schemas are declared, without an implementation, and
the import is tried once more.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []
"""Keeps the declarations alive: a `Library` withdraws its schemas when it is collected."""


def import_torchvision() -> ModuleType:
    """The torchvision package; call this before importing anything that imports torchvision."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for schema in MISSING_SCHEMAS:
            library.define(schema)
        _declared.append(library)
    return importlib.import_module("torchvision")
