"""The oracle as a method: the best schedule that the episode tables know, run by the engine like any other.

Model: `build-episodes` tabulated the clip (one segment, the same net, propagator and size); dynamic
programming finds the keys with the best total quality for a budget of one key every `interval` frames; the
engine then runs with these keys. So the oracle has every number that other methods have, TC included.

Invariant: tables of another net, size or propagation are refused before anything is run: their best schedule
would be the best of something else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from vidseg_core.config.catalogue import propagator_place
from vidseg_core.config.errors import ConfigError, check
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.methods import MethodConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.regions import regions_of
from vidseg_core.episodes.oracle import one_sided_curve, two_sided_curve
from vidseg_core.episodes.sources import dataset_of
from vidseg_core.episodes.store import check_fingerprint, load_tables
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.evaluation.clips import Clip
from vidseg_core.propagation.filler import filler_of
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import SEGMENTS_KEY
from vidseg_core.store.objects import open_store


class GivenKeys:
    """A scheduler that takes the keys it was given, by number in the run."""

    needs_flow, avoids_corrupt, threshold = False, False, 0.5

    def __init__(self, keys: Collection[int]) -> None:
        self._keys = frozenset(keys)

    def score(self, deviation: Deviation) -> float:
        return float(deviation.ordinal in self._keys)


def check_tables(
    config: EvaluateConfig, method: MethodConfig, digests: Mapping[str, str], class_names: Collection[str]
) -> None:
    """`ConfigError` unless the tables were made with the net, the size and the propagation of the method.

    `digests`: of the weights of net, flow and propagator, by the tables' names for them.
    """
    assert config.tables is not None
    tables = next(iter(_tables(config.tables).values()))
    there, carried = tables[0].fingerprint, method.propagation
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
    """`ConfigError` for tables of other regions than the clips are."""
    for source in config.data:
        here = regions_of(dataset_of(source, ""))
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


def oracle_keys(config: EvaluateConfig, method: MethodConfig, clip: Clip) -> set[int]:
    """The best keys of the clip; `DatasetError` (the clip is put aside) if the tables cannot say."""
    if len(clip.runs) != 1:
        raise DatasetError(f"clip {clip.name}: the oracle knows whole clips, not several snippets of one")
    assert config.tables is not None
    tables = _tables(config.tables).get(clip.name, [])
    frames = clip.frames
    if len(tables) != 1 or tables[0].frames != frames:
        found = f"{len(tables)} table(s)" if len(tables) != 1 else f"a table of {tables[0].frames} frames"
        raise DatasetError(
            f"clip {clip.name}: the oracle needs one table of its {frames} frames in {config.tables}, which "
            f"has {found}; build it with --segment_frames 0 and the same --clip_frames"
        )
    table, keys = tables[0], -(-frames // method.scheduler.interval)
    two_sided = method.propagation.sides == "two"
    try:
        delay = method.propagation.delay if method.propagation.latency == "low" else 0
        curve = two_sided_curve(table) if two_sided else one_sided_curve(table, delay=delay)
        least = curve.least
        if keys < least:
            raise DatasetError(
                f"clip {clip.name}: intervals of {method.scheduler.interval} exceed the tables' horizon"
            )
        return set(curve.schedule(curve.best_within(keys)).tolist())
    except EpisodeError as problem:
        raise DatasetError(f"clip {clip.name}: {problem}") from problem


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
