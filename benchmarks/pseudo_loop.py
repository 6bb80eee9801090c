"""Does a student learn from a teacher's labels: 10 % of the labels, with and without pseudo-labels.

    python -m benchmarks.pseudo_loop [--set scenes|faces|both] [--seeds 0 1 2] [--steps N] [--json FILE]

The loop of ETC Algorithm 1, steps 1 to 4 (without temporal losses), as a user would run it: a teacher (twice
as wide, more steps, samples in more variety) is trained on the labelled tenth, `vidseg
pseudo-label` lets it label all training clips (key frames and propagation, two scales and flip, unsure pixels
ignored), and a student is trained on the tenth and on those labels, mixed half and half. The baseline is the
same student, trained for as many steps in the same way on the tenth alone. Both are measured on clips that
nobody trained on; IoU from one confusion matrix (faces: the four face classes, labels from landmarks). The
labelled tenth is one scene of ten, or every third frame of two or three clips of faces; each seed labels
other ones and starts other nets.
Frames are small (a longest side of 128), so that all of it takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.committed import Committed, Memory, committed, measure, trained
from benchmarks.corpus import data_dir
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.recipes import AugmentRecipe
from vidseg_core.config.segment import SchedulerConfig, TtaConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import IGNORE, Record
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import SceneClip, read_labels, write_scene_video
from vidseg_core.models.trainable import trainable_net
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.training.data import TrainingData
from vidseg_core.training.loop import LoopOptions, train
from vidseg_core.training.loss import balance_weights
from vidseg_core.training.samples import Listed, SampleOrder, TrainingSet, resized

TEACHER, STUDENT = "tiny:16", "tiny:8"
SIDE, CROP = 128, 96
"""Longest side of a frame, and side of a training sample, pixels."""
SCENE_SIDE = 256
"""Longest side at which scenes are drawn, pixels."""
LABELLED = 0.1
"""Share of all frames."""
FACE_BALANCE = 0.3
"""As for scenes: eyes and lips are a few hundred pixels at this size."""
PLAIN: dict[str, Any] = {"scale_min": 0.75, "scale_max": 1.25, "focus": 0.3}
"""How a student's samples vary: scale, crop and flip, as in the papers. Few labels then are few."""
MILD: dict[str, Any] = {
    "rotate": 10.0,
    "colour": 0.3,
    "blur": 0.1,
    "scale_min": 0.6,
    "scale_max": 1.4,
    "stretch": 0.1,
    "focus": 0.5,
}
RATIO = 0.5
"""Share of pseudo-labelled samples in a batch."""
TTA_SCALES = (1.0, 1.5)
"""Sizes at which the teacher looks at a frame; each mirrored too."""
INTERVAL = 4
"""Frames from key to key when the teacher labels."""
FRAMES = 60
"""Frames of a clip that training and measuring look at, spread over it."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video with true labels for every frame that is looked at."""

    video: Path
    records: list[Record]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What one table is made from."""

    name: str
    class_names: tuple[str, ...]
    recipe: Committed
    train: list[Clip]
    val: list[Clip]
    counted: slice
    """Classes whose mean is the score."""
    teacher_steps: float
    """Of the student's steps: a net twice as wide takes longer."""
    labelled_every: int
    """Which frames of a labelled clip: neighbours show nearly the same. Three scenes teach all of a class's
    looks, so there a single clip is labelled, and whole."""
    sure: float
    """Confidence below which a teacher's label is ignored. Scenes have thin shapes, and all of a shape's edge
    is unsure; a face's teacher is often wrong where it is unsure."""


def scene_corpus(folder: Path) -> Corpus:
    """Generated clips: ten to train on, ten to measure."""
    clips = []
    for number in range(20):
        config = SceneConfig(seed=700 + number, frames=40, height=192, width=SCENE_SIDE)
        clips.append(_scene(write_scene_video(folder / f"scene{number:02d}.mp4", config)))
    return Corpus(
        name="scenes",
        class_names=SCENE_CLASSES,
        recipe=committed("tiny-scenes"),
        train=clips[:10],
        val=clips[10:],
        counted=slice(0, None),
        teacher_steps=2.0,
        labelled_every=1,
        sure=0.0,
    )


