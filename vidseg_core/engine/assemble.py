"""From a configuration to a working engine: the one place where names become objects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import torch

from vidseg_core.config.catalogue import INTERVAL, SCHEDULERS, is_of_stream, listed
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.datasets.remap import ClassMap, load_class_map
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.bound import Measured, state_bound
from vidseg_core.engine.confidence import LabelRule
from vidseg_core.engine.context import check_context, kept_per_pixel
from vidseg_core.engine.lows import connect
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.regions import AnyEngine, RegionEngine, RegionStates, of_regions
from vidseg_core.engine.trial import Tried, crop_sizes, trial_sizes, try_net, try_plugins
from vidseg_core.media import working_size
from vidseg_core.models.digest import digest_source
from vidseg_core.models.fetched import origin
from vidseg_core.models.policy_file import policy_digest
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.models.protocol import Segmenter, SegmenterError
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.scores import MOST_NAMES
from vidseg_core.models.tta import with_tta
from vidseg_core.propagation.filler import Filler, filler_of
from vidseg_core.propagation.flow import FlowEstimator, build_flow, takes
from vidseg_core.propagation.motion import MOST_REFERENCES
from vidseg_core.propagation.propagators import propagator_of, weights_digest
from vidseg_core.scheduling import Scheduler, WindowScheduler, scheduler_of
from vidseg_core.scheduling.learned_regions import note_on_regions
from vidseg_core.scheduling.lookahead_window import asks
from vidseg_core.scheduling.pair_maps import reads_maps

_UNTRAINED_FLOW = (
    "The flow net '{name}' has random weights: masks between keys mean nothing, only their speed does; "
    "give --propagation.flow_weights, or use dis or tiny-flow."
)
_MOST_FLOW_THREADS = 4
"""Flow threads of an engine on a GPU, unless said otherwise: other engines on the host need cores, too."""


@dataclass(frozen=True, kw_only=True)
class NetFacts:
    """What the driver needs to know of N."""

    name: str
    class_names: Sequence[str]
    digest: str
    trained: bool
    note: str
    warning: str = ""
    """What must stand beside the masks of a net that was not trained for these videos."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """Where fetched weights came from, and their licence."""
    flow_digest: str = ""
    """Digest of the flow net's weights; empty when the flow is no net."""
    pixel_s: float = 0.0
    """Seconds of N per pixel on this CPU, roughly; 0: not known."""


def build_net(config: SegmentConfig, device: str) -> Segmenter:
    """N of the run on ``device``; ``SegmenterError`` says what is wrong with its name, file or classes."""
    net = build_segmenter(
        config.segmenter,
        device=device,
        weights=config.weights,
        num_classes=config.num_classes,
        seed=config.seed,
        precision=config.dtype,
    )
    return with_tta(net, scales=config.tta.scales, flip=config.tta.flip)


def describe_net(config: SegmentConfig) -> NetFacts:
    """Build N once, on the CPU, to learn its classes and digest, and try it and the plug-ins on one frame.

    ``SegmenterError`` or ``ConfigError`` for what cannot be built, or gives what does not fit.
    """
    net = build_net(config, "cpu")
    classes = class_map(config, net.class_names)
    flow = build_run_flow(config, "cpu") if config.propagation.flow != "dis" else None
    tried = _try_out(config, net)
    filler = filler_of(propagator_of(config.propagation), two_sided=config.propagation.sides == "two")
    in_calls = ChunkedNet(net, level=filler.level, batch=1, device="cpu")
    scheduler = scheduler_of(config.scheduler)
    reads_low = connect(in_calls, scheduler, filler)
    check_context(config.regions, in_calls, reads_low=reads_low, asks_ahead=asks(scheduler))
    remembered = tried.remembered
    if tried.whole is not None and tried.net is not None:
        seen_by = tried.net("labels", "--regions.context")
        remembered += kept_per_pixel(config.regions, seen_by, tried.whole)
    if remembered or filler.most_remembered(1, 1, 1) or filler.most_kept():
        _check_state(config, scheduler, filler, build_run_flow(config, "cpu"), remembered)
    notes = [net.note, tried.note]
    if config.device == "cpu" or not torch.cuda.is_available():
        notes.append(getattr(filler.propagator, "note", ""))
    notes.append(_note_on_regions(config, scheduler))
    if flow is not None and not getattr(flow, "trained", True):
        notes.append(_UNTRAINED_FLOW.format(name=config.propagation.flow))
    return NetFacts(
        name=net.name,
        class_names=classes.class_names if classes else tuple(net.class_names),
        digest=digest_with(classes, net.digest),
        trained=net.trained,
        note=" ".join(filter(None, notes)),
        warning="" if net.trained else net.note,
        origin=origin(config.segmenter) if config.weights is None else {},
        flow_digest=str(getattr(flow, "digest", "")),
        pixel_s=tried.pixel_s,
    )


