"""Schedulers, propagators and flows by name, as data: what configuration, help, dial and reports know.

Model: an entry names the class, which is imported when somebody builds it, and says what can be said without
it. Nothing here imports anything heavy. Adding a scheduler takes its own file and its entry; whatever lists,
checks, offers, tabulates or explains schedulers reads them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "AGREEMENT",
    "BESIDE",
    "DISTANCE",
    "EVERY",
    "FILES",
    "FIXED",
    "FLOWS",
    "FLOW_WARP",
    "INTERVAL",
    "KEEPS_MAPS_FROM",
    "KEPT_MAPS",
    "KEY_AND_FLOW",
    "LEARNED",
    "MAP_LAYERS",
    "MAP_SETS",
    "MAP_SHAPE",
    "MEMORY_NETS",
    "MOTION_VECTORS",
    "NET_FLOWS",
    "PLAIN_PROPAGATORS",
    "POINT_INTERVAL",
    "PROPAGATORS",
    "SCALED_FLOWS",
    "SCHEDULERS",
    "TRIED_PROPAGATORS",
    "WEIGHTED",
    "FlowEntry",
    "PropagatorEntry",
    "SchedulerEntry",
    "is_of_stream",
    "listed",
    "no_interval",
    "plugin_module",
    "propagator_entry",
    "propagator_edition",
    "propagator_place",
    "propagator_words",
    "scheduler_edition",
    "scheduler_words",
    "usual_threshold",
]

INTERVAL = 12
"""Frames from key to key where the user gives no interval."""
POINT_INTERVAL = 25.0
"""Without a threshold a trained file is used at its operating point nearest to this key interval, frames."""
EVERY, FIXED = "every", "fixed"
"""The net on every frame, and even keys: what the others are compared with."""
AGREEMENT = "accuracy"
"""The quality of tables that is the confidence of DVSNet Eq. 1: the share of pixels that agree with N."""
WEIGHTED = "weighted"
"""The quality of tables that adds up over the regions of a frame; see `episodes.quality`."""
MAP_LAYERS: Mapping[str, str] = {f"flownet_{layer}": layer for layer in ("conv4", "conv5", "conv6")}
"""Sets of maps of a pair that come from a flow net, and its layer; see `scheduling.pair_maps`."""
KEY_AND_FLOW = "key_and_flow"
MAP_SETS = (*MAP_LAYERS, KEY_AND_FLOW)
KEPT_MAPS = ("flownet_conv6", KEY_AND_FLOW)
"""The sets that tables keep, with keys thin enough; those of conv4 and conv5 are made again where they are
read."""
KEEPS_MAPS_FROM = 4
"""`--key_stride` from which they do: with every frame as key conv6 is .33 GB for a clip of 300 frames
(FlowNet2-s; .89 GB with FlowNetS)."""
MAP_SHAPE = "map_shape"
"""In the fingerprint of a net that reads a map: "C,h,w"."""
DISTANCE = "distance"
"""The table feature that every pair has: frames since the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEntry:
    """What is known of a scheduler without importing it."""

    made_by: str
    """``package.module:Class``."""
    unit: str = ""
    """Of its score: a unit that follows the number, or what the number is."""
    threshold: float | None = None
    """Without one from the user; None: it has none, or its file says which."""
    takes_interval: bool = False
    """Its one setting is ``scheduler.interval``."""
    feature: str = ""
    """Name of the table feature that is its score; empty: none is."""
    trained_by: str = ""
    """The verb that writes the file it reads (``scheduler.policy``)."""
    quality: str = ""
    """What its file must have learned from (``build-episodes --quality``); empty: any."""
    file: str | None = None
    """The file in the package that it reads if the user names none."""
    looks_ahead: bool = False
    """It plans windows; its threshold is the price of a key."""
    asks: bool = False
    """It compares what N says of the keys that it takes, from both sides of a gap."""
    reads_low: bool = False
    """It reads low-level features of the net: its feature is tabulated where its file is named only."""
    edition: int = 1
    """Of its choices: runs of an older one are not continued."""

    @property
    def scores(self) -> bool:
        """Its score says something about the frame, and a threshold decides."""
        return self.threshold is not None or bool(self.trained_by)

    @property
    def walks_tables(self) -> bool:
        """Its keys follow from episode tables."""
        return bool(self.feature or self.asks or (self.trained_by and not self.reads_low))


