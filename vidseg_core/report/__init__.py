"""What people look at: pages and sheets."""

from vidseg_core.report.overlay import SheetRow, contact_sheet, save_png

__all__ = ["SheetRow", "contact_sheet", "save_png"]
