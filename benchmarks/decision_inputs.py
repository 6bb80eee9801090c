"""What a decision net should look at (DVSNet Table 2): error of the expected confidence, by input.

    python -m benchmarks.decision_inputs --weights FILE [--data DIR] [--json FILE] [--tables DIR] [--frames N]
                                         [--clips N] [--steps N] [--pairs N] [--folds N]

Confidence is the share of a frame's pixels that agree with N (DVSNet Eq. 1); the labels stand in for N, and
are carried by the flow of the net whose maps are read, FlowNet2-s with the weights that are given
(`train-flow` makes some). Clips are left out in turn (`--folds`), nets learn from `--pairs` pairs of the
others. Error: mean absolute difference to the true confidence on clips left out, percent, as in the paper's
table; `mean` always says the mean of the others. Faces where they are at hand, else generated scenes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.corpus import data_dir
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.catalogue import MAP_SETS
from vidseg_core.episodes.episodes_job import run_build_episodes
from vidseg_core.episodes.features import CONV6_MEAN, spelled_out
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.training.decision_loop import DecisionOptions, Lessons, learn, lessons_of
from vidseg_core.training.made_maps import are_made, flow_of, made_lessons

INPUTS = {"flow": "light", CONV6_MEAN: "dvrl", **dict.fromkeys(("key_and_flow", *sorted(MAP_SETS)), "dvrl")}
"""Feature set -> kind of net."""
PAPER = {"key_and_flow": 2.20, "flownet_conv4": 1.94, "flownet_conv5": 1.85, "flownet_conv6": 1.74}
"""Table 2, percent: another corpus, other nets; its order is what can be compared."""


def tables_of(options: argparse.Namespace, folder: Path) -> list[EpisodeTable]:
    """Tables of all inputs, thinned, so that they hold the maps that are small."""
    root = data_dir(options.data)
    faces = root is not None and (root / "face").is_dir()
    scenes = f"scenes:videos={options.clips},frames={options.frames},height=120,width=160"
    config = BuildEpisodesConfig(
        data=(f"face:{root}/face" if faces else scenes,),
        output=str(folder),
        quality="accuracy",
        limit=options.clips,
        clip_frames=options.frames,
        segment_frames=0,
        horizon=24,
        key_stride=8,
        pictures=False,
        propagation=TablePropagationConfig(flow="flownet2_s", flow_weights=options.weights),
        features=("flow", CONV6_MEAN, *MAP_SETS),
    )
    run_build_episodes(config)
    return load_tables(folder)


def lessons(
    name: str, training: Sequence[EpisodeTable], held: Sequence[EpisodeTable], options: argparse.Namespace
) -> Lessons:
    """Pairs with this input, of the clips to learn from and of those left out."""
    if name in MAP_SETS and are_made(training, name):
        flow = flow_of(training[0].fingerprint, options.weights, 0)
        return made_lessons(training, held, name, flow, pairs=options.pairs, seed=0)
    names = spelled_out((name,), training[0].feature_names, maps=True)
    parts = [join_tables([with_features(table, names) for table in part]) for part in (training, held)]
    return lessons_of(parts[0], parts[1], 0)


def errors(tables: Sequence[EpisodeTable], options: argparse.Namespace) -> dict[str, list[float]]:
    """Input -> percent, fold by fold."""
    found: dict[str, list[float]] = {"mean": []}
    for fold in range(options.folds):
        held = [table for number, table in enumerate(tables) if number % options.folds == fold]
        training = [table for number, table in enumerate(tables) if number % options.folds != fold]
        for name, kind in INPUTS.items():
            pairs = lessons(name, training, held, options)
            assert pairs.validation is not None
            best = DecisionOptions(kind=kind, steps=options.steps, batch=64, val_every=options.steps)
            net, judged = learn(pairs, best).net, pairs.validation
            drawn = np.random.default_rng(0).permutation(len(judged.quality_W))[:2000]
            expected_W, true_W = net.confidence(judged.seen(drawn)), judged.quality_W[drawn]
            found.setdefault(name, []).append(100 * float(np.abs(expected_W - true_W).mean()))
            if name == "flow":
                mean = float(pairs.training.quality_W.mean())
                found["mean"].append(100 * float(np.abs(mean - true_W).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="of FlowNet2-s")
    parser.add_argument("--data", help="folder of real material")
    parser.add_argument("--json", help="also write the errors here")
    parser.add_argument("--tables", help="keep the tables here")
    for name, default in (("frames", 120), ("clips", 8), ("steps", 500), ("pairs", 2000), ("folds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = errors(tables_of(options, Path(options.tables or folder)), options)
    print(f"{'input':20} {'error %':>8}  folds{'':18} DVSNet Table 2")
    for name, percent in found.items():
        folds = " ".join(f"{each:.2f}" for each in percent)
        print(f"{name:20} {np.mean(percent):8.2f}  {folds:23} {PAPER.get(name, '')}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
