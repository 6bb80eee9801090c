"""A run that everything happens to, beside an undisturbed one: the same table, and how many faults it took.

    python -m benchmarks.chaos [--videos 200] [--faults 12] [--every 4] [--seed 0] [--json FILE]
    python -m benchmarks.chaos --videos 2000 --faults 200          the long version

Three Ray nodes on this machine; inputs on disk, the output on an S3 server behind a proxy that fails two
requests in a hundred (500, SlowDown, resets, broken bodies, lost answers). Every few seconds one of these is
killed: an engine actor, a decode process, the Ray worker of one, a whole node (another takes its place), or
the driver (started again); or the driver is killed, bits of committed parts are flipped and others deleted,
and the next driver has `--repair`. One clip more kills the engine's process whenever it gets to its red
picture; it must be quarantined (`engine_crash`), and is left out of all comparisons. After `--faults` kills
the run is left in peace until it ends. Then parts are damaged once more: a plain driver must refuse the run
(exit code 1), and one with `--repair` make it whole.

Baseline: the same stages in this process, one after the other, on local disk. Printed: faults survived by
kind, repairs, whether the digests agree, rows that are double or missing (asked: none).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import pyarrow.compute as pc
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from ray.cluster_utils import Cluster
from werkzeug.serving import make_server

from benchmarks.damage import damage_parts
from benchmarks.fragile import SPEC, deadly_clip
from benchmarks.run_digest import run_digest
from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.inline import run_inline
from tests.s3_faults import FaultyS3, faulty
from tests.s3_server import OneAtATime, Quiet
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.store.run import open_run

STORE = 150_000_000
KINDS = ("engine actor", "decode process", "decode worker", "node", "driver", "damaged parts")
DEADLY = "deadly.mp4"
OPTIONS: dict[str, Any] = {
    "segmenter": SPEC,
    "scheduler": SchedulerConfig(name="fixed", interval=7),
    "propagation": PropagationConfig(flow_size=64),
    "segment_frames": 30,
    "shard_frames": 8,
}
WORDS = ["--segmenter", SPEC, "--scheduler.name", "fixed", "--scheduler.interval", "7", "--workers", "2"]
WORDS += ["--propagation.flow_size", "64", "--segment_frames", "30", "--shard_frames", "8"]


@dataclass
class Chaos:
    """The cluster, its driver, and who was killed so far."""

    clips: Path
    output: str
    dice: random.Random
    survived: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    repairs: int = 0
    repairing: bool = False
    """Parts have been damaged since a driver ended well."""

    def __post_init__(self) -> None:
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE}
        )
        self.nodes = [self._new_node() for _ in range(2)]
        self.driver = self._new_driver()

    def _new_node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def _new_driver(self) -> subprocess.Popen[str]:
        self.drivers += 1
        words = ["--input", str(self.clips), "--output", self.output, "--ray_address", self.cluster.address]
        if self.repairing:
            self.repairs += 1
            words.append("--repair")
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.segment", *words, *WORDS],
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def run(self, faults: int, every_s: float) -> int:
        """Disturbs until enough was killed, then waits for the end; exit code of the last driver."""
        while True:
            try:
                _, errors = self.driver.communicate(timeout=every_s * self.dice.uniform(0.5, 1.5))
            except subprocess.TimeoutExpired:
                if sum(self.survived.values()) < faults:
                    self._kill_something()
                continue
            if self.driver.returncode in (0, 3):
                self.repairing = False
                return self.driver.returncode
            print(f"a driver ended with {self.driver.returncode}: {errors[-400:]}", flush=True)
            if self.drivers > faults + 5:
                return self.driver.returncode
            self.driver = self._new_driver()

    def _kill_something(self) -> None:
        kind = self.dice.choice(KINDS)
        if kind in ("driver", "damaged parts"):
            self.driver.kill()
            self.driver.communicate()
            if kind == "damaged parts" and not self._damage():
                kind = "driver"
            self.driver = self._new_driver()
        elif kind == "node":
            self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
            self.nodes.append(self._new_node())
        else:
            victims = _victims(kind)
            if not victims:
                return
            try:
                self.dice.choice(victims).kill()
            except psutil.NoSuchProcess:
                return
        self.survived[kind] += 1
        print(f"killed: {kind} ({sum(self.survived.values())})", flush=True)

    def _damage(self) -> bool:
        """Whether there was a part to damage."""
        done = damage_parts(self.output, self.dice)
        self.damaged += done
        self.repairing = self.repairing or bool(done)
        return bool(done)

    def damage_the_end(self) -> int:
        """Damages a run that has ended; a plain driver must refuse it, the next repairs it: its exit code."""
        self._damage()
        self.repairing = False
        self.driver = self._new_driver()
        self.driver.communicate()
        if self.driver.returncode != 1:
            raise SystemExit(f"a damaged run was taken for whole: exit code {self.driver.returncode}")
        self.repairing = True
        self.driver = self._new_driver()
        return self.run(0, 10.0)

    def close(self) -> None:
        self.driver.kill()
        self.cluster.shutdown()


def _victims(kind: str) -> list[psutil.Process]:
    here = psutil.Process().children(recursive=True)
    if kind == "engine actor":
        return [process for process in here if "EngineStage" in _title(process)]
    decoding = [process for process in here if "vidseg_core.media.child" in _title(process)]
    if kind == "decode process":
        return decoding
    parents = (process.parent() for process in decoding)  # an orphan's is somebody else, us for instance
    return [parent for parent in parents if parent is not None and _title(parent).startswith("ray::")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def s3_service(share: float, seed: int) -> Iterator[tuple[FaultyS3, str]]:
    """(the proxy, a bucket's address); the environment leads through the proxy."""
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }
    bucket = f"chaos-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    with faulty(f"http://127.0.0.1:{server.server_port}") as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        proxy.at_random(share, seed)
        yield proxy, f"s3://{bucket}/run"
    server.shutdown()


