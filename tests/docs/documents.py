"""What the documents say, taken apart: fenced blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tune_spaces" / "README.md")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One `vidseg ...` line."""

    document: str
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)[1:]


def blocks(document: Path) -> Iterator[Block]:
    for match in _FENCE.finditer(document.read_text(encoding="utf-8")):
        yield Block(document.name, match[2], match[3])


def commands(document: Path) -> Iterator[Command]:
    """Every command line of a document, in fences or indented, continuations joined."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        line = line.strip().removeprefix("$ ")
        if re.match(r"vidseg [a-z-]+( |$)", line) and not re.search(r"[…]|\.\.\.( |$)", line):
            yield Command(document.name, line)


def module(document: Path, name: str) -> str:
    """The Python block that begins with `# NAME`."""
    found = [b.text for b in blocks(document) if b.language == "python" and b.text.startswith(f"# {name}\n")]
    assert len(found) == 1, f"{document.name} has {len(found)} blocks called {name}"
    return found[0]
