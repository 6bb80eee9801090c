"""What more nodes and more branches bring, with an engine that only waits.

    python -m benchmarks.scaling [--frames 600] [--repeat 3] [--json FILE]

Nodes: Ray nodes simulated on this machine, two logical CPUs each; the engine sleeps 50 ms on a key frame (as
if a GPU worked elsewhere), so that one machine's cores are not what is measured. The same corpus on one node
and on two, in turns, each with a short run before it whose time is subtracted (process starts): frames per
second, and the ratio (asked: 1.9). Each run has a cluster of its own.

Branches: parts a second through 1, 2, 4 and 8 branches of one driver, with an engine that does nothing and
tiny frames: what a driver can carry, beside one branch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster

from tests.pipeline.clips import moving_disc, write_video
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.models.registry import build_segmenter
from vidseg_core.pipeline.job import run_segment

SLEEP_S = 0.05
STORE = 200_000_000
CLIPS = 8


class Sleeps:
    """The plain net on a machine far away."""

    def __init__(self, **_: Any) -> None:
        self._net = build_segmenter("plain")
        self.name, self.digest, self.note = "benchmarks:sleeps", self._net.digest, ""
        self.class_names, self.stride, self.trained = self._net.class_names, self._net.stride, True

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        time.sleep(SLEEP_S)
        return self._net.features(frames_B3HW)

    def head(self, feats: Any) -> torch.Tensor:
        return self._net.head(feats)

    def to(self, device: Any) -> Sleeps:
        return self


@contextmanager
def nodes(count: int) -> Iterator[None]:
    """A cluster of so many nodes; the head takes no work."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    for _ in range(count):
        cluster.add_node(num_cpus=2, object_store_memory=STORE)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def run(inputs: Path, output: Path, **options: Any) -> float:
    """Seconds of a job."""
    config = SegmentConfig(input=(str(inputs),), output=str(output), log="json", **options)
    started = time.perf_counter()
    if run_segment(config) != 0:
        raise SystemExit("the job failed")
    return time.perf_counter() - started


def node_fps(root: Path, count: int, frames: int, turn: int) -> float:
    """Frames a second on so many nodes, beyond the start of processes."""
    options: dict[str, Any] = {
        "segmenter": "benchmarks.scaling:Sleeps",
        "scheduler": SchedulerConfig(name="fixed", interval=2),
        "propagation": PropagationConfig(name="copy", sides="one"),
        "shard_frames": 16,
        "workers": 2 * count,
    }
    with nodes(count):
        short = run(root / "short", root / f"short-{count}-{turn}", **options)
        long = run(root / "long", root / f"long-{count}-{turn}", **options)
    return CLIPS * (frames - 32) / (long - short)


def branch_rate(root: Path, branches: int) -> float:
    """Parts a second."""
    options: dict[str, Any] = {
        "segmenter": "constant",
        "scheduler": SchedulerConfig(name="fixed", interval=12),
        "propagation": PropagationConfig(name="copy", sides="one"),
        "shard_frames": 8,
        "workers": branches,
    }
    short = run(root / "short", root / f"branches-short-{branches}", **options)
    long = run(root / "long", root / f"branches-long-{branches}", **options)
    parts = len(list((root / f"branches-long-{branches}").glob("frames/*/part-*")))
    parts -= len(list((root / f"branches-short-{branches}").glob("frames/*/part-*")))
    return parts / (long - short)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    fps: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for clip in range(CLIPS):
            write_video(root / f"long/{clip}.mp4", moving_disc(args.frames, 32, 48, seed=clip))
            write_video(root / f"short/{clip}.mp4", moving_disc(32, 32, 48, seed=clip))
        for turn in range(args.repeat):
            for count in fps:
                fps[count].append(node_fps(root, count, args.frames, turn))
                print(f"turn {turn}: {count} node(s): {fps[count][-1]:.1f} frames/s", flush=True)
        one, two = (statistics.median(fps[count]) for count in (1, 2))
        print(f"scaling: 1 node {one:.1f}, 2 nodes {two:.1f} frames/s, ratio {two / one:.2f} (asked 1.9)")
        with nodes(4):
            rates = {branches: branch_rate(root, branches) for branches in (1, 2, 4, 8)}
        told = ", ".join(f"{n}: {rate:.1f} ({rate / rates[1]:.2f}x)" for n, rate in rates.items())
        print(f"branches of one driver, parts/s: {told}")
    if args.json:
        Path(args.json).write_text(
            json.dumps({"fps": fps, "ratio": two / one, "parts_per_s": rates}, indent=1)
        )


if __name__ == "__main__":
    main()
