"""Flows of consecutive frames to one key: each frame learns from the one before, and no error is handed on.

Far from the key a local method such as DIS loses what moves faster than its search range. The flow of the
frame before already knows most of the way. So each frame is estimated twice:
- directly, between the frame and the key;
- as a rest: the key is first warped by the flow of the frame before, the estimator sees what motion is left,
  and both are put together.
Pixel by pixel the direct flow stands unless the second explains the neighbourhood clearly better. A chain of
flows would drift; here each frame can fall back on its own direct estimate.

OpenCV's DIS takes a first guess too, but with large guesses it was seen to crash and to give results that
depend on earlier calls. Warping the key by the guess does the same from outside, safely.

A chain that is resumed from a stored flow, or recomputed from the pictures, gives the same bits as one that
was never interrupted.

Legend: h, w flow size; 2 = (u, v); pictures uint8, flow float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidseg_core.propagation.warp import error_sums, warp_error, warp_flow, warp_picture

CLEARLY = 0.9
"""The second flow replaces the direct one where its windowed warp error is below this share of the direct."""

Pair = tuple[np.ndarray, np.ndarray]
Estimate = Callable[[Sequence[Pair]], list[np.ndarray]]
"""(current, key) pictures -> flows, in one call."""


@dataclass(slots=True, kw_only=True)
class Link:
    """One frame of a chain: a picture, its key, and the flow between them once it is known."""

    current: np.ndarray
    key: np.ndarray
    distance: int
    """Frames between the picture and its key, at least 1; neighbours in a chain differ by 1."""
    flow_hw2: np.ndarray | None = None


def complete(chains: Sequence[Sequence[Link]], estimate: Estimate, *, chained: bool) -> None:
    """Fill in the missing flows of chains that begin next to their key.

    When `chained`, the chains advance together, one link of each at a time; otherwise there is nothing to
    wait for, and all links are one call.
    """
    if not chained:
        missing = [link for chain in chains for link in chain if link.flow_hw2 is None]
        improve(missing, estimate(_pairs(missing)), [None] * len(missing), estimate)
        return
    for rank in range(max(map(len, chains), default=0)):
        turn = [chain for chain in chains if len(chain) > rank and chain[rank].flow_hw2 is None]
        links = [chain[rank] for chain in turn]
        before = [_known(chain[rank - 1]) if rank else None for chain in turn]
        improve(links, estimate(_pairs(links)), before, estimate)


def improve(
    links: Sequence[Link],
    direct: Sequence[np.ndarray],
    before: Sequence[np.ndarray | None],
    estimate: Estimate,
) -> None:
    """Set each link's flow from its direct estimate and, if there is one, the flow of the frame before."""
    for link, flow_hw2 in zip(links, direct, strict=True):
        link.flow_hw2 = flow_hw2
    helped = [
        (link, guess_hw2) for link, guess_hw2 in zip(links, before, strict=True) if guess_hw2 is not None
    ]
    rests = estimate([(link.current, warp_picture(link.key, guess_hw2)) for link, guess_hw2 in helped])
    for (link, guess_hw2), rest_hw2 in zip(helped, rests, strict=True):
        second_hw2 = cv2.add(rest_hw2, warp_flow(guess_hw2, rest_hw2))
        link.flow_hw2 = _better(link, _known(link), second_hw2)


def _better(link: Link, direct_hw2: np.ndarray, second_hw2: np.ndarray) -> np.ndarray:
    direct_sums = error_sums(warp_error(link.current, link.key, direct_hw2))
    second_sums = error_sums(warp_error(link.current, link.key, second_hw2))
    wins_hw = cv2.compare(second_sums, direct_sums * np.float32(CLEARLY), cv2.CMP_LT)
    return cv2.copyTo(second_hw2, wins_hw, direct_hw2.copy())


def _known(link: Link) -> np.ndarray:
    assert link.flow_hw2 is not None
    return link.flow_hw2


def _pairs(links: Sequence[Link]) -> list[Pair]:
    return [(link.current, link.key) for link in links]
