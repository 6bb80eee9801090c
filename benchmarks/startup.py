"""From the command to the first committed part and to the end, for one short clip, beside a plain loop.

    python -m benchmarks.startup [--video FILE] [--frames 200] [--repeat 3] [--json FILE]

The clip is cut to so many frames (packets copied). Measured in turn, each in a process of its own: an
interpreter that imports torch, cv2 and av; a plain loop over the same frames (decode, `tiny-face` on every
twelfth frame, nothing kept); `vidseg segment` with `--executor local` and `ray`. The job also propagates
between keys (flow, both sides), writes masks and commits; a line with `copy` of the last key shows how much
of the time is flow. Medians are printed. Asked: local at most 2.5 times the plain loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

from benchmarks.corpus import real_videos

IMPORTS = "import torch, cv2, av"
PLAIN = """
import sys, cv2, av, torch
from vidseg_core.media import working_size
from vidseg_core.models import build_segmenter
torch.set_num_threads(1)
net = build_segmenter("tiny-face")
with av.open(sys.argv[1]) as container, torch.inference_mode():
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for number, frame in enumerate(container.decode(stream)):
        if number % 12 == 0:
            height, width = working_size(frame.width, frame.height, 512)
            frame_HW3 = frame.reformat(width, height, "rgb24").to_ndarray()
            picture = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255
            net.head(net.features(picture)).argmax(1)
"""


def shortened(source: Path, target: Path, frames: int) -> int:
    """Copy the first packets of a video; how many there were of those that were asked for."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as out:
        stream = whole.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.dts is not None]
        for packet in packets[:frames]:
            packet.stream = copy
            out.mux(packet)
    return min(frames, len(packets))


def seconds(command: list[str], parts: Path | None = None) -> tuple[float, float]:
    """Until the first part is there (nan where none is made), and until the end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("RAY_ADDRESS", None)
    started, first = time.monotonic(), float("nan")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        while parts is not None and run.poll() is None and first != first:
            if any(parts.glob("frames/*/part-*.parquet")):
                first = time.monotonic() - started
            time.sleep(0.01)
        _, errors = run.communicate()
    if run.returncode != 0:
        raise SystemExit(errors.decode())
    return first, time.monotonic() - started


def measured(clip: Path, scratch: Path, repeat: int) -> dict[str, list[tuple[float, float]]]:
    """(first part, end) of each way, as often as asked, one way after the other."""
    found: dict[str, list[tuple[float, float]]] = {}
    for turn in range(repeat):
        found.setdefault(IMPORTS, []).append(seconds([sys.executable, "-c", IMPORTS]))
        found.setdefault("plain loop", []).append(seconds([sys.executable, "-c", PLAIN, str(clip)]))
        for name, options in (
            ("local", ["--executor", "local"]),
            (
                "local, copy",
                ["--executor", "local", "--propagation.name", "copy", "--propagation.sides", "one"],
            ),
            ("ray", ["--executor", "ray"]),
        ):
            output = scratch / f"{name}-{turn}"
            command = [sys.executable, "-m", "jobs.segment", "--input", str(clip), "--output", str(output)]
            command += ["--segmenter", "tiny-face", *options]
            found.setdefault(name, []).append(seconds(command, output))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path)
    parser.add_argument("--data", type=Path, default=None, help="folder of real videos")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = options.video or real_videos(options.data)[0]
        clip = scratch / f"clip{source.suffix}"
        frames = shortened(source, clip, options.frames)
        found = measured(clip, scratch, options.repeat)
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in found.items()
    }
    plain = medians["plain loop"][1]
    print(f"{source.name}, {frames} frames, median of {options.repeat}")
    for name, (first, end) in medians.items():
        part = "" if first != first else f"first part {first:5.1f} s   "
        print(f"  {name:24} {part:24}end {end:5.1f} s   {end / plain:4.1f} x the plain loop")
    if options.json:
        options.json.write_text(json.dumps({"rows": found, "medians": medians}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
