"""Promise: worker count, shard size, lanes and any number of kills at any point change no row of the output.

Why: a job on spot machines is killed as a matter of course; if a resume could shift one decision, no two runs
would agree and nothing could be compared.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.docs.documents import ROOT, module
from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import Killed, rows_without_package, run_inline
from tests.propagation.memory_nets import tiny_memory_net
from tests.training.small import shaken, written
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig
from vidseg_core.models import build_segmenter
from vidseg_core.models.light import AccelNet, GrfpNet, light_facts
from vidseg_core.models.lvs import new_lvs

SCHEDULERS = [
    SchedulerConfig(name="fixed", interval=7, max_interval=20),
    SchedulerConfig(name="random", interval=6, max_interval=11),
    SchedulerConfig(name="warp_error", threshold=3.0, max_interval=9),
    SchedulerConfig(name="tests.pipeline.lookahead:Brightest", max_interval=9),
    SchedulerConfig(name="tests.pipeline.lookahead:AddedUp", max_interval=19),
]

WEIGHTS = Path(tempfile.gettempdir()) / f"vidseg-any-way-{os.getpid()}.safetensors"
LVS = PropagationConfig(name="lvs", level="features", sides="one", weights=str(WEIGHTS), flow_size=64)
STEADY = PropagationConfig(name="my_steady:Steady", level="scores", sides="one", flow_size=64)
ACCEL = PropagationConfig(name="accel", level="scores", weights=f"{WEIGHTS}.accel", flow_size=64)
GRFP = PropagationConfig(name="grfp", level="scores", sides="one", weights=f"{WEIGHTS}.grfp", flow_size=64)
CLOCKWORK = PropagationConfig(name="clockwork", level="features", sides="one", clock=3, flow_size=64)
SHARING = PropagationConfig(name="feature_sharing", level="features", flow_size=64)
CHECKED = PropagationConfig(name="match", self_check=True, adapt_steps=2, flow_size=64)
TRACKED = PropagationConfig(name=f"sam2:{WEIGHTS}.sam2", sides="one", flow_size=64)
VECTORS = PropagationConfig(flow="motion_vectors", sides="one", flow_size=64)
NETS = {
    "lvs": LVS,
    "late lvs": replace(LVS, latency="low", delay=3),
    "steady": STEADY,
    "checked match": CHECKED,
    "accel": ACCEL,
    "grfp": GRFP,
    "sharing": SHARING,
    "tracked": TRACKED,
    "motion vectors": VECTORS,
    "clockwork": CLOCKWORK,
    "split regions": PropagationConfig(sides="two", flow_size=64),
}
GRIDS = {
    "2x2 regions": RegionsConfig(grid="2x2", overlap=8),
    "1x3 regions": RegionsConfig(grid="1x3", overlap=0),
    "split regions": RegionsConfig(grid="2x2", overlap=8),
    "remembered regions": RegionsConfig(grid="2x2", overlap=0, align=32, context="remembered"),
}
SPLIT = SchedulerConfig(name="split", threshold=0.2, max_interval=13)
LOW = SchedulerConfig(name="low_deviation", policy=str(WEIGHTS), threshold=20.0, max_interval=20)

CASES = [(scheduler, "flow_warp") for scheduler in SCHEDULERS] + [
    (SCHEDULERS[2], "my_looker:Sceptic"),
    (SCHEDULERS[3], "my_looker:Sceptic"),
    (SCHEDULERS[1], "my_filler:Hesitant"),
    (SCHEDULERS[2], "my_checker:Checker"),
    (SCHEDULERS[1], "steady"),
    (SCHEDULERS[2], "match"),
    (SCHEDULERS[1], "motion vectors"),
    (SCHEDULERS[0], "late lvs"),
    (SCHEDULERS[2], "checked match"),
    (SCHEDULERS[0], "accel"),
    (SCHEDULERS[2], "grfp"),
    (SCHEDULERS[2], "sharing"),
    (SCHEDULERS[2], "tracked"),
    (SCHEDULERS[1], "clockwork"),
    (SCHEDULERS[2], "2x2 regions"),
    (SCHEDULERS[4], "1x3 regions"),
    (SCHEDULERS[1], "remembered regions"),
    (LOW, "lvs"),
    (SPLIT, "split regions"),
]
"""Schedulers with the package's propagator, those of docs/plugins.md that look at frames or remember, LVS
with low latency and with its own scheduler, shared levels, a memory net, regions with keys of their own, also
such that N sees what it remembers around them, or has seen keys before their turn. What is in `NETS` has its
own sides, whatever is asked."""
EXAMPLES = ("my_looker", "my_filler", "my_checker", "my_steady")


@pytest.fixture(scope="module", autouse=True)
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The page's files, importable."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        for name in EXAMPLES:
            text = module(ROOT / "docs" / "plugins.md", f"{name}.py")
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        patch.syspath_prepend(str(folder))
        yield
    for name in EXAMPLES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module", autouse=True)
def nets() -> Iterator[None]:
    """Nets that do something, as if trained."""
    segmenter = build_segmenter("tiny-scenes")
    facts = light_facts(segmenter, "tiny:8")
    files = [
        written(shaken(new_lvs(segmenter)), WEIGHTS),
        written(shaken(AccelNet(facts)), Path(f"{WEIGHTS}.accel"), "accel"),
        written(shaken(GrfpNet(facts)), Path(f"{WEIGHTS}.grfp"), "grfp"),
    ]
    folder = tiny_memory_net("sam2", Path(f"{WEIGHTS}.sam2"))
    yield
    for file in files:
        Path(file).unlink()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), (26, 41))


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Rows of a plain run, by (scheduler, propagator, sides)."""
    rows = {}
    for scheduler, name in CASES:
        for sides in ["one"] if name in NETS else ["one", "two"]:
            output = tmp_path_factory.mktemp("plain") / "out"
            run_inline(_config(clips, output, scheduler, name, sides), 1)
            rows[scheduler.name, name, sides] = rows_without_package(output)
        if name in NETS:
            rows[scheduler.name, name, "two"] = rows[scheduler.name, name, "one"]
    return rows


