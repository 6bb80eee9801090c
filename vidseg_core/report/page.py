"""One HTML page, whole in itself: no script, no address outside of it, every picture inside.

Invariant: text from inputs (names of videos and methods, messages) reaches the page through `esc` only, so
that a video called ``<script>`` is a video called that. A policy in the page's head forbids scripts and
everything from elsewhere, should that ever fail.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidseg_core.report.style import Plot, data_uri

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
LONG_TEXT = 60
"""Characters of a cell from which on its column is wide."""
FOLDED_ROWS = 12
"""A table of more rows may fold away, so that plots are not pushed off the screen."""
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
CSS = """
:root { color-scheme: light; --ink: #1c2126; --soft: #59636e; --line: #d9dee3; --tint: #f4f6f8;
        --accent: #0072b2; --warn: #fff4d6; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 system-ui, "Segoe UI", Roboto,
       "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 1.25rem; margin: 44px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 26px 0 6px; }
p { margin: 6px 0 12px; max-width: 74ch; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: 6px 8px; margin: 14px 0; padding: 0; }
nav a { color: var(--accent); text-decoration: none; background: var(--tint); border-radius: 14px;
        padding: 3px 12px; font-size: .9rem; }
nav a:hover, nav a:focus { text-decoration: underline; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px;
         margin: 14px 0; }
.card { background: var(--tint); border-radius: 8px; padding: 10px 12px; }
.card b { display: block; font-size: 1.25rem; line-height: 1.3; }
.card span { color: var(--soft); font-size: .85rem; }
.note { background: var(--warn); border-left: 4px solid #e69f00; padding: 8px 12px; margin: 10px 0; }
figure { margin: 14px 0; }
figure img { display: block; width: 100%; height: auto; }
figure video { display: block; max-width: 100%; max-height: 80vh; border-radius: 4px; }
.scroll { overflow-x: auto; margin: 10px 0; border: 1px solid var(--line); border-radius: 6px;
          background: linear-gradient(to right, #fff 30px, #fff0), linear-gradient(to left, #fff 30px, #fff0)
          100% 0, linear-gradient(to right, #0004, #0000) 0 0 / 14px 100%, linear-gradient(to left, #0004,
          #0000) 100% 0 / 14px 100%; background-repeat: no-repeat; background-size: 40px 100%, 40px 100%,
          14px 100%, 14px 100%; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; font-size: .875rem; min-width: 100%;
        font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: #59636e14; font-weight: 600; white-space: normal; vertical-align: bottom;
     overflow-wrap: normal; }
summary { cursor: pointer; color: var(--accent); padding: 4px 0; }
th.text, td.text { text-align: left; white-space: normal; min-width: 9em; overflow-wrap: break-word; }
th.long, td.long { min-width: 26em; }
tr:last-child td { border-bottom: 0; }
.strip td, .strip th { padding: 3px; border: 0; vertical-align: middle; text-align: center;
        background: none; }
.strip th.text { min-width: 7.5em; max-width: 9em; text-align: left; font-weight: 500; font-size: .82rem;
        position: sticky; left: 0; background: #fff; }
.strip img { display: block; width: 168px; height: auto; border-radius: 3px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
.gallery figure { margin: 0; }
.gallery img { border-radius: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 8px 0; font-size: .85rem; }
.legend i { display: inline-block; width: .95em; height: .95em; border-radius: 3px; margin-right: 5px;
        vertical-align: -1px; border: 1px solid #0006; }
footer { padding: 40px 20px 30px; }
@media (max-width: 600px) {
  main, header, footer { padding-left: 12px; padding-right: 12px; }
  h1 { font-size: 1.35rem; } h2 { font-size: 1.12rem; }
  .strip img { width: 118px; } .strip th.text { min-width: 5.5em; max-width: 6em; font-size: .74rem; }
  .gallery { grid-template-columns: 1fr; }
}
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def esc(text: object) -> str:
    """Text from outside, as HTML shows it and nothing more."""
    return html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def num(value: Any, digits: int = 3) -> str:
    """A number for people; a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-", "−")


def slug(suffix: str) -> str:
    """What tells inputs of one kind apart in the names of their plots: ` 2` -> `-2`."""
    return "".join(f"-{c}" if c.isdigit() else "" for c in suffix)


@dataclass
class Section:
    """A part of the page under its own heading."""

    title: str
    parts: list[str] = field(default_factory=list)
    """HTML."""
    plots: list[tuple[Plot, bytes]] = field(default_factory=list)
    """Drawn in `parts` already, written to files too; each with its wide SVG."""

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"

    def text(self, text: str) -> None:
        """A paragraph of our own words (escaped all the same)."""
        self.parts.append(f"<p>{esc(text)}</p>")

    def note(self, text: str) -> None:
        """Something that the reader must know."""
        self.parts.append(f'<div class="note">{esc(text)}</div>')

    def head(self, text: str) -> None:
        self.parts.append(f"<h3>{esc(text)}</h3>")

    def plot(self, plot: Plot, caption: str) -> None:
        """A plot, wide or narrow as the window is."""
        svg = plot.save("svg")
        wide = data_uri(svg, "image/svg+xml")
        narrow = data_uri(plot.save("svg", narrow=True), "image/svg+xml")
        self.plots.append((plot, svg))
        self.parts.append(
            f'<figure><picture><source media="(max-width: 600px)" srcset="{narrow}">'
            f'<img alt="{esc(plot.alt)}" src="{wide}"></picture>'
            f"<figcaption>{esc(caption)}</figcaption></figure>"
        )

    def table(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        texts: Sequence[int] = (0,),
        *,
        fold: str = "",
    ) -> None:
        """Cells are plain text; columns `texts` are set left; a long table folds away behind `fold`."""
        longest = [max((len(row[place]) for row in rows), default=0) for place in range(len(heads))]
        classes = [
            f'class="text{" long" if longest[place] > LONG_TEXT else ""}"' if place in texts else ""
            for place in range(len(heads))
        ]
        head = "".join(f"<th {cls}>{esc(text)}</th>" for cls, text in zip(classes, heads, strict=True))
        body = "".join(
            "<tr>"
            + "".join(f"<td {cls}>{esc(cell)}</td>" for cls, cell in zip(classes, row, strict=True))
            + "</tr>"
            for row in rows
        )
        table = (
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
        if fold and len(rows) > FOLDED_ROWS:
            table = f"<details><summary>{esc(fold)} ({len(rows)} rows)</summary>{table}</details>"
        self.parts.append(table)

    def strip(self, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Pictures (HTML, see `image`) under heads, each row with its name."""
        head = "".join(f"<th>{esc(text)}</th>" for text in heads)
        body = "".join(
            f'<tr><th class="text">{esc(name).replace("_", "_<wbr>")}</th>'
            f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
            for name, cells in rows
        )
        self.parts.append(
            f'<div class="scroll"><table class="strip"><thead><tr><th></th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def cards(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Large numbers with a word each."""
        cells = "".join(
            f'<div class="card"><b>{esc(value)}</b><span>{esc(word)}</span></div>' for value, word in pairs
        )
        self.parts.append(f'<div class="cards">{cells}</div>')


def image(uri: str) -> str:
    """A picture by its `data:` address, as HTML."""
    return f'<img alt="" src="{uri}">'


def clip(uri: str, caption: str) -> str:
    """A film by its `data:` address, as HTML: it waits until it is started."""
    shown = f'<video controls muted loop playsinline src="{uri}"></video>'
    return f"<figure>{shown}<figcaption>{esc(caption)}</figcaption></figure>"


def class_legend(names: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> str:
    """Colour and name of each class; a box is empty where the picture stays as it is (black)."""
    items = "".join(
        f'<span><i style="background:{f"rgb({r},{g},{b})" if r or g or b else "none"}"></i>{esc(name)}</span>'
        for name, (r, g, b) in zip(names, colours, strict=False)
    )
    return f'<div class="legend">{items}</div>'


def render(
    title: str, lead: Sequence[str], sections: Sequence[Section], absent: Mapping[str, str], foot: str
) -> str:
    """The page. `absent`: what could not be shown, and why or what would make it."""
    anchors: dict[str, int] = {}
    blocks, links = [], []
    for section in sections:
        count = anchors[section.anchor] = anchors.get(section.anchor, 0) + 1
        anchor = section.anchor if count == 1 else f"{section.anchor}-{count}"
        links.append(f'<a href="#{anchor}">{esc(section.title)}</a>')
        blocks.append(
            f'<section id="{anchor}"><h2>{esc(section.title)}</h2>{"".join(section.parts)}</section>'
        )
    if absent:
        links.append('<a href="#absent">Not shown</a>')
        rows = "".join(f"<li><b>{esc(what)}</b>: {esc(why)}</li>" for what, why in absent.items())
        blocks.append(f'<section id="absent"><h2>Not shown</h2><ul>{rows}</ul></section>')
    leads = "".join(lead)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{esc(title)}</title><style>{CSS}</style></head>\n"
        f"<body><header><h1>{esc(title)}</h1>{leads}<nav>{''.join(links)}</nav></header>\n"
        f"<main>{chr(10).join(blocks)}</main>\n<footer>{esc(foot)}</footer></body></html>\n"
    )
