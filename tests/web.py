"""A web server that serves a folder, and misbehaves below paths that say how."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


class Web:
    """The server of a test: `url` serves `folder` with ranges and ETags.

    `/403/NAME`, `/404/NAME`, `/503/NAME` answer that; `/twice503/NAME` does so twice; `/moved/NAME` and
    `/loop/NAME` redirect; `/silent/NAME` does not answer until the test is over, `/stalls/NAME` stops within
    the file; `/norange/NAME` ignores ranges, `/nolength/NAME` does not say how large the file is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.over = folder, Counter[str](), threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:  # noqa: N802
        how, _, name = unquote(urlsplit(self.path).path).lstrip("/").rpartition("/")
        self.web.asked[how] += 1
        data = (self.web.folder / name).read_bytes() if (self.web.folder / name).is_file() else None
        if how in ("moved", "loop"):
            self._answer(302, b"", Location=f"/{name}?secret-token=abc" if how == "moved" else self.path)
        elif how in ("403", "503") or (how == "twice503" and self.web.asked[how] <= 2):
            self._answer(int(how[-3:]), b"by order of the test")
        elif how == "silent":
            self.web.over.wait(30)
        elif data is None or how == "404":
            self._answer(404, b"")
        else:
            self._serve(how, data)

    do_HEAD = do_GET  # noqa: N815

    def _serve(self, how: str, data: bytes) -> None:
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        etag = f'"{len(data)}-{hash(data)}"'
        if self.headers.get("If-Match", etag) != etag:
            self._answer(412, b"")
        elif how == "nolength":
            self._answer(200, data, length=None)
        elif wanted is None or how == "norange":
            self._answer(200, data, ETag=etag)
        else:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            where = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "ETag": etag}
            self._answer(206, data[start:stop], 0, how == "stalls", **where)

    def _answer(
        self, status: int, data: bytes, length: int | None = 0, stalls: bool = False, **head: str
    ) -> None:
        self.send_response_only(status)
        for name, value in head.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if stalls else data)
            self.wfile.flush()
            if stalls:
                self.web.over.wait(30)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A server of `tmp_path / "www"`."""
    (tmp_path / "www").mkdir()
    state = Web(tmp_path / "www")
    threading.Thread(target=state.server.serve_forever, args=(0.02,), daemon=True).start()
    yield state
    state.over.set()
    state.server.shutdown()
    state.server.server_close()
