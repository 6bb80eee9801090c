"""The run loop: plan a wave of videos, run what is left of them, close them, take the next wave.

A wave bounds the driver's work: its videos are run and closed, and those of the next one planned meanwhile,
before any other is looked at. If a piece of the executor dies and is not replaced (a cell on Ray), the videos
it leaves open are planned once more: what is committed counts, the rest is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from vidseg_core.config.words import count
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.drain import Drain, Drained
from vidseg_core.pipeline.executors import Executor, Planning
from vidseg_core.pipeline.ledger import Ledger
from vidseg_core.plan.video_list import VideoInput, VideoList

_DRAINED_IN_A_ROW = 64
"""Receipts a branch: more than its decoders have in hand when the drain begins."""
_MOST_LOSSES = 5
"""So many times in a wave videos may be left open, because a cell died; then the run ends."""


class LeftOpen(RuntimeError):
    """Videos of a wave stay open however often they are planned."""


class Waves:
    """Runs wave after wave on one executor; ``report`` hears what goes on."""

    def __init__(self, executor: Executor, ledger: Ledger, drain: Drain, report: Reporter) -> None:
        self._executor, self._ledger, self._drain, self._report = executor, ledger, drain, report

    def run(self, videos: VideoList, first: Planning | None = None) -> None:
        """Bring every video to its row in ``videos/``; `Drained` if the run was asked to end.

        ``first``: the plan of the first wave, where it is there already.
        """
        plans = (self._executor.planning(wave) for wave in waves(videos, self._executor.wave_videos))
        if first is not None:
            next(plans)
        plan = first or next(plans, None)
        while plan is not None:
            ahead = next(plans, None)
            try:
                self.run_wave(plan, ahead)
            except BaseException:
                if ahead is not None:
                    ahead.close()
                raise
            plan = ahead

    def run_wave(self, plan: Planning, ahead: Planning | None = None) -> None:
        """Close every video of ``plan``, planning ``ahead`` meanwhile."""
        why: object = None
        for _ in range(1 + _MOST_LOSSES):
            self._run_plan(plan, ahead)
            open_videos = self._ledger.left_open()
            if self._drain.requested:
                raise Drained
            if not open_videos:
                return
            lost = self._executor.lost
            why = lost[-1] if lost else "some of their receipts never came"
            what = f"a cell was lost ({type(why).__name__})" if lost else why
            self._report.say(f"{what}; {count(len(open_videos), 'video')} left open, to be planned again")
            plan = self._executor.planning([v for v in plan.videos if v.video_id in open_videos])
        raise LeftOpen(f"videos were left open {1 + _MOST_LOSSES} times in one wave; the last time: {why}")

    def _run_plan(self, plan: Planning, ahead: Planning | None) -> None:
        """Every receipt; when draining, until only drained shards come: the rest of the wave may be long."""
        drain, ledger, executor = self._drain, self._ledger, self._executor
        with closing(plan), ledger.writing():
            segments = ledger.take_plan(plan.tables(lambda: drain.requested))
            if not segments or drain.requested:
                return
            with closing(executor.receipts(segments)) as tables:
                for table in tables:
                    drain.acknowledge()
                    ledger.take(table)
                    if ledger.drained >= _DRAINED_IN_A_ROW * executor.branches:
                        return
                    if ahead is not None and not drain.requested:
                        ahead.pump()


def waves(videos: VideoList, most: int) -> Iterator[Sequence[VideoInput]]:
    """The videos, so many at a time."""
    for start in range(0, len(videos), most):
        yield videos[start : start + most]
