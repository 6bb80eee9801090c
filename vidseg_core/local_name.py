"""Names of local files as text, in any locale, whatever bytes they are made of.

Model: a name on a disk is bytes. What Python makes of them depends on the locale; our text does not, and it
is what tables, logs and messages hold: the bytes read as UTF-8 or, where they are no UTF-8, a `file://`
address with these bytes in per cent. Either is a video's address, wherever one may stand.
"""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

__all__ = ["FILE_SCHEME", "bytes_of", "python_name", "text_of"]

FILE_SCHEME = "file://"


def text_of(path: str) -> str:
    """The text of an absolute path as Python has it."""
    name = os.fsencode(path)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return FILE_SCHEME + quote_from_bytes(name)


def bytes_of(text: str) -> bytes:
    """The bytes of a name, from its text (or from what Python has): what the system opens in any locale."""
    if text.startswith(FILE_SCHEME):
        return unquote_to_bytes(urlsplit(text).path)
    return text.encode("utf-8", "surrogateescape")


def python_name(text: str) -> str:
    """The name as Python's own functions take it in this locale, from its text."""
    return os.fsdecode(bytes_of(text))
