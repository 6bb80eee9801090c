"""Flows of consecutive frames to one key, each estimate started from the one before.

Every flow is still estimated between its frame and the key directly; the flow of the frame before is only the
first guess, stretched to the longer distance as if the motion went on evenly. That guess lets a local method
such as DIS follow motion far larger than its search range, while errors do not add up: where the guess does
not explain the frame better than no motion does, it is dropped, pixel by pixel.

A guess is rounded to half precision first. So a stored state can keep it in half the space, and a chain that
is resumed or recomputed gives the same bits as one that was never interrupted.

Legend: h, w flow size; 2 = (u, v); pictures uint8, flow float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vidseg_core.propagation.warp import error_sums, warp_error


@dataclass(slots=True, kw_only=True)
class Link:
    """One frame of a chain: a picture, its key, and the flow between them once it is known."""

    current: np.ndarray
    key: np.ndarray
    distance: int
    """Frames between the picture and its key, at least 1; neighbours in a chain differ by 1."""
    flow_hw2: np.ndarray | None = None


Estimate = Callable[[Sequence[Link], Sequence[np.ndarray | None]], list[np.ndarray]]
"""(links, first guesses) -> flows, in one call."""


def complete(chains: Sequence[Sequence[Link]], estimate: Estimate, *, in_turn: bool) -> None:
    """Fill in the missing flows of chains that begin next to their key.

    `in_turn`: the chains advance together, one link of each per call, and each link starts from the one
    before; otherwise all links are estimated in a single call without a first guess.
    """
    if not in_turn:
        chains = [[link] for chain in chains for link in chain]
    for rank in range(max(map(len, chains), default=0)):
        turn = [chain for chain in chains if len(chain) > rank and chain[rank].flow_hw2 is None]
        if in_turn:
            turn_links = [chain[rank] for chain in turn]
            guesses = [first_guess(chain[rank], chain[rank - 1].flow_hw2 if rank else None) for chain in turn]
            _fill(turn_links, estimate(turn_links, guesses))
        else:
            turn_links = [chain[0] for chain in turn]
            _fill(turn_links, estimate(turn_links, [None] * len(turn_links)))


def _fill(links: Sequence[Link], flows: Sequence[np.ndarray]) -> None:
    for link, flow_hw2 in zip(links, flows, strict=True):
        link.flow_hw2 = flow_hw2


def as_kept(flow_hw2: np.ndarray) -> np.ndarray:
    """The flow as it is kept for the next frame's guess: float16."""
    limit = np.float32(max(flow_hw2.shape))
    return np.fmin(np.fmax(flow_hw2, -limit), limit).astype(np.float16)


def first_guess(link: Link, previous_hw2: np.ndarray | None) -> np.ndarray | None:
    """Where to begin the search for the link's flow, given the flow of the frame one nearer to the key."""
    if previous_hw2 is None or link.distance < 2:
        return None
    kept_hw2 = previous_hw2 if previous_hw2.dtype == np.float16 else as_kept(previous_hw2)
    guess_hw2 = kept_hw2.astype(np.float32)
    guess_hw2 *= np.float32(link.distance / (link.distance - 1))
    moved_hw = error_sums(warp_error(link.current, link.key, guess_hw2))
    still_hw = error_sums(warp_error(link.current, link.key, None))
    guess_hw2[moved_hw > still_hw] = 0.0
    return guess_hw2
