"""Regions of a run in a report: how often each was key, and its score over time (DVSNet Table 3 and Fig. 5).

Scores are smoothed over `SMOOTHED` frames, as Fig. 5 smooths its confidences. Legend: T frames, R regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.report.page import Section, num, slug
from vidseg_core.report.style import COLOURS, DASHES, Plot, plain
from vidseg_core.store import Run

SMOOTHED = 15
"""Frames over which scores are averaged."""
MOST_LINES = 9
"""Regions that get a line of their own; of more the range is drawn."""


@dataclass(frozen=True, kw_only=True)
class RegionRows:
    """What the rows of one video say of its regions."""

    number_T: np.ndarray
    keys_TR: np.ndarray
    scores_TR: np.ndarray
    share_T: np.ndarray
    """Share of each frame's pixels that N saw."""

    @property
    def ratio(self) -> float:
        """Regions that propagation made for each that N made."""
        return float((~self.keys_TR).sum() / max(1, self.keys_TR.sum()))


def read_regions(run: Run, video_id: str) -> RegionRows:
    """Of a run with regions."""
    rows = list(run.rows(video_id, ("region_keys", "region_scores", "key_share")))
    return RegionRows(
        number_T=np.array([row["frame_index"] for row in rows], np.int64),
        keys_TR=np.array([row["region_keys"] for row in rows], bool),
        scores_TR=np.array([row["region_scores"] for row in rows], float),
        share_T=np.array([row["key_share"] for row in rows], float),
    )


def region_section(run: Run, regions: RegionsConfig, known: Sequence[str], most: int, suffix: str) -> Section:
    """The first `most` videos."""
    section = Section(f"Regions{suffix}")
    section.text(
        f"Frames have {regions.words()}, each with keys of its own. Shares count overlap; AKI is in frames "
        "for a frame's worth of such pixels."
    )
    found = {video_id: read_regions(run, video_id) for video_id in known[:most]}
    rows = [
        [
            video_id,
            num(100 * float(each.share_T.mean()), 1),
            num(1 / float(each.share_T.mean()), 1),
            num(each.ratio, 2),
            ", ".join(num(100 * share, 1) for share in each.keys_TR.mean(axis=0)),
        ]
        for video_id, each in found.items()
    ]
    heads = ["video", "pixels the net saw, %", "AKI", "warped for each segmented", "keys by region, %"]
    section.table(heads, rows)
    if any(np.isfinite(each.scores_TR).any() for each in found.values()):
        section.plot(
            region_plot(found, f"run-regions{slug(suffix)}"),
            f"The scheduler's score of each region, averaged over {SMOOTHED} frames; black: of all together.",
        )
    return section


def smoothed(scores_T: np.ndarray) -> np.ndarray:
    """The mean of what is known of the `SMOOTHED` frames around each; NaN where nothing is."""
    known_T = np.isfinite(scores_T)
    window = np.ones(SMOOTHED)
    around = slice(SMOOTHED // 2, SMOOTHED // 2 + len(scores_T))  # also of videos shorter than the window
    total_T = np.convolve(np.where(known_T, scores_T, 0.0), window)[around]
    count_T = np.convolve(known_T.astype(float), window)[around]
    return np.where(count_T > 0.5, total_T / np.maximum(count_T, 1.0), np.nan)


def region_plot(found: Mapping[str, RegionRows], name: str) -> Plot:
    """A row for each video, a line for each region."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes_of = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, (video_id, each) in zip(axes_of, found.items(), strict=True):
            lines = np.array([smoothed(scores_T) for scores_T in each.scores_TR.T])
            known = np.isfinite(lines).any(axis=0)
            number = each.number_T[known]
            if len(lines) <= MOST_LINES:
                for place, line in enumerate(lines):
                    colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS)]
                    axes.plot(number, line[known], color=colour, ls=dash, lw=1, label=str(place + 1))
            else:
                low, high = np.nanmin(lines[:, known], axis=0), np.nanmax(lines[:, known], axis=0)
                axes.fill_between(number, low, high, color=COLOURS[0], alpha=0.3, linewidth=0)
            axes.plot(number, np.nanmean(lines[:, known], axis=0), color="black", linewidth=1.6)
            axes.margins(x=0.01)
            axes.set_title(plain(video_id, 34 if narrow else 80), loc="left", fontsize=9)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 10, integer=True))
        if len(lines) <= MOST_LINES:
            axes_of[0].legend(fontsize=7, ncols=MOST_LINES, loc="upper right", handlelength=1.2)
        axes_of[-1].set_xlabel("frame")
        figure.supylabel("score of a region", fontsize=10)

    height = 1.0 + 1.6 * len(found)
    return Plot(
        name=name,
        alt="Decision score of each region over time, one row for each video.",
        draw=draw,
        wide=(8.2, height),
        narrow=(4.1, height),
    )
