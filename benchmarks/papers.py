"""Every command of docs/papers.md in miniature, each with its outcome.

    python -m benchmarks.papers [--output DIR] [--only 9 11] [--json FILE]

The commands are those of the page, in its order: options that make the work small are appended, nets are the
smallest of their kind (`NETS`), and /data/ is a folder with drawn clips in the layouts of 300VW-Mask and
Cityscapes. So what is tried is that a command runs on what the ones before it wrote, not that it learns.
Printed for each: step, verb, seconds, and `fine` or what it said. The exit code is 1 if one failed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from tests.datasets.miniatures import save
from tests.docs.documents import ROOT, Command, commands
from tests.docs.stand_ins import small
from tests.training.local_mode import trained_here
from vidseg_core.cli import main as cli
from vidseg_core.datasets.cityscapes import ANNOTATED, SNIPPET_FRAMES
from vidseg_core.datasets.scene_config import corpus_configs
from vidseg_core.datasets.scenes import Scene
from vidseg_core.kit.ray_session import ray_session
from vidseg_core.models.torchvision_compat import import_torchvision

PAGE = ROOT / "docs" / "papers.md"
HEIGHT, WIDTH = 64, 96
FACE_FRAMES, FACE_CLASSES = 45, 5
NETS = {
    "deeplabv3plus-resnet50": "smp:DeepLabV3Plus/resnet18",
    "pspnet-resnet101": "pspnet-resnet18",
    "fpn-densenet121": "smp:FPN/resnet18",
}
"""Net of the page -> the smallest of its kind."""
STREET_IDS = (7, 11, 21, 23, 24, 26)
"""Label ids of Cityscapes that stand in for the six classes of a scene."""
MORE = {
    "train-segmenter": "--steps 80 --recipe.batch 4 --recipe.warmup 5 --recipe.optimiser adamw"
    " --recipe.lr 0.003 --recipe.class_balance 0.5 --augment.crop 64 --val_limit 4"
}
"""Of a net that sees one class no schedule is better than another, and nothing is left to decide."""
LARGER = "--working_size 256x384"
"""Regions with the page's overlaps do not fit in frames of 64 pixels."""


@dataclass(frozen=True)
class RayForAll:
    """One Ray for all of it."""

    ray_address: str | None = None
    object_store_mb: int | None = 500


def make_faces(root: Path) -> None:
    """300VW-Mask: two clips in each of DVRL's sets."""
    lists = root / "data_splits" / "split_2"
    lists.mkdir(parents=True)
    scenes = corpus_configs(6, FACE_FRAMES, 3, HEIGHT, WIDTH, 25).values()
    for number, config in enumerate(scenes):
        lines, scene = [], Scene(config)
        for frame in range(FACE_FRAMES):
            record = scene.frame(frame)
            name = f"{number + 1:03d}_{frame + 1:06d}"
            save(root / "images_orig" / f"{name}.jpg", record.frame_HW3)
            ids_HW = np.minimum(record.labels_HW, FACE_CLASSES - 1).astype(np.uint8)
            save(root / "labels_orig" / f"{name}.png", ids_HW)
            lines.append(f"/images_orig/{name}.jpg /labels_orig/{name}.png\n")
        with (lists / f"{'AABBCC'[number]}.txt").open("a", encoding="utf-8") as file:
            file.writelines(lines)


def make_street(root: Path) -> None:
    """Cityscapes: two snippets in train and in val, annotated where the publisher's are."""
    scenes = corpus_configs(4, SNIPPET_FRAMES, 4, HEIGHT, WIDTH, 25).values()
    for number, config in enumerate(scenes):
        split, city = ("train", "aachen") if number < 2 else ("val", "lindau")
        scene = Scene(config)
        for frame in range(SNIPPET_FRAMES):
            record, name = scene.frame(frame), f"{city}_{number:06d}_{frame:06d}"
            image = f"{name}_leftImg8bit.png"
            save(root / "leftImg8bit_sequence" / split / city / image, record.frame_HW3)
            if frame == ANNOTATED:
                save(root / "leftImg8bit" / split / city / image, record.frame_HW3)
                ids_HW = np.array(STREET_IDS, np.uint8)[record.labels_HW]
                save(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", ids_HW)


def make_encoders(folder: Path) -> None:
    """Image classifiers' weights under the names of the page; all of them a ResNet-18's."""
    folder.mkdir(parents=True)
    state = import_torchvision().models.resnet18(weights=None).state_dict()
    for name in ("resnet18.pth", "resnet50.pth", "resnet101.pth"):
        torch.save(state, folder / name)


def steps() -> list[tuple[int, Command]]:
    """The commands of the page, each with the step that it belongs to; 0: none."""
    found, step = [], 0
    listed = [command for command in commands(PAGE) if "--output" in command.words]
    text = PAGE.read_text(encoding="utf-8").splitlines()
    for line in text:
        if start := re.match(r"\*\*(\d+)\. ", line):
            step = int(start[1])
        found += [(step, command) for command in listed if command.line == line.strip()]
    return found


def in_miniature(command: Command, data: Path) -> list[str]:
    """The command's words, small."""
    words = small(command.words_here(), data, local=True)
    for large, little in NETS.items():
        words = [re.sub(rf"{large}(?![\w.])", little, word) for word in words]
    more = f"{MORE.get(words[0], '')} {LARGER if any('regions=' in word for word in words) else ''}"
    return [*words, *more.split()]


def outcome_of(words: list[str]) -> str:
    """`fine`, or the last of what the command said."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            code = cli.main(words)
    except Exception:
        return traceback.format_exc().strip().splitlines()[-1]
    lines = [line for line in said.getvalue().splitlines() if line.strip()]
    return "fine" if code == 0 else f"exit code {code}: {' / '.join(lines[-4:])}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Every command of docs/papers.md in miniature.")
    parser.add_argument("--output", help="folder for data and outputs (default: a new one)")
    parser.add_argument("--only", nargs="*", type=int, help="these steps only")
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    folder = Path(options.output or mkdtemp(prefix="vidseg-papers-")).resolve()
    data = folder / "data"
    if not data.is_dir():
        make_faces(data / "300VW-Mask")
        make_street(data / "cityscapes")
        make_encoders(folder / "imagenet")
    os.chdir(folder)
    rows = []
    with ray_session(RayForAll()), trained_here():
        for step, command in steps():
            if options.only and step not in options.only:
                continue
            words, started = in_miniature(command, data), time.monotonic()
            outcome = outcome_of(words)
            seconds = round(time.monotonic() - started, 1)
            rows.append({"step": step, "verb": words[0], "seconds": seconds, "outcome": outcome})
            print(f"step {step:2} {words[0]:18} {seconds:6.1f} s  {outcome}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.exit(int(any(row["outcome"] != "fine" for row in rows)))


if __name__ == "__main__":
    main()
