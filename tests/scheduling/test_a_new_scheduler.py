"""Promise: a scheduler is added with its own file and its entry in the catalogue, nothing else, and works in
`segment`, `evaluate`, the dial and `inspect --show why`.

Names of schedulers stood in a dozen files before there was a catalogue, and a new one was forgotten in some.
The package is copied, the two files are changed, and everything runs in a process of the copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN_FILE = '''"""`brightness`: how much brighter or darker the picture has become since the key."""

from vidseg_core.scheduling.deviation import mean_of
from vidseg_core.scheduling.protocol import checked_threshold


class Brightness:
    needs_flow, avoids_corrupt = False, True

    def __init__(self, threshold: float) -> None:
        self.threshold = checked_threshold(threshold)

    def score(self, deviation):
        return abs(mean_of(deviation.gray_current) - mean_of(deviation.gray_key))
'''
BEFORE = '    "policy": SchedulerEntry('
ENTRY = """    "brightness": SchedulerEntry(
        made_by="vidseg_core.scheduling.brightness:Brightness",
        threshold=0.05,
        unit="gray levels on average",
        feature="brightness",
    ),
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the changed package and one short clip."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        ROOT / "vidseg_core", folder / "vidseg_core", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "vidseg_core/scheduling/brightness.py").write_text(OWN_FILE)
    catalogue = folder / "vidseg_core/config/catalogue.py"
    text = catalogue.read_text()
    assert text.count(BEFORE) == 1
    catalogue.write_text(text.replace(BEFORE, ENTRY + BEFORE))
    return folder


def in_the_copy(copy: Path, body: str) -> str:
    """What a process of the copy prints and says."""
    paths = os.pathsep.join((str(copy), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", body + END],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


END = """
import os, sys
sys.stdout.flush(), sys.stderr.flush()
os._exit(0)  # threads of native libraries are not waited for
"""
SEGMENT = """
from pathlib import Path
from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import run_inline
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.inspection.inspect_job import run_inspect
from vidseg_core.kit.manifest import claim_output
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.pipeline.output import manifest_of
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.report.report_job import run_report
from vidseg_core.config.report import ReportConfig
from vidseg_core.store import open_store

write_video(Path("clips/disc.mp4"), moving_disc(40))
config = small_config("clips", "run", scheduler=SchedulerConfig(name="brightness", max_interval=20))
claim_output(open_store("run"), manifest_of(config, describe_net(config)), expand_inputs(config.input))
run_inline(config, 1)
assert run_segment(config, None, None) == 0
assert run_inspect(InspectConfig(run="run", show=("why",), limit=40)) == 0
assert run_report(ReportConfig(input=("run",), output="page")) == 0
"""
EVALUATE = """
from pathlib import Path
from tests.evaluation.small import config, evaluate_here
from vidseg_core.evaluation.read import open_evaluation

methods = ("brightness", "brightness:threshold=2", "fixed")
code, bad, said = evaluate_here(config("evaluation", methods=methods))
assert code == 0 and not bad, (bad, said)
for row in open_evaluation("evaluation").methods:
    print(row["scheduler"], row["threshold"], row["aki"])
"""
DIAL = """
import io
from pathlib import Path
from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import small_config
from vidseg_core.calibration.calibrate import calibrate
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.inputs import expand_inputs

for number in range(2):
    write_video(Path(f"two/{number}.mp4"), moving_disc(40, seed=number))
sample = CalibrationConfig(clips=2, clip_frames=24)
free = SchedulerConfig(max_interval=20)
config = small_config("two", "dial", max_drop=60.0, scheduler=free, calibration=sample)
choice = calibrate(config, expand_inputs(config.input), Reporter("text", io.StringIO()))
print([row["name"] for row in choice.tried])
"""


def test_it_segments_explains_its_decisions_and_is_reported(copy: Path) -> None:
    said = in_the_copy(copy, SEGMENT)
    assert "scheduler brightness" in said
    assert "key: brightness scores " in said
    assert " gray levels on average, above the threshold 0.05 " in said


def test_it_is_evaluated(copy: Path) -> None:
    said = in_the_copy(copy, EVALUATE)
    assert "brightness 2.0 " in said and "brightness None " in said


def test_the_dial_tries_it(copy: Path) -> None:
    assert "'brightness'" in in_the_copy(copy, DIAL)


def test_help_and_messages_list_it(copy: Path) -> None:
    body = "from vidseg_core.config.cli import parse\nfrom vidseg_core.config.segment import SegmentConfig\n"
    said = in_the_copy(
        copy, body + "try:\n parse('segment', SegmentConfig, ['--help'])\nexcept SystemExit: pass"
    )
    assert "brightness" in said
