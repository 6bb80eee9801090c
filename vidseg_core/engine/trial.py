"""One small frame through N, the flow and the propagator, before anything is claimed or started.

What a net or a plug-in gives has to fit: scores for every class name at the frame's own size, flows of the
pictures' size, carried results of the kind and shape that were handed in. What does not fit would either fail
after an hour, or, worse, run to the end: a resized flow or a transposed mask is not seen in a table.

Model: a textured frame with unequal sides whose remainders are those of the working size, through the code
that the engine runs (`ChunkedNet`). A net that fails on it gets frames of the working size before it is
refused: some take one size only, or none so small.

Legend: H, W frame size; h, w flow size; 3 = RGB; 2 = (u, v).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch

from vidseg_core.config.catalogue import plugin_module, propagator_place
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.engine.bound import bytes_of
from vidseg_core.engine.confidence import LabelRule
from vidseg_core.engine.look import picture_of_size, view_size
from vidseg_core.engine.lows import connect
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.rehearsal import how_it_ends
from vidseg_core.media import working_size
from vidseg_core.models.plugin import PluginSegmenter
from vidseg_core.models.protocol import ScoresError, Segmenter, SegmenterError
from vidseg_core.models.scores import MOST_NAMES, SwappedAxes, check_names
from vidseg_core.models.tta import TtaSegmenter
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.filler import Filler, filler_of
from vidseg_core.propagation.flow import FlowEstimator, check_flows
from vidseg_core.propagation.gap import Gap, GapFrame, GapKey
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.registry import PluginError

_SMALL = (64, 96)
_ALIKE = 32
"""Rows and columns of the small frame are these and the working size's remainders of this."""
_MOST_BLOCKS = 36
"""Shapes of rectangles of regions that N is tried on: all of them up to 3x3, and of a 4x4 of equal parts."""
_FORMATS = ((16, 9), (4, 3), (1, 1))
"""Videos that a net may have been made for, where only the longest side is known."""
_SAME = 1e-2
"""Scores of one frame may differ by this share of the largest before a net counts as random."""
_RANDOM = (
    "The segmenter '{name}' gives other scores for the same frame: masks will change from run to run "
    "(is it in evaluation mode?)."
)
_UNTRIED = (
    "The segmenter '{name}' does not run on this machine's CPU, so it could not be tried before the run."
)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A frame that N took, for the parts that come after N."""

    frame_HW3: np.ndarray
    whole: tuple[int, int] | None = None
    """Of a region: (H, W) of its frame, of which its flow picture has the scale."""
    carried: Callable[[str], Any]
    """What is kept of the frame as a key, by level."""
    net: Callable[[str, str], ChunkedNet] | None
    """N itself, at a level, for whom the second text names; `SegmenterError` where labels stand in for it.
    None where it cannot run here."""
    classes: int
    pixel_s: float = 0.0
    """Seconds of a core that N takes per pixel, roughly; 0 where it could not be tried."""
    remembered: float = 0.0
    """Bytes per pixel that the propagator carries over from frame to frame."""
    note: str = ""
    """One sentence that a run should show; empty if there is none."""


def trial_sizes(spec: int | str) -> list[tuple[int, int]]:
    """Frame sizes (rows, columns) to try N on, the small one first; `spec` as `media.working_size` has it."""
    working = list(dict.fromkeys(working_size(w * 1024, h * 1024, spec) for w, h in _FORMATS))
    rows, columns = working[0] if len(working) == 1 else (8, 8)
    return [(_SMALL[0] + rows % _ALIKE, _SMALL[1] + columns % _ALIKE), *working]


def usual_crops(regions: RegionsConfig, spec: int | str) -> tuple[tuple[Crop, ...], tuple[int, int]]:
    """The crops of a frame of the usual format, and its (rows, columns); `ConfigError` without any."""
    for width, height in _FORMATS:  # what is too flat for the grid is another video's case
        size = working_size(width * 1024, height * 1024, spec)
        if not regions.problem(size):
            return regions.crops(size), size
    raise ConfigError("--regions.grid", regions.problem(size))


def crop_sizes(regions: RegionsConfig, spec: int | str) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """(rows, columns) of what N may be shown of a video of the usual format, the smallest first, and of the
    frame; `ConfigError` for regions that no such video has."""
    crops, size = usual_crops(regions, spec)
    shown = {crop.shape for crop in crops} if regions.context == "none" else _blocks(crops, regions.shape)
    return sorted(shown, key=lambda shape: (math.prod(shape), shape)), size


def _blocks(crops: Sequence[Crop], grid: tuple[int, int]) -> set[tuple[int, int]]:
    """(rows, columns) of all rectangles of regions, which run as one where they are key together; of a grid
    with very many the crops, and what is as wide or as high as the frame."""
    of_rows, of_columns = crops[:: grid[1]], crops[: grid[1]]
    heights = {b.bottom - a.top for n, a in enumerate(of_rows) for b in of_rows[n:]}
    widths = {b.right - a.left for n, a in enumerate(of_columns) for b in of_columns[n:]}
    if len(heights) * len(widths) <= _MOST_BLOCKS:
        return set(product(heights, widths))
    edges = {(height, max(widths)) for height in heights} | {(max(heights), width) for width in widths}
    return edges | {crop.shape for crop in crops}


def usual_pixels(regions: RegionsConfig, spec: int | str) -> float:
    """Pixels of all crops of a frame of the usual format, in frames."""
    _, size = usual_crops(regions, spec)
    return sum(regions.shares(size))


def try_net(
    net: Segmenter,
    *,
    sizes: Sequence[tuple[int, int]],
    batch: int = 1,
    device: str = "cpu",
    rule: LabelRule | None = None,
    most: int = MOST_NAMES,
    takes_all: bool = False,
) -> Tried:
    """Run `net` (which is on the CPU) on the first of `sizes` that it takes; `SegmenterError` if none, or,
    where it must take all of them, for the first that it does not take.

    Batches have `batch` frames, as the engine's have. `most`: class names that the masks have numbers for.
    `device`: cpu, auto or cuda, as the run has it. A net that fails on the CPU, and may run on a GPU, is
    moved to one; where there is none here it is left untried.
    """
    check_names(net.name, net.class_names, most)
    if takes_all:
        how: dict[str, Any] = {"batch": batch, "device": device, "rule": rule, "most": most}
        return [try_net(net, sizes=[size], **how) for size in sizes][0]
    try:
        return _first_that_fits(net, sizes, batch, "cpu", rule)
    except SegmenterError as problem:
        cause = problem.__cause__
        if device == "cpu" or cause is None or isinstance(cause, ScoresError | SystemExit):
            raise
        if torch.cuda.is_available():
            return _first_that_fits(net.to("cuda"), sizes, batch, "cuda", rule)
        if device != "cuda":
            raise
        return replace(try_labels(len(net.class_names)), net=None, note=_UNTRIED.format(name=net.name))


def _first_that_fits(
    net: Segmenter, sizes: Sequence[tuple[int, int]], batch: int, device: str, rule: LabelRule | None
) -> Tried:
    first: SegmenterError | None = None
    for size in sizes:
        try:
            return _tried(net, _frame(size), batch, device, rule)
        except SegmenterError as problem:
            first = first or problem
            cause = problem.__cause__
            if isinstance(cause, SwappedAxes):  # on a square frame that would not be seen
                break
            if isinstance(cause, ScoresError) and len(sizes) > 2:  # frames of any size may come
                break
    assert first is not None
    raise first


def try_labels(classes: int, size: tuple[int, int] = _SMALL) -> Tried:
    """Zeros of this size, where labels stand in for N, or N cannot run here."""

    def carried(level: str) -> Any:
        return np.zeros(size, np.uint8) if level == "labels" else torch.zeros(classes, *size)

    def net(level: str, asked_by: str) -> ChunkedNet:
        raise SegmenterError(f"{asked_by} works with the net itself: labels have none, name a --segmenter")

    return Tried(frame_HW3=_frame(size), carried=carried, net=net, classes=classes)


def _tried(net: Segmenter, frame_HW3: np.ndarray, batch: int, device: str, rule: LabelRule | None) -> Tried:
    def carried(level: str) -> Any:
        return in_calls(level).run([frame_HW3])[0][1]

    def in_calls(level: str, asked_by: str = "") -> ChunkedNet:
        return ChunkedNet(net, level=level, batch=batch, device=device, rule=rule)

    size = f"{frame_HW3.shape[0]}x{frame_HW3.shape[1]}"
    if _is_foreign(net) and (end := how_it_ends(lambda: carried("scores"))):
        raise SegmenterError(f"segmenter {net.name!r} ends the process ({end}) on a frame of {size}")
    try:
        scores_CHW = carried("scores").float()
        started = time.process_time()
        again_CHW = carried("scores").float()
        pixel_s = (time.process_time() - started) / (frame_HW3.shape[0] * frame_HW3.shape[1] * batch)
    except ScoresError as problem:
        raise SegmenterError(str(problem)) from problem
    except (Exception, SystemExit) as problem:  # a plug-in's own code
        raise SegmenterError(
            f"segmenter {net.name!r} fails on a frame of {size}: {_text(problem)}"
        ) from problem
    _check_parts(net, frame_HW3, batch, device)
    near = _SAME * float(scores_CHW.abs().max())
    same = torch.allclose(scores_CHW, again_CHW, rtol=0.0, atol=near)
    note = "" if same else _RANDOM.format(name=net.name)
    classes = len(net.class_names)
    return Tried(
        frame_HW3=frame_HW3, carried=carried, net=in_calls, classes=classes, pixel_s=pixel_s, note=note
    )


def _check_parts(net: Segmenter, frame_HW3: np.ndarray, batch: int, device: str) -> None:
    """`SegmenterError` for a plug-in in parts that are not its whole."""
    if not (_is_foreign(net) and getattr(net, "has_parts", False)):
        return
    chunks = ChunkedNet(net, level="features", batch=batch, device=device)
    try:
        low = chunks.low([frame_HW3])
        whole, parted = (chunks.run([frame_HW3], each)[0][1] for each in (None, low))
        fused = chunks.fuse(low, [whole])[0] if getattr(net, "has_fuse", False) else whole
        same, own_key = _equal(whole, parted), _equal(whole, fused)
    except (Exception, SystemExit) as problem:  # a plug-in's own code
        raise SegmenterError(f"segmenter {net.name!r} fails in parts: {_text(problem)}") from problem
    if not same:
        raise SegmenterError(f"segmenter {net.name!r}: high(low(frames)) is not features(frames)")
    if not own_key:
        raise SegmenterError(
            f"segmenter {net.name!r}: fuse(low(frames), features(frames)) is not features(frames)"
        )


class CarryOptions(Protocol):
    """The options of propagation that every verb has."""

    @property
    def name(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def flow(self) -> str: ...
    @property
    def flow_size(self) -> int: ...
    @property
    def weights(self) -> str | None: ...


def _is_foreign(net: Any) -> bool:
    return isinstance(net.inner if isinstance(net, TtaSegmenter) else net, PluginSegmenter)


def try_plugins(options: CarryOptions, flow: Callable[[], FlowEstimator], tried: Tried) -> float:
    """The flow and the propagator of `options`, where they are plug-ins or carry something over, on the tried
    frame. Bytes per pixel that the propagator carries over.

    `PluginError` names the one that does not fit; ValueError for a propagator of another level.
    """
    two_sided = getattr(options, "sides", "one") == "two"
    filler = filler_of(propagator_of(options), two_sided=two_sided)
    can_try = tried.net is not None or not filler.works_with_net
    followed = bool(propagator_place(options.name)[1])  # takes seconds, and says what it carries over
    tries_it = can_try and not followed and (bool(plugin_module(options.name)) or not filler.pairwise)
    if ":" not in options.flow and not tries_it:
        return 0.0
    filler.name = options.name
    estimator = flow() if ":" in options.flow or filler.reads != "nothing" else None
    view = _view(tried, options.flow_size, 1 if estimator is None else estimator.channels)
    flow_hw2 = np.zeros((*view.shape[:2], 2), np.float32)
    if estimator is not None and ":" in options.flow:
        flow_hw2 = try_flow(estimator, options.flow, tried, options.flow_size)
    if not tries_it:
        return 0.0
    known_hw2 = flow_hw2 if filler.needs_flow else None
    remembered = try_propagator(filler, tried, view, known_hw2, two_sided=two_sided)
    return remembered / (tried.frame_HW3.shape[0] * tried.frame_HW3.shape[1])


def try_flow(flow: FlowEstimator, name: str, tried: Tried, flow_size: int) -> np.ndarray:
    """A flow_hw2 of the tried frame; `PluginError` unless `flow` gives one for every pair."""
    if flow.channels not in (1, 3):
        raise PluginError(f"flow estimator {name!r}: channels is {flow.channels!r}, expected 1 or 3")
    view = _view(tried, flow_size, flow.channels)
    current, key = [view, np.roll(view, 2, axis=1)], [np.roll(view, 1, axis=0), view]
    flows = _call("flow estimator", name, lambda: flow.flow(current, key))
    check_flows(flows, current, name)
    return flows[0]


def try_propagator(
    filler: Filler, tried: Tried, view: np.ndarray, flow_hw2: np.ndarray | None, *, two_sided: bool
) -> int:
    """`PluginError` unless the propagator gives back what it is handed in kind, and leaves that alone. Bytes
    that it carries over."""
    name = filler.name
    carried = _call("propagator", name, lambda: tried.carried(filler.level))
    before = copy.deepcopy(carried)
    if filler.works_with_net:
        assert tried.net is not None
        net = tried.net(filler.level, f"propagator {name!r}")
        _call("propagator", name, lambda: connect(net, None, filler))
    gaps = _small_gaps(filler, tried, view, carried, flow_hw2, two_sided)
    if filler.answers_keys:
        _, gaps[0].memory = _call("propagator", name, lambda: filler.at_key(gaps[0].left, {}))
    filled = _call("propagator", name, lambda: list(filler.fill(gaps)))
    if not _equal(carried, before):
        raise PluginError(f"propagator {name!r} changes what it is handed; it must work on a copy")
    highest = max(int((moved & 0xFF).max()) if isinstance(moved, np.ndarray) else 0 for moved in filled)
    if highest >= tried.classes:
        raise PluginError(f"propagator {name!r} gave label {highest}: there are {tried.classes} classes")
    return max(bytes_of(gap.memory) for gap in gaps)


def _small_gaps(
    filler: Filler,
    tried: Tried,
    view: np.ndarray,
    carried: Any,
    flow_hw2: np.ndarray | None,
    two_sided: bool,
) -> list[Gap]:
    """A frame after its last key, and with two sides one between two keys as well."""
    rgb_HW3 = tried.frame_HW3.copy() if filler.reads == "frame" else None
    if filler.reads == "colours":
        rgb_HW3 = picture_of_size(tried.frame_HW3, (view.shape[0], view.shape[1]), 3)
    low = None
    if filler.needs_low:
        assert tried.net is not None
        (low,) = tried.net(filler.level, f"propagator {filler.name!r}").low([tried.frame_HW3])
    key = GapKey(view=view, carried=carried, rgb_HW3=rgb_HW3, low_maps=low)
    link = Link(current=view, key=view, distance=1, flow_hw2=flow_hw2)
    alone = Gap(left=key, frames=[GapFrame(left=link, rgb_HW3=rgb_HW3, low_maps=low)])
    frame = GapFrame(left=link, right=link, rgb_HW3=rgb_HW3, low_maps=low)
    between = Gap(left=key, frames=[frame], right=key)
    return [alone, between] if two_sided else [alone]


def _view(tried: Tried, flow_size: int, channels: int) -> np.ndarray:
    """The flow picture of the tried frame, as the engine has it."""
    height, width, _ = tried.frame_HW3.shape
    size = view_size(height, width, flow_size, tried.whole)
    return picture_of_size(tried.frame_HW3, size, channels)


def _frame(size: tuple[int, int]) -> np.ndarray:
    """A textured frame_HW3, the same every time."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def _call(kind: str, name: str, work: Callable[[], Any]) -> Any:
    """What `work` gives; what it raises, or how it ends the process, becomes one sentence."""
    if end := how_it_ends(work):
        raise PluginError(f"{kind} {name!r} ends the process ({end}) on a small frame")
    try:
        return work()
    except (PluginError, SegmenterError):
        raise
    except (Exception, SystemExit) as problem:  # a plug-in's own code
        raise PluginError(f"{kind} {name!r} fails on a small frame: {_text(problem)}") from problem


def _text(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    return all(_equal(a, b) for a, b in zip(one, other, strict=True))
