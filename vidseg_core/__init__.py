"""vidseg: segmentation of video corpora with key frames and propagation, as a resumable Ray job.

This file imports nothing before it is needed, so that a child process which needs one part of the package
(the decoder, say) does not pay for the others.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "open_run", "segment"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vidseg_core.api import open_run as open_run
    from vidseg_core.api import segment as segment


def __getattr__(name: str) -> object:
    """`segment` and `open_run`, imported when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vidseg_core import api

    return getattr(api, name)
