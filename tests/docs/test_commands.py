"""Promise: every `vidseg ...` line in README, docs and model cards is one that the command line understands
as it stands (`test_commands_run` runs them), and queries and pieces of Python do what their page says.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.docs.documents import CARDS, DOCUMENTS, ROOT, Command, blocks, commands
from tests.docs.stand_ins import forget_modules, write_files
from tests.docs.test_plugins import PAGE
from tests.evaluation.small import config as evaluation
from tests.evaluation.small import evaluate_here
from tests.report.test_page import write_run
from vidseg_core.cli import main as cli
from vidseg_core.cli.verbs import VERBS
from vidseg_core.config.cli import parse
from vidseg_core.config.schema import load_yaml
from vidseg_core.datasets.scene_files import make_corpus
from vidseg_core.store.mask_codec import encode_mask

LINES = [command for document in (*DOCUMENTS, *CARDS) for command in commands(document)]
PAGES = [path for path in DOCUMENTS if path.name in ("quickstart.md", "evaluation.md")]


def understood(verb: str, words: list[str]) -> list[Any]:
    """The configurations that a command comes to; read as the command line reads it, nothing is run."""
    found = []

    def only_parse(name: str, cls: type, run: object, argv: list[str], **how: Any) -> int:
        found.append(parse(name, cls, argv))
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "run_verb", only_parse)
        cli.main([verb, *words])
    if "--" in words:  # submit: the job after it is a command too
        place = words.index("--")
        found += understood(words[place + 1], words[place + 2 :])
    return found


@pytest.mark.parametrize("command", LINES, ids=lambda c: f"{c.document}: {c.line[:60]}")
def test_every_documented_command_is_understood(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, Path("/data"))
    verb, *words = command.words
    assert verb in VERBS, f"{command.document}: there is no verb {verb!r}: {command.line}"
    try:
        understood(verb, words)
    except SystemExit as stop:
        assert stop.code == 0, f"{command.document}: {command.line}\n{capsys.readouterr().err}"


def test_there_are_commands_and_every_verb_is_documented() -> None:
    said = {command.words[0] for command in LINES}
    missing = set(VERBS) - said
    assert len(LINES) > 40 and not missing, missing


def test_yaml_blocks_are_configurations(tmp_path: Path) -> None:
    page = ROOT / "docs" / "evaluation.md"
    (block,) = (block for block in blocks(page) if block.language == "yaml")
    file = tmp_path / "run.yaml"
    file.write_text(block.text, encoding="utf-8")
    (found,) = understood("evaluate", ["--config", str(file)])
    assert [m.name for m in found.parsed_methods()][:3] == ["every", "DFF interval=6", "DFF interval=12"]
    assert load_yaml(file)["methods"][0] == "every"


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for place in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in place:
                assert (document.parent / place).exists(), f"{document.name} links to {place}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the pages presuppose: the demo's scenes, small, and the plug-ins' files."""
    monkeypatch.chdir(tmp_path)
    make_corpus(tmp_path / "vidseg-demo" / "3x120-seed0" / "scenes", clips=2, frames=26, height=48, width=64)
    write_files(tmp_path, Path("/data"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget_modules(tmp_path)


NEEDS_NO_RAY = [
    command
    for document in (*PAGES, PAGE)
    for command in commands(document)
    if "--dry-run" in command.line
    and ("scenes" in command.line)
    and command.words[0] not in ("build-episodes", "segment")
]


@pytest.mark.parametrize("command", NEEDS_NO_RAY, ids=lambda c: f"{c.document}: {c.line[:60]}")
def test_dry_runs_on_generated_clips_run(
    command: Command, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(here.rglob("*"))
    assert cli.main(command.words) == 0, capsys.readouterr().err
    assert "nothing was written" in capsys.readouterr().err.lower()
    assert {path for path in set(here.rglob("*")) - before if "__pycache__" not in path.parts} == set()


def test_every_python_module_that_a_page_starts_is_there_with_its_options() -> None:
    lines = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        lines += [(document.name, *found) for found in re.findall(r"python -m ([\w.]+)([^`\n|#]*)", text)]
    assert len(lines) > 15
    for name, module, rest in lines:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None, f"{name}: python -m {module}"
        if module.startswith("benchmarks."):
            origin = Path(spec.origin)
            started = origin.with_name("__main__.py") if origin.name == "__init__.py" else origin
            source = started.read_text(encoding="utf-8")
            for option in re.findall(r"--[a-z_-]+", rest):
                assert f'"{option}"' in source, f"{name}: python -m {module} knows no {option}"


def test_the_queries_and_the_python_of_the_evaluation_page_run(here: Path) -> None:
    """Over an evaluation and a run with the names that the page uses."""
    import duckdb

    methods = ("fixed:interval=12", "warp_error:threshold=3,sides=one")
    evaluate_here(evaluation(here / "compare", methods=methods))
    write_run(here / "run")
    page = ROOT / "docs" / "evaluation.md"
    queries = [
        query
        for block in blocks(page)
        if block.language == "sql"
        for query in block.text.split(";")
        if query.strip()
    ]
    assert len(queries) >= 7
    for query in queries:
        duckdb.connect().execute(query).fetchall()
    (code,) = [block.text for block in blocks(page) if block.language == "python"]
    names: dict[str, Any] = {}
    exec(code, names)
    assert set(names["masks"]) == {10, 11, 12}


def test_the_decoder_of_the_output_page_decodes() -> None:
    rng = np.random.default_rng(0)
    labels_HW = np.repeat(rng.integers(0, 5, (9, 7), dtype=np.uint8), 60, axis=1)
    (code,) = [b.text for b in blocks(ROOT / "docs" / "output.md") if b.language == "python"]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["decode"](encode_mask(labels_HW), *labels_HW.shape) == labels_HW.tobytes()
