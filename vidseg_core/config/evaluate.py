"""Configuration of ``vidseg evaluate``: which methods, on which labelled clips, measured how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vidseg_core.config.build_episodes import LABELS
from vidseg_core.config.errors import check, check_choice, check_int, check_name
from vidseg_core.config.methods import MethodConfig, parse_methods
from vidseg_core.config.nets import NAMED_NETS, NET_FAMILIES
from vidseg_core.config.run_options import check_run_options
from vidseg_core.config.schema import flat_dict, redact, to_yaml
from vidseg_core.config.segment import PropagationConfig, TtaConfig

__all__ = ["PROTOCOLS", "EvaluateConfig"]

PROTOCOLS = ("whole-clip", "snippet")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Run schedulers and propagators over labelled clips, and measure what they come to.

    --data, --output and --methods suffice. The same command again continues; methods may be added.
    """

    data: tuple[str, ...]
    """data sets, NAME:PATH?options, e.g. face:/data/faces; repeatable, equal classes"""
    output: str
    """folder or s3://bucket/prefix of the results"""
    methods: tuple[str, ...] = ("every", "fixed:interval=6,12,25,50")
    """SCHEDULER:OPTION=VALUE,VALUE,...; several values are several methods; see docs/evaluation.md"""
    split: str = "all"
    """split of --data to take"""
    protocol: Literal["whole-clip", "snippet"] = "whole-clip"
    """whole-clip: every labelled frame counts; snippet: the last frame of each snippet, its first is key"""
    snippet_frames: int = 20
    """snippet: frames from the first key to the frame that is measured; 2 to 10000"""

    segmenter: str = LABELS
    """labels (they stand in for the net: propagation alone), or a net as for vidseg segment"""
    weights: str | None = None
    """file with the segmenter's weights; None: its own"""
    num_classes: int | None = None
    """number of classes, 1 to 255; None: what the segmenter says"""
    working_size: str = "512"
    """longest side in pixels (aspect kept, never enlarged), or HxW exactly"""
    key_net_ms: float = 0.0
    """labels as the net: what one call of the real net takes, milliseconds; 0: unknown: no fps, no cost"""
    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    tta: TtaConfig = field(default_factory=TtaConfig)
    tables: str | None = None
    """method oracle: tables of the same clips that build-episodes made with --segment_frames 0"""

    tc: bool = True
    """temporal consistency, both directions (two flows and two warps a frame); --no-tc: none"""
    tc_occlusion: Literal["no", "yes", "both"] = "both"
    """no: every pixel counts (tc; ETC Eq. 5); yes: occluded ones do not (tc_visible); both: two columns"""
    tsb: bool = False
    """temporal stability of contours, too (ETC Table IV): up to tenths of a second for a class and frame"""
    clip_frames: int = 0
    """only the first so many frames of each clip; 0: all"""
    fps: float = 25.0
    """frames per second of the footage, for cost per hour of video"""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the net runs; auto: cuda where the cluster has GPUs"""
    threads: int = 1
    """CPU threads of the nets per task (may change the last bits); at least 1"""
    workers: int = 0
    """tasks at a time; 0: what the machine or cluster has room for"""
    seed: int = 0
    """seed of random schedules, and of the weights of a net that has none"""
    ray_address: str | None = None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one"""
    object_store_mb: int | None = None
    """memory of a local Ray, MB; at least 128; None: 2000"""

    dry_run: bool = False
    """list clips and methods, measure on a sample, estimate the time; write nothing"""
    limit: int | None = None
    """only the first so many clips; at least 1"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "data": "what, where to, which methods",
        "segmenter": "the net",
        "tc": "measures",
        "device": "resources",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        for name in ("data", "methods"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_places()
        self._check_net()
        check_choice("--tc_occlusion", self.tc_occlusion, ("no", "yes", "both"))
        check(self.protocol in PROTOCOLS, "--protocol", f"must be one of {', '.join(PROTOCOLS)}")
        check_int("--snippet_frames", self.snippet_frames, 2, 10_000, "frames")
        check_int("--clip_frames", self.clip_frames, 0, unit="frames")
        check(self.key_net_ms >= 0, "--key_net_ms", "must be at least 0 milliseconds")
        check(0 < self.fps < 10_000, "--fps", "must be above 0 frames per second")
        check_run_options(self, "clip(s)")
        self._check_methods()

    def _check_places(self) -> None:
        check(bool(self.data), "--data", "needs a data set, e.g. face:/data/faces")
        check(bool(self.output.strip()), "--output", "must name a folder or s3://bucket/prefix")
        for option, texts in (("--data", self.data), ("--output", (self.output,))):
            for text in texts:
                check(bool(text.strip()), option, "must not be empty")
                problem = f"holds credentials ({redact(text)}); they belong in the environment"
                check(redact(text) == text, option, problem)

    def _check_net(self) -> None:
        check_name("--segmenter", self.segmenter, (LABELS, *NAMED_NETS), NET_FAMILIES)
        if self.num_classes is not None:
            check_int("--num_classes", self.num_classes, 1, 255)
        problem = "averages a net's answers; labels have one: name a --segmenter"
        check(self.segmenter != LABELS or not self.tta.on, "--tta", problem)
        if self.segmenter != LABELS:
            check(self.key_net_ms == 0, "--key_net_ms", f"{self.segmenter!r} is timed; this is for labels")

    def _check_methods(self) -> None:
        found = self.parsed_methods()
        check(bool(found), "--methods", "needs at least one, e.g. fixed:interval=12")
        for method in found:
            if self.segmenter == LABELS:
                problem = f"{method.name}: labels have no {method.propagation.level}: name a --segmenter"
                check(method.propagation.level == "labels", "--methods", problem)
                problem = f"{method.name}: labels have no surroundings: name a --segmenter"
                check(method.regions.context == "none", "--methods", problem)
            if method.is_oracle:
                problem = "oracle needs --tables, a set of build-episodes over the same clips"
                check(self.tables is not None, "--methods", problem)

    @property
    def knows_cost(self) -> bool:
        """Whether a call of the net has a cost: it was made, or its time is given."""
        return self.segmenter != LABELS or self.key_net_ms > 0

    def parsed_methods(self) -> tuple[MethodConfig, ...]:
        """The methods, each with one value for every option; ``ConfigError`` names what is wrong."""
        return parse_methods(self.methods, self.propagation)

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides a result besides its method, by dotted option name; nets count by their digest."""
        fields = flat_dict(self)
        return {name: fields[name] for name in sorted(fields) if name in _FINGERPRINT}

    def describe(self) -> str:
        """The evaluation in one line for people."""
        how = f"snippets of {self.snippet_frames} frames" if self.protocol == "snippet" else "whole clips"
        return f"{self.segmenter} at {self.working_size} px; {how} of {', '.join(self.data)}"

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)


_FINGERPRINT = frozenset(
    {
        "data",
        "split",
        "protocol",
        "snippet_frames",
        "segmenter",
        "num_classes",
        "working_size",
        "key_net_ms",
        "tc",
        "tc_occlusion",
        "tsb",
        "clip_frames",
        "fps",
        "threads",
        "seed",
    }
)
