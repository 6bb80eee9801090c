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
window on both sides; P, Q places of what is shown, and of both keys, in one row; D features of the far
comparison; 3 = RGB or (chosen, left, right).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidseg_core.models.bundled import bundled_file
from vidseg_core.models.match_maps import Squares, alike, places_of, read_far, spread, squares, windows
from vidseg_core.models.propagation_file import facts_metadata, read_net

NO_PLACE = 255
"""In maps of places: a class that is not in the list."""
STRIDE = 8
"""Pictures must have multiples of this many rows and columns."""
BUNDLED = "tiny-match"
EVIDENCE = 4
"""Maps beside the pictures: both warp errors, disagreement of the flows, agreement of the labels."""
LAYOUT = torch.channels_last
"""In which convolutions of few channels are fastest."""
AT_ONCE = 128
"""Places that are compared with all of both keys in one go: what is between fits a core's cache."""


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

    both_BDQ: torch.Tensor
    """Features of the left key's places, then of the right one's, and where these are (`compared`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the net is shown of some frames, as tensors."""

    pictures_X3hw: torch.Tensor
    """X = 3 B: the frames, then their left keys and then their right ones, warped to them."""
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
        classes, size = len(self.delta_Shw), self.delta_Shw.shape[1:]
        frames = torch.arange(len(self.trust_B3hw), device=sight.owner_S.device)
        first_B111 = torch.searchsorted(sight.owner_S, frames)[:, None, None, None]
        in_list_B3hw = sight.places_B3hw != NO_PLACE
        map_B3hw = torch.where(in_list_B3hw, sight.places_B3hw.long() + first_B111, classes)
        scores = torch.cat([self.delta_Shw, self.delta_Shw.new_zeros(1, *size)])
        for map_Bhw, trust_Bhw in zip(map_B3hw.unbind(1), self.trust_B3hw.unbind(1), strict=True):
            scores.scatter_add_(0, map_Bhw, trust_Bhw)  # side by side, so that sums have one order
        return scores[:classes]


