"""Which runs of frames a calibration looks at, and whether it is worth its cost.

Model: the sample is `CLIPS` runs of `CLIP_FRAMES` frames, unless the user says otherwise. Looking at them may
cost half of what the job does without (`fixed` at the budget; the net on every frame for a limit of points):
beyond that it eats what a better schedule could save. Where it would cost more the sample shrinks, and where
even the smallest costs more nothing is looked at: the job without is the choice. Costs are operations as
torch counts them, not seconds: the choice must not be a matter of luck. A net that torch cannot count is
looked at in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from vidseg_core.calibration.choice import LEAST_CLIPS
from vidseg_core.calibration.sampling import Run, draw_runs
from vidseg_core.calibration.tasks import longest_interval, sample_builder
from vidseg_core.calibration.ways import trial_ops
from vidseg_core.config.dial import CLIP_FRAMES, CLIPS
from vidseg_core.config.segment import MediaConfig, SegmentConfig
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.records import DatasetError, Record
from vidseg_core.engine.trial import usual_pixels
from vidseg_core.episodes.estimate import Work, work_of
from vidseg_core.episodes.sources import Unit
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import MediaError, VideoIndex, working_size
from vidseg_core.models.operations import operations_of
from vidseg_core.plan.excerpt import count_of
from vidseg_core.plan.video_list import VideoInput

SIZES = ((CLIPS, CLIP_FRAMES), (10, 80), (LEAST_CLIPS, 64), (LEAST_CLIPS, 48))
"""Runs and frames of each, the full sample first."""
SCHEDULES = 25
"""Two-sided schedules whose intervals have to be put together, roughly: many have intervals in common."""
_SHARE = 0.5
"""What looking may cost, relative to the job without."""
_PAIR_OPS = 2e8
"""What a DIS flow at 256 px with its warp takes (4 ms of a core), in operations of a net meanwhile."""
_DECODE_OPS = 2e8
"""The same of decoding a frame."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is looked at."""

    config: SegmentConfig
    """With the numbers of runs and frames that were taken."""
    units: list[Unit]
    declined: str = ""
    """Why nothing is to be looked at; empty: it is worth its cost."""
    lengths: Sequence[int] = ()
    """Then, frames of the segments of the videos that were opened, roughly: cuts lie where files allow."""


def draw_sample(config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter) -> Sample:
    """The runs of frames to look at; a video that cannot be opened is passed over (the job will say why)."""
    reader = ClipReader(stream=config.media.stream)
    try:
        sample = _Drawing(config, inputs, reader).sample()
    finally:
        reader.close()
    asked, found = sample.config.calibration.clips or CLIPS, len(sample.units)
    if found and not sample.declined:
        if found < LEAST_CLIPS:
            report.say(
                f"warning: {found} runs of frames are too few to promise anything for other clips (it takes "
                f"{LEAST_CLIPS}); what is chosen fits these"
            )
        elif found < asked:
            report.say(f"note: the corpus holds only {found} of {asked} runs of frames")
    return sample


