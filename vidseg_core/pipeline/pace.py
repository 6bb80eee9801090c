"""What a frame of a run costs here, under its schedule and with the net on every frame: measured.

Model: some first frames of a video go through the engine, and then through the net, each of them. A frame
costs its decoding and what every frame needs (flow, propagation), and a key the net besides; how many frames
are keys is the schedule's own number where it has one (`fixed`, `random`), else what was seen. The second
pass ends after `MOST_S`, so an expensive net is tried on a frame or two; a cheap one, which is the case
where `every` may be the better choice, gives all masks, and so the fidelity of the schedule on these frames.

Seconds are those of a core, not of the clock: other load is no cost. Beside a GPU they are the clock's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vidseg_core.config.catalogue import EVERY, SCHEDULERS
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine import FrameInput, FrameResult
from vidseg_core.engine.assemble import build_engine, new_state
from vidseg_core.engine.bound import Bound, Measured
from vidseg_core.engine.look import view_size
from vidseg_core.engine.regions import AnyEngine, measured
from vidseg_core.kit.progress import clock
from vidseg_core.media import FrameShard
from vidseg_core.metrics import measure_fidelity
from vidseg_core.models.match import read_match
from vidseg_core.propagation.adaptation import seconds_a_step, steps_at

FRAMES = 25
"""Frames that are tried: two whole intervals of the default schedule."""
MOST_S = 3.0
"""The net on every frame: no further frame after so many seconds."""
WORTH = 2.5
"""Where the net on every frame takes at most so many times as long, a schedule saves little: propagation
costs about as much as the net, and what is lost between keys is lost for that little."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds per frame, as measured."""

    frames: int
    decode_s: float
    between_s: float
    """What every frame of the schedule takes: its view, flow, propagation, the decision."""
    key_s: float
    """What a key takes besides: the net, or what of it does not run on every frame anyway."""
    key_share: float
    """Keys per frame of the schedule; with regions frames' worth of pixels, overlap counted."""
    every_s: float
    """A frame with the net on every frame, without decoding."""
    fidelity: float | None
    """Of the schedule's masks on these frames, 0 to 1; None: the net is too expensive to find out, or the
    frames are too few for the schedule."""
    bound: Callable[[tuple[int, int]], Bound]
    """What the schedule's engine keeps of a segment at most, by working size."""
    adapt_s: float = 0.0
    """What a key, but for a segment's first two, takes besides where the net of `match` gets used to it."""
    worker: str = "core"
    """Whose seconds these are: a core's, or those of a GPU's worker."""

    @property
    def frame_s(self) -> float:
        """A frame under the schedule."""
        return self.decode_s + self.between_s + self.key_share * (self.key_s + self.adapt_s)

    @property
    def every_frame_s(self) -> float:
        """A frame with the net on every frame."""
        return self.decode_s + self.every_s

    @property
    def ratio(self) -> float:
        """How much longer the net on every frame takes."""
        return self.every_frame_s / self.frame_s if self.frame_s else 1.0


def measure_pace(config: SegmentConfig, device: str, video_id: str, shard: FrameShard) -> Pace:
    """The frames of `shard`, as configured and then with the net on each of them."""
    asked, adapt_s = config.without_dial(key_batch=1), _adapt_s(config, shard)
    # so few frames hold a segment's first keys at most, which are those that are learned from longest
    config = replace(asked, propagation=replace(asked.propagation, adapt_steps=0))
    engine, n = build_engine(config, device), len(shard)
    keeps = engine if config == asked else build_engine(asked, device)
    rows, seconds, held = _as_configured(engine, config, video_id, shard)
    net_s = engine.stats.seconds["net"]
    keys = sum(float(row.is_key) if row.key_share is None else row.key_share for row in rows)
    pace = Pace(
        frames=n,
        decode_s=shard.cpu_s / n,
        between_s=max(0.0, seconds - net_s) / n,
        key_s=net_s / max(1, keys),  # with regions: of the pixels of a frame, in crops
        key_share=_share(config.scheduler, keys / n, each=rows[0].key_share or 1.0),
        every_s=seconds / n,
        fidelity=None,
        bound=partial(keeps.bound, measured=held),
        worker="core" if device == "cpu" else "GPU",
        adapt_s=adapt_s,
    )
    if config.scheduler.name == EVERY:
        return pace
    masks, call_s = _on_every_frame(
        engine, shard
    )  # more calls than there are keys, and none of them the first
    low_s = engine.stats.seconds["low"] / n  # of N, but every frame takes it
    key_s = pace.key_s if config.regions.on else max(0.0, call_s - low_s)
    return replace(pace, key_s=key_s, every_s=call_s, fidelity=_fidelity(config, rows, masks))