SCHEDULERS: Mapping[str, SchedulerEntry] = {
    EVERY: SchedulerEntry(made_by="vidseg_core.scheduling.every:Every"),
    FIXED: SchedulerEntry(
        made_by="vidseg_core.scheduling.fixed:Fixed",
        takes_interval=True,
        feature=DISTANCE,
        unit="frames since the last key",
    ),
    "random": SchedulerEntry(made_by="vidseg_core.scheduling.random_keys:RandomKeys", takes_interval=True),
    "frame_difference": SchedulerEntry(
        made_by="vidseg_core.scheduling.frame_difference:FrameDifference",
        threshold=16.0,
        unit="gray levels",
        feature="frame_difference",
    ),
    "flow_magnitude": SchedulerEntry(
        made_by="vidseg_core.scheduling.flow_magnitude:FlowMagnitude",
        threshold=2.0,
        unit="% of the longest side",
        feature="flow_magnitude",
    ),
    "warp_error": SchedulerEntry(
        made_by="vidseg_core.scheduling.warp_error:WarpError",
        threshold=6.0,
        unit="gray levels",
        feature="warp_error",
    ),
    "policy": SchedulerEntry(
        made_by="vidseg_core.scheduling.policy:Policy",
        trained_by="train-policy",
        unit="probability of a key",
    ),
    "confidence": SchedulerEntry(
        made_by="vidseg_core.scheduling.confidence:Confidence",
        trained_by="train-decision",
        quality=AGREEMENT,
        unit="1 - expected confidence",
    ),
    "expected_loss": SchedulerEntry(
        made_by="vidseg_core.scheduling.confidence:ExpectedLoss",
        trained_by="train-decision",
        unit="1 - expected quality",
    ),
    "confidence_sum": SchedulerEntry(
        made_by="vidseg_core.scheduling.confidence:ConfidenceSum",
        trained_by="train-decision",
        unit="frames' worth of quality",
    ),
    "low_deviation": SchedulerEntry(
        made_by="vidseg_core.scheduling.low_deviation:LowDeviation",
        trained_by="train-propagation",
        threshold=5.0,
        unit="% of the labels, expected",
        feature="low_deviation",
        reads_low=True,
    ),
    "low_change": SchedulerEntry(
        made_by="vidseg_core.scheduling.low_change:LowChange",
        trained_by="train-propagation",
        threshold=10.0,
        unit="% of the places whose shallow class changed",
        reads_low=True,
    ),
    "planner": SchedulerEntry(
        made_by="vidseg_core.scheduling.planner:Planner",
        trained_by="train-planner",
        file="tiny-planner",
        looks_ahead=True,
    ),
    "split": SchedulerEntry(
        made_by="vidseg_core.scheduling.split:Split",
        threshold=1.0,
        looks_ahead=True,
        asks=True,
        edition=2,
    ),
}


