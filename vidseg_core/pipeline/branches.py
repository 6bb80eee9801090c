"""Keyed branches: the Ray Data graph that turns planned units into committed parts.

``k`` branches, each ``units -> decode (tasks) -> engine (a pool of one actor) -> commit (tasks on a GPU
cluster; on CPU the engine's own actor)``, and a union of their small receipts. A pool of one keeps every
shard of a segment on one actor; ``preserve_order`` and one call in flight keep them in turn (with several, a
restarted actor gets them out of order, measured; the engine checks, it never assumes). Blocks hold one
message each, so that a shard is handed on the moment it exists and backpressure counts shards. Decode asks
for a CPU and the engine for none, so Ray Data does not fuse the two. One executor drives all branches of a
graph; where there are more than it can carry, `cells` runs several.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.data_watch import DataWatch
from vidseg_core.kit.worker_watch import WorkerWatch
from vidseg_core.pipeline.commit_stage import CommitStage, commit_parts
from vidseg_core.pipeline.decode_stage import DecodeStage, decode_units
from vidseg_core.pipeline.engine_stage import EngineStage
from vidseg_core.pipeline.plan_stage import PlannedUnit
from vidseg_core.pipeline.ray_process import RayProcess
from vidseg_core.pipeline.sizing import DECODE_CPUS, Sizing, check_store
from vidseg_core.store.objects import ObjectStore

_COMMITS_AT_ONCE = 1
TASK_FRAMES = 1024
"""Frames that a decode task covers, if units are shorter: dispatching a task costs tens of milliseconds."""
RUN_AHEAD = 12
"""Shards of a branch that may be under way, from decoding to commit."""
_SHARDS_AHEAD = 2.0
"""Decoded shards that may wait for each one in the engine: decoding stops ahead of a slow engine or store."""

BranchPlan = list[pa.Table]
"""The units of a branch, in blocks of one decode task each."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the branches of a wave have in common; small and picklable."""

    config: SegmentConfig
    store: ObjectStore
    decode: DecodeStage
    commit: CommitStage
    sizing: Sizing
    store_share: float
    """Bytes of the object store that an executor may use for shards under way."""


@contextmanager
def data_context(store_share: float) -> Iterator[None]:
    """Ray Data settings of our graphs; the caller's own settings come back afterwards.

    ``store_share``: at most this share of the object store may hold what is under way.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends a run is said by us, once
    before = DataContext.get_current()
    context = before.copy()
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # one message a block, emitted at once
    context.downstream_capacity_backpressure_ratio = _SHARDS_AHEAD
    context.override_object_store_memory_limit_fraction = store_share
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [*before.custom_execution_callback_classes, DataWatch]
    DataContext._set_current(context)
    try:
        yield
    finally:
        DataContext._set_current(before)


def _udf(function: Callable[..., Iterator[pa.Table]]) -> Any:
    """Ray's type for functions does not know generators over Arrow tables; its documentation does."""
    return function


def _branch(blocks: BranchPlan, layout: Layout) -> Dataset:
    """One branch over its planned units, giving receipts."""
    config, sizing = layout.config, layout.sizing
    apart = sizing.device != "cpu"
    engine = (
        ray.data.from_arrow(blocks)
        .map_batches(
            _udf(decode_units),
            fn_kwargs={"stage": layout.decode},
            batch_format="pyarrow",
            batch_size=1,
            compute=TaskPoolStrategy(size=min(sizing.decoders_per_branch, len(blocks))),
            **_decoder_cpus(sizing.cells),
        )
        .map_batches(
            EngineStage,
            fn_constructor_kwargs={
                "config": config,
                "store": layout.store,
                "device": sizing.device,
                "commit": None if apart else layout.commit,
                "process": RayProcess,
            },
            batch_format="pyarrow",
            batch_size=config.lanes,
            num_cpus=0,
            num_gpus=sizing.gpus_per_worker or None,
            compute=ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=1),
        )
    )
    if not apart:
        return engine
    return engine.map_batches(
        _udf(commit_parts),
        fn_kwargs={"stage": layout.commit},
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=0,
        compute=TaskPoolStrategy(size=_COMMITS_AT_ONCE),
    )


def _decoder_cpus(cells: int) -> dict[str, Any]:
    """What a decode task asks of Ray.

    Executors that run side by side each get a whole-numbered share of every node's CPUs, none if a node has
    fewer CPUs than there are executors, and then decode one task at a time (measured: half the speed). A
    branch's decoders are numbered already, so an executor in a cell need not know what they take.
    """
    if cells == 1:
        return {"num_cpus": DECODE_CPUS}
    return {"num_cpus": 0, "ray_remote_args_fn": lambda: {"num_cpus": DECODE_CPUS}}


def share_of_store(units: Iterable[PlannedUnit], sizing: Sizing) -> float:
    """The share of the object store that ``RUN_AHEAD`` shards a branch fill, at most Ray's own half.

    Frames that wait are not only memory: a block in pages never used before costs milliseconds to fault in,
    one in pages just freed costs none, so a short queue is also the fast one.
    """
    largest = max(unit.shard_bytes for unit in units)
    check_store(largest)
    whole = ray.cluster_resources().get("object_store_memory", 1.0)
    return min(0.5, max(0.02, RUN_AHEAD * sizing.branches * sizing.lanes * largest / whole))


def packed(units: Sequence[PlannedUnit], lanes: int) -> BranchPlan:
    """Blocks of consecutive units, one decode task each: short videos together, long units alone."""
    blocks: list[list[pa.Table]] = []
    room = 0
    for unit in units:
        if unit.frames > room or lanes > 1:
            blocks.append([])
            room = TASK_FRAMES
        blocks[-1].append(unit.row)
        room -= unit.frames
    return [pa.concat_tables(block) for block in blocks]


def run_branches(plans: Sequence[BranchPlan], layout: Layout) -> Generator[pa.Table]:
    """Run branches side by side in this process's executor; receipts as they come."""
    with data_context(layout.store_share):
        first, *others = [_branch(blocks, layout) for blocks in plans]
        union = first.union(*others) if others else first
        for receipts in union.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            WorkerWatch.progress += 1
            yield receipts