def make_clips(folder: Path, videos: int, seed: int) -> int:
    """Short videos, a hundred different ones at most; the number of their frames."""
    dice, frames = random.Random(seed), 0
    made: list[tuple[Path, int]] = []
    for number in range(videos):
        path = folder / f"clip-{number:05d}.mp4"
        if number < 100:
            length = dice.randint(12, 60)
            write_video(path, moving_disc(length, 64, 96, seed=number))
            made.append((path, length))
        else:
            shutil.copyfile(made[number % 100][0], path)
        frames += made[number % 100][1]
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between kills, on average")
    parser.add_argument("--share", type=float, default=0.02, help="S3 requests that fail")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clips = Path(scratch) / "in"
        frames = make_clips(clips, args.videos, args.seed)
        started = time.perf_counter()
        run_inline(SegmentConfig(input=(str(clips),), output=f"{scratch}/quiet", **OPTIONS), 2)
        quiet_s = time.perf_counter() - started
        write_video(clips / DEADLY, deadly_clip(40, from_frame=20))
        with s3_service(args.share, args.seed) as (proxy, output):
            chaos = Chaos(clips, output, random.Random(args.seed))
            started = time.perf_counter()
            try:
                chaos.run(args.faults, args.every)
                code = chaos.damage_the_end()
            finally:
                chaos.close()
            took_s = time.perf_counter() - started
            proxy.chance = lambda request: None
            rows = open_run(output).videos().to_pylist()
            deadly = next(row for row in rows if row["uri"].endswith(DEADLY))
            same = run_digest(output, without={deadly["video_id"]}) == run_digest(f"{scratch}/quiet")
            table = open_run(output).frames().to_table(columns=["video_id", "frame_index"])
        table = table.filter(pc.field("video_id") != deadly["video_id"])
        places = set(zip(*table.to_pydict().values(), strict=True))
    row = {
        "videos": args.videos,
        "frames": frames,
        "exit_code": code,
        "digests_equal": same,
        "doubled": table.num_rows - len(places),
        "missing": frames - len(places),
        "deadly_clip": deadly["reason"],
        "survived": dict(chaos.survived),
        "damaged": dict(chaos.damaged),
        "repairs": chaos.repairs,
        "s3_faults": dict(proxy.done),
        "drivers": chaos.drivers,
        "seconds": round(took_s, 1),
        "quiet_s": round(quiet_s, 1),
    }
    kills, stumbles = sum(chaos.survived.values()), sum(proxy.done.values())
    print(
        f"chaos: {args.videos} videos, {frames:,} frames: {kills} kills ({dict(chaos.survived)}), "
        f"{sum(chaos.damaged.values())} damaged parts ({dict(chaos.damaged)}) and {stumbles} S3 faults "
        f"({dict(proxy.done)}) survived by {chaos.drivers} drivers, {chaos.repairs} with --repair, in "
        f"{took_s:.0f} s (undisturbed, without Ray: {quiet_s:.0f} s); the deadly clip: {deadly['reason']}; "
        f"digests {'equal' if same else 'DIFFER'}, {row['doubled']} rows double, {row['missing']} missing"
    )
    if args.json:
        Path(args.json).write_text(json.dumps(row, indent=1), encoding="utf-8")
    fine = same and not row["doubled"] and not row["missing"]
    raise SystemExit(0 if fine and str(deadly["reason"]).startswith("engine_crash") else 1)


if __name__ == "__main__":
    main()
