"""Promise: a video of which the engine's process dies is given up after three deaths alone and costs no other
video a row; deaths that are not its own never count, however many.

Why: one clip that made a net crash in native code was given to a new process for ever, and nothing that came
after it on the same branch was ever run.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.pipeline.clips import make_corpus, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.failing import Died, bad_clip
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.pipeline import engine_stage
from vidseg_core.pipeline.deaths import CAREFUL_CALLS, MOST_DEATHS, Deaths, Fate, Toll
from vidseg_core.pipeline.engine_stage import EngineStage
from vidseg_core.pipeline.failures import MOST_FAILURES, EngineBroken
from vidseg_core.store.keys import ENGINE_PREFIX, shard_place
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.run import open_run

DIES, LEAVES = (f"tests.pipeline.failing:{name}" for name in ("DiesOnRed", "LeavesOnRed"))
OPTIONS: dict[str, Any] = {"scheduler": SchedulerConfig(name="fixed", interval=5), "shard_frames": 8}
PLACE, OTHER = shard_place("v", 0, 3), shard_place("v", 0, 13)


class World:
    """Processes by name, and what became of them."""

    def __init__(self, fate: Fate = Fate.CRASHED) -> None:
        self.fate, self.fates = fate, dict[str, Fate]()

    def process(self, replaces_another: bool = True) -> _Process:
        """Another one, which runs."""
        name = f"p{len(self.fates)}"
        self.fates[name] = Fate.RUNNING
        return _Process(self, name, replaces_another)

    def end(self, process: _Process) -> None:
        """It is no more."""
        self.fates[process.name] = self.fate


class _Process:
    def __init__(self, world: World, name: str, replaces_another: bool) -> None:
        self.world, self.name, self.replaces_another = world, name, replaces_another

    def fate_of(self, name: str) -> Fate:
        return self.world.fates.get(name, Fate.UNKNOWN)


class Restarted:
    """An engine; when its process dies another takes over, with the call that was in hand."""

    def __init__(self, world: World, *arguments: Any) -> None:
        self.world, self.arguments, self.deaths = world, arguments, 0
        self._begin(replaces_another=False)

    def _begin(self, replaces_another: bool = True) -> None:
        self.process = self.world.process(replaces_another)
        self.stage = EngineStage(*self.arguments, process=lambda: self.process)

    def __call__(self, batch: pa.Table) -> list[pa.Table]:
        while True:
            try:
                return list(self.stage(batch))
            except Died:
                self.deaths += 1
                assert self.deaths < 100, "for ever"
                self.world.end(self.process)
                self._begin()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "out"))


def die_at(store: ObjectStore, place: str, world: World) -> Toll:
    """A process comes to a place and ends there; what it found."""
    process = world.process()
    toll = Deaths(store, process).enter(place)
    world.end(process)
    return toll


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("_state/")]


def test_the_third_crash_at_a_place_is_final(store: ObjectStore) -> None:
    world = World()
    tolls = [die_at(store, PLACE, world) for _ in range(MOST_DEATHS + 1)]
    assert [toll.crashes for toll in tolls] == [0, 1, 2, 3]
    assert [toll.is_final for toll in tolls] == [False, False, False, True]


def test_another_place_has_its_own_count(store: ObjectStore) -> None:
    world = World()
    die_at(store, PLACE, world)
    assert die_at(store, OTHER, world) == Toll()


@pytest.mark.parametrize("fate", [Fate.GONE, Fate.UNKNOWN, Fate.RUNNING])
def test_what_is_nobodys_fault_never_counts(store: ObjectStore, fate: Fate) -> None:
    world = World(fate)
    assert {die_at(store, PLACE, world) for _ in range(10)} == {Toll()}


def test_what_was_judged_counts_for_a_later_driver_on_another_cluster(store: ObjectStore) -> None:
    world = World()
    for _ in range(3):
        die_at(store, PLACE, world)
    assert die_at(store, PLACE, World()) == Toll(crashes=2), (
        "the third was not judged before its cluster ended"
    )


def test_kills_for_memory_are_counted_on_their_own(store: ObjectStore) -> None:
    world, full = World(), World(Fate.NO_MEMORY)
    full.fates = world.fates
    die_at(store, PLACE, world)
    for _ in range(MOST_DEATHS):
        die_at(store, PLACE, full)
    assert die_at(store, PLACE, world) == Toll(crashes=1, memory_kills=3)


def test_a_place_that_was_passed_is_forgotten(store: ObjectStore) -> None:
    world = World()
    die_at(store, PLACE, world)
    die_at(store, PLACE, world)
    survivor = Deaths(store, world.process())
    survivor.enter(PLACE)
    survivor.passed()
    assert keys(store) == [] and die_at(store, PLACE, world) == Toll()


def test_another_drivers_process_keeps_its_mark(store: ObjectStore) -> None:
    world = World()
    other, mine = Deaths(store, world.process()), Deaths(store, world.process())
    other.enter(PLACE)
    mine.enter(PLACE)
    mine.passed()
    assert len(keys(store)) == 1
    other.passed()
    assert keys(store) == []


def test_a_process_is_careful_for_a_while_and_only_in_anothers_place(store: ObjectStore) -> None:
    world = World()
    assert not Deaths(store, world.process(replaces_another=False)).careful
    deaths = Deaths(store, world.process())
    for _ in range(CAREFUL_CALLS):
        assert deaths.careful
        deaths.count_call()
    assert not deaths.careful


# --- the engine ---------------------------------------------------------------------------------------------


def run(clips: Path, output: Path, world: World, **options: Any) -> tuple[dict[str, dict[str, Any]], int]:
    """Rows of the videos by the name of their file, and how many processes died."""
    engines: list[Restarted] = []

    def make(*arguments: Any) -> Restarted:
        engines.append(Restarted(world, *arguments))
        return engines[-1]

    run_inline(small_config(clips, output, **{"segmenter": DIES, **OPTIONS, **options}), 2, make_engine=make)
    rows = {Path(row["uri"]).stem: row for row in open_run(str(output)).videos().to_pylist()}
    return rows, sum(engine.deaths for engine in engines)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "bad.mp4", bad_clip(30, from_frame=12), gop=10)
    return make_corpus(folder, (26, 41))


@pytest.fixture(scope="module")
def plain_rows(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    output = tmp_path_factory.mktemp("plain") / "out"
    run_inline(small_config(clips, output, segmenter="plain", **OPTIONS), 2)
    return rows_without_package(output)


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_video_that_kills_its_engine_is_given_up_and_nobody_else_loses_a_row(
    clips: Path, plain_rows: list[tuple], tmp_path: Path, lanes: int
) -> None:
    rows, deaths = run(clips, tmp_path / "out", World(), lanes=lanes)
    bad = rows.pop("bad")
    assert bad["status"] == "quarantined"
    assert bad["reason"].startswith(
        "engine_crash: the engine's process died 3 times with segment 0, frames 8 to 15"
    )
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert deaths == 1 + MOST_DEATHS
    kept = [row for row in rows_without_package(tmp_path / "out") if row[0] != bad["video_id"]]
    assert kept == [row for row in plain_rows if row[0] != bad["video_id"]]
    assert not list(open_store(str(tmp_path / "out")).list("_state/video="))


def test_later_segments_of_a_video_that_was_given_up_are_not_run(clips: Path, tmp_path: Path) -> None:
    _, deaths = run(clips, tmp_path / "out", World(), segment_frames=16)
    assert deaths == 1 + MOST_DEATHS, "of the first bad segment; the second has frames 16 to 29"


@pytest.mark.parametrize("lanes", [1, 3])
def test_kills_from_outside_cost_nothing_however_many(
    clips: Path, plain_rows: list[tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    dice, real = random.Random(3), EngineStage._step
    gaps = [dice.randint(20, 40)]

    def killed_now_and_then(self: EngineStage, *arguments: Any) -> None:
        gaps[-1] -= 1
        if gaps[-1] == 0:
            gaps.append(dice.randint(20, 40))
            raise Died
        real(self, *arguments)

    monkeypatch.setattr(EngineStage, "_step", killed_now_and_then)
    rows, deaths = run(clips, tmp_path / "out", World(), segmenter="plain", lanes=lanes)
    assert deaths > 1 and {row["status"] for row in rows.values()} == {"ok"}
    assert rows_without_package(tmp_path / "out") == plain_rows


def test_an_engine_whose_process_dies_of_everything_ends_the_run(tmp_path: Path) -> None:
    for n in range(2 * MOST_FAILURES):
        write_video(tmp_path / "in" / f"bad{n}.mp4", bad_clip(8, from_frame=0))
    with pytest.raises(EngineBroken, match=f"died on {MOST_FAILURES} videos in a row, the last one"):
        run(tmp_path / "in", tmp_path / "out", World())
    assert len(open_run(str(tmp_path / "out")).videos()) < MOST_FAILURES
    assert not list(open_store(str(tmp_path / "out")).list(ENGINE_PREFIX))


def test_memory_that_does_not_suffice_ends_the_run_and_no_video(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineBroken, match=r"was killed 3 times at video .*; lower --workers"):
        run(clips, tmp_path / "out", World(Fate.NO_MEMORY))
    assert "bad" not in {
        Path(row["uri"]).stem for row in open_run(str(tmp_path / "out")).videos().to_pylist()
    }


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        (Fate.CRASHED, "died 3 times while it loaded its nets"),
        (Fate.NO_MEMORY, "killed 3 times at its start"),
    ],
)
def test_a_process_that_does_not_live_to_its_first_frame_ends_the_run(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: Fate, told: str
) -> None:
    def dies(config: SegmentConfig, device: str) -> None:
        raise Died

    monkeypatch.setattr(engine_stage, "build_engine", dies)
    world, store = World(fate), open_store(str(tmp_path / "out"))
    config = small_config(clips, tmp_path / "out", **OPTIONS)
    for _ in range(MOST_DEATHS):
        process = world.process()
        with pytest.raises(Died):
            EngineStage(config, store, "cpu", process=lambda process=process: process)
        world.end(process)
    stage = EngineStage(config, store, "cpu", process=world.process)
    with pytest.raises(EngineBroken, match=told):
        list(stage(pa.table({})))
    assert keys(store) == [], "who tries again begins at nought"


def test_a_net_that_wants_to_leave_is_a_failure_like_others(clips: Path, tmp_path: Path) -> None:
    rows, deaths = run(clips, tmp_path / "out", World(), segmenter=LEAVES)
    assert rows["bad"]["reason"].startswith("engine_error: frame 15: SystemExit: 3") and deaths == 0


def test_shards_of_a_video_that_was_given_up_do_not_stop_the_next_process(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were decoded before the verdict, and the process that gave the verdict is gone."""
    real, armed = EngineStage._enter, [True]

    def killed_once_after_the_verdict(self: EngineStage, message: Any) -> bool:
        if self._dead and message.video_id.startswith("bad") and armed:
            armed.clear()
            raise Died
        return real(self, message)

    monkeypatch.setattr(EngineStage, "_enter", killed_once_after_the_verdict)
    rows, deaths = run(clips, tmp_path / "out", World())
    assert deaths == 1 + MOST_DEATHS + 1 and not armed
    assert rows["bad"]["reason"].startswith("engine_crash")
    assert {row["status"] for name, row in rows.items() if name != "bad"} == {"ok"}
