"""``vidseg compact``: merge the small part files of a run."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb, say
from vidseg_core.config.verbs import CompactConfig
from vidseg_core.config.words import count


def run(config: CompactConfig) -> int:
    """Merge the parts of every video of the run and say what was done."""
    from vidseg_core.store import compact

    done = compact(config.run, span_bytes=config.span_mib * 2**20, force=config.force)
    text = f"{config.run}: {done.parts_removed:,} parts merged into {count(done.spans, 'file')}"
    if not done.parts_removed:
        text = f"{config.run}: nothing to merge"
    say("compact", config, text, event="done", parts_removed=done.parts_removed, spans=done.spans)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("compact", CompactConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
