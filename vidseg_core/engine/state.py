"""Everything the engine remembers of one segment between two frames.

A `SegmentState` is data: the engine reads it, and `to_bytes` / `from_bytes` (see `codec`) carry it to another
process. Invariant: a restored state gives bit for bit the masks that the original would have given. What can
be recomputed from what is kept (flows of pending frames, scores and features of the key) is not stored.

Legend: H, W working size; h, w flow size; 3 = RGB; 2 = (u, v).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vidseg_core.engine.codec import StateError, pack, unpack
from vidseg_core.engine.frames import FrameResult
from vidseg_core.propagation.gap import GapKey, Memory
from vidseg_core.scheduling.history import HISTORY_LENGTH, DecisionHistory

STATE_VERSION = 3

NO_KEY = -1
"""`SegmentState.next_key`: no more keys up to the end of the segment."""


@dataclass(slots=True, kw_only=True)
class KeyFrame(GapKey):
    """The last key frame (LKF) and what is kept of it for propagation.

    `carried` is None after a restore until it has been recomputed from the frame (scores and features).
    """

    ordinal: int
    """Number of the frame in the segment, counted in decoded frames."""
    frame_index: int
    """Number of the frame in the video."""
    is_corrupt: bool
    own: Any = None
    """What N gave, while something that was carried here is used in its place (low latency, see `late`)."""
    own_from: int | None = None
    """Ordinal of the frame from which that is over; None: it is over."""
    lookahead_labels: np.ndarray | None = None
    """N's mask at the size of planning, for schedulers that look ahead only."""


@dataclass(slots=True, kw_only=True)
class PendingFrame:
    """A frame that waits for the next key (two-sided propagation): its decision and what it looks like."""

    frame_index: int
    pts_s: float
    is_corrupt: bool
    decision_score: float
    kar: float
    lkd: int
    view: np.ndarray
    """uint8 gray hw or RGB hw3 at flow size; of no size where nobody reads it."""
    rgb_HW3: np.ndarray | None = None
    """uint8 RGB at working or flow size, for propagators that read it only."""
    low_maps: Any = None
    """Low-level features, where the propagator reads them: such frames become final at once. Never stored."""
    flow_hw2: np.ndarray | None = None
    """Flow to the key before it, if it has been estimated already; never stored."""


@dataclass(slots=True, kw_only=True)
class WaitingFrame:
    """A frame that waits for a decision (see `lookahead`); it has not been stepped over yet."""

    frame_index: int
    pts_s: float
    is_corrupt: bool
    shape: tuple[int, int]
    """(H, W), working size."""
    view: np.ndarray
    """uint8 gray hw or RGB hw3 at flow size."""
    frame_HW3: np.ndarray | None
    """uint8 RGB at working size, of frames that can become key."""
    labels_HW: np.ndarray | None = None
    """N's mask, of frames whose masks were asked for: they will be keys."""
    carried: Any = None
    """What is carried of it then; of labels the same, else None after a restore, and N runs again."""


