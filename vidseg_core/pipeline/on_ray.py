"""The stages of a run on Ray: its segments dealt over branches, those over cells."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import pyarrow as pa
import ray

from vidseg_core.kit.device import cluster_device
from vidseg_core.pipeline.branches import Layout, packed, share_of_store
from vidseg_core.pipeline.cells import Cells
from vidseg_core.pipeline.decode_stage import DecodeStage
from vidseg_core.pipeline.drain import Drain
from vidseg_core.pipeline.plan_stage import OpenSegment
from vidseg_core.pipeline.planning import RayPlanning
from vidseg_core.pipeline.sizing import size_up
from vidseg_core.pipeline.stages import Stages
from vidseg_core.plan.branches import assign_branches, interleave
from vidseg_core.plan.video_list import VideoInput


class RayExecutor:
    """Runs a wave's segments on the Ray that this process is connected to."""

    wave_videos = 2_000

    def __init__(self, stages: Stages, drain: Drain) -> None:
        self._stages = stages
        self._decode = DecodeStage(stages.store, stages.limits, drain.mark())
        self.device = cluster_device(stages.config.device, ray.cluster_resources().get("GPU", 0.0))
        self.branches = 0
        self.lost: list[Exception] = []
        self.stepped: Callable[[int], None] = lambda frames: None

    def planning(self, videos: Sequence[VideoInput]) -> RayPlanning:
        """The plan of some videos."""
        return RayPlanning(videos, self._stages.plan)

    def receipts(self, segments: Sequence[OpenSegment]) -> Generator[pa.Table]:
        """Receipts as they come, of all branches. Closing it ends the cells."""
        stages, config = self._stages, self._stages.config
        sizing = size_up(config, len(segments))
        groups = assign_branches([segment.frames for segment in segments], sizing.branches)
        plans = [
            packed(interleave([segments[i].units for i in group], config.lanes), config.lanes)
            for group in groups
            if group
        ]
        layout = Layout(
            config=config,
            store=stages.store,
            decode=self._decode,
            commit=stages.commit,
            sizing=sizing,
            store_share=share_of_store([unit for segment in segments for unit in segment.units], sizing),
        )
        cells = Cells(plans, layout)
        self.branches, self.lost = len(plans), cells.lost
        yield from cells.receipts()
