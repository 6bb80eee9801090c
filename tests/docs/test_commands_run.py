"""Promise: every command of README, docs and model cards runs to its end as it is written, page by page, in
order, in a folder that holds what the page speaks of; and none is left out without a reason that stands here.

A newcomer tried them all and found broken ones among those that were only parsed. Videos, nets and data
sets are small ones of the same kinds (`stand_ins`), options that make the work small are appended, S3 is a
real one over HTTP. A command that comes to the same configuration as one before is not run twice: its output
is shared. `make test-all` runs all of them, as a user would; otherwise one of each verb and set of options is
run, and what it needs (`chosen`), and the work is done in this process, but for a page on Ray.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.docs.documents import CARDS, DOCUMENTS, ROOT, Command, commands, foreign_commands
from tests.docs.stand_ins import forget_modules, furnish, make_buckets, make_world, small
from tests.docs.test_commands import understood
from tests.one_ray import cloud
from tests.training.local_mode import trained_here
from vidseg_core.cli import main as cli
from vidseg_core.config.schema import flat_dict

NOT_RUN = {
    r"python -m venv |pip install ": "makes environments: .ci/run does, from nothing",
    r"\.ci/run|make (check|test-all)|python -m pytest": "is what runs these tests",
    r"make (format|release)": "writes: tests/config/test_release.py and tests/test_wheel.py have its parts",
    r"make audit": "tests/security/test_audit.py runs the same script",
    r"python -m benchmarks\.": "minutes to hours each; that module and options exist is in test_commands.py",
    r"ray job (submit|stop)": "needs a job server; tests/pipeline/test_submit.py speaks to one",
    r"python -m vidseg_core\.cli\.attempt VERB": "is a pattern; tests/config/test_deploy.py runs it",
    r"kubectl ": "needs Kubernetes; tests/config/test_deploy.py reads the files",
    r"vidseg segment .*--segmenter (voc|street|ade20k)": "fetches; test_fetched.py does, from here",
    r"vidseg segment .*--propagation.name (sam2|edgetam):": "fetches; test_memory.py has tiny ones",
    r"vidseg submit ": "needs a job server, as above; the command after its -- is run here",
}
"""Commands that no test can run, by how they begin, and why."""
BEFORE = dict.fromkeys(
    ("evaluation.md", "export.md"), "vidseg segment --input clips/ --output run --segmenter plain"
)
"""What a page takes for granted."""
EVERY_ONE = os.environ.get("HYPOTHESIS_PROFILE") == "all"
FOR_REAL = ("plugins.md",)
"""Pages whose dry runs are run without --dry-run too: what follows on them needs their outputs."""
SLOW = ("README.md", "flow.md", "training.md")
"""More than about ten seconds each."""
PAGES = {path.name if path.parent != ROOT / "tune_spaces" else "tune_spaces": path for path in DOCUMENTS}
PAGES |= {path.name: path for path in CARDS}
NOT_RUN_PAGES = {
    "papers.md": "hours each, on data that is not here; a net of two steps sees one class. Its verbs run "
    "on other pages; test_commands.py reads its commands, test_papers.py its names, and python -m "
    "benchmarks.papers runs them on small nets and drawn clips of the same layouts"
}
"""Pages that no test can run, and why."""
ON_RAY = "cluster.md"
"""The page whose runs are executed by Ray each time."""
STARTS_NOTHING = {"compact", "doctor", "export", "inspect", "report", "status"}
"""Verbs whose every command is run each time: they take moments."""
SEES_NOTHING = {"tiny-face", "fidelity"}
"""There is no face in the stand-ins: all clips are put aside, exit code 3."""


def lines(page: str) -> list[Command]:
    """The commands of a page that are run, that after `submit --` in place of the whole."""
    found = []
    for command in commands(PAGES[page]):
        if "--segmenter" in command.line and any(re.match(why, command.line) for why in NOT_RUN):
            continue
        _, submitted, rest = command.line.partition(" -- ")
        found.append(Command(command.document, f"vidseg {rest}") if submitted else command)
    return found


def chosen() -> dict[str, list[Command]]:
    """The commands of each page that are run: the first of a verb with a set of options, those of verbs that
    take moments, and those whose output one of them reads."""
    known: set[tuple[str, ...]] = set()
    found: dict[str, list[Command]] = {}
    for page in PAGES:
        if page in NOT_RUN_PAGES:
            continue
        kinds = [(c.words[0], *sorted({w for w in c.words if w.startswith("--")})) for c in lines(page)]
        new = [
            EVERY_ONE or page in FOR_REAL or kind[0] in STARTS_NOTHING or kind not in [*known, *kinds[:n]]
            for n, kind in enumerate(kinds)
        ]
        known.update(kinds)
        kept: list[Command] = []
        for command, is_new in reversed(list(zip(lines(page), new, strict=True))):
            if is_new or any(_reads(later, command) for later in kept):
                kept.insert(0, command)
        found[page] = kept
    return found


def _reads(later: Command, earlier: Command) -> bool:
    output = dict(pairwise(earlier.words)).get("--output")
    inputs = [word for before, word in pairwise(later.words) if before != "--output"]
    return output is not None and any(re.search(rf"(^|[=,:]){re.escape(output)}($|[/,])", i) for i in inputs)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str, local_ray: None) -> Iterator[Path]:
    """The stand-ins."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in cloud(s3_endpoint).items():
            environment.setenv(name, value)
        make_world(folder)
        make_buckets(s3_endpoint, folder)
        yield folder


