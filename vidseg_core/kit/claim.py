"""Whose output is this: what decides its content, written once, checked by every command that comes later.

Invariant: an output holds what one configuration made. The first command puts what decides it if that is
absent; every other one must agree, or is refused with what differs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.store.errors import StoreError, WriteError
from vidseg_core.store.objects import ObjectStore

Fields = Mapping[str, Any]
"""What decides the content of an output, by name."""
_SHOWN = 600
"""Characters of what differs."""
OTHER_RUN = "belongs to another run"
_DIGEST = re.compile("[0-9a-f]{64}")


class FingerprintMismatch(ValueError):
    """The output belongs to a run with another configuration, other weights or other inputs."""

    exit_code = 2


def as_json(content: Fields) -> dict[str, Any]:
    """The content as it comes back from a JSON file."""
    return json.loads(json.dumps(content, default=_plain))


def digest_of(content: Fields) -> str:
    """SHA-256 over the content, by name."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def claim(store: ObjectStore, key: str, manifest: Fields, check: Callable[[], None]) -> bool:
    """Put the manifest of an output, or `check` the one that is there. True: there was none."""
    data = json.dumps(manifest, indent=1, sort_keys=True, default=_plain).encode()
    if store.put_if_absent(key, data):
        return True
    check()
    return False


def require_same(there: Fields, ours: Fields, where: str, whose: str = OTHER_RUN) -> None:
    """`FingerprintMismatch` with what differs between an output's fields and those of this command."""
    now = as_json(ours)
    names = sorted(name for name in {*there, *now} if there.get(name) != now.get(name))
    if names:
        differs = "; ".join(_difference(name, there.get(name), now.get(name)) for name in names)
        raise FingerprintMismatch(
            f"--output {where} {whose} ({differs[:_SHOWN]}). Choose another output, or the options that it "
            "was made with to continue it."
        )


def require_writable(store: ObjectStore) -> None:
    """`ConfigError` where nothing can be written."""
    try:
        store.check_writable()
    except WriteError:  # a full disk is no wrong option
        raise
    except StoreError as problem:
        raise ConfigError("--output", str(problem)) from problem


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Inside the block no other command works in the folder; the system drops the lock if this one dies."""
    with open(folder / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("--output", f"another command is working in {folder}") from error
        except OSError:  # a network file system without locks
            pass
        yield


def _difference(name: str, there: Any, ours: Any) -> str:
    if all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (there, ours)):
        return f"other {name}"
    return f"{name}: {there!r} there, {ours!r} now"


def _plain(value: Any) -> Any:
    """JSON for what has none of its own."""
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