def _try_out(config: SegmentConfig, net: Segmenter) -> Tried:
    """One frame through N and the plug-ins after it; with regions one of each shape through N."""
    rule = label_rule(config, net.class_names)
    sizes, whole = trial_sizes(config.working_size_spec), None
    if config.regions.on:
        sizes, whole = crop_sizes(config.regions, config.working_size_spec)
    try:
        tried = try_net(
            net,
            sizes=sizes,
            batch=config.key_batch,
            device=config.device,
            rule=rule,
            most=MOST_NAMES if rule is None else MOST_NAMES - 1,
            takes_all=config.regions.on,
        )
    except SegmenterError as problem:
        if not config.regions.on:
            raise
        raise ConfigError("--regions.grid", f"{config.regions.words()}: {problem}") from problem
    tried = replace(tried, whole=whole)
    try:
        remembered = try_plugins(config.propagation, lambda: build_run_flow(config, "cpu"), tried)
    except ConfigError:
        raise
    except ValueError as problem:
        own_flow = ":" in config.propagation.flow
        option = "--propagation.flow or --propagation.name" if own_flow else "--propagation.name"
        raise ConfigError(option, str(problem)) from problem
    return replace(tried, remembered=remembered)


def build_engine(config: SegmentConfig, device: str) -> AnyEngine:
    """The engine of the run on ``device``. Threads of torch and OpenCV are set for this process.

    ``ConfigError`` for a scheduler, propagator or flow that is unknown or does not take its options.
    """
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    options = config.propagation
    net = build_net(config, device)
    try:
        engine = Engine(
            net,
            scheduler_of(config.scheduler),
            propagator_of(options, device),
            sides=options.sides,
            max_interval=config.scheduler.max_interval,
            flow=build_run_flow(config, device),
            flow_size=options.flow_size,
            key_batch=config.key_batch,
            device=device,
            rule=label_rule(config, net.class_names),
            delay=options.delay if options.latency == "low" else None,
        )
    except ValueError as problem:
        if isinstance(problem, ConfigError):
            raise
        raise ConfigError("--scheduler.name or --propagation.name", str(problem)) from problem
    return RegionEngine(engine, config.regions) if config.regions.on else engine


def build_run_flow(config: SegmentConfig, device: str) -> FlowEstimator:
    """F of the run; what an estimator has no option for (`device`, `weights`, `seed`, `threads`) it is not
    told.

    ``ConfigError`` when weights are given to one that takes none or are for another level,
    ``SegmenterError`` when they do not fit.
    """
    name, weights = config.propagation.flow, config.propagation.flow_weights
    if weights is not None and not takes(name, "weights"):
        raise ConfigError("--propagation.flow_weights", f"flow {name!r} takes no weights")
    threads = config.flow_threads or (1 if device == "cpu" else min(_MOST_FLOW_THREADS, os.cpu_count() or 1))
    asked = {"device": device, "weights": weights, "seed": config.seed, "threads": threads}
    flow = build_flow(name, **{option: value for option, value in asked.items() if takes(name, option)})
    scaled, level = getattr(flow, "scale_level", None), config.propagation.level
    if scaled not in (None, level) and level != "labels":
        problem = f"is {level}, but the scale field of {weights} was trained for {scaled}"
        raise ConfigError("--propagation.level", problem)
    return flow


