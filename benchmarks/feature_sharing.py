"""FeatureSharing between the net that it saves and the net without those levels (Tables 5.1 and 5.2).

    python -m benchmarks.feature_sharing [--data DIR] [--material scenes] [--steps N] [--all] [--json FILE]
        [--keep DIR] [--quick] [--net fpn-densenet121 --pretrain 1500]

The whole net, as it came and trained on as long as the others. For one and for two cached levels: the net
without them (`truncated`, as it came and trained: where it is not worse as it came, there is nothing to
share), the net with them taken from keys, as it came (`copied`) and after
`train-propagation` (`shared`: L1 and alpha by distance; with `--all` what Table 5.2 has beside that). All
start from the same weights and learn as many steps from the same clips; clips left out are scored with true
labels, each distance between keys in a run of its own through the engine. The mean weighs keys and frames
between them as chapter 5 does. ms a frame: processor time of everything on one core; with `--steps 0` of 30
frames, and nothing is trained.
`--pretrain`: first train the whole net, too, which for `fpn-densenet121` starts from random weights.
`--keep`: what was trained is kept there and found again, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator

from benchmarks.clips import through
from benchmarks.propagators.bench import Bench
from benchmarks.propagators.material import MATERIAL
from vidseg_core.config.recipes import PropagationRecipe, SharingRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.engine import Engine
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.metrics.schedule import distance_weighted_mean
from vidseg_core.models import build_segmenter
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation import build_propagator
from vidseg_core.propagation.propagators import AnyPropagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.training.flow_clips import ClipCut, FlowClip, cut_out
from vidseg_core.training.flow_loss import scores_loss
from vidseg_core.training.learner import Learner
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.sharing import FILE, Settled, SharingLearner, draw_numbers, labelled_frames

DISTANCES = (2, 5, 10, 15)
VARIANTS: Mapping[str, SharingRecipe] = {
    "shared, L1, alpha 1/(d+1)": SharingRecipe(),
    "shared, L1, alpha .3": SharingRecipe(alpha=0.3),
    "shared, L2, alpha .3": SharingRecipe(alpha=0.3, norm="l2"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One net, keys every `distance` frames."""

    method: str
    levels: int
    distance: int
    key: float
    """mIoU of keys, 0..1, and of the frames between them."""
    current: float
    mean: float
    ms: float


