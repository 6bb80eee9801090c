"""What a run that is 90 % done costs to continue: time to the first new part, beside a run that has only the
missing part to do.

    python -m benchmarks.resume [--videos 1000] [--parts 100] [--share 0.9] [--repeat 3] [--json FILE]

The done part is made up: rows of `videos/` and files of `frames/` (links to one real part), as a driver
leaves them; 1,000 videos of 100 parts are 10^5 parts, of which 90 % are there. What is missing is real: short
videos. Both runs work on the same Ray, in turns; printed are seconds from the start of the command's work to
the first part that is new, their medians and the ratio (asked: the done part costs its listing, no more).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray

from tests.pipeline.clips import moving_disc, write_video
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit.manifest import claim_output
from vidseg_core.pipeline.ending import close_video
from vidseg_core.pipeline.output import manifest_of
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.store.keys import part_key
from vidseg_core.store.objects import open_store

FRAMES = 24


def config_of(inputs: Path, output: Path) -> SegmentConfig:
    return SegmentConfig(
        input=(str(inputs),),
        output=str(output),
        segmenter="constant",
        scheduler=SchedulerConfig(name="fixed", interval=12),
        propagation=PropagationConfig(name="copy", sides="one"),
        shard_frames=8,
        log="json",
    )


def make_inputs(folder: Path, names: range, clip: Path) -> None:
    folder.mkdir(parents=True)
    for number in names:
        os.link(clip, folder / f"clip-{number:06d}.mp4")


def make_done(config: SegmentConfig, videos: int, parts: int, part: Path) -> None:
    """The first `videos` inputs are closed, with so many parts each."""
    inputs, store = expand_inputs(config.input), open_store(config.output)
    claim_output(store, manifest_of(config, describe_net(config)), inputs)
    for video in inputs[:videos]:
        row: dict[str, Any] = {"video_id": video.video_id, "uri": video.uri, "status": "ok", "reason": None}
        row |= {"codec": "h264", "width": 96, "height": 64, "declared_frames": FRAMES, "duration_s": 1.0}
        row |= {"decoded_frames": 8 * parts, "corrupt_frames": 0, "keys": parts, "aki": 8.0, "parts": parts}
        close_video(store, row | {"cpu_s": 1.0, "gpu_s": 0.0})
        folder = Path(config.output) / Path(part_key(video.video_id, 0, 0)).parent
        folder.mkdir(parents=True, exist_ok=True)
        first = folder / Path(part_key(video.video_id, 0, 0)).name
        shutil.copyfile(part, first)  # of its own for each video: a file may have 65,000 links, no more
        for number in range(1, parts):
            os.link(first, folder / Path(part_key(video.video_id, 0, number)).name)


def to_first_part(config: SegmentConfig, wanted: set[str]) -> tuple[float, float]:
    """Seconds to the first part of one of the `wanted` videos, and to the end."""
    first: list[float] = []
    started, over = time.perf_counter(), threading.Event()
    folders = [Path(config.output) / f"frames/video={video_id}" for video_id in wanted]

    def watch() -> None:
        while not over.is_set() and not first:
            if any(folder.exists() and any(folder.glob("part-*")) for folder in folders):
                first.append(time.perf_counter() - started)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = run_segment(config)
    ended = time.perf_counter() - started
    over.set()
    watcher.join()
    if code != 0:
        raise SystemExit(f"the job failed with exit code {code}")
    return first[0] if first else ended, ended


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    done = round(args.share * args.videos)
    took: dict[str, list[float]] = {"resumed": [], "fresh": []}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        clip = write_video(root / "clip.mp4", moving_disc(FRAMES, 64, 96))
        make_inputs(root / "all", range(args.videos), clip)
        make_inputs(root / "rest", range(done, args.videos), clip)
        ray.init(address="local", include_dashboard=False, num_cpus=os.cpu_count(), log_to_driver=False)
        make_inputs(root / "warm", range(2), clip)
        warm = config_of(root / "warm", root / "warm-out")
        if run_segment(warm) != 0:
            raise SystemExit("the warm-up failed")
        part = next((root / "warm-out").glob("frames/*/part-*.parquet"))
        for _ in range(args.repeat):
            for name, inputs in (("resumed", root / "all"), ("fresh", root / "rest")):
                config = config_of(inputs, root / name)
                if name == "resumed":
                    make_done(config, done, args.parts, part)
                wanted = {video.video_id for video in expand_inputs(config.input)[-(args.videos - done) :]}
                first, ended = to_first_part(config, wanted)
                took[name].append(first)
                print(f"{name}: first new part after {first:.1f} s, all after {ended:.1f} s", flush=True)
                shutil.rmtree(root / name)
    resumed, fresh = (statistics.median(took[name]) for name in ("resumed", "fresh"))
    print(
        f"resume: {done:,} of {args.videos:,} videos ({done * args.parts:,} parts) done: first new part "
        f"after {resumed:.1f} s; with nothing done and as much to do {fresh:.1f} s; "
        f"ratio {resumed / fresh:.2f}"
    )
    if args.json:
        Path(args.json).write_text(
            json.dumps({"resumed_s": resumed, "fresh_s": fresh} | took, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
