"""End-to-end frames/s of the job (constant segmenter, ``copy``, masks written) over raw decode on the same
cores.

    python -m benchmarks.plumbing [--json FILE] [--data DIR] [--repeat N] [--copies N] [--against REV]

Baseline: PyAV decode + reformat to the same RGB size in one process per core, nothing else, longest video
first. Job and baseline alternate; the median of their ratios is printed. Ray is up before the clock starts,
and a job on one clip has made its worker processes; planning, engine start, encoding, commits and the run's
end are inside. `--against`: the job alone, beside that of another version (see `against`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import av
import ray

from benchmarks import against
from benchmarks.corpus import link_corpus, real_videos
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.media import working_size
from vidseg_core.store.run import open_run

STORE_BYTES = 2_000_000_000
"""Of a Ray that the job starts by itself; a number, so that any version can be measured with it."""


def decode_raw(path: str) -> int:
    """Plain PyAV: every frame of a file as RGB at working size; the number of frames."""
    frames = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            height, width = working_size(frame.width, frame.height, 512)
            frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
            frames += 1
    return frames


def baseline(paths: list[str], cores: int) -> tuple[int, float]:
    """Frames and seconds of raw decode with one process a core."""
    by_size = sorted(paths, key=os.path.getsize, reverse=True)
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.map(decode_raw, by_size[:cores])  # imports done, files in the page cache
        started = time.perf_counter()
        frames = sum(pool.imap_unordered(decode_raw, by_size))
        return frames, time.perf_counter() - started


def job(folder: Path, output: Path) -> float:
    """Seconds of the whole job."""
    config = SegmentConfig(
        input=(str(folder),),
        output=str(output),
        segmenter="constant",
        scheduler=SchedulerConfig(name="fixed", interval=12),
        propagation=PropagationConfig(name="copy", sides="one"),
        log="json",
    )
    started = time.perf_counter()
    code = against.run_segment(config)
    if code not in (0, 3):
        raise SystemExit(f"the job failed with exit code {code}")
    return time.perf_counter() - started


def start_ray() -> None:
    """One node with all cores."""
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=os.cpu_count() or 1,
        object_store_memory=STORE_BYTES,
        log_to_driver=False,
    )


def one_turn(one: Path, folder: Path, output: Path) -> against.Figures:
    """The job's frames/s on ``folder``, after a job on the single clip in ``one``."""
    start_ray()
    job(one, output / "cold")
    seconds = job(folder, output / "timed")
    run = open_run(str(output / "timed"))
    return {"job_fps": sum(run.videos().column("decoded_frames").to_pylist()) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--data")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--copies", type=int, default=12)
    against.add_options(parser)
    args = parser.parse_args()
    if args.once:
        against.answer(one_turn(*map(Path, args.once)))
        return
    videos = real_videos(args.data)
    if not videos:
        raise SystemExit("benchmarks.plumbing needs real videos: give --data DIR (with videos/ and face/)")
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = link_corpus(videos, args.copies, Path(scratch) / "in")
        paths = [str(p) for p in folder.iterdir()]
        one = link_corpus(videos[:1], 1, Path(scratch) / "one")
        if args.against:
            words = [str(one), str(folder)]
            row = against.compare(
                "benchmarks.plumbing", args.against, args.turns, lambda out: [*words, str(out)]
            )
            _write(args.json, row)
            return
        start_ray()
        cold = job(one, Path(scratch) / "cold")
        print(f"first job on a cold Ray, one clip: {cold:.1f} s")
        raw, full, frames = [], [], 0
        for turn in range(args.repeat):
            frames, seconds = baseline(paths, cores)
            raw.append(frames / seconds)
            full.append(frames / job(folder, Path(scratch) / f"out-{turn}"))
            print(
                f"turn {turn}: raw {raw[-1]:.1f} fps, job {full[-1]:.1f} fps, ratio {full[-1] / raw[-1]:.3f}"
            )
    row = {
        "frames": frames,
        "cores": cores,
        "raw_fps": statistics.median(raw),
        "job_fps": statistics.median(full),
        "ratio": statistics.median(f / r for f, r in zip(full, raw, strict=True)),
    }
    print(
        f"plumbing: {frames} frames, {cores} cores: raw {row['raw_fps']:.1f} fps, "
        f"job {row['job_fps']:.1f} fps, ratio {row['ratio']:.3f} (asked 0.80, goal 0.90)"
    )
    _write(args.json, row)


def _write(path: str | None, row: dict) -> None:
    if path:
        Path(path).write_text(json.dumps(row, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
