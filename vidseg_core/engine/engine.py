"""The engine: one frame of each of V segments goes in, the masks that became final come out.

Model (DVRL section 3.1, Fig. 2): a frame is compared with the last key frame of its segment; the scheduler
scores the deviation; on a key frame N runs, on any other frame the key's result is propagated. With one side
a frame is final at once. With two sides a frame that is no key waits until the next key is known, and each of
its pixels comes from the key that explains it better (`propagation.two_sided`).

Invariants:
- what comes out for a segment depends on its frames, seed and name alone: not on V, not on the segments that
  share a step, not on `to_bytes` / `from_bytes` in between;
- results of a segment come out in frame order, each frame exactly once;
- at most `max_interval - 1` frames of a segment wait at any time for the next key, and twice as many for a
  scheduler that looks ahead;
- a step that raises has advanced no state.

Legend: H, W working size; h, w flow size; 3 = RGB; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vidseg_core.engine.bound import Bound, Measured, state_bound
from vidseg_core.engine.codec import StateError
from vidseg_core.engine.confidence import LabelRule
from vidseg_core.engine.context import Alone, KeyNet
from vidseg_core.engine.decide import Decider, Decision
from vidseg_core.engine.finalise import Due, Finaliser
from vidseg_core.engine.flows import Flows
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.engine.late import Late, finish
from vidseg_core.engine.look import FrameLook, picture_of_size
from vidseg_core.engine.lookahead import Lookahead, input_of
from vidseg_core.engine.lows import Lows, connect
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import KeyFrame, PendingFrame, SegmentState
from vidseg_core.engine.stats import EngineStats, clock_of
from vidseg_core.models.protocol import Segmenter
from vidseg_core.propagation.filler import filler_of
from vidseg_core.propagation.flow import FlowEstimator, build_flow
from vidseg_core.propagation.gap import Memory
from vidseg_core.propagation.motion import MOST_REFERENCES
from vidseg_core.propagation.propagators import AnyPropagator
from vidseg_core.scheduling.lookahead_window import class_shares, lookahead_labels, lookahead_shape
from vidseg_core.scheduling.pair_maps import layers_of, reads_maps
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler

_NO_VIEW = np.empty((0, 0), np.uint8)
"""Flow picture of a frame whose propagator reads none."""


@dataclass(slots=True, kw_only=True)
class _NewKey:
    key: KeyFrame
    labels_HW: np.ndarray
    memory: Memory
    """What the propagator carries over from it."""


class Engine:
    """Key frame segmentation of several segments in lock step.

    `sides`: "one" (online, as the papers) or "two" (looks ahead). `flow`: an estimator or its registry name.
    `flow_size`: longest side in pixels of the picture on which flow and deviation are computed. `key_batch`:
    frames per call of the net, exactly (fewer are filled up), so more than the number of lanes is waste.
    `rule`: makes pseudo-labels, with confidences (see `confidence`); propagators then carry uint16 maps.
    `delay`: frames after which a key's own result takes effect (low latency, see `late`); None: at once.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        scheduler: Scheduler | WindowScheduler,
        propagator: AnyPropagator,
        *,
        sides: Literal["one", "two"] = "two",
        max_interval: int = 90,
        flow: FlowEstimator | str = "dis",
        flow_size: int = 256,
        key_batch: int = 1,
        device: str | torch.device = "cpu",
        rule: LabelRule | None = None,
        delay: int | None = None,
    ) -> None:
        if sides not in ("one", "two"):
            raise ValueError(f"propagation.sides must be 'one' or 'two', not {sides!r}")
        for name, value in (
            ("max_interval", max_interval),
            ("flow_size", flow_size),
            ("key_batch", key_batch),
        ):
            if int(value) != value or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        self.two_sided = sides == "two"
        self.scheduler, self.filler = scheduler, filler_of(propagator, two_sided=self.two_sided)
        self.max_interval, self.flow_size = int(max_interval), int(flow_size)
        online = None if isinstance(scheduler, WindowScheduler) else scheduler
        self._needs_previous = bool(getattr(online, "needs_previous", False))
        self.net = ChunkedNet(
            segmenter, level=self.filler.level, batch=int(key_batch), device=device, rule=rule
        )
        self.keys: KeyNet = Alone(self.net)
        """What runs N on frames that are key."""
        self.stats, self._late = EngineStats(clock=clock_of(str(self.net.device))), Late(delay)
        self._ahead = (
            Lookahead(
                scheduler,
                self.net,
                self.stats,
                two_sided=self.two_sided,
                max_interval=self.max_interval,
                keeps_frames=self.filler.reads in ("colours", "frame") or self.filler.needs_low,
            )
            if isinstance(scheduler, WindowScheduler)
            else None
        )
        if self._ahead is not None and self._ahead.asks and not self.two_sided:
            raise ValueError(
                f"{type(scheduler).__name__} compares both sides of a gap: it goes with two sides"
            )
        if delay is not None and (self.two_sided or self._ahead is not None):
            raise ValueError("low latency goes with one side and a scheduler that does not look ahead")
        if delay is not None and self.filler.answers_keys:
            raise ValueError(f"low latency does not go with {self.filler.name!r}, which says what keys show")
        estimator = build_flow(flow) if isinstance(flow, str) else flow
        reads_maps(online, estimator)
        self.flows = Flows(estimator, self.stats, layers_of(getattr(online, "map_sets", ())))
        if self.flows.reads_motion and (self.two_sided or self._ahead is not None):
            raise ValueError("motion vectors go with one side and a scheduler that does not look ahead")
        self.reads_low = connect(self.net, scheduler, self.filler)
        self._lows = Lows(self.net, self.stats, needed=self.reads_low)
        self._decider = Decider(online, self.flows, self._lows, self.stats, self.max_interval)
        self._finaliser = Finaliser(self.net, self.filler, self.flows, self.stats)

    @property
    def looks_ahead(self) -> bool:
        """Do frames wait until keys are chosen among them?"""
        return self._ahead is not None

    @property
    def asks_ahead(self) -> bool:
        """Does N run on keys before their turn?"""
        return self._ahead is not None and self._ahead.asks

    def bound(
        self,
        size: tuple[int, int],
        measured: Measured | None = None,
        whole: tuple[int, int] | None = None,
    ) -> Bound:
        """What is kept of a segment at most, at this working size (rows, columns); `measured` on states.

        `whole`: the size is that of a region of such frames."""
        return state_bound(
            self.filler,
            self.scheduler,
            two_sided=self.two_sided,
            max_interval=self.max_interval,
            flow_size=self.flow_size,
            channels=self.flows.estimator.channels,
            size=size,
            whole=whole,
            references=MOST_REFERENCES if self.flows.reads_motion else 0,
            late=self._late.delay is not None,
            measured=measured or Measured(),
        )

    def step(self, states: Sequence[SegmentState], frames: Sequence[FrameInput]) -> list[list[FrameResult]]:
        """Advance each state by its frame; for each segment the results that became final, in frame order."""
        if len(states) != len(frames) or len({id(state) for state in states}) != len(states):
            raise ValueError(f"{len(states)} states (each once) need as many frames, not {len(frames)}")
        if self._ahead is None:
            return self._step([self._look(*part) for part in zip(states, frames, strict=True)])
        return self._step_ahead(self._ahead, states, frames)

    def finish(self, states: Sequence[SegmentState]) -> list[list[FrameResult]]:
        """The segments end here: frames that still wait become final, one-sided from the last key."""
        if self._ahead is not None:
            self._catch_up(self._ahead, states, ends=True)
        self._lows.restore_keys([state for state in states if state.pending])
        due = [_last_due(state) if state.pending else None for state in states]
        results = self._finaliser.run(due)
        for state in states:
            state.pending = []
        return [[*_hand_out(state), *rows] for state, rows in zip(states, results, strict=True)]

    def _step(self, looks: list[FrameLook], chosen: Sequence[bool] | None = None) -> list[list[FrameResult]]:
        """Advance each look's state by its frame. `chosen`: the decisions, where they are made already."""
        states = [look.state for look in looks]
        self._lows.restore_keys(states)
        self._late.arrive(states)
        decisions = self._decide(looks, chosen)
        new_keys = self._run_keys(looks, decisions)
        finals = self._finalise(looks, decisions, new_keys)
        return [
            self._advance(look, decision, key, *final)
            for look, decision, key, final in zip(looks, decisions, new_keys, finals, strict=True)
        ]

    # --- looking ahead (see `lookahead`) -------------------------------------------------------------------

    def _step_ahead(
        self, ahead: Lookahead, states: Sequence[SegmentState], frames: Sequence[FrameInput]
    ) -> list[list[FrameResult]]:
        """Let the frames wait, and step over all that are decided. If that fails half-way, nothing is lost:
        the same frames again go on from there."""
        fresh = [
            (state, frame)
            for state, frame in zip(states, frames, strict=True)
            if state.interrupted_at != frame.frame_index
        ]
        looks = [self._look(*part) for part in fresh]
        now = [look for look in looks if not ahead.waits(look.state)]
        later = [look for look in looks if ahead.waits(look.state)]
        for look, rows in zip(now, self._step(now, [False] * len(now)), strict=True):
            look.state.undelivered += rows
            look.state.interrupted_at = look.frame.frame_index
        for look in later:
            ahead.keep(look.state, look.frame, look.view)
            look.state.interrupted_at = look.frame.frame_index
        self._catch_up(ahead, states, ends=False)
        for state in states:
            state.interrupted_at = None
        return [_hand_out(state) for state in states]

    def _catch_up(self, ahead: Lookahead, states: Sequence[SegmentState], *, ends: bool) -> None:
        """Step over all waiting frames whose decision can be known, one of each segment at a time."""
        while True:
            with self.stats.timed("lookahead"):
                ahead.choose(states, ends)
                decided = [(state, ahead.decide(state)) for state in states]
            waits = {self.keys.together(state) for state, is_key in decided if is_key is None}
            turn = [
                (state, is_key)
                for state, is_key in decided
                if is_key is not None and self.keys.together(state) not in waits
            ]
            if not turn:
                return
            looks = [
                self._look(state, input_of(state.waiting[0]), state.waiting[0].view) for state, _ in turn
            ]
            for look, rows in zip(looks, self._step(looks, [is_key for _, is_key in turn]), strict=True):
                look.state.waiting = look.state.waiting[1:]
                look.state.undelivered += rows

    # --- one step, in order -------------------------------------------------------------------------------

    def _look(self, state: SegmentState, frame: FrameInput, view: np.ndarray | None = None) -> FrameLook:
        """`view`: of a frame that has waited, its flow picture."""
        before = state.waiting[-1].frame_index if state.waiting and view is None else state.last_frame_index
        if frame.frame_index <= before:
            raise ValueError(f"segment {state.segment}: frame {frame.frame_index} after frame {before}")
        if state.level not in ("", self.filler.level):
            raise StateError(
                f"segment {state.segment}: state has level {state.level!r}, engine {self.filler.level!r}"
            )
        look = FrameLook(state, frame, self.flows.estimator.channels, self.flow_size, self.stats, view)
        if state.key is not None and state.key.view.shape != look.view_shape:
            raise StateError(
                f"segment {state.segment}: key seen as {state.key.view.shape}, frame as {look.view_shape}"
            )
        return look

    def _decide(self, looks: list[FrameLook], chosen: Sequence[bool] | None) -> list[Decision]:
        decisions = self._decider.decide(looks, chosen)
        if self.filler.needs_flow and not self.two_sided:
            carried = [
                look
                for look, decision in zip(looks, decisions, strict=True)
                if not decision.is_key or self._late.shows_carried(look.state)
            ]
            self.flows.online([look for look in carried if look.flow_hw2 is None])
        if self.filler.needs_low and not self.filler.low_waits:
            self._lows.see(looks)
        return decisions

    def _run_keys(self, looks: list[FrameLook], decisions: list[Decision]) -> list[_NewKey | None]:
        chosen = [look for look, decision in zip(looks, decisions, strict=True) if decision.is_key]
        if self._lows.needed:
            self._lows.see(chosen)
        low = [look.low_maps for look in chosen] if self._lows.needed else None
        results = iter(self._results(chosen, low))
        keeps_frame = self.filler.keeps_frame or self._lows.needed
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
                rgb_HW3=look.frame.frame_HW3.copy() if keeps_frame else self._kept_picture(look),
                low_maps=look.low_maps,
            )
            memory: Memory = {}
            if self.filler.answers_keys:
                labels_HW, memory = self._finaliser.at_key(key, look.state.carried_over)
            keys.append(_NewKey(key=key, labels_HW=labels_HW, memory=memory))
        return keys

    def _results(self, chosen: list[FrameLook], low: list[Any] | None) -> list[tuple[np.ndarray, Any]]:
        """What N says of frames that are key, and what is carried of them; it has run on some already."""
        known = [_known(look) for look in chosen]
        fresh = [number for number, said in enumerate(known) if said is None]
        with self.stats.timed("net"):
            lows = None if low is None else [low[number] for number in fresh]
            results = iter(self.keys.run([chosen[number] for number in fresh], lows))
        return [next(results) if said is None else said for said in known]

    def _finalise(
        self, looks: list[FrameLook], decisions: list[Decision], new_keys: list[_NewKey | None]
    ) -> list[tuple[list[FrameResult], Memory]]:
        """For each lane the rows before the current frame that a new key makes final, or the frame's own; and
        what the propagator carries over."""
        due: list[Due | None] = []
        for look, decision, new_key in zip(looks, decisions, new_keys, strict=True):
            state, left = look.state, look.state.key
            if left is not None and new_key is not None and self._late.shows_carried(state):
                memory = finish(left, state.carried_over)
                frames = [self._pending(look, decision)]
                due.append(Due(frames=frames, left=left, right=None, memory=memory))
            elif left is None or (new_key is not None and not state.pending):
                due.append(None)
            elif new_key is not None:
                due.append(Due(frames=state.pending, left=left, right=new_key.key, memory=state.carried_over))
            elif not self.two_sided:
                frames = [self._pending(look, decision)]
                due.append(Due(frames=frames, left=left, right=None, memory=state.carried_over))
            else:
                due.append(None)
        rows = self._finaliser.run(due)
        for lane, new_key in zip(due, new_keys, strict=True):
            if lane is not None and new_key is not None and lane.right is None:
                self._late.stand_in(new_key.key, lane.filled)
        kept = [look.state.carried_over if self.filler.remembers else {} for look in looks]
        memories = [before if lane is None else lane.memory for before, lane in zip(kept, due, strict=True)]
        return list(zip(rows, memories, strict=True))

    def _pending(self, look: FrameLook, decision: Decision) -> PendingFrame:
        reads = self.filler.own_reads if self.flows.reads_motion else self.filler.reads
        return PendingFrame(
            frame_index=look.frame.frame_index,
            pts_s=look.frame.pts_s,
            is_corrupt=look.frame.is_corrupt,
            decision_score=decision.score,
            kar=decision.kar,
            lkd=decision.lkd,
            view=_NO_VIEW if reads == "nothing" else look.view,
            rgb_HW3=self._kept_picture(look),
            low_maps=look.low_maps if self.filler.needs_low and not self.filler.low_waits else None,
            flow_hw2=look.flow_hw2,
        )

    def _kept_picture(self, look: FrameLook) -> np.ndarray | None:
        """What the propagator is shown of a frame's colours, of its own."""
        if self.filler.reads == "colours":
            height, width = look.view_shape[:2]
            return picture_of_size(look.frame.frame_HW3, (height, width), 3)
        return look.frame.frame_HW3.copy() if self.filler.reads == "frame" else None

    def _advance(
        self,
        look: FrameLook,
        decision: Decision,
        new_key: _NewKey | None,
        rows: list[FrameResult],
        memory: Memory,
    ) -> list[FrameResult]:
        state = look.state
        references = self.flows.references(look, is_key=new_key is not None)
        if new_key is not None and new_key.key.own_from is not None:
            (row,) = rows
            row.is_key, row.key_frame_index = True, look.frame.frame_index
            state.key, state.pending = new_key.key, []
        elif new_key is not None:
            settled = self.net.settle(new_key.labels_HW)
            rows = [*rows, _key_result(look.frame, decision, *settled)]
            if state.next_key != new_key.key.ordinal:  # no plan has foreseen it
                state.further_keys = []
            state.key, state.pending, state.next_key = new_key.key, [], None
            if self._ahead is not None:
                state.key.lookahead_labels = lookahead_labels(
                    settled[0], *lookahead_shape(*new_key.key.view.shape[:2])
                )
                if self._ahead.asks and state.class_shares_K is None and not look.frame.is_corrupt:
                    state.area = look.frame.area
                    state.class_shares_K = class_shares(state.key.lookahead_labels)
        elif self.two_sided:
            state.pending.append(self._pending(look, decision))
        state.references = references
        if new_key is None or self.filler.remembers:
            state.carried_over = memory
        else:
            state.carried_over = new_key.memory
        helps_next = new_key is None and self.flows.estimator.chained
        state.last_flow_hw2 = look.flow_hw2 if helps_next else None
        state.last_view = look.view if new_key is None and self._needs_previous else None
        if decision.is_key:
            state.memory = 0.0
        elif decision.memory is not None:
            state.memory = decision.memory
        state.history.add(decision.is_key)
        state.next_frame += 1
        state.last_frame_index = look.frame.frame_index
        state.level = self.filler.level
        self.stats.frames += 1
        self.stats.keys += decision.is_key
        return rows


def _known(look: FrameLook) -> tuple[np.ndarray, Any] | None:
    """What N has said of a frame that has waited, if the scheduler has asked for it."""
    waiting = look.state.waiting[0] if look.state.waiting else None
    if waiting is None or waiting.frame_index != look.frame.frame_index or waiting.carried is None:
        return None
    assert waiting.labels_HW is not None
    return waiting.labels_HW, waiting.carried


def _last_due(state: SegmentState) -> Due:
    """The frames after the last key of a segment."""
    return Due(frames=state.pending, left=_key_of(state), right=None, memory=state.carried_over)


def _hand_out(state: SegmentState) -> list[FrameResult]:
    rows, state.undelivered = state.undelivered, []
    return rows


def _key_of(state: SegmentState) -> KeyFrame:
    if state.key is None:
        raise StateError(f"segment {state.segment}: no key frame yet")
    return state.key


def _key_result(
    frame: FrameInput, decision: Decision, labels_HW: np.ndarray, confidence: float, share: float
) -> FrameResult:
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
        confidence=confidence,
        confident_share=share,
    )
