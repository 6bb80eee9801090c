"""Frames/s of `vidseg export --format overlay`, over plain PyAV re-encoding of the same frames, and over the
export of another version.

    python -m benchmarks.overlay [--json FILE] [--data DIR] [--video NAME ...] [--turns N] [--against REV]

A run of `tiny-face` is made first. A turn is a fresh process in which the frames are re-encoded (decoded,
scaled to the overlay's size, encoded as overlays are, with all cores) and the overlay is
exported, each after a clip that warms up. With `--against` turns of both versions alternate on the same run
(see `against`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av

from benchmarks import against
from benchmarks.corpus import real_videos
from vidseg_core.cli import main as cli
from vidseg_core.media import working_size
from vidseg_core.store import open_run

VIDEOS = ("liveportrait_s18", "liveportrait_d12")
SIZE = 960
X264 = {"preset": "veryfast", "crf": "20"}


def reencoded(source: Path, out: Path) -> int:
    """Plain PyAV: every frame of a file, scaled and encoded again; the number of frames."""
    with av.open(str(source)) as container, av.open(str(out), "w") as sink:
        stream = container.streams.video[0]
        height, width = working_size(stream.width, stream.height, SIZE)
        coded = sink.add_stream("libx264", rate=stream.average_rate, options=X264)
        coded.width, coded.height, coded.pix_fmt = width, height, "yuv420p"
        frames = 0
        for frame in container.decode(stream):
            picture = frame.reformat(width, height, "yuv420p")
            picture.pts, picture.time_base = frame.pts, frame.time_base
            sink.mux(coded.encode(picture))
            frames += 1
        sink.mux(coded.encode(None))
    return frames


def one_turn(folder: Path, run: str, scratch: Path) -> against.Figures:
    """Both speeds of the version whose turn it is."""
    videos = sorted(folder.iterdir())
    reencoded(videos[0], scratch / "warm.mp4")
    export = ["export", "--run", run, "--format", "overlay", "--output"]
    cli.main([*export, str(scratch / "warm"), "--video", video_ids(run)[0]])
    started = time.perf_counter()
    frames = sum(reencoded(video, scratch / video.name) for video in videos)
    between = time.perf_counter()
    if code := cli.main([*export, str(scratch / "overlay")]):
        raise SystemExit(f"the export failed with exit code {code}")
    plain, overlay = frames / (between - started), frames / (time.perf_counter() - between)
    return {"overlay_fps": overlay, "plain_fps": plain, "overlay_of_plain": overlay / plain}


def video_ids(run: str) -> list[str]:
    """Of the videos that have masks."""
    return [video_id for video_id, _ in open_run(run).files()]


def make_run(folder: Path, output: Path) -> None:
    """Masks for the videos of a folder."""
    words = ["segment", "--input", str(folder), "--output", str(output), "--segmenter", "tiny-face"]
    if code := cli.main([*words, "--executor", "local"]):
        raise SystemExit(f"segment failed with exit code {code}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--data")
    parser.add_argument("--video", nargs="+", default=VIDEOS, help="names of face clips, without .mp4")
    against.add_options(parser)
    args = parser.parse_args()
    if args.once:
        folder, run, scratch = args.once
        against.answer(one_turn(Path(folder), run, Path(scratch)))
        return
    videos = [path for path in real_videos(args.data) if path.stem in args.video]
    if len(videos) != len(set(args.video)):
        raise SystemExit("benchmarks.overlay needs the clips of --video: give --data DIR (with face/)")
    with tempfile.TemporaryDirectory() as place:
        folder, run = Path(place) / "in", Path(place) / "run"
        folder.mkdir()
        for video in videos:
            shutil.copy(video, folder)
        make_run(folder, run)
        words = [str(folder), str(run)]
        row = compared(words, args.against, args.turns)
    if args.json:
        Path(args.json).write_text(json.dumps(row, indent=1), encoding="utf-8")


def compared(words: Sequence[str], revision: str | None, turns: int) -> dict:
    """The medians of all turns, of this version and of another where one is named."""
    module = "benchmarks.overlay"
    if revision:
        return against.compare(module, revision, turns, lambda scratch: [*words, str(scratch)])
    found = []
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as scratch:
            found.append(against.run_there(module, against.HERE, [*words, scratch])["figures"])
        print(f"turn {turn + 1} of {turns}: {found[-1]}", flush=True)
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    print(f"overlay: {medians}")
    return {"turns": turns, "all": found, "medians": medians}


if __name__ == "__main__":
    main()
