"""Where a table's frames come from: clips of data sets and plain videos, cut into segments.

Model: a `Unit` is the recipe of one table: small, picklable, without pixels. A clip is cut evenly, so that no
rest too short for an episode is left over. Invariant: clip, number and frames of a unit depend on the clip
and on `segment_frames` alone, so that a set can be continued and added to. With `--regions.grid` each region
of a clip is a clip of its own (`in_regions`), as `?regions=` makes them of a data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import groupby, pairwise
from statistics import median_low

from vidseg_core.config.build_episodes import LABELS, BuildEpisodesConfig
from vidseg_core.config.errors import ConfigError, check
from vidseg_core.config.excerpt import EXCERPT, Excerpt
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import DatasetError, FrameDataset, Item, Record
from vidseg_core.datasets.regions import cut_out, region_name, regions_of, resized, video_of
from vidseg_core.media import working_size
from vidseg_core.plan.excerpt import count_of, frames_of, number_of
from vidseg_core.plan.ids import safe_video_id
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.plan.video_list import VideoInput

RECORDED = ("camvid", "cityscapes")
"""Data sets that number their frames as they were recorded."""
MOST_APART = 10
"""Frames between neighbours; farther apart they are stills, not a video."""
LOST_SHARE = 0.1
"""A video of which more than this share cannot be decoded is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Frames `start` to `stop` of one clip; of an excerpt, places among its frames."""

    clip: str
    segment: int
    source: str
    """Data set as typed, or the video's address."""
    video_id: str
    """The data set's name of the clip; empty for a plain video."""
    start: int
    stop: int
    stream: int | None = None
    """Stream of a plain video that is read; None: the one that is the video."""
    fps: float | None = None
    """These three: which frames of a plain video there are (`Excerpt`)."""
    start_s: float | None = None
    end_s: float | None = None
    maps_hdr: bool = True
    grid: str = "1x1"
    """These four: which region of the frames is read, row by row of the grid; 1x1: whole frames."""
    overlap: int = 0
    align: int = 1
    region: int = 0

    @property
    def regions(self) -> RegionsConfig:
        """Those of which one is read."""
        return RegionsConfig(grid=self.grid, overlap=self.overlap, align=self.align)

    @property
    def video(self) -> str:
        """The clip whose region this is."""
        return video_of(self.clip, self.regions)

    @property
    def excerpt(self) -> Excerpt:
        """Which frames of a plain video there are."""
        values = {name: getattr(self, name) for name in EXCERPT}
        return Excerpt(**{name: value for name, value in values.items() if value == value})  # NaN: a Ray row

    @property
    def frames(self) -> int:
        return self.stop - self.start


def in_regions(units: Sequence[Unit], regions: RegionsConfig) -> list[Unit]:
    """A unit for each region of each unit's frames; the units themselves where frames are whole."""
    if not regions.on:
        return list(units)
    return [
        replace(
            unit,
            clip=region_name(unit.clip, regions, number),
            grid=regions.grid,
            overlap=regions.overlap,
            align=regions.align,
            region=number,
        )
        for unit in units
        for number in range(regions.count)
    ]


