"""Do students flicker less that learn frames with their neighbours, and what does it cost (ETC Table I)?

    python -m benchmarks.temporal [--json FILE] [--sets scenes faces davis street] [--seeds 0 1 2] [--steps N]
                                  [--arms NAME ...] [--choose] [--seconds N] [--nets FOLDER] [--data DIR]

Every eighth frame of the training clips has labels, and clips that nobody trained on measure: mIoU from one
confusion matrix; TC of all clips at once (Eq. 5, pooled), of the mean clip (Eq. 6), and that over the visible
pixels, in percent, from DIS flow at the clips' size; what the labels themselves would have is printed first.
Of the street, which is no default, there is one clip, CamVid's: its first half teaches, its second measures.
For each seed a small student learns frames one by one; each arm goes on from there for as many steps of as
many labelled frames (no arm learns from labels of neighbours):

- none: as before; seen: with neighbours and no loss on them, so that batches and BatchNorm's statistics are
  those of the arms below;
- gentle: with the temporal loss of the manual's example; mild: with more weight; temporal: with the set's own
  weight and sharpness (`CHOSEN`); printed: with the weight and the V that ETC prints; held, held-mild: gentle
  and mild, with the neighbours' side held fixed; WEIGHT@SHARPNESS[@GAP], as 1@4.4@1: with
  these (a neighbour is up to 3 frames away otherwise);
- sf, pf, mf: gentle, and the teacher's classes on the labelled frames, pair-wise (Eq. 2) or multi-frame
  distillation; all: pf and mf; online: all three; the teacher is the large net of `benchmarks.students`;
- many: sf with another teacher, the mean of six students that learned frames one by one;
- pl: gentle, and half of each batch has the teacher's labels instead, of all frames (Algorithm 1, two scales
  and mirrored); offline: pl with pf and mf; labels: those labels, and no loss else.

On faces every arm learns labels with Dice and crops around rare classes: without, such nets find neither eyes
nor lips. With --choose every third of the training clips measures and the others teach: settings are chosen
so, and the clips left out say what the choice is worth.

Throughput is labelled frames in a second of one core's time. With --seconds no further row is begun after so
long; with the same --json and --nets it goes on. Frames are 128 pixels wide: nets of CPU size.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks import average
from benchmarks.clips import FRAMES, SETS, SIDE, STREET, Marks, Material, divided, materials
from benchmarks.temporal_arms import (
    ARMS,
    LABELS,
    LARGE,
    LESSONS,
    PLAIN,
    STUDENT,
    TEACHERS,
    Arm,
    arm,
    fit,
    labelled_by,
    named,
    write_net,
)
from vidseg_core.models.registry import build_segmenter
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.match_clips import drawn_clip

TEACHER_STEPS, TEACHER_FRAMES = (200, 50), 51
"""Of the large net: steps, the last at a third of the learning rate, and frames of a clip, as in
`benchmarks.students`. Of 800 + 200 steps `tiny:32` was worse than its students on DAVIS."""
MEMBERS = range(6)
"""Seeds of the nets of which `many` has the mean for its teacher; each learned labels of other frames."""
MORE = 12
"""Drawn clips that measure besides those of `materials`."""
MEASURES = ("miou", "tc_pooled", "tc", "tc_visible")
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t for 2 to 10 values; the last for more, too."""


# --- measuring ---------------------------------------------------------------------------------------------


def measured_by_more(material: Material) -> Material:
    """Drawn scenes with `MORE` clips that measure: they cost little, and four say nothing of points."""
    if material.name != "scenes":
        return material
    more = [drawn_clip(5000 + number, FRAMES, (96, SIDE)) for number in range(MORE)]
    return replace(material, test=[*material.test, *more])


def to_choose(material: Material) -> Material:
    """Its training clips alone, every third of them to measure."""
    return divided(material.name, material.class_names, material.train)


@torch.no_grad()
def measure(net: Callable[[torch.Tensor], torch.Tensor], material: Material) -> dict[str, float]:
    """mIoU, TC by Eq. 5 and TC of visible pixels in percent; frames in a second of one core's time."""
    marks, spent, frames = Marks(material), 0.0, 0
    for clip in material.test:
        masks = []
        for frame_HW3 in clip.frames_THW3:
            frame_13HW = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255.0
            started = time.process_time()
            scores_1CHW = net(frame_13HW)
            spent, frames = spent + time.process_time() - started, frames + 1
            masks.append(scores_1CHW.argmax(1)[0].to(torch.uint8).numpy())
        marks.add(clip, masks)
    found = marks.percent()
    return {name: found[name] for name in MEASURES} | {"fps": frames / spent}


