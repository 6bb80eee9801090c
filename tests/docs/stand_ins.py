"""What the documents take for granted, in miniature: videos, data sets, nets and buckets under the names that
their commands use, and the options that make a documented command small.

A command keeps every word that it has; options are only appended, and `/data/` lies elsewhere.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import boto3
import cv2
import numpy as np
import torch

from tests.datasets.miniatures import columns, frame_of, save
from tests.docs.documents import CARDS, DOCUMENTS, ROOT, blocks
from tests.models.test_hf_nets import segformer
from vidseg_core.classes import FACE_CLASSES
from vidseg_core.datasets.camvid import CAMVID_GROUPS
from vidseg_core.datasets.scene_config import corpus_configs
from vidseg_core.datasets.scene_files import make_corpus, read_labels, write_scene_video
from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of

HEIGHT, WIDTH = 48, 64
CLIP_FRAMES = 32
"""Frames of a labelled clip: episode tables want 30."""
BUCKETS = {"bucket": ("films/one.mp4",), "films": ("2024/two.mp4",)}
"""S3 buckets of the documents, and the videos in them."""

SMALL = {
    "segment": "--working_size 64 --propagation.flow_size 64 --workers 1 --decoders 1",
    "pseudo-label": "--working_size 64 --propagation.flow_size 64 --workers 1 --decoders 1"
    " --min_confidence 0.1",  # two steps of training make no sure teacher
    "train-segmenter": "--steps 2 --recipe.batch 2 --augment.crop 32 --val_limit 2 --loaders 1",
    "train-flow": "--steps 2 --recipe.batch 2 --recipe.height 64 --recipe.width 64 --size 64 --max_frames 12"
    " --gaps 1 5",
    "train-propagation": "--steps 2 --recipe.batch 2 --recipe.height 64 --recipe.width 64 --size 64"
    " --max_frames 12 --gaps 1 5",
    "build-episodes": "--working_size 64 --propagation.flow_size 64 --horizon 40",
    "train-policy": "--reinforce.episodes 8 --reinforce.trials 2 --episode.frames 20 --intervals 5",
    "train-decision": "--steps 20 --val_every 10 --intervals 5",
    "train-planner": "--window 18 --intervals 5 --strengths 0.1 --folds 2",
    "tune": "--trials 2 --episodes 8 --finalists 1 --final_episodes 8 --intervals 5",
    "evaluate": "--working_size 64 --propagation.flow_size 64",
    "demo": "--videos 1 --frames 24 --schedulers fixed",
}
"""What is appended to a command of each verb."""
RUNS = ("segment", "pseudo-label")
"""Verbs that know executors."""
DIAL = "--calibration.clips 2 --calibration.clip_frames 16 --calibration.schedulers fixed warp_error"
TINY = "videos=1,frames=32,height=48,width=64"
SHRUNK = {"videos=2,frames=60": TINY, "videos=6,frames=145": TINY, "frames=40": "frames=13"}
"""Parts of a word that are made smaller."""


def small(words: Sequence[str], data: Path, *, local: bool = False) -> list[str]:
    """The words of a command, small, and with the data sets that lie below `data`; `local`: without Ray."""
    verb, *rest = words
    for long, short in SHRUNK.items():
        rest = [word.replace(long, short) for word in rest]
    rest = [word.replace("/data/", f"{data}/") for word in rest]
    if rest[-2:] == ["--device", "cuda"] and not torch.cuda.is_available():
        rest[-1] = "cpu"
    if {"--help", "-h"} & set(rest):
        return [verb, *rest]
    dial = DIAL if {"--budget", "--max_drop"} & set(rest) else ""
    executor = "--executor local" if local and verb in RUNS else ""
    smaller = SMALL.get(verb, "")
    if verb == "train-segmenter" and "--regions.grid" in rest:  # learns whole frames
        smaller = smaller.replace("--augment.crop 32", "")
    return [verb, *rest, *smaller.split(), *dial.split(), *executor.split()]


def make_world(world: Path) -> None:
    """Videos, data sets and nets, once; `furnish` gives each page its view of them."""
    scenes = make_corpus(world / "clips", clips=2, frames=CLIP_FRAMES, height=HEIGHT, width=WIDTH)
    for name in ("my_face.mp4", "clip.mp4", "my.mp4", "scene.mp4"):
        shutil.copyfile(scenes[0].video, world / name)
    _faces(world / "data" / "faces")
    _folder(world / "data" / "mine", world / "data" / "faces")
    _davis(world / "data" / "DAVIS")
    _camvid(world / "data" / "CamVid")
    _nets(world)


def furnish(folder: Path, world: Path) -> None:
    """The names that pages use, in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("clips", "my_face.mp4", "clip.mp4", "my.mp4", "scene.mp4", "net.safetensors", "nets"):
        os.symlink(world / name, folder / name)
    os.symlink(world / "flownet2_s.safetensors", folder / "flownet2_s.safetensors")
    os.symlink(world / "clips", folder / "videos")
    os.symlink(ROOT / "tune_spaces", folder / "tune_spaces")
    demo = folder / "vidseg-demo" / "3x120-seed0"
    demo.mkdir(parents=True)
    os.symlink(world / "clips", demo / "scenes")
    write_files(folder, world / "data")


