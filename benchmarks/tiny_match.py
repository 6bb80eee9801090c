r"""Trains the net of `match`: in two folds that figures are made with, and on all clips.

    python -m benchmarks.tiny_match --export FOLDER [--data DIR] [--stage base|fold0|fold1|all] [--steps N]

`base` learns from what nobody had to label (drawn scenes, blobs pasted before the unlabelled videos); `fold0`
and `fold1` go on from it with the labelled clips of the other fold, and with objects cut out of them; `all`
does so with all clips. Without --stage all four. A clip's fold is its place among the clips of its kind, even
or odd, so `benchmarks.match` can judge each clip by a net that has not seen it. `tiny-match` in the package
is `fold0`: the clips of fold 0 are left out of it. Keys have true labels, or in a part of the clips those of
a bundled net, with its mistakes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models import build_segmenter
from vidseg_core.models.match import MatchNet, new_match, read_match
from vidseg_core.propagation.lesson import Lesson
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.match import FILE, MatchLearner, as_seen_by, lessons_of
from vidseg_core.training.match_clips import drawn_clip, pasted_clip
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions

SIZE, FRAMES, MAX_GAP = 256, 120, 56
LABELLED = ("davis:{root}/davis2016", "face:{root}/face", "camvid:{root}/camvid/clip_0016E5_15hz")
FOOTAGE = ("opencv_box.mp4", "opencv_vtest.avi", "udacity_solidWhiteRight.mp4")
MADE_SIZE, MADE_FRAMES = (144, 256), 60
STAGES = ("base", "fold0", "fold1", "all")
STEPS = {"base": 1500, "fold0": 350, "fold1": 350, "all": 400}
RATES = {"base": 3e-3, "fold0": 1.5e-3, "fold1": 1.5e-3, "all": 1.5e-3}
Part = tuple[list[FlowClip], int]
"""Clips, and how many gaps are drawn from them."""


def labelled_clips(root: Path) -> list[list[FlowClip]]:
    """Fast outdoor clips, faces, the street: each sorted by name."""
    kinds = []
    for text in LABELLED:
        dataset = open_dataset(text.format(root=root))
        clips = [clip for clip in dataset_clips(dataset, "all", SIZE, FRAMES) if _known(clip)]
        kinds.append(sorted(clips, key=lambda clip: clip.name))
    return kinds


def _known(clip: FlowClip) -> bool:
    """Is a pixel of it labelled?"""
    return clip.labels_THW is not None and bool((clip.labels_THW != IGNORE).any())


def learned(clips: Sequence[FlowClip], stage: str) -> list[FlowClip]:
    """Those that the nets of this stage may see."""
    return [clip for number, clip in enumerate(clips) if stage == "all" or number % 2 != int(stage[-1])]


def footage(root: Path) -> list[FlowClip]:
    """Unlabelled videos."""
    sets = [open_dataset(f"videos:{root}/videos/{name}") for name in FOOTAGE]
    return list(chain.from_iterable(dataset_clips(one, "all", SIZE, FRAMES) for one in sets))


def masks_of(name: str, clips: Sequence[FlowClip]) -> list[FlowClip]:
    """The clips with a net's masks for labels, on keys and between them."""
    bare = [replace(clip, name=f"{clip.name} by {name}", labels_THW=None) for clip in clips]
    return list(as_seen_by(build_segmenter(name), bare, "cpu"))


def material(stage: str, root: Path) -> list[Part]:
    """What a stage learns from."""
    first = STAGES.index(stage) * 1000
    if stage == "base":
        drawn = [drawn_clip(1000 + n, MADE_FRAMES, MADE_SIZE) for n in range(16)]
        return [
            (drawn, 90),
            (masks_of("tiny-scenes", drawn[:6]), 30),
            (_pasted(footage(root), [], range(first, first + 24)), 120),
        ]
    outdoor, faces, street = (learned(clips, stage) for clips in labelled_clips(root))
    drawn = [drawn_clip(2000 + n, MADE_FRAMES, MADE_SIZE) for n in range(5)]
    pasted = _pasted([*footage(root), *outdoor, *street], [*outdoor, *faces], range(first, first + 10))
    parts = [(outdoor, 40), (faces, 30), (street, 12 if street else 0), (drawn, 16), (pasted, 24)]
    return [*parts, (masks_of("tiny-face", faces[:2]), 6)]


def _pasted(backgrounds: list[FlowClip], labelled: list[FlowClip], seeds: Sequence[int]) -> list[FlowClip]:
    return [
        pasted_clip(
            f"pasted-{seed}",
            backgrounds,
            labelled,
            np.random.default_rng(seed),
            frames=MADE_FRAMES,
            size=MADE_SIZE,
        )
        for seed in seeds
    ]


def lessons(parts: Sequence[Part]) -> list[Lesson]:
    """Of each part, as many gaps as it says."""
    drawn = (lessons_of(clips, gaps, n, MAX_GAP) for n, (clips, gaps) in enumerate(parts) if clips and gaps)
    return list(chain.from_iterable(drawn))


def fit(stage: str, root: Path, start: MatchNet, folder: Path, steps: int | None) -> Path:
    """The stage's file in the folder; a run that was stopped goes on."""
    recipe = PropagationRecipe(
        steps=steps or STEPS[stage], lr=RATES[stage], batch=8, width=160, warmup=50, weight_decay=1e-3
    )
    config = TrainPropagationConfig(
        data=LABELLED, segmenter="tiny-scenes", output=str(folder), propagator="match", recipe=recipe
    )
    learner = MatchLearner(config, build_segmenter(config.segmenter), "cpu", start)
    began = time.monotonic()
    learner.lessons = lessons(material(stage, root))
    print(f"{stage}: {len(learner.lessons)} lessons in {time.monotonic() - began:.0f} s", flush=True)
    options = PropagationOptions(
        folder=folder / stage, save_every=50, log_every=50, fingerprint=f"{stage} {recipe}"
    )
    loop = PropagationLoop(learner, footage(root), options, watch=lambda row: print(_line(row), flush=True))
    loop.run()
    path = folder / f"{stage}.safetensors"
    path.write_bytes(learner.files(loop.weights())[FILE])
    return path


def _line(row: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--export", type=Path, required=True, help="gets weights and checkpoints")
    parser.add_argument(
        "--data", help="folder with face, davis2016, camvid and videos (default: $VIDSEG_DATA)"
    )
    parser.add_argument("--stage", choices=STAGES, help="one of them, after base; default: all of them")
    parser.add_argument("--steps", type=int, help="instead of the stage's own number")
    options = parser.parse_args()
    root = data_dir(options.data)
    if root is None:
        parser.error("--data: no folder of labelled clips here")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    options.export.mkdir(parents=True, exist_ok=True)
    for stage in [options.stage] if options.stage else STAGES:
        start = new_match() if stage == "base" else read_match(options.export / "base.safetensors")
        print(fit(stage, root, start, options.export, options.steps), flush=True)


if __name__ == "__main__":
    main()
