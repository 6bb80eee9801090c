"""What a version computes, as one digest a run: whether a change to the code changed a result.

Model: a set of small runs goes through the command line of a checkout (the `main` of its `jobs.VERB`), all in
one process beside one Ray. Later runs read what earlier ones wrote. Clips are generated here, and some real
ones are added where they are at hand. What was written is read with Arrow and JSON alone, so equal digests do
not depend on the package that is being compared. Times, paths and versions are left out.
Invariant: the same code on the same kind of machine gives the same digests; other processors may round
differently.

    python -m benchmarks.digests --save before.json          # this checkout, some minutes
    python -m benchmarks.digests --same before.json          # exit code 1 if a run differs
    python -m benchmarks.digests --against v0.1 --quick      # another version beside this one
    python -m benchmarks.digests --more "--executor ray" --same before.json   # small runs are local else
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

from benchmarks.against import HERE, checkout, run_there
from benchmarks.corpus import data_dir

Digests = dict[str, str]
"""Digest and a few counts in words, by the name of a run."""
NETS = "--working_size 96 --threads 1"
SEGMENT = f"--input clips.csv --segmenter tiny-scenes {NETS} --propagation.flow_size 96 --workers 1"
CUT = "--segment_frames 40 --shard_frames 16 --scheduler.max_interval 20"
LABELLED = "--data scenes:videos=3,frames=40,height=96,width=128 --working_size 96 --propagation.flow_size 96"
NOT_COMPARED = ("_s", "_per_video_hour", "fps", "method_id")
"""Ends of the names of columns that hold times, or follow from how a configuration is spelled."""


@dataclass(frozen=True)
class Run:
    """One command: its verb, its options, and what of its output is compared."""

    verb: str
    options: str
    read: Callable[[Path], str]
    quick: bool = False


def masks_of(output: Path) -> str:
    """Every frame of a run of `segment`, and what became of each video."""
    frames, keys, digest = 0, 0, hashlib.sha256()
    for row in _rows(output / "frames", FRAME_COLUMNS):
        digest.update(repr(row).encode())
        frames, keys = frames + 1, keys + bool(row[3])
    for row in _rows(output / "videos", VIDEO_COLUMNS):
        digest.update(repr(row).encode())
    return f"{digest.hexdigest()[:16]} {frames} frames, {keys} keys"


FRAME_COLUMNS = (
    "video_id frame_index pts_s is_key key_frame_index decision_score kar lkd is_corrupt height width mask"
).split()
VIDEO_COLUMNS = "video_id status reason decoded_frames corrupt_frames keys".split()


def _rows(folder: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for file in folder.rglob("*.parquet"):
        table = pq.ParquetFile(file).read(columns=list(columns))
        rows += zip(*(table[name].to_pylist() for name in columns), strict=True)
    return sorted(rows, key=lambda row: row[:2])


def weights_in(name: str) -> Callable[[Path], str]:
    """The tensors of the one file `name` below a training run's output."""

    def read(output: Path) -> str:
        (file,) = output.rglob(name)
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + data[8 + length :])
        return f"{digest.hexdigest()[:16]} {len(header)} tensors"

    return read


def tables_of(output: Path) -> str:
    """The numbers of all episode tables of a set."""
    digest, files = hashlib.sha256(), sorted(output.rglob("segment-*.arrow"))
    for file in files:
        digest.update(_plain(feather.read_table(file)))
    return f"{digest.hexdigest()[:16]} {len(files)} tables"


def figures_of(output: Path) -> str:
    """The figures of an evaluation, by method and by frame."""
    digest, rows = hashlib.sha256(), 0
    for name, order in (
        ("methods", ("method", "point")),
        ("frames", ("clip", "method", "point", "frame_index")),
    ):
        table = pq.read_table(output / f"{name}.parquet")
        table = table.select([column for column in table.column_names if not column.endswith(NOT_COMPARED)])
        digest.update(_plain(table.sort_by([(column, "ascending") for column in order])))
        rows += table.num_rows
    return f"{digest.hexdigest()[:16]} {rows} rows"


