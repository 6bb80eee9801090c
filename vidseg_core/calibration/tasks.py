"""What a calibration has done to each run of frames of its sample, in this process or in Ray tasks.

Model: a run is looked at once (decode, N on every frame, tables); its frames stay where that was done until
the choice is made, and intervals are put together from them as they are asked for. Invariant: both ways
give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.calibration.crop_cost import crop_costs
from vidseg_core.calibration.evidence import (
    Interval,
    Known,
    schedule_masks,
    schedule_quality,
    two_sided_values,
)
from vidseg_core.calibration.ways import other_ways
from vidseg_core.config.catalogue import MAP_SETS, SCHEDULERS
from vidseg_core.config.dial import CLIP_FRAMES, TRIED
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.regions import cut_out, region_name
from vidseg_core.engine.assemble import build_net, build_run_flow
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.stats import clock_of
from vidseg_core.episodes.between import Seen
from vidseg_core.episodes.features import LOW, Features, PairMaps
from vidseg_core.episodes.on_tables import keys_on
from vidseg_core.episodes.quality import Truth
from vidseg_core.episodes.sources import Unit, read_unit
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_builder import Refused, TableBuilder, TableOptions
from vidseg_core.media import MediaError
from vidseg_core.models.operations import operations_of
from vidseg_core.models.policy_file import read_policy
from vidseg_core.models.protocol import ScoresError
from vidseg_core.propagation.flow import FlowEstimator
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.scheduling.feature_sets import NEEDS_NO_FLOW
from vidseg_core.scheduling.lookahead_window import class_shares
from vidseg_core.scheduling.low_deviation import LowDeviation
from vidseg_core.scheduling.moving import MOVING_NAMES


@dataclass(frozen=True, slots=True)
class Looked:
    """What a task says of one run; without a table it says why."""

    table: EpisodeTable | None
    problem: str
    net_s: float
    """Seconds of N per frame."""
    net_ops: float = 0.0
    """Floating point operations of N per frame; 0: not known."""
    flow_ops: float = 0.0
    """Those of a flow net between two frames; 0: it is none."""
    own_ops: float = 0.0
    """Those of the propagator on a frame, from all sides."""
    low_ops: float = 0.0
    """Those of N's low-level features of a frame; 0: nobody reads them."""
    fills_low: bool = False
    """The propagator does."""
    expects_ops: float = 0.0
    """Those of a scheduler that reads them, on a pair."""


@dataclass(frozen=True, slots=True)
class LookedByRegion:
    """What a task says of one run cut into regions; without tables it says why."""

    tables: list[EpisodeTable]
    problem: str
    costs: tuple[float, ...]
    """What N takes on each crop, in frames (`crop_cost`)."""
    size: tuple[int, int]
    """(H, W) of a frame."""


@dataclass(frozen=True, slots=True)
class Way:
    """Which regions have keys of their own, and what fills the gaps between these."""

    regions: RegionsConfig
    propagation: PropagationConfig


def tried_names(config: SegmentConfig) -> tuple[str, ...]:
    """The schedulers at hand, or those that were named."""
    named = config.calibration.schedulers
    online, one_sided = delay_of(config) > 0, config.propagation.sides == "one"
    known = [name for name in TRIED if not (online and SCHEDULERS[name].looks_ahead)]
    known = [name for name in known if not (one_sided and SCHEDULERS[name].asks)]
    at_hand = [name for name in known if not SCHEDULERS[name].trained_by or file_for(name, config)]
    return tuple(name for name in at_hand if not named or name in named)


def file_for(name: str, config: SegmentConfig) -> str | None:
    """What a trained scheduler reads: the run's file if it is of this kind, else the one in the package.

    One that asks for a quality of its own is tried where the run itself names it, and with that the file.
    """
    entry, given = SCHEDULERS[name], SCHEDULERS.get(config.scheduler.name)
    fits = given is not None and given.trained_by == entry.trained_by
    return config.scheduler.policy if fits and (not entry.quality or given is entry) else entry.file


def longest_interval(config: SegmentConfig) -> int:
    """What the sample can show: a forced key at the latest where its runs end."""
    return min(config.scheduler.max_interval, (config.calibration.clip_frames or CLIP_FRAMES) - 1)


def delay_of(config: SegmentConfig) -> int:
    """Frames after which a key's own result takes effect; 0: at once."""
    return config.propagation.delay if config.propagation.latency == "low" else 0


Tasks = Callable[[Sequence[Unit]], "SampleTasks"]


