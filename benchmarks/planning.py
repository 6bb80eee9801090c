"""What a corpus of many videos costs the driver: memory and time of all that it does for a video without
looking into it.

    python -m benchmarks.planning [--videos 10000 100000 1000000] [--json FILE]

For each size, in a process of its own: the list is read and ids are made, the output is claimed, the rows of
earlier drivers are listed (half of the videos), waves are cut, each video's plan becomes a tally, receipts
close it, its row is encoded; at the end all rows are read again for the totals. The store is simulated: it
makes listings and rows up when asked and keeps nothing, so that the memory is the driver's. Opening videos
and committing masks is the workers' business and not in here.

Printed: peak memory above an empty run, CPU time (there is nothing to wait for), CPU time a video, beside the
smallest size as the baseline. Every size is measured again after each larger one, and medians are compared: a
machine that is shared changes over the half hour. Asked: time a video within 20 %, memory bounded.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.kit.manifest import claim_output
from vidseg_core.kit.whole import closed_videos, totals_of
from vidseg_core.pipeline.on_ray import RayExecutor
from vidseg_core.pipeline.plan_stage import SegmentWork, VideoWork, input_tables
from vidseg_core.pipeline.rows import Receipt
from vidseg_core.pipeline.tally import tally_of
from vidseg_core.pipeline.wave import waves
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.plan.video_list import VideoInput, VideoList
from vidseg_core.store.keys import INPUTS_KEY, VIDEOS_PREFIX, ObjectInfo, video_key
from vidseg_core.store.parts import encode_videos
from vidseg_core.store.run import Run

FACTS = {
    "codec": "h264",
    "width": 640,
    "height": 360,
    "declared_frames": 240,
    "duration_s": 9.6,
}


class MadeUpStore:
    """An `ObjectStore` that holds the rows of the first `closed` videos, without holding anything."""

    root = "made-up"

    def __init__(self, videos: VideoList) -> None:
        self._videos, self.closed = videos, 0
        self._row = b""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if prefix == VIDEOS_PREFIX:
            for video in self._videos[: self.closed]:
                yield ObjectInfo(video_key(video.video_id), len(self._row))

    def get(self, key: str) -> bytes:
        return self._row

    def exists(self, key: str) -> bool:
        return False

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key != INPUTS_KEY:
            self._row = data
        return True


def write_list(path: Path, videos: int) -> None:
    """A list of files that are not there: what is looked up of each is the same."""
    uris = pa.array([f"/corpus/{n // 1000:04d}/clip-{n:07d}.mp4" for n in range(videos)])
    pq.write_table(pa.table({"uri": uris}), path)


def drive(path: Path) -> dict[str, float]:
    """Everything that the driver does; CPU seconds of each part."""
    took: dict[str, float] = {}
    clock = time.process_time()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.process_time()
        took[name], clock = took.get(name, 0.0) + now - clock, now

    videos = expand_inputs([str(path)])
    lap("list")
    store: Any = MadeUpStore(videos)
    claim_output(store, {"fingerprint": "x"}, videos)
    lap("claim")
    row = close(store, videos[0])
    store.closed = len(videos) // 2
    todo = videos.without(closed_videos(store))
    lap("resume")
    for wave in waves(todo, RayExecutor.wave_videos):
        input_tables(wave, 16)
        for video in wave:
            row = close(store, video)
        lap("waves")
    del todo
    store.put_if_absent(video_key(videos[0].video_id), row)
    store.closed = len(videos)
    assert totals_of(Run(store).video_batches()).figures["videos"] == len(videos)
    lap("totals")
    return took


def close(store: Any, video: VideoInput) -> bytes:
    """A video's plan, its receipts and its row."""
    segments = [SegmentWork(0, 4, 0, frames_left=240)]
    work = VideoWork(video_id=video.video_id, uri=video.uri, facts=FACTS, frames=240, segments=segments)
    tally = tally_of(work)
    sums = {"frames": 240, "keys": 20, "decode_s": 0.4, "engine_s": 0.6}
    for part in range(4):
        tally.take(Receipt(video.video_id, 0, part, frames=60, keys=5, closed=part == 3, totals=sums))
    row = encode_videos([tally.row("cpu")])
    store.put_if_absent(video_key(video.video_id), row)
    return row


def measured(videos: int) -> dict[str, Any]:
    """One size, in this process: peak memory above what importing took, and CPU seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "list.parquet"
        write_list(path, videos)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = drive(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = sum(took.values())
    return {"videos": videos, "peak_mib": peak / 1024, "seconds": seconds} | took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one)))
        return
    rows = [again(videos) for videos in in_turns(args.videos)]
    each = {size: median(rows, size, "seconds") / size for size in args.videos}
    for size in args.videos:
        peak = median(rows, size, "peak_mib")
        ratio = each[size] / each[args.videos[0]]
        print(
            f"median: {size:>9,} videos {1e6 * each[size]:5.0f} us a video ({ratio:.2f} of the baseline), "
            f"peak {peak:4.0f} MiB"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def in_turns(sizes: Sequence[int]) -> Iterator[int]:
    """Each size, and after it all smaller ones once more."""
    for place, size in enumerate(sizes):
        yield size
        yield from sizes[:place]


def again(videos: int) -> dict[str, Any]:
    """One size, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planning", "--one", str(videos)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    parts = ", ".join(f"{name} {1e6 * row[name] / videos:.0f}" for name in list(row)[3:])
    print(
        f"{videos:>9,} videos: {row['seconds']:7.1f} CPU-s, {1e6 * row['seconds'] / videos:5.0f} us a video "
        f"({parts}), peak {row['peak_mib']:6.0f} MiB",
        flush=True,
    )
    return row


def median(rows: Sequence[dict[str, Any]], videos: int, name: str) -> float:
    return statistics.median(row[name] for row in rows if row["videos"] == videos)


if __name__ == "__main__":
    main()
