"""Configuration of ``vidseg build-episodes``: what the tables hold decides the set, the rest says where and
how fast."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vidseg_core.config.catalogue import (
    FLOWS,
    KEEPS_MAPS_FROM,
    KEY_AND_FLOW,
    MAP_SETS,
    MEMORY_NETS,
    PLAIN_PROPAGATORS,
    WEIGHTED,
    is_of_stream,
    propagator_place,
    propagator_words,
)
from vidseg_core.config.errors import check, check_int, check_name, nearest
from vidseg_core.config.nets import NAMED_NETS, NET_FAMILIES
from vidseg_core.config.propagation import check_flow_size, check_propagator
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.run_options import check_run_options
from vidseg_core.config.schema import flat_dict, redact, to_yaml
from vidseg_core.config.segment import TtaConfig

__all__ = ["LABELS", "BuildEpisodesConfig", "TablePropagationConfig"]

LABELS = "labels"
"""The segmenter that says what the labels say."""
FEATURES = ("flow", "scores", "frame_difference", "moving", "low_deviation", "flownet_conv6_mean", *MAP_SETS)


@dataclass(frozen=True, kw_only=True)
class TablePropagationConfig:
    """How a key's result reaches the frames after it; as for vidseg segment."""

    name: str = "flow_warp"
    """{propagators} or package.module:Class; what depends on more than key and frame is refused"""
    level: Literal["labels", "scores", "features"] = "labels"
    """what is carried: the key's label map (fast), its class scores, or its features"""
    flow: str = "dis"
    """dis (OpenCV), tiny-flow, flownet_s, flownet2_s, spynet, raft or package.module:Class"""
    flow_weights: str | None = None
    """file with the flow net's weights; None: its own (only tiny-flow has some)"""
    flow_size: int = 256
    """longest side at which flow is computed, pixels; 32 to 4096"""
    weights: str | None = None
    """{trained}: a file of train-propagation"""

    HELP_WORDS: ClassVar[Mapping[str, str]] = propagator_words()

    def __post_init__(self) -> None:
        check_name("--propagation.name", self.name, PLAIN_PROPAGATORS, MEMORY_NETS)
        check_propagator(self.name, self.weights, self.level, "one")
        levels = ("labels", "scores", "features")
        check(self.level in levels, "--propagation.level", f"must be one of {', '.join(levels)}")
        check_name("--propagation.flow", self.flow, FLOWS)
        if self.flow_weights is not None:
            check(bool(self.flow_weights.strip()), "--propagation.flow_weights", "must name a file")
            problem = f"{self.flow!r} is not a net and has no weights"
            check(self.flow not in FLOWS or bool(FLOWS[self.flow].net), "--propagation.flow_weights", problem)
        problem = f"{self.flow} are those of a stream, but tables need the flow between any two frames"
        check(not is_of_stream(self.flow), "--propagation.flow", problem)
        check_flow_size(self.name, self.flow_size)


