"""Lanes: several segments in lock step give the same masks, and on a GPU more frames a second.

    python -m benchmarks.lanes [--json FILE] [--device cuda|cpu] [--frames N] [--size PIXELS] [--threads N]

V = 1, 4 and 16 segments a step; the net sees 1 key frame a call, or V. On a GPU the net is DeepLabV3+ with a
ResNet-50 encoder in fp32 and bf16, on a CPU a small conv net. Masks must be the same for every V with the
same `key_batch`; a difference ends the benchmark with an error. (Another `key_batch` may round differently:
libraries choose kernels by batch size. The share of pixels that agree with `key_batch` 1 is printed.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch

from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.models import build_segmenter
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling import build_scheduler

SEGMENTS = 16
LANES = (1, 4, 16)
INTERVAL = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    net: str
    precision: str
    device: str
    lanes: int
    key_batch: int
    frames: int
    keys: int
    seconds: float
    frames_per_s: float
    net_s: float
    flow_s: float
    digest: str
    agreement: float


class SmallNet:
    """Random convolutions at stride 4: enough arithmetic for rounding to matter."""

    class_names, stride = tuple(f"class_{n}" for n in range(8)), 4
    name, digest, trained, note = "small conv net", "0" * 64, False, ""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 7, stride=4, padding=3),
            torch.nn.ReLU(),
            torch.nn.Conv2d(32, 64, 3, padding=1),
            torch.nn.ReLU(),
        ).eval()
        self.task = torch.nn.Conv2d(64, 8, 1).eval()

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return self.body(frames_B3HW)

    def head(self, feats: Any) -> torch.Tensor:
        return torch.nn.functional.interpolate(self.task(feats), scale_factor=4, mode="bilinear")

    def to(self, device: Any) -> Self:
        self.body.to(device)
        self.task.to(device)
        return self


def segments(count: int, frames: int, size: int) -> list[list[np.ndarray]]:
    """Textured planes, each sliding at its own speed."""
    made = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (size, size + 4 * frames, 3), dtype=np.uint8)
        plane = cv2.GaussianBlur(noise, (0, 0), 4.0).astype(np.int16)
        plane = np.clip((plane - 128) * 8 + 128, 0, 255).astype(np.uint8)
        speed = 1 + number % 4
        made.append([np.ascontiguousarray(plane[:, speed * t : speed * t + size]) for t in range(frames)])
    return made


def run(engine: Engine, clips: Sequence[Sequence[np.ndarray]], lanes: int) -> list[np.ndarray]:
    """The masks of all clips, `lanes` clips at a time, in the order of the clips."""
    masks: list[np.ndarray] = []
    for first in range(0, len(clips), lanes):
        group = clips[first : first + lanes]
        states = [SegmentState.new(0, str(first + number)) for number in range(len(group))]
        rows: list[list[np.ndarray]] = [[] for _ in group]
        for number, pictures in enumerate(zip(*group, strict=True)):
            frames = [
                FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=picture)
                for picture in pictures
            ]
            for lane, results in zip(rows, engine.step(states, frames), strict=True):
                lane += [result.labels_HW for result in results]
        for lane, results in zip(rows, engine.finish(states), strict=True):
            lane += [result.labels_HW for result in results]
        masks += [mask_HW for lane in rows for mask_HW in lane]
    return masks


def make_engine(net: Any, device: str, key_batch: int, threads: int) -> Engine:
    return Engine(
        net,
        build_scheduler("fixed", interval=INTERVAL),
        build_propagator("flow_warp"),
        sides="two",
        flow=DisFlow(threads=threads),
        key_batch=key_batch,
        device=device,
    )


def digest_of(masks: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for mask_HW in masks:
        digest.update(mask_HW.tobytes())
    return digest.hexdigest()[:16]


def check_same(net: Any, device: str, key_batch: int, clips: Sequence[Sequence[np.ndarray]]) -> None:
    """One lane against `key_batch` lanes, both with this `key_batch`."""
    short = [clip[: INTERVAL + 2] for clip in clips[:key_batch]]
    alone, together = (
        digest_of(run(make_engine(net, device, key_batch, 1), short, lanes)) for lanes in (1, key_batch)
    )
    if alone != together:
        raise SystemExit(f"masks of 1 and {key_batch} lanes differ with key_batch {key_batch}")


def measure(
    net: Any, precision: str, device: str, clips: Sequence[Sequence[np.ndarray]], threads: int
) -> list[Row]:
    rows: list[Row] = []
    reference: list[np.ndarray] = []
    for lanes, key_batch in [(v, 1) for v in LANES] + [(v, v) for v in LANES[1:]]:
        run(make_engine(net, device, key_batch, threads), [clip[:2] for clip in clips[:lanes]], lanes)
        engine = make_engine(net, device, key_batch, threads)
        start = time.perf_counter()
        masks = run(engine, clips, lanes)
        seconds = time.perf_counter() - start
        reference = reference or masks
        row = Row(
            net=net.name,
            precision=precision,
            device=device,
            lanes=lanes,
            key_batch=key_batch,
            frames=engine.stats.frames,
            keys=engine.stats.keys,
            seconds=seconds,
            frames_per_s=engine.stats.frames / seconds,
            net_s=engine.stats.seconds["net"],
            flow_s=engine.stats.seconds["flow"],
            digest=digest_of(masks),
            agreement=float(np.mean([np.mean(a == b) for a, b in zip(reference, masks, strict=True)])),
        )
        rows.append(row)
        print_row(row)
        if key_batch == 1 and row.digest != rows[0].digest:
            raise SystemExit(f"masks of 1 and {lanes} lanes differ with key_batch 1")
        if key_batch > 1:
            check_same(net, device, key_batch, clips)
    return rows


def print_row(row: Row) -> None:
    print(
        f"{row.net:28} {row.precision:9} {row.lanes:5} {row.key_batch:9} {row.frames_per_s:9.1f} "
        f"{row.net_s:7.2f} {row.flow_s:7.2f}  {row.digest}  {row.agreement:.5f}",
        flush=True,
    )


def nets(device: str) -> list[tuple[Any, str]]:
    if device == "cpu":
        return [(SmallNet(), "fp32")]
    spec = "smp:DeepLabV3Plus/resnet50"
    return [(build_segmenter(spec, device=device, precision=p), p) for p in ("fp32", "bf16")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Lanes: the same masks, and the throughput.")
    parser.add_argument("--json", help="write the raw rows to this file")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--frames", type=int, help="frames of each of the 16 segments (31; 121 on a GPU)")
    parser.add_argument("--size", type=int, help="side of the square frames in pixels (160; 512 on a GPU)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the optical flow")
    options = parser.parse_args()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device == "cuda"
    cv2.setNumThreads(1)
    if not on_gpu:
        torch.set_num_threads(1)
    clips = segments(
        SEGMENTS, options.frames or (121 if on_gpu else 31), options.size or (512 if on_gpu else 160)
    )
    print(f"{'net':28} precision lanes key_batch  frames/s   net s  flow s  {'masks':16}  agree")
    rows = [
        row
        for net, precision in nets(device)
        for row in measure(net, precision, device, clips, options.threads)
    ]
    print("the same masks for every number of lanes: yes")
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
