"""The oracle as a method: the best schedule that the episode tables know, run by the engine like any other.

Model: `build-episodes` tabulated the clip (one segment, the same net, propagator and size); dynamic
programming finds the keys with the best total quality for a budget of one key every `interval` frames; the
engine then runs with these keys. So the oracle has every number that other methods have, TC included.
With regions each has its own table and keys, and the budget is one of pixels: a frame's for every `interval`
frames, overlap counted. What a region's frames are worth counts by the pixels of its inner part; in the
quality `weighted` it counts as it is, since that adds up.

Invariant: tables of another net, size or propagation are refused before anything is run: their best schedule
would be the best of something else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np

from vidseg_core.config.catalogue import WEIGHTED, propagator_place
from vidseg_core.config.errors import ConfigError, check
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import MethodConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.regions import region_name, regions_of
from vidseg_core.episodes.episodes_job import read_segments
from vidseg_core.episodes.oracle import Curve, curve_of, divide, one_sided_curve, two_sided_curve
from vidseg_core.episodes.sources import dataset_of
from vidseg_core.episodes.store import check_fingerprint, load_tables
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.evaluation.clips import Clip, items_of
from vidseg_core.propagation.filler import filler_of
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import SEGMENTS_KEY
from vidseg_core.store.objects import open_store


class GivenKeys:
    """A scheduler that takes the keys it was given, by number in the run; of each region its own."""

    needs_flow, avoids_corrupt, threshold = False, False, 0.5

    def __init__(self, *keys: Collection[int]) -> None:
        """Of the frame, or of each region."""
        self._keys = [frozenset(each) for each in keys]

    def score(self, deviation: Deviation) -> float:
        region = int(deviation.segment.rpartition("/")[2]) if len(self._keys) > 1 else 0
        return float(deviation.ordinal in self._keys[region])


def check_tables(
    config: EvaluateConfig, method: MethodConfig, digests: Mapping[str, str], class_names: Collection[str]
) -> None:
    """`ConfigError` unless the tables were made with the net, the size and the propagation of the method.

    `digests`: of the weights of net, flow and propagator, by the tables' names for them.
    """
    assert config.tables is not None
    there, carried = _made_with(config), method.propagation
    _check_regions(config, method, RegionsConfig.of_record(there))
    wanted = {
        "working_size": config.working_size,
        "propagation.name": propagator_place(carried.name)[0],
        "propagation.level": carried.level,
        "propagation.flow": carried.flow,
        "propagation.flow_size": str(carried.flow_size),
        **digests,
    }
    if "segmenter_sha256" not in digests or "segmenter_sha256" not in there:  # one of them has no weights
        wanted = {name: value for name, value in wanted.items() if name != "segmenter_sha256"}
        wanted["segmenter"] = config.segmenter
    if there.get("quality") == "labels":
        wanted["class_names"] = ",".join(class_names)
    try:
        check_fingerprint(there, wanted, config.tables)
    except EpisodeError as problem:
        raise ConfigError("--tables", f"no oracle for {method.name}: {problem}") from problem
    _check_between(config, method, there)


def _check_regions(config: EvaluateConfig, method: MethodConfig, tabulated: RegionsConfig) -> None:
    """`ConfigError` for tables of other regions than the method has, or the clips are."""
    for source in config.data:
        here = regions_of(dataset_of(source, ""))
        problem = f"no oracle for {method.name}: {source} is cut into regions already"
        check(not (here.on and method.regions.on), "--tables", problem)
        here = method.regions if method.regions.on else here
        problem = f"no oracle for {method.name}: tables of {tabulated.words()} there, {here.words()} here"
        check(here == tabulated, "--tables", problem)


def _check_between(config: EvaluateConfig, method: MethodConfig, there: Mapping[str, str]) -> None:
    """`ConfigError` for masks between keys that are not those of the tables, or do not follow from the keys
    around them."""
    carried = method.propagation
    filler = filler_of(propagator_of(carried), two_sided=carried.sides == "two")
    of_two, none = there.get("two_sided_stride", "0") != "0", f"no oracle for {method.name}"
    problem = f"{none}: {carried.name} fills gaps, and the tables in {config.tables} are of two sides"
    check(carried.sides == "two" or not of_two or filler.pairwise, "--tables", problem)
    problem = f"{none}: tables are made with clock 1, not {carried.clock}"
    check(carried.clock == 1, "--tables", problem)
    problem = f"{none}: {carried.name} remembers through keys, so that no table can value a schedule"
    check(filler.ends_at_keys, "--tables", problem)


def oracle_keys(config: EvaluateConfig, method: MethodConfig, clip: Clip) -> list[set[int]]:
    """The best keys of the clip, or of each region of it; `DatasetError` (the clip is put aside) if the
    tables cannot say."""
    if len(clip.runs) != 1:
        raise DatasetError(f"clip {clip.name}: the oracle knows whole clips, not several snippets of one")
    try:
        if method.regions.on:
            return _keys_of_regions(config, method, clip)
        curve, keys = _curve(config, method, clip, clip.name), -(-clip.frames // method.scheduler.interval)
        if keys < curve.least:
            raise _too_far(clip, method)
        return [set(curve.schedule(curve.best_within(keys)).tolist())]
    except EpisodeError as problem:
        raise DatasetError(f"clip {clip.name}: {problem}") from problem


def _keys_of_regions(config: EvaluateConfig, method: MethodConfig, clip: Clip) -> list[set[int]]:
    """Keys of all regions under one budget of pixels."""
    regions = method.regions
    first = items_of(clip.source, config.split, clip.video_id)[clip.runs[0][0]]
    height, width = dataset_of(clip.source, config.working_size).read(first).frame_HW3.shape[:2]
    crops = regions.crops((height, width))
    names = [region_name(clip.name, regions, number) for number in range(regions.count)]
    still = _still(config, clip)
    curves = [still.get(name) or _curve(config, method, clip, name) for name in names]
    costs = [crop.pixels for crop in crops]
    budget = height * width * clip.frames / method.scheduler.interval
    if sum(cost * curve.least for cost, curve in zip(costs, curves, strict=True)) > budget:
        raise _too_far(clip, method)
    inner = [crop.inner for crop in crops]
    worth = [(bottom - top) * (right - left) for top, bottom, left, right in inner]
    adds_up = _made_with(config).get("quality") == WEIGHTED
    keys = divide(curves, budget, costs=costs, worth=None if adds_up else worth).keys
    return [set(curve.schedule(count).tolist()) for curve, count in zip(curves, keys, strict=True)]


def _still(config: EvaluateConfig, clip: Clip) -> dict[str, Curve]:
    """Regions that have no table as they show a single class: every schedule is worth the same there."""
    assert config.tables is not None
    rows = read_segments(open_store(config.tables))
    names = [row["clip"] for row in rows if row["reason"] == "single_class" and row["frames"] == clip.frames]
    horizon = int(_made_with(config)["horizon"])
    alike_TL1 = np.zeros((clip.frames, horizon + 1))
    flat = curve_of(alike_TL1, alike_TL1, longest=horizon, most=clip.frames, counted=clip.frames)
    return dict.fromkeys(names, flat)


def _too_far(clip: Clip, method: MethodConfig) -> DatasetError:
    return DatasetError(
        f"clip {clip.name}: intervals of {method.scheduler.interval} exceed the tables' horizon"
    )


def _curve(config: EvaluateConfig, method: MethodConfig, clip: Clip, name: str) -> Curve:
    """The best schedules of a clip or a region of it, whose tables have this name."""
    assert config.tables is not None
    tables = _tables(config.tables).get(name, [])
    if len(tables) != 1 or tables[0].frames != clip.frames:
        found = f"{len(tables)} table(s)" if len(tables) != 1 else f"a table of {tables[0].frames} frames"
        raise DatasetError(
            f"clip {name}: the oracle needs one table of its {clip.frames} frames in {config.tables}, which "
            f"has {found}; build it with --segment_frames 0 and the same --clip_frames"
        )
    if method.propagation.sides == "two":
        return two_sided_curve(tables[0])
    delay = method.propagation.delay if method.propagation.latency == "low" else 0
    return one_sided_curve(tables[0], delay=delay)


def _made_with(config: EvaluateConfig) -> Mapping[str, str]:
    """The fingerprint of all tables."""
    assert config.tables is not None
    return next(iter(_tables(config.tables).values()))[0].fingerprint


def _tables(path: str) -> dict[str, list[EpisodeTable]]:
    """The tables of the set by clip; read again when the set has become another one."""
    try:
        held = open_store(path).get(SEGMENTS_KEY)
    except (FileNotFoundError, StoreError):
        held = b""
    return _read_tables(path, held)


@lru_cache(maxsize=2)
def _read_tables(path: str, held: bytes) -> dict[str, list[EpisodeTable]]:
    found: dict[str, list[EpisodeTable]] = {}
    for table in load_tables(path):
        found.setdefault(table.clip, []).append(table)
    return found
