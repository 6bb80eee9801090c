"""Which versions a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import av

_PACKAGES = ("vidseg", "ray", "torch", "av", "numpy", "pyarrow", "opencv-python-headless", "boto3")


def versions() -> dict[str, str]:
    """Versions that matter for the result, FFmpeg's libraries included."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    for library, numbers in sorted(av.library_versions.items()):
        found[f"ffmpeg.{library}"] = ".".join(map(str, numbers))
    return found
