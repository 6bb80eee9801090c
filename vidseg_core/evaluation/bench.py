"""The test bench of one process: nets and engines, and a clip put through several methods side by side.

Model: a frame is read once, N is asked once, the flow between neighbours is estimated once; each method has
its own engine. Two-sided methods answer late, so a frame is measured when all methods have its mask; until
then it is held as run-length codes and small flows.

Legend: H, W working size; h, w flow size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.config.build_episodes import LABELS
from vidseg_core.config.catalogue import is_of_stream
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import MethodConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.datasets.records import DatasetError, Record, motion_of
from vidseg_core.datasets.regions import regions_of
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.assemble import build_run_flow
from vidseg_core.engine.context import kept_per_pixel
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.engine.look import make_view
from vidseg_core.engine.regions import AnyEngine, RegionEngine, RegionStates
from vidseg_core.engine.stats import clock_of
from vidseg_core.engine.trial import Tried, crop_sizes, trial_sizes, try_labels, try_net, try_plugins
from vidseg_core.episodes.sources import dataset_of
from vidseg_core.evaluation.answers import Answers, Recall, recalled
from vidseg_core.evaluation.clips import Clip, class_names, items_of
from vidseg_core.evaluation.measure import Measure, Timing, Truth
from vidseg_core.evaluation.oracle import GivenKeys, check_tables, oracle_keys
from vidseg_core.media import MediaError, Motion, decoders_cpu_s, working_size
from vidseg_core.metrics.consistency import PairFlow
from vidseg_core.models.protocol import Segmenter, SegmenterError
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.scores import MOST_NAMES
from vidseg_core.models.tta import with_tta
from vidseg_core.propagation.filler import works_with_net
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.propagators import propagator_of, weights_digest
from vidseg_core.scheduling import SCHEDULERS, Scheduler, WindowScheduler, scheduler_of
from vidseg_core.scheduling.learned_regions import note_on_regions
from vidseg_core.store.mask_codec import decode_mask, encode_mask

TC_SIZE = 256
"""Longest side in pixels at which the flow between neighbours is estimated (DIS, as propagation has it)."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a process needs for every clip."""

    config: EvaluateConfig
    classes: int
    """Number of classes of the labels, or of the net where there are none."""
    has_labels: bool
    net: Segmenter | None
    device: str

    @property
    def class_names(self) -> tuple[str, ...]:
        names = class_names(self.config)
        return names if names or self.net is None else tuple(self.net.class_names)

    @property
    def digests(self) -> dict[str, str]:
        """Digests of the net's weights."""
        return {"segmenter_sha256": self.net.digest} if self.net is not None else {}


@lru_cache(maxsize=1)
def make_bench(config: EvaluateConfig, device: str) -> Bench:
    """The bench, once per process. Threads of torch and OpenCV are set for this process.

    ``ConfigError`` or ``SegmenterError`` for what does not exist or does not fit together.
    """
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    names, net = class_names(config), None
    if config.segmenter != LABELS:
        net = build_segmenter(
            config.segmenter,
            device=device,
            weights=config.weights,
            num_classes=config.num_classes,
            seed=config.seed,
        )
        net = with_tta(net, scales=config.tta.scales, flip=config.tta.flip)
        if names and len(names) != len(net.class_names):
            problem = f"has {len(net.class_names)} classes, the labels {len(names)}: remap them (?remap=FILE)"
            raise ConfigError("--segmenter", f"{config.segmenter} {problem}")
    classes = len(names) or len(net.class_names if net is not None else ())
    return Bench(config=config, classes=classes, has_labels=bool(names), net=net, device=device)


