"""Promise: the verb's flow net is that of the plain loop, and two workers on Ray Train judge the pairs that
one would, also when one of them is killed.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.training.assassin import killed_worker
from tests.training.local_mode import trained_here
from tests.training.small import facts_of
from tests.training.test_train_flow import SMALL, config
from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.training.flow import FlowLoopOptions, train_flow
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.flow_job import LAST, run_train_flow

STEPS = 6


def command(chosen: TrainFlowConfig) -> str:
    printed = io.StringIO()
    assert run_train_flow(chosen, Reporter("text", printed)) == 0
    return printed.getvalue()


def curve_of(folder: Path) -> list[dict[str, float]]:
    return pq.read_table(folder / "curve.parquet").to_pylist()


def plain_loop(chosen: TrainFlowConfig, folder: Path) -> tuple[bytes, list[dict[str, float]]]:
    """The run of `chosen` in this process: its weights file and curve."""
    torch.set_num_threads(1)
    clips: list[FlowClip] = [
        clip
        for clip in dataset_clips(open_dataset(chosen.data[0]), chosen.split, chosen.size, chosen.max_frames)
        if clip.name not in chosen.val_clips
    ]
    rows: list[dict[str, float]] = []
    net = build_flow_net(chosen.net, seed=chosen.seed, bare=True).net
    options = FlowLoopOptions(folder=folder, seed=chosen.seed, log_every=chosen.log_every)
    state = train_flow(net, clips, chosen.recipe, options, watch=rows.append)
    return weights_file(state, chosen.net, step=chosen.recipe.steps, seed=chosen.seed), rows


def test_the_verb_trains_as_the_plain_loop_does(tmp_path: Path) -> None:
    output = tmp_path / "out"
    chosen = config(output, steps=STEPS, save_every=1, log_every=2)
    expected, rows = plain_loop(chosen, tmp_path / "plain")
    with trained_here():
        printed = command(chosen)
    assert (output / LAST).read_bytes() == expected
    details, curve = facts_of(output)["details"], curve_of(output)
    assert [row["step"] for row in curve] == [row["step"] for row in rows]
    assert [row["exact"] for row in curve] == [row["exact"] for row in rows]
    assert list(details["clips"]) == ["scene-001-still"]
    assert {score["clip"] for score in details["scores"]} == {"scene-000-mixed"}
    assert {score["method"] for score in details["scores"]} == {"copy", "dis", "dis chained", "tiny-flow"}
    assert NetFlow("tiny-flow", weights=output / LAST).trained
    assert "--propagation.flow_weights" in printed and "complete already" in command(chosen)
    with pytest.raises(FingerprintMismatch, match="seed: 0 there, 1 now"):
        command(replace(chosen, seed=1))


@pytest.mark.ray
def test_two_workers_judge_the_same_pairs_and_learn_a_scale_field(tmp_path: Path, local_ray: None) -> None:
    chosen = config(
        tmp_path / "two",
        workers=2,
        log_every=1,
        save_every=1,
        segmenter="tiny-scenes",
        scale_field="scores",
        recipe=replace(SMALL, ema=0.0),
    )
    alone = tmp_path / "alone"
    with trained_here():
        command(replace(chosen, workers=1, output=str(alone)))
    with killed_worker(tmp_path / "two" / "checkpoint.json", 2):
        printed = command(chosen)
    for one, two in zip(curve_of(alone), curve_of(tmp_path / "two"), strict=True):
        for part in ("exact", "photo", "task"):
            assert one[part] == pytest.approx(two[part], rel=1e-3), part
    assert "--propagation.level scores" in printed
    methods = [score["method"] for score in facts_of(alone)["details"]["scores"]]
    assert {"tiny-flow", "tiny-flow, scores", "tiny-flow, scores x S"} <= set(methods)
    assert NetFlow("tiny-flow", weights=tmp_path / "two" / LAST).scale_level == "scores"
