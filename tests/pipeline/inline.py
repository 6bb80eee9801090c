"""The pipeline's stages run in this process, one message at a time, so that hypothesis can kill them
anywhere.

Same code as on Ray (`PlanStage`, `DecodeStage`, `EngineStage`, `CommitStage`, tallies), without the scheduler
between them. A *kill* drops everything that is only in memory: the engine's cursors and every part not yet
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit.whole import closed_videos
from vidseg_core.media import MediaLimits
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.decode_stage import DecodeStage
from vidseg_core.pipeline.ending import close_video
from vidseg_core.pipeline.engine_stage import EngineStage
from vidseg_core.pipeline.kept import cannot, kept_videos
from vidseg_core.pipeline.order import interleave
from vidseg_core.pipeline.plan_stage import PlanOptions, PlanStage, input_tables, planned_units, read_works
from vidseg_core.pipeline.rows import Receipt, messages
from vidseg_core.pipeline.tally import quarantine_row
from vidseg_core.pipeline.wave import tally_of
from vidseg_core.plan.branches import assign_branches
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.store.objects import open_store


class Killed(Exception):
    """The process is gone."""


def run_inline(
    config: SegmentConfig,
    branches: int,
    tick: Callable[[str], None] = lambda where: None,
    make_engine: Callable[..., Callable[[pa.Table], Iterable[pa.Table]]] = EngineStage,
) -> None:
    """One driver over ``config``.

    ``tick(where)`` is called at every point where a kill could strike and may raise.
    """
    store, limits = open_store(config.output), MediaLimits()
    options = PlanOptions.of(config, kept_videos(store))
    plan, decode = PlanStage(store, limits, options), DecodeStage(store, limits)
    classes = len(describe_net(config).class_names)
    commit = CommitStage(store, classes, confidence=isinstance(config, PseudoLabelConfig))
    videos = expand_inputs(config.input).without(closed_videos(store))
    tallies, segments = {}, []
    for block in input_tables(videos, 1):
        for answer in plan(block):
            for work, blob in read_works(answer):
                if work.reason is not None:
                    if work.kept is not None:
                        raise cannot(work.kept, work.reason)
                    row = quarantine_row(work.video_id, work.uri, work.reason, work.message or "")
                    close_video(store, row)
                    continue
                tally = tallies[work.video_id] = tally_of(work)
                rows = planned_units(work, blob, config.lanes > 1)
                segments += [(s.frames_left, r) for s, r in zip(work.works(), rows, strict=True) if s.units]
                if tally.done:
                    close_video(store, tally.row("cpu"))
    for group in assign_branches([frames for frames, _ in segments], branches):
        engine = make_engine(config, store, "cpu")
        units = interleave([segments[i][1] for i in group], config.lanes)
        for batch in _batches(
            [_shipped(shard) for unit in units for shard in decode(unit.row)], config.lanes
        ):
            tick("before engine")
            parts = list(engine(batch))
            tick("after engine, before commit")
            for part in parts:
                for done in commit(part):
                    for receipt, _ in messages(done, Receipt):
                        tick("after commit")
                        if tallies[receipt.video_id].take(receipt):
                            close_video(store, tallies[receipt.video_id].row("cpu"))
                            tick("after video")


def _shipped(table: pa.Table) -> pa.Table:
    """A copy, as Ray's object store makes one: a decoded shard is valid only until the next is asked for."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def _batches(shards: list[pa.Table], lanes: int) -> list[pa.Table]:
    return [pa.concat_tables(shards[i : i + lanes]) for i in range(0, len(shards), lanes)]


def rows_without_package(folder: Path) -> list[tuple]:
    """Every (video, frame, key, mask bytes) as DuckDB sees it, sorted; duplicates would show."""
    import duckdb

    query = f"""select video_id, frame_index, is_key, key_frame_index, decision_score, kar, lkd, md5(mask)
                from '{folder}/frames/**/*.parquet' order by all"""
    return duckdb.connect().execute(query).fetchall()
