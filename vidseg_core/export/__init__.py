"""Masks of a run in forms that other people's tools read: one table of formats, one choice of frames."""
