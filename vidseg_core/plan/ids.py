"""Names of videos that are safe as names of folders.

Model: an id is a readable slug plus ten hex digits of the SHA-256 of what it names.
Invariant: an id matches `[A-Za-z0-9][A-Za-z0-9._-]*`, so it can be no path, no option, and neither "." nor
"..".
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from vidseg_core.config.excerpt import WHOLE, Excerpt
from vidseg_core.media.sequences import without_rate

SLUG_LENGTH = 60
HASH_DIGITS = 10
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_safe_id(text: str) -> bool:
    """Whether `text` may be used as an id as it is."""
    return _SAFE.fullmatch(text) is not None and not text.endswith(".")


def make_video_id(uri: str, excerpt: Excerpt = WHOLE) -> str:
    """Id of a video: the stem of its name, made plain, and a hash of its `identity`."""
    name = re.split(r"[/\\]", without_rate(uri)[0].rstrip("/\\"))[-1]
    stem, dot, _ = name.rpartition(".")
    return _slug_and_hash(stem if dot and stem else name, identity(uri, excerpt))


def identity(uri: str, excerpt: Excerpt) -> str:
    """What makes two videos one: the whole uri, and which of its frames are taken unless that is all."""
    return uri if excerpt.is_whole else f"{uri}\0{excerpt}"


def safe_video_id(given: str) -> str:
    """An id given by the user: kept if it is safe, else slugged like a uri."""
    return given if is_safe_id(given) else _slug_and_hash(given, given)


def _slug_and_hash(readable: str, whole: str) -> str:
    plain = unicodedata.normalize("NFKD", readable).encode("ascii", "ignore").decode("ascii")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    slug = re.sub(r"\.{2,}", ".", slug)[:SLUG_LENGTH].strip("._-") or "video"
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{slug}-{digest[:HASH_DIGITS]}"