class _Drawing:
    """One corpus, from which samples of several sizes are drawn; each video is opened once."""

    def __init__(self, config: SegmentConfig, inputs: Sequence[VideoInput], reader: ClipReader) -> None:
        self._config, self._inputs, self._reader = config, inputs, reader
        self._lengths: dict[int, int] = {}

    def sample(self) -> Sample:
        """As large as was typed, else as large as is worth its cost."""
        given = self._config.calibration
        if given.clips is not None or given.clip_frames is not None:
            return self._drawn(given.clips or CLIPS, given.clip_frames or CLIP_FRAMES)
        full = self._drawn(*SIZES[0])
        net, pair = self._prices(full.units)
        if not net:
            return full
        frames = round(float(np.mean(list(self._lengths.values()))) * len(self._inputs))
        job = job_ops(self._config, frames, net, pair)
        for size in SIZES:
            sample = self._drawn(*size)
            enough = size == SIZES[0] or len(sample.units) >= LEAST_CLIPS
            if enough and sample_ops(sample, net, pair) <= _SHARE * job:
                return sample
        times = sample_ops(sample, net, pair) / job
        lengths, cut = self._lengths.values(), self._config.segment_frames
        pieces = [min(cut, n - start) for n in lengths for start in range(0, n, cut)] if cut else lengths
        declined = _why(self._config, frames, times)
        return replace(sample, declined=declined, lengths=[piece for piece in pieces if piece])

    def _drawn(self, clips: int, clip_frames: int) -> Sample:
        numbers = replace(self._config.calibration, clips=clips, clip_frames=clip_frames)
        config = replace(self._config, calibration=numbers)
        runs = draw_runs(
            len(self._inputs),
            self._frames_of,
            clips=clips,
            clip_frames=clip_frames,
            seed=config.seed,
        )
        units = [_unit(self._inputs[run.video], run, config.media) for run in runs]
        return Sample(config=config, units=units)

    def _frames_of(self, number: int) -> int:
        if number not in self._lengths:
            try:
                video = self._inputs[number]
                index = self._reader.index(video.uri)
                self._lengths[number] = count_of(video.excerpt, index, video.uri)
            except (DatasetError, MediaError):
                self._lengths[number] = 0
        return self._lengths[number]

    def _prices(self, units: Sequence[Unit]) -> tuple[float, float]:
        """Operations of N on a frame, and of a flow between two; 0 for N where that is not known."""
        if not units:
            return 0.0, _PAIR_OPS
        return prices(self._config, self._reader.index(units[0].source))


def _unit(video: VideoInput, run: Run, media: MediaConfig) -> Unit:
    return Unit(
        clip=f"{video.video_id}-{run.start}",
        segment=0,
        source=video.uri,
        video_id="",
        start=run.start,
        stop=run.stop,
        stream=media.stream,
        **asdict(video.excerpt),
        maps_hdr=media.hdr == "map",
    )


def prices(config: SegmentConfig, index: VideoIndex) -> tuple[float, float]:
    """Operations of N on a frame of this video, and of a pair of its frames: flow, what carries, N_task."""
    size = working_size(index.width, index.height, config.working_size_spec)
    frame = Record(video_id="", frame_index=0, frame_HW3=np.zeros((*size, 3), np.uint8), labels_HW=None)
    builder = sample_builder(replace(config, key_batch=1), "cpu")
    net = operations_of(lambda: builder.run_net([frame]))
    one = operations_of(lambda: builder.see([frame]))
    both = operations_of(lambda: builder.pairs(builder.see([frame, frame]), 0))
    return net, _PAIR_OPS * (config.propagation.flow_size / 256) ** 2 + max(0.0, both - net - one)


def work_of_sample(sample: Sample) -> tuple[int, int, int]:
    """(frames, pairs with a flow, frames that are put together of two sides) of a calibration."""
    horizon = longest_interval(sample.config)
    work = [_work(unit.frames, horizon) for unit in sample.units]
    frames = sum(each.frames for each in work)
    two = SCHEDULES * frames if sample.config.propagation.sides == "two" else 0
    return frames, sum(each.pairs for each in work), two


def _work(frames: int, horizon: int) -> Work:
    return work_of(frames, horizon=horizon, key_stride=1, two_sided_stride=0, features=4)


def sample_ops(sample: Sample, net: float, pair: float) -> float:
    """What looking at the sample takes."""
    frames, pairs, two = work_of_sample(sample)
    whole = frames * (net + trial_ops(sample.config, net, pair)) + (pairs + 2 * two) * pair
    again = sum(
        usual_pixels(regions, sample.config.working_size_spec) for regions in sample.config.regions_tried
    )
    return whole + again * (frames * net + (pairs + 2 * two) * pair)


def job_ops(config: SegmentConfig, frames: int, net: float, pair: float) -> float:
    """What the job takes that keeps the promise without a look: even keys at the budget, or every frame."""
    share = config.budget if config.budget is not None else 1.0
    sides = 2 if config.propagation.sides == "two" else 1
    return frames * (_DECODE_OPS + share * net + (1 - share) * sides * pair)


def _why(config: SegmentConfig, frames: int, times: float) -> str:
    instead = "even keys at the budget" if config.budget is not None else "all frames"
    return (
        f"calibrating would cost {times:.2g} times what this job does without ({frames:,} frames), so "
        f"nothing is looked at and the net runs on {instead}; --calibration.clips {CLIPS} calibrates all "
        "the same"
    )
