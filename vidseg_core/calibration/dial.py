"""The dial of a run as the pipeline asks for it (`pipeline.dial.Dial`): chosen on a sample, audited at the
end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from vidseg_core.calibration.audit import audit, closing_lines, outcome
from vidseg_core.calibration.calibrate import check_ask, chosen_config, is_calibrated
from vidseg_core.calibration.choice import Choice
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.objects import ObjectStore


def run_segment_with_dial(config: SegmentConfig) -> int:
    """The job that `config` describes, its scheduler chosen here where that is asked for; the exit code."""
    from vidseg_core.pipeline.job import run_segment

    return run_segment(config, dial=SampleDial() if config.has_dial else None)


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
    ) -> Iterator[SegmentConfig]:
        from vidseg_core.kit.ray_session import ray_session

        with ExitStack() as stack:
            if not is_calibrated(store):
                stack.enter_context(ray_session(config))
            config, self._choice = chosen_config(config, inputs, store, net, report)
            yield config

    def outcome(
        self, config: SegmentConfig, store: ObjectStore, totals: Mapping[str, Any], report: Reporter
    ) -> dict[str, Any]:
        from vidseg_core.kit.ray_session import ray_session

        assert self._choice is not None, "nothing was chosen"
        frames, audited = config.calibration.audit_frames, None
        if frames:
            report.say(f"audit: the net on {frames} frames more")
            with ray_session(config):
                audited = audit(config, store, frames)
        return outcome(self._choice, totals, audited)

    def closing_lines(self, outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
        return closing_lines(outcome)