def forget_modules(folder: Path) -> None:
    """Modules that were imported from `folder`; the next test has its own under the same names."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]


def write_files(folder: Path, data: Path) -> None:
    """The YAML and Python files of the documents, by the names that their first lines give."""
    for document in (*DOCUMENTS, *CARDS):
        for block in blocks(document):
            first = block.text.partition("\n")[0]
            name = first.partition("--config ")[2].split()[:1] or first.removeprefix("# ").split()[:1]
            if name and name[0].endswith((".yaml", ".py")):
                (folder / name[0]).write_text(block.text.replace("/data/", f"{data}/"), encoding="utf-8")


def make_buckets(endpoint: str, world: Path) -> None:
    """The buckets of the documents; those that are there stay."""
    client = boto3.client("s3", endpoint_url=endpoint)
    for bucket, keys in BUCKETS.items():
        client.create_bucket(Bucket=bucket)
        for key in keys:
            client.upload_file(str(world / "clip.mp4"), bucket, key)


def _faces(root: Path) -> None:
    """Scenes of the five classes of a face, as NAME.mp4 and NAME_labels."""
    configs = corpus_configs(3, CLIP_FRAMES, 1, HEIGHT, WIDTH, 25).values()
    for name, config in zip(("clip_a", "clip_b", "clip_c"), configs, strict=True):
        clip = write_scene_video(root / f"{name}.mp4", config)
        for path in sorted(clip.labels.iterdir()):
            ids_HW = read_labels(clip.labels, int(path.stem))
            save(path, np.where(ids_HW < len(FACE_CLASSES), ids_HW, 1).astype(np.uint8))
    for other in ("face",):
        os.symlink(root, root.with_name(other))


def _frames(video: Path, count: int) -> list[np.ndarray]:
    source, found = cv2.VideoCapture(str(video)), []
    while len(found) < count:
        fine, bgr_HW3 = source.read()
        assert fine, video
        found.append(cv2.cvtColor(bgr_HW3, cv2.COLOR_BGR2RGB))
    return found


def _folder(root: Path, faces: Path) -> None:
    """Frames and masks of the faces in a person's own folders."""
    for name, clip in (("clip5", "clip_a"), ("clip7", "clip_b"), ("clip9", "clip_c")):
        for number, frame_HW3 in enumerate(_frames(faces / f"{clip}.mp4", 3)):
            save(root / "images" / name / f"{number:04d}.png", frame_HW3)
            save(root / "masks" / name / f"{number:04d}.png", read_labels(faces / f"{clip}_labels", number))
    (root / "classes.txt").write_text("\n".join(FACE_CLASSES) + "\n", encoding="utf-8")


def _davis(root: Path) -> None:
    configs = corpus_configs(2, CLIP_FRAMES, 2, HEIGHT, WIDTH, 25).values()
    for name, config in zip(("bear", "dog"), configs, strict=True):
        clip = write_scene_video(root.with_name("davis-source") / f"{name}.mp4", config)
        for number, frame_HW3 in enumerate(_frames(clip.video, CLIP_FRAMES)):
            save(root / f"JPEGImages/480p/{name}/{number:05d}.jpg", frame_HW3)
            ids_HW = (read_labels(clip.labels, number) > 0).astype(np.uint8) * 255
            save(root / f"Annotations/480p/{name}/{number:05d}.png", ids_HW)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\ndog\n", encoding="utf-8")
    os.symlink(root, root.with_name("davis"))


def _camvid(root: Path) -> None:
    """The layout of the SegNet tutorial."""
    for part, drive in (("train", "0006R0"), ("val", "0016E5"), ("test", "Seq05VD")):
        for number in range(4):
            name = f"{drive}_{30 * number:06d}.png"
            save(root / part / name, frame_of(drive, number, (HEIGHT, WIDTH)))
            save(root / f"{part}annot" / name, columns(range(len(CAMVID_GROUPS) + 1), (HEIGHT, WIDTH)))


def _nets(world: Path) -> None:
    spec = "smp:DeepLabV3Plus/resnet50"
    net, names = trainable_net(spec, class_names=("background", "foreground")), ["background", "foreground"]
    (world / "net.safetensors").write_bytes(weights_bytes(weights_of(net), names))
    (world / "nets").mkdir()
    os.symlink(world / "net.safetensors", world / "nets" / "street.safetensors")
    segformer(world / "nets" / "segformer")
    flow = build_flow_net("flownet2_s", seed=9)
    (world / "flownet2_s.safetensors").write_bytes(weights_file(flow.net.state_dict(), "flownet2_s"))
