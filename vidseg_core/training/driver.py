"""A training run from its command to `run.json`: the same story for every verb.

read and check -> claim the folder, lock it -> go on from its checkpoint -> train -> the curve, as a table and
drawn -> what the weights can do -> `run.json`, last. What differs between verbs is a `Training`.

Invariant: whatever can be wrong with data, options or weights is found before the folder is touched and Ray
is started; a folder holds one run and has one driver; the same command goes on until `run.json` is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.config.schema import to_dict
from vidseg_core.kit.claim import claim, digest_of, only_driver, require_same
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.kit.versions import versions
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.errors import WriteError
from vidseg_core.store.keys import CURVE_KEY, RUN_KEY, TRAINING_KEY
from vidseg_core.store.objects import open_store
from vidseg_core.store.small_files import OTHER_OUTPUT, read_object
from vidseg_core.training.checkpoint import CheckpointError, Standing, load_checkpoint

COUNTS = ("step", "batch", "episodes", "decisions")
"""Columns of curves that hold whole numbers."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run in its folder."""

    folder: Path
    fingerprint: str
    """Of what decides the weights."""

    def saved(self) -> Standing:
        """Where its checkpoint stands; at step 0 without one."""
        found = load_checkpoint(self.folder, self.fingerprint)
        return found[0] if found else Standing(fingerprint=self.fingerprint)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a verb has to say of the weights."""

    use: str
    """How to use them, as the end of a sentence."""
    files: Sequence[str]
    parameters: int
    """Numbers that were trained."""
    points: Sequence[Mapping[str, Any]] = ()
    """Thresholds by key interval."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this verb knows."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """`run.json`, the same fields for every verb."""

    verb: str
    config: dict[str, Any]
    fingerprint: str
    unit: str
    """What is counted: step, batch, or fold of the clips that a planner is tried on."""
    steps: int
    seconds: float
    """Spent in training, over all attempts that counted."""
    measure: str | None
    """What `best` is: a column of the curve where there is one."""
    best: float | None
    best_step: int | None
    """Null where the weights are not those of one step among others."""
    parameters: int
    weights_sha256: dict[str, str]
    """By file."""
    operating_points: list[dict[str, Any]]
    details: dict[str, Any]
    versions: dict[str, str]
    finished_unix_s: float


class Training(ABC):
    """What differs between the verbs. `config` has output, log and dry_run besides what is the verb's own."""

    verb: ClassVar[str]
    unit: ClassVar[str] = "step"
    """What is counted; a column of the curve where there is one."""
    saves: ClassVar[bool] = True
    """Are there checkpoints to go on from?"""
    curve: Sequence[str] = ()
    """Columns of the curve."""
    measure: ClassVar[str | None] = None
    """What says how good the weights are: a column of the curve where there is one."""
    samples: ClassVar[str] = ""
    """What a step learns from, `batch` of them; the unit of the pace."""

    def __init__(self, config: Any, reporter: Reporter | None) -> None:
        self.config, self.report = config, reporter or Reporter(config.log)
        self.steps, self.batch = self.size()

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Steps of the run, and samples of a step."""

    @abstractmethod
    def prepare(self) -> None:
        """Read and check everything, and say what there is. What is wrong is raised, in one sentence."""

    def dry_run(self) -> None:
        """Say what training would take."""
        self.report.say("the tables are fine; nothing was trained (--dry_run)")

    @abstractmethod
    def decides(self) -> dict[str, Any]:
        """What decides the weights, by name."""

    @abstractmethod
    def train(self, run: Run) -> Standing:
        """Write the weights into the run's folder."""

    @abstractmethod
    def finish(self, run: Run, standing: Standing) -> Ending:
        """Try and describe what was written."""

    def words(self, row: Mapping[str, Any]) -> str:
        """A point of the curve in words, for the line of progress."""
        return ""

    def watch(self, run: Run) -> Progress:
        """What shows each new row of the curve."""
        return Progress(self, run.saved().step)


def run_training(training: Training) -> int:
    """Train, or go on; the exit code. What is wrong is raised, each in one sentence."""
    phase = training.report.phase
    with phase("reading and checking the data"):
        training.prepare()
    if training.config.dry_run:
        with phase("trying out a few steps"):
            training.dry_run()
        return 0
    run = open_run(output_folder(training.config), training.decides())
    with only_driver(run.folder):
        if (run.folder / RUN_KEY).is_file():
            training.report.say(f"{run.folder} is complete already; nothing to do")
        else:
            _drive(training, run)
    return 0


def output_folder(config: Any) -> Path:
    """What `--output` names, `~` spelled out."""
    return Path(config.output).expanduser()


