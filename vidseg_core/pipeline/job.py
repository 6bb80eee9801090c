"""``vidseg segment``: the run loop, readable on one screen, and how it ends.

plan a wave of videos -> run their segments through keyed branches, planning the next wave meanwhile -> close
each video as its last part is committed -> next wave; ``run.json`` and ``_SUCCESS`` come last. The driver
holds counts, never frames.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine.assemble import NetFacts, describe_net
from vidseg_core.kit.claim import FingerprintMismatch, require_writable
from vidseg_core.kit.interrupts import asked_to_end
from vidseg_core.kit.manifest import InputsDiffer, claim_output
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.kit.whole import closed_videos, whole_totals
from vidseg_core.media import MediaLimits
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.pipeline import ending
from vidseg_core.pipeline.deaths import forget_given_up
from vidseg_core.pipeline.dial import Dial, needed
from vidseg_core.pipeline.drain import Drain, Drained
from vidseg_core.pipeline.output import manifest_of, open_output
from vidseg_core.pipeline.repair import repair
from vidseg_core.plan.inputs import InputError, expand_inputs
from vidseg_core.plan.video_list import VideoList
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import MANIFEST_KEY, SUCCESS_KEY
from vidseg_core.store.objects import ObjectStore

_SHOWN = 5
WAVE_VIDEOS = 2_000
DONE, FAILED, BAD_USAGE, QUARANTINED = 0, 1, 2, 3


def run_segment(config: SegmentConfig, reporter: Reporter | None = None, dial: Dial | None = None) -> int:
    """Run (or continue) the job that ``config`` describes; the process exit code.

    `dial`: what chooses the scheduler where the configuration asks for that (--budget, --max_drop).

    0 all done, 1 failed but resumable, 2 bad usage, 3 finished with videos quarantined. Problems are
    reported, not raised; a `KeyboardInterrupt` is raised.
    """
    report = reporter or Reporter(config.log)
    try:
        if config.dry_run:
            from vidseg_core.pipeline.estimate import dry_run

            return dry_run(config, report, dial)
        return _Job(config, report, dial).run()
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


class _Job:
    """One driver of one run."""

    def __init__(self, config: SegmentConfig, report: Reporter, dial: Dial | None) -> None:
        self._config = config
        self._dial = needed(dial, config)
        self._report = report
        self._store: ObjectStore = open_output(config.output)
        self._started = time.monotonic()
        media = config.media
        self._limits = MediaLimits(
            max_pixels=media.max_pixels, deadline_s=media.decode_deadline_s, memory_bytes=media.memory_bytes
        )

    def run(self) -> int:
        inputs = expand_inputs(self._config.input, limit=self._config.limit)
        require_writable(self._store)
        net = describe_net(self._config)
        if self._dial is None:
            return self._run(inputs, net)
        digest = net.digest + net.flow_digest
        with self._dial.chosen(self._config, inputs, self._store, digest, self._report) as self._config:
            return self._run(inputs, net)

    def _run(self, inputs: VideoList, net: NetFacts) -> int:
        config, store = self._config, self._store
        manifest = manifest_of(config, net)
        self._report.bind(run=manifest["fingerprint"][:12])
        if config.repair and not store.exists(MANIFEST_KEY):
            raise ConfigError("--repair", f"{store.root} holds no run that could be repaired")
        fresh = claim_output(store, manifest, inputs)
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
        self._greet(inputs, net, fresh)
        self._run_waves(inputs, net)
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
        found = self._dial.outcome(self._config, self._store, totals, self._report)
        return found, self._dial.closing_lines(found)

    def _retry_quarantined(self) -> None:
        """Forget the rows of quarantined videos, so that they are planned again."""
        again = ending.forget_quarantined(self._store)
        self._report.say(f"{count(again, 'quarantined video')} to be tried again")

    def _greet(self, inputs: VideoList, net: NetFacts, fresh: bool) -> None:
        verb = "new run" if fresh else "continuing"
        self._report.say(
            f"{verb}: {count(len(inputs), 'video')} -> {self._store.root}; {self._config.describe()}"
        )
        if net.note:
            self._report.say(f"note: {net.note}")

    def _run_waves(self, inputs: VideoList, net: NetFacts) -> None:
        from vidseg_core.kit.ray_session import ray_session
        from vidseg_core.pipeline.wave import WaveRunner

        todo = inputs.without(closed_videos(self._store))
        counts = Counts(videos_total=len(inputs), videos=len(inputs) - len(todo))
        if not todo:
            return
        forget_given_up(self._store)
        drain = Drain(self._store, self._report.say)
        with ray_session(self._config), drain.on_sigterm():
            runner = WaveRunner(self._config, self._store, self._limits, net, counts, self._report, drain)
            self._report.start_clock()
            runner.run(_waves(todo))
        if runner.given_up:
            raise DamagedFile("; ".join(map(str, runner.given_up[:_SHOWN])))
        self._report.tick(counts, force=True)
        if isinstance(self._config, PseudoLabelConfig) and (told := ending.labelled_text(counts)):
            self._report.say(told)


def _waves(videos: VideoList) -> Iterator[VideoList]:
    for start in range(0, len(videos), WAVE_VIDEOS):
        yield videos[start : start + WAVE_VIDEOS]
