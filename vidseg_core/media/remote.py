"""The web, Google and Azure storage and the hub: addresses that are read through fsspec, which is an extra.

Model: whatever the service, it is asked what is at an address, what is below it, and for the bytes of a file,
whole or in ranges; nothing is ever written. Credentials are those of each service's own environment.
Invariant: no exception of a service leaves this module; a fault is a MediaError in our words, since an error
of theirs may hold the address that a redirect led to, with its tokens. Object storage that does not answer is
no verdict on a video; a host of the web that does not is one, since it may be gone for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from vidseg_core.media.errors import MediaError
from vidseg_core.media.range_source import BLOCK, RangeSource
from vidseg_core.media.source import neutral_name, stamp_of

WEB = ("https", "http")
SCHEMES = (*WEB, "gs", "az", "hf")
EXTRA = "pip install 'vidseg[remote]'"
TIMEOUT_S = 20.0
"""A host of the web may be silent for so long."""
_ATTEMPTS = 3
_CHANGED = ("etag", "ETag", "generation", "md5Hash", "blob_id", "last_modified", "Last-Modified", "mtime")
"""What services call the thing that another content changes."""
_BROKEN = ("ClientError", "TransportError", "ServiceRequestError", "ServiceResponseError")
"""What aiohttp, httpx (the hub) and Azure raise where a connection fails."""
_HINTS = {
    "gs": "are credentials set (GOOGLE_APPLICATION_CREDENTIALS)?",
    "az": "are AZURE_STORAGE_ACCOUNT_NAME and a key or token set?",
    "hf": "is HF_TOKEN set, if it must be?",
} | dict.fromkeys(WEB, "does the server serve ranges?")
_PLAIN = {"Accept-Encoding": "identity"}
_T = TypeVar("_T")


class Entry(NamedTuple):
    """A file of a service."""

    uri: str
    size: int
    changed: str


def is_remote(uri: str) -> bool:
    """Whether the address is one of those that are read here."""
    return scheme_of(uri) in SCHEMES


def scheme_of(uri: str) -> str:
    """`gs` of `gs://bucket/key`; "" if there is none."""
    scheme, separator, _ = uri.partition("://")
    return scheme if separator else ""


def entry(uri: str) -> Entry:
    """The file at an address. Raises MediaError."""
    return _entry(uri, _ask(uri, lambda fs, path: fs.info(path)))


def entries_below(uri: str) -> Iterator[Entry]:
    """All files below an address, by name. Raises MediaError."""
    return _entries(uri, lambda fs, path: fs.find(path, detail=True).values())


def entries_in(folder: str) -> Iterator[Entry]:
    """The files of a folder, by name. Raises MediaError."""
    return _entries(folder, lambda fs, path: fs.ls(path, detail=True))


def read(uri: str) -> bytes:
    """The bytes of a file. Raises MediaError."""
    return _ask(uri, lambda fs, path: fs.cat_file(path))


class RemoteSource(RangeSource):
    """A file of a service, in ranges."""

    def __init__(self, uri: str) -> None:
        info = _ask(uri, lambda fs, path: fs.info(path))
        found = _entry(uri, info)
        super().__init__(uri, found.size)
        self.name, self._changed = neutral_name(urlsplit(uri).path), found.changed
        self._file = _ask(uri, lambda fs, path: fs.open(path, **_reading(uri, info)))

    @property
    def stamp(self) -> str:
        """What `Source.stamp` asks for, as it was when the file was opened."""
        return stamp_of(self.size, self._changed)

    def _range(self, start: int, stop: int) -> bytes:
        def ask(*_: Any) -> bytes:
            self._file.seek(start)
            return self._file.read(stop - start)

        return _ask(self.uri, ask)


def _reading(uri: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """How to open: without a cache (`RangeSource` is one), on the web the very file that was looked at."""
    options: dict[str, Any] = {"mode": "rb", "block_size": BLOCK, "cache_type": "none"}
    if scheme_of(uri) in WEB:
        etag = str(info.get("ETag", ""))
        options |= {"size": info["size"], "headers": _PLAIN | ({"If-Match": etag} if etag[:1] == '"' else {})}
    return options


def _entries(uri: str, ask: Callable[[Any, str], Any]) -> Iterator[Entry]:
    if scheme_of(uri) in WEB:
        raise MediaError("unreadable", f"{uri}: the web lists no folders; name the files in a list")
    infos = [info for info in _ask(uri, ask) if info.get("type") == "file"]
    for info in sorted(infos, key=lambda info: info["name"]):
        yield _entry(f"{scheme_of(uri)}://{info['name'].lstrip('/')}", info)


def _entry(uri: str, info: Mapping[str, Any]) -> Entry:
    if info.get("type") == "directory":
        raise MediaError("not_found", f"{uri}: a folder, not a file")
    if info.get("size") is None:
        raise MediaError("unreadable", f"{uri}: the server does not say how large it is; download it first")
    if uri.startswith("https:") and str(info.get("url", "")).startswith("http:"):
        raise MediaError("unreadable", f"{uri}: leads to an address without https, which is not followed")
    changed = next((str(info[name]) for name in _CHANGED if info.get(name)), "")
    return Entry(uri, int(info["size"]), changed.strip('"'))


def _ask(uri: str, work: Callable[[Any, str], _T]) -> _T:
    """`work(file system, path)`, again after what may pass. Raises MediaError."""
    try:
        fs, path = _file_system(uri)
        waits = wait_random_exponential(multiplier=0.2, max=3.0)
        again = Retrying(
            stop=stop_after_attempt(_ATTEMPTS), wait=waits, retry=retry_if_exception(_may_pass), reraise=True
        )
        return again(work, fs, path)
    except ImportError:
        text = f"{uri}: reading {scheme_of(uri)}:// needs the extra 'remote' ({EXTRA})"
        raise MediaError("unreadable", text) from None
    except Exception as error:  # each service has its own
        raise _verdict(uri, error) from None


def _file_system(uri: str) -> tuple[Any, str]:
    """A file system that remembers no folder: what is in it may be another thing by now."""
    import fsspec

    scheme = scheme_of(uri)
    options: dict[str, Any] = {"use_listings_cache": False}
    os.environ.setdefault(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # asks more, and warns where it may not
    if scheme in WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S / 2, sock_read=TIMEOUT_S)
        options |= {"client_kwargs": {"timeout": timeout}, "headers": _PLAIN}
    fs = fsspec.filesystem(scheme, **options)
    fs.dircache.clear()  # the hub's knows no such option
    return fs, fs._strip_protocol(uri)


def _verdict(uri: str, error: Exception) -> MediaError:
    status = _status(error)
    if _is(error, "TooManyRedirects"):
        return MediaError("unreadable", f"{uri}: leads from one address to the next without end")
    if status in (404, 410) or (status is None and _has(error, FileNotFoundError) and not _may_pass(error)):
        return MediaError("not_found", f"{uri}: there is no such file")
    if status == 412:
        return MediaError("changed", f"{uri}: the file changed while it was read")
    if status in (401, 403) or _has(error, PermissionError):
        return MediaError("unreadable", f"{uri}: it may not be read ({status or 'no permission'})")
    if not _may_pass(error):
        text = f"answer {status}" if status else f"{type(error).__name__}; {_HINTS[scheme_of(uri)]}"
        return MediaError("unreadable", f"{uri}: cannot be read ({text})")
    reason = "unreadable" if scheme_of(uri) in WEB else "source_unavailable"
    if status is None and _has(error, TimeoutError):
        return MediaError(reason, f"{uri}: no answer for {TIMEOUT_S:g} s")
    return MediaError(reason, f"{uri}: cannot be reached ({status or type(_chain(error)[-1]).__name__})")


def _may_pass(error: BaseException) -> bool:
    """Silence, a broken connection, a service in trouble."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    broken = _has(error, TimeoutError, ConnectionError)
    return broken or (any(_is(error, name) for name in _BROKEN) and not _is(error, "TooManyRedirects"))


def _status(error: BaseException) -> int | None:
    """The answer of HTTP behind an error."""
    for link in _chain(error):
        for holder in (link, getattr(link, "response", None)):
            for name in ("status", "status_code", "code"):
                found = vars(holder).get(name) if hasattr(holder, "__dict__") else None
                if isinstance(found, int) and 300 <= found < 600:
                    return found
    return None


def _is(error: BaseException, name: str) -> bool:
    """Whether an error is of a class of this name: its package need not be there."""
    return any(kind.__name__ == name for link in _chain(error) for kind in type(link).__mro__)


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(link, kinds) for link in _chain(error))


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
