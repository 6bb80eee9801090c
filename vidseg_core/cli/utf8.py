"""A command in a locale that knows ASCII letters only begins again in Python's UTF-8 mode.

Names on a disk are bytes, and nearly always UTF-8, whatever the locale says. Ray and Arrow take names as
UTF-8 only; a process that has read them in ASCII can hand neither its own command line nor its folder on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["begin_again_in_utf8"]


def begin_again_in_utf8() -> None:
    """Replace this process by itself in UTF-8 mode if its locale is ASCII and it is a command of ours."""
    if sys.flags.utf8_mode or sys.getfilesystemencoding() not in ("ascii", "ANSI_X3.4-1968"):
        return
    script = Path(sys.argv[0])
    if script.name != "vidseg" and script.parent.name not in ("jobs", "vidseg_core", "cli"):
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that it starts
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
