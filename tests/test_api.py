"""Promise: `vidseg_core.segment` is `vidseg segment` from Python: the same options under the same names,
typed; what is wrong is an exception that names the option; importing the package costs nothing.

Why: without it people had to find a job's module, build its configuration, and read exit codes.
"""

from __future__ import annotations

import subprocess
import sys
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import vidseg_core as vidseg
from tests.docs.documents import ROOT, blocks
from tests.pipeline.clips import moving_disc, write_video
from vidseg_core.api import SegmentOptions
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.pipeline import executors, segment_job
from vidseg_core.pipeline.drain import Drained

SMALL: dict[str, Any] = {"working_size": 32, "propagation": {"flow_size": 32}, "executor": "local"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_video(tmp_path / "my_face.mp4", moving_disc(14, 48, 64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "sys", type("NoRay", (), {"modules": {}}))
    return tmp_path


def test_the_example_of_the_page_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, *others = [b.text for b in blocks(ROOT / "docs" / "python.md") if b.language == "python"]
    names: dict[str, Any] = {}
    exec(code, names)
    assert not others and names["labels"].shape == (48, 64)
    printed = capsys.readouterr()
    assert "my_face.mp4 ok 14 None" in printed.out and "inner mouth" in printed.out
    assert "frames 14/14" in printed.err


def test_options_are_those_of_the_command_line(here: Path) -> None:
    """Names and types; a group is a mapping. Add to `SegmentOptions` what you add to `SegmentConfig`."""
    typed, known = typing.get_type_hints(SegmentOptions), typing.get_type_hints(SegmentConfig)
    names = [item.name for item in fields(SegmentConfig) if item.name not in ("input", "output")]
    assert sorted(typed) == sorted(names)
    for name in names:
        group = is_dataclass(known[name])
        allowed = typing.get_args(typed[name]) or (typed[name],)
        assert typing.get_origin(typed[name]) if group else set(typing.get_args(known[name])) <= set(allowed)
    run = vidseg.segment(
        [here / "my_face.mp4"], here / "out", segmenter="constant", scheduler={"interval": 7}, **SMALL
    )
    assert [row["is_key"] for row in run.rows(run.videos()["video_id"][0].as_py())].count(True) == 2
    assert run.info()["config"]["scheduler"]["interval"] == 7
    assert vidseg.open_run(here / "out").complete


def test_what_is_wrong_is_raised_names_the_option_and_leaves_nothing(here: Path) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("--scheduler.intervall: no such option.*did you mean 'interval'", {"scheduler": {"intervall": 3}}),
        ("--lanes: must be a whole number", {"lanes": "many"}),
        ("--weights: none.pt does not exist", {"weights": Path("none.pt")}),
        ("--dry_run", {"dry_run": True}),
        ("no classes_of: no such file", {"input": "no classes_of"}),
        ("'nowhere_at_all'", {"segmenter": "nowhere_at_all:Net"}),
    ]
    for says, options in wrong:
        words: dict[str, Any] = {"input": "my_face.mp4", "segmenter": "constant"} | SMALL | options
        with pytest.raises(ValueError, match=says):
            vidseg.segment(output="out", **words)
    assert not (here / "out").exists()


def test_a_run_of_another_configuration_is_refused_and_a_video_that_is_none_is_a_row(here: Path) -> None:
    (here / "odd.mp4").write_bytes(b"no video")
    run = vidseg.segment(["odd.mp4", "my_face.mp4"], "out", segmenter="constant", **SMALL)
    assert sorted(run.videos()["status"].to_pylist()) == ["ok", "quarantined"]
    with pytest.raises(ValueError, match="belongs to another run"):
        vidseg.segment("my_face.mp4", "out", segmenter="constant", seed=1, **SMALL)


def test_a_run_that_was_asked_to_end_is_an_interrupt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def do_segment(*_: Any) -> int:
        raise Drained

    monkeypatch.setattr(segment_job, "do_segment", do_segment)
    with pytest.raises(KeyboardInterrupt, match="is committed"):
        vidseg.segment("my_face.mp4", "out", segmenter="constant")


def test_importing_it_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import vidseg_core as vidseg; vidseg.segment, vidseg.open_run\n"
        "print({'torch', 'ray', 'cv2', 'av'} & set(sys.modules))\n"
        "vidseg.nothing"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n" and "has no attribute 'nothing'" in done.stderr