FILES: Mapping[str, str] = {entry.file: name for name, entry in SCHEDULERS.items() if entry.file}
"""The files in the package, and the scheduler that each goes with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagatorEntry:
    """What is known of a propagator without importing it."""

    made_by: str
    """``package.module:Class``."""
    trained_by: str = ""
    """The verb that writes the weights it needs (``propagation.weights``)."""
    learner: str = ""
    """Of one that ``train-propagation`` trains, what it learns: ``package.module:Class``."""
    takes: tuple[str, ...] = ()
    """Options of ``train-propagation`` that its learner reads and not every other learner does."""
    level: str = ""
    """The one that it works at; empty: any."""
    online: bool = False
    """It goes with one side only."""
    file: str = ""
    """The weights in the package that it reads if the user names none."""
    light: bool = False
    """It runs a light net on every frame, which is trained with it."""
    moves: bool = False
    """It moves what is kept of a key along the flow (``propagation.flow``)."""
    clocked: bool = False
    """It takes ``propagation.clock``."""
    most_flow_size: int = 4096
    """The largest ``propagation.flow_size`` that it works at."""
    dial_ops: float | None = None
    """What a frame takes at 256 px beside flow, in operations of a net meanwhile (ms of a core x 5e7); None:
    the dial does not try it of itself."""
    takes_place: bool = False
    """Its name goes on with a colon and a folder or hub id, where its net is."""
    edition: int = 1
    """One more whenever its masks become others by the same options and weights."""
    check_edition: int = 0
    """One more whenever only those with a self-check do."""
    adapt_edition: int = 0
    """One more whenever only those of a net that adapts do."""


PROPAGATORS: Mapping[str, PropagatorEntry] = {
    "copy": PropagatorEntry(made_by="vidseg_core.propagation.propagators:Copy", dial_ops=0.0),
    "flow_warp": PropagatorEntry(
        made_by="vidseg_core.propagation.propagators:FlowWarp", moves=True, dial_ops=0.0
    ),
    "lvs": PropagatorEntry(
        made_by="vidseg_core.propagation.lvs:Lvs",
        trained_by="train-propagation",
        learner="vidseg_core.training.lvs:LvsLearner",
        takes=(
            "kernel",
            "recipe.max_gap",
            "recipe.twice",
            "recipe.scores",
            "recipe.features",
            "recipe.labels",
            "recipe.deviation",
        ),
        level="features",
    ),
    "match": PropagatorEntry(
        made_by="vidseg_core.propagation.match:Match",
        trained_by="train-propagation",
        learner="vidseg_core.training.match:MatchLearner",
        takes=("recipe.max_gap", "recipe.lessons", "recipe.pixels", "recipe.overlap", "recipe.read"),
        level="labels",
        file="tiny-match",
        moves=True,
        dial_ops=1.4e9,
        most_flow_size=512,
        edition=3,
        check_edition=1,
        adapt_edition=1,
    ),
    "accel": PropagatorEntry(
        made_by="vidseg_core.propagation.light:Accel",
        trained_by="train-propagation",
        learner="vidseg_core.training.light:AccelLearner",
        takes=(
            "light",
            "light_weights",
            "recipe.max_gap",
            "recipe.fused",
            "recipe.light",
            "recipe.crossed",
        ),
        level="scores",
        light=True,
        moves=True,
    ),
    "grfp": PropagatorEntry(
        made_by="vidseg_core.propagation.light:Grfp",
        trained_by="train-propagation",
        learner="vidseg_core.training.light:GrfpLearner",
        takes=("light", "light_weights", "recipe.frames", "recipe.scores", "recipe.light", "recipe.labels"),
        level="scores",
        online=True,
        light=True,
        edition=2,
    ),
    "feature_sharing": PropagatorEntry(
        made_by="vidseg_core.propagation.sharing:FeatureSharing",
        learner="vidseg_core.training.sharing:SharingLearner",
        takes=(
            "recipe.max_gap",
            "sharing.current",
            "sharing.made_key",
            "sharing.own_key",
            "sharing.levels",
            "sharing.alpha",
            "sharing.norm",
            "sharing.distance",
        ),
        level="features",
    ),
    "clockwork": PropagatorEntry(
        made_by="vidseg_core.propagation.clockwork:clockwork",
        learner="vidseg_core.training.clockwork:ClockLearner",
        takes=("recipe.scores",),
        level="features",
        clocked=True,
    ),
    "sam2": PropagatorEntry(
        made_by="vidseg_core.propagation.memory:sam2", level="labels", takes_place=True, moves=True
    ),
    "edgetam": PropagatorEntry(
        made_by="vidseg_core.propagation.memory:edgetam", level="labels", takes_place=True, moves=True
    ),
}
FLOW_WARP = "flow_warp"
"""What fills gaps where nobody says otherwise."""
TRIED_PROPAGATORS = tuple(name for name, entry in PROPAGATORS.items() if entry.dial_ops is not None)
"""What the dial may take in its place."""
MEMORY_NETS = tuple(name for name, entry in PROPAGATORS.items() if entry.takes_place)
"""Families of propagators: `<family>:<folder or hub id>`."""
PLAIN_PROPAGATORS = tuple(name for name in PROPAGATORS if name not in MEMORY_NETS)
"""Propagators that are named by one word."""


def propagator_place(name: str) -> tuple[str, str]:
    """The propagator's name in the catalogue, and after it the folder or hub id, if it takes one."""
    family, colon, place = name.partition(":")
    return (family, place) if colon and family in MEMORY_NETS else (name, "")


def propagator_entry(name: str) -> PropagatorEntry | None:
    """What is known of a propagator by the name that a user gives; None: nothing."""
    return PROPAGATORS.get(propagator_place(name)[0])


