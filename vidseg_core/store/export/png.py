"""Masks as 8-bit palette PNG: the pixel value is the class id, the palette only shows it.

`<out>/<video_id>/<frame_index>.png`, one file a frame, at the size of the mask.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.export.palette import PALETTE
from vidseg_core.store.run import Run


def export_png(
    run: Run, out: str | Path, *, video_ids: Sequence[str] | None = None, keys_only: bool = False
) -> int:
    """Write the masks of a run (or of some videos, or of key frames only); returns how many files."""
    written = 0
    for video_id in video_ids if video_ids is not None else [found for found, _ in run.files()]:
        folder = Path(out) / video_id
        make_folder(folder)
        for row in run.rows(video_id, ("is_key", "height", "width", "mask")):
            if keys_only and not row["is_key"]:
                continue
            image = Image.fromarray(run.labels(video_id, row))
            image.putpalette(PALETTE.tobytes())
            sink = io.BytesIO()
            image.save(sink, format="png", optimize=False)
            write_whole(folder / f"{row['frame_index']:08d}.png", sink.getvalue(), sync=False)
            written += 1
    return written