@dataclass(frozen=True, kw_only=True)
class BuildEpisodesConfig:
    """Tabulate what every key frame would give every frame after it, for schedulers to learn from.

    --data (or --input) and --output suffice. The same command again continues; more clips may be added.
    """

    data: tuple[str, ...] = ()
    """data sets, NAME:PATH?options, e.g. face:/data/faces; repeatable, equal classes"""
    input: tuple[str, ...] = ()
    """videos without labels (files, folders, globs, s3://, lists); needs a net and --quality fidelity,
    accuracy or weighted"""
    output: str
    """folder or s3://bucket/prefix of the set of tables"""
    split: str = "all"
    """split of --data to take"""

    quality: Literal["labels", "fidelity", "accuracy", "weighted"] = "labels"
    """labels: mIoU against labels; fidelity: mIoU, accuracy: share of pixels (DVSNet Eq. 1, DVRL Eq. 2),
    weighted: 1 - what wrong pixels cost of the clip's mIoU, which adds up over regions, against the
    segmenter's own mask"""
    segmenter: str = LABELS
    """labels (they stand in for the net: propagation alone), or a net as for vidseg segment"""
    weights: str | None = None
    """file with the segmenter's weights; None: its own"""
    num_classes: int | None = None
    """number of classes, 1 to 255; None: what the segmenter says"""
    working_size: str = "512"
    """longest side in pixels (aspect kept, never enlarged), or HxW exactly"""
    propagation: TablePropagationConfig = field(default_factory=TablePropagationConfig)
    tta: TtaConfig = field(default_factory=TtaConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)

    features: tuple[str, ...] = ("flow",)
    """what a scheduler sees: flow, scores, frame_difference, moving, low_deviation, flownet_conv6_mean; maps:
    flownet_conv4, flownet_conv5, flownet_conv6, key_and_flow (small ones are kept with --key_stride 4 or
    more); repeatable"""
    feature_weights: str | None = None
    """file with the weights of FlowNet2-s for flownet_conv6_mean, where --propagation.flow is another flow"""
    horizon: int = 90
    """frames from a key that are tabulated: the longest key interval; 1 to 10000"""
    key_stride: int = 1
    """only every so many frames may be key (cheaper, coarser); 1: all"""
    two_sided_stride: int = 0
    """keys and lengths of the two-sided table, a multiple of --key_stride; 0: no such table, 1: all pairs"""
    pictures: bool = True
    """keep small pictures and masks, which train-planner needs (up to 32 kB a frame)"""
    min_frames: int = 30
    """clips with fewer frames hold no episode and are quarantined; at least 2"""
    clip_frames: int = 0
    """only the first so many frames of each clip; 0: all"""
    segment_frames: int = 1000
    """longer clips are cut evenly, into segments of at most so many frames; 0: never"""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the nets run; auto: cuda where the cluster has GPUs"""
    threads: int = 1
    """CPU threads of the nets per task (may change the last bits); at least 1"""
    workers: int = 0
    """segments at a time; 0: what the machine or cluster has room for"""
    seed: int = 0
    """seed of the weights of a net that has none"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory of a local Ray, MB; at least 128; None: 2000"""

    dry_run: bool = False
    """count, measure on a sample, estimate size and time; write nothing"""
    limit: int | None = None
    """only the first so many clips; at least 1"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "data": "what and where to",
        "quality": "the net and what its masks are worth",
        "features": "the tables",
        "min_frames": "the clips",
        "device": "resources",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        for name in ("data", "input", "features"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_places()
        self._check_net()
        self._check_tables()
        self._check_regions()
        check_run_options(self, "clip(s)")

    def _check_places(self) -> None:
        check(bool(self.data or self.input), "--data", "needs a data set, e.g. face:/data/faces, or --input")
        check(bool(self.output.strip()), "--output", "must name a folder or s3://bucket/prefix")
        named = [("--data", self.data), ("--input", self.input), ("--output", (self.output,))]
        for option, texts in named:
            for text in texts:
                check(bool(text.strip()), option, "must not be empty")
                problem = f"holds credentials ({redact(text)}); they belong in the environment"
                check(redact(text) == text, option, problem)

    def _check_net(self) -> None:
        choices = ("labels", "fidelity", "accuracy", WEIGHTED)
        check(self.quality in choices, "--quality", f"must be one of {', '.join(choices)}")
        check_name("--segmenter", self.segmenter, (LABELS, *NAMED_NETS), NET_FAMILIES)
        if self.quality == "labels":
            check(not self.input, "--input", "videos have no labels: take --quality fidelity, or give --data")
        if self.segmenter == LABELS:
            problem = "averages a net's answers; labels have one: name a --segmenter"
            check(not self.tta.on, "--tta", problem)
            problem = f"--quality {self.quality} compares with a net's own masks: name a net"
            check(self.quality != "fidelity" and not self.input, "--segmenter", problem)
            level = self.propagation.level
            check(level == "labels", "--propagation.level", f"labels have no {level}: name a --segmenter")
        if self.num_classes is not None:
            check_int("--num_classes", self.num_classes, 1, 255)

    def _check_regions(self) -> None:
        problem = f"is {self.regions.context}, but tables are of crops by themselves: leave it out"
        check(self.regions.context == "none", "--regions.context", problem)
        self.regions.check_used()
        for source in self.data if self.regions.on else ():
            problem = f"{source} is cut into regions already; name them once"
            check("regions=" not in source.partition("?")[2], "--regions.grid", problem)
        for source in self.data if self.quality == WEIGHTED else ():
            problem = (
                f"{source} makes a clip of each region, but --quality weighted takes weights of the whole"
            )
            fine = "regions=" not in source.partition("?")[2]
            check(fine, "--data", f"{problem} frame: name the regions by --regions.grid")

    def _check_tables(self) -> None:
        check(bool(self.features), "--features", "needs at least one set")
        for name in self.features:
            known = ", ".join(FEATURES)
            problem = f"no feature set {name!r}{nearest(name, FEATURES)}; known: {known}"
            check(name in FEATURES, "--features", problem)
        problem = "low_deviation reads the file of lvs: --propagation.name lvs --propagation.weights FILE"
        has_file = self.propagation.name == "lvs" or "low_deviation" not in self.features
        check(has_file, "--features", problem)
        check_int("--horizon", self.horizon, 1, 10_000, "frames")
        check_int("--key_stride", self.key_stride, 1, self.horizon, "frame(s)")
        problem = (
            f"{KEY_AND_FLOW} is kept with --key_stride {KEEPS_MAPS_FROM} or more, and is made nowhere else"
        )
        kept = KEY_AND_FLOW not in self.features or self.key_stride >= KEEPS_MAPS_FROM
        check(kept, "--features", problem)
        check_int("--two_sided_stride", self.two_sided_stride, 0, self.horizon, "frames")
        problem = f"must be a multiple of --key_stride {self.key_stride}, got {self.two_sided_stride}"
        check(self.two_sided_stride % self.key_stride == 0, "--two_sided_stride", problem)
        if self.two_sided_stride:
            problem = "makes no two-sided table at this level; take labels, or --two_sided_stride 0"
            check(self.propagation.level == "labels", "--propagation.level", problem)
        check_int("--min_frames", self.min_frames, 2, unit="frames")
        check_int("--clip_frames", self.clip_frames, 0, unit="frames")
        check_int("--segment_frames", self.segment_frames, 0, unit="frames")
        enough = self.segment_frames == 0 or self.segment_frames >= 2 * self.min_frames
        problem = f"must be 0, or at least twice --min_frames {self.min_frames}, got {self.segment_frames}"
        check(enough, "--segment_frames", problem)

    def as_typed(self, given: Collection[str]) -> BuildEpisodesConfig:
        """Itself; `ConfigError` for an option of regions that the user gave (dotted names) without a grid."""
        self.regions.check_used(given)
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides a table's numbers, by dotted option name; nets count by their weights' digest."""
        fields = flat_dict(self)
        fields["propagation.name"], _ = propagator_place(self.propagation.name)
        return {name: fields[name] for name in sorted(fields) if name in _FINGERPRINT}

    def describe(self) -> str:
        """The set in one line for people."""
        cut = f" of {self.regions.words()}" if self.regions.on else ""
        two = f", two-sided at every {self.two_sided_stride}" if self.two_sided_stride else ""
        thin = f"every {self.key_stride} frames a key" if self.key_stride > 1 else "every frame a key"
        return (
            f"{self.segmenter}{cut} at {self.working_size} px; quality {self.quality}; "
            f"{self.propagation.name} of {self.propagation.level} over {self.propagation.flow} flow at "
            f"{self.propagation.flow_size} px; {thin}, {self.horizon} frames far{two}; "
            f"features {', '.join(self.features)}"
        )

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)


_FINGERPRINT = frozenset(
    {
        "quality",
        "segmenter",
        "num_classes",
        "working_size",
        "propagation.name",
        "propagation.level",
        "propagation.flow",
        "propagation.flow_size",
        "features",
        "horizon",
        "key_stride",
        "two_sided_stride",
        "pictures",
        "clip_frames",
        "segment_frames",
        "threads",
    }
)
