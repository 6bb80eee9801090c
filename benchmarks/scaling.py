"""What more nodes, more branches and more cells bring.

    python -m benchmarks.scaling [--repeat 2] [--only nodes|branches] [--json FILE]

Nodes: Ray nodes simulated on this machine, two logical CPUs each; the engine sleeps 0.5 s on a key frame (as
if a GPU worked elsewhere), so that one machine's cores are not what is measured. The same corpus on one node
and on two, in turns, each on a cluster of its own: frames per second, and the ratio (asked: 1.9).

Branches: parts a second through 1, 2, 4 and 8 branches of one executor, and through 8 branches in 2 and in 4
cells, with an engine that does nothing and tiny frames, so that handing on is all that is done. Beside it
what a part costs the process of an executor in CPU time: its inverse is what executors carry that have a core
each, however many machines work for them. (Parts a second are bounded by this machine's cores, too.)

Start and end of a run are not in the figures: a rate is the slope of a straight line through the parts that
were there over time, from the first fifth of them to the last.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from ray.cluster_utils import Cluster

from tests.pipeline.clips import moving_disc, write_video
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.registry import build_segmenter
from vidseg_core.pipeline import sizing
from vidseg_core.pipeline.segment_job import run_segment

SLEEP_S = 0.5
STORE = 200_000_000
CLIPS = 8
NODE_PARTS, NODE_FRAMES = 5, 8
"""Of a clip; of a part."""
BRANCH_PARTS, BRANCH_FRAMES = 20, 8
LAYOUTS = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4))
"""Branches and cells."""


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


class Watch(threading.Thread):
    """Samples the parts of a run, and the CPU seconds of its driver and of its cells."""

    def __init__(self, output: Path) -> None:
        super().__init__(daemon=True)
        self._output, self._over = output, threading.Event()
        self.samples: list[tuple[float, int, float, float]] = []
        """Time, parts, CPU of the driver, CPU of the busiest cell."""

    def run(self) -> None:
        me = psutil.Process()
        cells: dict[int, psutil.Process] = {}
        before = {p.pid for p in me.children(recursive=True) if _is_cell(p)}
        while not self._over.wait(0.25):
            parts = sum(1 for _ in self._output.glob("frames/*/part-*.parquet"))
            if parts and not cells:
                found = [p for p in me.children(recursive=True) if _is_cell(p) and p.pid not in before]
                cells = {p.pid: p for p in found}
            busiest = max((_cpu(p) for p in cells.values()), default=0.0)
            self.samples.append((time.perf_counter(), parts, _cpu(me), busiest))

    def stop(self) -> list[tuple[float, int, float, float]]:
        """The samples between the first and the last fifth of the parts."""
        self._over.set()
        self.join()
        most = max(parts for _, parts, _, _ in self.samples)
        return [sample for sample in self.samples if 0.2 * most <= sample[1] <= 0.8 * most]


def _is_cell(process: psutil.Process) -> bool:
    try:
        return "ray::_cell" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return times.user + times.system
    except psutil.Error:
        return 0.0


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


def watched(inputs: Path, output: Path, **options: Any) -> list[tuple[float, int, float, float]]:
    """Run a job; samples of its middle."""
    propagation = PropagationConfig(name="copy", sides="one")
    config = SegmentConfig(input=(str(inputs),), output=str(output), propagation=propagation, **options)
    watch = Watch(output)
    watch.start()
    said = io.StringIO()
    code = run_segment(config, Reporter("text", said))
    samples = watch.stop()
    if code != 0:
        raise SystemExit(said.getvalue())
    return samples


def slope(samples: list[tuple[float, int, float, float]], x: int, y: int) -> float:
    """Of column `y` over column `x`."""
    columns = list(zip(*samples, strict=True))
    return statistics.linear_regression(columns[x], columns[y]).slope


def node_fps(inputs: Path, output: Path, count: int) -> float:
    """Frames a second on so many nodes."""
    options: dict[str, Any] = {
        "segmenter": "benchmarks.scaling:Sleeps",
        "scheduler": SchedulerConfig(name="fixed", interval=2),
        "shard_frames": NODE_FRAMES,
        "workers": 2 * count,
    }
    with nodes(count):
        return NODE_FRAMES * slope(watched(inputs, output, **options), 0, 1)


def branch_rate(inputs: Path, output: Path, branches: int, cells: int) -> dict[str, float]:
    """Parts a second, and CPU milliseconds that a part costs its executor and the driver."""
    options: dict[str, Any] = {
        "segmenter": "constant",
        "scheduler": SchedulerConfig(name="fixed", interval=12),
        "shard_frames": BRANCH_FRAMES,
        "workers": branches,
    }
    sizing.MAX_BRANCHES = branches // cells
    samples = watched(inputs, output, **options)
    driver = 1000 * slope(samples, 1, 2)
    executor = driver if cells == 1 else 1000 * cells * slope(samples, 1, 3)
    return {"parts_per_s": slope(samples, 0, 1), "executor_ms": executor, "driver_ms": driver}


def compare_nodes(root: Path, repeat: int) -> dict[str, Any]:
    """The first part."""
    inputs = make_clips(root / "nodes", NODE_PARTS * NODE_FRAMES)
    fps: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeat):
        for count in fps:
            fps[count].append(node_fps(inputs, root / f"nodes-{count}-{turn}", count))
            print(f"turn {turn}: {count} node(s): {fps[count][-1]:.1f} frames/s", flush=True)
    one, two = (statistics.median(fps[count]) for count in (1, 2))
    print(f"scaling: 1 node {one:.1f}, 2 nodes {two:.1f} frames/s, ratio {two / one:.2f} (asked 1.9)")
    return {"fps": fps, "ratio": two / one}


def compare_branches(root: Path) -> dict[str, Any]:
    """The second part."""
    inputs = make_clips(root / "branches", BRANCH_PARTS * BRANCH_FRAMES)
    rows: dict[str, Any] = {}
    ray.init(address="local", include_dashboard=False, num_cpus=8, log_to_driver=False)
    for branches, cells in LAYOUTS:
        name = f"{branches} branch(es), {cells} executor(s)"
        row = rows[name] = branch_rate(inputs, root / f"branches-{branches}-{cells}", branches, cells)
        ceiling = cells * 1000 / row["executor_ms"]
        told = f"a part costs {row['executor_ms']:.0f} ms of its executor (ceiling {ceiling:.0f} parts/s)"
        print(
            f"{name}: {row['parts_per_s']:.1f} parts/s; {told}, {row['driver_ms']:.0f} ms of the driver",
            flush=True,
        )
    ray.shutdown()
    return rows


def make_clips(folder: Path, frames: int) -> Path:
    for clip in range(CLIPS):
        write_video(folder / f"{clip}.mp4", moving_disc(frames, 32, 48, seed=clip))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--only", choices=("nodes", "branches"))
    parser.add_argument("--json")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if args.only != "branches":
            found["nodes"] = compare_nodes(Path(scratch), args.repeat)
        if args.only != "nodes":
            found["branches"] = compare_branches(Path(scratch))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
