"""The net behind `match`: which of two keys to believe at a pixel, and where in them to look.

Model: between two keys a frame is shown with both keys as they are, and with both warped to it by the flow.
Nothing in the net knows what a class is, so it serves any segmenter:

- an eye turns a picture into features at 1/4 of its size; those of the frame and of the two warped keys are
  compared in a small window (`near`: boundaries, and flow that is a few pixels off), those of the frame and
  of the two keys as they are everywhere, at 1/8 (`far`: what the flow has lost);
- both comparisons read the keys' labels: for each class its share among the places that look alike;
- a trunk reads the pictures, their errors and the likeness found; it says how far to trust each side;
- a branch, run once per class with the same weights, reads where each side puts the class and what the
  comparisons read, and corrects the class's score.

Invariants: the order of the classes changes nothing but the order of the scores; a new net says what
two-sided flow says.

Legend: B frames, S class maps of all frames together, h, w size of what is shown of a frame, flow size or a
part of it (multiples of 8); y, x = h/4, w/4; m, n = h/8, w/8; q, r the same of a whole key; K places of the
window on both sides; 3 = RGB or (chosen, left, right).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidseg_core.models.bundled import bundled_file
from vidseg_core.models.propagation_file import facts_metadata, read_net

STRIDE = 8
"""Pictures must have multiples of this many rows and columns."""
BUNDLED = "tiny-match"
EVIDENCE = 4
"""Maps beside the pictures: both warp errors, disagreement of the flows, agreement of the labels."""


@dataclass(frozen=True, kw_only=True)
class MatchFacts:
    """Sizes of the net; kept in its file."""

    eye: int = 24
    """Channels of a picture's features."""
    trunk: int = 32
    branch: int = 16
    reach: int = 2
    """How far the window reaches to each side, in places of 4 pixels."""
    far: bool = True
    """Does it compare frame and keys everywhere?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Two keys as the far comparison needs them; of no use to a net without it."""

    left_BDqr: torch.Tensor
    right_BDqr: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the net is shown of some frames, as tensors."""

    now_B3hw: torch.Tensor
    left_B3hw: torch.Tensor
    """The left key, warped to the frame."""
    right_B3hw: torch.Tensor
    evidence_BEhw: torch.Tensor
    distances_B2: torch.Tensor
    """Frames to both keys, in thirtieths; 0: there is no such key."""
    places_B3hw: torch.Tensor
    """uint8: where flow puts the classes of the frame's list, by their places in it: the better side, the
    left, the right."""
    place_S: torch.Tensor
    """uint8: the place that a class map is about."""
    shares: Sequence[tuple[torch.Tensor, torch.Tensor]]
    """Of each frame, share of its classes in each place of the left and the right key as they are: (C, q,
    r)."""
    owner_S: torch.Tensor
    """Which frame a class map belongs to."""
    corner: tuple[int, int] = (0, 0)
    """Row and column, in m and n, that what is shown of the frames begins at."""

    def to(self, device: torch.device | str) -> Sight:
        """The same on another device."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        moved = {name: part.to(device) for name, part in given.items() if isinstance(part, torch.Tensor)}
        shares = [(left.to(device), right.to(device)) for left, right in self.shares]
        return replace(self, **moved, shares=shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the net says."""

    delta_Shw: torch.Tensor
    """Correction of each class's score."""
    trust_B3hw: torch.Tensor
    """What the better side, left and right count, at least 0."""
    near_Syx: torch.Tensor
    far_Smn: torch.Tensor
    """What the comparisons read, 0..1; the second is empty in a net without."""

    def scores(self, sight: Sight) -> torch.Tensor:
        """scores_Shw at flow size."""
        is_it_S3hw = _is_it(sight.places_B3hw, sight)
        return self.delta_Shw + (self.trust_B3hw.index_select(0, sight.owner_S) * is_it_S3hw).sum(1)


class MatchNet(nn.Module):
    """See the module."""

    def __init__(self, facts: MatchFacts) -> None:
        super().__init__()
        self.facts = facts
        eye, trunk, branch = facts.eye, facts.trunk, facts.branch
        deep, deep_branch = trunk * 3 // 2, branch * 3 // 2
        self.eye = nn.Sequential(nn.PixelUnshuffle(4), _layer(48, eye, 1), _layer(eye, eye))
        self.near = nn.Conv2d(eye, 16, 1)
        self.far = nn.Sequential(_layer(eye, 40, 3, 2), _layer(40, 40), nn.Conv2d(40, 32, 1))
        places = (2 * facts.reach + 1) ** 2
        self.near_bias = nn.Parameter(torch.zeros(places))
        self.sharpness = nn.Parameter(torch.tensor([2.0, 2.0]))
        """Logarithms, of near and far."""
        self.nearness = nn.Parameter(torch.tensor(0.0))
        """How much far places count less."""
        self.meet = _layer(3 * eye + 16 * EVIDENCE + 4, trunk, 1)
        self.trunk4 = _layer(trunk, trunk)
        self.down = _layer(trunk, deep, 3, 2)
        self.trunk8 = _layer(deep + 2, deep)
        self.up = nn.Conv2d(deep, trunk, 1)
        self.trunk4b = _layer(trunk, trunk)
        self.trust = nn.Conv2d(trunk, 3 * 16, 1)
        self.enter = nn.Conv2d(3 * 16 + 1, branch, 1)
        self.gate4, self.gate8 = nn.Conv2d(trunk, branch, 1), nn.Conv2d(deep, deep_branch, 1)
        self.branch4 = _layer(branch, branch)
        self.branch_down = nn.Conv2d(branch, deep_branch, 3, 2, 1)
        self.branch8 = nn.Sequential(_layer(deep_branch + 1, deep_branch), _layer(deep_branch, deep_branch))
        self.branch_up = nn.Conv2d(deep_branch, branch, 1)
        self.branch4b = _layer(branch, branch)
        self.delta = nn.Conv2d(branch, 16, 1)
        self._begin()

    def _begin(self) -> None:
        """The better side counts, and nothing is corrected."""
        for layer in (self.delta, self.trust):
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.trust.bias[:16] = 2.0  # type: ignore[index]
            self.trust.bias[16:] = -1.0  # type: ignore[index]

    def keys(self, left_B3hw: torch.Tensor, right_B3hw: torch.Tensor) -> Keys:
        """Both keys' features for the far comparison."""
        return Keys(left_BDqr=self._far(self.eye(left_B3hw)), right_BDqr=self._far(self.eye(right_B3hw)))

    def forward(self, sight: Sight, keys: Keys) -> Answer:
        """What to make of each frame."""
        owner_S = sight.owner_S
        count = len(sight.now_B3hw)
        seen = self.eye(torch.cat([sight.now_B3hw, sight.left_B3hw, sight.right_B3hw]))
        now, left, right = seen.split(count)
        has_right_B = sight.distances_B2[:, 1] > 0
        weights_BKyx, likeness_B2yx = self._compare(now, left, right, has_right_B)
        classes_S48yx = _is_it(F.pixel_unshuffle(sight.places_B3hw, 4), sight)
        shares_S2yx = classes_S48yx[:, 16:].unflatten(1, (2, 16)).mean(2)
        near_S1yx = self._read_near(weights_BKyx, shares_S2yx, owner_S)
        constant = sight.distances_B2[:, :, None, None].expand(-1, -1, *now.shape[2:])
        evidence = F.pixel_unshuffle(sight.evidence_BEhw, 4)
        t4 = self.trunk4(self.meet(torch.cat([now, left, right, evidence, constant, likeness_B2yx], 1)))
        far_S1mn, likeness_B2mn = self._look_far(now, keys, sight, has_right_B)
        t8 = self.trunk8(torch.cat([self.down(t4), likeness_B2mn], 1))
        t4 = self.trunk4b(t4 + _grown(self.up(t8), t4))
        trust_B3hw = F.softplus(F.pixel_shuffle(self.trust(t4), 4))
        entered = self.enter(torch.cat([classes_S48yx, near_S1yx], 1))
        b4 = self.branch4(F.relu(entered + self.gate4(t4)[owner_S]))
        b8 = F.relu(self.branch_down(b4) + self.gate8(t8)[owner_S])
        b8 = self.branch8(torch.cat([b8, far_S1mn], 1))
        b4 = self.branch4b(b4 + _grown(self.branch_up(b8), b4))
        delta_S1hw = F.pixel_shuffle(self.delta(b4), 4)
        return Answer(
            delta_Shw=delta_S1hw[:, 0],
            trust_B3hw=trust_B3hw,
            near_Syx=near_S1yx[:, 0],
            far_Smn=far_S1mn[:, 0],
        )

    def _far(self, seen: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.far(seen), dim=1)

    def _compare(
        self, now: torch.Tensor, left: torch.Tensor, right: torch.Tensor, has_right_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """weights_BKyx over the windows in both warped keys, and the best likeness in each."""
        now, left, right = (F.normalize(self.near(part), dim=1) for part in (now, left, right))
        reach, sharp = self.facts.reach, self.sharpness[0].exp()
        sides = [
            torch.stack([(now * moved).sum(1) for moved in _around(side, reach)], 1) for side in (left, right)
        ]
        likeness_B2yx = torch.stack([side.amax(1) for side in sides], 1)
        logits = [sharp * side + self.near_bias[None, :, None, None] for side in sides]
        logits[1] = logits[1] + _lacking(has_right_B)[:, None, None, None]
        return torch.cat(logits, 1).softmax(1), likeness_B2yx

    def _read_near(
        self, weights_BKyx: torch.Tensor, shares_S2yx: torch.Tensor, owner_S: torch.Tensor
    ) -> torch.Tensor:
        """near_S1yx: share of the class among places of both warped keys, by weight."""
        weights_K = weights_BKyx.index_select(0, owner_S).unbind(1)
        read_Syx, places = torch.zeros_like(shares_S2yx[:, 0]), len(weights_K) // 2
        for place, moved_S2yx in enumerate(_around(shares_S2yx, self.facts.reach)):
            for side in (0, 1):
                read_Syx = torch.addcmul(read_Syx, moved_S2yx[:, side], weights_K[side * places + place])
        return read_Syx[:, None]

    def _look_far(
        self, now: torch.Tensor, keys: Keys, sight: Sight, has_right_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """far_S1mn: share of the class among all places of both keys, by likeness; and the best of each
        key."""
        count, rows, columns = len(now), now.shape[2] // 2, now.shape[3] // 2
        if not self.facts.far:
            classes = len(sight.owner_S)
            return now.new_zeros(classes, 1, rows, columns), now.new_zeros(count, 2, rows, columns)
        sharp = self.sharpness[1].exp()
        asked_BPD = self._far(now).flatten(2).transpose(1, 2) * sharp
        (top, across), key_size = sight.corner, keys.left_BDqr.shape[2:]
        table_qrQ = _squared_distances(*key_size, now.device).unflatten(0, key_size)
        table_PQ = table_qrQ[top : top + rows, across : across + columns].flatten(0, 1)
        away_PQ = -F.softplus(self.nearness) * 0.02 * table_PQ
        sides = [
            torch.baddbmm(away_PQ, asked_BPD, key.flatten(2)) for key in (keys.left_BDqr, keys.right_BDqr)
        ]
        likeness = [(side.amax(2) / sharp).view(count, rows, columns) for side in sides]
        sides[1] = sides[1] + _lacking(has_right_B)[:, None, None]
        weights_BPQ = torch.cat(sides, 2).softmax(2)
        read = [
            (torch.cat([left.flatten(1), right.flatten(1)], 1) @ weights_BPQ[number].T).view(
                -1, 1, rows, columns
            )
            for number, (left, right) in enumerate(sight.shares)
        ]
        return torch.cat(read), torch.stack(likeness, 1)


def _layer(before: int, after: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, side // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def _is_it(places_BXhw: torch.Tensor, sight: Sight) -> torch.Tensor:
    """(S, X, h, w) float32: 1 where a map of places has the class."""
    places_SXhw = places_BXhw.index_select(0, sight.owner_S)
    return (places_SXhw == sight.place_S[:, None, None, None]).float()


def quick(net: MatchNet) -> MatchNet:
    """A copy for filling, its normalisations in the layers before them: the same but for rounding."""
    net = deepcopy(net).eval().requires_grad_(False)
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            for place, (layer, norm) in enumerate(zip(list(part), list(part)[1:], strict=False)):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[place], part[place + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return net


def _grown(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


def _around(maps_BFyx: torch.Tensor, reach: int) -> Iterator[torch.Tensor]:
    """The maps moved to each place of the window; beyond its border a map goes on as there."""
    rows, columns = maps_BFyx.shape[2:]
    padded = F.pad(maps_BFyx, (reach, reach, reach, reach), mode="replicate")
    for down in range(2 * reach + 1):
        for across in range(2 * reach + 1):
            yield padded[:, :, down : down + rows, across : across + columns]


def _lacking(has_right_B: torch.Tensor) -> torch.Tensor:
    """Added to the logits of right keys: those that are not there get no weight."""
    return (has_right_B.float() - 1.0) * 1e4


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _squared_distances(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """(P, P): of all places of a map from one another, in places; fit for training, whoever asks first."""
    down = torch.arange(rows, device=device, dtype=torch.float32)
    across = torch.arange(columns, device=device, dtype=torch.float32)
    between_rows = (down[:, None] - down[None]).square()
    between_columns = (across[:, None] - across[None]).square()
    table = between_rows[:, None, :, None] + between_columns[None, :, None, :]
    return table.reshape(rows * columns, rows * columns)


# --- its file ----------------------------------------------------------------------------------------------


def new_match(facts: MatchFacts | None = None, *, seed: int = 0) -> MatchNet:
    """An untrained net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MatchNet(facts or MatchFacts())


def match_metadata(facts: MatchFacts) -> dict[str, str]:
    """What the file says beside the weights."""
    return facts_metadata("match", facts)


def read_match(path: str | Path | None = None) -> MatchNet:
    """The net in a file of train-propagation, else `tiny-match`; frozen. `SegmenterError` for any other
    file."""
    file = str(path or bundled_file(BUNDLED))
    return read_net("match", file, lambda facts: MatchNet(MatchFacts(**facts)))
