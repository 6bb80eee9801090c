"""Quality of one- against two-sided propagation at key intervals 12, 25 and 50.

    python -m benchmarks.two_sided [--json FILE] [--data DIR] [--quick]

N's output on a key frame is the clip's label map itself, so the figures show propagation alone. Everything
goes through `Engine.step`, as in a job. Score: IoU of each class that occurs in the labels, from one
confusion matrix over all frames of a clip, key frames included, then the mean over those classes; unlabelled
pixels are left out. The face clips' labels come from landmarks: read "agreement with the landmark labels".
`copy` repeats the last key's labels; `plain` is one-sided with flow that gets no help from the frame before.
"first try" is the table that these rules had to beat (one -> two sides).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import av
import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling import build_scheduler

VOID = 255
INTERVALS = (12, 25, 50)
QUICK_FRAMES = 101
FIRST_TRY = {
    ("liveportrait_d18", 12): (0.801, 0.850),
    ("liveportrait_d18", 25): (0.770, 0.832),
    ("liveportrait_d18", 50): (0.658, 0.764),
    ("liveportrait_d9", 12): (0.782, 0.816),
    ("liveportrait_d9", 25): (0.750, 0.782),
    ("liveportrait_d9", 50): (0.725, 0.763),
    ("liveportrait_s18", 12): (0.847, 0.880),
    ("liveportrait_s18", 25): (0.802, 0.841),
    ("liveportrait_s18", 50): (0.776, 0.795),
    ("clip_0016E5_15hz", 12): (0.714, 0.775),
    ("clip_0016E5_15hz", 25): (0.640, 0.700),
    ("clip_0016E5_15hz", 50): (0.599, 0.646),
    ("dog", 12): (0.854, 0.920),
    ("dog", 25): (0.783, 0.855),
    ("dog", 50): (0.744, 0.781),
    ("motocross-jump", 12): (0.597, 0.712),
    ("motocross-jump", 25): (0.510, 0.579),
}


@dataclass(frozen=True, kw_only=True)
class Clip:
    name: str
    classes: int
    frames: list[np.ndarray]
    labels: list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Row:
    clip: str
    interval: int
    frames: int
    keys: int
    copy: float
    plain: float
    one: float
    two: float
    ms_per_frame_one: float
    ms_per_frame_two: float


class LabelsAsNet:
    """A segmenter that says what the labels of the current frame say; unlabelled pixels are a class more."""

    stride, name, digest, trained, note = 1, "labels", "0" * 64, True, ""

    def __init__(self, clip: Clip) -> None:
        self.class_names = tuple(f"class_{number}" for number in range(clip.classes + 1))
        self.labels, self.classes, self.place = clip.labels, clip.classes, 0

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW

    def head(self, feats: Any) -> torch.Tensor:
        labels_HW = np.where(self.labels[self.place] == VOID, self.classes, self.labels[self.place])
        one_hot_HWC = torch.nn.functional.one_hot(torch.from_numpy(labels_HW).long(), self.classes + 1)
        return one_hot_HWC.permute(2, 0, 1)[None].float()

    def to(self, device: Any) -> Self:
        return self


def face_clips(root: Path, names: Sequence[str] = ()) -> Iterator[Clip]:
    """Labels are numbered in decode order and may be smaller than the video, whose frames then shrink.
    `names`: of those that are read; none: all."""
    for video in sorted((root / "face").glob("*.mp4")):
        if names and video.stem not in names:
            continue
        files = sorted((root / "face" / f"{video.stem}_labels").glob("*.png"))
        labels = [_read_labels(file) for file in files]
        if not labels or all((labels_HW == VOID).all() for labels_HW in labels):
            continue
        height, width = labels[0].shape
        frames = []
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                picture = frame.to_ndarray(format="rgb24")
                frames.append(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
        kept = [frames[int(file.stem)] for file in files]
        yield Clip(name=video.stem, classes=5, frames=kept, labels=labels)


def folder_clips(root: Path, names: Sequence[str] = ()) -> Iterator[Clip]:
    """DAVIS sequences (two classes) and the CamVid clip (11 classes and void), at their own size. `names`: as
    of `face_clips`."""
    for folder in sorted((root / "davis2016").iterdir()):
        if names and folder.name not in names:
            continue
        labels = [(_read_labels(file) > 127).astype(np.uint8) for file in _files(folder / "labels")]
        yield Clip(name=folder.name, classes=2, frames=_read_frames(folder), labels=labels)
    folder = root / "camvid" / "clip_0016E5_15hz"
    if names and folder.name not in names:
        return
    labels = [_read_labels(file) for file in _files(folder / "labels")]
    labels = [np.where(labels_HW >= 11, VOID, labels_HW).astype(np.uint8) for labels_HW in labels]
    yield Clip(name=folder.name, classes=11, frames=_read_frames(folder), labels=labels)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))


def _read_labels(path: Path) -> np.ndarray:
    labels_HW = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert labels_HW is not None, f"{path} cannot be read"
    return labels_HW if labels_HW.ndim == 2 else labels_HW[..., 0]


def _read_frames(folder: Path) -> list[np.ndarray]:
    pictures = [cv2.imread(str(path)) for path in _files(folder / "frames")]
    return [cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) for picture in pictures if picture is not None]


def propagate(
    clip: Clip, interval: int, sides: Literal["one", "two"], name: str = "flow_warp", chained: bool = True
) -> tuple[list[np.ndarray], int, float]:
    """The engine's masks of all frames, the number of keys, and seconds besides N."""
    net = LabelsAsNet(clip)
    engine = Engine(
        net,
        build_scheduler("fixed", interval=interval),
        build_propagator(name),
        sides=sides,
        max_interval=interval,
        flow=DisFlow(chained=chained),
    )
    state, rows = SegmentState.new(0, clip.name), []
    start = time.perf_counter()
    for number, frame_HW3 in enumerate(clip.frames):
        net.place = number
        frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        rows += engine.step([state], [frame])[0]
    rows += engine.finish([state])[0]
    seconds = time.perf_counter() - start - engine.stats.seconds["net"]
    return [row.labels_HW for row in rows], engine.stats.keys, seconds


