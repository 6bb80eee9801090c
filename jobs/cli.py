"""``vidseg VERB ...``: finds the verb's file in this folder and hands the rest of the command line over.

Invariant: nothing heavy is imported before a verb has begun its work, so help and usage errors are quick.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from jobs.utf8 import begin_again_in_utf8
from vidseg_core import __version__

__all__ = ["VERBS", "main"]

VERBS = {
    "segment": "videos in, a table of masks out",
    "pseudo-label": "a teacher net labels videos for a student to learn from",
    "train-segmenter": "labelled and pseudo-labelled frames in, a net's weights out",
    "train-flow": "clips in, a flow net's weights out",
    "build-episodes": "clips in, tables out that schedulers learn from",
    "train-policy": "episode tables in, a learned key frame policy out",
    "train-decision": "episode tables in, DVSNet's decision net out",
    "train-planner": "episode tables in, a scheduler that looks ahead out",
    "tune": "search spaces in, a Pareto front of schedulers out",
    "evaluate": "schedulers and propagators over labelled clips, measured",
    "report": "one page with curves, timelines, masks and tables of what was run",
    "inspect": "look into a run: frames, why a frame was key, sheets, clips, exports",
    "submit": "any of these as a job of a Ray cluster",
    "status": "where a run stands, from its output alone",
    "compact": "merge the small part files of a run",
    "export": "masks as PNG files, COCO run-lengths or overlay videos",
    "demo": "generated scenes, several schedulers, one comparison",
    "doctor": "is this machine ready, and what is missing",
}


def usage() -> str:
    """The list of verbs."""
    verbs = "\n".join(f"  {name:15} {text}" for name, text in VERBS.items())
    codes = "exit codes: 0 all done, 1 failed, 2 bad usage, 3 finished with some videos quarantined"
    return f"usage: vidseg VERB [options]   (vidseg VERB --help for the options)\n\n{verbs}\n\n{codes}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vidseg`` with `argv` (None: the process's own) and return the exit code."""
    if argv is None:
        begin_again_in_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"vidseg {__version__}")
        return 0
    if arguments[:1] in (["--help"], ["-h"], ["help"]):
        print(usage(), end="")
        return 0
    if not arguments:
        print(usage(), end="", file=sys.stderr)
        return 2
    verb = arguments[0]
    if verb not in VERBS:
        from vidseg_core.config.errors import nearest

        print(f"vidseg: there is no verb {verb!r}{nearest(verb, VERBS)}\n", file=sys.stderr)
        print(usage(), end="", file=sys.stderr)
        return 2
    module = importlib.import_module(f"jobs.{verb.replace('-', '_')}")
    if argv is not None:
        return module.main(arguments[1:])
    sys.argv = [f"vidseg {verb}", *arguments[1:]]  # the process's own, so that nothing comes after the verb
    return module.main()


if __name__ == "__main__":
    raise SystemExit(main())