class SampleTasks:
    """Looks at runs and puts intervals together, in this process; `on_ray` does the same in tasks."""

    def __init__(self, config: SegmentConfig, units: Sequence[Unit], device: str = "cpu") -> None:
        self.config, self.units, self._device = config, units, device
        self._seen: list[Seen | None] = []
        self._crops: dict[int, Any] = {}
        """By place, what was seen of each region, of the last grid that was looked at."""

    def look(self) -> Iterator[Looked]:
        """One answer per unit, in order."""
        for unit in self.units:
            looked, seen = look_at(unit, self.config, self._device)
            self._seen.append(seen)
            yield looked

    def put_together(self, wanted: Sequence[tuple[int, list[Interval]]]) -> list[Known]:
        """For each (unit, intervals) their values."""
        return [
            value_intervals(self._seen[place], pairs, self.config, self._device) for place, pairs in wanted
        ]

    def value_way(
        self, way: PropagationConfig, wanted: Sequence[tuple[int, list[np.ndarray]]]
    ) -> list[list[float]]:
        """For each (unit, schedules) what they are worth with another propagator."""
        return [
            value_schedules(self._seen[place], schedules, way, self.config, self._device)
            for place, schedules in wanted
        ]

    def look_by_region(self, places: Sequence[int], regions: RegionsConfig) -> Iterator[LookedByRegion]:
        """One answer per unit at these places, in order: N on its crops."""
        self._crops = {}
        for place in places:
            looked, self._crops[place] = look_by_region(self.units[place], self.config, regions, self._device)
            yield looked

    def value_by_region(
        self, way: Way, wanted: Sequence[tuple[int, list[tuple[np.ndarray, ...]]]]
    ) -> list[list[float]]:
        """For each (unit, schedules of its regions) what frames put together are worth."""
        return [
            value_by_region(self._seen[place], self._crops[place], schedules, way, self.config, self._device)
            for place, schedules in wanted
        ]

    def look_ahead(
        self, tables: Sequence[EpisodeTable], about: SchedulerConfig, prices: Sequence[float]
    ) -> list[np.ndarray]:
        """For each table the keys of a scheduler that looks ahead, at these prices, bool [P, T]."""
        return [look_ahead_at(table, about, prices, self.config) for table in tables]


def look_at(unit: Unit, config: SegmentConfig, device: str) -> tuple[Looked, Seen | None]:
    """Decode a run, run N on all its frames, make its table; a short one where schedules are of regions."""
    builder = sample_builder(config, device)
    if config.regions.on:
        builder = builder.with_options(replace(builder.options, horizon=1))
    try:
        frames = list(read_unit(unit, str(config.working_size), "all"))
        one_call = operations_of(lambda: builder.run_net(frames[:1]))
        clock = clock_of(device)
        started = clock()
        seen = builder.run_net(frames)
        net_s = (clock() - started) / max(1, len(frames))
        builder.show(seen)
        net_ops = one_call / config.key_batch  # a call is filled up
        table = builder.tabulate(unit.clip, 0, seen)
        flow_ops = operations_of(lambda: builder.flow_to(seen, 0, 1))
        own_ops = fill_ops(builder, seen, sides=2 if config.propagation.sides == "two" else 1)
        low_ops = operations_of(lambda: builder.low_of(frames[:1])) / config.key_batch
        expects_ops = operations_of(lambda: builder.expect(seen, 0, 1))
        operations = (net_ops, flow_ops, own_ops, low_ops, builder.filler.needs_low, expects_ops)
        return Looked(table, "", net_s, *operations), seen
    except (Refused, DatasetError, MediaError) as problem:
        return Looked(None, str(problem), 0.0), None


def look_by_region(
    unit: Unit, config: SegmentConfig, regions: RegionsConfig, device: str
) -> tuple[LookedByRegion, list[Seen]]:
    """Decode a run, run N on all crops of its frames, make a table of each region, and measure crops."""
    builder = sample_builder(config, device)
    builder = builder.with_options(replace(builder.options, any_class=True))
    seen: list[Seen] = []
    try:
        frames, tables = list(read_unit(unit, str(config.working_size), "all")), []
        for number in range(regions.count):
            name = region_name(unit.clip, regions, number)
            seen.append(builder.see(cut_out(frame, regions, number, name) for frame in frames))
            tables.append(builder.tabulate(name, 0, seen[-1], fingerprint=regions.recorded()))
        height, width = frames[0].frame_HW3.shape[:2]
        tables = _with_shares(tables, regions, frames[0].frame_HW3.shape[:2])
        net = ChunkedNet(build_net(config, device), level="labels", batch=config.key_batch, device=device)
        costs = crop_costs(net, (height, width), regions, config.key_batch, device)
        return LookedByRegion(tables, "", costs, (height, width)), seen
    except (Refused, DatasetError, MediaError, ScoresError) as problem:
        return LookedByRegion([], str(problem), (), (0, 0)), []