def face_corpus(root: Path) -> Corpus:
    """Talking heads with landmark labels: every third clip is measured.

    The teacher's recipe is that of `tiny-face` with milder variation, since a quarter of its steps must do.
    """
    dataset = open_dataset(f"face:{root / 'face'}?size={SIDE}")
    found: dict[str, list[Any]] = {}
    for item in dataset.items("all"):
        found.setdefault(item.video_id, []).append(item)
    clips = []
    for items in found.values():
        records = [dataset.read(items[place]) for place in _spread(len(items))]
        if any((record.labels_HW != IGNORE).any() for record in records if record.labels_HW is not None):
            clips.append(Clip(video=Path(items[0].image), records=records))
    recipe = committed("tiny-face")
    return Corpus(
        name="faces",
        class_names=dataset.class_names,
        recipe=replace(
            recipe,
            augment=replace(recipe.augment, **MILD),
            recipe=replace(recipe.recipe, class_balance=FACE_BALANCE),
        ),
        train=[clip for place, clip in enumerate(clips) if place % 3 != 1],
        val=[clip for place, clip in enumerate(clips) if place % 3 == 1],
        counted=slice(1, None),
        teacher_steps=1.5,
        labelled_every=3,
        sure=0.7,
    )


def _scene(made: SceneClip) -> Clip:
    records = [
        Record(
            video_id=made.video.stem,
            frame_index=index,
            frame_HW3=frame_HW3.copy(),
            labels_HW=read_labels(made.labels, index),
        )
        for index, frame_HW3 in source_frames(str(made.video), SCENE_SIDE)
    ]
    return Clip(video=made.video, records=[resized(record, SIDE) for record in records])


def _spread(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int).tolist()))


def labelled_tenth(corpus: Corpus, seed: int) -> list[Record]:
    """Frames of clips, other clips for each seed, until a tenth of all frames is there."""
    wanted = LABELLED * sum(len(clip.records) for clip in corpus.train)
    order = np.random.default_rng(seed).permutation(len(corpus.train))
    records: list[Record] = []
    for place in order:
        records += corpus.train[place].records[:: corpus.labelled_every]
        if len(records) >= wanted:
            break
    return records[: round(wanted)]


def pseudo_labels(corpus: Corpus, weights: Path, output: Path, seed: int) -> list[Record]:
    """What the teacher says of all training clips, as `train-segmenter --pseudo` would read it."""
    config = PseudoLabelConfig(
        input=tuple(str(clip.video) for clip in corpus.train),
        output=str(output),
        segmenter=TEACHER,
        weights=str(weights),
        working_size=str(SIDE),
        scheduler=SchedulerConfig(interval=INTERVAL),
        tta=TtaConfig(scales=TTA_SCALES, flip=True),
        min_confidence=corpus.sure,
        seed=seed,
        log="json",
    )
    if run_segment(config) != 0:
        raise SystemExit("pseudo-labelling failed")
    dataset = open_dataset(f"tables:{output}")
    by_clip: dict[str, list[Any]] = {}
    for item in dataset.items("all"):
        by_clip.setdefault(item.video_id, []).append(item)
    chosen = [items[place] for items in by_clip.values() for place in _spread(len(items))]
    return [dataset.read(item) for item in chosen]


