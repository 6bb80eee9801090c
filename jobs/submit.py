"""``vidseg submit [options] -- VERB ...``: a verb as a job of a Ray cluster."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.runner import run_verb
from vidseg_core.config.errors import ConfigError, check, check_name
from vidseg_core.config.schema import redact
from vidseg_core.config.submit import CLUSTER_VERBS, SubmitConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    options, inner = words[:cut], words[cut + 1 :]

    def run(config: SubmitConfig) -> int:
        from vidseg_core.pipeline.submit import submit

        if not inner:
            raise ConfigError(
                "VERB", "is missing: vidseg submit [options] -- segment --input ... --output ..."
            )
        check_name("VERB", inner[0], CLUSTER_VERBS)
        _check_secrets(inner)
        _check_command(inner, config.working_dir)
        return submit(config, inner[0], inner[1:])

    return run_verb("submit", SubmitConfig, run, options)


def _check_secrets(inner: Sequence[str]) -> None:
    """The command is printed, and kept by the cluster for all to see."""
    for word in inner:
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        problem = f"holds credentials ({redact(value)}); they belong in the cluster's environment"
        check(redact(value) == value, "VERB", problem)


def _check_command(inner: Sequence[str], folder: str | None) -> None:
    """A slip in the options of the main jobs is reported here, not in a log of the cluster.

    The job starts inside ``--working_dir``, so relative names are looked up there.
    """
    from vidseg_core.config.cli import parse, take_option
    from vidseg_core.config.pseudo_label import PseudoLabelConfig
    from vidseg_core.config.segment import SegmentConfig

    known = {"segment": SegmentConfig, "pseudo-label": PseudoLabelConfig}
    with contextlib.chdir(folder or "."):
        for file in take_option(inner[1:], "config")[0] if folder else ():
            problem = f"there is no {file} inside --working_dir {folder}, where the job starts"
            check(Path(file).is_absolute() or Path(file).is_file(), "--config", problem)
        if inner[0] in known:
            parse(inner[0], known[inner[0]], inner[1:])


if __name__ == "__main__":
    raise SystemExit(main())
