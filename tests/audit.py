"""What is installed with the package, looked through without a network (`python -m tests.audit`).

Every distribution that vidseg needs, with all extras and to any depth, must be there in a version that its
users accept (what `pip check` asks), must say its licence, and the licence must be neither GPL nor AGPL.
Known vulnerabilities need a network: `pip-audit -r constraints.txt` where there is one.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "vidseg"
_REFUSED = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public", re.IGNORECASE)


def closure(root: str = ROOT) -> tuple[dict[str, Distribution], list[str]]:
    """The distributions that `root` needs with all extras, by name; what is missing or does not fit."""
    own = distribution(root)
    found: dict[str, Distribution] = {canonicalize_name(root): own}
    problems: list[str] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    todo = [(own, tuple(own.metadata.get_all("Provides-Extra") or ()))]
    while todo:
        user, extras = todo.pop()
        for text in user.requires or ():
            need = Requirement(text)
            wanted = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in (*extras, ""))
            if not wanted or (text, extras) in seen:
                continue
            seen.add((text, extras))
            try:
                found[canonicalize_name(need.name)] = there = distribution(need.name)
            except PackageNotFoundError:
                problems.append(f"{user.name} needs {need.name}, which is not installed")
                continue
            if not need.specifier.contains(there.version, prereleases=True):
                problems.append(f"{user.name} needs {need.name}{need.specifier}, not {there.version}")
            todo.append((there, tuple(sorted(need.extras))))
    return found, problems


def licence(package: Distribution) -> str:
    """What a distribution says about its licence; empty if nothing."""
    about = package.metadata
    kinds = [text for text in about.get_all("Classifier") or () if text.startswith("License ::")]
    words = "".join(about.get_all("License") or ()).strip().partition("\n")[0]
    return (
        "".join(about.get_all("License-Expression") or ())
        or ", ".join(k.split(" :: ")[-1] for k in kinds)
        or words
    )


def is_refused(text: str) -> bool:
    """Whether a licence leaves no choice but GPL or AGPL."""
    return all(_REFUSED.search(choice) for choice in re.split(r"\s+OR\s+", text))


def problems() -> tuple[int, list[str]]:
    """How many distributions there are, and what is wrong with them."""
    found, wrong = closure()
    for name, package in sorted(found.items()):
        text = licence(package)
        if not text:
            wrong.append(f"{name} {package.version} says no licence")
        elif is_refused(text):
            wrong.append(f"{name} {package.version} is {text}")
    return len(found), wrong


def main() -> int:
    """Prints what is wrong; 1 if anything is."""
    count, wrong = problems()
    print("\n".join(wrong) or f"{count} packages: versions fit, none is GPL or AGPL")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