def mean_iou(masks: list[np.ndarray], clip: Clip) -> float:
    """Mean over the classes that occur in the labels of their IoU over the whole clip."""
    size = clip.classes + 1
    confusion = np.zeros((size, size), np.int64)
    for mask_HW, labels_HW in zip(masks, clip.labels, strict=True):
        known = labels_HW != VOID
        pairs = labels_HW[known].astype(np.int64) * size + mask_HW[known]
        confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)
    both, said, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    occurs = true > 0
    return float((both[occurs] / (said + true - both)[occurs]).mean())


def measure(clip: Clip) -> Iterator[Row]:
    for interval in INTERVALS:
        copied, keys, _ = propagate(clip, interval, "one", "copy")
        plain, _, _ = propagate(clip, interval, "one", chained=False)
        one, _, one_s = propagate(clip, interval, "one")
        two, _, two_s = propagate(clip, interval, "two")
        frames = len(clip.frames)
        yield Row(
            clip=clip.name,
            interval=interval,
            frames=frames,
            keys=keys,
            copy=mean_iou(copied, clip),
            plain=mean_iou(plain, clip),
            one=mean_iou(one, clip),
            two=mean_iou(two, clip),
            ms_per_frame_one=1e3 * one_s / frames,
            ms_per_frame_two=1e3 * two_s / frames,
        )


def print_row(row: Row) -> None:
    old = FIRST_TRY.get((row.clip, row.interval))
    first = f"{old[0]:.3f} -> {old[1]:.3f}" if old else "-"
    print(
        f"{row.clip:18} {row.interval:8} {row.frames:6} {row.keys:5}  {row.copy:.3f}  {row.plain:.3f}  "
        f"{row.one:.3f} -> {row.two:.3f}   {first:>16}  "
        f"{row.ms_per_frame_one:6.1f} {row.ms_per_frame_two:6.1f}",
        flush=True,
    )


def print_summary(rows: list[Row]) -> None:
    print("\nmean over clips   interval    copy   plain     one     two")
    for interval in INTERVALS:
        here = [row for row in rows if row.interval == interval]
        means = [
            float(np.mean([getattr(row, name) for row in here])) for name in ("copy", "plain", "one", "two")
        ]
        print(f"{len(here):4} clips {interval:16} " + " ".join(f"{mean:7.3f}" for mean in means))
    at = {(row.clip, row.interval): row for row in rows}
    clips = sorted({row.clip for row in rows})
    for name, words in (("plain", "plain one-sided"), ("one", "one-sided")):
        gains = [at[clip, 25].two - getattr(at[clip, 12], name) for clip in clips]
        as_good = sum(gain >= -0.005 for gain in gains)
        print(
            f"two-sided at 25 against {words} at 12 (half the keys): "
            f"mean {100 * np.mean(gains):+.1f} points, "
            f"as good (within 0.5) or better on {as_good} of {len(clips)} clips"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality of one- against two-sided propagation.")
    parser.add_argument("--json", help="write the raw rows to this file")
    parser.add_argument("--data", help="folder with face, davis2016 and camvid (default: $VIDSEG_DATA)")
    parser.add_argument(
        "--quick", action="store_true", help=f"only the first {QUICK_FRAMES} frames of a clip"
    )
    options = parser.parse_args()
    root = data_dir(options.data)
    if root is None:
        parser.error("--data: no folder of labelled clips here")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows: list[Row] = []
    print(f"{'clip':18} interval frames  keys   copy  plain    one -> two          first try  ms one    two")
    for source in (face_clips, folder_clips):
        for clip in source(root):
            if options.quick:
                clip = Clip(
                    name=clip.name,
                    classes=clip.classes,
                    frames=clip.frames[:QUICK_FRAMES],
                    labels=clip.labels[:QUICK_FRAMES],
                )
            for row in measure(clip):
                print_row(row)
                rows.append(row)
    print_summary(rows)
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
