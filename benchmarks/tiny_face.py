"""`tiny-face` on people it never saw: leave-clips-out training by the committed recipe.

    python -m benchmarks.tiny_face [--folds 3] [--only FOLD] [--steps N] [--json FILE] [--sheet FOLDER]
    python -m benchmarks.tiny_face --export FOLDER     # what the package holds: trained on all clips

The clips with labels are dealt into folds; for each fold a net is trained from nothing on the other clips and
measured on the fold. Labels come from face landmarks, so read every figure as agreement with the landmark
labels. Score: IoU from one confusion matrix over the frames of all held-out clips, at the labels' size, for
each class and as the mean over the four face classes. A clip without any label takes no part. Frames of other
footage of the data (`davis2016`, `videos`), where nobody's face is near, teach what is no face. Baseline
`mean shape`: the most frequent label at each relative place of the frame, from the same training clips. The
bundled weights saw all these clips: their row says how they fit, not how they generalise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from benchmarks.committed import Committed, committed, fit, measure, predict
from benchmarks.corpus import data_dir
from vidseg_core.classes import FACE_CLASSES
from vidseg_core.datasets.records import IGNORE, Record
from vidseg_core.drawing.palette import PALETTE
from vidseg_core.metrics import ConfusionMatrix
from vidseg_core.models import Segmenter, build_segmenter
from vidseg_core.training.samples import resized

FACE = slice(1, None)
"""The four face classes."""
FRAMES_PER_CLIP = 60
BACKGROUNDS_PER_CLIP = 12
MAP_SIDE = 128
SIDE = 512
"""Longest side of background frames, as of the clips."""
BACKGROUND_EVERY = 5
MEASURED_EVERY = 2
"""Of the frames that are kept of a clip, every so manieth is measured."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames of one clip, spread over it; neighbours are near-duplicates."""

    name: str
    records: list[Record]

    @property
    def labelled(self) -> bool:
        return any((record.labels_HW != IGNORE).any() for record in self.records)


def face_clips(root: Path, frames: int) -> list[Clip]:
    """All clips of the folder; frames shrink to the size of their labels."""
    return [_clip(video, frames) for video in sorted((root / "face").glob("*.mp4"))]