def build_method(bench: Bench, method: MethodConfig, clip: Clip | None) -> tuple[AnyEngine, Recall | None]:
    """The method's engine for a clip (None: only to see that it can be built). `ConfigError` names it."""
    carried, flow = method.propagation, _flow(bench, method)
    if method.is_oracle and clip is None:
        digests = bench.digests | {"flow_sha256": str(getattr(flow, "digest", ""))}
        digests["propagation_sha256"] = weights_digest(carried)
        known = {name: digest for name, digest in digests.items() if digest}
        check_tables(bench.config, method, known, bench.class_names)
    try:
        scheduler = _scheduler(bench, method, clip)
        _note_on_regions(bench, method, scheduler)
        propagator = propagator_of(carried, bench.device)
        work_with_net = any(works_with_net(part) for part in (scheduler, propagator))
        if work_with_net and bench.net is None:
            raise ValueError("scheduler or propagator works with the net itself; name a --segmenter")
        cut = method.regions if method.regions.on else None
        if cut is not None and (why := cut.problem(_largest(bench.config.working_size))):
            raise ValueError(why)
        # on crops a net says something else than on frames, so it is asked; labels stay what they are
        only_labels = carried.level == "labels" and not work_with_net and (cut is None or bench.net is None)
        recall = recalled(bench.net, bench.classes, cut) if only_labels else None
        segmenter: Any = recall if recall is not None else bench.net
        engine = Engine(
            segmenter,
            scheduler,
            propagator,
            sides=carried.sides,
            max_interval=method.scheduler.max_interval,
            flow=flow,
            flow_size=carried.flow_size,
            device="cpu" if recall is not None else bench.device,
            delay=carried.delay if carried.latency == "low" else None,
        )
        return (engine if cut is None else RegionEngine(engine, cut)), recall
    except ValueError as problem:
        if isinstance(problem, (ConfigError, DatasetError)):
            raise
        raise ConfigError("--methods", f"{method.name}: {problem}") from problem


def _largest(spec: int | str) -> tuple[int, int]:
    """Frames of this working size, at most: of these no grid can be too fine."""
    side = int(spec) if str(spec).isdigit() else 0
    return (side, side) if side else working_size(1, 1, spec)


def try_methods(bench: Bench, methods: Sequence[MethodConfig]) -> str:
    """Build every method, and put one frame through N and the plug-ins; what the user should know of N.

    ``ConfigError``, ``SegmenterError`` or ``PluginError`` for what does not exist or does not fit.
    """
    if bench.net is None:
        tried, note = try_labels(bench.classes), ""
    else:
        tried = try_net(
            bench.net,
            sizes=trial_sizes(bench.config.working_size),
            device=bench.config.device,
            most=MOST_NAMES - 1,
        )
        note = " ".join(filter(None, (bench.net.note, tried.note)))
    notes = [note]
    for method in methods:
        build_method(bench, method, None)
        here = _try_crops(bench, method) if method.regions.on else tried
        try_plugins(method.propagation, lambda m=method: _flow(bench, m), here)
        notes.append(_note_on_regions(bench, method, _scheduler(bench, method, None)))
    return " ".join(filter(None, notes))


def _try_crops(bench: Bench, method: MethodConfig) -> Tried:
    """A region of each shape that the method has; `ConfigError` for a net that does not take one."""
    try:
        sizes, whole = crop_sizes(method.regions, bench.config.working_size)
        if bench.net is None:
            return replace(try_labels(bench.classes, sizes[0]), whole=whole)
        tried = try_net(
            bench.net, sizes=sizes, device=bench.config.device, most=MOST_NAMES - 1, takes_all=True
        )
        if tried.net is not None:  # refuses one that does not work with what it remembers
            kept_per_pixel(method.regions, tried.net("labels", "--methods"), whole)
        return replace(tried, whole=whole)
    except (ConfigError, SegmenterError) as problem:
        why = problem.problem if isinstance(problem, ConfigError) else problem
        raise ConfigError("--methods", f"{method.name}: {why}") from problem


def _scheduler(bench: Bench, method: MethodConfig, clip: Clip | None) -> Scheduler | WindowScheduler:
    if method.is_oracle:
        keys = [{0}] * method.regions.count if clip is None else oracle_keys(bench.config, method, clip)
        return GivenKeys(*keys)
    takes = method.interval_typed or SCHEDULERS.takes(method.scheduler.name, "interval")
    return scheduler_of(method.scheduler, hand_interval=takes)


