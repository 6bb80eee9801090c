"""What the documents say, taken apart: fenced blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tune_spaces" / "README.md",
)
CARDS = tuple(sorted((ROOT / "vidseg_core" / "models" / "bundled").glob("*.md")))
"""Model cards: what they ask people to type counts too."""
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LEFT_OUT = re.compile(r"[…]|\.\.\.( |$)")
_PLACEHOLDER = re.compile(r" (FILE|FOLDER|DIR|NAME|OPTION)\b")
PROGRAMS = (
    "python",
    "pip",
    "ray",
    "kubectl",
    "docker",
    "aws",
    "make",
    ".ci/run",
    "helm",
    "curl",
    "git",
    "hf",
)
"""First words of command lines that are not ours."""


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

    def words_here(self) -> list[str]:
        """As a shell in this folder would hand them over: patterns without quotes become files."""
        found: list[str] = []
        for word in self.words:
            bare = word in self.line.split() and any(sign in word for sign in "*?[")
            found += sorted(glob(word)) or [word] if bare else [word]
        return found


def blocks(document: Path) -> Iterator[Block]:
    for match in _FENCE.finditer(document.read_text(encoding="utf-8")):
        yield Block(document.name, match[2], match[3])


def commands(document: Path) -> Iterator[Command]:
    """Every command line of a document, in fences or indented, continuations joined; and those in running
    text that have options (a verb alone is a name)."""
    text = document.read_text(encoding="utf-8")
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ").removeprefix("# ")
        if re.match(r"vidseg [a-z-]+( |$)", line) and not _LEFT_OUT.search(line):
            yield Command(document.name, line)
    for line in _spans(text):
        if re.match(r"vidseg [a-z-]+ .*--\w+[ =]\S", line) and not _LEFT_OUT.search(line):
            yield Command(document.name, line)


def foreign_commands(document: Path) -> Iterator[str]:
    """Command lines of other programs, in fences, indented or in running text."""
    text = document.read_text(encoding="utf-8")
    fenced = [block.text for block in blocks(document) if block.language in ("", "bash", "sh", "console")]
    lines = [line for found in fenced for line in found.replace("\\\n", " ").splitlines()]
    lines += [line[4:] for line in text.splitlines() if line.startswith("    ")]
    for line in [*(line.strip().removeprefix("$ ") for line in lines), *_spans(text)]:
        if line.split()[:1] and line.split()[0] in PROGRAMS and (" " in line or "/" in line):
            yield line


def _spans(text: str) -> Iterator[str]:
    """Code in running text, on one line."""
    for found in _SPAN.findall(_FENCE.sub("", text)):
        line = " ".join(found.split())
        if not _PLACEHOLDER.search(line):
            yield line


def module(document: Path, name: str) -> str:
    """The Python block that begins with `# NAME`."""
    found = [b.text for b in blocks(document) if b.language == "python" and b.text.startswith(f"# {name}\n")]
    assert len(found) == 1, f"{document.name} has {len(found)} blocks called {name}"
    return found[0]
