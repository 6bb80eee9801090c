"""From what the user names to work that can be shared out: inputs, ids, segments, branches."""

from __future__ import annotations

from vidseg_core.plan.branches import assign_branches
from vidseg_core.plan.errors import InputError
from vidseg_core.plan.ids import is_safe_id, make_video_id, safe_video_id
from vidseg_core.plan.inputs import VIDEO_SUFFIXES, expand_inputs
from vidseg_core.plan.segments import UNIT_FRAMES, SegmentPlan, UnitPlan, plan_segments
from vidseg_core.plan.video_list import VideoInput

__all__ = [
    "UNIT_FRAMES",
    "VIDEO_SUFFIXES",
    "InputError",
    "SegmentPlan",
    "UnitPlan",
    "VideoInput",
    "assign_branches",
    "expand_inputs",
    "is_safe_id",
    "make_video_id",
    "plan_segments",
    "safe_video_id",
]
