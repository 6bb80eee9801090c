"""Promise: whichever the verb, a folder has one driver at a time, and `run.json` the same fields; a save that
fails for one worker stops all of them.

Why: only two of the five verbs took the lock, so that a second command trained into the same checkpoint; and
the policy's loop saved on its first worker alone, so that a full disk left the others waiting for it.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch

from benchmarks.generated_tables import generated_table
from jobs import cli
from tests.scheduling.test_planner import built
from tests.training.small import facts_of, small_config
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.store import write_table
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.kit.claim import only_driver
from vidseg_core.store.errors import WriteError
from vidseg_core.store.objects import open_store
from vidseg_core.training import ray_group
from vidseg_core.training.driver import Run
from vidseg_core.training.group import Solo
from vidseg_core.training.policy_job import PolicyTraining
from vidseg_core.training.policy_loop import PolicyOptions, train_policy
from vidseg_core.training.segmenter_job import SegmenterTraining

SCENES = "scenes:videos=2,frames=4,height=64,width=96"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tables` for policies and decision nets, `pictures` for planners."""
    root = tmp_path_factory.mktemp("sets")
    for number in range(3):
        write_table(open_store(str(root / "tables")), generated_table(60, 20, seed=number))
        write_table(open_store(str(root / "pictures")), built(f"clip{number}", seed=number, frames=20))
    return root


def command(verb: str, sets: Path) -> list[str]:
    """The shortest command of a verb, without its output."""
    return {
        "train-segmenter": [
            *("--data", SCENES, "--segmenter", "tiny:8", "--augment.crop", "32", "--steps", "2"),
            *("--recipe.batch", "2", "--val_limit", "2", "--device", "cpu"),
        ],
        "train-flow": [
            *("--data", SCENES, "--steps", "2", "--recipe.batch", "2", "--size", "96", "--device", "cpu"),
        ],
        "train-propagation": [
            *("--data", SCENES, "--segmenter", "tiny:8", "--steps", "2", "--recipe.batch", "2"),
            *("--recipe.height", "64", "--recipe.width", "64", "--size", "96", "--device", "cpu"),
        ],
        "train-policy": [
            *("--tables", str(sets / "tables"), "--episode.frames", "40", "--episode.eta", "0.5"),
            *("--reinforce.episodes", "16", "--reinforce.trials", "2", "--intervals", "5"),
        ],
        "train-decision": ["--tables", str(sets / "tables"), "--steps", "20", "--intervals", "5"],
        "train-planner": [
            *("--tables", str(sets / "pictures"), "--stride", "2", "--window", "12", "--intervals", "5"),
        ],
    }[verb]


