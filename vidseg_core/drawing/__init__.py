"""What masks look like: colours, legends, overlay videos."""

from __future__ import annotations

from vidseg_core.drawing.legend import legend_strip
from vidseg_core.drawing.overlay import export_overlay
from vidseg_core.drawing.paint import Painter
from vidseg_core.drawing.palette import PALETTE, is_background

__all__ = ["PALETTE", "Painter", "export_overlay", "is_background", "legend_strip"]
