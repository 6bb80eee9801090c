"""Promise: a file that is not there and an output that cannot be are reported before anything heavy is
imported, with the option that named them; and what is refused leaves no folder behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import ROOT
from vidseg_core.cli import main as cli
from vidseg_core.config import SegmentConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.places import check_places
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig
from vidseg_core.datasets.scene_files import make_corpus
from vidseg_core.store.local_store import LocalStore

HEAVY = """
import sys
from vidseg_core.cli import main as cli
code = cli.main(sys.argv[1:])
print(code, [name for name in ("torch", "ray", "av", "cv2", "pyarrow", "numpy") if name in sys.modules])
"""


def test_the_planner_in_the_package_is_no_missing_file() -> None:
    for policy in (None, "tiny-planner"):
        check_places(
            SegmentConfig(
                input=("a",),
                output="new",
                segmenter="plain",
                scheduler=SchedulerConfig(name="planner", policy=policy),
            )
        )
    missing = SchedulerConfig(name="planner", policy="tiny-plan")
    with pytest.raises(ConfigError, match="tiny-plan does not exist"):
        check_places(SegmentConfig(input=("a",), output="new", segmenter="plain", scheduler=missing))
    with pytest.raises(ConfigError, match="goes with planner, not with 'policy'"):
        SchedulerConfig(name="policy", policy="tiny-planner")


def test_a_wrong_file_or_output_is_told_without_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for words, says in (
        (("--output", "out", "--weights", "none.pt"), "vidseg segment: --weights: none.pt does not exist"),
        (("--output", str(tmp_path / "taken" / "x")), "taken is a file, not a folder"),
    ):
        argv = [sys.executable, "-c", HEAVY, "segment", "--input", "a", "--segmenter", "plain", *words]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.stdout == "2 []\n" and says in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("option", "config"),
    [
        ("--weights", SegmentConfig(input=("a",), output="out", segmenter="plain", weights="none")),
        (
            "--propagation.flow_weights",
            SegmentConfig(
                input=("a",),
                output="out",
                segmenter="plain",
                propagation=PropagationConfig(flow="raft", flow_weights="none"),
            ),
        ),
        (
            "--scheduler.policy",
            SegmentConfig(
                input=("a",),
                output="out",
                segmenter="plain",
                scheduler=SchedulerConfig(name="policy", policy="none"),
            ),
        ),
    ],
)
def test_the_option_that_names_a_missing_file_is_named(option: str, config: SegmentConfig) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}: none does not exist"):
        check_places(config)


def test_places_that_are_fine_or_elsewhere_pass_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for output in ("new/deep/run", ".", "s3://bucket/prefix"):
        check_places(SegmentConfig(input=("a",), output=output, segmenter="plain"))
    assert not os.listdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="--output: no right to write to"):
        check_places(SegmentConfig(input=("a",), output="new", segmenter="plain"))


def test_what_is_refused_leaves_no_folder_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_corpus(tmp_path / "in", clips=1, frames=2, height=48, width=64)
    output = tmp_path / "deep" / "run"
    words = ["segment", "--input", str(tmp_path / "in"), "--output", str(output)]
    (tmp_path / "odd.pt").write_text("no weights")
    weights = ["--segmenter", "tiny:8", "--weights", str(tmp_path / "odd.pt")]
    for wrong in (["--segmenter", "nowhere_at_all:Net"], weights):
        assert cli.main([*words, *wrong]) == 2, capsys.readouterr().err
        assert not output.parent.exists()
    (tmp_path / "kept").mkdir()
    LocalStore(str(tmp_path / "kept")).check_writable()
    assert (tmp_path / "kept").is_dir()
