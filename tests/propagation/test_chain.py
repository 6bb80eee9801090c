"""Promise: the frame before helps where it is right, harms nowhere, and a resumed chain gives equal bits.

Without it DIS loses what moves further than its search range, which is what happens far from a key frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from vidseg_core.propagation import DisFlow
from vidseg_core.propagation.chain import Link, Pair, complete, improve


def sliding(frames: int, step: int = 6, height: int = 96, width: int = 160) -> list[np.ndarray]:
    """A finely textured plane that slides left: after some frames no coarse level sees the match any more."""
    noise = np.random.default_rng(4).integers(0, 256, (height, width + step * frames), dtype=np.uint8)
    plane = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    return [np.ascontiguousarray(plane[:, step * n : step * n + width]) for n in range(frames)]


def links(pictures: Sequence[np.ndarray]) -> list[Link]:
    return [Link(current=picture, key=pictures[0], distance=n) for n, picture in enumerate(pictures) if n]


def dis(pairs: Sequence[Pair]) -> list[np.ndarray]:
    return DisFlow().flow([current for current, _ in pairs], [key for _, key in pairs])


def wrong_share(chain: Sequence[Link], step: int = 6) -> float:
    """Share of pixels of the last frame, those that the key shows, whose flow is off by more than a pixel."""
    last = chain[-1]
    assert last.flow_hw2 is not None
    inside_hw2 = last.flow_hw2[8:-8, 8 : -step * last.distance - 8]
    off_hw = np.hypot(inside_hw2[..., 0] - step * last.distance, inside_hw2[..., 1])
    return float((off_hw > 1.0).mean())


def test_a_chain_follows_motion_that_a_direct_estimate_loses() -> None:
    direct, chained = links(sliding(14)), links(sliding(14))
    complete([direct], dis, chained=False)
    complete([chained], dis, chained=True)
    assert wrong_share(direct) > 0.5
    assert wrong_share(chained) < 0.1


def test_nonsense_from_the_frame_before_is_ignored() -> None:
    pictures = sliding(3, step=2)
    link = Link(current=pictures[2], key=pictures[0], distance=2)
    (direct_hw2,) = dis([(link.current, link.key)])
    nonsense_hw2 = np.random.default_rng(0).normal(0, 40, direct_hw2.shape).astype(np.float32)
    improve([link], [direct_hw2], [nonsense_hw2], dis)
    assert link.flow_hw2 is not None
    assert (link.flow_hw2 != direct_hw2).any(axis=2).mean() < 0.02


def test_a_resumed_chain_gives_the_same_bits() -> None:
    whole, resumed = links(sliding(8)), links(sliding(8))
    complete([whole], dis, chained=True)
    complete([resumed[:4]], dis, chained=True)
    before_hw2 = resumed[3].flow_hw2
    assert before_hw2 is not None
    for link in resumed[4:]:
        improve([link], dis([(link.current, link.key)]), [before_hw2], dis)
        before_hw2 = link.flow_hw2
        assert before_hw2 is not None
    for one, other in zip(whole, resumed, strict=True):
        assert one.flow_hw2 is not None and other.flow_hw2 is not None
        np.testing.assert_array_equal(one.flow_hw2, other.flow_hw2)


@pytest.mark.parametrize("chained", [True, False])
def test_chains_of_several_lanes_share_calls_but_not_results(chained: bool) -> None:
    calls: list[int] = []

    def counted(pairs: Sequence[Pair]) -> list[np.ndarray]:
        calls.append(len(pairs))
        return dis(pairs)

    lanes = [links(sliding(n, step=s)) for n, s in [(5, 3), (3, 6), (1, 1)]]
    complete(lanes, counted, chained=chained)
    assert [n for n in calls if n] == ([2, 2, 2, 1, 1, 1, 1] if chained else [6])
    alone = links(sliding(5, step=3))
    complete([alone], dis, chained=chained)
    for one, other in zip(alone, lanes[0], strict=True):
        np.testing.assert_array_equal(one.flow_hw2, other.flow_hw2)  # type: ignore[arg-type]


def test_nothing_to_do_is_nothing_done() -> None:
    complete([], lambda pairs: [], chained=True)
    complete([[], []], lambda pairs: [], chained=False)
