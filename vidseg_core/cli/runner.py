"""What every verb does around its work: read the command line, turn errors into messages and exit codes.

Exit codes: 0 all done, 1 failed or interrupted, 2 bad usage or configuration, 3 finished with some videos
quarantined. An exception whose class has an `exit_code` is explained by its message; any other is a bug, and
gets a traceback.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vidseg_core.cli.utf8 import begin_again_in_utf8
from vidseg_core.cli.verbs import VERBS
from vidseg_core.config.cli import EXIT_FAILED, EXIT_OK, EXIT_QUARANTINED, EXIT_USAGE, parse
from vidseg_core.config.places import check_places
from vidseg_core.kit.interrupts import asked_to_end, heard
from vidseg_core.kit.progress import Reporter, spoke, tame
from vidseg_core.pipeline.supervisor import supervised

__all__ = ["run_verb", "say"]

ConfigT = TypeVar("ConfigT")
OOM_RETRIES = ("RAY_task_oom_retries", "3")
"""What Ray's memory monitor ends is tried so often, not for ever; Ray reads it when it is imported."""


def run_verb(
    verb: str,
    cls: type[ConfigT],
    run: Callable[..., int],
    words: Sequence[str],
    *,
    ends: Callable[[int], Any] | None = None,
    in_child: Callable[[ConfigT], bool] = lambda config: False,
    then: Callable[[ConfigT], str] = lambda config: "",
) -> int:
    """Parse `words` as a `cls`, call `run` with it and return the exit code.

    `ends`: ends the process with that code; for commands whose own the process is.
    `in_child`: whether the work of such a process is done in a child, which another replaces when it
    dies; `run` is given that as its last argument. `then`: the command to type after it went well.
    """
    begin_again_in_utf8()
    if ends:
        _leave_descriptor_2()
    os.environ.setdefault(*OOM_RETRIES)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # plug-ins beside the user; after everything that is installed
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters that a locale lacks are spelled out, as in errors
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        config = parse(verb, cls, words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    with heard(lambda: _say_interrupted(verb, config)):
        if ends and in_child(config):
            code = supervised(
                lambda child: _run(verb, config, lambda config: run(config, child)),
                lambda text: say(verb, config, text, event="process"),
                lambda: _say_interrupted(verb, config),
            )
        else:
            code = _run(verb, config, run)
        if code in (EXIT_OK, EXIT_QUARANTINED) and (command := then(config)):
            say(verb, config, f"next: {command}", event="next", command=command)
    if ends:
        ends(code)
    return code


def _leave_descriptor_2() -> None:
    """Python's errors go by a descriptor of their own from now on; the usual one is left to native code, so
    that its lines can be put into a file (`kit.ray_log`)."""
    was = sys.stderr
    if was is not None:  # closed by whoever started this
        sys.stderr = open(os.dup(was.fileno()), "w", buffering=1, encoding=was.encoding, errors=was.errors)


def _run(verb: str, config: ConfigT, run: Callable[[ConfigT], int]) -> int:
    try:
        if VERBS[verb].checks_places:
            check_places(config)
        with Reporter(getattr(config, "log", "text"), live=False).phase(f"{verb}: at work"):
            return run(config)
    except KeyboardInterrupt as stop:
        _say_interrupted(verb, config, str(stop))
        return EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if asked_to_end():
            _say_interrupted(verb, config)
            return EXIT_FAILED
        return _explain(verb, config, error)


def _explain(verb: str, config: Any, error: Exception) -> int:
    """One sentence for what a person can understand, a traceback for the rest; the exit code."""
    from vidseg_core.kit.explain import about_a_name, message, raised

    cause = raised(error)
    if named := about_a_name(cause):
        say(verb, config, named)
        return EXIT_USAGE
    code = getattr(cause, "exit_code", None)
    if not isinstance(code, int):
        traceback.print_exception(error)
        say(verb, config, f"failed: {type(cause).__name__}: {message(cause)}")
        return EXIT_FAILED
    again = f"; {VERBS[verb].afterwards}" if type(cause).__name__ == "WriteError" else ""
    say(verb, config, f"{message(cause)}{again}")
    return code


def _say_interrupted(verb: str, config: Any, afterwards: str = "") -> None:
    say(verb, config, f"interrupted; {afterwards or VERBS[verb].afterwards}")


def say(verb: str, config: Any, message: str, *, event: str = "error", **fields: Any) -> None:
    """One line on standard error, as the config's ``log`` wants it; `fields` go into JSON only."""
    if getattr(config, "log", "text") == "json":
        print(json.dumps({"event": event, "verb": verb, "message": message, **fields}), file=sys.stderr)
    else:
        print(f"vidseg {verb}: {tame(message)}", file=sys.stderr)
    spoke()