def _clip(video: Path, frames: int) -> Clip:
    files = sorted((video.parent / f"{video.stem}_labels").glob("*.png"))
    wanted = {int(files[place].stem): files[place] for place in spread(len(files), frames)}
    records = []
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                labels_HW = cv2.imread(str(wanted[index]), cv2.IMREAD_UNCHANGED)
                assert labels_HW is not None
                size = (labels_HW.shape[1], labels_HW.shape[0])
                frame_HW3 = cv2.resize(frame.to_ndarray(format="rgb24"), size, interpolation=cv2.INTER_AREA)
                records.append(
                    Record(
                        video_id=video.stem,
                        frame_index=index,
                        frame_HW3=frame_HW3,
                        labels_HW=labels_HW.astype(np.uint8),
                    )
                )
    return Clip(name=video.stem, records=records)


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` places, evenly from the first to the last of `count`."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()))


def backgrounds(root: Path, frames: int) -> list[Record]:
    """Frames without faces, all labelled background: so many from each sequence and video."""
    found = []
    for folder in sorted((root / "davis2016").glob("*/frames")):
        files = sorted(folder.iterdir())
        for place in spread(len(files), frames):
            picture_HW3 = cv2.imread(str(files[place]), cv2.IMREAD_COLOR_RGB)
            assert picture_HW3 is not None
            found.append(_background(folder.parent.name, place, picture_HW3))
    for video in sorted((root / "videos").glob("*.*")):
        pictures = _every(video, BACKGROUND_EVERY)
        for place in spread(len(pictures), frames):
            found.append(_background(video.stem, place, pictures[place]))
    return found


def _every(video: Path, step: int) -> list[np.ndarray]:
    with av.open(str(video)) as container:
        frames = (frame for index, frame in enumerate(container.decode(video=0)) if index % step == 0)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def _background(name: str, index: int, picture_HW3: np.ndarray) -> Record:
    rows, columns = picture_HW3.shape[:2]
    scale = SIDE / max(rows, columns)
    frame_HW3 = cv2.resize(
        picture_HW3, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_AREA
    )
    labels_HW = np.zeros(frame_HW3.shape[:2], np.uint8)
    return Record(video_id=name, frame_index=index, frame_HW3=frame_HW3, labels_HW=labels_HW)


def training_records(clips: list[Clip]) -> list[Record]:
    return [record for clip in clips for record in clip.records]


def halved(records: list[Record]) -> list[Record]:
    """At half their size: `tiny-face` averages frames over squares of two pixels before its net sees them."""
    return [resized(record, max(record.frame_HW3.shape) // 2) for record in records]


class MeanShape:
    """The baseline: at each relative place, the label that training clips have there most often."""

    def __init__(self, records: list[Record]) -> None:
        votes_CHW = np.zeros((len(FACE_CLASSES), MAP_SIDE, MAP_SIDE))
        for record in records:
            assert record.labels_HW is not None
            small_HW = cv2.resize(record.labels_HW, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_NEAREST)
            votes_CHW += small_HW[None] == np.arange(len(FACE_CLASSES))[:, None, None]
        self._map_HW = votes_CHW.argmax(axis=0).astype(np.uint8)

    def measure(self, records: list[Record]) -> ConfusionMatrix:
        matrix = ConfusionMatrix(len(FACE_CLASSES))
        for record in records:
            assert record.labels_HW is not None
            size = (record.labels_HW.shape[1], record.labels_HW.shape[0])
            matrix.update(cv2.resize(self._map_HW, size, interpolation=cv2.INTER_NEAREST), record.labels_HW)
        return matrix


def leave_out(
    clips: list[Clip],
    nothing: list[Record],
    what: Committed,
    folds: list[tuple[int, int]],
    sheet: Path | None,
) -> dict[str, ConfusionMatrix]:
    """Counts by row of the table; rows `net` and `mean shape` are over all held-out clips."""
    rows: dict[str, ConfusionMatrix] = {}
    total, shape = ConfusionMatrix(len(FACE_CLASSES)), ConfusionMatrix(len(FACE_CLASSES))
    for fold, of in folds:
        held = clips[fold::of]
        seen = [clip for clip in clips if clip not in held]
        print(f"fold {fold + 1} of {of}, held out: {', '.join(clip.name for clip in held)}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = sheet / f"fold{fold + 1}" if sheet else scratch
            weights = fit(what, halved(training_records(seen) + nothing), FACE_CLASSES, Path(folder))
            net = build_segmenter("tiny-face", weights=str(weights))
        mean_shape = MeanShape(training_records(seen))
        for clip in held:
            measured = clip.records[::MEASURED_EVERY]
            rows[clip.name] = measure(net, measured, len(FACE_CLASSES))
            print_row(clip.name, rows[clip.name])
            total.merge(rows[clip.name])
            shape.merge(mean_shape.measure(measured))
            if sheet is not None:
                write_sheet(net, clip, sheet / f"{clip.name}.png")
    return rows | {"net": total, "mean shape": shape}


def write_sheet(net: Segmenter, clip: Clip, path: Path) -> None:
    """Frame, the net's mask and the labels' mask, for four frames, as one picture to look at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = PALETTE
    rows = []
    for place in spread(len(clip.records), 4):
        record = clip.records[place]
        assert record.labels_HW is not None
        masks = [predict(net, record.frame_HW3), np.where(record.labels_HW == IGNORE, 0, record.labels_HW)]
        shown = [
            np.where(mask[..., None] > 0, record.frame_HW3 // 2 + colours[mask] // 2, record.frame_HW3)
            for mask in masks
        ]
        rows.append(np.hstack([record.frame_HW3, *shown]))
    cv2.imwrite(str(path), np.ascontiguousarray(np.vstack(rows)[:, :, ::-1]))


def print_row(name: str, matrix: ConfusionMatrix) -> None:
    iou_C = matrix.iou()
    cells = "  ".join(f"{value:11.3f}" for value in iou_C)
    print(f"{name:24s}  {cells}  {np.nanmean(iou_C[FACE]):9.3f}", flush=True)


def as_json(rows: dict[str, ConfusionMatrix]) -> dict[str, dict[str, Any]]:
    """IoU by class and, so that folds can be added up, the counts."""
    table: dict[str, dict[str, Any]] = {}
    for name, matrix in rows.items():
        iou_C = matrix.iou()
        table[name] = dict(zip(FACE_CLASSES, iou_C.tolist(), strict=True))
        table[name]["counts"] = matrix.counts_CC.tolist()
        table[name]["mean_of_four"] = float(np.nanmean(iou_C[FACE]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", type=int, help="one fold of them, 1 and up")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    parser.add_argument("--threads", type=int, default=1, help="the figures depend on it in the last digits")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--sheet", type=Path, help="folder for pictures of held-out clips")
    parser.add_argument("--export", type=Path, help="train on all clips into this folder, and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    root = data_dir(options.data)
    if root is None or not (root / "face").is_dir():
        raise SystemExit("no face clips: --data must name a folder with face/*.mp4 and face/*_labels/*.png")
    what = committed("tiny-face").with_steps(options.steps)
    clips = [clip for clip in face_clips(root, FRAMES_PER_CLIP) if clip.labelled]
    nothing = backgrounds(root, BACKGROUNDS_PER_CLIP)
    print(f"{len(clips)} clips with labels, {len(nothing)} frames of background")
    if options.export:
        print(fit(what, halved(training_records(clips) + nothing), FACE_CLASSES, options.export))
        return
    wanted = [options.only - 1] if options.only else range(options.folds)
    folds = [(fold, options.folds) for fold in wanted]
    rows = leave_out(clips, nothing, what, folds, options.sheet)
    if not options.only:
        seen = [record for clip in clips for record in clip.records[::MEASURED_EVERY]]
        rows["bundled (saw them)"] = measure(build_segmenter("tiny-face"), seen, len(FACE_CLASSES))
    print(f"{'':24s}  " + "  ".join(f"{name:>11s}" for name in FACE_CLASSES) + "  mean of 4")
    for name, matrix in rows.items():
        print_row(name, matrix)
    if options.json:
        table = {"steps": what.recipe.steps, "folds": options.folds, "iou": as_json(rows)}
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
