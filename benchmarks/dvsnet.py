"""DVSNet's Table 1, Fig. 8 and Fig. 9 on whole frames: mIoU against speed when a threshold is turned.

    python -m benchmarks.dvsnet [--data NAME:PATH ...] [--segmenter NET] [--weights FILE] [--flow NAME]
        [--flow_weights FILE] [--working_size SIZE] [--net_ms MS] [--propagation_ms MS] [--clips N]
        [--frames N] [--horizon N] [--folds N] [--json FILE]

Without --data: drawn scenes, and where $VIDSEG_DATA has them faces, DAVIS and the CamVid clip. Else, say,
`--data "cityscapes:/data/cityscapes?snippets=yes" --segmenter pspnet-resnet101 --weights FILE`; only the
annotated frames of its snippets count then (with --horizon 20). Without --segmenter the labels stand in for
N.

Compared, one-sided, at the same average key intervals (AKI), all from episode tables:
- `fixed`: a key every l frames from a clip's first frame on, as the engine has it;
- `fixed (DFF)`: for each frame the mean over the l distances to a key, 0 to l - 1, as DFF measures it
  (DVSNet 4.3 says that this overestimates);
- `fixed (last)`: each frame l - 1 frames after its key, the last before the next one, as DVSNet 4.3 measures
  it (it writes k = i - (l + 1), which would be past the period);
- `frame_difference` (absolute values, which Eq. 2 lacks), `flow_magnitude` (Eq. 3);
- `confidence`: 1 - t, with decision nets on cheap features that learned Eq. 1 on other clips (--folds).

mIoU is the mean over frames of each frame's, not over a data set; a clip counts by its frames. fps follows
from AKI and the two times, that of N and that of everything else on a frame, as 1000 / (propagation + net /
AKI); `vidseg evaluate` measures it. Table 1's modes: balanced is the fastest that keeps 95 % of the mIoU with
N on every frame, high-speed the best of those that are 5.4 times as fast (DeepLab-Fast in the paper).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.score_walk import SCORES, run_scores
from benchmarks.tables_here import tables_here
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.episodes.features import FEATURE_SETS
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.episodes.walk import fixed_keys, walk, with_features
from vidseg_core.models.decision import DecisionNet
from vidseg_core.training.decision_loop import DecisionOptions, train_decision

INTERVALS = (2, 4, 6, 10, 15, 20)
THRESHOLDS = 48
REAL = {
    "faces": ("face", "face", "all"),
    "davis": ("davis", "davis2016", "all"),
    "street": ("camvid", "camvid", "clip_0016E5_15hz"),
}
BALANCED, FASTER = 0.95, 5.4
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One curve of Fig. 8 or 9: P points, each clip's mIoU."""

    threshold_P: np.ndarray
    aki_P: np.ndarray
    quality_PC: np.ndarray

    def at(self, interval: float) -> np.ndarray:
        """quality_C at an AKI, linear in keys per frame between what was measured."""
        order = np.argsort(1.0 / self.aki_P, kind="stable")
        keys_P = 1.0 / self.aki_P[order]
        return np.array([np.interp(1.0 / interval, keys_P, each[order]) for each in self.quality_PC.T])


