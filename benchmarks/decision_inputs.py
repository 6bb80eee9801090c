"""What a decision net should look at (DVSNet Table 2): error of the expected confidence, by input.

    python -m benchmarks.decision_inputs --weights FILE [--data DIR] [--json FILE] [--tables DIR]
        [--frames N] [--clips N] [--pairs N] [--folds N] [--seeds N] [--steps N] [--batch N]
        [--widths N ...] [--flow_size N]

Confidence is the share of a frame's pixels that agree with N (DVSNet Eq. 1); the labels stand in for N, and
are carried by the flow of the net whose maps are read, FlowNet2-s with the weights that are given
(`train-flow` makes some). Face clips, where they are at hand, and generated scenes, `--clips` of each.

Of each clip the same `--pairs` pairs serve every input: those that a net learns from, and those that it is
judged on. Clips are left out in turn (`--folds`), with `--seeds` nets each; every input gets a net of the
same `--widths`, batch and steps. Error: mean absolute difference to the true confidence on clips left out,
percent, as in the paper's table, each clip counting alike; 90 % intervals are drawn over clips. `mean`
always says the mean of the others.

The weights of the published figures (docs/policy.md), some two minutes of one core:

    vidseg train-flow --data davis:DIR/davis2016 --output OUT --net flownet2_s --size 160 --steps 700
        --data scenes:videos=16,frames=24,height=120,width=160,seed=900 --max_frames 48
        --recipe.height 64 --recipe.width 128 --recipe.batch 4
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.corpus import data_dir
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.catalogue import KEPT_MAPS, KEY_AND_FLOW, MAP_SETS, MAP_SHAPE
from vidseg_core.episodes.episodes_job import run_build_episodes
from vidseg_core.episodes.features import CONV6_MEAN, FEATURE_SETS, shape_in, spelled_out
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.training.decision_loop import DecisionOptions, Lessons, Samples, learn
from vidseg_core.training.made_maps import flow_of, maps_at
from vidseg_core.training.policy_loop import sample_cells

INPUTS = (KEY_AND_FLOW, "flownet_conv4", "flownet_conv5", "flownet_conv6", CONV6_MEAN, "flow")
"""`flow`: the cheap features, by the net that is called `light`."""
PAPER = {"key_and_flow": 2.20, "flownet_conv4": 1.94, "flownet_conv5": 1.85, "flownet_conv6": 1.74}
"""Table 2, percent: another corpus, other nets; its order is what can be compared."""
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class ClipPairs:
    """The pairs of one clip, with all inputs."""

    kind: str
    quality_W: np.ndarray
    seen: Mapping[str, np.ndarray]
    """Input -> values_WM."""
    about: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]]
    """Input -> names of what is read, and what a net reads of it."""


def tables_of(options: argparse.Namespace, folder: Path) -> dict[str, list[EpisodeTable]]:
    """Kind of clips -> tables, thinned, so that they hold the maps that tables keep."""
    root = data_dir(options.data)
    sources = {"scenes": f"scenes:videos={options.clips},frames={options.frames},height=120,width=160"}
    if root is not None and (root / "face").is_dir():
        sources["faces"] = f"face:{root}/face"
    for kind, source in sources.items():
        config = BuildEpisodesConfig(
            data=(source,),
            output=str(folder / kind),
            quality="accuracy",
            limit=options.clips,
            clip_frames=options.frames,
            segment_frames=0,
            horizon=24,
            key_stride=8,
            pictures=False,
            propagation=TablePropagationConfig(
                flow="flownet2_s", flow_weights=options.weights, flow_size=options.flow_size
            ),
            features=("flow", CONV6_MEAN, *MAP_SETS),
        )
        run_build_episodes(config)
    return {kind: load_tables(folder / kind) for kind in sources}


def pairs_of(table: EpisodeTable, kind: str, weights: str | None, pairs: int) -> ClipPairs:
    """Pairs of a clip, the same ones for every input."""
    cells_W, quality_W = sample_cells(join_tables([table]), 0, pairs)
    made = tuple(name for name in MAP_SETS if name not in KEPT_MAPS)
    seen = maps_at([table], cells_W, made, flow_of(table.fingerprint, weights, 0))
    about = {}
    for name in INPUTS:
        names = FEATURE_SETS.get(name) or spelled_out((name,), table.feature_names, maps=True)
        if name not in made:
            seen[name] = join_tables([with_features(table, names)]).seen(cells_W)
        shape = {MAP_SHAPE: shape_in(table.fingerprint, name)} if name in MAP_SETS else {}
        about[name] = tuple(names), {**table.fingerprint, **shape}
    return ClipPairs(kind=kind, quality_W=quality_W, seen=seen, about=about)


def lessons(name: str, clips: Sequence[ClipPairs]) -> Lessons:
    """What a net learns from that reads this input."""
    values_WM = np.concatenate([clip.seen[name] for clip in clips])
    names, fingerprint = clips[0].about[name]
    return Lessons(
        feature_names=names,
        fingerprint=fingerprint,
        training=Samples(
            quality_W=np.concatenate([clip.quality_W for clip in clips]),
            seen=lambda places_B: values_WM[places_B].astype(np.float32),
        ),
        validation=None,
        scale_WF=values_WM if name == "flow" else None,
    )


def errors(clips: Sequence[ClipPairs], options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Input -> percent_SC: seed by seed, clip by clip."""
    found = {name: np.zeros((options.seeds, len(clips))) for name in ("mean", *INPUTS)}
    for fold in range(options.folds):
        held = [number for number in range(len(clips)) if number % options.folds == fold]
        training = [clip for number, clip in enumerate(clips) if number not in held]
        mean = float(np.concatenate([clip.quality_W for clip in training]).mean())
        for number in held:
            found["mean"][:, number] = 100 * np.abs(clips[number].quality_W - mean).mean()
        for name in INPUTS:
            known = lessons(name, training)
            for seed in range(options.seeds):
                net = learn(known, recipe(name, seed, options)).net
                for number in held:
                    clip = clips[number]
                    expected_W = net.confidence(clip.seen[name].astype(np.float32))
                    found[name][seed, number] = 100 * np.abs(expected_W - clip.quality_W).mean()
            print(
                f"fold {fold + 1} of {options.folds}, {name}: {found[name][:, held].mean():.2f}", flush=True
            )
    return found


