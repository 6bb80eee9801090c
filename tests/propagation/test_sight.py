"""Promise: the net of `match` looks at all that can be in doubt in a frame and at little more, and says there
what it would say of the whole frame.

Why: it looked at every pixel, and took twice the time that filling a gap may take.
"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.small import shaken
from vidseg_core.models.match import STRIDE, MatchFacts, Sight, new_match, quick
from vidseg_core.propagation.sight import AROUND, NO_KEY, SeenFrame, in_doubt, sight_of

SLIM = MatchFacts(eye=8, trunk=8, branch=8, reach=1)


def seen(labels_3hw: np.ndarray) -> SeenFrame:
    random, size = np.random.default_rng(0), labels_3hw.shape[1:]
    now_hw3, left_hw3, right_hw3 = random.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    return SeenFrame(
        now_hw3=now_hw3,
        left_hw3=left_hw3,
        right_hw3=right_hw3,
        evidence_Ehw=np.full((4, *size), NO_KEY, np.float32),
        distances=(0.1, 0.2),
        labels_3hw=labels_3hw,
    )


def sight(frame: SeenFrame, corner: tuple[int, int] = (0, 0)) -> Sight:
    shares = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    return sight_of([frame], [(shares[0], shares[1])], corner)


@given(
    st.lists(st.tuples(st.integers(0, 52), st.integers(0, 68), st.integers(0, 2)), max_size=3),
)
def test_all_that_can_be_in_doubt_is_looked_at(blobs: list[tuple[int, int, int]]) -> None:
    labels_3hw = np.zeros((3, 60, 76), np.uint8)
    for top, left, side in blobs:
        labels_3hw[side, top : top + 8, left : left + 8] = 1
    box, differs_hw = in_doubt(labels_3hw), labels_3hw[1] != labels_3hw[2]
    assert (box is None) == (
        not blobs or labels_3hw[0].all() or not (differs_hw.any() or labels_3hw[0].any())
    )
    if box is not None:
        assert not any(size % STRIDE for size in (box.top, box.left, box.height, box.width))
        outside_hw = differs_hw | (labels_3hw[0] > 0)
        outside_hw[box.top : box.top + box.height, box.left : box.left + box.width] = False
        assert not outside_hw.any()


def test_a_box_is_not_much_larger_than_what_is_in_doubt() -> None:
    labels_3hw = np.zeros((3, 144, 256), np.uint8)
    labels_3hw[:, 64:80, 64:80] = 1
    box = in_doubt(labels_3hw)
    assert box is not None and max(box.height, box.width) <= 16 + 2 * (AROUND + STRIDE)


def test_a_part_beyond_the_border_goes_on_as_there() -> None:
    frame = seen(np.zeros((3, 60, 76), np.uint8)).cut(56, 72, 8, 8)
    assert frame.size == (8, 8) and (frame.now_hw3[4:] == frame.now_hw3[3]).all()
    assert (frame.now_hw3[:, 4:] == frame.now_hw3[:, 3:4]).all() and frame.evidence_Ehw.shape == (4, 8, 8)


def test_places_of_a_part_are_compared_with_the_keys_as_those_of_the_whole() -> None:
    """Where a part begins counts: places that are near count more."""
    net = shaken(new_match(SLIM)).eval()
    eye = torch.rand(1, 8, 16, 24, generator=torch.Generator().manual_seed(2))
    keys = net.compared(net._far(eye), net._far(eye.flip(3)))
    whole = sight(seen(np.zeros((3, 64, 96), np.uint8)))
    part = sight(seen(np.zeros((3, 64, 64), np.uint8)), corner=(0, 4))
    there = torch.tensor([True])
    far_S1mn, _ = net._look_far(eye, keys, whole, there)
    part_S1mn, _ = net._look_far(eye[..., 8:], keys, part, there)
    assert torch.allclose(far_S1mn[..., 7:], part_S1mn[..., 3:], atol=1e-5)
    wrong_S1mn, _ = net._look_far(eye[..., 8:], keys, sight(seen(np.zeros((3, 64, 64), np.uint8))), there)
    assert not torch.allclose(far_S1mn[..., 7:], wrong_S1mn[..., 3:], atol=1e-5)


def test_a_quick_net_says_the_same() -> None:
    net = shaken(new_match(SLIM)).eval()
    labels_3hw = np.random.default_rng(1).integers(0, 3, (3, 64, 96)).astype(np.uint8)
    shown = sight(seen(labels_3hw))
    pictures = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        slow, fast = (one(shown, one.keys(pictures, pictures.flip(3))) for one in (net, quick(net)))
    assert torch.allclose(slow.scores(shown), fast.scores(shown), atol=1e-3)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in quick(net).modules())
