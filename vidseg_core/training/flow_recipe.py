"""What training a flow net does, as data: the part of the configuration that decides the weights."""

from __future__ import annotations

from dataclasses import dataclass

from vidseg_core.training.recipe import TrainRecipe


@dataclass(frozen=True, kw_only=True)
class FlowRecipe:
    """The pairs of a step, the weights of the losses, and the optimiser."""

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
        """The optimiser's part, as all training rooms take it."""
        return TrainRecipe(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            poly=self.poly,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            ema=self.ema,
        )
