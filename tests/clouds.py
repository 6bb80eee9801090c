"""Google's storage and the hub over HTTP, as far as reading goes: both serve one folder, to any process."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

BUCKET, REPO = "films", "datasets/org/name"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:  # noqa: N802
        address = urlsplit(self.path)
        path, asked = unquote(address.path), parse_qs(address.query)
        if found := re.search(rf"/b/{BUCKET}/o/(.+)$", path):
            whole = asked.get("alt") == ["media"]
            self._file(found[1]) if whole else self._say(self._object(found[1]))
        elif re.search(rf"/b/{BUCKET}/o/?$", path):
            prefix = asked.get("prefix", [""])[0]
            names = [name for name in self._names() if name.startswith(prefix)]
            self._say({"kind": "storage#objects", "items": [self._object(name) for name in names]})
        elif found := re.match(rf"/{REPO}/resolve/[^/]+/(.+)", path):
            self._file(found[1])
        elif re.match(rf"/api/{REPO}/tree/", path):
            self._say([self._entry(name) for name in self._names()])
        else:
            self._say({"id": "org/name", "sha": "c" * 40, "private": False, "siblings": []})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:  # noqa: N802
        """The hub is asked about paths that way."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        paths = parse_qs(body).get("paths") or json.loads(body)["paths"]
        self._say([self._entry(name) for name in self._names() if name in paths])

    def _names(self) -> list[str]:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [path.relative_to(self.folder).as_posix() for path in files]

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "oid": "a" * 40, "size": (self.folder / name).stat().st_size, "path": name}

    def _object(self, name: str) -> dict[str, Any] | None:
        if not (self.folder / name).is_file():
            return None
        size, when = (self.folder / name).stat().st_size, "2024-01-01T00:00:00.000Z"
        facts = {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(size)}
        return facts | {"etag": "e", "generation": "1", "updated": when, "timeCreated": when}

    def _file(self, name: str) -> None:
        if not (self.folder / name).is_file():
            return self._answer(404, b"{}")
        data = (self.folder / name).read_bytes()
        if wanted := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            return self._answer(206, data[int(wanted[1]) : int(wanted[2] or len(data)) + 1])
        return self._answer(200, data)

    def _say(self, what: Any) -> None:
        self._answer(200 if what else 404, json.dumps(what or {}).encode())

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that `gs://films/` and `hf://datasets/org/name/` serve."""
    pytest.importorskip("gcsfs")
    import huggingface_hub.constants

    folder = tmp_path / "cloud"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    yield folder
    server.shutdown()
    server.server_close()
