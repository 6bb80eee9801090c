"""Weights that a short name or a hub id brings along: fetched when a net of that name is asked for, and once.

Model: what is in the usual cache (torch's, `TORCH_HOME`, or that of huggingface_hub, `HF_HOME`) is used;
otherwise size, licence and address are said, then the file is fetched. Invariant: a file enters the cache
whole, and with the digest that is known of it, or not at all; and where it cannot be had, one sentence says
so.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Protocol

from vidseg_core.config.nets import FETCHED, FetchedNet
from vidseg_core.models.digest import digest_file
from vidseg_core.models.hub import hub_folder, hub_text, is_here
from vidseg_core.models.protocol import SegmenterError

STALL_S = 30.0
"""A server that sends nothing for so long is given up, seconds."""
_PIECE = 1 << 18


class Voice(Protocol):
    """What says to a person what happens: the job's reporter."""

    def say(self, text: str) -> None:
        """A message of its own."""
        ...

    def show(self, text: str, fields: dict[str, Any]) -> None:
        """Where things stand, if it is time to say so."""
        ...


def bring(spec: str, weights: str | None, voice: Voice) -> None:
    """Fetch what `spec` stands for, unless `weights` take its place or it is here; says what and how far.

    Raises SegmenterError if it cannot be had, or what is here is another file.
    """
    net, hub_id = FETCHED.get(spec), _hub_id(spec)
    if weights is not None:
        return
    if hub_id is not None and not is_here(hub_id):
        if net is not None:
            voice.say(_offer(spec, net))
        hub_folder(hub_id, say=voice.say if net is None else lambda text: None)
    elif net is not None and net.url and not cached(net).is_file():
        voice.say(_offer(spec, net))
        _fetch(spec, net, lambda done: voice.show(*_progress(net, done)))
    elif net is not None and net.url:
        _digest(net)


def _offer(name: str, net: FetchedNet) -> str:
    """What is about to be fetched, as one should know before."""
    place = f"{_host(net)}; kept as {cached(net)}" if net.url else "the hub; kept where hub models are"
    return (
        f"fetching the weights of {name!r}, once: {net.megabytes} MB from {place}; their licence: "
        f"{net.licence}; trained on {net.trained_on}"
    )


def fetched_file(name: str) -> str | None:
    """The weights file of a `FETCHED` net, fetched if it is not here; None where its spec is a hub id."""
    net = FETCHED[name]
    if not net.url:
        return None
    if not cached(net).is_file():
        _fetch(name, net, lambda done: None)
    return str(cached(net))


def cached(net: FetchedNet) -> Path:
    """Where the file is, or would be: where torch and torchvision keep theirs."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / net.url.rpartition("/")[2]


def origin(spec: str) -> dict[str, str]:
    """Where the weights of a net came from that was fetched: address, SHA-256, licence as far as known."""
    net, hub_id = FETCHED.get(spec), _hub_id(spec)
    found: dict[str, str] = {} if net is None else {"licence": net.licence, "trained_on": net.trained_on}
    if hub_id is not None:
        folder = hub_folder(hub_id)
        file = folder / "model.safetensors"
        found |= {"from": f"hub model {hub_id.partition('@')[0]}", "revision": folder.name}
        return found | ({"sha256": digest_file(file)} if file.is_file() else {})
    if net is None:
        return {}
    return found | {"from": net.url, "sha256": _digest(net)}


def _digest(net: FetchedNet) -> str:
    """SHA-256 of the file in the cache in hex. Raises SegmenterError if it is another file."""
    place = cached(net)
    info = place.stat()
    digest = _digest_of(place, info.st_size, info.st_mtime_ns)
    if not digest.startswith(net.sha256):
        raise SegmenterError(
            f"{place} is not what was published as {net.url} (SHA-256 {digest[:12]}): delete it"
        )
    return digest


@lru_cache(maxsize=8)
def _digest_of(place: Path, size: int, changed: int) -> str:
    return digest_file(place)


def _hub_id(spec: str) -> str | None:
    """`organisation/name[@revision]`, where `spec` is a net of the hub."""
    net = FETCHED.get(spec)
    return hub_text(net.spec if net is not None else spec)


def _host(net: FetchedNet) -> str:
    return net.url.split("/")[2]


def _progress(net: FetchedNet, done: int) -> tuple[str, dict[str, Any]]:
    megabytes = done / 1e6
    return (
        f"fetching: {megabytes:.0f} of {net.megabytes} MB",
        {"fetched_mb": round(megabytes, 1), "of_mb": net.megabytes},
    )


def _fetch(name: str, net: FetchedNet, show: Callable[[int], None]) -> None:
    """Into the cache, by way of a file beside it."""
    place, where = cached(net), f"the weights of {name!r} ({net.url})"
    partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "xb") as file:  # not a temporary one: others may read what is in a cache
            try:
                with urllib.request.urlopen(net.url, timeout=STALL_S) as answer:
                    digest = _copy(answer, file, show)
                _check_digest(digest, net, where)
                os.replace(partial, place)
            finally:
                partial.unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise SegmenterError(f"{where} cannot be fetched: the server answered {error.code}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, EOFError, HTTPException) as error:
        raise SegmenterError(
            f"{where} are not in the cache and cannot be fetched from here ({_reason(error)}): "
            f"put the file at {place}, or name another --segmenter"
        ) from error
    except OSError as error:
        why = error.strerror or error
        raise SegmenterError(f"{where} cannot be kept in {place.parent}: {why}") from error


def _copy(answer: Any, file: IO[bytes], show: Callable[[int], None]) -> str:
    """Every byte of an answer; its SHA-256 in hex."""
    promised, done, total = answer.headers.get("Content-Length"), 0, hashlib.sha256()
    while piece := answer.read(_PIECE):
        file.write(piece)
        total.update(piece)
        done += len(piece)
        show(done)
    if promised is not None and promised.isdigit() and done != int(promised):
        raise EOFError(f"the connection ended after {done:,} of {int(promised):,} bytes")
    return total.hexdigest()


def _check_digest(digest: str, net: FetchedNet, where: str) -> None:
    if not digest.startswith(net.sha256):
        raise SegmenterError(
            f"{where} are not what was published: SHA-256 {digest[:12]}, not {net.sha256[:12]}; "
            "nothing of it is kept"
        )


def _reason(error: Exception) -> str:
    """Without addresses of proxies and other noise."""
    cause = getattr(error, "reason", None) or error
    text = str(cause) or type(cause).__name__
    return re.sub(r"^\[[^\]]*\]\s*|<[^>]*>\s*", "", " ".join(text.split()))[:120]