class Supervised(Learner):
    """Labels of single frames: how the whole net and those without levels learn."""

    losses = ("labels",)
    file_names = (FILE,)

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, *, settled: bool) -> None:
        super().__init__(config, segmenter, "cpu")
        assert isinstance(segmenter, SplitSegmenter)
        net = segmenter.net.requires_grad_(True)
        self.net = Settled(net) if settled else net

    def weight(self, loss: str) -> float:
        return 1.0

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> ClipCut:
        clip = clips[int(random.integers(len(clips)))]
        numbers = draw_numbers(labelled_frames(clip), random, self.recipe)
        return cut_out(clip, numbers, random, height=self.recipe.height, width=self.recipe.width)

    def judge(self, cuts: Sequence[ClipCut]) -> Mapping[str, torch.Tensor]:
        frames = self.pictures([cut.frames_Thw3[0] for cut in cuts])
        labels_Bhw = self.tensor([cut.labels_Thw[0] for cut in cuts]).long()
        return {"labels": scores_loss(self.segmenter.head(self.segmenter.features(frames)), labels_Bhw)}

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        state = {name.removeprefix("net.").removeprefix("inner."): weights[name] for name in weights}
        return {FILE: weights_bytes(state, self.segmenter.class_names)}

    def read(self, folder: Path) -> tuple[Segmenter, AnyPropagator]:
        weights, names = str(folder / FILE), self.segmenter.class_names
        segmenter = build_segmenter(self.config.segmenter, weights=weights, class_names=names)
        return segmenter, build_propagator("copy")  # no propagator is learned

    def use(self, folder: Path) -> str:
        return f"--weights {folder / FILE}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What all rows have in common."""

    bench: Bench
    net: str
    weights: str | None
    """Of the whole net; None: its own."""
    recipe: PropagationRecipe
    folder: Path

    @cached_property
    def judged(self) -> list[FlowClip]:
        """The clips left out; where nothing is trained some frames of one suffice."""
        clips = self.bench.judged
        if self.recipe.steps:
            return clips
        short = replace(clips[0], frames_THW3=clips[0].frames_THW3[:30])
        return [replace(short, labels_THW=clips[0].labels_THW[:30])]  # type: ignore[index]

    def train(self, spec: str, name: str, sharing: SharingRecipe | None = None, **recipe: Any) -> str | None:
        """The weights' file of this net, trained; with 0 steps its own weights."""
        if not self.recipe.steps:
            return self.weights
        config = TrainPropagationConfig(
            data=("-",),
            propagator="feature_sharing",
            segmenter=spec,
            segmenter_weights=self.weights,
            output=name,
            recipe=replace(self.recipe, **recipe),
            sharing=sharing or SharingRecipe(),
        )
        net = self.build(spec, self.weights)
        if spec.startswith("sharing"):
            learner: Learner = SharingLearner(config, net, "cpu")
        else:
            learner = Supervised(config, net, settled=self.weights is not None or net.trained)
        folder = self.folder / re.sub(r"\W+", "-", f"{spec} {name} {config.recipe.steps}")
        if not (folder / FILE).is_file():
            print(f"{spec}: {name}", flush=True)
            steps = config.recipe.steps
            options = PropagationOptions(folder=folder, save_every=20, log_every=max(1, steps // 5))
            loop = PropagationLoop(learner, self.bench.learn, options, watch=print)
            loop.run()
            (folder / FILE).write_bytes(learner.files(loop.weights())[FILE])
        return str(folder / FILE)

    def build(self, spec: str, weights: str | None) -> Segmenter:
        return build_segmenter(spec, weights=weights, class_names=self.bench.net.class_names)

    def rows(
        self, method: str, levels: int, spec: str, weights: str | None, distances: Sequence[int]
    ) -> list[Row]:
        """A net that shares is run with keys at each distance, another one once, on every frame."""
        if spec.startswith("sharing"):
            runs = {distance: self._run(spec, weights, distance) for distance in distances}
        else:
            runs = dict.fromkeys(distances, self._run(spec, weights, 1))
        return [self._row(method, levels, distance, *runs[distance]) for distance in distances]

    def _run(self, spec: str, weights: str | None, interval: int) -> tuple[list[list[np.ndarray]], float]:
        """The masks of each clip, and ms a frame."""
        engine = Engine(
            self.build(spec, weights),
            build_scheduler("fixed", interval=interval),
            build_propagator("feature_sharing" if spec.startswith("sharing") else "copy"),
            sides="one",
        )
        started = time.process_time()
        masks = [[row.labels_HW for row in through(engine, clip)] for clip in self.judged]
        return masks, 1000.0 * (time.process_time() - started) / sum(map(len, masks))

    def _row(self, method: str, levels: int, distance: int, masks: list[list[np.ndarray]], ms: float) -> Row:
        counts = {is_key: ConfusionMatrix(len(self.bench.net.class_names)) for is_key in (True, False)}
        for clip, found in zip(self.judged, masks, strict=True):
            for number, (mask_HW, truth_HW) in enumerate(zip(found, clip.labels_THW, strict=True)):  # type: ignore[arg-type]
                counts[number % distance == 0].update(mask_HW, truth_HW)
        key, current = (counts[is_key].mean_iou() for is_key in (True, False))
        return Row(
            method=method,
            levels=levels,
            distance=distance,
            key=key,
            current=current,
            mean=distance_weighted_mean(key, current, distance),
            ms=ms,
        )


def rows_of(
    trial: Trial, cached: Sequence[int], distances: Sequence[int], variants: Mapping[str, SharingRecipe]
) -> list[Row]:
    """Every row of the table."""
    nets: list[tuple[str, int, str, str | None]] = [("whole", 0, trial.net, trial.weights)]
    nets.append(("whole, trained on", 0, trial.net, trial.train(trial.net, "supervised")))
    for levels in cached:
        truncated, sharing = f"truncated:{levels}/{trial.net}", f"sharing:{levels}/{trial.net}"
        nets.append(("truncated, as it came", levels, truncated, trial.weights))
        nets.append(("truncated", levels, truncated, trial.train(truncated, "supervised")))
        nets.append(("copied", levels, sharing, trial.weights))
        for name, losses in variants.items():
            nets.append((name, levels, sharing, trial.train(sharing, name, losses)))
    return [row for net in nets for row in trial.rows(*net, distances)]


def table(rows: Sequence[Row], distances: Sequence[int]) -> str:
    """A line for each net: keys, frames between them, weighted mean and ms at each distance."""
    head = "".join(f"{f'every {distance}':>28}" for distance in distances)
    lines = [f"{'mIoU of keys / others / mean (ms a frame)':<44}{head}"]
    for method, levels in dict.fromkeys((row.method, row.levels) for row in rows):
        found = [row for row in rows if (row.method, row.levels) == (method, levels)]
        cells = "".join(f"{r.key:>9.3f} {r.current:.3f} {r.mean:.3f} ({r.ms:4.1f})" for r in found)
        lines.append(f"{f'{method}, {levels} level(s)' if levels else method:<44}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="the folder of real material ($VIDSEG_DATA)")
    parser.add_argument("--material", choices=tuple(MATERIAL), default="scenes")
    parser.add_argument("--net", help="the whole net; by default that of the material")
    parser.add_argument("--pretrain", type=int, default=0, help="steps of the whole net before all else")
    parser.add_argument("--steps", type=int, default=600, help="0: times only, nothing is trained")
    parser.add_argument("--levels", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    parser.add_argument("--all", action="store_true", help="the other losses of Table 5.2, too")
    parser.add_argument("--keep", type=Path, help="folder in which what was trained is kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="20 steps, one distance")
    options = parser.parse_args()
    options.device = "cpu"
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    steps, distances = (20, DISTANCES[:1]) if options.quick else (options.steps, DISTANCES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        bench = Bench(options.material, 0, options, folder)
        height, width = bench.material.crop
        recipe = PropagationRecipe(height=height, width=width, steps=steps, batch=4, lr=3e-4, max_gap=15)
        trial = Trial(
            bench=bench, net=bench.net_spec, weights=bench.net_weights, recipe=recipe, folder=folder
        )
        if options.net:
            trial = replace(trial, net=options.net, weights=None)
        if options.pretrain:
            weights = trial.train(trial.net, "whole", steps=options.pretrain, lr=1e-3)
            trial = replace(trial, weights=weights)
        rows = rows_of(
            trial, options.levels, distances, VARIANTS if options.all else dict([*VARIANTS.items()][:1])
        )
        print(f"\n{trial.net}, left out: {', '.join(clip.name for clip in bench.judged)}")
        print(table(rows, distances))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
