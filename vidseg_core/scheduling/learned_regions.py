"""What a trained scheduler has learned from, whole frames or regions of them, and what it is to decide for.

Model: what keys are worth, and so what a threshold stands for, changes with the part of a frame that is seen.
A file says from which regions its tables were (nothing: from whole frames). Another grid is refused. A file
that has learned from frames runs on regions, and a file of one overlap on another: that is said, since
thresholds and intervals of the file do not hold there.
"""

from __future__ import annotations

from collections.abc import Mapping

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.models.planner import PlannerFacts
from vidseg_core.models.policy_file import PolicyFacts
from vidseg_core.models.policy_trunk import PolicyError


def note_on_regions(scheduler: object, regions: RegionsConfig) -> str:
    """What the user should know of this scheduler on these regions (1x1: frames); empty: nothing.

    `PolicyError` for a trained one that has learned from another grid.
    """
    facts = getattr(scheduler, "facts", None)
    return note_on_file(facts.fingerprint, regions) if isinstance(facts, PolicyFacts | PlannerFacts) else ""


def note_on_file(fingerprint: Mapping[str, str], regions: RegionsConfig) -> str:
    """`note_on_regions` of a file that learned from tables made with this `fingerprint`."""
    try:
        learned = RegionsConfig.of_record(fingerprint)
    except (ValueError, KeyError) as error:
        raise PolicyError(f"the file does not say from which regions it has learned: {error}") from error
    said = f"has learned from {learned.words()}"
    if learned.on and learned.grid != regions.grid:
        raise PolicyError(
            f"the file {said}, and is to decide for {regions.words()}: take one that has learned from tables "
            "of these"
        )
    if learned.recorded() == regions.recorded():
        return ""
    return (
        f"The scheduler {said}, and decides for {regions.words()}: its thresholds stand for other intervals "
        "here."
    )