def of_labels(material: Material) -> str:
    """The consistency of the labels themselves: flow is not exact, and Eq. 5 counts what was covered."""
    marks = Marks(material)
    for clip in material.test:
        assert clip.labels_THW is not None
        marks.add(clip, list(clip.labels_THW))
    found = marks.percent()
    numbers = ", ".join(f"{name} {found[name]:.2f}" for name in MEASURES[1:])
    return f"{material.name}: of the labels themselves {numbers}"


# --- the table ---------------------------------------------------------------------------------------------


class Bench:
    """Bases, teachers and rows of one call."""

    def __init__(self, sets: Sequence[Material], args: argparse.Namespace, scratch: Path) -> None:
        self._sets, self._args, self._scratch = sets, args, scratch
        self._bases: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
        self._made: dict[str, list[FlowClip]] = {}
        found = _read(args.json)
        self.rows = [row for row in found if self._setting(row["set"], row["arm"]).items() <= row.items()]
        """Those found were measured as they would be now."""
        self._others = [row for row in found if row not in self.rows]
        """Measured with other settings: they stay in the file, and are not read here."""

    def run(self) -> None:
        known = {(row["set"], row["arm"], row["seed"]) for row in self.rows}
        for material in self._sets:
            print(of_labels(material), flush=True)
        for seed in self._args.seeds:
            for material in self._sets:
                for name in self._args.arms:
                    if (material.name, name, seed) in known:
                        continue
                    if time.monotonic() > self._args.until:
                        return
                    self.rows.append(self._row(material, name, seed))
                    print(line(self.rows[-1]), flush=True)
                    _write(self._args.json, [*self._others, *self.rows])

    def _row(self, material: Material, name: str, seed: int) -> dict[str, Any]:
        what = arm(name, material.name)
        net, pace = fit(
            material,
            what,
            spec=STUDENT,
            seed=seed,
            steps=self._args.steps,
            begin=self._base(material, seed),
            teacher=None if what.distil is None else self._teacher(material, what.teacher),
            pseudo=self._labels(material) if what.pseudo else (),
            labels=LABELS.get(material.name, PLAIN),
        )
        found = {"set": material.name, "arm": name, "seed": seed, "trained_per_s": pace}
        return found | self._setting(material.name, name) | measure(net, material)

    def _setting(self, set_name: str, name: str) -> dict[str, Any]:
        """What an arm's row depends on besides its seed."""
        around = {"choose": self._args.choose, **asdict(LABELS.get(set_name, PLAIN))}
        if name in TEACHERS:
            return around | {"teacher": TEACHERS[name]}
        what = arm(name, set_name)
        found = around | {"steps": self._args.steps, "weight": what.weight, "sharpness": what.sharpness}
        taught = what.distil is not None or what.pseudo
        return found | ({"teacher": TEACHERS[what.teacher], **LESSONS.get(name, {})} if taught else {})

    def _base(self, material: Material, seed: int) -> dict[str, torch.Tensor]:
        key = (material.name, seed)
        path = self._path(material, f"{seed}-{4 * self._args.steps}.pt")
        if key not in self._bases and path.is_file():
            self._bases[key] = torch.load(path, weights_only=True)
        if key not in self._bases:
            labels = LABELS.get(material.name, PLAIN)
            net, _ = fit(material, Arm(), spec=STUDENT, seed=seed, steps=4 * self._args.steps, labels=labels)
            self._bases[key] = {name: value.clone() for name, value in net.net.state_dict().items()}
            torch.save(self._bases[key], path)
        return self._bases[key]

    def _path(self, material: Material, rest: str) -> Path:
        """Of a net that is kept, by what it depends on."""
        around = ("-choose" if self._args.choose else "") + ("-rare" if material.name in LABELS else "")
        return self._scratch / f"{material.name}{around}-{rest}"

    def _teacher(self, material: Material, name: str) -> tuple[str, Path]:
        """Spec and weights of one of `TEACHERS`; what it is worth is a row, too."""
        spec = TEACHERS[name]
        path = self._together(material) if name == "together" else self._large(material)
        if not any((row["set"], row["arm"]) == (material.name, name) for row in self.rows):
            net = build_segmenter(spec, weights=str(path))
            found = {"set": material.name, "arm": name, "seed": 0} | self._setting(material.name, name)
            self.rows.append(found | measure(lambda frame_13HW: net.head(net.features(frame_13HW)), material))
            print(line(self.rows[-1]), flush=True)
        return spec, path

    def _large(self, material: Material) -> Path:
        """That of `benchmarks.students`, but for how it learns labels."""
        path = self._path(material, "teacher.safetensors")
        if not path.is_file():
            (longer,) = materials([material.name], self._args.data, TEACHER_FRAMES)
            longer = to_choose(longer) if self._args.choose else longer
            how: dict[str, Any] = {"spec": LARGE, "seed": 0, "labels": LABELS.get(material.name, PLAIN)}
            first, then = TEACHER_STEPS
            net, _ = fit(longer, Arm(), steps=first, **how)
            net, _ = fit(longer, Arm(), steps=then, begin=net.net.state_dict(), **how)
            write_net(net, path)
        return path

    def _together(self, material: Material) -> Path:
        """What the arms of all members begin with, as one net."""
        path = self._path(material, f"together-{4 * self._args.steps}.pt")
        if not path.is_file():
            states = [self._base(material, seed) for seed in MEMBERS]
            average.save(path, STUDENT, material.class_names, states)
        return path

    def _labels(self, material: Material) -> list[FlowClip]:
        if material.name not in self._made:
            self._made[material.name] = labelled_by(self._teacher(material, "teacher")[1], material.train)
        return self._made[material.name]


