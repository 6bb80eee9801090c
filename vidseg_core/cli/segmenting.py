"""``vidseg segment`` and ``vidseg pseudo-label``: the job, with a dial where one is asked for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vidseg_core.config.cli import EXIT_OK, EXIT_QUARANTINED
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.inputs import inputs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vidseg_core.config.pseudo_label import PseudoLabelConfig
    from vidseg_core.config.segment import SegmentConfig
    from vidseg_core.media import DecodeChild
    from vidseg_core.pipeline.supervisor import Child


def run_segment(config: SegmentConfig, child: Child | None = None) -> int:
    """Masks for the videos that `config` names; the exit code. `child`: this process, if it is one's."""
    with _begun(config, child) as arguments:
        from vidseg_core.pipeline import segment_job as job

        dial = None
        if config.has_dial:
            from vidseg_core.calibration.dial import SampleDial

            dial = SampleDial()
    code = job.run_segment(config, dial=dial, process=child, **arguments)
    return _shown(config, arguments["reporter"], code)


def run_pseudo_label(config: PseudoLabelConfig, child: Child | None = None) -> int:
    """Labels for the videos that `config` names; the exit code."""
    with _begun(config, child) as arguments:
        from vidseg_core.pipeline import segment_job as job
    return _shown(config, arguments["reporter"], job.run_segment(config, process=child, **arguments))


def _shown(config: SegmentConfig, report: Reporter, code: int) -> int:
    """The exit code of a job, after a preview of what it made."""
    if config.preview and not config.dry_run and code in (EXIT_OK, EXIT_QUARANTINED):
        from vidseg_core.inspection.preview import write_preview

        write_preview(config.output, report)
    return code


@contextmanager
def _begun(config: SegmentConfig, child: Child | None) -> Iterator[dict[str, Any]]:
    """The beginning of a job, for what is heavy to import: inputs that lead nowhere are refused before.

    The decoder of a local run starts while the nets are imported.
    """
    report = Reporter(config.log)
    with report.phase("listing the inputs"):
        inputs = inputs_of(config)
    decoder = _early_decoder(config) if child else None
    with report.phase("loading torch", at_once=True):
        yield {"reporter": report, "inputs": inputs, "decoder": decoder}


def _early_decoder(config: SegmentConfig) -> DecodeChild:
    from vidseg_core.media import DecodeChild
    from vidseg_core.pipeline.decode_stage import limits_of

    decoder = DecodeChild(limits_of(config.media))
    decoder.start()
    return decoder
