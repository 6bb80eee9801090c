"""The engine: one frame of each of V segments goes in, the masks that became final come out.

Model (DVRL section 3.1, Fig. 2): a frame is compared with the last key frame of its segment; the scheduler
scores the deviation; on a key frame N runs, on any other frame the key's result is propagated. With one side
a frame is final at once. With two sides a frame that is no key waits until the next key is known, and each of
its pixels comes from the key that explains it better (`propagation.two_sided`).

Invariants:
- what comes out for a segment depends on its frames, seed and name alone: not on V, not on the segments that
  share a step, not on `to_bytes` / `from_bytes` in between;
- results of a segment come out in frame order, each frame exactly once;
- at most `max_interval - 1` frames of a segment wait at any time;
- a step that raises has advanced no state.

Legend: H, W working size; h, w flow size; 3 = RGB; 2 = (u, v).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vidseg_core.engine.codec import StateError
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import KeyFrame, PendingFrame, SegmentState
from vidseg_core.engine.stats import EngineStats
from vidseg_core.models.protocol import Segmenter
from vidseg_core.propagation.flow import FlowEstimator, build_flow
from vidseg_core.propagation.propagators import LEVELS, Propagator
from vidseg_core.propagation.two_sided import choose, prefer_right
from vidseg_core.propagation.warp import warp_error
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import Scheduler


@dataclass(slots=True, kw_only=True)
class _Decision:
    is_key: bool
    score: float
    kar: float
    lkd: int


@dataclass(slots=True, kw_only=True)
class _Wait:
    """One frame to be finalised: between `left` and, with two sides, `right`."""

    frame: PendingFrame
    left: KeyFrame
    right: KeyFrame | None
    left_flow_hw2: np.ndarray | None = None
    right_flow_hw2: np.ndarray | None = None


@dataclass(slots=True, kw_only=True)
class _NewKey:
    key: KeyFrame
    labels_HW: np.ndarray


class Engine:
    """Key frame segmentation of several segments in lock step.

    `sides`: "one" (online, as the papers) or "two" (looks ahead). `flow`: an estimator or its registry name.
    `flow_size`: longest side in pixels of the picture on which flow and deviation are computed. `key_batch`:
    frames per call of the net, exactly (fewer are filled up), so more than the number of lanes is waste.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        scheduler: Scheduler,
        propagator: Propagator,
        *,
        sides: Literal["one", "two"] = "two",
        max_interval: int = 90,
        flow: FlowEstimator | str = "dis",
        flow_size: int = 256,
        key_batch: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        if sides not in ("one", "two"):
            raise ValueError(f"propagation.sides must be 'one' or 'two', not {sides!r}")
        if propagator.level not in LEVELS:
            raise ValueError(f"propagation level {propagator.level!r} is not one of {', '.join(LEVELS)}")
        for name, value in (
            ("max_interval", max_interval),
            ("flow_size", flow_size),
            ("key_batch", key_batch),
        ):
            if int(value) != value or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        self.scheduler, self.propagator = scheduler, propagator
        self.two_sided = sides == "two"
        self.max_interval, self.flow_size = int(max_interval), int(flow_size)
        self.flow = build_flow(flow) if isinstance(flow, str) else flow
        self.net = ChunkedNet(segmenter, level=propagator.level, batch=int(key_batch), device=device)
        self.stats = EngineStats()

    def step(self, states: Sequence[SegmentState], frames: Sequence[FrameInput]) -> list[list[FrameResult]]:
        """Advance each state by its frame; for each segment the results that became final, in frame order."""
        if len(states) != len(frames) or len({id(state) for state in states}) != len(states):
            raise ValueError(f"{len(states)} states (each once) need as many frames, not {len(frames)}")
        looks = [self._look(state, frame) for state, frame in zip(states, frames, strict=True)]
        self._restore_keys(states)
        decisions = self._decide(looks)
        new_keys = self._run_keys(looks, decisions)
        finals = self._finalise(looks, decisions, new_keys)
        return [
            self._advance(look, decision, key, rows)
            for look, decision, key, rows in zip(looks, decisions, new_keys, finals, strict=True)
        ]

    def finish(self, states: Sequence[SegmentState]) -> list[list[FrameResult]]:
        """The segments end here: frames that still wait become final, one-sided from the last key."""
        self._restore_keys([state for state in states if state.pending])
        waits = [
            [_Wait(frame=frame, left=_key_of(state), right=None) for frame in state.pending]
            for state in states
        ]
        results = self._propagate_all(waits)
        for state in states:
            state.pending = []
        return results

    # --- one step, in order -------------------------------------------------------------------------------

    def _look(self, state: SegmentState, frame: FrameInput) -> FrameLook:
        if frame.frame_index <= state.last_frame_index:
            raise ValueError(
                f"segment {state.segment}: frame {frame.frame_index} after frame {state.last_frame_index}"
            )
        if state.level not in ("", self.propagator.level):
            raise StateError(
                f"segment {state.segment}: state has level {state.level!r}, engine {self.propagator.level!r}"
            )
        look = FrameLook(state, frame, self.flow.channels, self.flow_size, self.stats)
        if state.key is not None and state.key.view.shape != look.view_shape:
            raise StateError(
                f"segment {state.segment}: key seen as {state.key.view.shape}, frame as {look.view_shape}"
            )
        return look

    def _restore_keys(self, states: Sequence[SegmentState]) -> None:
        """N again on keys whose scores or features were not stored."""
        bare = [state.key for state in states if state.key is not None and state.key.carried is None]
        if bare:
            with self.stats.timed("net"):
                results = self.net.run([key.frame_HW3 for key in bare if key.frame_HW3 is not None])
            for key, (_, carried) in zip(bare, results, strict=True):
                key.carried = carried

    def _decide(self, looks: list[FrameLook]) -> list[_Decision]:
        decisions: list[_Decision | None] = [self._rule(look) for look in looks]
        asked = [look for look, decision in zip(looks, decisions, strict=True) if decision is None]
        if self.scheduler.needs_flow:
            self._estimate_flows(asked)
        with self.stats.timed("decide"):
            return [decision or self._ask(look) for look, decision in zip(looks, decisions, strict=True)]

    def _rule(self, look: FrameLook) -> _Decision | None:
        """The decision when no score is needed (see `scheduling.protocol`), else None."""
        key, kar = look.state.key, look.state.history.kar
        if key is None:
            return _Decision(is_key=True, score=math.inf, kar=kar, lkd=0)
        lkd = look.state.next_frame - key.ordinal
        if lkd >= self.max_interval:
            return _Decision(is_key=True, score=math.inf, kar=kar, lkd=lkd)
        if self.scheduler.avoids_corrupt and look.frame.is_corrupt:
            return _Decision(is_key=False, score=-math.inf, kar=kar, lkd=lkd)
        if self.scheduler.avoids_corrupt and key.is_corrupt:
            return _Decision(is_key=True, score=math.inf, kar=kar, lkd=lkd)
        return None

    def _ask(self, look: FrameLook) -> _Decision:
        state, key = look.state, _key_of(look.state)
        deviation = Deviation(
            current=lambda: look.gray,
            key=lambda: look.key_gray,
            flow=lambda: self._flow_of(look),
            ordinal=state.next_frame,
            frame_index=look.frame.frame_index,
            lkd=state.next_frame - key.ordinal,
            kar=state.history.kar,
            is_corrupt=look.frame.is_corrupt,
            seed=state.seed,
            segment=state.segment,
        )
        score = float(self.scheduler.score(deviation))
        if math.isnan(score):
            raise ValueError(f"scheduler {type(self.scheduler).__name__} gave a score that is no number")
        is_key = score > self.scheduler.threshold
        return _Decision(is_key=is_key, score=score, kar=deviation.kar, lkd=deviation.lkd)

    def _run_keys(self, looks: list[FrameLook], decisions: list[_Decision]) -> list[_NewKey | None]:
        chosen = [look for look, decision in zip(looks, decisions, strict=True) if decision.is_key]
        with self.stats.timed("net"):
            results = iter(self.net.run([look.frame.frame_HW3 for look in chosen]))
        keeps_frame = self.propagator.level != "labels"
        keys: list[_NewKey | None] = []
        for look, decision in zip(looks, decisions, strict=True):
            if not decision.is_key:
                keys.append(None)
                continue
            labels_HW, carried = next(results)
            key = KeyFrame(
                ordinal=look.state.next_frame,
                frame_index=look.frame.frame_index,
                is_corrupt=look.frame.is_corrupt,
                view=look.view,
                carried=carried,
                frame_HW3=look.frame.frame_HW3.copy() if keeps_frame else None,
            )
            keys.append(_NewKey(key=key, labels_HW=labels_HW))
        return keys

    def _finalise(
        self, looks: list[FrameLook], decisions: list[_Decision], new_keys: list[_NewKey | None]
    ) -> list[list[FrameResult]]:
        """For each lane the rows before the current frame that a new key makes final, or the frame's own."""
        waits: list[list[_Wait]] = []
        for look, decision, new_key in zip(looks, decisions, new_keys, strict=True):
            if new_key is not None and look.state.pending:
                left, right = _key_of(look.state), new_key.key
                waits.append([_Wait(frame=frame, left=left, right=right) for frame in look.state.pending])
            elif new_key is None and not self.two_sided:
                waits.append([_Wait(frame=_pending(look, decision), left=_key_of(look.state), right=None)])
            else:
                waits.append([])
        return self._propagate_all(waits)

    def _advance(
        self, look: FrameLook, decision: _Decision, new_key: _NewKey | None, rows: list[FrameResult]
    ) -> list[FrameResult]:
        state = look.state
        if new_key is not None:
            rows = [*rows, _key_result(look.frame, decision, new_key.labels_HW)]
            state.key, state.pending = new_key.key, []
        elif self.two_sided:
            state.pending.append(_pending(look, decision))
        state.history.add(decision.is_key)
        state.next_frame += 1
        state.last_frame_index = look.frame.frame_index
        state.level = self.propagator.level
        self.stats.frames += 1
        self.stats.keys += decision.is_key
        return rows

    # --- flow and propagation -----------------------------------------------------------------------------

    def _flow_of(self, look: FrameLook) -> np.ndarray:
        if look.flow_hw2 is None:
            self._estimate_flows([look])
        assert look.flow_hw2 is not None
        return look.flow_hw2

    def _estimate_flows(self, looks: Sequence[FrameLook]) -> None:
        """The flow of each frame to its last key, in one call of the estimator."""
        pairs = [(look.view, _key_of(look.state).view) for look in looks]
        for look, flow_hw2 in zip(looks, self._flows(pairs), strict=True):
            look.flow_hw2 = flow_hw2

    def _flows(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        if not pairs:
            return []
        self.stats.flows += len(pairs)
        with self.stats.timed("flow"):
            return self.flow.flow([current for current, _ in pairs], [key for _, key in pairs])

    def _propagate_all(self, waits: list[list[_Wait]]) -> list[list[FrameResult]]:
        """Final results of all waiting frames of all lanes: one flow call, heads in full chunks."""
        flat = [wait for lane in waits for wait in lane]
        if self.propagator.needs_flow:
            self._add_flows(flat)
        results: list[FrameResult] = []
        with self.stats.timed("propagate"):
            for start in range(0, len(flat), self.net.batch):
                chunk = flat[start : start + self.net.batch]
                labels = self.net.labels([self._carry(wait) for wait in chunk])
                results += [_result(wait, labels_HW) for wait, labels_HW in zip(chunk, labels, strict=True)]
        rest = iter(results)
        return [[next(rest) for _ in lane] for lane in waits]

    def _add_flows(self, waits: list[_Wait]) -> None:
        lefts = [wait for wait in waits if wait.frame.flow_hw2 is None]
        rights = [wait for wait in waits if wait.right is not None]
        pairs = [(wait.frame.view, wait.left.view) for wait in lefts]
        pairs += [(wait.frame.view, wait.right.view) for wait in rights if wait.right is not None]
        flows = self._flows(pairs)
        for wait in waits:
            wait.left_flow_hw2 = wait.frame.flow_hw2
        for wait, flow_hw2 in zip(lefts, flows, strict=False):
            wait.left_flow_hw2 = flow_hw2
        for wait, flow_hw2 in zip(rights, flows[len(lefts) :], strict=True):
            wait.right_flow_hw2 = flow_hw2

    def _carry(self, wait: _Wait) -> Any:
        left = self.propagator.carry(wait.left.carried, wait.left_flow_hw2)
        if wait.right is None:
            return left
        right = self.propagator.carry(wait.right.carried, wait.right_flow_hw2)
        distance_left = wait.frame.lkd
        distance_right = wait.right.ordinal - wait.left.ordinal - distance_left
        advantage_hw = prefer_right(
            warp_error(wait.frame.view, wait.left.view, wait.left_flow_hw2),
            warp_error(wait.frame.view, wait.right.view, wait.right_flow_hw2),
            right_is_nearer=distance_right < distance_left,
        )
        return choose(left, right, advantage_hw)


def _key_of(state: SegmentState) -> KeyFrame:
    if state.key is None:
        raise StateError(f"segment {state.segment}: no key frame yet")
    return state.key


def _pending(look: FrameLook, decision: _Decision) -> PendingFrame:
    return PendingFrame(
        frame_index=look.frame.frame_index,
        pts_s=look.frame.pts_s,
        is_corrupt=look.frame.is_corrupt,
        decision_score=decision.score,
        kar=decision.kar,
        lkd=decision.lkd,
        view=look.view,
        flow_hw2=look.flow_hw2,
    )


def _result(wait: _Wait, labels_HW: np.ndarray) -> FrameResult:
    frame = wait.frame
    return FrameResult(
        frame_index=frame.frame_index,
        pts_s=frame.pts_s,
        is_key=False,
        key_frame_index=wait.left.frame_index,
        decision_score=frame.decision_score,
        kar=frame.kar,
        lkd=frame.lkd,
        is_corrupt=frame.is_corrupt,
        labels_HW=labels_HW,
    )


def _key_result(frame: FrameInput, decision: _Decision, labels_HW: np.ndarray) -> FrameResult:
    return FrameResult(
        frame_index=frame.frame_index,
        pts_s=frame.pts_s,
        is_key=True,
        key_frame_index=frame.frame_index,
        decision_score=decision.score,
        kar=decision.kar,
        lkd=decision.lkd,
        is_corrupt=frame.is_corrupt,
        labels_HW=labels_HW,
    )
