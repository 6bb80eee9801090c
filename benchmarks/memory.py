"""Peak memory of engine actors and driver for a short and a ten times longer video; object store bounded.

    python -m benchmarks.memory [--json FILE] [--data DIR] [--frames 2000 20000]

Memory is what a process holds for itself (RSS less shared pages: frames lie in the shared object store, which
is sampled on its own). The ratio long / short should be within 10 % of 1. One video, one segment, two-sided.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import psutil
import ray

from benchmarks.corpus import real_videos
from benchmarks.speedup import cut
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.pipeline.segment_job import run_segment

STORE_MB = 600


class Watch(threading.Thread):
    """Samples private memory by role and the object store's use, five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak: dict[str, int] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._stopped.wait(0.2):
            self._see("driver", _private(me))
            for child in me.children(recursive=True):
                role = _role(child)
                if role:
                    self._see(role, _private(child))
            self._see("object store", _store_used())

    def stop(self) -> dict[str, int]:
        """Peaks in bytes by role."""
        self._stopped.set()
        self.join()
        return self.peak

    def _see(self, role: str, value: int) -> None:
        self.peak[role] = max(self.peak.get(role, 0), value)


def _private(process: psutil.Process) -> int:
    try:
        info = process.memory_info()
        return info.rss - info.shared
    except psutil.Error:
        return 0


def _role(process: psutil.Process) -> str | None:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return "engine" if "EngineStage" in title else "decoder" if "media.child" in title else None


def _store_used() -> int:
    total = ray.cluster_resources().get("object_store_memory", 0)
    return int(total - ray.available_resources().get("object_store_memory", 0))


def peaks(video: Path, output: Path) -> dict[str, int]:
    """Run the job on ``video``; peaks by role."""
    config = SegmentConfig(
        input=(str(video),),
        output=str(output),
        segmenter="plain",
        scheduler=SchedulerConfig(name="fixed", interval=25),
        propagation=PropagationConfig(sides="two"),
        working_size="256",
        segment_frames=0,
        log="json",
    )
    watch = Watch()
    watch.start()
    code = run_segment(config)
    if code != 0:
        raise SystemExit(f"the job failed with exit code {code}")
    return watch.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--data")
    parser.add_argument("--frames", type=int, nargs=2, default=(2000, 20000))
    args = parser.parse_args()
    videos = real_videos(args.data)
    if not videos:
        raise SystemExit("benchmarks.memory needs real videos: give --data DIR (with videos/ and face/)")
    source = next((v for v in videos if "solidWhite" in v.name), videos[0])
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=os.cpu_count(),
        object_store_memory=STORE_MB * 10**6,
        log_to_driver=False,
    )
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for frames in (200, *args.frames):  # the first run only warms up
            started = time.time()
            found = peaks(cut(source, frames, place / f"{frames}.mp4"), place / f"out-{frames}")
            rows[frames] = found
            text = ", ".join(f"{role} {value / 2**20:.0f} MiB" for role, value in sorted(found.items()))
            print(f"{frames} frames in {time.time() - started:.0f} s: {text}")
    short, long = (rows[n] for n in args.frames)
    for role in ("driver", "engine", "decoder", "object store"):
        print(
            f"memory: {role}: {args.frames[1]} over {args.frames[0]} frames: {long[role] / short[role]:.3f}"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
