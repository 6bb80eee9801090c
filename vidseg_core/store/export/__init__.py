"""What masks look like: colours, legends, overlay videos."""

from __future__ import annotations

from vidseg_core.store.export.legend import legend_strip
from vidseg_core.store.export.overlay import export_overlay
from vidseg_core.store.export.paint import Painter
from vidseg_core.store.export.palette import PALETTE, is_background

__all__ = ["PALETTE", "Painter", "export_overlay", "is_background", "legend_strip"]