def _with_shares(
    tables: Sequence[EpisodeTable], regions: RegionsConfig, size: tuple[int, int]
) -> list[EpisodeTable]:
    """Tables of all regions of a clip, which know what share of the whole frame each class has."""
    if any(table.masks_Thw is None for table in tables):
        return list(tables)
    areas = np.array(regions.shares(size))
    shares = [class_shares(table.masks_Thw[0]) for table in tables if table.masks_Thw is not None]
    shares_K = areas @ np.stack(shares) / areas.sum()
    return [replace(t, area=area, class_shares_K=shares_K) for t, area in zip(tables, areas, strict=True)]


def value_by_region(
    whole: Seen | None,
    seen: Sequence[Seen],
    schedules: Sequence[tuple[np.ndarray, ...]],
    way: Way,
    config: SegmentConfig,
    device: str,
) -> list[float]:
    """Mean quality of frames put together under these schedules of their regions, against N on whole
    frames."""
    assert whole is not None
    own = way.propagation == config.propagation
    builder = sample_builder(config, device) if own else way_builder(config, way.propagation, device)
    two_sided, delay = way.propagation.sides == "two", delay_of(config)
    height, width = whole.masks[0].shape
    crops, found = way.regions.crops((height, width)), []
    for keys in schedules:
        joined = [np.empty_like(mask_HW) for mask_HW in whole.masks]
        for crop, one, keys_m in zip(crops, seen, keys, strict=True):
            masks = schedule_masks(builder, one, keys_m, two_sided=two_sided, delay=delay)
            for labels_HW, mask_hw in zip(joined, masks, strict=True):
                labels_HW[crop.inner_where] = mask_hw[crop.inner_in_crop]
        found.append(float(np.mean(list(map(Truth.quality, whole.truths, joined)))))
    return found


def fill_ops(builder: TableBuilder, seen: Seen, sides: int = 1) -> float:
    """Operations of looking at a frame and of filling it from the keys of so many sides; flow and what is
    made of a key once left out."""
    links = builder.links(seen, 0, forward=True, reach=1)
    builder.row(seen, 0, links)
    found = sides * operations_of(lambda: builder.row(seen, 0, links))
    found += operations_of(lambda: list(builder.filler.see(seen.keys[1:2])))
    seen.keys[0].kept = None
    return found


def value_intervals(
    seen: Seen | None, wanted: Iterable[Interval], config: SegmentConfig, device: str
) -> Known:
    """Two-sided values of intervals of a run that was looked at."""
    assert seen is not None
    return two_sided_values(sample_builder(config, device), seen, wanted)


def value_schedules(
    seen: Seen | None,
    schedules: Sequence[np.ndarray],
    way: PropagationConfig,
    config: SegmentConfig,
    device: str,
) -> list[float]:
    """Mean quality of these schedules of a run that was looked at, with another propagator."""
    assert seen is not None
    builder, two_sided, delay = way_builder(config, way, device), way.sides == "two", delay_of(config)
    return [schedule_quality(builder, seen, keys, two_sided=two_sided, delay=delay) for keys in schedules]


@lru_cache(maxsize=4)
def way_builder(config: SegmentConfig, way: PropagationConfig, device: str) -> TableBuilder:
    """The sample's builder with another propagator."""
    return sample_builder(config, device).with_propagator(propagator_of(way, device))


def look_ahead_at(
    table: EpisodeTable, about: SchedulerConfig, prices: Sequence[float], config: SegmentConfig
) -> np.ndarray:
    """bool [P, T]: the keys at these prices."""
    cv2.setNumThreads(1)
    return keys_on(
        table,
        about.name,
        prices,
        policy=about.policy,
        two_sided=config.propagation.sides == "two",
        max_interval=about.max_interval,
    )


