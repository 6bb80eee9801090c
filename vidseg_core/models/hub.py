"""Hub ids: from `organisation/name[@revision]` to a local folder with a config and safetensors weights.

Model: what is in the local cache is used first, so that a fleet of workers does not ask the hub anew and a
run that goes on tomorrow sees today's weights; otherwise one quick question to the hub (a few seconds at
most) decides whether to download. Invariant: only JSON files and safetensors ever arrive, no code and no
pickle; and where there is no hub, one sentence says so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vidseg_core.config.catalogue import MEMORY_NETS
from vidseg_core.models.protocol import SegmenterError

WANTED = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
)
"""All that is fetched."""
PROBE_S = 5.0
"""How long the hub may take to answer the first question, seconds."""
_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


def is_hub_id(text: str) -> bool:
    """Whether `text` reads as `organisation/name` or `organisation/name@revision`, and not as a path."""
    return _HUB_ID.fullmatch(text) is not None


def hub_text(spec: str) -> str | None:
    """The hub id in `hf:organisation/name[@revision]` (or that of a memory net), unless there is a folder of
    that name."""
    family, _, text = spec.partition(":")
    there = family in ("hf", *MEMORY_NETS) and is_hub_id(text) and not Path(text).expanduser().exists()
    return text if there else None


def is_here(text: str, *, cache: Path | None = None) -> bool:
    """Whether the cache has all of a hub id."""
    match = _HUB_ID.fullmatch(text)
    return match is not None and _cached(match["repo"], match["revision"], cache) is not None


def hub_folder(
    text: str, *, cache: Path | None = None, say: Callable[[str], None] = lambda text: None
) -> Path:
    """The folder of a hub id, from the cache (by default that of huggingface_hub) or the hub.

    `say` is given size and licence before anything is fetched.

    `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HOME` and `HF_TOKEN` mean what they mean to huggingface_hub. Raises
    `SegmenterError` when there is no such thing in reach, or its weights are not safetensors.
    """
    match = _HUB_ID.fullmatch(text)
    if match is None:
        raise SegmenterError(f"{text!r} is not a hub id: it should read organisation/name[@revision]")
    repo, revision = match["repo"], match["revision"]
    return _cached(repo, revision, cache) or _fetched(repo, revision, cache, say)


def has_safetensors(folder: Path) -> bool:
    """Whether the weights are there, all files of them."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SegmenterError(f"{index} is not a readable index of weights: {error}") from error
    return all((folder / str(name)).is_file() for name in files)


def _cached(repo: str, revision: str | None, cache: Path | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        found = Path(
            snapshot_download(
                repo, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=list(WANTED)
            )
        )
    except (OSError, ValueError):
        return None
    return found if (found / "config.json").is_file() and has_safetensors(found) else None


def _fetched(repo: str, revision: str | None, cache: Path | None, say: Callable[[str], None]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        hub = HfApi(endpoint=endpoint)
        info = hub.model_info(repo, revision=revision, timeout=PROBE_S, files_metadata=True)
        _check_listing(repo, {item.rfilename for item in info.siblings or ()})
        say(_offer(repo, info))
        found = snapshot_download(
            repo, revision=revision, cache_dir=cache, endpoint=endpoint, allow_patterns=list(WANTED)
        )
    except SegmenterError:
        raise
    except Exception as error:  # Its HTTP library, and so its exceptions, change between versions.
        raise SegmenterError(_explain(repo, revision, error)) from error
    return Path(found)


def _offer(repo: str, info: Any) -> str:
    """What is about to be fetched, as the hub describes it."""
    wanted = [item for item in info.siblings if any(fnmatch(item.rfilename, name) for name in WANTED)]
    size = sum(item.size or 0 for item in wanted)
    licence = (info.card_data or {}).get("license") or "not stated"
    return (
        f"fetching hub model {repo!r}, once: {size / 1e6:,.0f} MB; the licence on its card: {licence}; "
        "that of its training data may say more"
    )


def _check_listing(repo: str, names: set[str]) -> None:
    if "config.json" not in names:
        raise SegmenterError(f"hub model {repo!r} has no config.json, so it is not a net of transformers")
    if not names & {"model.safetensors", "model.safetensors.index.json"}:
        raise SegmenterError(
            f"hub model {repo!r} has no model.safetensors, and pickled weights are not loaded; if the hub "
            f"lists a conversion, name it: hf:{repo}@refs/pr/NUMBER"
        )


def _explain(repo: str, revision: str | None, error: Exception) -> str:
    """One sentence for whatever stopped a download."""
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"hub model {repo!r} is not in the local cache, and HF_HUB_OFFLINE forbids fetching it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"hub model {repo!r} has no revision {revision!r}"
    if isinstance(error, errors.GatedRepoError):
        return f"hub model {repo!r} is gated: accept its terms on the hub and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return f"the hub knows no model {repo!r} (or it is private and HF_TOKEN is not set)"
    if status is not None:
        return f"the hub answered {status} when asked for model {repo!r}; try again later"
    return (
        f"hub model {repo!r} is not in the local cache and the hub cannot be reached from here "
        f"({type(error).__name__}): give a local folder, or fetch it where there is internet"
    )
