"""The local executor with a clock: something can strike wherever a process could be killed, and several
branches run one after another. A *kill* drops everything that is only in memory: the engine's cursors and
every part not yet committed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from tests.pipeline.decoders import decoder_of
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.kit.whole import closed_videos
from vidseg_core.pipeline.drain import Drain
from vidseg_core.pipeline.engine_stage import EngineStage
from vidseg_core.pipeline.ledger import Ledger
from vidseg_core.pipeline.local import Alone, LocalExecutor
from vidseg_core.pipeline.plan_stage import OpenSegment
from vidseg_core.pipeline.stages import Stages
from vidseg_core.pipeline.wave import Waves
from vidseg_core.plan.branches import assign_branches
from vidseg_core.plan.inputs import inputs_of
from vidseg_core.store.objects import open_store

Engine = Callable[[pa.Table], Iterable[pa.Table]]


class Killed(Exception):
    """The process is gone."""


def run_inline(
    config: SegmentConfig,
    branches: int,
    tick: Callable[[str], None] = lambda where: None,
    make_engine: Callable[..., Engine] = EngineStage,
) -> None:
    """One driver over ``config``.

    ``tick(where)`` is called at every point where a kill could strike and may raise.
    """
    store, report = open_store(config.output), Reporter("text", io.StringIO())
    drain = Drain(store)
    ledger = Ledger(store, Counts(), report, lanes=config.lanes, device="cpu")
    videos = inputs_of(config).without(closed_videos(store))
    with decoder_of(config) as decoder:
        stages = Stages.of(config, store, describe_net(config), decoder)
        executor = _Ticking(stages, drain, branches, tick, make_engine)
        Waves(executor, ledger, drain, report).run(videos)
    if ledger.given_up:
        raise ledger.given_up[0]


class _Ticking(LocalExecutor):
    """Commits apart from the engine, so that there is a moment between the two."""

    def __init__(
        self,
        stages: Stages,
        drain: Drain,
        branches: int,
        tick: Callable[[str], None],
        make_engine: Callable[..., Engine],
    ) -> None:
        super().__init__(stages, "cpu", drain, Alone())
        self._commits_apart = True
        self._in_turn, self._tick, self._make_engine = branches, tick, make_engine

    def receipts(self, segments: Sequence[OpenSegment]) -> Generator[pa.Table]:
        for group in assign_branches([segment.frames for segment in segments], self._in_turn):
            yield from super().receipts([segments[i] for i in group])

    def _engine(self) -> Engine:
        engine = self._make_engine(self._stages.config, self._stages.store, "cpu")

        def ticking(batch: pa.Table) -> list[pa.Table]:
            self._tick("before engine")
            parts = list(engine(batch))
            self._tick("after engine, before commit")
            return parts

        return ticking

    def _committed(self, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for part in parts:
            for receipt in self._stages.commit(part):
                self._tick("after commit")
                yield receipt
                self._tick("after the books")


def rows_without_package(folder: Path) -> list[tuple]:
    """Every (video, frame, key, mask bytes) as DuckDB sees it, sorted; duplicates would show. What is said of
    regions is there besides."""
    import duckdb

    files = f"'{folder}/frames/**/*.parquet'"
    database = duckdb.connect()
    there = [name for name, *_ in database.execute(f"describe select * from {files}").fetchall()]
    more = "".join(f", {name}" for name in there if name.startswith("region_") or name == "key_share")
    query = f"""select video_id, frame_index, is_key, key_frame_index, decision_score, kar, lkd, md5(mask)
                {more} from {files} order by all"""
    return database.execute(query).fetchall()