class MatchNet(nn.Module):
    """See the module."""

    def __init__(self, facts: MatchFacts) -> None:
        super().__init__()
        self.facts = facts
        eye, trunk, branch = facts.eye, facts.trunk, facts.branch
        deep, deep_branch = trunk * 3 // 2, branch * 3 // 2
        self.eye = nn.Sequential(nn.Identity(), _layer(48, eye, 1, kind=Squares), _layer(eye, eye))
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
        return self.compared(self._far(self.eye(left_B3hw)), self._far(self.eye(right_B3hw)))

    def compared(self, left_BDqr: torch.Tensor, right_BDqr: torch.Tensor) -> Keys:
        """Features of both keys: their product with `_asked` is how alike places are, less what distance
        takes off."""
        features_BDQ = torch.cat([left_BDqr.flatten(2), right_BDqr.flatten(2)], 2)
        down_Q, across_Q = places_of((0, 0), left_BDqr)
        apart = self._apart()
        where_4Q = torch.stack(
            [
                2.0 * apart * down_Q,
                2.0 * apart * across_Q,
                -apart * (down_Q.square() + across_Q.square()),
                torch.ones_like(down_Q),
            ]
        )
        where_B4Q = where_4Q.repeat(1, 2).expand(len(features_BDQ), -1, -1)
        return Keys(both_BDQ=torch.cat([features_BDQ, where_B4Q], 1))

    def _asked(self, now_BDmn: torch.Tensor, corner: tuple[int, int]) -> torch.Tensor:
        """asked_BPD: what `compared` goes with; the places of a part that begins at `corner`."""
        down_P, across_P = places_of(corner, now_BDmn)
        far_P = -self._apart() * (down_P.square() + across_P.square())
        where_P4 = torch.stack([down_P, across_P, torch.ones_like(down_P), far_P], 1)
        alike_BPD = now_BDmn.flatten(2).transpose(1, 2) * self.sharpness[1].exp()
        return torch.cat([alike_BPD, where_P4.expand(len(now_BDmn), -1, -1)], 2)

    def _apart(self) -> torch.Tensor:
        """What a place less is worth for each squared place that it is away."""
        return F.softplus(self.nearness) * 0.02

    def forward(self, sight: Sight, keys: Keys) -> Answer:
        """What to make of each frame."""
        owner_S = sight.owner_S
        seen_XFyx = self.eye(sight.pictures_X3hw)
        now = seen_XFyx[: len(sight.distances_B2)]
        has_right_B = sight.distances_B2[:, 1] > 0
        weights_BKyx, likeness_B2yx = self._compare(seen_XFyx, has_right_B)
        classes_Syx48 = _is_it(squares(sight.places_B3hw), sight)
        shares_2Syx = classes_Syx48.unflatten(3, (3, 16))[..., 1:, :].mean(4).permute(3, 0, 1, 2).contiguous()
        near_Syx = self._read_near(weights_BKyx, shares_2Syx, owner_S)
        t4 = self.trunk4(self._meet(sight, seen_XFyx, likeness_B2yx))
        far_S1mn, likeness_B2mn = self._look_far(now, keys, sight, has_right_B)
        t8 = self.trunk8(torch.cat([self.down(t4), likeness_B2mn], 1))
        t4 = self.trunk4b(t4 + _grown(self.up(t8), t4))
        entered = self._enter(classes_Syx48, near_Syx)
        b4 = self.branch4((entered + _of_owner(self.gate4(t4), owner_S)).relu_())
        b8 = (self.branch_down(b4) + _of_owner(self.gate8(t8), owner_S)).relu_()
        b8 = self.branch8(torch.cat([b8, far_S1mn], 1))
        b4 = self.branch4b(b4 + _grown(self.branch_up(b8), b4))
        return Answer(
            delta_Shw=spread(self.delta(b4))[:, 0],
            trust_B3hw=F.softplus(spread(self.trust(t4))),
            near_Syx=near_Syx,
            far_Smn=far_S1mn[:, 0],
        )

    def _meet(self, sight: Sight, seen_XFyx: torch.Tensor, likeness_B2yx: torch.Tensor) -> torch.Tensor:
        """All that is seen of the frames, put together."""
        constant = sight.distances_B2[:, :, None, None].expand(-1, -1, *seen_XFyx.shape[2:])
        parts = [
            *seen_XFyx.chunk(3),
            squares(sight.evidence_BEhw).permute(0, 3, 1, 2),
            constant,
            likeness_B2yx,
        ]
        return self.meet(torch.cat([part.contiguous(memory_format=LAYOUT) for part in parts], 1))

    def _enter(self, classes_Syx48: torch.Tensor, near_Syx: torch.Tensor) -> torch.Tensor:
        """Where the sides put each class, and what was read near by."""
        weight, near_weight = self.enter.weight[..., 0, 0].split(48, 1)
        entered_SyxF = F.linear(classes_Syx48, weight, self.enter.bias)
        return torch.addcmul(entered_SyxF, near_Syx[..., None], near_weight[:, 0]).permute(0, 3, 1, 2)

    def _far(self, seen: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.far(seen), dim=1)

    def _compare(
        self, seen_XFyx: torch.Tensor, has_right_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """weights_BKyx over the windows in both warped keys, and the best likeness in each."""
        now, left, right = F.normalize(self.near(seen_XFyx), dim=1).contiguous().chunk(3)
        reach, sharp = self.facts.reach, self.sharpness[0].exp()
        sides = [alike(now, windows(side, reach)) for side in (left, right)]
        likeness_B2yx = torch.stack([side.amax(1) for side in sides], 1)
        logits = [sharp * side + self.near_bias[None, :, None, None] for side in sides]
        logits[1] = logits[1] + _lacking(has_right_B)[:, None, None, None]
        return torch.cat(logits, 1).softmax(1), likeness_B2yx

    def _read_near(
        self, weights_BKyx: torch.Tensor, shares_2Syx: torch.Tensor, owner_S: torch.Tensor
    ) -> torch.Tensor:
        """near_Syx: share of the class among places of both warped keys, by weight."""
        moved_2Siiyx = windows(shares_2Syx, self.facts.reach)
        read_Syx, window = torch.zeros_like(shares_2Syx[0]), range(moved_2Siiyx.shape[2])
        weights_K = _of_owner(weights_BKyx, owner_S).unbind(1)
        for weight_Syx, (side, *place) in zip(weights_K, product((0, 1), window, window), strict=True):
            read_Syx = torch.addcmul(read_Syx, moved_2Siiyx[side, :, *place], weight_Syx)
        return read_Syx

    def _look_far(
        self, now: torch.Tensor, keys: Keys, sight: Sight, has_right_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """far_S1mn: share of the class among all places of both keys, by likeness; and the best of each
        key."""
        count, rows, columns = len(now), now.shape[2] // 2, now.shape[3] // 2
        if not self.facts.far:
            classes = len(sight.owner_S)
            return now.new_zeros(classes, 1, rows, columns), now.new_zeros(count, 2, rows, columns)
        asked_BPD = self._asked(self._far(now), sight.corner)
        read, best = [], []
        for number, has_right in enumerate(has_right_B.tolist()):
            shares_CQ = torch.cat([side.flatten(1) for side in sight.shares[number]], 1)
            parts = (
                read_far(part_PD, keys.both_BDQ[number], shares_CQ, has_right)
                for part_PD in asked_BPD[number].split(AT_ONCE)
            )
            read_CP, best_2P = (torch.cat(part, 1) for part in zip(*parts, strict=True))
            read.append(read_CP.view(-1, 1, rows, columns))
            best.append(best_2P.view(2, rows, columns))
        return torch.cat(read), torch.stack(best) / self.sharpness[1].exp()


def _layer(
    before: int, after: int, side: int = 3, stride: int = 1, kind: type[nn.Conv2d] = nn.Conv2d
) -> nn.Sequential:
    return nn.Sequential(
        kind(before, after, side, stride, side // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def _is_it(places_ByxX: torch.Tensor, sight: Sight) -> torch.Tensor:
    """(S, y, x, X) float32: 1 where a map of places has the class."""
    places_SyxX, place_S = _of_owner(places_ByxX.float(), sight.owner_S), sight.place_S.float()
    is_it_SyxX = places_SyxX.new_empty(len(place_S), *places_SyxX.shape[1:])
    return torch.eq(places_SyxX, place_S[:, None, None, None], out=is_it_SyxX)


def _of_owner(maps_B: torch.Tensor, owner_S: torch.Tensor) -> torch.Tensor:
    """For each class the maps of its frame; those of a single frame are not copied."""
    return maps_B if len(maps_B) == 1 else maps_B.index_select(0, owner_S)


def quick(net: MatchNet) -> MatchNet:
    """A copy for filling, its normalisations in the layers before them: the same but for rounding."""
    net = deepcopy(net).eval().requires_grad_(False)
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            for place, (layer, norm) in enumerate(zip(list(part), list(part)[1:], strict=False)):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[place], part[place + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return net.to(memory_format=LAYOUT)  # pyright: ignore[reportCallIssue]


def _grown(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


def _lacking(has_right_B: torch.Tensor) -> torch.Tensor:
    """Added to the logits of right keys: those that are not there get no weight."""
    return (has_right_B.float() - 1.0) * 1e4


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
