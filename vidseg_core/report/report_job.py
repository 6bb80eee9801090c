"""``vidseg report``: look at every input, recognise it, put the page together.

Invariant: one input that cannot be shown costs its sections and a line that says why; only when nothing at
all can be shown is that an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vidseg_core import __version__
from vidseg_core.config.errors import ConfigError, check, nearest
from vidseg_core.config.report import ReportConfig
from vidseg_core.evaluation.read import Evaluation, open_evaluation
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.whole import lacking
from vidseg_core.report import of_evaluation, of_run, of_search, of_training
from vidseg_core.report.of_nets import net_of, nets_section
from vidseg_core.report.page import Section, esc, render
from vidseg_core.store import open_run, open_store
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.errors import DamagedFile, StoreError
from vidseg_core.store.keys import CELLS_PREFIX, MANIFEST_KEY, beginning_with
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import read_object

DONE, FAILED = 0, 1
MOST_FAULTS = 10
PAGE, PLOTS = "index.html", "plots"


@dataclass
class Gathered:
    """What the inputs gave."""

    sections: list[Section] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    nets: dict[str, str] = field(default_factory=dict)
    """Input -> its net, where it has one."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """Input -> what was evaluated there."""
    compared: bool = False
    """Whether all nets are in one section, side by side, measured on the same clips."""
    kinds: list[str] = field(default_factory=list)
    clips: set[str] = field(default_factory=set)
    damaged: bool = False
    """Whether something that a run had committed is missing or damaged."""


def run_report(config: ReportConfig, reporter: Reporter | None = None) -> int:
    """Write the page and its plots; the exit code. `StoreError` if no input can be shown."""
    report = reporter or Reporter(config.log)
    found = gather(config)
    for what, why in found.absent.items():
        report.say(f"not shown: {what}: {why}")
    out = Path(config.output)
    make_folder(out / PLOTS)
    for section in found.sections:
        for plot, svg in section.plots:
            write_whole(out / PLOTS / f"{plot.name}.svg", svg, sync=False)
            write_whole(out / PLOTS / f"{plot.name}.png", plot.save("png"), sync=False)
    write_whole(out / PAGE, page(config, found).encode())
    plots = sum(len(section.plots) for section in found.sections)
    size = (out / PAGE).stat().st_size / 2**20
    report.say(
        f"{out / PAGE}: {len(found.sections)} sections, {plots} plots, {size:.1f} MiB", page=str(out / PAGE)
    )
    return FAILED if found.damaged else DONE


def gather(config: ReportConfig) -> Gathered:
    """The sections of all inputs; `StoreError` if there are none."""
    found, problems = Gathered(), list[StoreError]()
    kinds = [_kind(path) for path in config.input]
    for number, (path, kind) in enumerate(zip(config.input, kinds, strict=True), 1):
        suffix = f" {number}" if kinds.count(kind) > 1 else ""
        try:
            _add(config, path, kind, suffix, found)
        except ConfigError:
            raise
        except _UNREADABLE as problem:
            found.damaged |= isinstance(problem, DamagedFile)
            known = isinstance(problem, StoreError)
            problems.append(problem if known else DamagedFile(f"{path} is damaged: {problem!r}"))
            found.absent[path] = str(problems[-1])
    if not found.sections:
        kind = DamagedFile if any(isinstance(problem, DamagedFile) for problem in problems) else StoreError
        raise kind("; ".join(map(str, problems)))
    if config.clip is not None and found.clips:
        meant = beginning_with(config.clip, sorted(found.clips))
        check(len(meant) < 2, "--clip", f"{config.clip!r} begins several clips: {', '.join(meant[:4])}")
        check(bool(meant), "--clip", f"no clip {config.clip!r}{nearest(config.clip, found.clips)}")
    nets = nets_section(list(found.evaluations.values())) if found.evaluations else None
    if nets is not None:
        found.sections.insert(0, nets)
        found.compared = found.nets.keys() == found.evaluations.keys()
    for kind, hint in _WANTED.items():
        if kind not in found.kinds:
            found.absent[kind] = hint
    return found


_UNREADABLE = (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What an input that is damaged in a way nobody looks for raises too."""
_WANTED = {
    "curves and masks of methods": "give an output of vidseg evaluate as --input",
    "training curves": "give an output of vidseg train-policy, train-segmenter, ... as --input",
    "Pareto front of a search": "give an output of a search (its trials.parquet) as --input",
}


def _kind(path: str) -> str:
    """What an input looks like; `run` if like nothing else."""
    try:
        store = open_store(path)
        if store.exists(MANIFEST_KEY) and _is_evaluation(store):
            return "evaluation"
        if of_search.is_search(store):
            return "search"
        return "training" if of_training.is_training(store) else "run"
    except StoreError:
        return "run"


def _is_evaluation(store: ObjectStore) -> bool:
    """Whether this is an evaluation, of whatever version; another version is reported when it is opened."""
    try:
        return read_object(store, MANIFEST_KEY, {}, "").get("kind") == "evaluate"
    except DamagedFile:
        return next(iter(store.list(CELLS_PREFIX)), None) is not None


def _add(config: ReportConfig, path: str, kind: str, suffix: str, found: Gathered) -> None:
    """The sections of one input; `StoreError` says what it is not."""
    store = open_store(path)
    if kind == "evaluation":
        data = open_evaluation(path)
        parts, absent = of_evaluation.sections(data, config, suffix)
        found.clips |= set(data.clips)
        found.nets[path], found.evaluations[path] = net_of(data), data
        found.kinds.append("curves and masks of methods")
    elif kind == "search":
        parts, absent = of_search.sections(store, suffix)
        found.kinds.append("Pareto front of a search")
    elif kind == "training":
        parts, absent = of_training.sections(store, suffix)
        found.kinds.append("training curves")
    else:
        run = open_run(path)
        faults = lacking(run.store, count_rows=True)
        found.damaged |= bool(faults)
        found.absent |= {f"{fault.key} of {path}": f"it {fault.why}" for fault in faults[:MOST_FAULTS]}
        if len(faults) > MOST_FAULTS:
            found.absent[f"more of {path}"] = f"{len(faults) - MOST_FAULTS} more files are missing"
        parts, absent = of_run.sections(run, config, suffix)
        found.clips |= {video_id for video_id, _ in run.files()}
        found.nets[path] = of_run.net_of(run)
    found.sections += parts
    found.absent |= absent


def page(config: ReportConfig, found: Gathered) -> str:
    """The whole HTML."""
    lead = []
    nets = list(dict.fromkeys(found.nets.values()))
    if len(nets) > 1 and not found.compared:
        each = "; ".join(f"{path}: {net}" for path, net in found.nets.items())
        lead.append(
            f'<div class="note">The inputs were made with different nets, so their qualities cannot be '
            f"compared with each other: {esc(each)}.</div>"
        )
    inputs = ", ".join(_numbered(config.input))
    lead.append(f'<p class="soft">{esc(inputs)}</p>')
    foot = f"Made by vidseg {__version__} (vidseg report). No network, no scripts; plots lie in {PLOTS}/."
    return render(config.title, lead, found.sections, found.absent, foot)


def _numbered(inputs: Sequence[str]) -> list[str]:
    return [f"{number}: {path}" for number, path in enumerate(inputs, 1)] if len(inputs) > 1 else list(inputs)
