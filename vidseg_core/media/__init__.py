"""Videos as untrusted bytes: guarded open, index, exact frames, and a process that may be killed.

`probe` and `decode_unit` work inside this process; `DecodeChild` runs the same two in a child that a hang or
a crash of native code cannot outlive. Units and frames are described in `model`.
"""

from __future__ import annotations

from vidseg_core.media.decode import decode_unit
from vidseg_core.media.errors import REASONS, MediaCrash, MediaError, MediaTimeout
from vidseg_core.media.indexing import probe
from vidseg_core.media.model import DecodeUnit, MediaLimits, VideoIndex, working_size
from vidseg_core.media.motion import Motion, without_motion
from vidseg_core.media.pictures import FrameShard, Layout, Picture, Pictures, slot_bytes_of, usual_bytes
from vidseg_core.media.process import DecodeChild, child_for_this_process, decoders_cpu_s
from vidseg_core.media.source import stamp_of

__all__ = [
    "REASONS",
    "DecodeChild",
    "DecodeUnit",
    "FrameShard",
    "Layout",
    "MediaCrash",
    "MediaError",
    "MediaLimits",
    "MediaTimeout",
    "Motion",
    "Picture",
    "Pictures",
    "VideoIndex",
    "child_for_this_process",
    "decode_unit",
    "decoders_cpu_s",
    "probe",
    "slot_bytes_of",
    "stamp_of",
    "usual_bytes",
    "without_motion",
    "working_size",
]
