"""From a configuration to a working builder, and the fingerprint of what it builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import torch

from vidseg_core.config.build_episodes import LABELS, BuildEpisodesConfig
from vidseg_core.config.catalogue import KEEPS_MAPS_FROM, MAP_SETS
from vidseg_core.config.errors import ConfigError
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.trial import Tried, crop_sizes, trial_sizes, try_labels, try_net, try_plugins
from vidseg_core.episodes.features import (
    CONV6_MEAN,
    LOW,
    MAP_SHAPES,
    Conv6,
    Features,
    PairMaps,
    describe_shapes,
)
from vidseg_core.episodes.sources import regions_of_clips
from vidseg_core.episodes.store import TABLE_VERSION
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.kit.claim import claim, require_same
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.scores import MOST_NAMES
from vidseg_core.models.tta import with_tta
from vidseg_core.propagation.flow import FlowEstimator, build_flow, takes
from vidseg_core.propagation.propagators import propagator_of, weights_digest
from vidseg_core.scheduling.low_deviation import LowDeviation
from vidseg_core.scheduling.pair_maps import MAPS_DIGEST
from vidseg_core.store.keys import MANIFEST_KEY
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import OTHER_OUTPUT, read_object

_NO_PART = (
    "A region's mean IoU is no part of its frame's: keys go to regions that count little, and less than half "
    "of what regions win is left. --quality weighted adds up."
)


@dataclass(frozen=True, kw_only=True)
class Making:
    """A builder, what identifies it, and what to say about its nets."""

    builder: TableBuilder
    fingerprint: Mapping[str, str]
    net: ChunkedNet | None
    note: str


@lru_cache(maxsize=1)
def make_builder(config: BuildEpisodesConfig, classes: tuple[str, ...], device: str) -> Making:
    """The builder on ``device``, once per process. Threads of torch and OpenCV are set for this process.

    ``ConfigError`` or ``SegmenterError`` for what does not exist or does not fit together.
    """
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    net = _net(config, device)
    flow = _flow(config, device)
    conv6 = Conv6(_conv6_net(config, flow, device)) if CONV6_MEAN in config.features else None
    weights = config.propagation.weights
    low = LowDeviation(weights) if LOW in config.features and weights is not None else None
    maps = PairMaps(config.features, flow) if set(config.features) & set(MAP_SETS) else None
    features = Features(config.features, conv6, low, maps)
    builder = TableBuilder(
        TableOptions(
            quality=config.quality,
            horizon=config.horizon,
            key_stride=config.key_stride,
            two_sided_stride=config.two_sided_stride,
            flow_size=config.propagation.flow_size,
            min_frames=config.min_frames,
            pictures=config.pictures,
            maps="small" if config.key_stride >= KEEPS_MAPS_FROM else "made",
        ),
        net=net,
        propagator=propagator_of(config.propagation, device),
        flow=flow,
        features=features,
        classes=len(classes),
    )
    names = classes if net is None or config.quality == "labels" else net.segmenter.class_names
    digests = {
        "segmenter_sha256": net.segmenter.digest if net is not None else "",
        "flow_sha256": str(getattr(flow, "digest", "")),
        "conv6_sha256": conv6.digest if conv6 else "",
        MAPS_DIGEST: maps.digest if maps else "",
        MAP_SHAPES: describe_shapes(maps.shapes) if maps else "",
        "propagation_sha256": weights_digest(config.propagation),
    }
    fingerprint = {
        **{name: _text(value) for name, value in config.fingerprint_fields().items()},
        **{name: digest for name, digest in digests.items() if digest},
        **regions_of_clips(config).recorded(),
        "class_names": ",".join(names),
        "table_version": str(TABLE_VERSION),
    }
    return Making(builder=builder, fingerprint=fingerprint, net=net, note=_note(net, flow))


def try_making(config: BuildEpisodesConfig, making: Making, classes: Sequence[str]) -> str:
    """Put one frame through N and the plug-ins; what the user should know of N.

    ``SegmenterError``, ``PluginError`` or ``ConfigError`` for what does not fit.
    """
    tried = _try_net(config, making.net, len(classes))
    try_plugins(config.propagation, lambda: _flow(config, "cpu"), tried)
    cut = regions_of_clips(config).on and config.quality in ("labels", "fidelity")
    return " ".join(filter(None, (making.note, tried.note, _NO_PART if cut else "")))


def _try_net(config: BuildEpisodesConfig, net: ChunkedNet | None, classes: int) -> Tried:
    """N on a frame, or on a region of each shape; `ConfigError` where regions fit neither size nor net."""
    regions, spec, whole = regions_of_clips(config), config.working_size, None
    try:
        sizes = trial_sizes(spec)
        if regions.on:
            sizes, whole = crop_sizes(regions, spec)
        if net is None:
            return replace(try_labels(classes, sizes[0]), whole=whole)
        tried = try_net(
            net.segmenter, sizes=sizes, device=config.device, most=MOST_NAMES - 1, takes_all=regions.on
        )
        return replace(tried, whole=whole)
    except (ConfigError, SegmenterError) as problem:
        if not regions.on:
            raise
        why = problem.problem if isinstance(problem, ConfigError) else problem
        option = "--regions.grid" if config.regions.on else "--data"
        raise ConfigError(option, f"{regions.words()}: {why}") from problem


def claim_set(store: ObjectStore, fingerprint: Mapping[str, str]) -> bool:
    """Write the set's fingerprint, or check that the one that is there agrees; True when there was none."""

    def check() -> None:
        whose = "holds tables made with something else"
        require_same(read_fingerprint(store), fingerprint, store.root, whose)

    return claim(store, MANIFEST_KEY, {"fingerprint": dict(fingerprint)}, check)


def read_fingerprint(store: ObjectStore) -> dict[str, str]:
    """What the set in `store` was made with; `FileNotFoundError` if none was begun there."""
    return read_object(store, MANIFEST_KEY, {"fingerprint!": {}}, OTHER_OUTPUT)["fingerprint"]


def _net(config: BuildEpisodesConfig, device: str) -> ChunkedNet | None:
    if config.segmenter == LABELS:
        return None
    segmenter = build_segmenter(
        config.segmenter,
        device=device,
        weights=config.weights,
        num_classes=config.num_classes,
        seed=config.seed,
    )
    segmenter = with_tta(segmenter, scales=config.tta.scales, flip=config.tta.flip)
    return ChunkedNet(segmenter, level=config.propagation.level, batch=1, device=device)


def _flow(config: BuildEpisodesConfig, device: str) -> FlowEstimator:
    name, weights = config.propagation.flow, config.propagation.flow_weights
    if weights is not None and not takes(name, "weights"):
        raise ConfigError("--propagation.flow_weights", f"flow {name!r} takes no weights")
    asked = {"device": device, "weights": weights, "seed": config.seed}
    return build_flow(name, **{option: value for option, value in asked.items() if takes(name, option)})


def _conv6_net(config: BuildEpisodesConfig, flow: FlowEstimator, device: str) -> Any:
    """The flow net of the run where it has conv6, else FlowNet2-s beside it."""
    if getattr(flow, "conv6_channels", None) and config.feature_weights is None:
        return flow
    return build_flow("flownet2_s", device=device, weights=config.feature_weights, seed=config.seed)


def _note(net: ChunkedNet | None, flow: FlowEstimator) -> str:
    notes = [getattr(net.segmenter, "note", "")] if net is not None else []
    if not getattr(flow, "trained", True):
        notes.append("The flow net has random weights: the tables say nothing about real propagation.")
    return " ".join(note for note in notes if note)


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)