def check_parts(config: SegmentConfig) -> None:
    """Build scheduler, propagator and flow once, so that a wrong name is reported before anything is claimed.

    ``ConfigError`` says which.
    """
    options = config.propagation
    parts: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("--scheduler.name", lambda: _check_scheduler(config)),
        ("--propagation.name", lambda: propagator_of(options)),
        ("--propagation.flow", lambda: build_run_flow(config, "cpu")),
    )
    built: list[Any] = []
    for option, build in parts:
        try:
            built.append(build())
        except ConfigError:
            raise
        except (ValueError, TypeError) as problem:
            raise ConfigError(option, str(problem)) from problem
    scheduler, propagator, flow = built
    try:
        reads_maps(scheduler, flow)
    except ValueError as problem:
        raise ConfigError("--scheduler.policy", str(problem)) from problem
    filler = filler_of(propagator, two_sided=options.sides == "two")
    if filler.answers_keys and options.latency == "low":
        problem = f"low does not go with {options.name}, which says what keys show"
        raise ConfigError("--propagation.latency", problem)
    if filler.reads in ("colours", "frame"):
        _check_state(config, scheduler, filler, flow)


def _check_state(
    config: SegmentConfig,
    scheduler: Scheduler | WindowScheduler,
    filler: Filler,
    flow: FlowEstimator,
    remembered: float = 0.0,
) -> None:
    """`ConfigError` for a propagator that looks at frames, or carries something over (`remembered` bytes per
    pixel), and may let more of a segment wait than is allowed."""
    options, spec = config.propagation, config.working_size_spec
    size = working_size(spec, spec, spec) if isinstance(spec, int) else working_size(1, 1, spec)
    crops = config.regions.crops(size)
    bounds = [
        state_bound(
            filler,
            scheduler,
            two_sided=options.sides == "two",
            max_interval=config.scheduler.max_interval,
            flow_size=options.flow_size,
            channels=flow.channels,
            size=crop.shape,
            whole=size,
            references=MOST_REFERENCES if is_of_stream(options.flow) else 0,
            late=options.latency == "low",
            measured=Measured(remembered=remembered),
        )
        for crop in crops
    ]
    bound = of_regions(bounds, crops) if config.regions.on else bounds[0]
    kept_mb = -(-bound.bytes // 1_000_000)
    if kept_mb <= config.state_mb:
        return
    why, lower = (
        f"{options.name} keeps {kept_mb} MB of a segment, with what it carries over",
        "--working_size",
    )
    if config.regions.context == "remembered":
        why = f"{kept_mb} MB of a segment are kept with --regions.context remembered"
    if filler.reads in ("colours", "frame"):
        why = f"{options.name} looks at frames, and {bound.frames} of a segment may wait: {kept_mb} MB"
        lower = "--scheduler.max_interval or --working_size"
    raise ConfigError("--state_mb", f"is {config.state_mb}, but {why}; raise it, or lower {lower}")


def _check_scheduler(config: SegmentConfig) -> Scheduler | WindowScheduler:
    if config.scheduler.name not in SCHEDULERS and config.scheduler.interval != INTERVAL:
        problem = f"goes with {listed('takes_interval')}; a plug-in has its own, leave the option out"
        raise ConfigError("--scheduler.interval", problem)
    scheduler = scheduler_of(config.scheduler)
    if isinstance(scheduler, WindowScheduler) and config.propagation.latency == "low":
        problem = f"low does not go with {config.scheduler.name}, which looks ahead"
        raise ConfigError("--propagation.latency", problem)
    if isinstance(scheduler, WindowScheduler) and is_of_stream(config.propagation.flow):
        problem = f"{config.propagation.flow} does not go with {config.scheduler.name}, which looks ahead"
        raise ConfigError("--propagation.flow", problem)
    most = config.scheduler.max_interval
    if isinstance(scheduler, WindowScheduler) and isinstance(scheduler.stride, int):
        if most < scheduler.stride:
            problem = f"is {most}, but {config.scheduler.name} chooses keys every {scheduler.stride} frames"
            raise ConfigError("--scheduler.max_interval", f"{problem}; raise it")
    if asks(scheduler) and config.propagation.sides == "one":
        problem = f"one does not go with {config.scheduler.name}, which compares both sides"
        raise ConfigError("--propagation.sides", problem)
    _note_on_regions(config, scheduler)
    check = getattr(scheduler, "check_sides", None)
    if check is not None:
        check(config.propagation.sides == "two")
    return scheduler


def _note_on_regions(config: SegmentConfig, scheduler: Scheduler | WindowScheduler) -> str:
    """What to say of a trained scheduler that has not learned from regions like those of the run; empty:
    nothing. `ConfigError` for another grid."""
    try:
        return note_on_regions(scheduler, config.regions)
    except PolicyError as problem:
        raise ConfigError("--scheduler.policy", f"{config.scheduler.policy}: {problem}") from problem


def plugin_sources(config: SegmentConfig) -> dict[str, str]:
    """SHA-256 of each plug-in's source file and of a trained policy by option name, for the fingerprint.

    They decide masks. Segmenters are not here; their digest has it.
    """
    options = {
        "scheduler.name": config.scheduler.name,
        "propagation.name": config.propagation.name,
        "propagation.flow": config.propagation.flow,
    }
    found = {f"{name}.sha256": digest_source(value) for name, value in options.items()}
    digests = {name: digest for name, digest in found.items() if digest}
    policy, weights = config.scheduler.policy, weights_digest(config.propagation)
    return (
        digests
        | ({"scheduler.policy.sha256": policy_digest(policy)} if policy else {})
        | ({"propagation.weights.sha256": weights} if weights else {})
    )


def new_state(config: SegmentConfig, video_id: str, segment: int) -> SegmentState | RegionStates:
    """The state before a segment's first frame; its name makes random schedules independent of the layout."""
    if config.regions.on:
        return RegionStates.new(config.seed, f"{video_id}/{segment}", config.regions.count)
    return SegmentState.new(config.seed, f"{video_id}/{segment}")


# --- pseudo-labels: the rule for doubtful pixels, and the classes that come out -----------------------------


def label_rule(config: SegmentConfig, teacher_classes: Sequence[str]) -> LabelRule | None:
    """The rule of a run of pseudo-labels; None for plain masks."""
    if not isinstance(config, PseudoLabelConfig):
        return None
    classes = class_map(config, teacher_classes)
    return LabelRule(min_confidence=config.min_confidence, remap=classes.new_ids if classes else ())


def class_map(config: SegmentConfig, teacher_classes: Sequence[str]) -> ClassMap | None:
    """The class map that ``--remap`` names, fitted to the teacher's classes; ``ConfigError`` if it is off."""
    if not isinstance(config, PseudoLabelConfig) or config.remap is None:
        return None
    try:
        found = load_class_map(config.remap, teacher_classes)
    except DatasetError as problem:
        raise ConfigError("--remap", str(problem)) from problem
    if found.ignored_to is not None:
        raise ConfigError("--remap", f"class map {config.remap}: 255 is no class of the segmenter")
    return found


def digest_with(classes: ClassMap | None, net_digest: str) -> str:
    """The net's digest, or that of net and class map together: both decide the labels."""
    if classes is None:
        return net_digest
    text = f"{net_digest} {classes.class_names} {classes.new_ids}"
    return hashlib.sha256(text.encode()).hexdigest()
