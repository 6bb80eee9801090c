"""What training a segmentation net does, as data: the part of the configuration that decides the weights.

Invariant: equal recipe, data and seed give equal final weights on one kind of machine, whatever is killed on
the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AugmentRecipe", "TrainRecipe"]


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
    """Optimisation: cross-entropy with ignored pixels, poly schedule (DVRL 4.2, DVSNet 4.1)."""

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
