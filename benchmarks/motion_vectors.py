"""The codec's motion vectors as a flow, beside DIS and copy: quality, cost, and what they leave alone.

    python -m benchmarks.motion_vectors [--json FILE] [--data DIR] [--quick]

True labels stand in for N on the keys (`benchmarks.two_sided`), even keys, one side, flow at 256 pixels. Face
clips are the files as they are; all others are encoded here by x264 (medium, crf 23, its usual B
pictures and references). ms a frame: processor time of one core, of decoding and of the engine without N; it
decodes here, in this process. `vectors`: share of the frames between keys whose flow no picture was looked at
for. `skipped`: share of their pixels that no vector moves since the key, so that they keep its labels; also
of a street seen by a camera that stands still, and of a screen recording that is drawn here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.two_sided import Clip, LabelsAsNet, face_clips, folder_clips, mean_iou
from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.media import DecodeUnit, decode_unit, probe, working_size
from vidseg_core.plan import plan_segments
from vidseg_core.propagation import build_propagator
from vidseg_core.propagation.warp import VectorFlow
from vidseg_core.scheduling import build_scheduler

INTERVALS = (5, 12, 25)
METHODS = ("copy", "dis", "motion_vectors")
QUICK_FRAMES = 60
SHARD_FRAMES = 32
STREET = "videos/opencv_vtest.avi"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip, one method, one interval."""

    group: str
    clip: str
    method: str
    interval: int
    miou: float
    decode_ms: float
    engine_ms: float
    vectors: float
    skipped: float


@dataclass(frozen=True, kw_only=True)
class Film:
    """A file, its labels if it has some, and the size to work at."""

    group: str
    path: Path
    clip: Clip | None
    size: tuple[int, int]
    """Rows and columns."""
    frames: int


def films(root: Path, folder: Path, quick: bool) -> Iterator[Film]:
    """Everything that is measured; `folder`: for what is encoded here."""
    most = QUICK_FRAMES if quick else 10**9
    for clip in face_clips(root):
        path = root / "face" / f"{clip.name}.mp4"
        yield Film(group="faces", path=path, clip=clip, size=clip.labels[0].shape, frames=most)
    for clip in folder_clips(root):
        group = "CamVid" if clip.classes > 2 else "DAVIS"
        path = encode(folder / f"{clip.name}.mp4", clip.frames, 15 if clip.classes > 2 else 24)
        yield Film(group=group, path=path, clip=clip, size=clip.labels[0].shape, frames=most)
    count = QUICK_FRAMES if quick else 150
    yield _unlabelled("street", encode(folder / "street.mp4", _first_frames(root / STREET, count), 10), most)
    yield _unlabelled("screen", encode(folder / "screen.mp4", screen(count), 15), most)


def _first_frames(path: Path, count: int) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), count)]


def _unlabelled(group: str, path: Path, most: int) -> Film:
    index = probe(str(path))
    return Film(
        group=group, path=path, clip=None, size=working_size(index.width, index.height, 512), frames=most
    )


