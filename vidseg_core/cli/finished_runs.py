"""The verbs that take a run as it is and need little more than its store: status, compact and export."""

from __future__ import annotations

from vidseg_core.cli.runner import say
from vidseg_core.config.export import ExportConfig
from vidseg_core.config.verbs import CompactConfig, StatusConfig
from vidseg_core.config.words import count


def run_status(config: StatusConfig) -> int:
    """Print the status of the run; 1 if something that was committed is missing or damaged."""
    from vidseg_core.pipeline.status import as_json, as_text, read_status

    status = read_status(config.run, verify=config.verify)
    print(as_json(status) if config.log == "json" else as_text(status))
    return 0 if status.sound else 1


def run_compact(config: CompactConfig) -> int:
    """Merge the parts of every video of the run and say what was done."""
    from vidseg_core.store import compact

    done = compact(config.run, span_bytes=config.span_mib * 2**20, force=config.force)
    text = f"{config.run}: {done.parts_removed:,} parts merged into {count(done.spans, 'file')}"
    if not done.parts_removed:
        text = f"{config.run}: nothing to merge"
    say("compact", config, text, event="done", parts_removed=done.parts_removed, spans=done.spans)
    return 0


def run_export(config: ExportConfig) -> int:
    """Export what `config` names; the exit code."""
    from vidseg_core.export.export_job import run_export

    return run_export(config)
