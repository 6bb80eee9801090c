"""The lines of the table: propagators as `segment` has them. Another one is another line of `ROWS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """A propagator as `segment` has it: a line of the table."""

    propagator: str = "copy"
    level: str = "labels"
    sides: str = "one"
    scheduler: str = "fixed"
    delay: int | None = None
    """Low latency."""
    learned: bool = False
    """Its weights come from `train-propagation --propagator`, with these options."""
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    net: str = "{net}"
    """The material's net, or what is made of it."""
    read_by: str = ""
    """Another propagator that reads the same file: one branch of what was learned."""
    mixed: float | None = None
    """Accel's branches are mixed, with this share of the light one; nothing that was learned joins them."""
    light_of: str = ""
    """The row whose light net it begins with."""
    share: float = 1.0
    """Of the steps."""
    bare: bool = False
    """Its light net begins from nothing, and not from labels of the clips."""


LEVELS = "sharing:2/{net}"
"""Two levels of it are at hand."""
LIGHT = {"light": "tiny:8"}
"""A net of a third of the cost of the package's."""
CROSSED: Mapping[str, Any] = {
    "propagator": "accel",
    "learned": True,
    "options": LIGHT,
    "recipe": {"crossed": True},
    "bare": True,
}
"""A light net that began with labels of all clips would know them all."""
FINE = {"lr": 3e-4}
"""For a net that is trained already."""

ROWS: Mapping[str, Row] = {
    "net on every frame": Row(scheduler="every"),
    "copy": Row(level="features"),
    "copy, labels": Row(),
    "flow_warp": Row(propagator="flow_warp", level="features"),
    "flow_warp, labels": Row(propagator="flow_warp"),
    "flow_warp, labels, low latency": Row(propagator="flow_warp", delay=3),
    "flow_warp, labels, two sides": Row(propagator="flow_warp", sides="two"),
    "match, labels": Row(propagator="match"),
    "match, labels, two sides": Row(propagator="match", sides="two"),
    "lvs": Row(propagator="lvs", learned=True),
    "lvs, low latency": Row(propagator="lvs", learned=True, delay=3),
    "accel": Row(propagator="accel", learned=True, options=LIGHT),
    "accel, two sides": Row(propagator="accel", learned=True, options=LIGHT, sides="two"),
    "accel, light net alone": Row(
        propagator="accel", learned=True, options=LIGHT, read_by="vidseg_core.propagation.light:Update"
    ),
    **{
        f"accel, {share:.0%} light net": Row(propagator="accel", learned=True, options=LIGHT, mixed=share)
        for share in (0.1, 0.3, 0.5, 0.7)
    },
    "accel, crossed": Row(**CROSSED),
    "accel, crossed, light net alone": Row(**CROSSED, read_by="vidseg_core.propagation.light:Update"),
    "feature_sharing, 1 level": Row(
        propagator="feature_sharing", learned=True, net="sharing:1/{net}", recipe=FINE
    ),
    "feature_sharing, 2 levels": Row(
        propagator="feature_sharing", learned=True, net="sharing:2/{net}", recipe=FINE
    ),
    "flow_warp, scores": Row(propagator="flow_warp", level="scores"),
    "grfp": Row(
        propagator="grfp", learned=True, options=LIGHT, recipe={"batch": 2}, light_of="accel", share=0.25
    ),
    "clockwork": Row(propagator="clockwork", level="features", net=LEVELS),
    "clockwork, clock 4": Row(propagator="clockwork", level="features", net=LEVELS, options={"clock": 4}),
    "clockwork, adaptive": Row(propagator="clockwork", learned=True, net=LEVELS, scheduler="low_change"),
}
"""By name; of those that share `propagator` and `options`, one training serves all."""
