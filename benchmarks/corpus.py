"""Footage for the benchmarks: the real videos in ``--data`` (or ``$VIDSEG_DATA``), else generated scenes."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm"}


def data_dir(given: str | None) -> Path | None:
    """The folder of real material, or None when there is none."""
    candidates = [given, os.environ.get("VIDSEG_DATA"), str(Path(__file__).parents[2] / "shared" / "data")]
    for candidate in candidates:
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


def real_videos(given: str | None) -> list[Path]:
    """Whole, undamaged videos: the folders ``videos`` and ``face`` of the data."""
    root = data_dir(given)
    if root is None:
        return []
    folders = [root / "videos", root / "face"]
    return sorted(
        p for folder in folders if folder.is_dir() for p in folder.iterdir() if p.suffix in SUFFIXES
    )


def link_corpus(videos: list[Path], copies: int, folder: Path) -> Path:
    """``copies`` names for each video, as links in ``folder``: a longer corpus without more disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for copy in range(copies):
        for video in videos:
            target = folder / f"{video.stem}-{copy:02d}{video.suffix}"
            if not target.exists():
                os.link(video, target) if _same_disk(video, folder) else target.write_bytes(
                    video.read_bytes()
                )
    return folder


def _same_disk(video: Path, folder: Path) -> bool:
    return os.access(video, os.W_OK) and video.stat().st_dev == folder.stat().st_dev
