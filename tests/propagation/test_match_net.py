"""Promise: the net of `match` reads and writes its maps in the ways that are fast, and says what the plain
ways say: pixels in squares, scores side by side, far places piece by piece, a frame alone or beside others.

Why: written down plainly, most of its time went into copying maps, not into looking at them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from tests.propagation.test_sight import SLIM, seen
from tests.training.small import shaken
from vidseg_core.models import match
from vidseg_core.models.match import NO_PLACE, Answer, Keys, MatchNet, Sight, new_match
from vidseg_core.models.match_maps import Squares, spread, squares
from vidseg_core.propagation.sight import OTHER, SeenFrame, pictures_of, shares_of, sight_of

COUNTS = (3, 2)


@pytest.fixture(scope="module")
def net() -> MatchNet:
    return shaken(new_match(SLIM)).eval()


def frame(number: int) -> SeenFrame:
    random = np.random.default_rng(number)
    labels_3hw = random.integers(0, COUNTS[number], (3, 64, 96)).astype(np.uint8)
    labels_3hw[:, :9, :9] = OTHER
    return seen(labels_3hw)


def sight(*numbers: int) -> Sight:
    frames = [frame(number) for number in numbers]
    shares = [
        (shares_of(f.labels_3hw[1], COUNTS[n]), shares_of(f.labels_3hw[2], COUNTS[n]))
        for n, f in zip(numbers, frames, strict=True)
    ]
    return sight_of(frames, shares)


def keys(net: MatchNet, *numbers: int) -> Keys:
    sides = ([getattr(frame(n), side) for n in numbers] for side in ("left_hw3", "right_hw3"))
    return net.keys(*(pictures_of(side) for side in sides))


def answer(net: MatchNet, *numbers: int) -> Answer:
    with torch.inference_mode():
        return net(sight(*numbers), keys(net, *numbers))


def test_pixels_lie_in_squares_as_torch_puts_them() -> None:
    maps_BXhw = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    in_squares_BXyx = functional.pixel_unshuffle(maps_BXhw, 4)
    assert torch.equal(squares(maps_BXhw).permute(0, 3, 1, 2), in_squares_BXyx)
    assert torch.equal(spread(in_squares_BXyx), maps_BXhw)
    layer = Squares(48, 5, 1)
    plain = functional.conv2d(in_squares_BXyx, layer.weight, layer.bias)
    assert torch.allclose(layer(maps_BXhw), plain, atol=1e-5)


def test_a_score_is_what_the_net_corrects_and_the_trust_in_each_side_that_says_the_class(
    net: MatchNet,
) -> None:
    assert NO_PLACE == OTHER
    shown, said = sight(0, 1), answer(net, 0, 1)
    for place, (owner, of) in enumerate(zip(shown.owner_S, shown.place_S, strict=True)):
        says_3hw = (shown.places_B3hw[owner] == of).float()
        plain_hw = said.delta_Shw[place] + (said.trust_B3hw[owner] * says_3hw).sum(0)
        assert torch.allclose(said.scores(shown)[place], plain_hw, atol=1e-5)


def test_far_places_are_compared_piece_by_piece_as_at_once(
    net: MatchNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(net, 0)
    monkeypatch.setattr(match, "AT_ONCE", 7)
    assert torch.allclose(answer(net, 0).far_Smn, whole.far_Smn, atol=1e-5)
    assert float(whole.far_Smn.std()) > 1e-4


def test_far_places_further_away_count_less_by_their_squared_distance(net: MatchNet) -> None:
    now = torch.rand(1, 8, 8, 12, generator=torch.Generator().manual_seed(1))
    compared = net.compared(now, now.flip(3)).both_BDQ
    found_PQ = (net._asked(now, (0, 0)) @ compared)[0]
    features_DP = now.flatten(2)[0]
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    places_P2 = torch.stack([rows.flatten(), columns.flatten()], 1).float()
    away_PP = torch.cdist(places_P2, places_P2).square() * net._apart()
    alike_PP = features_DP.T @ features_DP * net.sharpness[1].exp()
    assert torch.allclose(found_PQ[:, :96], alike_PP - away_PP, atol=1e-3)


def test_a_frame_is_seen_beside_others_as_alone(net: MatchNet) -> None:
    together, first, second = answer(net, 0, 1), answer(net, 0), answer(net, 1)
    for name in ("delta_Shw", "near_Syx", "far_Smn", "trust_B3hw"):
        alone = torch.cat([getattr(first, name), getattr(second, name)])
        assert torch.allclose(getattr(together, name), alone, atol=1e-4), name