def fit_net(
    what: Committed, labelled: list[Record], pseudo: list[Record], corpus: Corpus, folder: Path
) -> Path:
    """The weights after training on the labelled frames, mixed with pseudo-labelled ones if there are any."""
    folder.mkdir(parents=True)
    names = corpus.class_names
    sets = [Memory(records, names) for records in (labelled, pseudo)]
    listed = [[Listed(memory, item) for item in memory.items("train")] for memory in sets]
    data = TrainingData(class_names=names, labelled=tuple(listed[0]), pseudo=tuple(listed[1]), validation=())
    share = RATIO if pseudo else 0.0
    order = SampleOrder(
        seed=what.seed,
        batch=what.recipe.batch,
        labelled=len(labelled),
        pseudo=len(pseudo),
        pseudo_ratio=share,
    )
    samples = TrainingSet(order, listed[0], what.augment, pseudo=listed[1])
    weights_C = balance_weights(data.class_pixels(share), what.recipe.class_balance)
    net = trainable_net(what.segmenter, class_names=names, seed=what.seed)
    options = LoopOptions(
        recipe=what.recipe,
        folder=folder,
        seed=what.seed,
        val_every=what.recipe.steps,
        class_weights=None if weights_C is None else tuple(weights_C.tolist()),
    )
    train(net, lambda start: samples.batches(start, what.recipe.steps), options)
    return folder / "last.safetensors"


def one_seed(corpus: Corpus, seed: int, steps: int, scratch: Path) -> dict[str, Any]:
    """Mean IoU of teacher, student alone and student with pseudo-labels."""
    base = replace(corpus.recipe, seed=seed).with_steps(steps)
    base = replace(base, augment=replace(base.augment, crop=CROP))
    teacher = replace(base, segmenter=TEACHER)
    student = replace(base, segmenter=STUDENT, augment=AugmentRecipe(crop=CROP, **PLAIN))
    labelled = labelled_tenth(corpus, seed)
    val = [record for clip in corpus.val for record in clip.records[::2]]
    alone = fit_net(student, labelled, [], corpus, scratch / "alone")
    long = teacher.with_steps(round(corpus.teacher_steps * steps))
    weights = fit_net(long, labelled, [], corpus, scratch / "teacher")
    pseudo = pseudo_labels(corpus, weights, scratch / "run", seed)
    both = fit_net(student, labelled, pseudo, corpus, scratch / "both")

    def score(what: Committed, path: Path) -> float:
        matrix = measure(trained(what, path), val, len(corpus.class_names))
        return float(np.nanmean(matrix.iou()[corpus.counted]))

    return {
        "set": corpus.name,
        "seed": seed,
        "labelled_frames": len(labelled),
        "pseudo_frames": len(pseudo),
        "teacher": score(teacher, weights),
        "alone": score(student, alone),
        "with_pseudo": score(student, both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("scenes", "faces", "both"), default="both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=500, help="of a student; the teacher gets more")
    parser.add_argument("--min_confidence", type=float, help="default: the set's own")
    parser.add_argument("--json")
    parser.add_argument("--data")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as scratch:
        for corpus in _corpora(args.set, args.data, Path(scratch)):
            if args.min_confidence is not None:
                corpus = replace(corpus, sure=args.min_confidence)
            for seed in args.seeds:
                place = Path(scratch) / f"{corpus.name}-{seed}"
                rows.append(one_seed(corpus, seed, args.steps, place))
                print(_line(rows[-1]), flush=True)
            mine = [row for row in rows if row["set"] == corpus.name]
            gains = [row["with_pseudo"] - row["alone"] for row in mine]
            won = sum(gain > 0 for gain in gains)
            print(
                f"{corpus.name}: with pseudo-labels {statistics.mean(gains):+.3f} on average, "
                f"better in {won} of {len(gains)} seeds"
            )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _corpora(which: str, data: str | None, scratch: Path) -> list[Corpus]:
    corpora = [scene_corpus(scratch / "scenes")] if which != "faces" else []
    root = data_dir(data)
    if which != "scenes":
        if root is None:
            raise SystemExit("benchmarks.pseudo_loop needs face clips for this: give --data DIR (with face/)")
        corpora.append(face_corpus(root))
    return corpora


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['set']} seed {row['seed']}: {row['labelled_frames']} labelled, {row['pseudo_frames']} "
        f"pseudo-labelled frames; mIoU teacher {row['teacher']:.3f}, student alone {row['alone']:.3f}, "
        f"with pseudo-labels {row['with_pseudo']:.3f} ({row['with_pseudo'] - row['alone']:+.3f})"
    )


if __name__ == "__main__":
    main()