def _note_on_regions(bench: Bench, method: MethodConfig, scheduler: Scheduler | WindowScheduler) -> str:
    """What to say of a trained scheduler that has not learned from regions like those of the method, or of
    the clips; empty: nothing. `PolicyError` for another grid."""
    cut = [method.regions]
    if not method.regions.on:
        cut = list(dict.fromkeys(regions_of(dataset_of(source, "")) for source in bench.config.data))
    notes = [note_on_regions(scheduler, regions) for regions in cut]
    return " ".join(f"{method.name}: {note}" for note in notes if note)


def _flow(bench: Bench, method: MethodConfig) -> Any:
    config = SegmentConfig(
        input=("-",),
        output="-",
        segmenter="constant",
        propagation=method.propagation,
        seed=bench.config.seed,
    )
    return build_run_flow(config, bench.device)


# --- a clip ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Lane:
    """One method under way."""

    method: MethodConfig
    engine: AnyEngine
    recall: Recall | None
    measure: Measure
    state: SegmentState | RegionStates
    done: dict[int, tuple[FrameResult, bytes, int]] = field(default_factory=dict)
    """Masks that wait for the other methods, by frame index, and how many frames each had to wait for."""
    remember: int = 0
    """Frames that an engine that looks ahead may still ask N about."""
    clock: Callable[[], float] = time.perf_counter
    spent_s: float = 0.0
    """Seconds spent by that clock, without N where it is recalled."""


