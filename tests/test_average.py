"""Promise: several nets as one teacher say the mean of what each of them says.

Why: a mean of scores before softmax would let the loudest net decide.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.average import SPEC, save
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.trainable import trainable_net


def test_probabilities_are_the_mean_of_the_members(tmp_path: Path) -> None:
    names, frames = ("a", "b", "c"), torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    members = [trainable_net("tiny:8", class_names=names, seed=seed).eval() for seed in (0, 1)]
    save(tmp_path / "two.pt", "tiny:8", names, [member.net.state_dict() for member in members])
    together = build_segmenter(SPEC, weights=str(tmp_path / "two.pt"))
    with torch.no_grad():
        wanted = torch.stack([member(frames).softmax(1) for member in members]).mean(0)
        said = together.head(together.features(frames)).softmax(1)
    assert together.class_names == names
    assert torch.allclose(said, wanted, atol=1e-5)
