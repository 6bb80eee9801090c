"""Cached (key, frame) tables, the environment that learns on them, and the best schedule that they allow."""
