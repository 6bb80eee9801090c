"""What every verb does around its work: read the command line, turn errors into messages and exit codes.

Exit codes: 0 all done, 1 failed or interrupted, 2 bad usage or configuration, 3 finished with some videos
quarantined.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vidseg_core.config.cli import EXIT_FAILED, EXIT_USAGE, parse
from vidseg_core.config.places import check_places

__all__ = ["FAILURES", "USAGE_ERRORS", "run_verb", "say"]

# What a person can put right on the command line, by qualified name: a class that was raised is imported,
# one that was not need not be.
USAGE_ERRORS = frozenset(
    {
        "vidseg_core.config.errors.ConfigError",
        "vidseg_core.datasets.records.DatasetError",
        "vidseg_core.episodes.table.EpisodeError",
        "vidseg_core.models.policy_trunk.PolicyError",
        "vidseg_core.models.protocol.SegmenterError",
        "vidseg_core.pipeline.manifest.FingerprintMismatch",
        "vidseg_core.plan.errors.InputError",
        "vidseg_core.propagation.registry.UnknownNameError",
        "vidseg_core.store.errors.StoreError",
        "vidseg_core.training.checkpoint.CheckpointError",
    }
)
FAILURES = frozenset(
    {
        "vidseg_core.pipeline.ray_session.ClusterError",
        "vidseg_core.store.errors.CommitConflict",
        "vidseg_core.store.errors.DamagedFile",
        "vidseg_core.store.errors.WriteError",
        "vidseg_core.training.flow.FlowTrainingError",
        "vidseg_core.training.loop.TrainingError",
    }
)

ConfigT = TypeVar("ConfigT")


_BEGINS_ANEW = frozenset({"doctor", "export", "inspect", "report", "status"})
"""Verbs that keep nothing of what was interrupted."""


def run_verb(
    verb: str, cls: type[ConfigT], run: Callable[[ConfigT], int], argv: Sequence[str] | None = None
) -> int:
    """Parse `argv` (None: the process's own) as a `cls`, call `run` with it and return the exit code."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # plug-ins beside the user; after everything that is installed
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters that a locale lacks are spelled out, as in errors
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        config = parse(verb, cls, sys.argv[1:] if argv is None else argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    try:
        if verb != "doctor":  # which tells of its places in its own table
            check_places(config)
        return run(config)
    except KeyboardInterrupt:
        say(verb, config, f"interrupted{_again(verb)}")
        return EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        return _explain(verb, config, error)


def _explain(verb: str, config: Any, error: Exception) -> int:
    """One sentence for what a person can understand, a traceback for the rest; the exit code."""
    from vidseg_core.pipeline.causes import about_a_name, message, raised

    cause = raised(error)
    if named := about_a_name(cause):
        say(verb, config, named)
        return EXIT_USAGE
    code = _expected(cause)
    if code is None:
        traceback.print_exception(error)
        say(verb, config, f"failed: {type(cause).__name__}: {message(cause)}")
        return EXIT_FAILED
    say(verb, config, f"{message(cause)}{_again(verb) if type(cause).__name__ == 'WriteError' else ''}")
    return code


def _again(verb: str) -> str:
    """What a verb that could not end says of what it did."""
    return "" if verb in _BEGINS_ANEW else "; what is finished stays, the same command may be given again"


def _expected(error: BaseException) -> int | None:
    """The exit code of an error that its message explains, by its nearest known class; None for others."""
    for cls in type(error).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name in FAILURES:
            return EXIT_FAILED
        if name in USAGE_ERRORS:
            return EXIT_USAGE
    return None


def say(verb: str, config: Any, message: str, *, event: str = "error", **fields: Any) -> None:
    """One line on standard error, as the config's ``log`` wants it; `fields` go into JSON only."""
    if getattr(config, "log", "text") == "json":
        print(json.dumps({"event": event, "verb": verb, "message": message, **fields}), file=sys.stderr)
    else:
        from vidseg_core.pipeline.progress import tame

        print(f"vidseg {verb}: {tame(message)}", file=sys.stderr)