class ClipTest:
    """One clip under several methods."""

    def __init__(self, bench: Bench, clip: Clip, methods: Sequence[MethodConfig], answers: Answers) -> None:
        self._bench, self._clip, self._answers = bench, clip, answers
        self._dis = DisFlow(chained=False)
        self._lanes = [self._lane(method) for method in methods]
        self._truths: dict[int, tuple[int, Truth]] = {}
        self._views: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        self._reads_motion = any(is_of_stream(method.propagation.flow) for method in methods)
        self.read_s, self.tc_s, self.frames = 0.0, 0.0, 0

    def run(self) -> Iterator[tuple[MethodConfig, Measure, Timing]]:
        """Everything; then each method's results. `DatasetError` for frames that cannot be read, `MediaError`
        for such as have no room for a method's regions."""
        for number, (start, stop) in enumerate(self._clip.runs):
            self._one_run(number, start, stop)
        for lane in self._lanes:
            yield lane.method, lane.measure, self._timing(lane)

    def _one_run(self, number: int, start: int, stop: int) -> None:
        self._views = (None, None)
        for lane in self._lanes:
            lane.state = _new_state(lane.method, self._bench.config.seed, f"{self._clip.name}/{number}")
        for place, (record, motion) in enumerate(self._records(start, stop), start):
            self._step(number, place, record, motion, is_last=place == stop - 1)
        for lane in self._lanes:
            started = lane.clock()
            (results,) = lane.engine.finish([lane.state])
            lane.spent_s += lane.clock() - started
            self._hold(lane, results, stop - 1)
        self._settle(number)
        for lane in self._lanes:
            lane.measure.end_run()

    def _step(self, run: int, place: int, record: Record, motion: Motion | None, *, is_last: bool) -> None:
        self.frames += 1
        measured = is_last or not self._clip.measures_last
        frame_HW3, labels_HW = record.frame_HW3, record.labels_HW

        def answer() -> np.ndarray:
            return self._answers.mask(place, frame_HW3, labels_HW)

        net_HW = answer() if measured and self._bench.net is not None else None
        known = labels_HW if measured and self._bench.has_labels else None
        truth = Truth(labels_HW=known, net_HW=net_HW, flow=self._pair_flow(frame_HW3))
        self._truths[record.frame_index] = (place, truth)
        frame = FrameInput(
            frame_index=record.frame_index,
            pts_s=place / self._bench.config.fps,
            is_corrupt=False,
            frame_HW3=frame_HW3,
            motion=motion,
            whole=record.whole,
        )
        for lane in self._lanes:
            if lane.recall is not None:
                lane.recall.expect(frame_HW3, answer, remember=lane.remember)
            started, net_before = lane.clock(), self._answers.seconds
            (results,) = lane.engine.step([lane.state], [frame])
            lane.spent_s += lane.clock() - started - (self._answers.seconds - net_before)
            self._hold(lane, results, place)
        self._settle(run)

    def _settle(self, run: int) -> None:
        """Measure the frames that all methods have finished, in order."""
        for frame_index in list(self._truths):
            if any(frame_index not in lane.done for lane in self._lanes):
                return
            place, truth = self._truths.pop(frame_index)
            for lane in self._lanes:
                result, coded, waited = lane.done.pop(frame_index)
                mask_HW = decode_mask(coded, *result.labels_HW.shape)
                lane.measure.frame(run, place, result, mask_HW, truth, waited=waited)

    def _hold(self, lane: _Lane, results: Sequence[FrameResult], newest: int) -> None:
        """Keep what came out when frame `newest` of the clip had gone in."""
        for result in results:
            coded = encode_mask(np.ascontiguousarray(result.labels_HW))
            result.labels_HW = np.broadcast_to(np.uint8(0), result.labels_HW.shape)
            place, _ = self._truths[result.frame_index]
            lane.done[result.frame_index] = (result, coded, newest - place)

    def _pair_flow(self, frame_HW3: np.ndarray) -> PairFlow | None:
        if not self._bench.config.tc:
            return None
        started = time.perf_counter()
        view_hw = make_view(frame_HW3, TC_SIZE, 1)
        before_hw = self._views[1]
        self._views = (before_hw, view_hw)
        found = None
        if before_hw is not None and before_hw.shape == view_hw.shape:
            backward, forward = self._dis.flow([view_hw, before_hw], [before_hw, view_hw])
            found = PairFlow(backward, forward)
        self.tc_s += time.perf_counter() - started
        return found

    def _records(self, start: int, stop: int) -> Iterator[tuple[Record, Motion | None]]:
        """The frames, and what their streams say of their motion where a method reads that."""
        config = self._bench.config
        dataset = dataset_of(self._clip.source, config.working_size)
        for item in items_of(self._clip.source, config.split, self._clip.video_id)[start:stop]:
            started = time.process_time() + decoders_cpu_s()
            record = dataset.read(item)
            motion = motion_of(dataset, item) if self._reads_motion else None
            self.read_s += time.process_time() + decoders_cpu_s() - started
            labels_HW = record.labels_HW
            if labels_HW is not None and labels_HW.shape != record.frame_HW3.shape[:2]:
                sizes = f"labels {labels_HW.shape}, frame {record.frame_HW3.shape[:2]}"
                raise DatasetError(
                    f"clip {self._clip.name}, frame {item.frame_index}: {sizes} (rows, columns)"
                )
            self._check_regions(record)
            yield record, motion

    def _check_regions(self, record: Record) -> None:
        height, width = record.frame_HW3.shape[:2]
        for lane in self._lanes:
            if why := lane.method.regions.problem((height, width)):
                raise MediaError("too_small", f"clip {self._clip.name}: {lane.method.name}: {why}")

    def _lane(self, method: MethodConfig) -> _Lane:
        engine, recall = build_method(self._bench, method, self._clip)
        config = self._bench.config
        measure = Measure(self._bench.classes, config.tc_occlusion, config.tsb)
        clock = clock_of(self._bench.device if recall is None else "cpu")
        ahead = engine.looks_ahead
        remember = 2 * method.scheduler.max_interval + 2 if ahead else 0
        state = _new_state(method, 0, "")
        return _Lane(method, engine, recall, measure, state, remember=remember, clock=clock)

    def _timing(self, lane: _Lane) -> Timing:
        stats, config = lane.engine.stats, self._bench.config
        in_net = stats.seconds["net"]
        if lane.recall is None:
            net_s = in_net
        elif self._bench.net is None:
            net_s = lane.measure.key_frames * config.key_net_ms / 1000.0
        else:
            net_s = stats.keys * self._answers.call_s
        spent = in_net if lane.recall is None else min(in_net, lane.spent_s)
        return Timing(
            read_s=self.read_s,
            engine_s=max(0.0, lane.spent_s - spent),
            net_s=net_s,
            fast_track=lane.method.propagation.latency == "low",
        )


def _new_state(method: MethodConfig, seed: int, name: str) -> SegmentState | RegionStates:
    if method.regions.on:
        return RegionStates.new(seed, name, method.regions.count)
    return SegmentState.new(seed, name)
