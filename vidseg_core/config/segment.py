"""Configuration of ``vidseg segment``: one tree of frozen dataclasses, the same for CLI and YAML.

A field's dotted path is its option name (``scheduler.interval`` is ``--scheduler.interval`` and, in a file,
``scheduler: {interval: ...}``). Invariant: an instance that exists is valid on its own terms; what needs the
outside world (does the file exist, is there a GPU) is checked by the package that uses it. The first line of
the text under a field is its ``--help``, with unit and range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from vidseg_core.config.catalogue import (
    SCHEDULERS,
    TRIED_PROPAGATORS,
    is_of_stream,
    propagator_edition,
    propagator_entry,
    propagator_place,
    scheduler_edition,
)
from vidseg_core.config.dial import CalibrationConfig, check_dial
from vidseg_core.config.errors import check, check_choice, check_int, check_name, check_positive
from vidseg_core.config.media import MaskConfig, MediaConfig
from vidseg_core.config.nets import CHOICE_OF_NETS, NAMED_NETS, NET_FAMILIES
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.scheduler import SchedulerConfig
from vidseg_core.config.schema import flat_dict, redact, to_yaml
from vidseg_core.config.sizes import parse_working_size
from vidseg_core.config.tta import TtaConfig

__all__ = [
    "MaskConfig",
    "MediaConfig",
    "PropagationConfig",
    "RegionsConfig",
    "SchedulerConfig",
    "SegmentConfig",
    "TtaConfig",
]


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Segment videos: masks for every frame, the net on key frames only.

    --input, --output and --segmenter suffice. The same command again continues a run that was stopped.
    """

    input: tuple[str, ...]
    """files, folders (of videos or numbered frames), globs, addresses (s3://, https://, ...), or lists
    (.csv, .parquet) with a column uri; repeatable (docs/inputs.md)"""
    output: str
    """folder or s3://bucket/prefix of the run"""

    segmenter: str
    """tiny-face, tiny-scenes, plain, constant, voc, voc-small, street, ade20k, tiny:WIDTH, smp:ARCH/ENC,
    hf:FOLDER, torchvision:NAME, fastseg:N, net:NAME, onnx:FILE, sharing:N/NET, truncated:N/NET, module:Class
    (docs/models.md)"""
    weights: str | None = None
    """file with the segmenter's weights; None: its own"""
    num_classes: int | None = None
    """number of classes, 1 to 256; None: what the segmenter says"""
    working_size: str = "512"
    """size the net sees: longest side in pixels (aspect kept, never enlarged), or HxW exactly"""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """numbers of the net; bf16 is for GPUs (slow on most CPUs)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the net runs; auto: cuda where the cluster has GPUs"""
    key_batch: int = 1
    """largest batch of key frames for the net (may change its last bits); at least 1"""
    threads: int = 1
    """CPU threads of the net per worker (may change its last bits); at least 1"""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    tta: TtaConfig = field(default_factory=TtaConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    media: MediaConfig = field(default_factory=MediaConfig)

    budget: float | None = None
    """at most this share of key frames (0.04: one in 25); scheduler and threshold are chosen on a sample"""
    max_drop: float | None = None
    """fidelity points that a clip may lose against the net on every frame; chosen likewise"""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    segment_frames: int = 9000
    """frames after which a long video is cut (at a container key frame); 0: never"""
    shard_frames: int = 128
    """most frames that travel together and become one part file (fewer where frames are large); 1 to 4096"""
    seed: int = 0
    """seed of the random scheduler, and of the weights of a net that has none"""

    executor: Literal["auto", "local", "ray"] = "auto"
    """local: without Ray, for small runs; ray: a cluster, or one of its own; auto: by what there is to do"""
    workers: int = 0
    """engine workers; 0: what the machine or cluster has room for"""
    decoders: int = 0
    """decode tasks at a time; 0: what the machine or cluster has room for"""
    lanes: int = 1
    """segments that one worker advances together (batches on a GPU); 1 to 256"""
    gpus_per_worker: float | None = None
    """GPU share of a worker, above 0 up to 1; None: 1 on cuda, 0 on cpu"""
    flow_threads: int = 0
    """pairs of frames that 'dis' works on side by side; 0: 1 on cpu, on cuda up to 4 as the host has cores"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory for frames under way (a local Ray, or a run without), MB; at least 128; None: 2000"""
    state_mb: int = 256
    """what a propagator that looks at frames may keep of one segment, MB; at least 1"""

    dry_run: bool = False
    """plan and estimate, run nothing"""
    preview: bool = False
    """in the end also an overlay video and a sheet of frames with their masks, of the first videos"""
    retry_quarantined: bool = False
    """try videos again that this run has quarantined before"""
    repair: bool = False
    """read all that is committed, and make again what of it is damaged or missing"""
    limit: int | None = None
    """only the first so many videos; at least 1"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    FIRST: ClassVar[str] = "input"
    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "input": "what and where to",
        "segmenter": "the net that runs on key frames",
        "budget": "the dial: scheduler and threshold chosen by what they must keep",
        "segment_frames": "cutting",
        "executor": "resources (results do not depend on them)",
        "dry_run": "this run",
    }
    CHOICES: ClassVar[Mapping[str, str]] = {"segmenter": CHOICE_OF_NETS}

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", _strings("--input", self.input))
        self._check_places()
        self._check_net()
        self._check_cutting()
        self._check_regions()
        self._check_resources()
        check_dial(self.budget, self.max_drop, self.scheduler.threshold, self.scheduler.interval)

    def _check_places(self) -> None:
        check(bool(self.input), "--input", "needs at least one file, folder, glob, prefix or list")
        check(bool(self.output.strip()), "--output", "must name a folder or s3://bucket/prefix")
        others = (
            ("--output", self.output),
            ("--weights", self.weights),
            ("--propagation.flow_weights", self.propagation.flow_weights),
            ("--propagation.weights", self.propagation.weights),
            ("--scheduler.policy", self.scheduler.policy),
            ("--ray_address", self.ray_address),
        )
        for option, value in (*others, *(("--input", text) for text in self.input)):
            if value is None:
                continue
            check("\0" not in value, option, "has a NUL byte in it")
            problem = (
                f"holds credentials ({redact(value)}); they belong in the environment, not in an address"
            )
            check(redact(value) == value, option, problem)

    def _check_net(self) -> None:
        check_name("--segmenter", self.segmenter, NAMED_NETS, NET_FAMILIES)
        if self.num_classes is not None:
            check_int("--num_classes", self.num_classes, 1, 256)
        parse_working_size(self.working_size)
        check_choice("--dtype", self.dtype, ("fp32", "bf16"))
        check_choice("--device", self.device, ("auto", "cpu", "cuda"))
        check_int("--key_batch", self.key_batch, 1, unit="frame(s)")
        check_int("--threads", self.threads, 1)

    def _check_cutting(self) -> None:
        check_int("--segment_frames", self.segment_frames, 0, unit="frames")
        check_int("--shard_frames", self.shard_frames, 1, 4096, "frames")
        check_int("--seed", self.seed, 0, 2**63 - 1)

    def _check_regions(self) -> None:
        """What does not go with regions, and grids that no video can have."""
        tried = self.calibration.grids
        problem = f"the dial keeps to --regions.grid {self.regions.grid}; leave one of the two out"
        check(not (self.regions.on and tried), "--calibration.grids", problem)
        check(not tried or self.has_dial, "--calibration.grids", "goes with --budget or --max_drop")
        context = self.regions.context
        problem = f"{context} does not go with --budget or --max_drop, which weigh crops by themselves"
        check(context == "none" or not self.has_dial, "--regions.context", problem)
        if not tried:
            self.regions.check_used()
        spec = parse_working_size(self.working_size)
        size = (spec, spec) if isinstance(spec, int) else spec
        for regions in self.regions_tried:
            option = "--calibration.grids" if tried else "--regions.grid"
            problem = regions.problem(size)
            wide = problem and not problem.startswith(regions.grid)
            check(not problem, "--regions.overlap" if wide else option, problem)
            flow = self.propagation.flow
            problem = f"{regions.grid} does not go with --propagation.flow {flow}"
            check(not is_of_stream(flow), option, problem)

    @property
    def regions_tried(self) -> tuple[RegionsConfig, ...]:
        """The regions of the run, and those that the dial tries beside whole frames."""
        tried = (replace(self.regions, grid=grid) for grid in self.calibration.grids)
        return tuple(regions for regions in (self.regions, *tried) if regions.on)

    def _check_resources(self) -> None:
        check_choice("--executor", self.executor, ("auto", "local", "ray"))
        check_int("--workers", self.workers, 0)
        check_int("--decoders", self.decoders, 0)
        check_int("--lanes", self.lanes, 1, 256, "segment(s)")
        check_int("--flow_threads", self.flow_threads, 0, 256)
        if self.gpus_per_worker is not None:
            check_positive("--gpus_per_worker", self.gpus_per_worker)
            problem = f"must be at most 1: a worker uses one GPU, got {self.gpus_per_worker:g}"
            check(self.gpus_per_worker <= 1, "--gpus_per_worker", problem)
            check(self.device != "cpu", "--gpus_per_worker", "makes no sense with --device cpu")
        if self.executor == "local":
            check(self.ray_address is None, "--executor", "local does not go with --ray_address")
            for option in ("workers", "decoders"):
                problem = f"local has one of them, so it does not go with --{option} {getattr(self, option)}"
                check(getattr(self, option) <= 1, "--executor", problem)
        if self.object_store_mb is not None:
            check_int("--object_store_mb", self.object_store_mb, 128, unit="MB")
        check_int("--state_mb", self.state_mb, 1, unit="MB")
        if self.limit is not None:
            check_int("--limit", self.limit, 1, unit="video(s)")
        check_choice("--log", self.log, ("text", "json"))

    @property
    def has_dial(self) -> bool:
        """Whether scheduler and threshold are to be chosen on a sample (--budget, --max_drop)."""
        return self.budget is not None or self.max_drop is not None

    @property
    def working_size_spec(self) -> int | str:
        """`working_size` as `vidseg_core.media.working_size` takes it: an int (longest side) or ``"HxW"``."""
        size = parse_working_size(self.working_size)
        return size if isinstance(size, int) else f"{size[0]}x{size[1]}"

    def fingerprint_fields(self) -> dict[str, Any]:
        """What changes a run's rows or the names of its parts, by dotted option name, sorted.

        Places (`input`, `output`, `weights`, `flow_weights`) are not here: the pipeline adds identities of
        the inputs and the digest of the weights, which stay true when a file moves. Nor is what only changes
        the speed;
        `key_batch` and `threads` are, since a convolution's last bits may depend on them.
        """
        fields = {name: value for name, value in sorted(flat_dict(self).items()) if name in _FINGERPRINT}
        fields["scheduler.name"] = scheduler_edition(self.scheduler.name)
        name, _ = propagator_place(self.propagation.name)
        checks_itself = self.propagation.checks_itself
        fields["propagation.name"] = propagator_edition(
            name, checks_itself=checks_itself, adapts=bool(self.propagation.adapt_steps)
        )
        if self.propagation.latency == "full":  # as before there was another
            del fields["propagation.latency"], fields["propagation.delay"]
        if not checks_itself:
            del fields["propagation.self_check"], fields["propagation.adapt_steps"]
        if self.propagation.clock == 1:
            del fields["propagation.clock"]
        if not self.regions.on:  # as before there were others
            del fields["regions.grid"], fields["regions.overlap"]
        for option, off in (("align", 1), ("context", "none")):
            if not self.regions.on or getattr(self.regions, option) == off:
                del fields[f"regions.{option}"]
        return fields

    def without_dial(self, **chosen: Any) -> SegmentConfig:
        """The run as it is once what a dial would choose is known: `chosen`, or what stands there."""
        regions: RegionsConfig = chosen.pop("regions", self.regions)
        own = replace(self.calibration, grids=())
        return replace(self, **chosen, regions=regions.used, calibration=own, budget=None, max_drop=None)

    def as_typed(self, given: Collection[str]) -> SegmentConfig:
        """What holds once it is known which options the user gave (dotted names): a propagator that was named
        is not the dial's to choose. `ConfigError` for an option of regions where there are none."""
        if not self.calibration.grids:
            self.regions.check_used(given)
        named = self.has_dial and "propagation.name" in given and not self.calibration.propagators
        if not named or self.propagation.name not in TRIED_PROPAGATORS:
            return self
        own = replace(self.calibration, propagators=(self.propagation.name,))
        return replace(self, calibration=own)

    def describe(self) -> str:
        """The run in one line for people: net, scheduler, propagation, size, cutting."""
        scheduler, propagation = self.scheduler, self.propagation
        entry = SCHEDULERS.get(scheduler.name)
        detail = f"interval {scheduler.interval}, " if entry and entry.takes_interval else ""
        if scheduler.threshold is not None:
            detail += f"threshold {scheduler.threshold:g}, "
        carrier = propagator_entry(propagation.name)
        flow = (
            f" over {propagation.flow} flow at {propagation.flow_size} px"
            if carrier is None or carrier.moves
            else ""
        )
        if propagation.latency == "low":
            flow += f", low latency (delay {propagation.delay})"
        if propagation.clock > 1:
            flow += f" with clock {propagation.clock}"
        if self.regions.on:
            flow += f"; {self.regions.words()}"
        tta = f" (TTA{self.tta.words})" if self.tta.on else ""
        cut = f"segments of {self.segment_frames} frames" if self.segment_frames else "one segment per video"
        excerpt = "" if self.media.excerpt.is_whole else f"; of each video {self.media.excerpt.words()}"
        return (
            f"{self.segmenter} at {self.working_size} px{tta}; "
            f"scheduler {scheduler.name} ({detail}at most {scheduler.max_interval} frames between keys); "
            f"{propagation.name} of {propagation.level}, {propagation.sides}-sided{flow}; {cut}{excerpt}"
        )

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file; reading it back gives an equal instance. No secrets."""
        return to_yaml(self)


_FINGERPRINT = frozenset(
    {
        "segmenter",
        "num_classes",
        "key_batch",
        "threads",
        "working_size",
        "dtype",
        "scheduler.name",
        "scheduler.interval",
        "scheduler.threshold",
        "scheduler.max_interval",
        "propagation.name",
        "propagation.level",
        "propagation.sides",
        "propagation.flow",
        "propagation.flow_size",
        "propagation.latency",
        "propagation.delay",
        "propagation.self_check",
        "propagation.adapt_steps",
        "propagation.clock",
        "regions.grid",
        "regions.overlap",
        "regions.align",
        "regions.context",
        "tta.scales",
        "tta.flip",
        "masks.size",
        "media.stream",
        "media.fps",
        "media.start_s",
        "media.end_s",
        "media.hdr",
        "segment_frames",
        "shard_frames",
        "seed",
    }
)


def _strings(option: str, value: object) -> tuple[str, ...]:
    """`value` (a list or tuple of non-empty strings) as a tuple."""
    fine = isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value)
    check(fine, option, f"must be a list of non-empty texts, got {value!r}")
    return tuple(value)  # type: ignore[arg-type]
