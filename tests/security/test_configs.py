"""Promise: a configuration file, a folder with a net and a name are data. They run no code, fetch nothing,
cost bounded memory, and do not steer the terminal of whoever reads the log.

(Pickles in weights files: `tests/models/test_weights.py`, `test_hf_nets.py`, `tests/propagation/
test_flow_nets.py`; ONNX files with a second file: `tests/models/test_onnx.py`; HTML and formulas in reports:
`tests/report/test_page.py`; ids: `tests/plan/test_ids.py`; keys: `tests/store/test_objects.py`.)

What may run code is what says so: `package.module:Class` names a plug-in, on the command line or in YAML.
"""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from vidseg_core.cli.runner import say
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.schema import from_dict, load_yaml
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.registry import build_segmenter
from vidseg_core.pipeline.ending import closing_table

TAGS = (
    "!!python/object/apply:os.mkdir [{place}]",
    "!!python/object/new:os.mkdir [{place}]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!include {place}",
)


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_yaml_run_nothing(tag: str, tmp_path: Path) -> None:
    place, file = tmp_path / "ran", tmp_path / "run.yaml"
    file.write_text("seed: " + tag.format(place=place) + "\n")
    with pytest.raises(ConfigError, match="is not YAML: could not determine a constructor"):
        load_yaml(file)
    assert not place.exists()


@pytest.mark.parametrize("option", ["seed", "input", "scheduler", "device", "segmenter", "nonsense"])
def test_a_small_file_is_no_large_message(option: str, tmp_path: Path) -> None:
    """Eight levels of references stand for 10^9 values; the message once wanted to print them all."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    file = tmp_path / "run.yaml"
    file.write_text("\n".join(levels) + f"\n{option}: *a8\n")
    values = {"input": "a", "output": "b", "segmenter": "plain", option: load_yaml(file)[option]}
    with pytest.raises(ConfigError, match=f"--{option}") as caught:
        from_dict(SegmentConfig, values)
    assert len(str(caught.value)) < 2000


ELSEWHERE: dict[str, dict[str, Any]] = {
    "a backbone of the hub": {"model_type": "upernet", "backbone": "somebody/backbone"},
    "a backbone by name": {"model_type": "mask2former", "backbone": "resnet18", "use_timm_backbone": True},
    "a backbone of timm's hub": {
        "model_type": "upernet",
        "backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:somebody/backbone"},
    },
    "another folder": {
        "model_type": "upernet",
        "backbone_config": {"model_type": "timm_backbone", "backbone": "local-dir:/etc"},
    },
    "code of the hub": {"model_type": "mine", "auto_map": {"AutoConfig": "somebody/net--code.Config"}},
    "code beside it": {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}},
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_net_s_folder_fetches_nothing_and_runs_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def no_network(*address: Any, **_: Any) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    (tmp_path / "config.json").write_text(json.dumps(ELSEWHERE[what]))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(SegmenterError, match="config.json"):
        build_segmenter(f"hf:{tmp_path}")
    assert not asked and not (tmp_path / "ran").exists()


STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202efilm\x00.mp4"


def test_a_name_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    report = Reporter("text", stream)
    report.say(f"no such file: {STEERING}")
    totals = dict.fromkeys(("videos", "ok", "partial", "quarantined", "frames", "keys"), 1)
    row = {
        "status": "quarantined",
        "uri": f"{STEERING}\n  ok: all is well",
        "reason": f"not_a_video: {STEERING}",
    }
    report.block(closing_table(totals | {"aki": 1.0, "cpu_s": 0, "gpu_s": 0}, [row], 1.0, "out"))
    say("segment", None, STEERING)
    text = stream.getvalue() + capsys.readouterr().err
    assert all(char == "\n" or char.isprintable() for char in text)
    assert text.count("\\x1b]0;owned\\x07") == 4
    assert "\n  ok: all is well" not in text, "nor does it write lines of its own"


def test_json_lines_stay_lines() -> None:
    stream = io.StringIO()
    Reporter("json", stream).say(f"{STEERING}\n")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["text"] == f"{STEERING}\n" and line.isprintable()
