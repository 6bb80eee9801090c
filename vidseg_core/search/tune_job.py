"""``vidseg tune``: the job, readable on one screen.

space and tables are checked -> the desk holds the tables -> trials, drawn by Optuna for quality and key
interval at once -> the Pareto front -> finalists, trained in full by the job of `train-policy` -> tables,
picture, ``run.json``. What a trial found is a file; a driver that comes later counts these and goes on (Ray
Tune restores its search, trials that were under way go on from their checkpoints).
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vidseg_core.config.schema import load_yaml, to_dict
from vidseg_core.config.spaces import space_file
from vidseg_core.config.tune import TuneConfig
from vidseg_core.kit.claim import only_driver
from vidseg_core.kit.interrupts import drains
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.kit.ray_session import ClusterError
from vidseg_core.search.desk import open_desk
from vidseg_core.search.finalists import Material, open_material, train_finalists
from vidseg_core.search.front import front, write_front, write_trials
from vidseg_core.search.space import Definition
from vidseg_core.search.trial import read_outcome, run_trial
from vidseg_core.store.keys import RUN_KEY
from vidseg_core.training.driver import open_run, output_folder, write_facts
from vidseg_core.training.policy_loop import POLICY
from vidseg_core.training.split import describe_split

TRIAL_FOLDER, RAY_FOLDER, SEARCH = "trials", "_ray", "search"
METRICS, MODES = ["quality", "aki"], ["max", "max"]
_PAUSE_S = 1.0


def run_tune(config: TuneConfig, reporter: Reporter | None = None) -> int:
    """Search (or go on) as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    report = reporter or Reporter(config.log)
    search = open_material(config)
    names = ", ".join(space.name for space in search.definition.spaces)
    split = describe_split(search.tables, search.validation)
    report.say(f"spaces {names}; {trials_of(config)} trials; {split}")
    if config.dry_run:
        return _dry_run(search, report)
    folder = output_folder(config).resolve()
    space = {"space": load_yaml(space_file(config.space))}
    open_run(folder, config.fingerprint_fields() | space | search.fingerprint())
    with only_driver(folder):
        if (folder / RUN_KEY).is_file():
            report.say(f"{folder} is complete already; nothing to do")
            return 0
        return _search(search, folder, report)


def trials_of(config: TuneConfig) -> int:
    """How many trials are made."""
    return min(config.trials, config.limit or config.trials)


def _search(search: Material, folder: Path, report: Reporter) -> int:
    from vidseg_core.kit.ray_session import ray_session

    started = time.monotonic()
    with ray_session(search.config, report):
        with report.phase("searching"):
            _run_trials(search, folder, report)
        outcomes = read_outcomes(folder)
        write_trials(folder, outcomes)
        _say_front(outcomes, report)
        searched = time.monotonic() - started
        with report.phase("training what is on the front"):
            finals = train_finalists(search, folder, outcomes, report)
    write_front(folder, outcomes, finals)
    _finish(search.config, folder, outcomes, finals, searched, time.monotonic() - started, report)
    return 0


# --- trials ------------------------------------------------------------------------------------------------


def _run_trials(search: Material, folder: Path, report: Reporter) -> None:
    import ray

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # read when Tune is imported: the progress line is ours
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see `_ends_saved`
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    config = search.config
    desk_name = f"vidseg-search-{folder.name}-{id(config)}"
    task = search.task(folder / TRIAL_FOLDER, desk_name)
    cpus = ray.cluster_resources().get("CPU", 1.0)
    at_once = config.concurrent or max(1, int(cpus / config.threads))
    share = min(float(config.threads), cpus / at_once)
    desk = open_desk(desk_name, config.tables, config.val_clips, config.val_share, config.seed)
    trainable = tune.with_resources(partial(run_trial, task=task), {"cpu": share})
    try:
        with _progress(folder, trials_of(config), report), _ends_saved():
            results = _tuner(config, folder, trainable, search.definition, at_once).fit()
    finally:
        ray.kill(desk)
    if results.num_errors:
        last = str(results.errors[0]).strip().splitlines()[-1]
        raise ClusterError(f"{results.num_errors} trial(s) failed: {last}. The same command tries them again")


@contextmanager
def _ends_saved() -> Iterator[None]:
    """A signal ends the search with its state saved, and is a `KeyboardInterrupt` then.

    At SIGUSR1 Tune saves and returns as if all were tried. Before it listens there is nothing to save.
    """
    asked: list[bool] = []

    def stop() -> None:
        asked.append(True)
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGUSR1)

    with drains(stop, ctrl_c=True):
        yield
    if asked:
        raise KeyboardInterrupt