def _plain(table: pa.Table) -> bytes:
    """The columns of a table in one batch, without its metadata."""
    sink, table = pa.BufferOutputStream(), table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def the_runs(real: bool) -> dict[str, Run]:
    """All runs by name, in an order in which each finds what it reads (`{name}`: the output of a run)."""
    runs = {
        "tables": Run(
            "build-episodes",
            f"{LABELLED} --features flow scores --horizon 24 --two_sided_stride 4 --segment_frames 0"
            " --threads 1",
            tables_of,
            quick=True,
        ),
        "train-decision": Run(
            "train-decision",
            "--tables {tables} --steps 20 --val_every 10 --intervals 5 --batch 32 --threads 1",
            weights_in("decision.safetensors"),
            quick=True,
        ),
        "train-planner": Run(
            "train-planner",
            "--tables {tables} --window 18 --stride 3 --intervals 5 --folds 2 --strengths 0.1",
            weights_in("planner.safetensors"),
            quick=True,
        ),
        "train-policy": Run(
            "train-policy",
            "--tables {tables} --reinforce.episodes 16 --reinforce.trials 4 --episode.frames 20 --intervals 5"
            " --episode.max_interval 20 --threads 1",
            weights_in("policy.safetensors"),
        ),
        "train-segmenter": Run(
            "train-segmenter",
            "--data scenes:videos=2,frames=20,height=96,width=128 --segmenter tiny:8 --steps 4"
            " --recipe.batch 2 --augment.crop 64 --val_limit 2 --loaders 1 --workers 1 --threads 1",
            weights_in("best.safetensors"),
        ),
        "train-flow": Run(
            "train-flow",
            "--data scenes:videos=2,frames=20,height=96,width=128 --net tiny-flow --steps 4 --recipe.batch 2"
            " --recipe.height 64 --recipe.width 64 --size 96 --gaps 1 5 --workers 1 --threads 1",
            weights_in("last.safetensors"),
        ),
        "evaluate": Run(
            "evaluate",
            f"{LABELLED} --segmenter labels --threads 1 --workers 2 --methods"
            " every fixed:interval=6,12 warp_error:threshold=3,sides=one oracle:interval=6,sides=one"
            " --tables {tables}",
            figures_of,
            quick=True,
        ),
        "pseudo-label": Run("pseudo-label", f"{SEGMENT} {CUT} --min_confidence 0.6", masks_of),
        "dial": Run(
            "segment",
            f"{SEGMENT} {CUT} --budget 0.2 --calibration.clips 2 --calibration.clip_frames 16"
            " --calibration.schedulers fixed warp_error --calibration.audit_frames 8",
            masks_of,
        ),
    }
    for name, options in SCHEDULES.items():
        runs[name] = Run("segment", f"{SEGMENT} {CUT} {options}", masks_of, quick=name in QUICK)
    if real:
        runs["real"] = Run(
            "segment",
            f"--input real.csv --segmenter tiny-face {NETS} --workers 1 --scheduler.name warp_error",
            masks_of,
        )
    return runs


DECISION = "--scheduler.policy {train-decision}/decision.safetensors"
QUICK = ("fixed", "warp_error, one side", "planner")
REAL = (
    "face/liveportrait_d0.mp4",
    "decoder/derived_vfr.mp4",
    "decoder/derived_opengop_b3.mkv",
    "decoder/derived_bitflips.mkv",
    "decoder/torchcodec_testsrc2_vp8.webm",
    "decoder/torchcodec_testsrc2_444_10bit_hevc.mp4",
)
"""Below the folder of real material: faces, odd times, open groups of pictures, damage, other codecs."""
SCHEDULES = {
    "every": "--scheduler.name every",
    "fixed": "--scheduler.interval 7",
    "fixed, one side": "--scheduler.interval 7 --propagation.sides one",
    "fixed, copy": "--scheduler.interval 7 --propagation.name copy",
    "fixed, copy, one side": "--scheduler.interval 7 --propagation.name copy --propagation.sides one",
    "fixed, scores": "--scheduler.interval 7 --propagation.level scores",
    "fixed, features": "--scheduler.interval 7 --propagation.level features --propagation.sides one",
    "fixed, four lanes": "--scheduler.interval 7 --lanes 4",
    "fixed, size of the source": "--scheduler.interval 7 --masks.size source",
    "fixed, mirrored, batches of keys": "--scheduler.interval 7 --tta.flip --key_batch 4",
    "fixed, flow net": "--scheduler.interval 7 --propagation.flow tiny-flow",
    "random": "--scheduler.name random --scheduler.interval 7 --seed 3",
    "frame_difference": "--scheduler.name frame_difference --scheduler.threshold 3",
    "flow_magnitude": "--scheduler.name flow_magnitude --scheduler.threshold 1",
    "warp_error": "--scheduler.name warp_error",
    "warp_error, one side": "--scheduler.name warp_error --propagation.sides one",
    "policy": "--scheduler.name policy --scheduler.policy {train-policy}/policy.safetensors",
    "expected_loss": f"--scheduler.name expected_loss {DECISION}",
    "confidence_sum": f"--scheduler.name confidence_sum {DECISION}",
    "planner": "--scheduler.name planner",
    "planner, own": "--scheduler.name planner --propagation.sides one"
    " --scheduler.policy {train-planner}/planner.safetensors",
}
"""Runs of `segment` over the generated clips."""


def make_clips(folder: Path, data: Path | None) -> None:
    """Three clips and their list (one short, one damaged), and a list of real ones below `data`."""
    names = {"steady": (70, 96, 128), "small": (45, 76, 102), "torn": (50, 96, 128)}
    for seed, (name, (frames, height, width)) in enumerate(names.items()):
        _write_clip(folder / f"{name}.mp4", frames, height, width, seed)
    torn = bytearray((folder / "torn.mp4").read_bytes())
    middle = len(torn) // 2
    torn[middle : middle + 200] = bytes(200)
    (folder / "torn.mp4").write_bytes(torn)
    _write_list(folder / "clips.csv", [folder / f"{name}.mp4" for name in names])
    if data:
        _write_list(folder / "real.csv", [data / name for name in REAL if (data / name).is_file()])