def line(row: dict[str, Any]) -> str:
    pace = f"{row['trained_per_s']:6.1f}" if "trained_per_s" in row else "     -"
    return (
        f"{row['set']:7s} {row['arm']:10s} seed {row['seed']}  mIoU {row['miou']:5.2f}  "
        f"TC pooled {row['tc_pooled']:5.2f}  TC {row['tc']:5.2f}  visible {row['tc_visible']:5.2f}  "
        f"{row['fps']:5.0f} frames/s  trained {pace}/s"
    )


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of their mean, by Student's t; infinite for fewer than two."""
    if len(values) < 2:
        return math.inf
    t = T_95[min(len(values), len(T_95) + 1) - 2]
    return t * statistics.stdev(values) / math.sqrt(len(values))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, and differences from `none` over the seeds that both have, with their intervals."""
    heads = ("dmIoU", "dTC pooled", "dTC", "dvisible")
    lines = [
        "set      arm       seeds    mIoU  pooled      TC visible   " + "".join(f"{h:>16}" for h in heads)
    ]
    by = {(row["set"], row["arm"], row["seed"]): row for row in rows}
    for name in dict.fromkeys(row["set"] for row in rows):
        for kind in dict.fromkeys((*ARMS, *(row["arm"] for row in rows))):
            both = [
                (row, by[name, "none", seed])
                for (where, what, seed), row in by.items()
                if (where, what) == (name, kind) and (name, "none", seed) in by
            ]
            if both:
                means = [statistics.mean(row[k] for row, _ in both) for k in MEASURES]
                gains = [[row[k] - b[k] for row, b in both] for k in MEASURES]
                numbers = "  ".join(f"{number:6.2f}" for number in means)
                differences = "  ".join(
                    f"{statistics.mean(each):+6.2f} +-{half_width(each):5.2f}" for each in gains
                )
                lines.append(f"{name:8s} {kind:9s} {len(both):5d}  {numbers}    {differences}")
    return "\n".join(lines)


def _read(path: str | None) -> list[dict[str, Any]]:
    if path is None or not Path(path).is_file():
        return []
    return list(json.loads(Path(path).read_text(encoding="utf-8")))


def _write(path: str | None, rows: Sequence[dict[str, Any]]) -> None:
    if path is not None:
        Path(path).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=[*SETS, STREET], default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", type=named, metavar="NAME", default=list(ARMS))
    parser.add_argument("--choose", action="store_true", help="measure on clips of the training part")
    parser.add_argument("--steps", type=int, default=100, help="of an arm; four times as many before it")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--nets", help="folder that keeps what the arms begin with, and the teachers")
    parser.add_argument("--json")
    parser.add_argument("--data")
    args = parser.parse_args()
    if args.choose and STREET in args.sets:
        parser.error(f"--choose: of the {STREET} one clip teaches, and none is left to choose by")
    args.until = time.monotonic() + args.seconds
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(args.nets or made)
        scratch.mkdir(parents=True, exist_ok=True)
        sets = [
            to_choose(each) if args.choose else measured_by_more(each)
            for each in materials(args.sets, args.data)
        ]
        bench = Bench(sets, args, scratch)
        bench.run()
        print(table(bench.rows))


if __name__ == "__main__":
    main()
