"""What training does, as data: the part of a configuration that decides the weights.

Invariant: equal recipe, data and seed give equal final weights on one kind of machine, whatever is killed on
the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.sizes import parse_working_size

__all__ = [
    "AugmentRecipe",
    "DistilRecipe",
    "EpisodeRecipe",
    "FlowRecipe",
    "LearnedRegionsRecipe",
    "PropagationRecipe",
    "ReinforceRecipe",
    "SharingRecipe",
    "TemporalRecipe",
    "TrainRecipe",
]


@dataclass(frozen=True, kw_only=True)
class AugmentRecipe:
    """How a training sample is varied. Everything off gives plain resized crops."""

    crop: int = 192
    """side of the square crop that the net sees, pixels; 32 to 2048"""
    scale_min: float = 0.5
    """smallest random scale of the frame before cropping"""
    scale_max: float = 2.0
    """largest random scale"""
    flip: bool = True
    """mirror half of the samples left to right"""
    rotate: float = 0.0
    """largest rotation to either side, degrees"""
    colour: float = 0.0
    """strength of brightness, contrast, saturation and hue changes; 0 to 1"""
    blur: float = 0.0
    """share of samples that are blurred, lose resolution, or show strong compression or noise; 0 to 1"""
    stretch: float = 0.0
    """largest change of the aspect ratio, as a share; 0 to 1"""
    focus: float = 0.0
    """share of crops taken around a pixel of a class drawn at random, which favours rare classes; 0 to 1"""
    behind: float = 0.0
    """share of samples with another frame around one that is smaller than the crop; 0 to 1"""


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Optimisation: cross-entropy with ignored pixels, poly schedule (ETC IV-A)."""

    steps: int = 2000
    """optimiser steps"""
    batch: int = 8
    """samples per step, over all workers"""
    optimiser: Literal["sgd", "adamw"] = "adamw"
    """sgd (momentum 0.9) or adamw"""
    lr: float = 3e-3
    """learning rate at the start of the poly schedule"""
    poly: float = 0.9
    """power of the poly schedule: lr x (1 - step / steps) ** power"""
    warmup: int = 50
    """steps of linear warm-up"""
    weight_decay: float = 1e-4
    """weight decay"""
    class_balance: float = 0.0
    """0: plain cross-entropy; 1: classes weighted by the inverse of their frequency; between: a power"""
    dice: float = 0.0
    """weight of a soft Dice loss beside cross-entropy; 0: none"""
    ema: float = 0.0
    """decay of an exponential moving average of the weights, which is what is saved; 0: none"""


@dataclass(frozen=True, kw_only=True)
class TemporalRecipe:
    """A frame is learned with one before and one after it, so that masks do not flicker (ETC III)."""

    gap: int = 0
    """largest gap to a neighbour, drawn from 1 to this, frames; 0: frames are learned one by one"""
    weight: float = 0.1
    """weight: temporal loss, neighbours agree along the flow (ETC Eq. 3)"""
    labels: float = 1.0
    """weight: neighbours' labels, where they have some, by the frame's own loss"""
    sharpness: float = 1.0
    """how fast a pixel that looks another counts less (V = exp(-sharpness x difference)); 0: all count"""
    flow: str = "dis"
    """frozen F: dis, tiny-flow, flownet_s, flownet2_s, spynet, raft or package.module:Class"""
    flow_weights: str | None = None
    """file with F's weights; None: its own (tiny-flow's)"""


@dataclass(frozen=True, kw_only=True)
class DistilRecipe:
    """What a student learns from its teacher on the frames of a step (ETC III-B)."""

    single: float = 0.1
    """weight: the teacher's classes at each pixel of the frame (SF)"""
    pair: float = 0.1
    """weight: how alike places of two neighbouring frames are (PF, Eq. 2); wants neighbours"""
    multi: float = 0.1
    """weight: how features of the frames hang together, through a ConvLSTM (MF); wants neighbours"""
    pair_cells: int = 24
    """pair: side of the grid of places; 2 to 128"""
    multi_cells: int = 12
    """multi: side of the grid of places; 2 to 64"""