def _write_list(path: Path, clips: list[Path]) -> None:
    """Ids are given, since those that are made depend on where a file lies."""
    path.write_text("uri,video_id\n" + "".join(f"{clip},{clip.stem}\n" for clip in clips), encoding="utf-8")


def _write_clip(path: Path, frames: int, height: int, width: int, seed: int) -> None:
    """A coloured disc and a square that move at changing speed over a textured ground."""
    tiles = np.random.default_rng(seed).integers(60, 190, (height // 8 + 1, width // 8 + 1), np.uint8)
    ground = np.repeat(np.kron(tiles, np.ones((8, 8), np.uint8))[:height, :width, None], 3, axis=2)
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25, options={"threads": "1", "bf": "2", "g": "12"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2_000_000
        stream.codec_context.thread_count = 1
        for number in range(frames):
            turn = 0.002 * number**2 if number % 40 < 25 else 0.1 * number
            centre_x, centre_y = (
                width * (0.5 + 0.3 * np.sin(turn)),
                height * (0.5 + 0.25 * np.cos(1.3 * turn)),
            )
            picture = ground.copy()
            picture[np.hypot(x - centre_x, y - centre_y) < height / 5] = (220, 30, 30)
            square = (abs(x - width + centre_x) < height / 8) & (abs(y - height / 3) < height / 8)
            picture[square] = (30, 40, 230)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def compute(scratch: Path, data: Path | None, quick: bool, more: str) -> Digests:
    """The digests of all runs (or of the quick ones) with the code of this process."""
    import ray

    os.chdir(scratch)
    make_clips(scratch, data)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=400_000_000,
    )
    found: Digests = {}
    runs = the_runs(real=data is not None)
    places = {name: str(scratch / f"output-{number}") for number, name in enumerate(runs)}
    for name, run in runs.items():
        if run.quick or not quick:
            began = time.monotonic()
            found[name] = _digest_of(run, places[name], places, more)
            print(f"{name}: {found[name]} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)
    return found


def _digest_of(run: Run, output: str, places: dict[str, str], more: str) -> str:
    """What a run gives; a failure is a result, too."""
    words = [word.format_map(places) for word in run.options.split()] + ["--output", output]
    words += more.split() if run.verb in ("segment", "pseudo-label") else []
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            verb = importlib.import_module(f"jobs.{run.verb.replace('-', '_')}")
            code = verb.main(words)
        return run.read(Path(output)) if code in (0, 3) else f"exit code {code}: {said.getvalue()[-400:]}"
    except Exception as problem:
        return f"failed: {type(problem).__name__}: {problem}"


def measure(place: Path, options: argparse.Namespace) -> Digests:
    """The digests of the code in the checkout `place`, by a process of its own."""
    words = ["--quick"] * options.quick + ["--more", options.more]
    words += ["--data", str(data)] if (data := data_dir(options.data)) else []
    with tempfile.TemporaryDirectory(prefix="vidseg-digests-") as scratch:
        return run_there("benchmarks.digests", place, [scratch, *words], quiet=False)["digests"]


def differences(there: Digests, here: Digests) -> list[str]:
    """A line for each run that both have and that differs."""
    both = [name for name in here if name in there]
    return [f"{name}: {there[name]} there, {here[name]} here" for name in both if there[name] != here[name]]


def main(argv: list[str] | None = None) -> int:
    """1 if a run differs or failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", type=Path, help="write the digests to this file")
    parser.add_argument("--same", type=Path, help="compare with a file that --save wrote")
    parser.add_argument("--against", metavar="REV", help="compare with this revision")
    parser.add_argument("--quick", action="store_true", help="a few of the runs, about a minute")
    parser.add_argument(
        "--more", default="", help='options for segment and pseudo-label ("--executor local")'
    )
    parser.add_argument("--data", help="real material; default: $VIDSEG_DATA")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.once:
        import vidseg_core

        found = compute(options.once, data_dir(options.data), options.quick, options.more)
        code = str(Path(vidseg_core.__file__).resolve().parents[1])
        print("\n" + json.dumps({"code": code, "digests": found}), flush=True)
        return 0
    here = measure(HERE, options)
    if options.save:
        options.save.write_text(json.dumps(here, indent=1) + "\n", encoding="utf-8")
    there = json.loads(options.same.read_text(encoding="utf-8")) if options.same else {}
    if options.against:
        with checkout(options.against) as other:
            there = measure(other, options)
    differ = differences(there, here)
    failed = [
        f"{name}: {digest}" for name, digest in here.items() if digest.startswith(("failed", "exit code"))
    ]
    compared = sum(name in there for name in here)
    print("\n".join([*failed, *differ, f"{len(here)} runs, {compared} compared, {len(differ)} differ"]))
    return 1 if differ or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
