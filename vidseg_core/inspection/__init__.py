"""Looking into a run: single frames, why they were keys or not, sheets, clips, exports for other tools."""