def _tuner(config: TuneConfig, folder: Path, trainable: Any, definition: Definition, at_once: int) -> Any:
    """A search that begins, or one that goes on where a driver was killed."""
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = folder / RAY_FOLDER / SEARCH
    if tune.Tuner.can_restore(str(place)):
        return tune.Tuner.restore(
            str(place), trainable=trainable, resume_unfinished=True, restart_errored=True
        )
    search = OptunaSearch(definition, metric=METRICS, mode=MODES, seed=config.seed % 2**32)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=trials_of(config),
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=SEARCH,
            storage_path=str(folder / RAY_FOLDER),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
        ),
    )


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    """What the trials that ended have found, by name."""
    trials = folder / TRIAL_FOLDER
    names = sorted(path.name for path in trials.iterdir()) if trials.is_dir() else []
    found = (read_outcome(trials / name) for name in names)
    return [outcome for outcome in found if outcome is not None]


@contextmanager
def _progress(folder: Path, total: int, report: Reporter) -> Iterator[None]:
    """A line as trials end, from a thread of its own."""
    over, started = threading.Event(), time.monotonic()
    before = len(read_outcomes(folder))

    def look() -> None:
        said = -1
        while not over.wait(_PAUSE_S):
            outcomes = read_outcomes(folder)
            done = len(outcomes)
            if done == said:
                continue
            said, seconds = done, time.monotonic() - started
            rate = (done - before) / seconds
            left = clock((total - done) / rate) if rate > 0 else "-"
            best = len(front(outcomes))
            text = f"trials {done}/{total} | on the front {best} | ETA {left}"
            report.show(text, {"trials": done, "total": total, "front": best}, force=done == total)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say_front(outcomes: Sequence[dict[str, Any]], report: Reporter) -> None:
    failed = [outcome for outcome in outcomes if outcome["error"]]
    stopped = sum(bool(outcome["stopped"]) for outcome in outcomes)
    lines = [f"  {'AKI':>7} {'quality':>8}  space"]
    for place in front(outcomes):
        outcome = outcomes[place]
        lines.append(f"  {outcome['aki']:7.1f} {outcome['quality']:8.4f}  {outcome['space']}")
    report.say(f"{len(outcomes)} trials, {stopped} ended early, {len(failed)} could not be made")
    if failed:
        report.say(f"note: for instance {failed[0]['error']}")
    report.block("\n".join(lines))


# --- end, and before ---------------------------------------------------------------------------------------


def _finish(
    config: TuneConfig,
    folder: Path,
    outcomes: Sequence[dict[str, Any]],
    finals: dict[str, dict[str, Any]],
    searched: float,
    seconds: float,
    report: Reporter,
) -> None:
    facts = {
        "verb": "tune",
        "config": to_dict(config),
        "trials": len(outcomes),
        "stopped_early": sum(bool(outcome["stopped"]) for outcome in outcomes),
        "on_front": len(front(outcomes)),
        "finalists": finals,
        "search_s": round(searched, 1),
        "seconds": round(seconds, 1),
        "finished_unix_s": round(time.time(), 3),
    }
    write_facts(folder, facts)
    shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)  # not before: a kill in between would search anew
    files = [
        f"--scheduler.name policy --scheduler.policy {folder / f['finalist'] / POLICY}"
        for f in finals.values()
    ]
    use = f"; use a finalist with {' or '.join(files)}" if files else ""
    report.say(
        f"done: {len(outcomes)} trials in {clock(searched)}, all in {clock(seconds)} -> {folder}{use}",
        trials=len(outcomes),
        search_s=round(searched, 1),
    )


def _dry_run(search: Material, report: Reporter) -> int:
    """Draw points, the same for the same seed, check them against the tables, and time a little of one."""
    import tempfile

    import optuna

    from vidseg_core.search.trial import try_point

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config, seconds, episodes = search.config, 0.0, 16
    sampler = optuna.samplers.RandomSampler(seed=config.seed % 2**32)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    with tempfile.TemporaryDirectory() as scratch:
        for number, space in enumerate(search.definition.spaces):
            alone = Definition((space,))
            trial = study.ask()
            alone(trial)
            task = replace(
                search.task(Path(scratch)),
                definition=alone,
                intervals=config.intervals[:1],
                episodes=episodes,
                early_stop=False,
            )
            begun = time.monotonic()
            folder = Path(scratch) / str(number)
            outcome = try_point(dict(trial.params), task, folder, search.tables, search.validation)
            spent = time.monotonic() - begun
            report.say(f"{space.name}: {outcome['error'] or 'fine'}")
            if space.verb == "train-policy":
                spent *= max(1.0, config.episodes / episodes / 2)
            seconds = max(seconds, spent)
    core_s = seconds * trials_of(config)
    report.say(
        f"{trials_of(config)} trials of at most about {clock(seconds)} each: {clock(core_s)} of one core, "
        f"finalists aside; nothing was searched (--dry_run)",
        estimated_core_s=round(core_s, 1),
    )
    return 0
