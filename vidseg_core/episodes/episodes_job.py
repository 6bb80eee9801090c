"""``vidseg build-episodes``: the job, readable on one screen.

units of all clips -> without those whose table is there -> one Ray Data task each: read, build, put if absent
-> one row each, ``segments.parquet`` at the end. Resume is the listing of tables. A segment that cannot be
tabulated is a row with its reason; the others go on. With ``--quality weighted`` a task a unit counts first
how much there is of each class in clips of several tables.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.excerpt import EXCERPT
from vidseg_core.config.words import count
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.records import DatasetError
from vidseg_core.episodes.class_counts import count_row, counted_clips, parts_to_count
from vidseg_core.episodes.making import claim_set, make_builder, try_making
from vidseg_core.episodes.quality import ClassPixels
from vidseg_core.episodes.sources import (
    Unit,
    chosen_videos,
    class_names,
    dataset_units,
    in_regions,
    read_unit,
    video_units,
)
from vidseg_core.episodes.store import encode_table, list_tables
from vidseg_core.episodes.table_builder import Refused
from vidseg_core.kit.claim import require_writable
from vidseg_core.kit.progress import Pace, Reporter, pace_text
from vidseg_core.media import MediaError
from vidseg_core.models.fetched import bring
from vidseg_core.plan.video_list import SCHEMA, VideoInput
from vidseg_core.store.keys import SEGMENTS_KEY, TableKey
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.small_files import read_table

DONE, QUARANTINED = 0, 3
SEGMENTS_SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("segment", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("source", pa.string()),
        ("frames", pa.int64()),
        ("counted_frames", pa.int64()),
        ("table_bytes", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
"""One row per segment: status built | quarantined; reason short | no_labels | single_class | unreadable |
unusable; `counted_frames` have a truth; `seconds` of processor time, decoding
aside."""


@dataclass(slots=True)
class _Tally:
    total: int
    frames_total: int
    done: int = 0
    frames: int = 0
    quarantined: int = 0


def run_build_episodes(config: BuildEpisodesConfig, reporter: Reporter | None = None) -> int:
    """Build what is missing; the exit code: 0 all there, 3 some segments quarantined. Raises on bad usage."""
    report = reporter or Reporter(config.log)
    bring(config.segmenter, config.weights, report)
    bring(config.propagation.name, None, report)
    with report.phase("loading the net"):
        classes = class_names(config)
        making = make_builder(config, classes, "cpu")
        note = try_making(config, making, classes)
    if note:
        report.say(f"note: {note}")
    if config.dry_run:
        from vidseg_core.episodes.estimate import dry_run

        return dry_run(config, classes, report)
    store = open_store(config.output)
    require_writable(store)
    fresh = claim_set(store, making.fingerprint)
    report.say(f"{'new set' if fresh else 'continuing'} -> {store.root}; {config.describe()}")
    there = {(key.clip, key.segment) for key in list_tables(store)}
    with _ray_when_needed(config, report) as need_ray:
        with report.phase("planning"):
            units, rows = _plan(config, need_ray)
        todo = [unit for unit in units if (unit.clip, unit.segment) not in there]
        if len(todo) < len(units):
            report.say(f"{len(units) - len(todo)} of {len(units)} tables are there already")
        if todo:
            need_ray()
            pixels, uncounted = _count(config, classes, parts_to_count(units, todo, config), report)
            rows += [_unreadable(unit, uncounted[unit.video]) for unit in todo if unit.video in uncounted]
            todo = [unit for unit in todo if unit.video not in uncounted]
            with report.phase("building tables"):
                rows += _build(config, classes, todo, pixels, report)
    return _finish(store, rows, there, report)


@contextmanager
def _ray_when_needed(config: BuildEpisodesConfig, report: Reporter) -> Iterator[Callable[[], None]]:
    """A function that brings Ray up, to go down with the block; a complete set never waits for it."""
    from vidseg_core.kit.ray_session import ray_session

    with ExitStack() as stack:
        yield lambda: stack.enter_context(ray_session(config, report))


# --- plan --------------------------------------------------------------------------------------------------


def _plan(
    config: BuildEpisodesConfig, need_ray: Callable[[], None]
) -> tuple[list[Unit], list[dict[str, Any]]]:
    """All units, and rows for videos that cannot be opened. Videos are opened by Ray tasks."""
    units, rows = _whole_units(config, need_ray)
    return sorted(in_regions(units, config.regions), key=lambda unit: (unit.clip, unit.segment)), rows


def _whole_units(
    config: BuildEpisodesConfig, need_ray: Callable[[], None]
) -> tuple[list[Unit], list[dict[str, Any]]]:
    units = dataset_units(config)
    taken = {unit.clip for unit in units}
    videos = chosen_videos(config, len(taken))
    for video in videos:
        if video.video_id in taken:
            raise ConfigError("--input", f"clip {video.video_id} ({video.uri}) is in a data set too")
    if not videos:
        return units, []
    need_ray()
    import ray.data

    def open_some(batch: Any) -> Any:
        return _open_videos(batch, config)

    found = ray.data.from_items([asdict(video) for video in videos]).map_batches(open_some, batch_size=16)
    rows = []
    for row in found.iter_rows():
        message = row.pop("message")
        if message:
            rows.append(_unreadable(Unit(**row), message))
        else:
            units.append(Unit(**row))
    return units, rows


def _open_videos(batch: Mapping[str, Sequence[Any]], config: BuildEpisodesConfig) -> dict[str, list[Any]]:
    """The units of each video, or one unit without frames and a message."""
    reader, rows = ClipReader(), []
    for video_id, uri, size, stamp, *numbers in zip(*(batch[name] for name in SCHEMA.names), strict=True):
        known = [None if number is None or number != number else float(number) for number in numbers]
        excerpt = dict(zip(EXCERPT, known, strict=True))
        video = VideoInput(video_id=str(video_id), uri=str(uri), size=int(size), stamp=str(stamp), **excerpt)
        try:
            rows += [asdict(unit) | {"message": ""} for unit in video_units(config, video, reader)]
        except (DatasetError, MediaError) as problem:
            unit = Unit(clip=video.video_id, segment=0, source=video.uri, video_id="", start=0, stop=0)
            rows.append(asdict(unit) | {"message": str(problem)})
    reader.close()
    return {name: [row[name] for row in rows] for name in rows[0]}


# --- build -------------------------------------------------------------------------------------------------


def _count(
    config: BuildEpisodesConfig, classes: tuple[str, ...], units: Sequence[Unit], report: Reporter
) -> tuple[dict[str, ClassPixels], dict[str, str]]:
    """What whole clips hold of each class, by video, and why some could not be counted."""
    if not units:
        return {}, {}

    def count_one(item: dict[str, Any], device: str) -> dict[str, Any]:
        return count_row(item, config, classes, device)

    with report.phase("counting classes"):
        return counted_clips(_on_ray(config, count_one, units, report))


def _build(
    config: BuildEpisodesConfig,
    classes: tuple[str, ...],
    todo: Sequence[Unit],
    pixels: Mapping[str, ClassPixels],
    report: Reporter,
) -> list[dict[str, Any]]:
    settings = replace(config, dry_run=False)

    def build(item: dict[str, Any], device: str) -> dict[str, Any]:
        return build_row(item, settings, classes, device, pixels)

    return _on_ray(config, build, todo, report) if todo else []


def _on_ray(
    config: BuildEpisodesConfig,
    work: Callable[[dict[str, Any], str], dict[str, Any]],
    units: Sequence[Unit],
    report: Reporter,
) -> list[dict[str, Any]]:
    """A task for each unit, on the device that the cluster has."""
    import ray
    import ray.data

    from vidseg_core.kit.device import cluster_device

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends it is said by us, once
    ray.data.DataContext.get_current().enable_progress_bars = False
    device = cluster_device(config.device, ray.cluster_resources().get("GPU", 0.0))

    def on_device(item: dict[str, Any]) -> dict[str, Any]:
        return work(item, device)

    longest_first = [asdict(unit) for unit in sorted(units, key=lambda unit: -unit.frames)]
    rows = ray.data.from_items(longest_first, override_num_blocks=len(longest_first)).map(
        on_device,
        num_cpus=config.threads,
        num_gpus=1 if device == "cuda" else None,
        concurrency=config.workers or None,
    )
    return list(_watched(rows.iter_rows(), units, report))


def build_row(
    item: dict[str, Any],
    config: BuildEpisodesConfig,
    classes: tuple[str, ...],
    device: str,
    pixels: Mapping[str, ClassPixels] | None = None,
) -> dict[str, Any]:
    """What a Ray task does: one unit becomes one table, or the reason why not; its row. `pixels`: of videos
    of several tables, for the quality `weighted`."""
    unit, started = Unit(**item), time.process_time()
    making, store = make_builder(config, classes, device), open_store(config.output)
    frames, of_clip = read_unit(unit, config.working_size, config.split), (pixels or {}).get(unit.video)
    try:
        table = making.builder.build(
            unit.clip, unit.segment, frames, fingerprint=making.fingerprint, pixels=of_clip
        )
    except Refused as problem:
        return _row(unit, status="quarantined", reason=problem.reason, message=str(problem))
    except (DatasetError, MediaError) as problem:
        return _unreadable(unit, str(problem))
    data = encode_table(table)
    store.put_if_absent(str(TableKey(unit.clip, unit.segment)), data)  # the first one stands
    return _row(
        unit,
        status="built",
        frames=table.frames,
        counted_frames=int((table.key_quality_T == table.key_quality_T).sum()),
        table_bytes=len(data),
        seconds=time.process_time() - started,
    )


def _unreadable(unit: Unit, message: str) -> dict[str, Any]:
    return _row(unit, status="quarantined", reason="unreadable", message=message)


def _row(unit: Unit, **known: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "clip": unit.clip,
        "segment": unit.segment,
        "reason": "",
        "message": "",
        "source": unit.source,
        "frames": unit.frames,
        "counted_frames": 0,
        "table_bytes": 0,
        "seconds": 0.0,
    }
    return row | known


def _watched(
    rows: Iterable[dict[str, Any]], todo: Sequence[Unit], report: Reporter
) -> Iterator[dict[str, Any]]:
    """The rows as they come, with a progress line."""
    tally = _Tally(total=len(todo), frames_total=sum(unit.frames for unit in todo))
    started = time.monotonic()
    pace = Pace()
    for row in rows:
        tally.done += 1
        tally.frames += row["frames"]
        if row["status"] == "quarantined":
            tally.quarantined += 1
            report.say(f"quarantined: {row['message']}", clip=row["clip"], reason=row["reason"])
        seconds = time.monotonic() - started
        text = (
            f"segments {tally.done}/{tally.total} | frames {tally.frames:,}/{tally.frames_total:,} | "
            f"{pace_text(pace, tally.frames, tally.frames_total)} | quarantined {tally.quarantined}"
        )
        report.show(text, asdict(tally) | {"seconds": round(seconds, 1)}, force=tally.done == tally.total)
        yield row


# --- end ---------------------------------------------------------------------------------------------------


def _finish(
    store: ObjectStore, rows: Sequence[dict[str, Any]], there: set[tuple[str, int]], report: Reporter
) -> int:
    fresh = {(row["clip"], row["segment"]) for row in rows}
    kept = [row for row in read_segments(store) if (row["clip"], row["segment"]) not in fresh]
    all_rows = sorted([*kept, *rows], key=lambda row: (row["clip"], row["segment"]))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(all_rows, schema=SEGMENTS_SCHEMA), sink, compression="zstd")
    store.put(SEGMENTS_KEY, sink.getvalue())
    built = [row for row in rows if row["status"] == "built"]
    bad = len(rows) - len(built)
    tables, size = len(there) + len(built), sum(row["table_bytes"] for row in built)
    report.say(
        f"{count(tables, 'table')} in {store.root}; built now: {len(built)} ({size / 2**20:.1f} MiB, "
        f"{sum(row['seconds'] for row in built):.0f} s of one core); quarantined: {bad}"
        + (f" (reasons in {SEGMENTS_KEY})" if bad else ""),
        tables=tables,
        quarantined=bad,
    )
    return QUARANTINED if bad else DONE


def read_segments(store: ObjectStore) -> list[dict[str, Any]]:
    """The rows of a set's segments so far."""
    try:
        data = store.get(SEGMENTS_KEY)
    except FileNotFoundError:
        return []
    remedy = "remove it, and vidseg build-episodes lists what it finds"
    table = read_table(data, f"{store.root}: {SEGMENTS_KEY}", remedy, SEGMENTS_SCHEMA, ("clip", "segment"))
    return table.to_pylist()