NETS = ("train-segmenter", "train-flow", "train-propagation")
VERBS = (*NETS, "train-policy", "train-decision", "train-planner")


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_command_is_refused_while_one_works_in_the_folder(
    verb: str, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with only_driver(output):
        assert cli.main([verb, *command(verb, sets), "--output", str(output)]) == 2
    assert "--output: another command is" in capsys.readouterr().err
    assert not (output / "run.json").exists()


class Here:
    """Ray Train with one worker, which lives in this process."""

    def __init__(self, job: ray_group.Job, layout: ray_group.GroupLayout) -> None:
        self._given = cloudpickle.dumps({"job": job, "layout": layout})

    def fit(self) -> SimpleNamespace:
        return SimpleNamespace(return_value=ray_group._worker(cloudpickle.loads(self._given)))


def on_nodes(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    """A cluster of these."""
    whole = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    monkeypatch.setattr("ray.cluster_resources", lambda: whole)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `test_on_ray` and its like do on Ray is done here."""
    monkeypatch.setattr("ray.put", lambda thing: thing)
    monkeypatch.setattr("ray.get", lambda thing: thing)
    on_nodes(monkeypatch, {"CPU": 2.0})
    monkeypatch.setattr("ray.train.get_context", lambda: SimpleNamespace(get_world_size=lambda: 1))
    monkeypatch.setattr("vidseg_core.kit.ray_session.ray_session", lambda *_: nullcontext())
    monkeypatch.setattr(ray_group, "_trainer", Here)
    monkeypatch.setattr(
        "vidseg_core.training.ray_loader.ray_batches",
        lambda samples, start, stop, slots, loading: samples.batches(start, stop),
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_finished_run_says_the_same_whatever_the_verb(
    verb: str, sets: Path, tmp_path: Path, no_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [verb, *command(verb, sets), "--output", str(tmp_path)]
    assert cli.main(line) == 0, capsys.readouterr().err
    facts = facts_of(tmp_path)
    assert facts["verb"] == verb and facts["steps"] > 1 and facts["weights_sha256"]
    assert (facts["best_step"] is None) == (facts["best"] is None or verb == "train-planner")
    assert bool(facts["operating_points"]) == (verb not in NETS)
    assert (tmp_path / "curve.parquet").exists() == (verb != "train-planner")
    assert cli.main(line) == 0
    assert "complete already; nothing to do" in capsys.readouterr().err
    (tmp_path / "run.json").unlink()
    assert cli.main(line) == 0
    assert facts_of(tmp_path)["weights_sha256"] == facts["weights_sha256"]


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("train-policy", r"done: batch 2 of 2 in \S+; best val_quality 0\.\d{4} at batch 2; "),
        ("train-planner", r"done: fold 3 of 3 in \S+; quality on clips left out 0\.\d{4}; use it with"),
        ("train-flow", r"done: step 2 of 2 in \S+; use it with"),
    ],
)
def test_the_last_line_names_a_best_step_where_one_was_chosen(
    verb: str, says: str, sets: Path, tmp_path: Path, no_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, *command(verb, sets), "--output", str(tmp_path)]) == 0
    assert re.search(says, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize("verb", ["train-segmenter", "train-policy", "train-decision"])
def test_a_folder_below_home_is_one_folder(
    verb: str,
    sets: Path,
    tmp_path: Path,
    no_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cli.main([verb, *command(verb, sets), "--output", "~/run"]) == 0
    assert {"manifest.json", "curve.parquet", *facts_of(tmp_path / "home/run")["weights_sha256"]} <= {
        file.name for file in (tmp_path / "home/run").iterdir()
    }
    assert not (tmp_path / "~").exists()


def test_what_ends_a_worker_is_said_by_its_name(
    sets: Path,
    tmp_path: Path,
    no_ray: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise WriteError("cannot write checkpoint.pt: No space left on device")

    monkeypatch.setattr("vidseg_core.training.attempt.save_checkpoint", full)
    line = ["train-policy", *command("train-policy", sets), "--output", str(tmp_path)]
    assert cli.main(line) == 1
    assert "cannot write checkpoint.pt: No space left on device; what is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ((8,), 1, 8.0),  # as many as it has threads
        ((2,), 1, 2.0),
        ((4, 4), 1, 4.0),  # none lies on two nodes
        ((8, 4), 2, 4.0),
        ((8, 2), 2, 4.0),
        ((1, 1), 3, 0.5),
        ((8,), 3, 2.66),
    ],
)
def test_every_worker_fits_on_a_node(
    nodes: tuple[int, ...], workers: int, cpus: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ray waits for a node that never comes."""
    on_nodes(monkeypatch, *({"CPU": float(each)} for each in nodes))
    config = TrainPolicyConfig(
        tables="tables",
        output=str(tmp_path),
        reinforce=ReinforceRecipe(batch=12),
        workers=workers,
        threads=8,
    )
    run = Run(folder=tmp_path, fingerprint="")
    assert PolicyTraining(config, None)._lay_out(run).cpus == cpus


def test_a_worker_with_a_gpu_fits_where_the_gpus_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_nodes(monkeypatch, {"CPU": 32.0}, {"CPU": 4.0, "GPU": 2.0})
    config = small_config(tmp_path, workers=2, threads=8, device="cuda")
    assert SegmenterTraining(config, None)._lay_out(Run(folder=tmp_path, fingerprint="")).cpus == 1.0


# a save that fails ----------------------------------------------------------------------------------------


class Left(Exception):
    """A worker waits for one that is gone: on Ray it would wait for half an hour."""


class Threads(Solo):
    """A worker of a group that lives in threads; everybody has a queue to everybody."""

    def __init__(self, rank: int, queues: list[list[queue.SimpleQueue[Any]]]) -> None:
        self.rank, self.size = rank, len(queues)
        self._queues = queues

    def gather(self, thing: Any) -> list[Any]:
        self.send(thing)
        things = [self._queues[other][self.rank].get() for other in range(self.size)]
        if any(isinstance(each, Left) for each in things):
            raise Left
        return things

    def send(self, thing: Any) -> None:
        for other in range(self.size):
            self._queues[self.rank][other].put(thing)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.gather(tensor)).sum(0)

    def average_gradients(self, weights: Any) -> None:
        for weight in weights:
            weight.grad = self.sum(weight.grad) / self.size


def in_threads(work: Callable[[Solo], Any], size: int = 2) -> list[BaseException | None]:
    """What ended each worker."""
    queues = [[queue.SimpleQueue[Any]() for _ in range(size)] for _ in range(size)]
    ends: list[BaseException | None] = [None] * size

    def one(rank: int) -> None:
        member = Threads(rank, queues)
        try:
            work(member)
        except BaseException as error:
            ends[rank] = error
        finally:
            member.send(Left())

    workers = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return ends


@pytest.fixture
def tables() -> TableSet:
    return join_tables([generated_table(60, 30, seed=number) for number in range(2)])


def options(folder: Path) -> PolicyOptions:
    """Four batches, a checkpoint after each, validation after the second and the fourth."""
    return PolicyOptions(
        folder=folder,
        episode=EpisodeRecipe(frames=40, eta=0.2),
        reinforce=ReinforceRecipe(episodes=8, batch=2, trials=2),
        val_every=2,
        save_every=1,
        intervals=(5.0,),
    )


def test_workers_whose_scores_differ_in_the_last_bit_go_the_same_way(
    tables: TableSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second validation is as good as the first for one worker, and a bit better for the other."""
    mine = threading.local()
    monkeypatch.setattr(Operator, "quality_at", lambda *_: [next(mine.scores)])

    def work(group: Solo) -> None:
        mine.scores = iter([0.5, 0.5 + 1e-12 * group.rank])
        assert train_policy(tables, tables, options(tmp_path), group=group).best_step == 2

    assert in_threads(work) == [None, None]


def test_a_policy_that_cannot_be_saved_stops_every_worker(
    tables: TableSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(*_: object) -> None:
        raise WriteError("cannot write checkpoint.pt: No space left on device")

    monkeypatch.setattr("vidseg_core.training.attempt.save_checkpoint", full)
    ends = in_threads(lambda group: train_policy(tables, None, options(tmp_path), group=group))
    assert [type(end) for end in ends] == [WriteError, WriteError]