def recipe(name: str, seed: int, options: argparse.Namespace) -> DecisionOptions:
    """One for all inputs, but for the shape of the net that reads numbers."""
    return DecisionOptions(
        kind="light" if name == "flow" else "dvrl",
        widths=None if name == "flow" else tuple(options.widths),
        steps=options.steps,
        batch=options.batch,
        val_every=options.steps,
        seed=seed,
    )


def over_clips(value_C: np.ndarray) -> tuple[float, float]:
    """90 % interval of the mean, clips drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, len(value_C), (DRAWS, len(value_C)))
    low, high = np.percentile(value_C[draws].mean(axis=1), [5, 95])
    return float(low), float(high)


def describe(found: Mapping[str, np.ndarray], kinds: Sequence[str]) -> list[str]:
    """The table: error, interval, between which seeds; error by kind; how much worse than whole conv6."""
    names = sorted(set(kinds))
    lines = [
        f"{'input':19} error %  90 % over clips  seeds        {'  '.join(names)}  - conv6 [90 %]  DVSNet"
    ]
    best_C = found["flownet_conv6"].mean(axis=0)
    for name, percent_SC in found.items():
        mean_C, seeds_S = percent_SC.mean(axis=0), percent_SC.mean(axis=1)
        low, high = over_clips(mean_C)
        by_kind = "  ".join(
            f"{mean_C[[each == kind for each in kinds]].mean():{len(kind)}.2f}" for kind in names
        )
        worse = over_clips(mean_C - best_C)
        lines.append(
            f"{name:19} {mean_C.mean():7.2f}  [{low:5.2f}, {high:5.2f}]  "
            f"{seeds_S.min():.2f}..{seeds_S.max():.2f}"
            f"  {by_kind}  {(mean_C - best_C).mean():+.2f} [{worse[0]:+.2f}, {worse[1]:+.2f}]"
            f"  {PAPER.get(name, '')}"
        )
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="of FlowNet2-s")
    parser.add_argument("--data", help="folder of real material")
    parser.add_argument("--json", help="also write the errors here")
    parser.add_argument("--tables", help="keep the tables here")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[1024, 128], help="of the nets that read maps"
    )
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=250)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--flow_size", type=int, default=256)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tables = tables_of(options, Path(options.tables or folder))
        clips = [
            pairs_of(table, kind, options.weights, options.pairs)
            for kind, each in tables.items()
            for table in each
        ]
    found, kinds = errors(clips, options), [clip.kind for clip in clips]
    print("\n".join(describe(found, kinds)))
    if options.json:
        rows = {name: percent_SC.tolist() for name, percent_SC in found.items()}
        Path(options.json).write_text(json.dumps({"kinds": kinds, **rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