@lru_cache(maxsize=1)
def sample_builder(config: SegmentConfig, device: str) -> TableBuilder:
    """N, flow and propagator of the run, as tables want them. Sets the threads of this process."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    segmenter = build_net(config, device)
    level = config.propagation.level
    options = TableOptions(
        quality=config.calibration.quality,
        horizon=longest_interval(config) + max(0, delay_of(config) - 1),
        flow_size=config.propagation.flow_size,
        min_frames=8,
        pictures=any(SCHEDULERS[name].looks_ahead for name in tried_names(config)),
        maps="kept",
    )
    flow = build_run_flow(config, device)
    return TableBuilder(
        options,
        net=ChunkedNet(segmenter, level=level, batch=config.key_batch, device=device),
        propagator=propagator_of(config.propagation, device),
        flow=flow,
        features=_features(config, flow),
        classes=len(segmenter.class_names),
        sides=config.propagation.sides,
        shows="colours" if other_ways(config) else "nothing",
    )


def _features(config: SegmentConfig, flow: FlowEstimator) -> Features:
    sets = _feature_sets(config)
    low = None
    if LOW in sets:
        assert config.scheduler.policy is not None
        low = LowDeviation(config.scheduler.policy)
    maps = PairMaps(sets, flow) if set(sets) & set(MAP_SETS) else None
    return Features(sets, low=low, maps=maps)


def _feature_sets(config: SegmentConfig) -> tuple[str, ...]:
    """What the schedulers that are tried read."""
    entries = [SCHEDULERS[name] for name in tried_names(config)]
    heuristics = any(entry.scores and entry.feature and not entry.trained_by for entry in entries)
    sets = ["scores"] if heuristics else ["frame_difference"]
    if any(entry.trained_by and not entry.looks_ahead and not entry.feature for entry in entries):
        assert config.scheduler.policy is not None
        _, facts = read_policy(config.scheduler.policy)
        sets = ["scores", "flow"] if set(facts.feature_names) - NEEDS_NO_FLOW else sets
        sets += ["moving"] if set(facts.feature_names) & set(MOVING_NAMES) else []
        sets += [name for name in facts.feature_names if name in MAP_SETS]
    return (*sets, *([LOW] if any(entry.reads_low for entry in entries) else []))


class _RayTasks(SampleTasks):
    def __init__(self, config: SegmentConfig, units: Sequence[Unit]) -> None:
        import ray

        from vidseg_core.kit.device import cluster_device

        super().__init__(config, units)
        self._ray = ray
        gpus = ray.cluster_resources().get("GPU", 0.0)
        self._device = cluster_device(config.device, gpus)
        share = 1.0 if config.gpus_per_worker is None else config.gpus_per_worker
        self._needs: dict[str, Any] = {"num_cpus": config.threads, "max_retries": 2}
        if self._device == "cuda":
            self._needs["num_gpus"] = share
        self._references: list[Any] = []

    def look(self) -> Iterator[Looked]:
        task: Any = self._ray.remote(look_at).options(num_returns=2, **self._needs)
        settings = self._ray.put(self.config)
        begun = [task.remote(unit, settings, self._device) for unit in self.units]
        for looked, seen in begun:
            self._references.append(seen)
            yield self._ray.get(looked)

    def put_together(self, wanted: Sequence[tuple[int, list[Interval]]]) -> list[Known]:
        task = self._ray.remote(value_intervals).options(**self._needs)
        settings = self._ray.put(self.config)
        longest_first = sorted(range(len(wanted)), key=lambda i: -len(wanted[i][1]))
        begun = {
            i: task.remote(self._references[wanted[i][0]], wanted[i][1], settings, self._device)
            for i in longest_first
        }
        return [self._ray.get(begun[i]) for i in range(len(wanted))]

    def value_way(
        self, way: PropagationConfig, wanted: Sequence[tuple[int, list[np.ndarray]]]
    ) -> list[list[float]]:
        task = self._ray.remote(value_schedules).options(**self._needs)
        settings = self._ray.put(self.config)
        return self._ray.get(
            [
                task.remote(self._references[place], schedules, way, settings, self._device)
                for place, schedules in wanted
            ]
        )

    def look_by_region(self, places: Sequence[int], regions: RegionsConfig) -> Iterator[LookedByRegion]:
        task: Any = self._ray.remote(look_by_region).options(num_returns=2, **self._needs)
        settings = self._ray.put(self.config)
        begun = {place: task.remote(self.units[place], settings, regions, self._device) for place in places}
        self._crops = {place: seen for place, (_, seen) in begun.items()}
        for looked, _ in begun.values():
            yield self._ray.get(looked)

    def value_by_region(
        self, way: Way, wanted: Sequence[tuple[int, list[tuple[np.ndarray, ...]]]]
    ) -> list[list[float]]:
        task = self._ray.remote(value_by_region).options(**self._needs)
        settings = self._ray.put(self.config)
        begun = [
            task.remote(self._references[place], self._crops[place], schedules, way, settings, self._device)
            for place, schedules in wanted
        ]
        return self._ray.get(begun)

    def look_ahead(
        self, tables: Sequence[EpisodeTable], about: SchedulerConfig, prices: Sequence[float]
    ) -> list[np.ndarray]:
        task = self._ray.remote(look_ahead_at).options(num_cpus=1, max_retries=2)
        settings = self._ray.put(self.config)
        return self._ray.get([task.remote(table, about, list(prices), settings) for table in tables])


def here(config: SegmentConfig) -> Tasks:
    """In this process, on its GPU if there is one."""
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    return lambda units: SampleTasks(config, units, device)


def on_ray(config: SegmentConfig) -> Tasks:
    """Tasks on the Ray that is up; its frames stay in the object store until the choice is made."""
    return lambda units: _RayTasks(config, units)
