"""Promise: a hub id is fetched where there is a hub, tensors and settings only, and refused soon where not.

Loading by id is how a user brings a net in one word; it must never bring code or pickles along, never hang a
job on a machine without internet, and work again offline once it has been fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from vidseg_core.config import nets
from vidseg_core.kit.progress import Reporter
from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.fetched import bring, origin
from vidseg_core.models.hub import hub_folder, is_hub_id
from vidseg_core.models.memory_net import memory_folder
from vidseg_core.models.torchvision_compat import import_torchvision

SHA = "1" * 40
REPO = "people/net"


class Hub(BaseHTTPRequestHandler):
    """What the hub's HTTP interface answers for one model: its listing, its tree, its files."""

    files: dict[str, bytes] = {}
    asked: list[str] = []
    card: dict[str, str] = {"license": "mit"}
    gated = False

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        api, resolve = f"/api/models/{REPO}", f"/{REPO}/resolve/"
        if path == api or path.startswith(f"{api}/revision/main") or path.startswith(f"{api}/revision/{SHA}"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
            self._json({"id": REPO, "sha": SHA, "siblings": siblings, "cardData": self.card})
        elif path.startswith(f"{api}/revision/"):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        elif self.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        elif path.startswith(f"{api}/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self._json(entries)
        elif path.startswith(resolve) and path.removeprefix(resolve).partition("/")[2] in self.files:
            data = self.files[path.removeprefix(resolve).partition("/")[2]]
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            self._send(200, data, {"ETag": tag, "X-Repo-Commit": SHA}, body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, True)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine; `files` is what it holds."""

    class Fresh(Hub):
        files: dict[str, bytes] = {}
        asked: list[str] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Fresh
    server.shutdown()
    server.server_close()


def model_files(folder: Path) -> dict[str, bytes]:
    """A tiny SegFormer as its publisher would save it."""
    import_torchvision()
    import transformers

    hf: Any = transformers
    torch.manual_seed(3)
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], decoder_hidden_size=16, num_labels=3
    )
    hf.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("nvidia/segformer-b0-finetuned-ade-512-512", True),
        ("people/net@refs/pr/3", True),
        ("people/net@v1.0", True),
        ("./people/net", False),
        ("/people/net", False),
        ("../net", False),
        ("~/net", False),
        ("a/b/c", False),
        ("net", False),
        ("people/", False),
    ],
)
def test_ids_are_told_from_paths(text: str, verdict: bool) -> None:
    assert is_hub_id(text) is verdict


def test_only_settings_and_safetensors_are_fetched_and_once(hub: type[Hub], tmp_path: Path) -> None:
    hub.files.update(model_files(tmp_path / "made"))
    wanted = set(hub.files)
    hub.files["pytorch_model.bin"] = b"pickled"
    hub.files["modeling_net.py"] = b"raise SystemExit"
    folder = hub_folder(REPO, cache=tmp_path / "cache")
    assert {path.name for path in folder.iterdir()} == wanted == {"config.json", "model.safetensors"}
    segmenter = build_segmenter(f"hf:{folder}")
    assert segmenter.trained and segmenter.digest == build_segmenter(f"hf:{tmp_path / 'made'}").digest
    hub.asked.clear()
    assert hub_folder(REPO, cache=tmp_path / "cache") == folder
    assert hub.asked == [], "what is in the cache is not asked for again"


def test_size_and_licence_are_said_before_anything_is_fetched(hub: type[Hub], tmp_path: Path) -> None:
    hub.files.update({"config.json": b"{}", "model.safetensors": b"w" * 3_000_000, "README.md": b"x" * 10**7})
    said: list[str] = []

    def say(text: str) -> None:
        assert not any("resolve" in path for path in hub.asked)
        said.append(text)

    hub_folder(REPO, cache=tmp_path, say=say)
    assert len(said) == 1 and "3 MB" in said[0] and "licence on its card: mit" in said[0]
    hub_folder(REPO, cache=tmp_path, say=say)
    hub.card = {}
    hub_folder(f"{REPO}@main", cache=tmp_path / "other", say=lambda text: said.append(text))
    assert len(said) == 2 and "not stated" in said[1]


def test_a_short_name_may_stand_for_a_net_of_the_hub(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.files.update(model_files(tmp_path / "made"))
    small = replace(nets.FETCHED["ade20k"], spec=f"hf:{REPO}@{SHA}")
    monkeypatch.setitem(nets.FETCHED, "ade20k", small)  # type: ignore[arg-type]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    said = io.StringIO()
    bring("ade20k", None, Reporter("text", said))
    assert said.getvalue().count("\n") == 1 and "241 MB" in said.getvalue() and "MIT" in said.getvalue()
    assert build_segmenter("ade20k").trained
    found = origin("ade20k")
    digest = hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    assert (found["revision"], found["sha256"], found["licence"]) == (SHA, digest, small.licence)


def test_a_memory_net_is_fetched_as_segmenters_are(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.files.update({"config.json": b"{}", "model.safetensors": b"weights", "model.pt": b"pickled"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    said = io.StringIO()
    for name in ("flow_warp", "my_propagator:Fading", f"edgetam:{tmp_path}", f"sam2:{REPO}@{SHA}"):
        bring(name, None, Reporter("text", said))
    assert said.getvalue().count("fetching hub model") == 1 and "licence on its card: mit" in said.getvalue()
    hub.asked.clear()
    folder = memory_folder("sam2", f"{REPO}@{SHA}")
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert folder.name == SHA and not hub.asked


def test_a_licence_that_must_be_accepted_first_is_one_sentence(hub: type[Hub], tmp_path: Path) -> None:
    hub.files.update({"config.json": b"{}", "model.safetensors": b"weights"})
    hub.gated = True
    with pytest.raises(SegmenterError, match="is gated: accept its terms on the hub and set HF_TOKEN"):
        hub_folder(REPO, cache=tmp_path)


def test_a_broken_download_is_completed(hub: type[Hub], tmp_path: Path) -> None:
    hub.files.update({"config.json": b"{}", "model.safetensors": b"weights"})
    folder = hub_folder(REPO, cache=tmp_path)
    (folder / "model.safetensors").unlink()
    assert (hub_folder(REPO, cache=tmp_path) / "model.safetensors").read_bytes() == b"weights"


def test_weights_in_several_files_count_when_all_are_there(hub: type[Hub], tmp_path: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    hub.files.update(dict.fromkeys(names, b"w"))
    hub.files.update({"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()})
    folder = hub_folder(f"{REPO}@main", cache=tmp_path)
    assert {path.name for path in folder.iterdir()} == set(hub.files)


@pytest.mark.parametrize(
    ("files", "asked", "message"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, REPO, "pickled weights are not loaded"),
        ({"model.safetensors": b""}, REPO, "has no config.json"),
        ({}, "people/nobody", "the hub knows no model 'people/nobody'"),
        ({"config.json": b"{}"}, f"{REPO}@v9", "has no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have_is_said(
    files: dict[str, bytes], asked: str, message: str, hub: type[Hub], tmp_path: Path
) -> None:
    hub.files.update(files)
    with pytest.raises(SegmenterError, match=message) as caught:
        hub_folder(asked, cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert not any("resolve" in path for path in hub.asked), "nothing was fetched"


def test_without_a_hub_it_is_one_sentence_and_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(SegmenterError, match="hub cannot be reached from here") as caught:
        hub_folder(REPO, cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 120, "no retries for minutes"


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    from vidseg_core.models import hub

    monkeypatch.setattr(hub, "PROBE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(SegmenterError, match="hub cannot be reached from here"):
            hub_folder(REPO, cache=tmp_path)


def test_offline_mode_is_respected(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SegmenterError, match="HF_HUB_OFFLINE forbids"):
        hub_folder(REPO, cache=tmp_path)
    assert hub.asked == []
