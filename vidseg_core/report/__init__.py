"""What people look at: colours, overlays, sheets."""

from vidseg_core.report.overlay import SheetRow, blend, contact_sheet, mask_picture, save_png
from vidseg_core.report.palette import PALETTE_RGB, palette_array

__all__ = ["PALETTE_RGB", "SheetRow", "blend", "contact_sheet", "mask_picture", "palette_array", "save_png"]
