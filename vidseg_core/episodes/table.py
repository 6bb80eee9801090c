"""What is known of one segment before anybody learns to schedule it: every quality and every deviation.

Model (DVRL section 3.2): with N and the propagator frozen, the reward of a decision on frame i depends only
on i and on the last key frame k. Both are tabulated once; an episode is then a walk through tables, and no
net runs while a policy learns.

Legend: T frames, L horizon (largest distance to the key), F deviation features; h, w small pictures; G frames
that may be key, M values of a map. `[k, d]` speaks of frame k + d while k is the last key frame, d from 0 to
L; entries past the end are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.regions import video_of
from vidseg_core.store.errors import DamagedFile


class EpisodeError(ValueError):
    """A table that cannot be built, read or used as asked; one sentence that says which and why."""

    exit_code = 2


class DamagedTable(DamagedFile, EpisodeError):
    """A committed table that is not whole, or not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeTable:
    """One segment's tables. Arrays are read-only: trials share them."""

    clip: str
    """The video, or a region of it."""
    segment: int
    quality_TL1: np.ndarray
    """float32 [T, L + 1]: quality of frame k + d when it shows what key k propagates; d = 0: the key action
    itself (DVRL Eq. 1 against labels, Eq. 2 as agreement with N's own mask). NaN: not known."""
    deviation_TL1F: np.ndarray
    """float32 [T, L + 1, F]: what the scheduler sees of (k, k + d) (DVRL section 3.1); zeros at d = 0."""
    feature_names: tuple[str, ...]
    two_sided_TL1: np.ndarray | None = None
    """float32 [T, L + 1]: sum of the qualities of the frames strictly between keys k and k + d, each pixel
    from the better side; 0 at d = 0 and 1. NaN: not known. None: one-sided only."""
    grays_Thw: np.ndarray | None = None
    """uint8 [T, h, w]: the frames as a planner sees them (`scheduling.lookahead_window`); None: not kept."""
    masks_Thw: np.ndarray | None = None
    """uint8 [T, h, w]: N's masks at that size."""
    area: float = 1.0
    """Share of the frame that the pictures show, of a region; for schedulers that ask for masks."""
    class_shares_K: np.ndarray | None = None
    """float64, by class id: share of the clip's first frame; None: of the first mask. Not stored."""
    maps_GL1M: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By set (`scheduling.pair_maps`), float16 [G, L + 1, M]: whole maps of the pairs, of the frames that may
    be key; zeros past the end and at d = 0."""
    views_Thwc: np.ndarray | None = None
    """uint8 [T, h, w, c]: the flow pictures, from which maps are made that are not kept; None: not kept."""
    read_map: str = ""
    """The set of maps that is read in place of the features (`walk.with_features`)."""
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """What the table was made with (N, propagator, flow, sizes, quality); equal for all tables of a set."""

    @property
    def video(self) -> str:
        """The video; videos, not frames or regions, are split between training and validation."""
        return video_of(self.clip, RegionsConfig.of_record(self.fingerprint))

    @property
    def frames(self) -> int:
        """T."""
        return self.quality_TL1.shape[0]

    @property
    def horizon(self) -> int:
        """L: no frame may be further from its key."""
        return self.quality_TL1.shape[1] - 1

    @property
    def key_stride(self) -> int:
        """Every so many frames one may be key."""
        return int(self.fingerprint.get("key_stride") or 1)

    @property
    def key_quality_T(self) -> np.ndarray:
        """float32 [T]: quality of the key action, u1 of DVRL section 3.2."""
        return self.quality_TL1[:, 0]
