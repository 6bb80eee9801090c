"""``vidseg segment``, from its configuration to its exit code.

claim the output -> choose where to run (`executors`) -> wave after wave of videos (`wave`) -> ``run.json``,
``_SUCCESS``. The driver holds counts, never frames.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine.assemble import NetFacts, describe_net
from vidseg_core.kit.claim import FingerprintMismatch, require_writable
from vidseg_core.kit.interrupts import asked_to_end, heard
from vidseg_core.kit.manifest import InputsDiffer, claim_output
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.kit.whole import closed_videos, whole_totals
from vidseg_core.media import DecodeChild
from vidseg_core.models.fetched import bring
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.pipeline import ending
from vidseg_core.pipeline.deaths import forget_given_up
from vidseg_core.pipeline.dial import Dial, needed
from vidseg_core.pipeline.drain import Drain, Drained
from vidseg_core.pipeline.executors import MOST_VIDEOS, Executor, Place, Planning, by_plan, settled
from vidseg_core.pipeline.ledger import Ledger
from vidseg_core.pipeline.local import (
    Alone,
    LocalExecutor,
    LocalPlanning,
    Worker,
    device_here,
    gpus_here,
    threads_kept,
)
from vidseg_core.pipeline.output import manifest_of, open_output
from vidseg_core.pipeline.plan_stage import OpenSegment
from vidseg_core.pipeline.repair import repair
from vidseg_core.pipeline.stages import Stages
from vidseg_core.pipeline.wave import Waves
from vidseg_core.plan.inputs import InputError, inputs_of
from vidseg_core.plan.video_list import VideoList
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import MANIFEST_KEY, SUCCESS_KEY
from vidseg_core.store.objects import ObjectStore

_SHOWN = 5
DONE, FAILED, BAD_USAGE, QUARANTINED = 0, 1, 2, 3


def run_segment(
    config: SegmentConfig,
    reporter: Reporter | None = None,
    dial: Dial | None = None,
    process: Worker | None = None,
    decoder: DecodeChild | None = None,
    inputs: VideoList | None = None,
) -> int:
    """Run (or continue) the job that ``config`` describes; the process exit code.

    0 all done, 1 failed but resumable, 2 bad usage, 3 finished with videos quarantined. Problems are
    reported, not raised; a `KeyboardInterrupt` is raised. The arguments are those of `do_segment`.
    """
    report = reporter or Reporter(config.log)
    try:
        return do_segment(config, report, dial, process, decoder, inputs)
    except (ConfigError, InputError, SegmenterError, FingerprintMismatch) as problem:
        report.say(f"error: {problem}", error=type(problem).__name__)
        return FAILED if config.repair and isinstance(problem, InputsDiffer) else BAD_USAGE
    except Drained:
        report.say("ended as asked; what was in flight is committed. The same command goes on from here.")
        return FAILED
    except Exception as problem:
        if asked_to_end():
            raise KeyboardInterrupt from problem
        return ending.explain_failure(problem, config, report)


def do_segment(
    config: SegmentConfig,
    report: Reporter,
    dial: Dial | None = None,
    process: Worker | None = None,
    decoder: DecodeChild | None = None,
    inputs: VideoList | None = None,
) -> int:
    """`run_segment` for callers who want what goes wrong raised; 0, or 3 with videos quarantined.

    `dial`: what chooses the scheduler where the configuration asks for that (--budget, --max_drop).
    `process`: this process, where another takes its place when it dies (`supervisor`). `decoder`: one that
    was started already. `inputs`: the videos of the configuration, where they are listed already.
    """
    if inputs is None:
        with report.phase("listing the inputs"):
            inputs = inputs_of(config)
    if config.dry_run:
        from vidseg_core.pipeline.estimate import dry_run

        with report.phase("looking at the videos and trying the net"):
            return dry_run(config, inputs, report, dial)
    return _Job(config, report, dial, process or Alone(), decoder).run(inputs)


class _Job:
    """One driver of one run."""

    def __init__(
        self,
        config: SegmentConfig,
        report: Reporter,
        dial: Dial | None,
        process: Worker,
        decoder: DecodeChild | None,
    ) -> None:
        self._config = config
        self._dial = needed(dial, config)
        self._report = report
        self._process, self._decoder = process, decoder
        self._store: ObjectStore = open_output(config.output)
        self._started = time.monotonic()
        self._place: Place | None = None

    def run(self, inputs: VideoList) -> int:
        require_writable(self._store)
        bring(self._config.segmenter, self._config.weights, self._report)
        bring(self._config.propagation.name, None, self._report)
        with self._report.phase("loading the net"):
            net = describe_net(self._config)
        if self._dial is None:
            return self._run(inputs, net)
        digest = net.digest + net.flow_digest
        dialled = self._dial.chosen(
            self._config, inputs, self._store, digest, self._report, lambda: self._on_ray(inputs, net)
        )
        with dialled as self._config:
            return self._run(inputs, net)

    def _run(self, inputs: VideoList, net: NetFacts) -> int:
        config, store = self._config, self._store
        manifest = manifest_of(config, net)
        self._report.bind(run=manifest["fingerprint"][:12])
        if config.repair and not store.exists(MANIFEST_KEY):
            raise ConfigError("--repair", f"{store.root} holds no run that could be repaired")
        fresh = claim_output(store, manifest, inputs)
        if not self._process.replaces_another:  # else that is done
            if config.repair:
                repair(store, self._report)
            if config.retry_quarantined:
                self._retry_quarantined()
        if store.exists(SUCCESS_KEY):
            found = whole_totals(store, inputs, finished=True)
            aside = found.figures["quarantined"]
            hint = (
                f" ({count(aside, 'video')} quarantined; --retry_quarantined tries them again)"
                if aside
                else ""
            )
            self._report.say(f"{store.root} is complete already; nothing to do{hint}")
            return found.exit_code
        self._segment(inputs, net, fresh)
        achieved, promised = self._achieved()
        found = whole_totals(store, inputs, finished=False)
        return ending.finish(
            store, config, manifest, net, found, self._started, self._report, achieved, promised
        )

    def _achieved(self) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
        """What the run came to beside what was promised, where a dial chose; and the same for people."""
        if self._dial is None:
            return None, []
        totals = ending.run_totals(self._store).figures
        on_ray = self._place is not None and self._place.executor == "ray"
        found = self._dial.outcome(self._config, self._store, totals, self._report, on_ray)
        return found, self._dial.closing_lines(found)

    def _retry_quarantined(self) -> None:
        """Forget the rows of quarantined videos, so that they are planned again."""
        again = ending.forget_quarantined(self._store)
        self._report.say(f"{count(again, 'quarantined video')} to be tried again")

    def _segment(self, inputs: VideoList, net: NetFacts, fresh: bool) -> None:
        """Brings every video to its row."""
        todo = inputs.without(closed_videos(self._store))
        stages = Stages.of(self._config, self._store, net, self._decoder)
        with closing(stages.child):
            self._greet(inputs, net, fresh)
            with self._report.phase("planning"):
                plan = self._choose_place(todo, stages, net)
            if todo:
                counts = Counts(videos_total=len(inputs), videos=len(inputs) - len(todo))
                self._run_waves(todo, counts, stages, plan)

    def _on_ray(self, inputs: VideoList, net: NetFacts) -> bool:
        """Whether this run is executed on Ray, for a dial that has not chosen yet."""
        stages = Stages.of(self._config, self._store, net)
        with closing(stages.child):
            self._choose_place(inputs, stages, net)
        assert self._place is not None
        return self._place.executor == "ray"

    def _choose_place(self, todo: VideoList, stages: Stages, net: NetFacts) -> Planning | None:
        """Chooses the executor, once, and says which; the plan of the first wave if that had to be made."""
        if self._place is not None:
            return None
        plan, place = None, settled(self._config)
        if self._process.replaces_another:
            place = Place("local", "as before")
        if place is None and len(todo) > MOST_VIDEOS:
            place = Place("ray", count(len(todo), "video"))
        if place is None:
            plan, place = self._planned(todo, stages, net)
        self._place = place
        if todo and not self._process.replaces_another:
            self._report.say(str(place), executor=place.executor)
        return plan

    def _planned(self, todo: VideoList, stages: Stages, net: NetFacts) -> tuple[Planning | None, Place]:
        """The plan made here, and its executor. As soon as that is Ray, Ray makes the plan instead."""
        plan = LocalPlanning(todo, stages)
        choose = partial(
            by_plan,
            self._config,
            pixel_s=net.pixel_s,
            gpus=gpus_here(self._config),
            cores=os.cpu_count() or 1,
        )
        segments: list[OpenSegment] = []
        place = choose(segments)
        if place.executor == "ray":
            return None, place
        for planned, found in enumerate(plan.segments(), start=1):
            segments += found
            place = choose(segments)
            if place.executor == "ray" and planned < len(todo):
                return None, replace(place, why=f"{place.why}, in {planned} of {len(todo)} videos")
            text = f"planning: {planned}/{len(todo)} videos"
            self._report.show(text, {"planned": planned, "videos_total": len(todo)})
        return plan, place

    def _greet(self, inputs: VideoList, net: NetFacts, fresh: bool) -> None:
        if self._process.replaces_another:
            return
        verb = "new run" if fresh else "continuing"
        self._report.say(
            f"{verb}: {count(len(inputs), 'video')} -> {self._store.root}; {self._config.describe()}"
        )
        if net.note:
            self._report.say(f"note: {net.note}")

    def _run_waves(self, todo: VideoList, counts: Counts, stages: Stages, plan: Planning | None) -> None:
        if not self._process.replaces_another:
            forget_given_up(self._store)
        drain = Drain(self._store, self._report.say)
        with self._executor(stages, drain) as executor, drain.on_sigterm():
            ledger = Ledger(
                self._store, counts, self._report, lanes=self._config.lanes, device=executor.device
            )
            executor.stepped = ledger.count_steps
            self._report.start_clock()
            with self._report.phase("segmenting"):
                Waves(executor, ledger, drain, self._report).run(todo, plan)
        if self._process.replaces_another:
            ending.forget_states(self._store)
        if ledger.given_up:
            raise DamagedFile("; ".join(map(str, ledger.given_up[:_SHOWN])))
        self._report.tick(counts, force=True)
        if isinstance(self._config, PseudoLabelConfig) and (text := ending.labelled_text(counts)):
            self._report.say(text)

    @contextmanager
    def _executor(self, stages: Stages, drain: Drain) -> Iterator[Executor]:
        assert self._place is not None
        if self._place.executor == "local":
            with heard(), threads_kept():
                yield LocalExecutor(stages, device_here(self._config), drain, self._process)
            return
        from vidseg_core.kit.ray_session import ray_session
        from vidseg_core.pipeline.on_ray import RayExecutor

        with ray_session(self._config, self._report):
            yield RayExecutor(stages, drain)