def cuts(frames: int, segment_frames: int, clip_frames: int = 0) -> list[tuple[int, int]]:
    """(start, stop) of each segment: as few as possible, of lengths that differ by one at most."""
    frames = min(frames, clip_frames or frames)
    pieces = max(1, -(-frames // segment_frames)) if segment_frames else 1
    edges = [frames * number // pieces for number in range(pieces + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def require_neighbours(source: str, clip: str, items: Sequence[Item]) -> None:
    """`ConfigError` for stills: published frames of a drive whose numbers are far apart, all through a clip.

    Sets that do not number frames as they were recorded, and clips of one frame, are none.
    """
    if dataset_of(source, "").name not in RECORDED or len(items) < 2:
        return
    numbers = sorted(item.frame_index for item in items)
    step = median_low(after - before for before, after in pairwise(numbers))
    if step > MOST_APART:
        problem = f"{source}: clip {clip} has stills {step} frames apart: nothing can be carried between them"
        raise ConfigError("--data", f"{problem}; put the frames between beside them (docs/datasets.md)")


def dataset_units(config: BuildEpisodesConfig) -> list[Unit]:
    """The units of all data sets; `ConfigError` for two clips of one name."""
    units, origin = [], dict[str, str]()
    for source in config.data:
        for video_id, found in groupby(dataset_of(source, "").items(config.split), key=_clip):
            clip, items = safe_video_id(video_id), list(found)
            require_neighbours(source, clip, items)
            if clip in origin:
                raise ConfigError("--data", f"clip {clip} is in {origin[clip]} and in {source}")
            origin[clip] = source
            if config.limit is not None and len(origin) > config.limit:
                return units
            for segment, (start, stop) in enumerate(_cuts(config, len(items))):
                units.append(
                    Unit(clip=clip, segment=segment, source=source, video_id=video_id, start=start, stop=stop)
                )
    return units


def regions_of_clips(config: BuildEpisodesConfig) -> RegionsConfig:
    """Which regions all tables of the run are of: those of `--regions.grid`, or those that the clips of the
    data sets are; `ConfigError` where some are other regions, or whole frames."""
    if config.regions.on:
        return config.regions
    cut = {source: regions_of(dataset_of(source, "")) for source in config.data}
    cut |= {source: RegionsConfig() for source in config.input}
    first = next(iter(cut))
    for source, regions in cut.items():
        problem = f"{first} and {source} are not the same regions of frames: one set of tables each"
        check(regions == cut[first], "--data", problem)
    return cut[first]


def chosen_videos(config: BuildEpisodesConfig, clips_before: int) -> Sequence[VideoInput]:
    """The plain videos of the run; `limit` counts clips of data sets first."""
    if not config.input:
        return []
    room = None if config.limit is None else config.limit - clips_before
    return expand_inputs(config.input, limit=room) if room is None or room > 0 else []


def video_units(config: BuildEpisodesConfig, video: VideoInput, reader: ClipReader) -> list[Unit]:
    """The units of a plain video. `DatasetError` if it cannot be opened, MediaError if no frame is taken."""
    frames = count_of(video.excerpt, reader.index(video.uri), video.uri)
    return [
        Unit(
            clip=video.video_id,
            segment=number,
            source=video.uri,
            video_id="",
            start=start,
            stop=stop,
            **asdict(video.excerpt),
        )
        for number, (start, stop) in enumerate(_cuts(config, frames))
    ]


def _cuts(config: BuildEpisodesConfig, frames: int) -> list[tuple[int, int]]:
    return cuts(frames, config.segment_frames, config.clip_frames)


def class_names(config: BuildEpisodesConfig) -> tuple[str, ...]:
    """Class names of the labels; `ConfigError` if data sets differ where labels count."""
    if config.quality != "labels" and config.segmenter != LABELS:
        return ()
    named = {source: dataset_of(source, "").class_names for source in config.data}
    first = next(iter(named))
    for source, names in named.items():
        if not names:
            raise ConfigError("--data", f"{source} has no labels: take --quality fidelity")
        if names != named[first]:
            raise ConfigError(
                "--data", f"{first} and {source} have different classes: one set each, or ?remap=FILE"
            )
    return named[first]


def read_unit(unit: Unit, size: str, split: str) -> Iterator[Record]:
    """The unit's frames in order, scaled down to the working size. `DatasetError` for what cannot be read."""
    whole = _read_clip(unit, size, split) if unit.video_id else _read_video(unit, size)
    for record in whole:
        regions = unit.regions
        yield cut_out(record, regions, unit.region, unit.clip) if regions.on else record


def _read_clip(unit: Unit, size: str, split: str) -> Iterator[Record]:
    dataset = dataset_of(unit.source, size)
    for item in _items(unit.source, split, unit.video_id)[unit.start : unit.stop]:
        yield dataset.read(item)


@lru_cache(maxsize=8)
def dataset_of(source: str, size: str) -> FrameDataset:
    """The data set, its frames at working size; opened once per process."""
    dataset = open_dataset(source)
    return resized(dataset, size) if size else dataset


@lru_cache(maxsize=4)
def _items(source: str, split: str, video_id: str) -> Sequence[Item]:
    return [item for item in dataset_of(source, "").items(split) if item.video_id == video_id]


def _clip(item: Item) -> str:
    return item.video_id


def _read_video(unit: Unit, size: str) -> Iterator[Record]:
    reader, lost, problem = _reader(unit.stream, unit.maps_hdr), 0, ""
    index = reader.index(unit.source)
    height, width = working_size(index.width, index.height, size if "x" in size else int(size))
    frames = frames_of(unit.excerpt, index, unit.source)
    for place in range(unit.start, unit.stop):
        number = number_of(frames, place)
        try:
            frame_HW3 = reader.frame(unit.source, number, height, width)
        except DatasetError as error:
            lost, problem = lost + 1, str(error)
            if lost > LOST_SHARE * unit.frames:
                raise DatasetError(f"{lost} frames cannot be decoded, e.g. {problem}") from error
            continue
        yield Record(video_id=unit.clip, frame_index=number, frame_HW3=frame_HW3, labels_HW=None)


@lru_cache(maxsize=1)
def _reader(stream: int | None, maps_hdr: bool) -> ClipReader:
    return ClipReader(stream=stream, maps_hdr=maps_hdr)
