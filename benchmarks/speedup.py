"""The whole job with a heavy net on key frames only, over the same job with the net on every frame.

    python -m benchmarks.speedup [--json FILE] [--data DIR] [--repeat N] [--frames N]

DeepLabV3+ ResNet-50 at 512x512 (random weights serve for speed), DIS label propagation, fixed schedule at AKI
10, 25 and 50; the baseline is ``every``. ``every`` runs on the clip's first ``--every-frames`` frames only
(its cost per frame is constant) and both are compared by frames/s net of the job's fixed start-up, which a
run on one frame measures. One- and two-sided propagation are both printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import av
import ray

from benchmarks.corpus import real_videos
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.pipeline.job import run_segment
from vidseg_core.store.run import open_run

ASKED = {10: 7.0, 25: 14.0, 50: 22.0}


def cut(video: Path, frames: int, target: Path) -> Path:
    """The first ``frames`` frames of ``video``, encoded again (the source loops if it is shorter)."""
    with av.open(str(target), "w") as out:
        stream = None
        written = 0
        while written < frames:
            with av.open(str(video)) as source:
                for frame in source.decode(video=0):
                    if stream is None:
                        stream = out.add_stream(
                            "libx264", rate=25, options={"preset": "veryfast", "crf": "20"}
                        )
                        stream.width, stream.height = frame.width // 2 * 2, frame.height // 2 * 2
                        stream.pix_fmt = "yuv420p"
                    picture = frame.reformat(stream.width, stream.height, "yuv420p")
                    picture.pts = None
                    out.mux(stream.encode(picture))
                    written += 1
                    if written == frames:
                        break
        if stream is not None:
            out.mux(stream.encode())
    return target


def seconds_of(clips: list[Path], output: Path, scheduler: SchedulerConfig, sides: str) -> float:
    """Wall time of the job on ``clips``."""
    config = SegmentConfig(
        input=tuple(map(str, clips)),
        output=str(output),
        segmenter="smp:DeepLabV3Plus/resnet50",
        num_classes=19,
        working_size="512x512",
        scheduler=scheduler,
        propagation=PropagationConfig(sides=sides),  # type: ignore[arg-type]
        log="json",
    )
    started = time.perf_counter()
    code = run_segment(config)
    if code != 0:
        raise SystemExit(f"the job failed with exit code {code}")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--data")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--frames", type=int, default=600, help="frames of each clip, one clip per core")
    parser.add_argument("--every-frames", type=int, default=40, help="frames of each clip for the baseline")
    args = parser.parse_args()
    videos = real_videos(args.data)
    if not videos:
        raise SystemExit("benchmarks.speedup needs real videos: give --data DIR (with videos/ and face/)")
    source = next((v for v in videos if "solidWhite" in v.name), videos[0])
    cores = os.cpu_count() or 1
    ray.init(address="local", include_dashboard=False, num_cpus=cores, log_to_driver=False)
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        short = [cut(source, args.every_frames, place / f"short{i}.mp4") for i in range(cores)]
        full = [cut(source, args.frames, place / f"long{i}.mp4") for i in range(cores)]
        one = [cut(source, 1, place / f"one{i}.mp4") for i in range(cores)]
        every = SchedulerConfig(name="every")
        seconds_of(one, place / "warm", every, "one")  # worker processes exist, files are in the page cache
        for turn in range(args.repeat):
            start_up = seconds_of(one, place / f"one-{turn}", every, "one")
            base = seconds_of(short, place / f"every-{turn}", every, "one") - start_up
            every_fps = cores * (args.every_frames - 1) / base
            for interval in ASKED:
                fixed = SchedulerConfig(name="fixed", interval=interval)
                for sides in ("one", "two"):
                    out = place / f"{interval}-{sides}-{turn}"
                    spent = seconds_of(full, out, fixed, sides) - start_up
                    fps = cores * (args.frames - 1) / spent
                    keys = sum(open_run(out).videos().column("keys").to_pylist())
                    rows.append(
                        {"interval": interval, "sides": sides, "fps": fps, "ratio": fps / every_fps}
                        | {"every_fps": every_fps, "aki": cores * args.frames / keys, "turn": turn}
                    )
                    print(
                        f"AKI {interval} {sides}-sided: {fps:.2f} fps, every {every_fps:.2f} fps, "
                        f"ratio {fps / every_fps:.1f}"
                    )
    for interval, asked in ASKED.items():
        for sides in ("one", "two"):
            ratio = statistics.median(
                r["ratio"] for r in rows if (r["interval"], r["sides"]) == (interval, sides)
            )
            print(f"speedup: AKI {interval}, {sides}-sided: {ratio:.1f}x over every (asked {asked:.0f}x)")
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
