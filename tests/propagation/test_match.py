"""Promise: `match` improves on flow where it can see better, shows no class that no key shows, leaves tiny
classes to flow, knows no class by its number, and depends on its gap alone.

Why: a net that was trained on some footage will meet other classes, other counts of them and other sizes; it
must never be able to do more harm than a wrong choice between what the keys say.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy import ThresholdNet, inputs, moving_clip, plain, run
from tests.training.small import shaken
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.models.bundled import bundled_file
from vidseg_core.models.match import MatchNet, match_metadata, new_match
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation import FlowWarp
from vidseg_core.propagation.asked import TINY
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.gap import Gap, GapFrame, GapKey
from vidseg_core.propagation.match import Match, fill_gap
from vidseg_core.scheduling import build_scheduler


def saved(net: MatchNet, path: Path) -> str:
    path.write_bytes(weights_bytes(dict(net.state_dict()), (), **match_metadata(net.facts)))
    return str(path)


def strange(net: MatchNet) -> MatchNet:
    """Weights that say something else than flow, in most places."""
    shaken(net)
    with torch.no_grad():
        assert net.trust.bias is not None
        net.trust.bias.zero_()
        noise = torch.randn(net.delta.weight.shape, generator=torch.Generator().manual_seed(2))
        net.delta.weight.add_(20.0 * noise)
    return net


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(strange(new_match()), tmp_path_factory.mktemp("match") / "lively.safetensors")


def engine(propagator: Any, sides: Any = "two", **options: Any) -> Engine:
    scheduler = build_scheduler("fixed", interval=5)
    return Engine(ThresholdNet(), scheduler, propagator, sides=sides, max_interval=6, flow_size=48, **options)


def gap(left_HW: np.ndarray, right_HW: np.ndarray | None, frames: int = 1) -> Gap:
    """A gap of a still clip, whose keys say what they like."""
    picture_HW3 = moving_clip(1)[0]
    view = picture_HW3[..., 0].copy()

    def key(labels_HW: np.ndarray) -> GapKey:
        return GapKey(view=view, carried=labels_HW, rgb_HW3=picture_HW3)

    def link(distance: int) -> Link:
        return Link(
            current=view, key=view, distance=distance, flow_hw2=np.zeros((*view.shape, 2), np.float32)
        )

    between = [
        GapFrame(left=link(n + 1), right=None if right_HW is None else link(frames - n), rgb_HW3=picture_HW3)
        for n in range(frames)
    ]
    return Gap(left=key(left_HW), frames=between, right=None if right_HW is None else key(right_HW))


def halves(*classes: int) -> np.ndarray:
    """Stripes of classes."""
    return np.repeat(np.array(classes, np.uint8), 64 // len(classes))[None].repeat(48, 0)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_a_net_that_has_learned_nothing_says_what_flow_says(tmp_path: Path, sides: Any) -> None:
    frames = inputs(moving_clip(12))
    blank = Match(saved(new_match(), tmp_path / "blank.safetensors"))
    assert plain(run(engine(blank, sides), frames)) == plain(run(engine(FlowWarp(), sides), frames))


def test_other_nets_say_something_else(lively: str) -> None:
    frames = inputs(moving_clip(12))
    flow = plain(run(engine(FlowWarp()), frames))
    assert plain(run(engine(Match()), frames)) != flow != plain(run(engine(Match(lively)), frames))


def test_a_class_that_no_key_shows_is_never_shown(lively: str) -> None:
    net = Match(lively).net
    left_HW, right_HW = halves(3, 7), halves(7, 9)
    shown = np.unique(np.stack(list(fill_gap(net, gap(left_HW, right_HW, 3)))))
    assert set(shown.tolist()) <= {3, 7, 9}


def test_a_tiny_class_stays_where_flow_puts_it(lively: str) -> None:
    left_HW = halves(3, 7)
    left_HW[5:9, 5:9] = 20
    assert (left_HW == 20).sum() < TINY
    (shown_HW,) = fill_gap(Match(lively).net, gap(left_HW, None))
    assert np.array_equal(shown_HW == 20, left_HW == 20)


def test_masks_without_any_object_and_of_two_hundred_classes_are_filled(lively: str) -> None:
    net = Match(lively).net
    nothing_HW = np.zeros((48, 64), np.uint8)
    assert not next(fill_gap(net, gap(nothing_HW, nothing_HW))).any()
    many_HW = (np.arange(48 * 64) % 200).reshape(48, 64).astype(np.uint8)
    (shown_HW,) = fill_gap(net, gap(many_HW, many_HW))
    assert np.array_equal(shown_HW, many_HW)


def test_numbers_of_classes_mean_nothing(lively: str) -> None:
    net, renumbered = Match(lively).net, np.array([200, 3, 77, 12], np.uint8)
    left_HW, right_HW = halves(0, 1, 2, 3), halves(1, 0, 3, 2)
    here, there = (
        np.stack(list(fill_gap(net, gap(*maps, 2))))
        for maps in ((left_HW, right_HW), (renumbered[left_HW], renumbered[right_HW]))
    )
    assert (renumbered[here] == there).mean() > 0.999


def test_confidences_come_from_the_side_that_says_the_same(lively: str) -> None:
    left_HW, right_HW = halves(3, 7).astype(np.uint16) | 0x4000, halves(7, 3).astype(np.uint16) | 0x8000
    (shown_HW,) = fill_gap(Match(lively).net, gap(left_HW, right_HW))
    agrees_left, agrees_right = (shown_HW & 0xFF) == (left_HW & 0xFF), (shown_HW & 0xFF) == (right_HW & 0xFF)
    assert shown_HW.dtype == np.uint16 and (agrees_left | agrees_right).all()
    assert (shown_HW[agrees_left] >> 8 == 0x40).all() and (shown_HW[agrees_right] >> 8 == 0x80).all()


def test_frames_wait_with_their_colours_at_flow_size(lively: str) -> None:
    here, state = engine(Match(lively)), SegmentState.new(0, "s")
    for frame in inputs(moving_clip(3)):
        here.step([state], [frame])
    (first, second) = state.pending
    assert first.rgb_HW3 is not None and second.rgb_HW3 is not None and state.key is not None
    assert first.rgb_HW3.shape == second.rgb_HW3.shape == state.key.frame_HW3.shape == (36, 48, 3)


def test_the_frames_of_a_gap_are_filled_one_by_one(lively: str) -> None:
    net, whole = Match(lively).net, gap(halves(0, 1), halves(1, 0), 3)
    together = list(fill_gap(net, whole))
    for number, frame in enumerate(whole.frames):
        (alone_HW,) = fill_gap(net, Gap(left=whole.left, frames=[frame], right=whole.right))
        assert np.array_equal(alone_HW, together[number])


def test_the_card_of_the_package_s_net_has_its_digest() -> None:
    file = bundled_file("tiny-match")
    data = file.read_bytes()
    assert len(data) < 6_000_000
    assert hashlib.sha256(data).hexdigest() in file.with_suffix(".md").read_text(encoding="utf-8")


def test_another_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights_bytes({"a": torch.zeros(1)}, ()))
    with pytest.raises(SegmenterError, match="holds no weights of match; train-propagation writes them"):
        Match(str(other))
    net = new_match()
    state = dict(net.state_dict())
    del state["meet.0.weight"]
    other.write_bytes(weights_bytes(state, (), **match_metadata(net.facts)))
    with pytest.raises(SegmenterError, match="is damaged: .*meet.0.weight"):
        Match(str(other))
    with pytest.raises(SegmenterError, match="cannot be read"):
        Match(str(tmp_path / "nowhere.safetensors"))


def test_it_works_on_label_maps_alone() -> None:
    PropagationConfig(name="match")
    with pytest.raises(ConfigError, match="--propagation.level: must be labels for 'match'"):
        PropagationConfig(name="match", level="scores")


def test_a_flow_size_that_would_fill_the_memory_is_refused() -> None:
    """It compares every place with every other: 3 GB and 8 s a frame at 1024 pixels."""
    PropagationConfig(name="match", flow_size=512)
    PropagationConfig(flow_size=1024)
    with pytest.raises(ConfigError, match="--propagation.flow_size: must be at most 512 for 'match'"):
        PropagationConfig(name="match", flow_size=1024)
