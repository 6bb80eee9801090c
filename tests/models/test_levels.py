"""Promise: a net with cached levels is the same net; with levels cut off it is the net without them; and no
weights are read for another split than theirs.

Why: whatever a decoder is handed it makes masks of. A level taken from the wrong frame, or weights trained to
share one level in a net that shares two, would show in no message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.levels import SPLIT
from vidseg_core.models.size import parameters_of
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of

NETS = ("tiny:8", "smp:FPN/resnet18", "smp:Unet/resnet18", "smp:FPN/densenet121")


def frames(height: int = 64, width: int = 96, seed: int = 7) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def built(spec: str, **options: Any) -> SplitSegmenter:
    segmenter = build_segmenter(spec, num_classes=3, **options)
    assert isinstance(segmenter, SplitSegmenter)
    return segmenter


def assert_alike(one: Any, other: Any) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def file_of(spec: str, path: Path, **facts: str) -> str:
    net = trainable_net(spec, num_classes=3)
    path.write_bytes(weights_bytes(weights_of(net), net.class_names, **facts))
    return str(path)


# --- cached levels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_a_key_is_what_the_whole_net_says(net: str) -> None:
    whole, sharing = built(net), built(f"sharing:2/{net}")
    for x in (frames(), frames(65, 33)):
        assert torch.equal(sharing.head(sharing.features(x)), whole.head(whole.features(x)))


@pytest.mark.parametrize("net", NETS)
def test_a_frame_that_is_its_own_key_is_itself(net: str) -> None:
    segmenter = built(f"sharing:1/{net}")
    for x in (frames(), frames(65, 33)):
        low, whole = segmenter.low(x), segmenter.features(x)
        assert_alike(segmenter.high(low), whole)
        assert_alike(segmenter.fuse(low, whole), whole)


@pytest.mark.parametrize("cached", [1, 2])
def test_fine_levels_are_the_frames_own_and_coarse_ones_the_keys(cached: int) -> None:
    segmenter = built(f"sharing:{cached}/tiny:8")
    now, key = (segmenter.features(frames(seed=seed)) for seed in (1, 2))
    fused = segmenter.fuse(segmenter.low(frames(seed=1)), key)
    assert_alike(fused, (*now[: 4 - cached], *key[4 - cached :]))


# --- levels cut off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["tiny:8", "smp:FPN/resnet18"])
def test_levels_that_are_cut_off_are_neither_run_nor_read(net: str) -> None:
    segmenter, x = built(f"truncated:2/{net}"), frames(65, 33)
    before = segmenter.head(segmenter.features(x))
    assert before.shape == (1, 3, 65, 33)
    with torch.no_grad():
        for name, weight in segmenter.net.named_parameters():
            if any(part in name for part in ("stage16", "stage32", "up16", "layer3", "layer4", "p5.")):
                weight.fill_(float("nan"))
    assert torch.equal(segmenter.head(segmenter.features(x)), before)


def test_one_level_less_is_another_net() -> None:
    x = frames()
    scores = [
        n.head(n.features(x)) for n in (built("tiny:8"), *(built(f"truncated:{k}/tiny:8") for k in (1, 2)))
    ]
    assert not torch.equal(scores[0], scores[1]) and not torch.equal(scores[1], scores[2])


# --- weights and specs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["sharing:1/tiny:8", "truncated:1/tiny:8"])
def test_weights_have_the_form_of_the_whole_nets(spec: str, tmp_path: Path) -> None:
    path = file_of(spec, tmp_path / "x.safetensors")
    segmenter, x = built(spec, weights=path), frames()
    assert torch.equal(segmenter.head(segmenter.features(x)), (net := built(spec)).head(net.features(x)))
    built("tiny:8", weights=path)


def test_weights_of_another_split_are_refused(tmp_path: Path) -> None:
    path = file_of("sharing:1/tiny:8", tmp_path / "x.safetensors", **{SPLIT: "1"})
    assert built("sharing:1/tiny:8", weights=path).note == ""
    with pytest.raises(SegmenterError, match=r"trained with 1 cached level\(s\), not 2"):
        built("sharing:2/tiny:8", weights=path)
    with pytest.raises(SegmenterError, match="trained to share levels"):
        built("truncated:1/tiny:8", weights=path)


def test_weights_that_never_learned_to_share_say_so() -> None:
    assert "train-propagation" in build_segmenter("sharing:1/tiny-scenes").note
    assert build_segmenter("truncated:1/tiny-scenes").trained


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sharing:3/tiny:8", "should read sharing:<levels>/<net>, levels from 1 to 2"),
        ("sharing:tiny:8", "should read"),
        ("truncated:1/", "should read truncated:<levels>/<net>"),
        ("sharing:1/plain", "'plain' has no levels"),
        ("truncated:1/smp:Unet/resnet18", "can be truncated if it is an FPN"),
        ("sharing:1/tiny-seens", "did you mean"),
    ],
)
def test_what_cannot_be_is_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(SegmenterError, match=message):
        build_segmenter(spec)


def test_parameters_of_levels_that_are_cut_off_do_not_count() -> None:
    """A truncated net was as large as the whole in every table, though it is there because it is smaller."""
    whole, cut = built("tiny:8"), built("truncated:1/tiny:8")
    names = ("stage32", "context", "up16.narrow")
    idle = [weight for name in names for weight in whole.net.get_submodule(name).parameters()]
    assert parameters_of(whole) == sum(weight.numel() for weight in whole.net.parameters())
    of_whole = parameters_of(whole)
    assert of_whole is not None
    assert parameters_of(cut) == of_whole - sum(weight.numel() for weight in idle)
    assert not any(weight.requires_grad for weight in (*whole.net.parameters(), *cut.net.parameters()))
