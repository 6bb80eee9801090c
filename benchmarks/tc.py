"""What temporal consistency costs a frame, and that it is right.

    python -m benchmarks.tc [--json FILE] [--data DIR] [--frames N]

ETC reports 3 hours for TC on Cityscapes. Here: both directions, over every pixel (Eq. 5) and over the visible
ones, on one core, by size of the mask. Printed beside it: Eq. 5 written plainly (one direction, dense numpy
gather, one pass over the picture for each class) on the same flow, whose cost it has not, and how far the two
differ in TC. Pixels without a label are void.

Clips: a face or DAVIS clip of the data where there is one, generated scenes always.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.corpus import data_dir
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.wrapped import ResizedDataset
from vidseg_core.engine.look import make_view
from vidseg_core.metrics.consistency import PairFlow, TemporalConsistency
from vidseg_core.propagation.flow import DisFlow

SIZES = (256, 512, 1024)
FLOW_SIZE = 256


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip at one size."""

    clip: str
    size: int
    classes: int
    pairs: int
    tc: float
    tc_forward: float
    tc_visible: float
    flow_ms: float
    measure_ms: float
    plain_ms: float
    difference: float

    @property
    def total_ms(self) -> float:
        return self.flow_ms + self.measure_ms


def plain_pair(
    before_HW: np.ndarray, now_HW: np.ndarray, map_HW2: np.ndarray, classes: int
) -> list[tuple[int, int]]:
    """(both, either) of each class, one direction, a pass over the picture for each class."""
    x = np.clip(np.rint(map_HW2[..., 0]).astype(int), 0, now_HW.shape[1] - 1)
    y = np.clip(np.rint(map_HW2[..., 1]).astype(int), 0, now_HW.shape[0] - 1)
    warped_HW = before_HW[y, x]
    known_HW, found = (warped_HW != classes) & (now_HW != classes), []
    for label in range(classes):
        a, b = (warped_HW == label) & known_HW, (now_HW == label) & known_HW
        found.append((int((a & b).sum()), int((a | b).sum())))
    return found


def measure(clip: str, data: str, size: int, frames: int) -> Row | None:
    """TC of a clip's own labels."""
    dataset = ResizedDataset(open_dataset(data), str(size))
    items = [item for item in dataset.items("all") if item.label is not None]
    first = items[0].video_id if items else ""
    records = [dataset.read(item) for item in items if item.video_id == first][:frames]
    classes, dis = len(dataset.class_names), DisFlow(chained=False)
    labels = [record.labels_HW for record in records if record.labels_HW is not None]
    masks = [np.where(labels_HW == 255, classes, labels_HW).astype(np.uint8) for labels_HW in labels]
    views = [make_view(record.frame_HW3, FLOW_SIZE, 1) for record in records]
    tc, sums = TemporalConsistency(classes + 1, void=classes), np.zeros((classes, 2))
    seconds = {"flow": 0.0, "measure": 0.0, "plain": 0.0}
    for before, now in zip(range(len(masks)), range(1, len(masks)), strict=False):
        started = time.process_time()
        backward, forward = dis.flow([views[now], views[before]], [views[before], views[now]])
        seconds["flow"] += time.process_time() - started
        started = time.process_time()
        pair = PairFlow(backward, forward)
        tc.update(masks[before], masks[now], pair, at_key=False)
        seconds["measure"] += time.process_time() - started
        map_HW2 = pair.maps(*masks[now].shape)[0]
        started = time.process_time()
        sums += plain_pair(masks[before], masks[now], map_HW2, classes)
        seconds["plain"] += time.process_time() - started
    if not tc.pairs:
        return None
    present = sums[:, 1] > 0
    plain = float((sums[present, 0] / sums[present, 1]).mean())
    return Row(
        clip=clip,
        size=size,
        classes=classes,
        pairs=tc.pairs,
        tc=tc.tc,
        tc_forward=tc.tc_forward,
        tc_visible=tc.visible.tc,
        difference=abs(tc.tc - plain),
        **{f"{name}_ms": 1000 * spent / tc.pairs for name, spent in seconds.items()},
    )


def clips_of(data: str | None, frames: int) -> dict[str, str]:
    found = {"scenes": f"scenes:videos=1,frames={frames},height=768,width=1024"}
    root = data_dir(data)
    if root is not None and (root / "camvid").is_dir():
        found["camvid"] = f"camvid:{root / 'camvid'}?clips=0016E5"
    if root is not None and (root / "face").is_dir():
        found["faces"] = f"face:{root / 'face'}?clips=liveportrait_d18"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost and correctness of temporal consistency.")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--data", help="folder with camvid and face (default: $VIDSEG_DATA)")
    parser.add_argument("--frames", type=int, default=40, help="frames of each clip")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    print(
        "clip      size classes |     TC  forward  visible | ms a frame: flow  both ways  total | plain 1-way"
        "  differs"
    )
    for clip, data in clips_of(options.data, options.frames).items():
        for size in SIZES:
            try:
                row = measure(clip, data, size, options.frames)
            except ValueError as problem:
                print(f"{clip:9} {size:4}: {problem}")
                break
            if row is None:
                continue
            rows.append(row)
            print(
                f"{clip:9} {size:4} {row.classes:7} |"
                f" {row.tc:.4f}   {row.tc_forward:.4f}   {row.tc_visible:.4f} |"
                f" {row.flow_ms:16.1f} {row.measure_ms:10.1f} {row.total_ms:6.1f} |"
                f" {row.plain_ms:14.1f}  {row.difference:.5f}"
            )
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
