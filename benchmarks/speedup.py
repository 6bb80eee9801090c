"""The whole job with a heavy net on key frames only, over the same job with the net on every frame.

    python -m benchmarks.speedup [--json FILE] [--data DIR] [--repeat N] [--frames N] [--clips N]
        [--against REV]

DeepLabV3+ ResNet-50 at 512x512 (random weights serve for speed), DIS label propagation, fixed schedule at AKI
10, 25 and 50; the baseline is ``every``. ``every`` runs on the clip's first ``--every-frames`` frames only
(its cost per frame is constant) and both are compared by frames/s net of the job's fixed start-up, which a
run on one frame measures. One- and two-sided propagation are both printed. `--against`: frames/s beside those
of another version (see `against`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import ray

from benchmarks import against
from benchmarks.corpus import real_videos
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import write_scene_video
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
    code = against.run_segment(config)
    if code != 0:
        raise SystemExit(f"the job failed with exit code {code}")
    return time.perf_counter() - started


def make_clips(source: Path, folder: Path, count: int, every_frames: int, frames: int) -> None:
    """So many clips of each length: `one`, `short` and `long`."""
    folder.mkdir()
    for name, length in (("one", 1), ("short", every_frames), ("long", frames)):
        first = cut(source, length, folder / f"{name}0.mp4")
        for number in range(1, count):
            shutil.copyfile(first, folder / f"{name}{number}.mp4")


def source_video(data: str | None, folder: Path) -> Path:
    """A street from the real material, or a drawn scene where there is none."""
    videos = real_videos(data)
    if videos:
        return next((video for video in videos if "solidWhite" in video.name), videos[0])
    path = folder / "scene.mp4"
    write_scene_video(path, SceneConfig(height=540, width=960))
    return path


def one_turn(clips: Path, output: Path, every_frames: int, frames: int) -> list[dict[str, Any]]:
    """A row for each interval and side, all over the same baseline."""
    one, short, full = (sorted(clips.glob(f"{name}*.mp4")) for name in ("one", "short", "long"))
    every, rows = SchedulerConfig(name="every"), []
    start_up = seconds_of(one, output / "one", every, "one")
    base = seconds_of(short, output / "every", every, "one") - start_up
    every_fps = len(short) * (every_frames - 1) / base
    for interval in ASKED:
        fixed = SchedulerConfig(name="fixed", interval=interval)
        for sides in ("one", "two"):
            out = output / f"{interval}-{sides}"
            spent = seconds_of(full, out, fixed, sides) - start_up
            fps = len(full) * (frames - 1) / spent
            keys = sum(open_run(out).videos().column("keys").to_pylist())
            rows.append(
                {"interval": interval, "sides": sides, "fps": fps, "ratio": fps / every_fps}
                | {"every_fps": every_fps, "aki": len(full) * frames / keys}
            )
    return rows


def start_ray(clips: Path, output: Path) -> None:
    """One node with all cores, whose worker processes exist; the files are in the page cache."""
    ray.init(address="local", include_dashboard=False, num_cpus=os.cpu_count() or 1, log_to_driver=False)
    seconds_of(sorted(clips.glob("one*.mp4")), output / "warm", SchedulerConfig(name="every"), "one")


def figures_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Frames/s by name."""
    found = {"every_fps": rows[0]["every_fps"]}
    return found | {f"aki{row['interval']}_{row['sides']}_fps": row["fps"] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--data")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--frames", type=int, default=600, help="frames of each clip")
    parser.add_argument("--clips", type=int, default=os.cpu_count() or 1, help="clips; default: one per core")
    parser.add_argument("--every-frames", type=int, default=40, help="frames of each clip for the baseline")
    against.add_options(parser)
    args = parser.parse_args()
    if args.once:
        clips, output = map(Path, args.once[:2])
        start_ray(clips, output)
        against.answer(figures_of(one_turn(clips, output, *map(int, args.once[2:]))))
        return
    lengths = (args.every_frames, args.frames)
    with tempfile.TemporaryDirectory() as scratch:
        source = source_video(args.data, Path(scratch))
        clips = Path(scratch) / "in"
        make_clips(source, clips, args.clips, *lengths)
        if args.against:
            found: Any = against.compare(
                "benchmarks.speedup",
                args.against,
                args.turns,
                lambda out: [str(clips), str(out), *map(str, lengths)],
            )
        else:
            start_ray(clips, Path(scratch))
            found = repeated(clips, Path(scratch), args.repeat, lengths)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


def repeated(clips: Path, scratch: Path, turns: int, lengths: tuple[int, int]) -> list[dict[str, Any]]:
    """The rows of all turns, and the medians printed."""
    rows: list[dict[str, Any]] = []
    for turn in range(turns):
        for row in one_turn(clips, scratch / f"turn-{turn}", *lengths):
            rows.append(row | {"turn": turn})
            print(
                f"AKI {row['interval']} {row['sides']}-sided: {row['fps']:.2f} fps, "
                f"every {row['every_fps']:.2f} fps, ratio {row['ratio']:.1f}"
            )
    for interval, asked in ASKED.items():
        for sides in ("one", "two"):
            ratio = statistics.median(
                r["ratio"] for r in rows if (r["interval"], r["sides"]) == (interval, sides)
            )
            print(f"speedup: AKI {interval}, {sides}-sided: {ratio:.1f}x over every (asked {asked:.0f}x)")
    return rows


if __name__ == "__main__":
    main()
