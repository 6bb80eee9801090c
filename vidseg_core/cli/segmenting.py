"""``vidseg segment`` and ``vidseg pseudo-label``: the job, with a dial where one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidseg_core.config.pseudo_label import PseudoLabelConfig
    from vidseg_core.config.segment import SegmentConfig
    from vidseg_core.media import DecodeChild
    from vidseg_core.pipeline.supervisor import Child


def run_segment(config: SegmentConfig, child: Child | None = None) -> int:
    """Masks for the videos that `config` names; the exit code. `child`: this process, if it is one's."""
    decoder = _early_decoder(config) if child else None
    from vidseg_core.pipeline import segment_job as job

    dial = None
    if config.has_dial:
        from vidseg_core.calibration.dial import SampleDial

        dial = SampleDial()
    return job.run_segment(config, dial=dial, process=child, decoder=decoder)


def run_pseudo_label(config: PseudoLabelConfig, child: Child | None = None) -> int:
    """Labels for the videos that `config` names; the exit code."""
    decoder = _early_decoder(config) if child else None
    from vidseg_core.pipeline import segment_job as job

    return job.run_segment(config, process=child, decoder=decoder)


def _early_decoder(config: SegmentConfig) -> DecodeChild:
    """The decoder of a local run: it starts while the nets are imported."""
    from vidseg_core.media import DecodeChild
    from vidseg_core.pipeline.decode_stage import limits_of

    decoder = DecodeChild(limits_of(config.media))
    decoder.start()
    return decoder
