"""The dial of a run as the pipeline asks for it (`pipeline.dial.Dial`): chosen on a sample, audited at the
end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from vidseg_core.calibration.audit import audit, closing_lines, outcome
from vidseg_core.calibration.calibrate import check_ask, chosen_config, is_calibrated
from vidseg_core.calibration.choice import Choice
from vidseg_core.calibration.tasks import Tasks, here, on_ray
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.objects import ObjectStore


class SampleDial:
    """Looks at a sample of the corpus once; a run that is continued takes what it chose when it began."""

    def __init__(self) -> None:
        self._choice: Choice | None = None

    def check(
        self, config: SegmentConfig, inputs: Sequence[VideoInput], store: ObjectStore, net: str
    ) -> None:
        check_ask(config, inputs, store, net)

    def say_cost(self, config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter) -> None:
        from vidseg_core.calibration.cost import say_cost

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
                tasks = stack.enter_context(_session(config)) if on_ray() else here(config)
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
            with _session(config) if on_ray else nullcontext():
                audited = audit(config, store, frames, on_ray=on_ray)
        return outcome(self._choice, totals, audited)

    def closing_lines(self, outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
        return closing_lines(outcome)


@contextmanager
def _session(config: SegmentConfig) -> Iterator[Tasks]:
    """Ray is up inside, and the sample's tasks run on it."""
    from vidseg_core.kit.ray_session import ray_session

    with ray_session(config):
        yield on_ray(config)
