"""Promise: packages and modules of `vidseg_core` import each other one way; nothing at or below the engine
imports Ray.

Why: thirteen packages imported each other in a circle once, so that none could be read or moved alone.
The imports are read, not run; those inside functions count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import vidseg_core

ROOT = Path(vidseg_core.__file__).parent
WITHOUT_RAY = "config datasets engine media metrics models plan propagation scheduling store".split()
"""The engine and all below it."""
FOR_RAY = "datasets.ray_source"
"""A source for Ray Data that nobody imports."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package: dotted name without `vidseg_core` ("media.source"), and its file."""
    names = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}
    return {".".join(p for p in parts if p != "__init__"): path for path, parts in names.items()}


def imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports: modules, and `module.name` for names out of one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def arrows() -> dict[str, set[str]]:
    """module -> modules of ours that it imports."""

    def module_of(name: str) -> str:
        return name if name in modules() else name.rpartition(".")[0]

    return {
        module: {
            module_of(name.removeprefix("vidseg_core."))
            for name in imported(path)
            if name.startswith("vidseg_core.") and name != "vidseg_core.__version__"
        }
        - {module}
        for module, path in modules().items()
    }


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The first cycle that is found, its first node twice; empty if there is none."""
    done: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node not in done:
            for following in sorted(graph.get(node, ())):
                if found := visit(following, [*way, node]):
                    return found
            done.add(node)
        return []

    return next(filter(None, (visit(node, []) for node in sorted(graph))), [])


def test_a_cycle_is_found() -> None:
    assert cycle({"a": "b", "b": "cd", "d": "b"}) == ["b", "d", "b"]
    assert cycle({"a": "bc", "b": "c"}) == []


def test_packages_import_each_other_one_way() -> None:
    def package(module: str) -> str:
        return module.partition(".")[0]

    graph: dict[str, set[str]] = {}
    for module, others in arrows().items():
        graph.setdefault(package(module), set()).update(map(package, others) if module else ())
    for name, others in graph.items():
        others.discard(name)
    found = cycle(graph)
    why = [
        f"{module} -> {other}"
        for one, two in zip(found, found[1:], strict=False)
        for module, others in arrows().items()
        for other in others
        if (package(module), package(other)) == (one, two)
    ]
    assert not found, f"{' -> '.join(found)}: {'; '.join(sorted(why)[:20])}"


def test_the_page_of_the_house_lists_packages_from_top_to_bottom() -> None:
    """Nothing imports what CONTRIBUTING.md lists above it; single files that it leaves out import nothing."""
    page = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = page.partition("\nvidseg_core/\n")[2].partition("\ntune_spaces/")[0].splitlines()
    order = [name for line in listed for name in line[2:17].split()]
    packages = {module.partition(".")[0] for module in modules() if "." in module}
    assert packages <= set(order), packages - set(order)
    for module, others in arrows().items():
        for other in others:
            one, two = module.partition(".")[0], other.partition(".")[0]
            if one not in (two, "", "__main__") and two in order:
                assert one in order and order.index(one) < order.index(two), f"{module} imports {other}"


def test_modules_import_each_other_one_way() -> None:
    found = cycle(arrows())
    assert not found, " -> ".join(found)


def test_nothing_at_or_below_the_engine_imports_ray() -> None:
    """Nor a module of ours that does."""
    waiting = [
        module for module in modules() if module.partition(".")[0] in WITHOUT_RAY and module != FOR_RAY
    ]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            assert not any(name.partition(".")[0] == "ray" for name in imported(modules()[module])), module
            waiting += arrows()[module]