def encode(path: Path, pictures: Sequence[np.ndarray], rate: int) -> Path:
    """As people encode: x264's usual settings."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "medium"})
        height, width = pictures[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        for number, picture in enumerate(pictures):
            cut_HW3 = np.ascontiguousarray(picture[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(cut_HW3, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def screen(frames: int, height: int = 720, width: int = 1280) -> list[np.ndarray]:
    """A window of text: words are typed, a pointer wanders, now and then the page scrolls."""
    rng = np.random.default_rng(0)
    page = np.full((height + 24 * 40, width, 3), 250, np.uint8)
    for row in range(30, len(page) - 10, 24):
        _type(page, row, rng)
    pictures, top = [], 0
    for t in range(frames):
        if t % 15 == 14:
            _type(page, top + height - 60, rng)
        if t % 40 in range(30, 34):
            top += 6
        shown = page[top : top + height].copy()
        shown[:40] = (60, 90, 140)
        pointer = int(width * (0.5 + 0.3 * np.sin(t / 17))), int(height * (0.5 + 0.3 * np.cos(t / 23)))
        if t % 60 < 30:
            cv2.circle(shown, pointer, 6, (20, 20, 20), -1)
        pictures.append(shown)
    return pictures


def _type(page: np.ndarray, row: int, rng: np.random.Generator) -> None:
    words = "".join(rng.choice(list("abcdefghij klmnop qrstuvw xyz "), size=int(rng.integers(30, 90))))
    cv2.putText(page, words, (40, row), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)


def units(film: Film, *, motion: bool) -> list[DecodeUnit]:
    index, (height, width) = probe(str(film.path)), film.size
    plans = plan_segments(index, segment_frames=0, shard_frames=SHARD_FRAMES)
    return [
        unit.decode_unit(str(film.path), index, height=height, width=width, motion=motion)
        for segment in plans
        for unit in segment.units
    ]


def inputs(film: Film, *, motion: bool) -> Iterator[tuple[FrameInput, float]]:
    """Frames, and processor seconds that decoding each has taken."""
    left = film.frames
    for unit in units(film, motion=motion):
        shards = iter(decode_unit(unit, shard_frames=SHARD_FRAMES))
        while left > 0:
            started = time.process_time()
            shard = next(shards, None)
            spent = time.process_time() - started
            if shard is None:
                break
            for t, number in enumerate(shard.frame_index.tolist()[:left]):
                picture = shard.pictures[t]
                frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, picture=picture)
                yield frame, spent / len(shard)
            left -= len(shard)


class Still:
    """Counts the pixels that a flow leaves alone, on their way to the propagator."""

    def __init__(self, propagator: Any) -> None:
        self._propagator = propagator
        self.level, self.needs_flow = propagator.level, propagator.needs_flow
        self.pixels, self.still, self.seconds = 0, 0, 0.0

    def carry(self, carried: Any, flow_HW2: Any) -> Any:
        if isinstance(flow_HW2, VectorFlow):
            started = time.process_time()
            self.pixels += flow_HW2[..., 0].size
            self.still += int(np.count_nonzero((flow_HW2[..., 0] == 0) & (flow_HW2[..., 1] == 0)))
            self.seconds += time.process_time() - started
        return self._propagator.carry(carried, flow_HW2)


def run(film: Film, method: str, interval: int) -> Row:
    clip = film.clip or Clip(
        name=film.path.stem, classes=1, frames=[], labels=[np.zeros(film.size, np.uint8)]
    )
    net = LabelsAsNet(clip)
    propagator = build_propagator("copy" if method == "copy" else "flow_warp")
    counting = Still(propagator)
    engine = Engine(
        net,
        build_scheduler("fixed", interval=interval),
        propagator,
        sides="one",
        max_interval=interval,
        flow="dis" if method == "copy" else method,
    )
    if method == "motion_vectors":
        engine.filler.propagator = counting
    state, rows, decode_s, spent = SegmentState.new(0, clip.name), list[Any](), 0.0, 0.0
    for number, (frame, seconds) in enumerate(inputs(film, motion=method == "motion_vectors")):
        net.place = min(number, len(clip.labels) - 1)
        decode_s += seconds
        started = time.process_time()
        rows += engine.step([state], [frame])[0]
        spent += time.process_time() - started
    stats, frames = engine.stats, len(rows)
    said = Clip(name=clip.name, classes=clip.classes, frames=[], labels=clip.labels[:frames])
    between = max(1, frames - stats.keys)
    return Row(
        group=film.group,
        clip=clip.name,
        method=method,
        interval=interval,
        miou=mean_iou([row.labels_HW for row in rows], said) if film.clip else float("nan"),
        decode_ms=1e3 * decode_s / frames,
        engine_ms=1e3 * (spent - counting.seconds - stats.seconds["net"]) / frames,
        vectors=stats.followed / between,
        skipped=counting.still / max(1, counting.pixels),
    )


def summary(rows: Sequence[Row]) -> str:
    """Means over the clips of a group."""
    lines = [f"{'':30}" + "".join(f"{f'every {i}':>26}" for i in INTERVALS)]
    lines.append(f"{'group, method':30}" + f"{'mIoU  dec+eng ms vect skip':>26}" * len(INTERVALS))
    for group in dict.fromkeys(row.group for row in rows):
        clips = len({row.clip for row in rows if row.group == group})
        for method in METHODS:
            line = f"{f'{group} ({clips}), {method}':30}"
            for interval in INTERVALS:
                here = [r for r in rows if (r.group, r.method, r.interval) == (group, method, interval)]
                mean = {
                    name: float(np.mean([getattr(row, name) for row in here]))
                    for name in ("miou", "decode_ms", "engine_ms", "vectors", "skipped")
                }
                line += (
                    f"{mean['miou']:8.3f} {mean['decode_ms']:4.1f}+{mean['engine_ms']:4.2f}"
                    f"{mean['vectors']:5.2f}{mean['skipped']:5.2f}"
                )
            lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="write the raw rows to this file")
    parser.add_argument("--data", help="folder with face, davis2016, camvid and videos ($VIDSEG_DATA)")
    parser.add_argument(
        "--quick", action="store_true", help=f"only the first {QUICK_FRAMES} frames of a clip"
    )
    options = parser.parse_args()
    root = data_dir(options.data)
    if root is None:
        parser.error("--data: no folder of clips here")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for film in films(root, Path(folder), options.quick):
            for method in METHODS:
                for interval in INTERVALS:
                    rows.append(run(film, method, interval))
                    print(rows[-1], flush=True)
    print(summary(rows))
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
