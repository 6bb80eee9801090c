"""``vidseg demo``: generated scenes through the real job, once per scheduler, and a comparison."""
