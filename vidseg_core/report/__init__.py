"""What people look at: colours, overlays, sheets."""

from vidseg_core.report.overlay import SheetRow, blend, contact_sheet, mask_picture, save_png

__all__ = ["SheetRow", "blend", "contact_sheet", "mask_picture", "save_png"]
