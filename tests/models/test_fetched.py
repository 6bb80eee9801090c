"""Promise: a short name brings its weights once, whole and checked, after size and licence were said; and
where they cannot be had, one sentence says so and nothing stays behind.

Tests fetch nothing from elsewhere: a server on this machine has small files of the same form, a torch file of
torchvision and fastseg's checkpoint. A model of the hub: `test_hub`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import small_config
from vidseg_core.config import nets
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.models import SegmenterError, build_segmenter, fetched
from vidseg_core.models.fastseg import FastsegNet
from vidseg_core.models.fetched import bring, cached, origin
from vidseg_core.models.request import seeded
from vidseg_core.models.torchvision_compat import import_torchvision
from vidseg_core.models.trainable import trainable_net
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.training.propagation_job import PropagationTraining

FASTSEG_KEYS = "f34c7875aaa6256c"
"""Digest of names and shapes of the tensors of fastseg 0.1.2's MobileV3Large(19)."""


class Files(BaseHTTPRequestHandler):
    """Serves `files`; `cut`: sends so many bytes less than it says; `chunked`: ends within a chunk."""

    files: dict[str, bytes] = {}
    asked: list[str] = []
    cut = 0
    chunked = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        data = self.files.get(self.path)
        self.send_response(404 if data is None else 200)
        if self.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            data = b"ffff\r\n" + (data or b"")
        else:
            self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write((data or b"")[: len(data or b"") - self.cut])

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Files]]:
    """A server, and caches that are empty."""

    class Fresh(Files):
        files: dict[str, bytes] = {}
        asked: list[str] = []

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    Fresh.place = f"http://127.0.0.1:{listening.server_port}"  # type: ignore[attr-defined]
    yield Fresh
    listening.shutdown()
    listening.server_close()


def offer(server: Any, monkeypatch: pytest.MonkeyPatch, name: str, content: object) -> nets.FetchedNet:
    """`name` is on the server, holds `content`, and is published with its digest."""
    file = io.BytesIO()
    torch.save(content, file)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    server.files[f"/{name}-{digest[:8]}.pth"] = file.getvalue()
    small = replace(nets.FETCHED[name], url=f"{server.place}/{name}-{digest[:8]}.pth", sha256=digest)
    monkeypatch.setitem(nets.FETCHED, name, small)  # type: ignore[arg-type]
    return small


def voc() -> dict[str, torch.Tensor]:
    models: Any = import_torchvision().models
    options = {"weights": None, "weights_backbone": None}
    return seeded(
        1, lambda: models.get_model("lraspp_mobilenet_v3_large", num_classes=21, **options)
    ).state_dict()


def voice() -> tuple[Reporter, io.StringIO]:
    said = io.StringIO()
    return Reporter("text", said), said


