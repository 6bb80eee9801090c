"""The dial of a run as the pipeline asks for it (`pipeline.dial.Dial`): chosen on a sample, audited at the
end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from vidseg_core.calibration.audit import audit, closing_lines, outcome
from vidseg_core.calibration.calibrate import check_ask, chosen_config, is_calibrated, sample_units
from vidseg_core.calibration.choice import Choice
from vidseg_core.calibration.tasks import Tasks, here, longest_interval, on_ray, sample_builder
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.episodes.estimate import work_of
from vidseg_core.episodes.sources import read_unit
from vidseg_core.episodes.table_builder import TableOptions
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.objects import ObjectStore

_TRIAL_FRAMES = 16
_SCHEDULES = 25
"""Schedules whose intervals have to be put together, roughly: many have intervals in common."""


class SampleDial:
    """Looks at a sample of the corpus once; a run that is continued takes what it chose when it began."""

    def __init__(self) -> None:
        self._choice: Choice | None = None

    def check(
        self, config: SegmentConfig, inputs: Sequence[VideoInput], store: ObjectStore, net: str
    ) -> None:
        check_ask(config, inputs, store, net)

    def say_cost(self, config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter) -> None:
        say_cost(config, inputs, report)

    @contextmanager
    def chosen(
        self,
        config: SegmentConfig,
        inputs: Sequence[VideoInput],
        store: ObjectStore,
        net: str,
        report: Reporter,
        on_ray: Callable[[], bool],
    ) -> Iterator[SegmentConfig]:
        with ExitStack() as stack:
            tasks = None
            if not is_calibrated(store):
                tasks = stack.enter_context(_session(config, report)) if on_ray() else here(config)
            config, self._choice = chosen_config(config, inputs, store, net, report, tasks)
            yield config

    def outcome(
        self,
        config: SegmentConfig,
        store: ObjectStore,
        totals: Mapping[str, Any],
        report: Reporter,
        on_ray: bool,
    ) -> dict[str, Any]:
        assert self._choice is not None, "nothing was chosen"
        frames, audited = config.calibration.audit_frames, None
        if frames:
            report.say(f"audit: the net on {frames} frames more")
            with _session(config, report) if on_ray else nullcontext(), report.phase("auditing"):
                audited = audit(config, store, frames, on_ray=on_ray)
        return outcome(self._choice, totals, audited)

    def closing_lines(self, outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
        return closing_lines(outcome)


@contextmanager
def _session(config: SegmentConfig, report: Reporter) -> Iterator[Tasks]:
    """Ray is up inside, and the sample's tasks run on it."""
    from vidseg_core.kit.ray_session import ray_session

    with ray_session(config, report):
        yield on_ray(config)


def say_cost(config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter) -> None:
    """``--dry-run``: what the calibration would take here, from a few frames of the first run."""
    units = sample_units(config, inputs, report)
    if not units:
        report.say("calibration: no video has frames enough to look at")
        return
    work = [
        work_of(u.frames, horizon=longest_interval(config), key_stride=1, two_sided_stride=0, features=4)
        for u in units
    ]
    frames, pairs = sum(w.frames for w in work), sum(w.pairs for w in work)
    two = _SCHEDULES * frames if config.propagation.sides == "two" else 0
    builder = sample_builder(config, "cpu").with_options(
        TableOptions(quality="accuracy", horizon=8, min_frames=2)
    )
    sample = list(read_unit(units[0], str(config.working_size), "all"))[:_TRIAL_FRAMES]
    started = time.perf_counter()
    seen = builder.see(sample)
    net_s = (time.perf_counter() - started) / len(sample)
    started = time.perf_counter()
    for k in range(len(sample) - 1):
        builder.pairs(seen, k)
    pair_s = (time.perf_counter() - started) / (8 * len(sample) - 36)
    seconds = frames * net_s + (pairs + 2 * two) * pair_s
    audit_s = config.calibration.audit_frames * net_s
    report.say(
        f"calibration would look at {len(units)} runs, {frames:,} frames: the net {1000 * net_s:.0f} ms on "
        "each, "
        f"{pairs:,} pairs and up to {two:,} two-sided frames at {1000 * pair_s:.1f} ms a flow; about "
        f"{clock(seconds)} of one core, and {clock(audit_s)} for the audit at the end. The estimate below is "
        f"for --scheduler.interval {config.scheduler.interval}; what will be chosen is not known yet",
        calibration_core_seconds=round(seconds, 1),
    )
