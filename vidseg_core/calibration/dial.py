"""The dial of a run as the pipeline asks for it (`pipeline.dial.Dial`): chosen on a sample, audited at the
end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from vidseg_core.calibration.audit import audit, closing_lines, outcome
from vidseg_core.calibration.calibrate import (
    at_hand,
    check_ask,
    chosen_config,
    is_calibrated,
    stored_config,
    with_choice,
)
from vidseg_core.calibration.choice import Choice, describe, unseen
from vidseg_core.calibration.evidence import schedule_quality
from vidseg_core.calibration.sizing import draw_sample, work_of_sample
from vidseg_core.calibration.tasks import Tasks, here, on_ray, sample_builder
from vidseg_core.calibration.ways import other_ways
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.trial import usual_pixels
from vidseg_core.episodes.between import Seen
from vidseg_core.episodes.sources import Unit, read_unit
from vidseg_core.episodes.table_builder import TableBuilder
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.store.objects import ObjectStore, open_store

_TRIAL_FRAMES, _TRIAL_INTERVAL = 17, 8


class SampleDial:
    """Looks at a sample of the corpus once; a run that is continued takes what it chose when it began."""

    def __init__(self) -> None:
        self._choice: Choice | None = None

    def check(
        self, config: SegmentConfig, inputs: Sequence[VideoInput], store: ObjectStore, net: str
    ) -> None:
        check_ask(config, inputs, store, net)

    def say_cost(
        self, config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter
    ) -> SegmentConfig:
        return say_cost(config, inputs, report)

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
        if frames and self._choice.clips:  # without a look nothing is promised that an audit would check
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


def say_cost(config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter) -> SegmentConfig:
    """``--dry-run``: what the calibration would take here, from a few frames of the first run.

    The configuration that the estimate is for: what would run, where that is known without a look.
    """
    store = open_store(config.output)
    if is_calibrated(store):
        config, choice = stored_config(config, store)
        report.block(describe(choice))
        return config
    drawn = draw_sample(config, inputs, report)
    if drawn.declined:
        choice = unseen(config, drawn.declined, drawn.lengths)
        report.block(describe(choice))
        return with_choice(config, choice)
    if not drawn.units:
        report.say("calibration: no video has frames enough to look at")
        return config
    at_hand(drawn.config, report)
    frames, pairs, two = work_of_sample(drawn)
    net_s, pair_s, ways = _measured(drawn.config, drawn.units[0])
    crops = sum(usual_pixels(each, config.working_size_spec) for each in config.regions_tried)
    seconds = (1 + crops) * (frames * net_s + (pairs + 2 * two) * pair_s)
    audit_s = config.calibration.audit_frames * net_s
    report.say(
        f"calibration would look at {len(drawn.units)} runs, {frames:,} frames{_by_region(config)}: the net "
        f"{1000 * net_s:.0f} ms on each, {pairs:,} pairs and up to {two:,} two-sided frames at "
        f"{1000 * pair_s:.1f} ms a flow; about {clock(seconds)} of one core, and {clock(audit_s)} for the "
        f"audit at the end. The estimate below is for --scheduler.interval {config.scheduler.interval}; what "
        "is chosen is not known yet",
        calibration_core_seconds=round(seconds, 1),
    )
    if len(ways) > 1:
        report.say(
            f"propagators on the first {_TRIAL_FRAMES} frames, a key every {_TRIAL_INTERVAL}: "
            f"{'; '.join(ways)}; the calibration tries them at equal cost where that pays"
        )
    return config


def _by_region(config: SegmentConfig) -> str:
    """That frames are looked at again, cut into regions, in words."""
    grids = " and ".join(regions.grid for regions in config.regions_tried)
    return f", and again cut into regions {grids}" if grids else ""


def _measured(config: SegmentConfig, unit: Unit) -> tuple[float, float, list[str]]:
    """CPU seconds of the net on a frame, and of a pair; and what each propagator costs and is worth."""
    builder = sample_builder(config, "cpu")
    builder = builder.with_options(replace(builder.options, horizon=8, min_frames=2))
    sample = list(read_unit(unit, str(config.working_size), "all"))[:_TRIAL_FRAMES]
    started = time.process_time()
    seen = builder.see(sample)
    net_s = (time.process_time() - started) / len(sample)
    started = time.process_time()
    for k in range(len(sample) - 1):
        builder.pairs(seen, k)
    pair_s = (time.process_time() - started) / (8 * len(sample) - 36)
    return net_s, pair_s, [_tried_out(config, builder, seen, way) for way in _ways(config)]


def _ways(config: SegmentConfig) -> list[PropagationConfig]:
    return [config.propagation, *other_ways(config)]


def _tried_out(config: SegmentConfig, builder: TableBuilder, seen: Seen, way: PropagationConfig) -> str:
    """What filling the gaps between even keys costs and is worth, in words."""
    if way != config.propagation:
        builder = builder.with_propagator(propagator_of(way))
    keys_m = np.arange(0, len(seen.keys), _TRIAL_INTERVAL)
    started = time.process_time()
    quality = schedule_quality(builder, seen, keys_m, two_sided=way.sides == "two")
    milliseconds = 1000 * (time.process_time() - started) / max(1, len(seen.keys) - len(keys_m))
    return f"{way.name} {milliseconds:.1f} ms a frame, {config.calibration.quality} {100 * quality:.1f}"
