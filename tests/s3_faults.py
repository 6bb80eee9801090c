"""A proxy in front of the test's S3 that misbehaves as told: what an operator meets in a year, in seconds."""

from __future__ import annotations

import base64
import http.client
import random
import re
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("500", "503", "reset", "truncated", "lost", "409", "expired", "silent", "stalled")
"""500 and 503 SlowDown answers, a connection reset, a body that breaks off, a request that was carried out
and whose answer is lost, a conditional put that is told that another one is under way, credentials that have
expired, no answer for `SILENCE_S`, a body that stops in the middle for as long."""
SILENCE_S = 3.0
"""Longer than the tests' clients wait."""
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>by order of the test</Message></Error>"
_CODES = {
    "500": "InternalError",
    "503": "SlowDown",
    "409": "ConditionalRequestConflict",
    "expired": "ExpiredToken",
}
_STATUS = {"expired": 400}


@dataclass
class FaultyS3:
    """What the proxy is to do next, and what it has done."""

    endpoint: str = ""
    script: list[tuple[str, str]] = field(default_factory=list)
    """(pattern of "METHOD path", fault), each used once, in order of requests that match."""
    chance: Callable[[str], str | None] = lambda request: None
    """Otherwise: the fault of a request, or None."""
    done: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    whole_checksums: bool = False
    """Whoever asks for a checksum (`x-amz-checksum-mode`) gets that of the whole object, for a range too, as
    some services do."""
    not_modified: bool = False
    """A conditional put of a key that exists is answered 304, as some services do."""
    asked_for_checksums: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    """Ends every silence."""

    def fault_of(self, request: str) -> str | None:
        with self.lock:
            for number, (pattern, fault) in enumerate(self.script):
                if re.search(pattern, request):
                    del self.script[number]
                    self.done[fault] += 1
                    return fault
            fault = self.chance(request)
            if fault is not None:
                self.done[fault] += 1
            return fault

    def at_random(self, share: float, seed: int) -> None:
        """Every request fails with this probability, as suits its method; no key more than twice running."""
        dice, last = random.Random(seed), {}

        def chance(request: str) -> str | None:
            method, path = request.split(" ", 1)
            if dice.random() >= share or last.get(path, 0) >= 2:
                last[path] = 0
                return None
            last[path] = last.get(path, 0) + 1
            kinds = ["500", "503", "reset"]
            kinds += ["truncated"] if method == "GET" else ["lost"] if method == "PUT" else []
            return dice.choice(kinds)

        self.chance = chance


@contextmanager
def faulty(upstream: str) -> Iterator[FaultyS3]:
    """A proxy before `upstream`, up inside the block."""
    state, target = FaultyS3(), urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self._body()
            fault = state.fault_of(f"{self.command} {self.path}")
            if fault in _CODES:
                self._answer(_STATUS.get(fault) or int(fault), {}, _ERROR.format(code=_CODES[fault]).encode())
                return
            if fault == "reset":
                self._reset()
                return
            if fault == "silent":
                self._stay_silent()
                return
            status, headers, data = self._ask(body)
            if state.not_modified and status == 412:
                status, data = 304, b""
            if self.headers.get("x-amz-checksum-mode"):
                state.asked_for_checksums += 1
                if state.whole_checksums and status in (200, 206):
                    headers["x-amz-checksum-crc32"] = self._checksum()
            if fault == "lost":
                self._reset()
            elif fault == "truncated" and len(data) > 1:
                self._answer(status, headers, data, send=len(data) // 2)
                self._reset()
            elif fault == "stalled" and len(data) > 1:
                self._answer(status, headers, data, send=len(data) // 2)
                self._stay_silent()
            else:
                self._answer(status, headers, data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Expect", "").lower() == "100-continue":
                pass  # http.server has answered already
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _checksum(self) -> str:
            """Of the whole object that the request names."""
            _, _, whole = self._ask(b"", "GET", ("expect", "connection", "range"))
            return base64.b64encode(struct.pack(">I", zlib.crc32(whole))).decode()

        def _ask(
            self, body: bytes, method: str = "", without: Sequence[str] = ("expect", "connection")
        ) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(target.hostname or "", target.port or 80, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in without}
            connection.request(method or self.command, self.path, body=body, headers=headers)
            reply = connection.getresponse()
            data = reply.read()
            connection.close()
            return reply.status, dict(reply.getheaders()), data

        def _answer(self, status: int, headers: dict[str, str], data: bytes, send: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:send])
                self.wfile.flush()

        def _stay_silent(self) -> None:
            state.over.wait(SILENCE_S)
            self._reset()

        def _reset(self) -> None:
            """The peer sees a reset, not an end."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # sockets that were reset on purpose

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
