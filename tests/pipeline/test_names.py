"""Promise: videos, lists and outputs may be called anything, in any locale; what cannot be is named.

Why: one file whose name is no UTF-8 refused the whole run, and in an ASCII locale lists with other letters
ended in a traceback and folders in an untrue "not valid UTF-8".
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import run_inline
from vidseg_core.cli.runner import run_verb
from vidseg_core.config.verbs import CompactConfig
from vidseg_core.store import open_run

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
JOB = """
import sys
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import run_inline
assert sys.getfilesystemencoding() == "ascii"
run_inline(small_config(sys.argv[1], sys.argv[2], segmenter="plain"), 1)
"""


def _in_ascii(*words: str | bytes, code: int = 0) -> str:
    """What a command says in a locale that knows ASCII letters only."""
    environment = os.environ | ASCII | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], capture_output=True, env=environment, timeout=120)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == code, said
    assert "Traceback" not in said, said
    return said


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "vidéos 日本"
    write_video(folder / "ä ö.mp4", moving_disc(12))
    (folder / "list.csv").write_text("uri\nä ö.mp4\n", encoding="utf-8")
    return folder


def test_a_name_that_is_not_utf8_is_a_video_like_others(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", moving_disc(12))
    os.rename(tmp_path / "in" / "a.mp4", os.fsencode(tmp_path) + b"/in/caf\xe9.mp4")
    run_inline(small_config(tmp_path / "in", tmp_path / "out", segmenter="plain"), 1)
    (row,) = open_run(tmp_path / "out").videos().to_pylist()
    assert (row["status"], row["decoded_frames"]) == ("ok", 12)
    assert row["uri"] == f"file://{tmp_path}/in/caf%E9.mp4"


@pytest.mark.parametrize("named", ["", "list.csv"])
def test_an_ascii_locale_gives_the_rows_and_addresses_of_any_other(
    named: str, films: Path, tmp_path: Path
) -> None:
    run_inline(small_config(films / named, tmp_path / "here", segmenter="plain"), 1)
    output = tmp_path / "résultats"
    _in_ascii("-c", JOB, os.fsencode(films / named), os.fsencode(output))
    (there,), (here,) = (open_run(p).videos().to_pylist() for p in (output, tmp_path / "here"))
    same = ("video_id", "uri", "status", "decoded_frames", "keys")
    assert [there[name] for name in same] == [here[name] for name in same]


def test_commands_find_a_run_in_an_ascii_locale(films: Path, tmp_path: Path) -> None:
    output = tmp_path / "résultats"
    run_inline(small_config(films, output, segmenter="plain"), 1)
    run = os.fsencode(output)
    assert "résultats holds no run" in _in_ascii("-m", "jobs.status", run, code=2)  # has no manifest
    assert "résultats holds no run" in _in_ascii("-m", "vidseg_core", "status", run, code=2)
    assert "frames in" in _in_ascii(
        "-m", "jobs.export", "--run", run, "--format", "overlay", "--output", run + b"-\xc3\xa9"
    )


def test_an_output_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", moving_disc(12))
    run = os.fsencode(tmp_path) + b"/caf\xe9"
    run_inline(small_config(tmp_path / "in", os.fsdecode(run), segmenter="plain"), 1)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.export", "--run", run, "--output", tmp_path / "out"],
        capture_output=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 2 and b"not valid UTF-8" in done.stderr and b"Traceback" not in done.stderr


def test_a_word_that_ray_cannot_be_told_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: CompactConfig) -> int:
        "caf\udce9.mp4".encode()
        return 0

    assert run_verb("compact", CompactConfig, run, ["--run", "."]) == 2
    said = capsys.readouterr().err
    assert "'caf\\udce9.mp4' is not valid UTF-8; rename it" in said and "Traceback" not in said


def _opens_text(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a file as text in whatever encoding the locale has."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    builtin = isinstance(call.func, ast.Name) and name == "open"
    if not builtin and name not in ("read_text", "write_text"):
        return False
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    binary = builtin and any("b" in mode and set(mode) <= set("rwxab+") for mode in modes)
    return not binary and all(keyword.arg != "encoding" for keyword in call.keywords)


def test_every_file_of_text_says_its_encoding() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("vidseg_core", "jobs", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _opens_text(node)
    ]
    assert found == []