def sources(options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Kind of clips -> data set and split."""
    if options.data:
        return {place: (place, options.split) for place in options.data}
    drawn = f"scenes:videos={options.clips},frames={options.frames},height=120,width=160"
    found = {"scenes": (drawn, "all")}
    root = data_dir(None)
    for kind, (name, folder, split) in REAL.items():
        if root is not None and (root / folder).is_dir():
            found[kind] = f"{name}:{root / folder}", split
    return found


def tables_of(place: str, split: str, quality: Any, options: argparse.Namespace) -> list[EpisodeTable]:
    """Tables of a data set in which every frame may be key."""
    config = BuildEpisodesConfig(
        data=(place,),
        output="unused",
        split=split,
        quality=quality,
        segmenter=options.segmenter,
        weights=options.weights,
        working_size=options.working_size,
        propagation=TablePropagationConfig(flow=options.flow, flow_weights=options.flow_weights),
        features=("flow", "scores"),
        horizon=options.horizon,
        limit=options.clips,
        clip_frames=options.frames,
        segment_frames=0,
        min_frames=max(2, options.horizon),
        pictures=False,
    )
    return [replace(table, fingerprint={}) for table in tables_here(config)]


def decision_net(tables: Sequence[EpisodeTable], steps: int) -> DecisionNet:
    """Learned from tables of agreement (Eq. 1)."""
    known = join_tables([with_features(table, FEATURE_SETS["flow"]) for table in tables])
    return train_decision(known, None, DecisionOptions(steps=steps, val_every=steps)).net


def confidence_scores(tables: Sequence[EpisodeTable], options: argparse.Namespace) -> list[np.ndarray]:
    """score_TL1 = 1 - expected confidence of each clip, by nets that saw others of all kinds."""
    found: list[np.ndarray] = [np.zeros(0)] * len(tables)
    folds = min(options.folds, len(tables))
    for fold in range(folds):
        held = [number for number in range(len(tables)) if number % folds == fold]
        net = decision_net([t for n, t in enumerate(tables) if n not in held], options.steps)
        for number in held:
            seen_TL1F = with_features(tables[number], FEATURE_SETS["flow"]).deviation_TL1F
            score_W = 1.0 - net.confidence(np.nan_to_num(seen_TL1F).reshape(-1, seen_TL1F.shape[-1]))
            found[number] = np.where(
                np.isnan(seen_TL1F[..., 0]), np.nan, score_W.reshape(seen_TL1F.shape[:2])
            )
    return found


def means(table: EpisodeTable, keys: np.ndarray) -> float:
    """Mean quality of a schedule."""
    return walk(table, keys).mean


def swept(tables: Sequence[EpisodeTable], scores: Sequence[np.ndarray]) -> Swept:
    """A scheduler's curve: one threshold for all clips at a time."""
    met = np.concatenate([score[:, 1:][~np.isnan(score[:, 1:])] for score in scores])
    threshold_P = np.unique(np.quantile(met, np.linspace(0.0, 1.0, THRESHOLDS)))
    runs = [run_scores(table, score, threshold_P) for table, score in zip(tables, scores, strict=True)]
    keys_P = np.sum([is_key_PT.sum(axis=1) for is_key_PT in runs], axis=0)
    quality_PC = [
        [
            means(table, np.flatnonzero(is_key_PT[point]))
            for table, is_key_PT in zip(tables, runs, strict=True)
        ]
        for point in range(len(threshold_P))
    ]
    frames = sum(table.frames for table in tables)
    return Swept(threshold_P=threshold_P, aki_P=frames / keys_P, quality_PC=np.array(quality_PC))


def fixed_curves(tables: Sequence[EpisodeTable], horizon: int) -> dict[str, Swept]:
    """Fixed intervals, measured in the three ways."""
    every = range(1, horizon + 1)
    ways = {
        "fixed": lambda table, period: means(table, fixed_keys(table.frames, period)),
        "fixed (DFF)": lambda table, period: float(
            np.nanmean([at_distance(table, distance, period) for distance in range(period)])
        ),
        "fixed (last)": lambda table, period: float(np.nanmean(at_distance(table, period - 1, period))),
    }
    period_P = np.array(every, np.float64)
    frames = sum(table.frames for table in tables)
    keys_P = np.array([sum(len(fixed_keys(t.frames, period)) for t in tables) for period in every])
    return {
        name: Swept(
            threshold_P=period_P,
            aki_P=frames / keys_P if name == "fixed" else period_P,
            quality_PC=np.array([[way(table, period) for table in tables] for period in every]),
        )
        for name, way in ways.items()
    }


def at_distance(table: EpisodeTable, distance: int, period: int) -> np.ndarray:
    """Qualities of the frames that are `distance` after a key, frame by frame: those that a whole period of
    keys can lie before."""
    first = period - 1 - distance
    return table.quality_TL1[first : table.frames - distance, distance]


def curves_of(
    labels: Sequence[EpisodeTable], confidence: Sequence[np.ndarray], horizon: int
) -> dict[str, Swept]:
    """All curves of Fig. 9 over the same clips; `confidence`: score_TL1 of each."""
    curves = fixed_curves(labels, horizon)
    for name in ("frame_difference", "flow_magnitude"):
        curves[name] = swept(labels, [SCORES[name](table, 0) for table in labels])
    curves["confidence"] = swept(labels, confidence)
    return curves


def fps(aki: np.ndarray, options: argparse.Namespace) -> np.ndarray:
    """Frames per second at an average key interval."""
    return 1000.0 / (options.propagation_ms + options.net_ms / aki)


def over_clips(value_C: np.ndarray, weight_C: np.ndarray) -> tuple[float, float]:
    """90 % interval of a weighted mean, clips drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, len(value_C), (DRAWS, len(value_C)))
    means_D = (value_C[draws] * weight_C[draws]).sum(axis=1) / weight_C[draws].sum(axis=1)
    low, high = np.percentile(means_D, [5, 95])
    return float(low), float(high)


def fig9(curves: Mapping[str, Swept], weight_C: np.ndarray, options: argparse.Namespace) -> list[str]:
    """mIoU at the same intervals."""
    wanted = [interval for interval in INTERVALS if interval <= 0.85 * options.horizon]
    head = "".join(f"{f'{i} ({fps(np.array(float(i)), options):.1f} fps)':>17}" for i in wanted)
    lines = [f"{'AKI':18}{head}"]
    for name, curve in curves.items():
        cells = [f"{np.average(curve.at(interval), weights=weight_C):17.4f}" for interval in wanted]
        lines.append(f"{name:18}{''.join(cells)}")
    for name in ("confidence", "flow_magnitude", "frame_difference"):
        cells = []
        for interval in wanted:
            gain_C = curves[name].at(interval) - curves["fixed"].at(interval)
            low, high = over_clips(gain_C, weight_C)
            cells.append(f"{f'[{low:+.3f}, {high:+.3f}]':>17}")
        lines.append(f"{name[:10] + ' - fixed':18}{''.join(cells)}   90 % over clips")
    return lines


def table1(curves: Mapping[str, Swept], weight_C: np.ndarray, options: argparse.Namespace) -> list[str]:
    """The two modes, for the decision net and for even keys."""
    alone = curves["fixed"].quality_PC[0] @ weight_C / weight_C.sum()
    every = 1000.0 / options.net_ms
    lines = [f"N on every frame: mIoU {alone:.4f}, {every:.2f} fps"]
    for name in ("confidence", "fixed"):
        curve = curves[name]
        quality_P, fps_P = curve.quality_PC @ weight_C / weight_C.sum(), fps(curve.aki_P, options)
        modes = {
            "balanced": np.where(quality_P >= BALANCED * alone, fps_P, -1.0),
            "high-speed": np.where(fps_P >= FASTER * every, quality_P, -1.0),
        }
        for mode, merit_P in modes.items():
            best = int(np.argmax(merit_P))
            if merit_P[best] < 0:
                lines.append(f"{name}, {mode}: none")
                continue
            what = "t" if name == "confidence" else "l"
            value = 1 - curve.threshold_P[best] if what == "t" else curve.threshold_P[best]
            lines.append(
                f"{name}, {mode}: {what} = {value:.4g}, mIoU {quality_P[best]:.4f}, {fps_P[best]:.2f} fps "
                f"({fps_P[best] / every:.1f} times), AKI {curve.aki_P[best]:.1f}"
            )
    return lines


def weights_of(tables: Sequence[EpisodeTable]) -> np.ndarray:
    """weight_C: frames that count."""
    return np.array([float(np.isfinite(table.key_quality_T).sum()) for table in tables])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=[], help="data sets, as for build-episodes")
    parser.add_argument("--split", default="all", help="split of the data sets")
    parser.add_argument("--segmenter", default="labels")
    parser.add_argument("--weights")
    parser.add_argument("--working_size", default="512")
    parser.add_argument("--flow", default="dis")
    parser.add_argument("--flow_weights")
    parser.add_argument(
        "--net_ms", type=float, default=1750.0, help="N on a frame (DeepLabV3+ R50, one core)"
    )
    parser.add_argument(
        "--propagation_ms", type=float, default=8.0, help="all else on a frame (DIS, one core)"
    )
    for name, default in (("clips", 8), ("frames", 96), ("horizon", 30), ("folds", 3), ("steps", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", help="also write all points here (Fig. 8)")
    return parser.parse_args()


def points_of(curve: Swept, weight_C: np.ndarray, options: argparse.Namespace) -> list[dict[str, float]]:
    """The points of a curve, for a plot."""
    quality_P = curve.quality_PC @ weight_C / weight_C.sum()
    rows = zip(curve.threshold_P, curve.aki_P, fps(curve.aki_P, options), quality_P, strict=True)
    return [dict(zip(("threshold", "aki", "fps", "miou"), map(float, row), strict=True)) for row in rows]


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    labels: dict[str, list[EpisodeTable]] = {}
    agreement: list[EpisodeTable] = []
    for kind, source in sources(options).items():
        labels[kind], others = (tables_of(*source, quality, options) for quality in ("labels", "accuracy"))
        agreement += others
    written: dict[str, Any] = {}
    scores, first = confidence_scores(agreement, options), 0
    for kind, tables in labels.items():
        curves = curves_of(tables, scores[first : first + len(tables)], options.horizon)
        first, weight_C = first + len(tables), weights_of(tables)
        print(f"\n{kind}: {len(tables)} clips, {int(weight_C.sum())} frames that count")
        print("\n".join([*fig9(curves, weight_C, options), *table1(curves, weight_C, options)]), flush=True)
        written[kind] = {name: points_of(curve, weight_C, options) for name, curve in curves.items()}
    if options.json:
        Path(options.json).write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
