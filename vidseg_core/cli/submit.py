"""``vidseg submit [options] -- VERB ...``: a verb as a job of a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from vidseg_core.cli.verbs import VERBS
from vidseg_core.config.cli import parse, take_option
from vidseg_core.config.errors import check, check_name
from vidseg_core.config.schema import redact
from vidseg_core.config.submit import CLUSTER_VERBS, SubmitConfig


def run_submit(config: SubmitConfig, command: Sequence[str]) -> int:
    """Check the command and submit it; the exit code of its job where that is followed."""
    from vidseg_core.pipeline.submit import submit

    missing = "is missing: vidseg submit [options] -- segment --input ... --output ..."
    check(bool(command), "VERB", missing)
    check_name("VERB", command[0], CLUSTER_VERBS)
    _check_secrets(command)
    _check_command(command, config.working_dir)
    return submit(config, command[0], command[1:])


def _check_secrets(command: Sequence[str]) -> None:
    """The command is printed, and kept by the cluster for all to see."""
    for word in command:
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        problem = f"holds credentials ({redact(value)}); they belong in the cluster's environment"
        check(redact(value) == value, "VERB", problem)


def _check_command(command: Sequence[str], folder: str | None) -> None:
    """A slip in the options of the main jobs is reported here, not in a log of the cluster.

    The job starts inside ``--working_dir``, so relative names are looked up there.
    """
    with contextlib.chdir(folder or "."):
        for file in take_option(command[1:], "config")[0] if folder else ():
            problem = f"there is no {file} inside --working_dir {folder}, where the job starts"
            check(Path(file).is_absolute() or Path(file).is_file(), "--config", problem)
        if command[0] in ("segment", "pseudo-label"):
            parse(command[0], VERBS[command[0]].config_class(), command[1:])
