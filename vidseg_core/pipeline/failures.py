"""What an exception out of the engine means: this video's end, or everybody's.

A net that fails on one video (scores that are not finite, a picture too large for the device) costs that
video; the reason goes into its row. When segment after segment fails, the fault is not theirs: the run ends
and can go on later.
"""

from __future__ import annotations

import traceback

import torch

from vidseg_core.models.protocol import ScoresError

MOST_FAILURES = 8
"""Segments in a row that fail in one engine before the run ends."""
_MOST_TEXT = 300


class EngineBroken(RuntimeError):
    """The engine fails whatever it is given."""


def is_asked_to_end(problem: BaseException) -> bool:
    """Ray ends this process: its handler of SIGTERM raises wherever the code is, by no video's fault."""
    frames = traceback.extract_tb(problem.__traceback__)
    return isinstance(problem, SystemExit) and bool(frames) and frames[-1].filename.endswith("_raylet.pyx")


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether the device or this process is out of memory."""
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or (
        isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)
    )


def is_device_fault(problem: BaseException) -> bool:
    """Nothing works on this device any more (an illegal access, a GPU that is lost), whatever it is given."""
    fault = getattr(torch, "AcceleratorError", None)  # torch 2.8 and later
    return fault is not None and isinstance(problem, fault) and not is_out_of_memory(problem)


def free_memory() -> None:
    """Gives cached device memory back, where there is any."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reason_of(problem: BaseException) -> tuple[str, str]:
    """(reason code, one sentence) for the video's row."""
    if is_out_of_memory(problem):
        text = "the engine needs more memory than there is, even for this video alone"
        return "out_of_memory", f"{text}; a smaller --key_batch or --working_size needs less"
    if isinstance(problem, ScoresError):
        return "bad_scores", str(problem)
    where = traceback.extract_tb(problem.__traceback__)[-1]
    name = where.filename.rpartition("/")[2]
    text = " ".join(str(problem).split())[:_MOST_TEXT]
    return "engine_error", f"{type(problem).__name__}: {text} ({name}, line {where.lineno})"