def open_run(folder: Path, decides: Mapping[str, Any]) -> Run:
    """The run in this folder, made if there is none. `FingerprintMismatch` for one that others decide."""
    make_folder(folder)
    store = open_store(str(folder))

    def check() -> None:
        require_same(read_object(store, TRAINING_KEY, {}, OTHER_OUTPUT), decides, store.root)

    claim(store, TRAINING_KEY, decides, check)
    return Run(folder=folder, fingerprint=digest_of(decides))


def _drive(training: Training, run: Run) -> None:
    unit, begun = training.unit, run.saved().step
    if begun:
        training.report.say(f"going on from {unit} {begun} of {training.steps}")
    with says_how_to_go_on(run, unit) if training.saves else nullcontext():
        try:
            with training.report.phase("training"):
                standing = training.train(run)
        except BaseException:
            with suppress(WriteError, CheckpointError):
                write_curve(run.folder, run.saved().rows, training.curve)
            raise
        write_curve(run.folder, standing.rows, training.curve)
        with training.report.phase("trying the weights"):
            ending = training.finish(run, standing)
    facts = _facts(training, run, standing, ending)
    write_facts(run.folder, asdict(facts))
    training.report.say(
        f"done: {unit} {facts.steps:,} of {training.steps:,} in {clock(facts.seconds)}; "
        f"{_judgement(facts)}{ending.use}",
        **{name: getattr(facts, name) for name in ("steps", "best", "best_step", "operating_points")},
    )


def _judgement(facts: RunFacts) -> str:
    """How good the weights are, as a part of a sentence; nothing where nobody judged them."""
    if facts.best is None:
        return ""
    if facts.best_step is None:
        return f"{facts.measure} {facts.best:.4f}; "
    return f"best {facts.measure} {facts.best:.4f} at {facts.unit} {facts.best_step}; "


@contextmanager
def says_how_to_go_on(run: Run, unit: str = "step") -> Iterator[None]:
    """A `KeyboardInterrupt` leaves the block with the step that the same command goes on from."""
    try:
        yield
    except KeyboardInterrupt:
        step = run.saved().step
        if not step:
            text = "there is no checkpoint yet (--save_every); the same command begins again"
            raise KeyboardInterrupt(text) from None
        raise KeyboardInterrupt(f"the same command goes on from {unit} {step}") from None


def write_curve(folder: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """All rows so far as `curve.parquet`, and drawn (DVRL Fig. 3) as `curve.png`."""
    from vidseg_core.report.of_training import PICTURE, curve_picture

    if not rows:
        return
    kinds = {name: pa.int64() if name in COUNTS else pa.float64() for name in columns}
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(kinds)), sink)
    write_whole(folder / CURVE_KEY, sink.getvalue())
    if data := curve_picture(rows):
        write_whole(folder / PICTURE, data)


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """`run.json`: from now on the run is finished."""
    write_whole(folder / RUN_KEY, (json.dumps(facts, indent=1) + "\n").encode())


def _facts(training: Training, run: Run, standing: Standing, ending: Ending) -> RunFacts:
    judged = standing.best >= 0
    return RunFacts(
        verb=training.verb,
        config=to_dict(training.config),
        fingerprint=run.fingerprint,
        unit=training.unit,
        steps=standing.step,
        seconds=round(standing.seconds, 3),
        measure=training.measure,
        best=round(standing.best, 6) if judged else None,
        best_step=(standing.best_step or None) if judged else None,
        parameters=ending.parameters,
        weights_sha256={
            name: hashlib.sha256((run.folder / name).read_bytes()).hexdigest() for name in ending.files
        },
        operating_points=[dict(point) for point in ending.points],
        details=dict(ending.details),
        versions=versions(),
        finished_unix_s=round(time.time(), 3),
    )


class Progress:
    """Shows each new row of the curve: how far, how good, how fast, how long still."""

    def __init__(self, training: Training, begun: int) -> None:
        self._training, self._before = training, begun
        self._seconds: float | None = None

    def __call__(self, row: Mapping[str, Any]) -> None:
        training, step = self._training, row[self._training.unit]
        report, steps = training.report, training.steps
        judged = training.measure is None or row.get(training.measure) is not None
        text = " | ".join(
            part
            for part in (
                f"{training.unit} {step:,}/{steps:,} ({100 * step / steps:.0f} %)",
                training.words(row),
                self._pace(step, row["seconds"]) if "seconds" in row else "",
            )
            if part
        )
        report.show(text, {**row}, force=judged or report.is_json)

    def _pace(self, step: int, seconds: float) -> str:
        pace = 0.0
        if self._seconds is not None and seconds > self._seconds:
            pace = (step - self._before) / (seconds - self._seconds)
        self._before, self._seconds = step, seconds
        left = clock((self._training.steps - step) / pace) if pace > 0 else "-"
        return f"{pace * self._training.batch:.1f} {self._training.samples}/s | ETA {left}"