@dataclass(frozen=True, kw_only=True)
class LearnedRegionsRecipe:
    """A trained net learns to say in regions of a frame what it says of the whole one (DVSNet 3.3)."""

    grid: str = "1x1"
    """grid that segment will cut frames by (its --regions.grid), e.g. 2x2; 1x1: frames are learned whole"""
    overlap: int = 16
    """--regions.overlap of segment, pixels of the working size"""
    align: int = 1
    """--regions.align of segment, pixels"""
    working_size: str = "512"
    """size of frames before they are cut, as --working_size of segment: longest side, or HEIGHTxWIDTH"""
    whole: float = 0.25
    """share of samples that the net sees whole, so that it stays what it was there; 0 to 1"""
    labels: bool = False
    """labels count, too, where frames have some; false: the teacher alone teaches, labels are not needed"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", self.cut.grid)

    @property
    def cut(self) -> RegionsConfig:
        """The regions, as `segment` has them."""
        return RegionsConfig(grid=self.grid, overlap=self.overlap, align=self.align)

    @property
    def on(self) -> bool:
        """Is a frame more than one region?"""
        return self.cut.on

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the largest frames that there may be of the working size."""
        spec = parse_working_size(self.working_size, "--regions.working_size")
        return (spec, spec) if isinstance(spec, int) else spec


# --- flow -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FlowRecipe:
    """How a flow net learns: the pairs of a step, the weights of the losses, and the optimiser."""

    height: int = 96
    """rows of a crop, pixels"""
    width: int = 128
    """columns of a crop, pixels"""
    max_gap: int = 30
    """largest distance to the key, frames"""
    exact_share: float = 0.5
    """share of made pairs with exact flow"""
    task: float = 1.0
    """weight: warped labels or scores"""
    photo: float = 3.0
    """weight: warped pictures"""
    smooth: float = 0.05
    """weight: roughness, beside photo"""
    warm_share: float = 0.2
    """share of steps until full task and photo"""

    steps: int = 2600
    """optimiser steps"""
    batch: int = 8
    """pairs per step"""
    lr: float = 1e-3
    """learning rate of AdamW at the start"""
    poly: float = 0.9
    """power of the poly schedule"""
    warmup: int = 100
    """steps of linear warm-up"""
    weight_decay: float = 1e-4
    """weight decay"""
    ema: float = 0.998
    """decay of the average that is saved; 0: none"""

    @property
    def train(self) -> TrainRecipe:
        """The optimiser's part, as every loop takes it."""
        return TrainRecipe(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            poly=self.poly,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            ema=self.ema,
        )


@dataclass(frozen=True, kw_only=True)
class PropagationRecipe:
    """What a step of what fills gaps learns from."""

    height: int = 128
    """rows of a crop, pixels; best a multiple of the net's largest stride"""
    width: int = 192
    """columns of a crop, pixels"""
    max_gap: int = 25
    """longest interval from key to key, frames"""
    lessons: int = 300
    """match: gaps of clips that it learns from, drawn before the first step"""
    twice: float = 0.4
    """lvs: share of samples whose key shows what was carried to it, as with low latency; 0 to 1"""
    crossed: bool = False
    """accel: the fusion learns from what two more light nets say of clips that they have not seen"""
    scores: float = 10.0
    """weight: scores like the net's own on the frame (Kullback-Leibler divergence)"""
    features: float = 1.0
    """weight: features like the net's own on the frame"""
    labels: float = 0.0
    """weight: the frame's labels, where the data have the net's classes"""
    deviation: float = 0.1
    """weight: the expected deviation"""
    pixels: float = 2.0
    """match, weight: cross-entropy"""
    overlap: float = 1.0
    """match, weight: one less the soft IoU"""
    read: float = 0.3
    """match, weight: labels read where the pictures look alike"""
    fused: float = 1.0
    """accel, weight: fused scores give the mask that the net makes of the frame"""
    light: float = 5.0
    """accel, grfp; weight: scores of the light net alone like the net's own"""
    frames: int = 5
    """grfp: consecutive frames of a sample, the key among them"""

    steps: int = 1500
    """optimiser steps"""
    batch: int = 6
    """pairs per step"""
    lr: float = 1e-3
    """learning rate of AdamW at the start"""
    poly: float = 0.9
    """power of the poly schedule"""
    warmup: int = 100
    """steps of linear warm-up"""
    weight_decay: float = 1e-4
    """weight decay"""
    ema: float = 0.99
    """decay of the average that is saved; 0: none"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "scores": "recipe: what the losses weigh",
        "steps": "recipe: the optimiser",
    }

    @property
    def train(self) -> TrainRecipe:
        """The optimiser's part, as every loop takes it."""
        return TrainRecipe(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            poly=self.poly,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            ema=self.ema,
        )