def test_the_scheduler_of_lvs_chooses_some_keys_and_not_all(undisturbed: dict) -> None:
    keys = [row[2] for row in undisturbed["low_deviation", "lvs", "one"]]
    assert 0.1 < sum(keys) / len(keys) < 0.9


def test_regions_have_keys_of_their_own(undisturbed: dict) -> None:
    cut = [("warp_error", "2x2 regions"), ("random", "remembered regions"), ("split", "split regions")]
    for sides in ("one", "two"):
        for case in cut:
            some = [row[8] for row in undisturbed[*case, sides]]
            assert any(any(keys) and not all(keys) for keys in some)


def test_propagators_that_look_give_masks_of_their_own(undisturbed: dict) -> None:
    for scheduler, name in CASES[len(SCHEDULERS) : -3]:
        for sides in ("one", "two"):
            assert undisturbed[scheduler.name, name, sides] != undisturbed[scheduler.name, "flow_warp", sides]


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
@example(
    case=(SCHEDULERS[1], "remembered regions"),
    sides="two",
    branches=2,
    lanes=2,
    shard_frames=5,
    kills=[9, 13],
)
@example(case=(SPLIT, "split regions"), sides="two", branches=2, lanes=2, shard_frames=5, kills=[9, 13, 25])
@given(
    case=st.sampled_from(CASES),
    sides=st.sampled_from(["one", "two"]),
    branches=st.integers(1, 3),
    lanes=st.sampled_from([1, 1, 2, 5]),
    shard_frames=st.integers(2, 17),
    kills=st.lists(st.integers(0, 40), max_size=3),
)
def test_rows_do_not_depend_on_how_the_work_is_done(
    clips: Path, undisturbed: dict, case, sides, branches, lanes, shard_frames, kills
) -> None:
    scheduler, name = case
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "out"
        options = {"lanes": lanes, "shard_frames": shard_frames}
        for point in kills:
            _killed_run(_config(clips, output, scheduler, name, sides, **options), branches, point)
        run_inline(_config(clips, output, scheduler, name, sides, **options), branches)
        same = rows_without_package(output) == undisturbed[scheduler.name, name, sides]
        assert same


def _killed_run(config, branches: int, point: int) -> None:
    left = point

    def tick(where: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed(where)

    try:
        run_inline(config, branches, tick)
    except Killed:
        pass


def _config(clips: Path, output: Path, scheduler: SchedulerConfig, name: str, sides: Any, **options: Any):
    propagation = NETS.get(name) or PropagationConfig(
        name="flow_warp" if name in GRIDS else name, sides=sides, flow_size=64
    )
    if name in GRIDS:
        options["regions"] = GRIDS[name]
    if name == "remembered regions":
        options["segmenter"] = "tiny-scenes"
    if name in NETS:
        levels = name in ("sharing", "clockwork")
        options["segmenter"] = "sharing:2/tiny-scenes" if levels else "tiny-scenes"
    if name == "tracked":  # two classes, so that one object is followed
        options |= {"segmenter": "tiny:8", "num_classes": 2}
    return small_config(
        clips, output, scheduler=scheduler, propagation=propagation, segment_frames=20, **options
    )