@dataclass(slots=True, kw_only=True)
class SegmentState:
    """State of one segment. `SegmentState.new(...)` starts it; `Engine.step` advances it in place."""

    seed: int
    segment: str
    """A name that distinguishes the segments of a run; with the seed it decides all random numbers."""
    next_frame: int = 0
    """Ordinal of the frame that comes next: the number of frames stepped over so far."""
    last_frame_index: int = -1
    """Video-wide number of the frame stepped over last."""
    level: str = ""
    """Propagation level of the engine that advanced it; empty before the first frame."""
    key: KeyFrame | None = None
    last_flow_hw2: np.ndarray | None = None
    """Flow of the frame stepped over last to the key, when the engine has estimated it: it helps the
    frame that comes next (`propagation.chain`). None right after a key."""
    last_view: np.ndarray | None = None
    """Flow picture of the frame stepped over last, for schedulers that read it; None right after a key."""
    references: dict[int, np.ndarray | None] = field(default_factory=dict)
    """With motion vectors: flows to the last key of frames that later ones may refer to, by number; None: the
    key itself."""
    history: DecisionHistory = field(default_factory=DecisionHistory)
    carried_over: Memory = field(default_factory=dict)
    """What the propagator keeps from frame to frame (`Gap.memory`); empty after a key, unless it says what a
    key shows (`at_key`)."""
    memory: float = 0.0
    """A number that the scheduler keeps from frame to frame; 0 after a key (`Deviation.remember`)."""
    pending: list[PendingFrame] = field(default_factory=list)
    waiting: list[WaitingFrame] = field(default_factory=list)
    """Frames after the one stepped over last that nothing has been decided about."""
    next_key: int | None = None
    """Ordinal of the next key, `NO_KEY` if there is none up to the end; None: not chosen yet."""
    further_keys: list[int] = field(default_factory=list)
    """Ordinals of keys after it that are chosen, too."""
    area: float = 1.0
    """Share of the frame that a region shows, its overlap counted; kept for schedulers that ask for masks."""
    class_shares_K: np.ndarray | None = None
    """float64, by class id: share of the frame's pixels in the first undamaged key; for them, too."""
    undelivered: list[FrameResult] = field(default_factory=list)
    """Results of a step that failed half-way; the next one hands them out. Never stored."""
    interrupted_at: int | None = None
    """Video-wide number of the frame that a step took in before it failed. Never stored."""

    @classmethod
    def new(cls, seed: int, segment: str) -> SegmentState:
        """The state before the first frame of a segment."""
        return cls(seed=seed, segment=segment)

    def to_bytes(self) -> bytes:
        """This state as bytes: versioned, checksummed, compressed, no pickle."""
        return pack(STATE_VERSION, *_contents(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> SegmentState:
        """The state that `to_bytes` stored. Raises StateError for damaged bytes or another version."""
        header, arrays = unpack(STATE_VERSION, data)
        try:
            return _state_from(header, arrays)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StateError(f"segment state is inconsistent: {type(error).__name__}: {error}") from error


# --- how it is stored -------------------------------------------------------------------------------------


def _contents(state: SegmentState) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays. Floats are float64 arrays where infinities may be, so that every bit survives."""
    arrays = {
        "history": np.array(state.history.decisions, np.bool_),
        **_pending_arrays(state.pending),
        **_waiting_arrays(state.waiting),
    }
    header: dict[str, Any] = {
        "seed": state.seed,
        "segment": state.segment,
        "next_frame": state.next_frame,
        "last_frame_index": state.last_frame_index,
        "level": state.level,
        "planned": state.next_key,
        **({"further": state.further_keys} if state.further_keys else {}),
        **({} if state.class_shares_K is None else {"area": state.area}),
        "memory": state.memory,
        "key": None,
    }
    if state.key is not None:
        key = state.key
        header["key"] = {
            "ordinal": key.ordinal,
            "frame_index": key.frame_index,
            "is_corrupt": key.is_corrupt,
        }
        if key.own_from is not None:
            header["key"]["own_from"] = key.own_from
            header["fast"] = _store_fast(key, arrays)
        arrays["key.view"] = key.view
        if state.level == "labels":
            arrays["key.labels"] = key.carried
        if key.rgb_HW3 is not None:
            arrays["key.frame"] = key.rgb_HW3
        if key.lookahead_labels is not None:
            arrays["key.plan"] = key.lookahead_labels
    if state.last_flow_hw2 is not None:
        arrays["last_flow"] = state.last_flow_hw2
    if state.last_view is not None:
        arrays["last_view"] = state.last_view
    if state.references:
        header["references"] = list(state.references)
        arrays |= {f"reference.{n}": flow for n, flow in state.references.items() if flow is not None}
    if state.class_shares_K is not None:
        arrays["class_shares"] = state.class_shares_K
    arrays |= {f"{_CARRIED_OVER}{name}": array for name, array in state.carried_over.items()}
    return header, arrays


def _state_from(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> SegmentState:
    if len(arrays["history"]) > HISTORY_LENGTH:
        raise ValueError(f"history of {len(arrays['history'])} decisions")
    key = None
    if header["key"] is not None:
        is_stored = header["level"] == "labels"
        key = KeyFrame(
            **header["key"],
            view=arrays["key.view"],
            carried=arrays["key.labels"] if is_stored else _fast_from(header, arrays),
            own=arrays.get("key.own"),
            rgb_HW3=arrays.get("key.frame") if is_stored else arrays["key.frame"],
            lookahead_labels=arrays.get("key.plan"),
        )
    return SegmentState(
        seed=header["seed"],
        segment=header["segment"],
        next_frame=header["next_frame"],
        last_frame_index=header["last_frame_index"],
        level=header["level"],
        key=key,
        last_flow_hw2=arrays.get("last_flow"),
        last_view=arrays.get("last_view"),
        references={n: arrays.get(f"reference.{n}") for n in header.get("references", ())},
        history=DecisionHistory(arrays["history"].tolist()),
        pending=_pending_from(arrays),
        waiting=_waiting_from(arrays, header["level"] == "labels"),
        next_key=header["planned"],
        further_keys=header.get("further", []),
        area=header.get("area", 1.0),
        class_shares_K=arrays.get("class_shares"),
        memory=header["memory"],
        carried_over={
            name.removeprefix(_CARRIED_OVER): array
            for name, array in arrays.items()
            if name.startswith(_CARRIED_OVER)
        },
    )


def _store_fast(key: KeyFrame, arrays: dict[str, np.ndarray]) -> str | list[str]:
    """What stands in for N's result: label maps are stored as any key's, and N's beside them; of maps each is
    stored, and N's are made again from the frame. The type of the map; of maps in a tuple a list."""
    if isinstance(key.carried, np.ndarray):
        arrays["key.own"] = key.own
        return []
    maps = [key.carried] if isinstance(key.carried, torch.Tensor) else list(key.carried)
    arrays |= {f"key.fast.{number}": _exact(one).cpu().numpy() for number, one in enumerate(maps)}
    names = [str(one.dtype).removeprefix("torch.") for one in maps]
    return names[0] if isinstance(key.carried, torch.Tensor) else names


def _exact(one_map: torch.Tensor) -> torch.Tensor:
    """With every bit, in a type that numpy has."""
    return one_map.float() if one_map.dtype is torch.bfloat16 else one_map


def _fast_from(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """The maps that `_store_fast` stored; None where there are none."""
    names = header.get("fast", ())
    maps = [
        torch.from_numpy(arrays[f"key.fast.{number}"].copy()).to(getattr(torch, name))
        for number, name in enumerate([names] if isinstance(names, str) else names)
    ]
    return maps[0] if isinstance(names, str) else tuple(maps) or None


_CARRIED_OVER = "carried_over."
"""Before a propagator's own names."""


_PENDING_FIELDS = {
    "frame_index": np.int64,
    "pts_s": np.float64,
    "is_corrupt": np.bool_,
    "decision_score": np.float64,
    "kar": np.float64,
    "lkd": np.int64,
}


def _pending_arrays(pending: list[PendingFrame]) -> dict[str, np.ndarray]:
    if not pending:
        return {}
    arrays = {
        f"pending.{name}": np.array([getattr(frame, name) for frame in pending], dtype)
        for name, dtype in _PENDING_FIELDS.items()
    }
    arrays["pending.views"] = np.stack([frame.view for frame in pending])
    pictures = [frame.rgb_HW3 for frame in pending if frame.rgb_HW3 is not None]
    return arrays | ({"pending.pictures": np.stack(pictures)} if pictures else {})


def _pending_from(arrays: dict[str, np.ndarray]) -> list[PendingFrame]:
    if "pending.views" not in arrays:
        return []
    columns = [arrays[f"pending.{name}"].tolist() for name in _PENDING_FIELDS]
    views = arrays["pending.views"]
    pictures = arrays.get("pending.pictures", [None] * len(views))
    names = (*_PENDING_FIELDS, "view", "rgb_HW3")
    rows = zip(*columns, views, pictures, strict=True)
    return [PendingFrame(**dict(zip(names, row, strict=True))) for row in rows]


_WAITING_FIELDS = {"frame_index": np.int64, "pts_s": np.float64, "is_corrupt": np.bool_}


def _waiting_arrays(waiting: list[WaitingFrame]) -> dict[str, np.ndarray]:
    """Pictures are kept of the frames that have one only."""
    if not waiting:
        return {}
    arrays = {
        f"waiting.{name}": np.array([getattr(frame, name) for frame in waiting], dtype)
        for name, dtype in _WAITING_FIELDS.items()
    }
    pictures = [frame.frame_HW3 for frame in waiting if frame.frame_HW3 is not None]
    if pictures:
        arrays["waiting.pictures"] = np.stack(pictures)
    masks = {str(number): frame.labels_HW for number, frame in enumerate(waiting)}
    arrays |= {f"waiting.mask.{number}": mask_HW for number, mask_HW in masks.items() if mask_HW is not None}
    return arrays | {
        "waiting.views": np.stack([frame.view for frame in waiting]),
        "waiting.shape": np.array(waiting[0].shape, np.int64),
        "waiting.kept": np.array([frame.frame_HW3 is not None for frame in waiting], np.bool_),
    }


def _waiting_from(arrays: dict[str, np.ndarray], is_carried: bool) -> list[WaitingFrame]:
    """`is_carried`: masks are what is carried."""
    if "waiting.views" not in arrays:
        return []
    columns = [arrays[f"waiting.{name}"].tolist() for name in _WAITING_FIELDS]
    height, width = arrays["waiting.shape"].tolist()
    pictures = iter(arrays.get("waiting.pictures", ()))
    rows = zip(*columns, arrays["waiting.views"], arrays["waiting.kept"].tolist(), strict=True)
    masks = [arrays.get(f"waiting.mask.{number}") for number in range(len(columns[0]))]
    return [
        WaitingFrame(
            **dict(zip((*_WAITING_FIELDS, "view"), row, strict=True)),
            shape=(height, width),
            frame_HW3=next(pictures) if kept else None,
            labels_HW=mask_HW,
            carried=mask_HW if is_carried else None,
        )
        for (*row, kept), mask_HW in zip(rows, masks, strict=True)
    ]
