"""Promise: a trial is a plain function of its point, the seed and the tables; what cannot be tried says
why; the front holds what nothing beats.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.generated_tables import generated_table
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.spaces import load_spaces
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.config.tune import TuneConfig
from vidseg_core.episodes.store import write_table
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.episodes.walk import fixed_keys
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.policy import Policy
from vidseg_core.models.policy_file import read_policy
from vidseg_core.search.desk import GRACE, OTHERS, Desk
from vidseg_core.search.finalists import open_material
from vidseg_core.search.front import choose_finalists, front, picture
from vidseg_core.search.space import Definition, open_spaces
from vidseg_core.search.trial import COLLAPSED, PATIENCE, Stopped, Task, _watch, try_point
from vidseg_core.search.tune_job import run_tune
from vidseg_core.store.objects import open_store
from vidseg_core.training.decision_job import DECISION, run_train_decision
from vidseg_core.training.policy_loop import POLICY
from vidseg_core.training.split import open_tables

optuna.logging.set_verbosity(optuna.logging.WARNING)
LIGHT = {"space": "light", "light:episode.eta": 0.2, "light:reinforce.credit": 1, "light:tau": 0.4}


@pytest.fixture(scope="module")
def sets(tables: str) -> tuple[TableSet, TableSet]:
    training, validation = open_tables(tables, (), 0.4, 0)
    assert validation is not None
    return training, validation


@pytest.fixture
def task(space_file: str, tmp_path: Path) -> Task:
    return Task(
        definition=open_spaces(space_file, ()),
        folder=str(tmp_path),
        desk="",
        sides="one",
        intervals=(8.0,),
        episodes=16,
        early_stop=True,
        threads=1,
        seed=0,
    )


def test_a_fixed_interval_has_the_quality_that_the_tables_say(
    task: Task, sets: tuple[TableSet, TableSet], tmp_path: Path
) -> None:
    found = try_point({"space": "fixed", "fixed:scheduler.interval": 6}, task, tmp_path, *sets)
    validation, total, frames, keys = sets[1], 0.0, 0, 0
    for first, count in zip(validation.first_C, validation.frames_C, strict=True):
        at = fixed_keys(int(count), 6)
        key_T = np.repeat(at, 6)[:count]
        total += validation.quality_RL1[first + key_T, np.arange(count) - key_T].sum(dtype=np.float64)
        frames, keys = frames + count, keys + len(at)
    assert found["quality"] == pytest.approx(total / frames, abs=1e-6)
    assert found["aki"] == pytest.approx(frames / keys) and not found["error"]


def test_a_policy_is_trained_and_the_same_point_gives_the_same_outcome(
    task: Task, sets: tuple[TableSet, TableSet], tmp_path: Path
) -> None:
    one, other = (try_point(LIGHT, task, tmp_path / name, *sets) for name in ("a", "b"))
    assert one == other and one["batches"] == 8 and one["options"]["reinforce.credit"] == "to_go"
    assert 0 < one["quality"] <= 1 and one["aki"] >= 1


def test_a_trial_that_falls_behind_ends_early_with_both_its_numbers(
    task: Task, sets: tuple[TableSet, TableSet], tmp_path: Path
) -> None:
    found = try_point(LIGHT, task, tmp_path, *sets, lambda batch, quality: batch >= 3)
    assert found["stopped"] == "median" and found["batches"] == 3
    assert 0 < found["quality"] <= 1 and found["aki"] >= 1


def test_collapsed_entropy_ends_a_trial(task: Task) -> None:
    watch = _watch(task, None)
    row = {"batch": 1, "entropy": COLLAPSED / 2, "val_quality": 0.5}
    for _ in range(PATIENCE - 1):
        watch(row)
    with pytest.raises(Stopped, match="entropy"):
        watch(row)
    patient = _watch(replace(task, early_stop=False), None)
    for _ in range(2 * PATIENCE):
        patient(row)


def test_the_median_is_asked_only_when_enough_have_come_as_far() -> None:
    desk = object.__new__(Desk)
    desk._best, desk._told = {}, {}
    for number in range(OTHERS):
        for batch in range(1, GRACE + 2):
            assert not desk.falls_behind(f"good {number}", batch, 0.8 + 0.01 * batch)
    for batch in range(1, GRACE + 1):
        assert not desk.falls_behind("bad", batch, 0.1)
    assert desk.falls_behind("bad", GRACE + 1, 0.1)
    assert not any(desk.falls_behind("better", batch, 0.9) for batch in range(1, GRACE + 3))


def test_rules_that_no_schedule_can_meet_are_an_outcome_not_a_crash(
    task: Task, sets: tuple[TableSet, TableSet], tmp_path: Path
) -> None:
    found = try_point(LIGHT | {"light:episode.eta": 1e-4}, task, tmp_path, *sets)
    assert "eta" in found["error"]


def test_scores_that_the_tables_lack_are_told(sets: tuple[TableSet, TableSet], tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("w: {fixed: {scheduler.name: warp_error}, vary: {scheduler.threshold: {float: [1, 9]}}}")
    definition = open_spaces(str(path), ())
    made = Task(
        definition=definition,
        folder=str(tmp_path),
        desk="",
        sides="one",
        intervals=(8.0,),
        episodes=16,
        early_stop=True,
        threads=1,
        seed=0,
    )
    found = try_point({"w:scheduler.threshold": 3.0}, made, tmp_path, *sets)
    assert "--features scores" in found["error"]


def test_what_optuna_draws_is_decoded_to_typed_options(space_file: str) -> None:
    definition = open_spaces(space_file, ())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    spaces = set()
    for _ in range(30):
        trial = study.ask()
        definition(trial)
        space, point = definition.decode(trial.params)
        spaces.add(space.name)
        if space.verb == "train-policy":
            made = space.trial(point)
            assert made.reinforce.credit in ("return", "to_go") and 0.1 <= made.tau <= 0.9
            assert made.episode.frames == 40
    assert spaces == {"light", "fixed"}


def test_one_space_alone_can_be_searched(space_file: str) -> None:
    assert [space.name for space in open_spaces(space_file, ("fixed",)).spaces] == ["fixed"]
    with pytest.raises(ConfigError, match="did you mean 'light'"):
        open_spaces(space_file, ("ligth",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {verb: train-policy, vary: {tau: {float: [0.1, yes]}}}", "float must be"),
        ("a: {verb: train-policy, vary: {tau: {float: [0.1, 1.5]}}}", "tau: must be a number from 0 to 1"),
        ("a: {verb: train-policy, vary: {reinforce.lr: {choice: [fast]}}}", "reinforce.lr: must be a number"),
        ("a: {verb: train-policy, vary: {reinforce.lrr: {float: [1, 2]}}}", "did you mean 'reinforce.lr'"),
        ("a: {verb: train-polici, vary: {tau: {float: [0.1, 0.5]}}}", "verb: must be one of"),
        (
            "a: {fixed: {scheduler.name: fixed}, vary: {propagation.sides: {choice: [one, two]}}}",
            "decided by the tables",
        ),
        (
            "a: {fixed: {scheduler.name: random}, vary: {scheduler.interval: {int: [2, 9]}}}",
            "cannot be walked",
        ),
    ],
)
def test_a_space_with_a_wrong_type_is_refused_before_anything_runs(
    text: str, says: str, tables: str, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        run_tune(TuneConfig(tables=tables, space=str(path), output=str(tmp_path / "out")))
    assert says in str(caught.value) and "space.yaml" in str(caught.value)
    assert not (tmp_path / "out").exists()


def outcome(quality: float, aki: float, **more: Any) -> dict[str, Any]:
    plain = {"trial": "t", "space": "light", "verb": "train-policy", "options": {}, "error": ""}
    return plain | {"quality": quality, "aki": aki} | more


def test_the_front_holds_what_nothing_beats() -> None:
    made = [
        outcome(0.9, 5.0),
        outcome(0.8, 20.0),
        outcome(0.7, 10.0),  # beaten by the second
        outcome(0.8, 15.0),  # as good, fewer frames a key
        outcome(0.6, 40.0, verb="segment"),
        outcome(1.0, 99.0, error="not made"),
    ]
    assert front(made) == [0, 1, 4]
    assert choose_finalists(made, 5) == [0, 1]
    assert len(choose_finalists(made, 1)) == 1 and choose_finalists(made, 0) == []


def test_the_picture_is_a_png_of_the_same_bytes_each_time() -> None:
    made = [outcome(0.9, 5.0), outcome(0.8, 20.0), outcome(0.5, 9.0, space="$x$")]
    one, other = (picture(made, [{"final_aki": 6.0, "final_quality": 0.91}]) for _ in range(2))
    assert one == other and one.startswith(b"\x89PNG")


def test_a_dry_run_tries_each_space_and_writes_nothing(tables: str, space_file: str, tmp_path: Path) -> None:
    printed = io.StringIO()
    config = TuneConfig(
        tables=tables, space=space_file, output=str(tmp_path / "out"), intervals=(8.0,), dry_run=True
    )
    assert run_tune(config, Reporter("text", printed)) == 0
    assert "light: fine" in printed.getvalue() and "nothing was searched" in printed.getvalue()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def scored_tables(tmp_path: Path) -> str:
    """As build-episodes --features scores makes them: keys so far apart that each shipped eta can be met."""
    names = ("warp_error", "flow_magnitude", "distance", "frame_difference")
    for number in range(3):
        table = replace(generated_table(100, 90, seed=number), feature_names=names)
        write_table(open_store(str(tmp_path / "sets")), table)
    return str(tmp_path / "sets")


@pytest.mark.parametrize("name", ["policies", "schedulers"])
def test_every_shipped_space_can_be_searched(name: str, scored_tables: str, tmp_path: Path) -> None:
    """`schedulers` held `random`, which cannot be walked on tables, and ended before its first trial."""
    printed = io.StringIO()
    config = TuneConfig(
        tables=scored_tables, space=name, output=str(tmp_path / "o"), intervals=(8.0,), dry_run=True
    )
    assert run_tune(config, Reporter("text", printed)) == 0
    spaces = load_spaces(name)
    assert spaces and all(f"{space}: fine" in printed.getvalue() for space in spaces)


def test_a_dry_run_says_the_same_twice(space_file: str, tables: str, tmp_path: Path) -> None:
    """Its points had no seed: whether one of them could be met changed from one call to the next."""
    config = TuneConfig(
        tables=tables, space=space_file, output=str(tmp_path), intervals=(8.0,), dry_run=True, seed=3
    )

    def drawn(monkeypatch: pytest.MonkeyPatch, config: TuneConfig) -> list[dict[str, Any]]:
        points: list[dict[str, Any]] = []
        monkeypatch.setattr(
            "vidseg_core.search.trial.try_point",
            lambda point, *others: points.append(point) or {"error": ""},
        )
        run_tune(config, Reporter("text", io.StringIO()))
        return points

    with pytest.MonkeyPatch.context() as patch:
        once, again, other = (drawn(patch, replace(config, seed=seed)) for seed in (3, 3, 4))
    assert once and once == again != other


def test_policies_that_are_tried_may_have_a_decision_net_inside(
    scored_tables: str, space_file: str, task: Task, tmp_path: Path
) -> None:
    place = tmp_path / "net"
    learn = TrainDecisionConfig(tables=scored_tables, output=str(place), steps=4, intervals=(5.0,))
    assert run_train_decision(learn, Reporter("text", io.StringIO())) == 0
    file = str(place / DECISION)
    config = TuneConfig(tables=scored_tables, space=space_file, output=str(tmp_path / "o"), decision=file)
    search = open_material(config)
    found = try_point(LIGHT, search.task(tmp_path), tmp_path / "t", search.tables, search.validation)
    assert not found["error"]
    policy, _ = read_policy(tmp_path / "t" / POLICY)
    assert isinstance(policy, Policy) and policy.decision is not None
    assert search.fingerprint() != open_material(replace(config, decision=None)).fingerprint()
    with pytest.raises(ConfigError, match="no space of train-policy"):
        open_material(replace(config, spaces=("fixed",)))


def test_definitions_are_small_and_picklable(space_file: str) -> None:
    import pickle

    made = open_spaces(space_file, ())
    data = pickle.dumps(made)
    assert isinstance(pickle.loads(data), Definition) and len(data) < 10_000