def _adapt_s(config: SegmentConfig, shard: FrameShard) -> float:
    """Seconds of a core that getting used to one more key takes; a segment's first two take longer."""
    options = config.propagation
    if not options.adapt_steps or config.scheduler.name == EVERY:  # no gaps, no lessons
        return 0.0
    height, width = shard.pictures[0].shape[:2]
    net, size = read_match(options.weights), view_size(height, width, options.flow_size)
    step_s = seconds_a_step(net, *size, clock=time.process_time)
    return step_s * steps_at(options.adapt_steps, 1)


def _share(scheduler: SchedulerConfig, seen: float, each: float) -> float:
    """`each`: what a frame counts that is key, or all of whose regions are, as of the first."""
    entry = SCHEDULERS.get(scheduler.name)
    return each / scheduler.interval if entry is not None and entry.takes_interval else seen


def _frame(shard: FrameShard, t: int) -> FrameInput:
    return FrameInput(
        frame_index=int(shard.frame_index[t]),
        pts_s=float(shard.pts_s[t]),
        is_corrupt=bool(shard.is_corrupt[t]),
        picture=shard.pictures[t],
    )


def _as_configured(
    engine: AnyEngine, config: SegmentConfig, video_id: str, shard: FrameShard
) -> tuple[list[FrameResult], float, Measured]:
    """Rows, seconds for all of them, and what the state held at most of what only a run shows."""
    state, now = new_state(config, video_id, 0), engine.stats.clock
    started, rows, held = now(), list[FrameResult](), Measured()
    for t in range(len(shard)):
        rows += engine.step([state], [_frame(shard, t)])[0]
        held = held.most(measured(state, shard.pictures[t].shape, config.regions))
    rows += engine.finish([state])[0]
    return rows, now() - started, held


def _on_every_frame(engine: AnyEngine, shard: FrameShard) -> tuple[list[np.ndarray], float]:
    """The net's own masks, labels_HW, of the frames that it manages in `MOST_S`, and seconds for each."""
    now, masks = engine.stats.clock, list[np.ndarray]()
    started = now()
    for t in range(len(shard)):
        labels_HW, _ = engine.net.run([_frame(shard, t).frame_HW3])[0]
        masks.append(engine.net.settle(labels_HW)[0])
        if now() - started > MOST_S:
            break
    return masks, (now() - started) / len(masks)


def _fidelity(
    config: SegmentConfig, rows: Sequence[FrameResult], reference: Sequence[np.ndarray]
) -> float | None:
    """None where the reference is not whole, where there is one key only (frames before the next one are
    better), or masks are pseudo-labels, which doubt more between keys."""
    one_key = sum(row.is_key for row in rows) < 2
    if len(reference) < len(rows) or one_key or isinstance(config, PseudoLabelConfig):
        return None
    masks = [row.labels_HW for row in rows]
    classes = 1 + max(int(labels_HW.max()) for labels_HW in (*masks, *reference))
    return measure_fidelity(masks, reference, classes).mean_iou


def describe_pace(pace: Pace, frames: int, scheduler: str) -> list[str]:
    """The estimate for so many frames, and `every` beside it, in sentences."""
    adapting = f"getting used to a key {pace.adapt_s:.1f} s, " if pace.adapt_s else ""
    lines = [
        f"estimate from {pace.frames} frames here: decoding {1000 * pace.decode_s:.1f} ms, flow and "
        f"propagation {1000 * pace.between_s:.1f} ms, the net {1000 * pace.key_s:.1f} ms a key "
        f"({100 * pace.key_share:.0f} % of frames), {adapting}so about {clock(frames * pace.frame_s)} of one "
        f"{pace.worker} for all; nothing was written"
    ]
    if scheduler == EVERY:
        return lines
    lost = "" if pace.fidelity is None else f"{100 * (1 - pace.fidelity):.0f} points of fidelity"
    beside = f"; on these {pace.frames} frames {scheduler} loses {lost} against it" if lost else ""
    lines.append(
        f"the net on every frame instead (--scheduler.name {EVERY}): about "
        f"{clock(frames * pace.every_frame_s)}, {pace.ratio:.1f} times as long{beside}"
    )
    if pace.ratio <= WORTH:
        lines.append(f"advice: take --scheduler.name {EVERY}. {_why_every(pace, scheduler, lost)}")
    return lines


def _why_every(pace: Pace, scheduler: str, lost: str) -> str:
    saved = 100 * (1 - 1 / pace.ratio)
    if saved < 1:
        return f"Propagation costs more than this net, so that {scheduler} saves nothing"
    price = f", for {lost}" if lost else ""
    return (
        f"Propagation costs about as much as this net, so that {scheduler} saves only {saved:.0f} % of the "
        f"time{price}"
    )
