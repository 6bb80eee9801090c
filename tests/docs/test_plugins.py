"""Promise: every example of docs/plugins.md is a file that works as it stands, by its name, in the engine and
in ``evaluate``; and each does what its page says.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.docs.documents import ROOT, blocks, module
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import SegmentState
from vidseg_core.engine.assemble import build_engine, describe_net, plugin_sources
from vidseg_core.engine.frames import FrameInput
from vidseg_core.evaluation.evaluate_job import run_evaluate
from vidseg_core.kit.progress import Reporter
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.flow import build_flow
from vidseg_core.propagation.gap import FramePair, GapKey

PAGE = ROOT / "docs" / "plugins.md"
NAMES = (
    *("my_net", "my_flow", "my_scheduler", "my_propagator", "my_looker", "my_filler", "my_checker"),
    *("my_steady", "my_parts", "my_sharer"),
)
SCENES = "scenes:videos=1,frames=14,height=64,width=80"


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files, importable."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(module(PAGE, f"{name}.py"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in NAMES:
        sys.modules.pop(name, None)


def masks(config: SegmentConfig) -> list[tuple[bool, np.ndarray]]:
    engine, state = build_engine(config, "cpu"), SegmentState.new(0, "a/0")
    dataset, results = open_dataset(SCENES), []
    for item in dataset.items("all"):
        frame_HW3 = dataset.read(item).frame_HW3
        frame = FrameInput(frame_index=item.frame_index, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        results += engine.step([state], [frame])[0]
    results += engine.finish([state])[0]
    return [(result.is_key, result.labels_HW) for result in results]


def config(**options: object) -> SegmentConfig:
    return SegmentConfig(input=("-",), output="-", **{"segmenter": "plain", **options})  # type: ignore[arg-type]


def test_all_four_together_run_in_the_engine(examples: Path) -> None:
    settings = config(
        segmenter="my_net:Colours",
        scheduler=SchedulerConfig(name="my_scheduler:Surprise", threshold=4.0),
        propagation=PropagationConfig(name="my_propagator:Fading", flow="my_flow:Global", flow_size=64),
    )
    found = masks(settings)
    assert len(found) == 14 and found[0][0] and all(mask.shape == (64, 80) for _, mask in found)
    assert len({int(label) for _, mask in found for label in np.unique(mask)}) > 1
    assert set(plugin_sources(settings)) == {
        f"{name}.sha256" for name in ("scheduler.name", "propagation.name", "propagation.flow")
    }


def test_the_short_examples_of_the_concepts_page_work_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(module(ROOT / "docs" / "concepts.md", "mine.py"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = config(
        segmenter="mine:Halves",
        scheduler=SchedulerConfig(name="mine:DarkFrames"),
        propagation=PropagationConfig(name="mine:Forgetful", flow="mine:Still", flow_size=64),
    )
    assert len(masks(settings)) == 14
    sys.modules.pop("mine")


def test_the_net_gives_scores_at_the_frame_s_own_size(examples: Path) -> None:
    from my_net import Colours  # type: ignore[import-not-found]

    net = Colours()
    frames_B3HW = torch.zeros(2, 3, 31, 45)
    frames_B3HW[1, 0] = 0.9
    labels_BHW = net.head(net.features(frames_B3HW)).argmax(1)
    assert labels_BHW.shape == (2, 31, 45)
    assert (labels_BHW[0] == 0).all() and (labels_BHW[1] == 2).all()  # dark, red


def test_the_net_s_features_can_be_propagated(examples: Path) -> None:
    settings = config(
        segmenter="my_net:Colours",
        scheduler=SchedulerConfig(name="fixed", interval=6),
        propagation=PropagationConfig(level="features", flow_size=64, sides="one"),
    )
    assert [key for key, _ in masks(settings)].count(True) == 3


def test_the_flow_finds_a_pan(examples: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 96), dtype=np.uint8)
    (flow_HW2,) = build_flow("my_flow:Global").flow([np.roll(picture, (2, 5), (0, 1))], [picture])
    assert flow_HW2[30, 40] == pytest.approx([-5, -2], abs=0.2)


def test_the_scheduler_wants_more_keys_with_a_lower_threshold(examples: Path) -> None:
    def keys(threshold: float) -> int:
        scheduler = SchedulerConfig(name="my_scheduler:Surprise", threshold=threshold)
        settings = config(scheduler=scheduler, propagation=PropagationConfig(flow_size=64))
        return sum(key for key, _ in masks(settings))

    assert keys(0.5) > keys(60.0) == 1


def test_the_propagator_leaves_no_specks(examples: Path) -> None:
    from my_propagator import Fading  # type: ignore[import-not-found]

    labels_HW = np.zeros((20, 20), np.uint8)
    labels_HW[5:10, 5:10], labels_HW[15, 15] = 3, 2
    carried = Fading().carry(labels_HW, np.zeros((20, 20, 2), np.float32))
    assert carried[7, 7] == 3 and carried[15, 15] == 0 and labels_HW[15, 15] == 2


def test_the_sceptic_keeps_what_has_not_moved_and_moves_what_has(examples: Path) -> None:
    from my_looker import Sceptic  # type: ignore[import-not-found]

    key_HW3 = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    now_HW3 = np.hstack([key_HW3[:, :32], np.roll(key_HW3, 4, axis=1)[:, 32:]])  # the right half moves by 4
    labels_HW = np.tile(np.arange(64, dtype=np.uint8), (32, 1))
    flow_HW2 = np.full((32, 64, 2), (-4, 0), np.float32)
    key = GapKey(view=key_HW3, carried=labels_HW, rgb_HW3=key_HW3)
    link = Link(current=now_HW3, key=key_HW3, distance=1, flow_hw2=flow_HW2)
    (found_HW,) = Sceptic().move([FramePair(key=key, link=link, rgb_HW3=now_HW3)])
    assert found_HW[16, 10] == 10 and found_HW[16, 50] == 46


@pytest.mark.parametrize("name", ["my_looker:Sceptic", "my_filler:Hesitant"])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_propagators_that_look_run_in_the_engine(examples: Path, name: str, sides: Any) -> None:
    settings = config(
        segmenter="my_net:Colours",
        scheduler=SchedulerConfig(name="fixed", interval=5),
        propagation=PropagationConfig(name=name, flow_size=64, sides=sides),
    )
    describe_net(settings)  # tries them on one frame
    assert [key for key, _ in masks(settings)].count(True) == 3


def test_the_checker_runs_in_the_engine_on_both_sides(examples: Path) -> None:
    settings = config(
        segmenter="my_net:Colours",
        scheduler=SchedulerConfig(name="fixed", interval=5),
        propagation=PropagationConfig(name="my_checker:Checker", flow_size=64),
    )
    describe_net(settings)
    assert len({int(label) for _, mask in masks(settings) for label in np.unique(mask)}) > 1


def test_what_a_key_shows_is_steadied(examples: Path) -> None:
    def second_key(name: str) -> np.ndarray:
        settings = config(
            segmenter="my_net:Colours",
            scheduler=SchedulerConfig(name="fixed", interval=5),
            propagation=PropagationConfig(name=name, level="scores", sides="one", flow_size=64),
        )
        describe_net(settings)
        is_key, mask_HW = masks(settings)[5]
        assert is_key
        return mask_HW

    assert (second_key("my_steady:Steady") != second_key("copy")).any()


def test_parts_are_shared_between_frame_and_key(examples: Path) -> None:
    settings = config(
        segmenter="my_parts:Patches",
        scheduler=SchedulerConfig(name="my_sharer:Drift", threshold=2.0),
        propagation=PropagationConfig(name="my_sharer:Sharer", level="features", sides="one", flow_size=64),
    )
    describe_net(settings)  # high(low(.)) and fuse are tried
    found = masks(settings)
    assert 1 <= [key for key, _ in found].count(True) < 14
    copied = masks(
        replace(settings, propagation=PropagationConfig(level="features", name="copy", sides="one"))
    )
    assert any((a != b).any() for (_, a), (_, b) in zip(found, copied, strict=True))


def test_evaluate_takes_all_of_them_by_name(examples: Path, tmp_path: Path) -> None:
    settings = EvaluateConfig(
        data=("scenes:videos=1,frames=12,height=64,width=80?remap=" + str(four_classes(tmp_path)),),
        output=str(tmp_path / "out"),
        segmenter="my_net:Colours",
        methods=(
            "my_scheduler:Surprise:threshold=4",
            "fixed:interval=8,flow=my_flow:Global",
            "fixed:interval=8,propagation=my_propagator:Fading",
        ),
        dry_run=True,
    )
    text = io.StringIO()
    assert run_evaluate(settings, Reporter("text", text)) == 0
    assert "my_scheduler:Surprise threshold=4" in text.getvalue()


def four_classes(folder: Path) -> Path:
    """Labels of the scenes as four classes, so that they go with the example's net."""
    path = folder / "four.yaml"
    path.write_text(next(b.text for b in blocks(PAGE) if b.text.startswith("# four.yaml")), encoding="utf-8")
    return path
