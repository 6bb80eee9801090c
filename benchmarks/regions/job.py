"""The part `job`: the whole job on regions beside whole frames, an expensive N seeing equally many pixels.

DeepLabV3+ with a ResNet50 at 512x512 (random weights serve for speed), DIS from two sides, masks written,
one worker in this process. Keys come at even distances: of whole frames so often that N sees the asked share
of the pixels, of regions so much more rarely as their overlap costs. All grids take turns, so that a busy
machine is busy for all of them; a first job, which is not counted, brings libraries into memory.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.against import run_segment
from benchmarks.regions.common import Row
from benchmarks.speedup import cut, source_video
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.store.run import open_run

NET, SIZE = "smp:DeepLabV3Plus/resnet50", (512, 512)
GRIDS, OVERLAP = ("1x1", "2x2", "3x3"), 16
FRAMES = 224
"""At 4 % all grids have nearly their share in so many: the first frame is key everywhere."""
ASKED = 0.9


def jobs(
    data: str | None,
    grids: Sequence[str] = GRIDS,
    share: float = 0.04,
    frames: int = FRAMES,
    turns: int = 3,
    net: str = NET,
) -> Iterator[Row]:
    """A row for each turn and grid."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = source_video(data, folder)
        clip, short = (cut(source, length, folder / f"{length}.mp4") for length in (frames, 2))
        _job(short, folder / "warm", RegionsConfig(), 90, net)
        for turn in range(turns):
            for grid in dict.fromkeys(("1x1", *grids)):
                regions = RegionsConfig(grid=grid, overlap=OVERLAP).used
                interval = max(1, round(sum(regions.shares(SIZE)) / share))
                wall, cpu, seen = _job(clip, folder / f"{turn}-{grid}", regions, interval, net)
                yield {
                    "turn": turn, "net": net, "grid": grid, "interval": interval, "share": share,
                    "seen": seen, "fps": frames / wall, "cpu_fps": frames / cpu,
                }  # fmt: skip


def _job(
    clip: Path, output: Path, regions: RegionsConfig, interval: int, net: str
) -> tuple[float, float, float]:
    """Seconds and CPU seconds (decoder included) of the job, and the share of pixels that the net saw."""
    config = SegmentConfig(
        input=(str(clip),),
        output=str(output),
        segmenter=net,
        num_classes=19 if net == NET else None,
        working_size=f"{SIZE[0]}x{SIZE[1]}",
        scheduler=SchedulerConfig(name="fixed", interval=interval),
        propagation=PropagationConfig(sides="two"),
        regions=regions,
        executor="local",
        workers=1,
        log="json",
    )
    started, before = time.perf_counter(), _cpu_seconds()
    code = run_segment(config)
    if code != 0:
        raise SystemExit(f"the job failed with exit code {code}")
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - before
    (video,) = open_run(output).videos().to_pylist()
    return wall, cpu, 1.0 / video["aki"]


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def speeds(rows: Sequence[Row]) -> Iterator[str]:
    """Medians over turns, and the medians of each turn's ratio to whole frames."""
    by: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        by.setdefault((row["share"], row["grid"]), []).append(row)
    for (share, grid), found in by.items():
        said = f"{grid}: {100 * np.median([row['seen'] for row in found]):.2f} % of the pixels, "
        for name, what in (("fps", "frames/s"), ("cpu_fps", "frames per CPU second")):
            own = np.array([row[name] for row in found])
            ratios = own / np.array([row[name] for row in by[share, "1x1"]])
            said += f"{np.median(own):.1f} {what}, {np.median(ratios):.2f} of whole frames; "
        yield f"{said}asked {ASKED}"