@dataclass(frozen=True, kw_only=True)
class SharingRecipe:
    """The loss of feature_sharing (FeatureSharing chapter 4)."""

    current: float = 1.0
    """weight: the labels of a frame with the key's levels, times alpha"""
    made_key: float = 1.0
    """weight: labels that the net makes of the key, times 1 - alpha"""
    own_key: float = 1.0
    """weight: the labels of the frame as its own key, times 1 - alpha"""
    levels: float = 0.01
    """weight: cached levels of frame and key alike (lambda)"""
    alpha: float = 0.0
    """how much the frame counts against its key; 0: 1 / (distance + 1)"""
    norm: Literal["l1", "l2"] = "l1"
    """of the difference of cached levels"""
    distance: int = 0
    """frames from the key to every frame; 0: drawn, 1 to recipe.max_gap"""


# --- policy: DVRL's numbers (section 4.2), and what the paper leaves to choose ---------------------------


@dataclass(frozen=True, kw_only=True)
class EpisodeRecipe:
    """What one episode is."""

    frames: int = 270
    """frames of an episode at most, the first key included; 30 for snippets; at least 2"""
    eta: float = 0.06
    """share of keys in the history above which an episode ends; above 0 to 1"""
    history: int = 90
    """decisions that the share of keys looks back on (policies for segment need 90)"""
    max_interval: int | None = None
    """a key is forced after so many frames; None: the horizon of the tables"""
    reward: Literal["gain", "shown"] = "gain"
    """gain: what a key improves (DVRL Eq. 1, 2); shown: the quality of every frame as it is shown"""
    sides: Literal["one", "two"] = "one"
    """two: frames between keys show the better side (with reward shown)"""
    interval: float | None = None
    """with reward shown, a key costs what it is worth when keys come evenly so many frames apart; None: keys
    are free (up to eta)"""


@dataclass(frozen=True, kw_only=True)
class ReinforceRecipe:
    """The policy gradient."""

    episodes: int = 2400
    """episodes to learn from"""
    batch: int = 8
    """episodes per step"""
    trials: int = 32
    """walks of each episode, K"""
    lr: float = 1e-3
    """learning rate of RMSProp"""
    gamma: float = 1.0
    """discount per frame, above 0 to 1"""
    epsilon: float = 0.98
    """no action is drawn with a larger probability; 0.5 to 1"""
    entropy: float = 0.14
    """weight of the entropy, lambda_1"""
    entropy_over: Literal["mean", "sum"] = "mean"
    """entropy of a decision on average, or summed over a walk like the rewards"""
    credit: Literal["return", "to_go"] = "return"
    """what a decision is credited with: the whole return, or the rewards from it on"""
    baseline: Literal["none", "mean", "leave_one_out"] = "none"
    """taken off the credit: nothing (as the paper), the mean over trials, or over the other trials"""
