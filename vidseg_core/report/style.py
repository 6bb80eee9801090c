"""How plots look: Okabe-Ito colours, a marker and a dash for each method too, type that a phone can show.

Every plot is drawn twice, wide for a laptop and narrow for a phone, by the same function; `Figure` objects
only, so that drawing has no global state and needs no display.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidseg_core.drawing.palette import OKABE_ITO

ORACLE_HEX, EVERY_HEX = "#000000", "#666666"
COLOURS = tuple("#{:02x}{:02x}{:02x}".format(*OKABE_ITO[i]) for i in (5, 6, 3, 1, 7, 2))
"""Blue, vermilion, green, orange, purple, sky blue; yellow is too pale for lines on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))
KEY_HEX = COLOURS[1]
WIDE, NARROW = (8.2, 4.3), (4.1, 3.9)
"""Inches; type is 10 points in both, so a narrow one is legible on a phone."""
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 8.5,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.hashsalt": "vidseg",
    "savefig.facecolor": "white",
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn everywhere on a page."""

    colour: str
    marker: str
    dash: Any


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by order; what is called oracle is black, the net on every frame gray."""
    found: dict[str, Look] = {}
    place = 0
    for name in dict.fromkeys(names):
        if name.split(" ")[0] == "oracle":
            dash = DASHES[1 + sum(1 for known in found if known.startswith("oracle")) % 3]
            found[name] = Look(ORACLE_HEX, "*", dash)
            continue
        if name.split(" ")[0] == "every":
            found[name] = Look(EVERY_HEX, "h", ":")
            continue
        colour = COLOURS[place % len(COLOURS)]
        dash = DASHES[(place // len(COLOURS)) % len(DASHES)]
        found[name] = Look(colour, MARKERS[place % len(MARKERS)], dash)
        place += 1
    return found


def plain(text: object, limit: int = 48) -> str:
    """Text from outside as matplotlib may draw it: one line, no mathematics, not too long."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(text))
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("$", r"\$")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture of the page."""

    name: str
    """Name of its files, without ending."""
    alt: str
    """What it shows, for those who do not see it."""
    draw: Callable[[Figure, bool], None]
    """Draws onto a figure; given whether it is narrow."""
    wide: tuple[float, float] = WIDE
    narrow: tuple[float, float] = NARROW

    def figure(self, narrow: bool = False) -> Figure:
        with matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=self.narrow if narrow else self.wide, layout="constrained")
            FigureCanvasAgg(figure)
            self.draw(figure, narrow)
            return figure

    def save(self, kind: str, narrow: bool = False, dpi: int = 150) -> bytes:
        """The picture as `svg` or `png`; bytes depend on what is drawn alone."""
        with matplotlib.rc_context(_STYLE):
            sink = io.BytesIO()
            metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
            self.figure(narrow).savefig(sink, format=kind, dpi=dpi, metadata=metadata)
            return sink.getvalue()


def data_uri(data: bytes, kind: str) -> str:
    """`data:` address of a picture or clip; `kind` such as image/jpeg."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def legend_columns(names: Sequence[str]) -> int:
    """Below a narrow plot."""
    return 1 if max(map(len, names), default=0) > 20 else 2


def narrow_size(names: Sequence[str], height: float = 3.0) -> tuple[float, float]:
    """Inches of a narrow plot with these names below it."""
    rows = -(-len(names) // legend_columns(names))
    return (NARROW[0], height + 0.2 * rows)


def legend(axes: Axes, narrow: bool, **options: Any) -> None:
    """Outside on the right of a wide plot, below a narrow one; nothing if there is nothing to explain."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    figure = axes.figure
    assert isinstance(figure, Figure)
    if narrow:
        columns = legend_columns(labels)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, **options)
    else:
        figure.legend(handles, labels, loc="outside right center", frameon=False, **options)
