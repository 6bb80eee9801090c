"""Promise: docs/papers.md has a row for every table and figure of the five papers and says of each whether it
can be made; every name in it is one that exists; and what is cited anywhere is in the papers.

The page before it named a command without the option that its figure needs, and a schedule was said to be a
paper's that never mentions it. (That its commands are understood: test_commands.py.)
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.papers import in_miniature, steps
from tests.docs.documents import ROOT, commands
from tests.docs.test_commands import understood
from vidseg_core.cli.verbs import VERBS
from vidseg_core.config.catalogue import FLOWS, PROPAGATORS, SCHEDULERS
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.methods import parse_methods
from vidseg_core.config.nets import NAMED_NETS, NET_FAMILIES
from vidseg_core.config.segment import PropagationConfig
from vidseg_core.datasets.open import LAYOUTS, layout_of
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.spec import parse_spec
from vidseg_core.evaluation.tables import FRAMES_SCHEMA, METHODS_SCHEMA, RESULTS_SCHEMA

PAGE = ROOT / "docs" / "papers.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI"]
SHARED = {
    "DVRL": (["1"], [*map(str, range(1, 9))]),
    "DVSNet": (["1", "2", "3"], [*map(str, range(1, 11))]),
    "ETC": (ROMAN, [*map(str, range(1, 10))]),
    "LVS": (["1"], ["1", "2"]),
    "FeatureSharing": (
        ["5.1", "5.2"],
        ["1.1", "1.2", *(f"2.{n}" for n in range(1, 7)), "3.1", "3.2", "4.1", "4.2", "4.3"]
        + [f"5.{n}" for n in range(1, 6)],
    ),
}
"""Paper -> its tables and its figures."""
SECTIONS = {
    "DVRL": r"[1235]|3\.[12]|4(\.[1-4])?",
    "DVSNet": r"[125]|3(\.[1-4])?|4(\.[1-6])?",
    "ETC": r"I|II|III(-[A-D])?|IV(-[A-D])?|V(-[A-B])?|VI",
    "LVS": r"[1]|2(\.[1-4])?|3",
    "FeatureSharing": r"1|2(\.[1-3])?|3(\.[12])?|[456]",
}
EQUATIONS = {"DVRL": 3, "DVSNet": 3, "ETC": 6, "LVS": 1}
MADE = {"yes", "partly", "no", "-"}
OTHER_NAMES = {
    "scores",
    "features",
    "frames.parquet",
    "run.json",
    "operating_points",
    "max_interval",
    "accuracy",
}
OTHER_NAMES |= {"leftImg8bit_sequence", "train", "val", "test", "vidseg inspect", "latency", "weights="}
"""Levels, files and options of other kinds that the page names."""


def rows(paper: str) -> Iterator[list[str]]:
    """The cells of each row of a paper's table."""
    (part,) = [part for part in re.split(r"^## ", TEXT, flags=re.M) if part.startswith(f"{paper}:")]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    assert lines[0] == "| table or figure | here | made by | what differs |", lines[0]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("paper", SHARED)
def test_every_table_and_figure_has_its_row(paper: str) -> None:
    found: dict[str, list[str]] = {"Table": [], "Fig.": []}
    for cells in rows(paper):
        kind, _, numbers = cells[0].partition(" ")
        found[kind] += numbers.split(", ")
        assert len(cells) == 4 and all(cells) and cells[1] in MADE, cells
        assert (cells[1] in ("yes", "partly")) <= bool(re.search(r"step|`", cells[2])), cells
        assert (cells[1] == "partly") <= (cells[3] != "-"), f"what is missing of {cells[0]}?"
    tables, figures = SHARED[paper]
    assert sorted(found["Table"]) == sorted(tables) and sorted(found["Fig."]) == sorted(figures)


def test_steps_that_rows_speak_of_are_there() -> None:
    there = {int(number) for number in re.findall(r"^\*\*(\d+)\. ", TEXT, flags=re.M)}
    assert there == set(range(1, len(there) + 1))
    named = {int(n) for found in re.findall(r"steps? ([\d, and]+)", PROSE) for n in re.findall(r"\d+", found)}
    assert named <= there and len(named) > 5


def step(number: int) -> str:
    """The text of a step, its commands included."""
    return re.split(r"^\*\*\d+\. ", TEXT.partition("## DVRL:")[0], flags=re.M)[number]


def test_steps_say_what_their_figures_need() -> None:
    """Each of these was left out or named otherwise: the figure came out, and was of something else."""
    assert (
        "--split val" in step(3) and "--split" not in step(1) and "--split train" in step(2)
    )  # sets B and A
    for number in (3, 5):
        assert "--working_size 512x512" in step(number) and "--propagation.level scores" in step(number)
    assert "--episode.frames 30" in step(8) and "--quality accuracy" in step(8)
    intervals = [
        int(n) for n in re.findall(r"\d+", step(5).partition("fixed:interval=")[2].partition(",label")[0])
    ]
    swept = re.findall(r"(\w+):\S*threshold=\S+", step(5))
    horizon = int(re.findall(r"--horizon (\d+)", step(3))[0])
    assert max(intervals) <= horizon and "confidence" in swept and "policy" in swept
    assert step(5).count(f"max_interval={max(intervals)}") == len(swept)
    assert "confidence:" in step(9) and "--protocol snippet" in step(9)