@pytest.fixture(scope="module")
def done() -> dict[str, Path]:
    """What was run: configuration without names -> its output."""
    return {}


@pytest.fixture
def here(
    page: str,
    world: Path,
    ray_folder: Path,
    done: dict[str, Path],
    s3_endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """The folder as a page finds it; what the page made moves to a place of its own afterwards.

    Ray's workers stay in the folder in which it was started, so all pages are run in that one.
    """
    folder, kept = ray_folder, world / page
    furnish(folder, world)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, value in cloud(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    yield folder
    forget_modules(folder)
    kept.mkdir()
    for path in folder.iterdir():
        path.rename(kept / path.name)
    for same, path in done.items():
        if path.is_relative_to(folder):
            done[same] = kept / path.relative_to(folder)


@pytest.mark.ray
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p, kept in chosen().items() if kept],
)
def test_the_commands_of_a_page_run(
    page: str,
    here: Path,
    world: Path,
    done: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = [Command(page, BEFORE[page])] if page in BEFORE else []
    with nullcontext() if EVERY_ONE else trained_here():
        for command in [*first, *chosen()[page]]:
            words = small(command.words_here(), world / "data", local=not EVERY_ONE and page != ON_RAY)
            again = page in FOR_REAL and "--dry-run" in words
            for these in [words, [w for w in words if w != "--dry-run"]] if again else [words]:
                run_once(these, done, f"{page}: {command.line}", capsys)
    CHECKS.get(page, lambda: None)()


def run_once(words: list[str], done: dict[str, Path], line: str, capsys: Any) -> None:
    """Run a command, or link to what it made before under another name."""
    verb, *rest = words
    configs = understood(verb, rest) if "--help" not in rest else []
    named = str(getattr(configs[0], "output", None) or "") if configs else ""
    output = Path(named) if named and "://" not in named else None
    same = json.dumps([verb, *map(_content, configs)], sort_keys=True, default=str)
    if same not in done or (output is None) or output.exists():
        fine = (0, 3) if SEES_NOTHING <= set(words) else (0,)
        assert cli.main(words) in fine, f"{line}\n{capsys.readouterr().err}"
        if output is not None and output.exists():
            done[same] = output.resolve()
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(done[same], output)


def _content(config: Any) -> dict[str, Any]:
    """A configuration in which paths are what they lead to, and the output has no name."""

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(item) for item in value]
        if not isinstance(value, str) or "://" in value:
            return value
        head, _, tail = value.rpartition(":")
        found = os.path.realpath(value.removesuffix("/*.mp4"))
        return found if os.path.exists(found) else f"{head}:{os.path.realpath(tail)}" if head else value

    return {name: place(value) for name, value in flat_dict(config).items() if name != "output"}


def _quickstart() -> None:
    assert Path("page/index.html").is_file() and Path("compare-page/index.html").is_file()


def _evaluation() -> None:
    out = Path("vidseg-inspect")
    assert len(list(out.glob("*.mp4"))) == 2


def _export() -> None:
    assert Path("coco/coco.json").is_file() and Path("look/cvat/annotations.zip").is_file()


CHECKS: dict[str, Callable[[], None]] = {
    "quickstart.md": _quickstart,
    "evaluation.md": _evaluation,
    "export.md": _export,
}
"""What must be there after a page."""


def test_no_command_is_left_out_without_a_reason() -> None:
    foreign = {line for path in PAGES.values() for line in foreign_commands(path)}
    unexplained = [line for line in foreign if not any(re.match(reason, line) for reason in NOT_RUN)]
    assert not unexplained, f"run these in {Path(__file__).name}, or say there why not: {unexplained}"
    ours = {command.line for path in PAGES.values() for command in commands(path)}
    idle = [why for why in NOT_RUN if not any(re.match(why, line) for line in foreign | ours)]
    assert not idle, f"reasons for commands that are not documented: {idle}"
    assert sum(len(lines(page)) for page in PAGES) > 80
