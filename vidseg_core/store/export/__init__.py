"""Masks of a run in forms that other people's tools read: palette PNG, COCO JSON, overlay video."""

from __future__ import annotations

from vidseg_core.store.export.coco import export_coco
from vidseg_core.store.export.legend import legend_strip
from vidseg_core.store.export.overlay import export_overlay
from vidseg_core.store.export.paint import Painter
from vidseg_core.store.export.palette import PALETTE, is_background
from vidseg_core.store.export.png import export_png

__all__ = [
    "PALETTE",
    "Painter",
    "export_coco",
    "export_overlay",
    "export_png",
    "is_background",
    "legend_strip",
]