def is_method(name: str) -> bool:
    """Whether `evaluate --methods` understands it."""
    try:
        return bool(parse_methods([name], PropagationConfig(sides="one")))
    except ConfigError:
        return False


def is_net(name: str) -> bool:
    """Whether it is `family:which`, and the net inside of it one that is known."""
    family, _, body = name.partition(":")
    if family in ("sharing", "truncated"):
        levels, _, inner = body.partition("/")
        return levels in ("1", "2") and (inner in NAMED_NETS or is_net(inner))
    return family in NET_FAMILIES and bool(body)


def is_data(name: str) -> bool:
    """Whether it is a data set with options that exist."""
    try:
        spec = parse_spec(name, frozenset(LAYOUTS))
        layout_of(spec)
    except DatasetError:
        return False
    return spec.path.startswith("/data/")


@pytest.mark.parametrize(
    "name", ["fixed:interwal=5", "fixed:interval=x", "camvid:/data/x?snippets=yes", "truncated:3/pspnet"]
)
def test_names_that_do_not_exist_are_seen(name: str) -> None:
    """Whatever stood after `fixed:` or `camvid:` was taken for a name that exists."""
    assert not (is_method(name) or is_net(name) or is_data(name))


def test_every_name_exists() -> None:
    options = set(re.findall(r"^\S+ (--\S+)", (ROOT / "tests/config/golden_cli.txt").read_text(), flags=re.M))
    plots = "".join(path.read_text() for path in (ROOT / "vidseg_core" / "report").glob("*.py"))
    columns = {*METHODS_SCHEMA.names, *RESULTS_SCHEMA.names, *FRAMES_SCHEMA.names}
    known = {*SCHEDULERS, *PROPAGATORS, *FLOWS, *NAMED_NETS, *VERBS, *columns, *OTHER_NAMES}
    strange = []
    for name in re.findall(r"`([^`\n]+)`", PROSE):
        words = name.removeprefix("vidseg ").split()
        typed = [word for word in words if word.startswith("--")]
        plot = re.fullmatch(r"plots/([\w-]+)\.png", name)
        module = re.match(r"python -m ([\w.]+)", name)
        fine = (
            name in known
            or (typed and set(typed) <= options | {"--data"} and (words[0] in VERBS or words[0] in typed))
            or (plot and f'"{plot[1]}' in plots)
            or (module and importlib.util.find_spec(module[1]))
            or is_method(name)
            or is_net(name)
            or is_data(name)
            or (len(words) == 1 and words[0] in VERBS)
            or name.startswith(("figures/", "$"))
        )
        if not fine:
            strange.append(name)
    assert not strange, f"these names of papers.md are nowhere: {strange}"


def test_the_miniature_has_every_command_and_none_that_is_not_understood() -> None:
    """Of 24 commands eight had ever been run, and nobody saw which."""
    listed = [command.line for command in commands(PAGE) if "--output" in command.words]
    assert sorted(command.line for _, command in steps()) == sorted(listed) and len(listed) >= 24
    for number, command in steps():
        verb, *words = in_miniature(command, Path("/data"))
        assert number > 0 and understood(verb, words), command.line
        if "regions=" in command.line:  # its overlaps do not fit in frames of 64 pixels
            assert words[-2:] == ["--working_size", "256x384"]


def test_every_paper_is_among_the_sources() -> None:
    sources = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Sources")[2]
    assert [paper for paper in SHARED if f"- {paper}:" not in sources] == []


CITED = re.compile(
    r"\b(DVRL|DVSNet|ETC|LVS|FeatureSharing)[,:]? \(?"
    r"(section |Table |Fig\. |Eq\. )?"
    r"((?:\d+(?:\.\d+)?|[IVX]+(?:-[A-D])?)(?:(?:, | and | to )\d+(?:\.\d+)?)*)\b(?! GPU-days)"
)


def cited() -> Iterator[tuple[str, str, str, str]]:
    """(file, paper, kind, number) of every citation in code and documents."""
    places = [*ROOT.glob("vidseg_core/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("docs/*.md")]
    for path in (*places, *ROOT.glob("tests/**/*.py"), ROOT / "README.md"):
        for paper, kind, numbers in CITED.findall(path.read_text(encoding="utf-8")):
            for number in re.findall(r"\d+(?:\.\d+)?|[IVX]+(?:-[A-D])?", numbers):
                yield str(path.relative_to(ROOT)), paper, kind.strip() or "section", number


def test_what_is_cited_is_in_the_papers() -> None:
    wrong, seen = [], 0
    for place, paper, kind, number in cited():
        tables, figures = SHARED[paper]
        if kind == "Eq.":
            fine = int(float(number)) <= EQUATIONS.get(paper, 9)
        elif kind in ("Table", "Fig."):
            fine = number in (tables if kind == "Table" else figures)
        else:
            fine = re.fullmatch(SECTIONS[paper], number) is not None
        seen += 1
        if not fine:
            wrong.append(f"{place}: {paper} {kind} {number}")
    assert seen > 60 and not wrong, wrong


def test_the_poly_schedule_is_etc_s() -> None:
    """Neither DVRL nor DVSNet says how its learning rate falls; both were cited for it."""
    for place in ("docs/training.md", "vidseg_core/training/optimise.py", "vidseg_core/config/recipes.py"):
        text = " ".join((ROOT / place).read_text(encoding="utf-8").split())
        found = re.findall(r"poly[^.]{0,60}\((DV\w+|ETC)", text)
        assert found and set(found) == {"ETC"}, place