def propagator_edition(name: str, *, checks_itself: bool, adapts: bool) -> str:
    """The name as fingerprints have it: with the edition, from the second on."""
    entry = propagator_entry(name)
    if entry is None:
        return name
    edition = entry.edition + entry.check_edition * checks_itself + entry.adapt_edition * adapts
    return _of_edition(name, edition)


def scheduler_edition(name: str) -> str:
    """As `propagator_edition`."""
    return _of_edition(name, SCHEDULERS[name].edition if name in SCHEDULERS else 1)


def _of_edition(name: str, edition: int) -> str:
    return name if edition == 1 else f"{name}, edition {edition}"


def plugin_module(name: str) -> str:
    """The module of a `package.module:Class`; empty for a name of the package."""
    module, colon, _ = name.partition(":")
    return module if colon and module not in MEMORY_NETS else ""


LEARNED = tuple(name for name, entry in PROPAGATORS.items() if entry.learner)
"""What ``train-propagation`` trains."""
BESIDE = tuple(name for name, entry in PROPAGATORS.items() if entry.light)
"""What runs a light net on every frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEntry:
    """What is known of a flow estimator without importing it."""

    net: str = ""
    """Of a learned one, where its net is: ``package.module:Class``."""
    scaled: bool = False
    """It can have a scale field (DFF section 3)."""
    of_stream: bool = False
    """It is read from the stream of a video: it knows each frame and its last key, not any two pictures."""


MOTION_VECTORS = "motion_vectors"
FLOWS: Mapping[str, FlowEntry] = {
    "dis": FlowEntry(),
    MOTION_VECTORS: FlowEntry(of_stream=True),
    "tiny-flow": FlowEntry(net="vidseg_core.models.flow.tiny:TinyFlow", scaled=True),
    "flownet_s": FlowEntry(net="vidseg_core.models.flow.flownet:FlowNetS", scaled=True),
    "flownet2_s": FlowEntry(net="vidseg_core.models.flow.flownet:flownet2_s", scaled=True),
    "spynet": FlowEntry(net="vidseg_core.models.flow.spynet:SpyNet"),
    "raft": FlowEntry(net="vidseg_core.models.flow.raft:Raft"),
}
NET_FLOWS = tuple(name for name, entry in FLOWS.items() if entry.net)
"""Learned flows."""
SCALED_FLOWS = tuple(name for name, entry in FLOWS.items() if entry.scaled)


def is_of_stream(flow: str) -> bool:
    """Whether a flow is read from the streams of videos."""
    return flow in FLOWS and FLOWS[flow].of_stream


def usual_threshold(name: str) -> float:
    """The threshold of this scheduler where the user gives none."""
    threshold = SCHEDULERS[name].threshold
    if threshold is None:
        raise ValueError(f"{name!r} has no usual threshold")
    return threshold


def no_interval(name: str) -> str:
    """Why the scheduler called `name` has no use for an interval; empty if it may have one."""
    entry = SCHEDULERS.get(name)
    if entry is None or entry.takes_interval:
        return ""
    instead = "the threshold decides how many keys there are" if entry.scores else "every frame is key"
    return f"goes with {listed('takes_interval')}; with {name!r} {instead}"


def listed(condition: str) -> str:
    """The names of the schedulers for which this property is true, as help and messages list them."""
    return ", ".join(name for name, entry in SCHEDULERS.items() if getattr(entry, condition))


def scheduler_words() -> dict[str, str]:
    """What the help of scheduler options puts into its texts."""
    names = (f"{name} (looks ahead)" if entry.looks_ahead else name for name, entry in SCHEDULERS.items())
    trained = (f"{name} ({entry.trained_by})" for name, entry in SCHEDULERS.items() if entry.trained_by)
    files = (f"{name} reads {file}" for file, name in FILES.items())
    return {"schedulers": ", ".join(names), "trained_by": ", ".join(trained), "files": ", ".join(files)}


def propagator_words() -> dict[str, str]:
    """What the help of propagation options puts into its texts."""
    trained = (name for name, entry in PROPAGATORS.items() if entry.trained_by)
    names = [*PLAIN_PROPAGATORS, *(f"{family}:FOLDER-OR-HUB-ID" for family in MEMORY_NETS)]
    return {"propagators": ", ".join(names), "trained": ", ".join(trained)}
