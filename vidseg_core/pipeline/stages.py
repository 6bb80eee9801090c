"""The functions of a run, as every executor calls them."""

from __future__ import annotations

from dataclasses import dataclass

from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import NetFacts
from vidseg_core.media import DecodeChild, MediaLimits
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.decode_stage import limits_of
from vidseg_core.pipeline.kept import kept_videos
from vidseg_core.pipeline.plan_stage import PlanOptions, PlanStage
from vidseg_core.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What is done to a video, with the store and the limits that it is done under.

    The functions are small and picklable; ``child`` is this driver's own decoder, not started before it is
    used.
    """

    config: SegmentConfig
    store: ObjectStore
    limits: MediaLimits
    plan: PlanStage
    commit: CommitStage
    child: DecodeChild

    @classmethod
    def of(
        cls, config: SegmentConfig, store: ObjectStore, net: NetFacts, child: DecodeChild | None = None
    ) -> Stages:
        """The stages of a run with this net; ``child``: a decoder that is there already."""
        limits = limits_of(config.media)
        return cls(
            config=config,
            store=store,
            limits=limits,
            child=child or DecodeChild(limits),
            plan=PlanStage(store, limits, PlanOptions.of(config, kept_videos(store))),
            commit=CommitStage(
                store,
                len(net.class_names),
                confidence=isinstance(config, PseudoLabelConfig),
                regions=config.regions if config.regions.on else None,
            ),
        )
