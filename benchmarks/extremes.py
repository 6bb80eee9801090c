"""Many tiny files, and one very long video: the whole job, with a net that costs nothing.

    python -m benchmarks.extremes [--files 10000] [--hours 4] [--only files|long] [--json FILE]

Files: so many videos of three frames each. Printed: videos a second, peak memory of driver, engines, decode
processes, beside a tenth of the files as the baseline; rows that are double or missing (asked: none).

Long: one video of so many hours at 5 frames a second, a minute of packets looped without decoding them. The
job is killed (SIGKILL, the whole process tree) once a third of its parts are there, and given again. Printed:
frames a second of the second driver, how much it did not do again, peak memory beside that of a video a tenth
as long; rows double or missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.memory import _private, _role
from tests.pipeline.clips import looped, moving_disc, write_video
from vidseg_core.store.run import open_run

FPS, LOOP_FRAMES, GOP = 5, 300, 20
TINY_FRAMES = 3
WORDS = [
    "--segmenter",
    "constant",
    "--propagation.name",
    "copy",
    "--propagation.sides",
    "one",
    "--log",
    "json",
]


class Driver:
    """A job in a process of its own, and the most memory that its processes held, by role."""

    def __init__(self, inputs: Path, output: Path) -> None:
        self._output, self.peak = output, {"driver": 0, "engine": 0, "decoder": 0}
        self._started = time.perf_counter()
        words = [
            sys.executable,
            "-m",
            "jobs.segment",
            "--input",
            str(inputs),
            "--output",
            str(output),
            *WORDS,
        ]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        self._process = subprocess.Popen(
            words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
        )
        self._errors: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def wait(self, parts: int | None = None) -> float:
        """Until its end, or until so many parts are there; seconds since it began."""
        root, beats = psutil.Process(self._process.pid), 0
        while self._process.poll() is None:
            beats += 1
            self._see(root)
            if parts is not None and beats % 4 == 0 and count_parts(self._output) >= parts:
                break
            time.sleep(0.25)
        else:
            if self._process.returncode != 0:
                raise SystemExit(f"the job failed: {''.join(self._errors)[-2000:]}")
        return time.perf_counter() - self._started

    def _see(self, root: psutil.Process) -> None:
        try:
            held = [("driver", root), *((_role(p), p) for p in root.children(recursive=True))]
        except psutil.Error:
            return
        for role, process in held:
            if role is not None:
                self.peak[role] = max(self.peak[role], _private(process))

    def kill(self) -> None:
        root = psutil.Process(self._process.pid)
        for process in [*root.children(recursive=True), root]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self._process.wait()


def count_parts(output: Path) -> int:
    return sum(1 for _ in output.glob("frames/*/part-*.parquet"))


def faults(output: Path) -> tuple[int, int]:
    """Rows, and how many of them are there twice."""
    table = open_run(output).frames().to_table(columns=["video_id", "frame_index"])
    return table.num_rows, table.num_rows - table.group_by(["video_id", "frame_index"]).aggregate([]).num_rows


def tiny_files(root: Path, files: int) -> dict[str, Any]:
    """One run over so many of them."""
    clip = write_video(root / "tiny.mp4", moving_disc(TINY_FRAMES, 48, 64))
    folder = root / f"files-{files}"
    folder.mkdir()
    for number in range(files):
        os.link(clip, folder / f"{number:06d}.mp4")
    driver = Driver(folder, root / f"out-{files}")
    seconds = driver.wait()
    rows, doubled = faults(root / f"out-{files}")
    row = {"files": files, "seconds": seconds, "doubled": doubled, "missing": TINY_FRAMES * files - rows}
    print(
        f"{files:,} tiny files in {seconds:.0f} s ({files / seconds:.1f} a second); {told(row, driver)}",
        flush=True,
    )
    return row | {"peak": driver.peak}


def long_video(root: Path, hours: float, killed: bool) -> dict[str, Any]:
    """One run over a looped video."""
    frames = round(hours * 3600 * FPS / LOOP_FRAMES) * LOOP_FRAMES
    clip = write_video(root / "loop.mp4", moving_disc(LOOP_FRAMES, 64, 96), fps=FPS, gop=GOP)
    video, output = looped(clip, root / f"{frames}.mp4", frames // LOOP_FRAMES), root / f"out-long-{frames}"
    driver = Driver(video, output)
    there = 0
    if killed:
        driver.wait(parts=frames // 128 // 3)
        driver.kill()
        there = count_parts(output)
        first, driver = driver, Driver(video, output)
        seconds = driver.wait()
        driver.peak = {role: max(most, first.peak[role]) for role, most in driver.peak.items()}
    else:
        seconds = driver.wait()
    rows, doubled = faults(output)
    row = {"hours": hours, "frames": frames, "seconds": seconds, "parts_before_the_kill": there}
    row |= {"parts": count_parts(output), "doubled": doubled, "missing": frames - rows}
    after = f", after a kill with {there} of {row['parts']} parts there" if killed else ""
    print(f"{hours:g} h, {frames:,} frames in {seconds:.0f} s{after}; {told(row, driver)}", flush=True)
    return row | {"peak": driver.peak}


def told(row: dict[str, Any], driver: Driver) -> str:
    peaks = ", ".join(f"{role} {most / 2**20:.0f} MiB" for role, most in driver.peak.items())
    return f"{row['doubled']} rows double, {row['missing']} missing; peaks {peaks}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--only", choices=("files", "long"))
    parser.add_argument("--json")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if args.only != "long":
            found["files"] = [tiny_files(root, files) for files in (args.files // 10, args.files)]
        if args.only != "files":
            found["long"] = [long_video(root, args.hours / 10, False), long_video(root, args.hours, True)]
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
    rows = [row for part in found.values() for row in part]
    raise SystemExit(any(row["doubled"] or row["missing"] for row in rows))


if __name__ == "__main__":
    main()
