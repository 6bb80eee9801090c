"""From an address to its source: the one place that knows the kinds of them."""

from __future__ import annotations

from vidseg_core.media.errors import MediaError
from vidseg_core.media.remote import RemoteSource, is_remote
from vidseg_core.media.s3_source import S3Source
from vidseg_core.media.sequence_source import SequenceSource
from vidseg_core.media.sequences import is_sequence
from vidseg_core.media.source import LocalSource, Source


def open_source(uri: str, stamp: str = "") -> Source:
    """Opens a local path, an address in S3 or of another service, or a sequence of pictures.

    `stamp`: what it is expected to be; a sequence that was that when it was last listed is not listed again.
    Raises MediaError: empty_file, not_found, unreadable, and what the kind of source can raise.
    """
    source = _open(uri, stamp)
    if source.size == 0:
        source.close()
        raise MediaError("empty_file", f"{uri}: the file is empty (0 bytes)")
    return source


def _open(uri: str, stamp: str) -> Source:
    if is_sequence(uri):
        return SequenceSource(uri, stamp)
    if is_remote(uri):
        return RemoteSource(uri)
    return S3Source(uri) if uri.startswith("s3://") else LocalSource(uri)