def test_it_is_fetched_once_after_size_and_licence_were_said(
    server: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = offer(server, monkeypatch, "voc-small", voc())
    report, said = voice()
    bring("voc-small", None, report)
    assert "13 MB" in said.getvalue() and "BSD-3-Clause" in said.getvalue() and "COCO" in said.getvalue()
    assert cached(net).is_file() and [path.name for path in cached(net).parent.iterdir()] == [
        cached(net).name
    ]
    (usual := cached(net).with_name("usual")).touch()
    assert cached(net).stat().st_mode == usual.stat().st_mode, "others may share the cache"
    segmenter = build_segmenter("voc-small")
    assert segmenter.trained and not segmenter.note
    assert segmenter.class_names[0] == "background" and segmenter.class_names[15] == "person"
    report, said = voice()
    bring("voc-small", None, report)
    assert len(server.asked) == 1 and said.getvalue() == ""
    found = origin("voc-small")
    assert found["from"] == net.url and found["sha256"] == net.sha256 and "BSD" in found["licence"]
    with pytest.raises(SegmenterError, match="is for 21 classes, but 3 were asked for"):
        build_segmenter("voc-small", num_classes=3)
    with pytest.raises(SegmenterError, match="to train such a net, name torchvision:lraspp"):
        trainable_net("voc-small", num_classes=3)
    torch.save(voc() | {"more": torch.zeros(1)}, cached(net))
    for use in (lambda: origin("voc-small"), lambda: bring("voc-small", None, report)):
        with pytest.raises(SegmenterError, match="is not what was published as .*: delete it"):
            use()


def test_a_run_says_and_records_what_it_fetched(
    server: type[Files], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = offer(server, monkeypatch, "voc-small", voc())
    write_video(tmp_path / "in" / "a.mp4", moving_disc(4, 32, 32))
    config = small_config(
        tmp_path / "in", tmp_path / "out", segmenter="voc-small", executor="local", workers=1
    )
    report, said = voice()
    assert run_segment(config, report) == 0
    assert said.getvalue().index("fetching the weights of 'voc-small'") < said.getvalue().index("new run")
    found = json.loads((tmp_path / "out" / "run.json").read_text())["segmenter"]
    assert found["trained"] and found["warning"] == "" and found["class_names"][15] == "person"
    assert found["origin"]["from"] == net.url and found["origin"]["sha256"] == net.sha256


def test_training_what_carries_its_features_says_it_too(
    server: type[Files], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, "voc-small", voc())
    config = TrainPropagationConfig(
        data=("scenes:videos=2,frames=8",), output=str(tmp_path / "lvs"), segmenter="voc-small"
    )
    report, said = voice()
    with pytest.raises(SegmenterError, match="one map of features"):
        PropagationTraining(config, report).prepare()
    assert "13 MB" in said.getvalue() and "BSD-3-Clause" in said.getvalue()


def test_weights_of_ones_own_take_the_place_of_those(
    server: type[Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(voc(), tmp_path / "mine.pth")
    report, said = voice()
    bring("voc-small", str(tmp_path / "mine.pth"), report)
    assert build_segmenter("voc-small", weights=str(tmp_path / "mine.pth")).trained
    assert server.asked == [] and said.getvalue() == ""


def test_fastsegs_checkpoint_is_read_as_it_is_published(
    server: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its training state around it: names after ``module.``, a score that is a number of numpy."""
    net = seeded(2, lambda: FastsegNet(128, 19))
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    shapes = sorted((key.removeprefix("module."), tuple(value.shape)) for key, value in state.items())
    assert hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16] == FASTSEG_KEYS
    checkpoint = {"num_classes": 19, "state_dict": state, "epoch": 174, "mean_iu": np.float64(0.72)}
    offer(server, monkeypatch, "street", checkpoint)
    segmenter = build_segmenter("street")
    assert segmenter.trained and segmenter.class_names[13] == "car" and segmenter.stride == 2
    frame = torch.rand(1, 3, 90, 131, generator=torch.Generator().manual_seed(7))
    scores = segmenter.head(segmenter.features(frame))
    assert scores.shape == (1, 19, 90, 131)
    assert build_segmenter("fastseg:128", seed=2).digest != segmenter.digest  # it has no class names
    with pytest.raises(SegmenterError, match="fastseg:128 or fastseg:256"):
        build_segmenter("fastseg:64")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("absent", "the server answered 404"),
        ("other", "are not what was published: SHA-256"),
        ("cut", "the connection ended after"),
        ("chunk", "cannot be fetched from here"),
        ("stall", "cannot be fetched from here"),
        ("offline", "are not in the cache and cannot be fetched from here.*put the file at .*pth, or name"),
        ("full", "cannot be kept in"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing(
    fault: str, message: str, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = offer(server, monkeypatch, "voc-small", {"weight": torch.zeros(100)})
    path = "/" + net.url.rpartition("/")[2]
    if fault == "absent":
        server.files.clear()
    elif fault == "other":
        server.files[path] += b"more"
    elif fault == "cut":
        server.cut = 7
    elif fault == "chunk":
        server.chunked = True
    elif fault == "stall":
        monkeypatch.setattr(fetched, "STALL_S", 0.2)
        monkeypatch.setattr(server, "do_GET", lambda handler: handler.rfile.read())
    elif fault == "offline":
        gone = replace(net, url=f"http://127.0.0.1:9{path}")
        monkeypatch.setitem(nets.FETCHED, "voc-small", gone)  # type: ignore[arg-type]
    else:
        (tmp_path / "torch").write_text("a file, not a folder")
    report, _ = voice()
    with pytest.raises(SegmenterError, match=message) as caught:
        bring("voc-small", None, report)
    assert "\n" not in str(caught.value) and net.url.rpartition("/")[2] in str(caught.value)
    assert not list(tmp_path.rglob("*.pth*"))


def test_what_is_known_here_is_what_torchvision_publishes() -> None:
    models: Any = import_torchvision().models
    for name in ("voc", "voc-small"):
        net = nets.FETCHED[name]
        weights = models.get_model_weights(net.spec.partition(":")[2]).COCO_WITH_VOC_LABELS_V1
        assert weights.url == net.url and net.url.endswith(f"-{net.sha256[:8]}.pth")
        assert round(weights.meta["_file_size"] * 2**20 / 1e6) == net.megabytes
        assert list(net.class_names[1:]) == weights.meta["categories"][1:]


def test_the_page_lists_every_net_with_size_and_licence() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for name, net in nets.FETCHED.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        spec = net.spec.partition("@")[0]
        assert spec in row and f"{net.megabytes} MB" in row and net.licence.split()[0] in row
