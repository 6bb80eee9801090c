"""vidseg from Python: what `vidseg segment` does, in the calling process, with exceptions in place of exit
codes.

Options are those of the command line. A dotted name is a mapping, as in a ``--config`` file:
``--scheduler.interval 25`` is ``scheduler={"interval": 25}``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from vidseg_core.config.errors import check
from vidseg_core.config.places import check_places
from vidseg_core.config.schema import flatten, from_dict
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.store.run import Run, open_run

__all__ = ["SegmentOptions", "open_run", "segment"]

Place = str | os.PathLike[str]
Group = Mapping[str, Any]
"""The options of one group, by what follows the dot."""


class SegmentOptions(TypedDict, total=False):
    """The options of ``vidseg segment``; what each means is in its ``--help``."""

    segmenter: str
    weights: str | None
    num_classes: int | None
    working_size: str | int
    dtype: Literal["fp32", "bf16"]
    device: Literal["auto", "cpu", "cuda"]
    key_batch: int
    threads: int
    scheduler: Group
    propagation: Group
    regions: Group
    tta: Group
    masks: Group
    media: Group
    budget: float | None
    max_drop: float | None
    calibration: Group
    segment_frames: int
    shard_frames: int
    seed: int
    executor: Literal["auto", "local", "ray"]
    workers: int
    decoders: int
    lanes: int
    gpus_per_worker: float | None
    flow_threads: int
    ray_address: str | None
    object_store_mb: int | None
    state_mb: int
    dry_run: bool
    preview: bool
    retry_quarantined: bool
    repair: bool
    limit: int | None
    log: Literal["text", "json"]


def segment(input: Place | Sequence[Place], output: Place, **options: Unpack[SegmentOptions]) -> Run:
    """Segment videos, or continue a run that was stopped; the finished run, as `open_run` gives it.

    Progress is printed to standard error. A video that cannot be read is a row of `Run.videos()` with its
    reason, not an exception. A `ValueError` (of which `ConfigError` is one) says what in the call is wrong
    and names the option as it is typed on the command line; anything else that is raised ended the run, and
    the same call goes on from what is committed. SIGTERM lets it commit what is in flight and raises
    `KeyboardInterrupt`.
    """
    inputs = [input] if isinstance(input, str | os.PathLike) else list(input)
    values = _plain({"input": inputs, "output": output, **options})
    config = from_dict(SegmentConfig, values).as_typed(set(flatten(values)))
    check(not config.dry_run, "--dry_run", "gives no run; it is for the command line")
    check_places(config)
    report = Reporter(config.log)
    with report.phase("loading torch"):
        from vidseg_core.kit.explain import raised
        from vidseg_core.pipeline import segment_job as job
        from vidseg_core.pipeline.drain import Drained

        dial = None
        if config.has_dial:
            from vidseg_core.calibration.dial import SampleDial

            dial = SampleDial()
    try:
        job.do_segment(config, report, dial)
    except Drained:
        raise KeyboardInterrupt("ended as asked; what was in flight is committed") from None
    except Exception as problem:
        if (cause := raised(problem)) is problem:
            raise
        raise cause from None  # without what Ray wraps around it
    if config.preview:
        from vidseg_core.inspection.preview import write_preview

        write_preview(config.output, report)
    return open_run(config.output)


def _plain(value: Any) -> Any:
    """As a configuration file would hold it."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
