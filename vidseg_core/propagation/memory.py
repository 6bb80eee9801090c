"""`sam2:` and `edgetam:`: frames between keys by a net that remembers objects (`models.memory_net`).

Model: the classes of a key are its objects. From each key the net tracks them away from it, frame by frame,
and what the two sides of a gap say is averaged by distance. The largest class of a key is no object: it is
what no object claims. So are all beyond the `MOST` largest of the rest, and those too small for the net; they
stay where flow puts them. No class is shown that neither key has.

What is remembered of a key follows from it (`keep`), so it is made again after a restore. With two sides a
gap is tracked whole, and nothing is carried over; with one, features of the last frames and their pointers
are (`Past`), at most as many as the net looks at.

Invariant: what a frame shows depends on its gap and the gap's memory: objects go through the net one by one.

Legend: O objects, I class ids of a gap, H, W working size, s the net's size of masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import torch

from vidseg_core.models.memory_net import MemoryNet, Remembered, SeenKey
from vidseg_core.propagation.filler import PairFiller
from vidseg_core.propagation.gap import Gap, GapFrame, GapKey, Memory, Reads
from vidseg_core.propagation.propagators import FlowWarp, Level

MOST = 16
"""Objects of a key that the net is asked about: its time and memory grow with them."""
SURE = 10.0
"""Scores count up to this: what a side is sure of must not outweigh the other one at any distance."""
VOID = 255


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key as the net and the rest of this module see it."""

    rest: int
    """Class id of what no object claims."""
    objects: np.ndarray
    """uint8 class ids."""
    others: frozenset[int]
    """Class ids that are neither: flow's."""
    seen: SeenKey


class Tracker:
    """`place`: a folder, or a hub id (`organisation/name[@revision]`)."""

    level: Level = "labels"
    needs_flow = True
    reads: Reads = "frame"

    def __init__(self, family: str, place: str, device: str = "cpu") -> None:
        self.net = MemoryNet(family, place, device)
        self._flow = PairFiller(FlowWarp("labels"), two_sided=True)
        on_cpu = self.net.device.type == "cpu"
        self.note = f"{family} is meant for a GPU: where there is none, a frame takes seconds." * on_cpu

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes that are carried over at most, whatever the size of a flow picture."""
        net = self.net
        pointers = max(net.memories, net.pointers) * net.pointer_bytes
        return MOST * (1 + net.memories * net.feature_bytes + pointers)

    def most_kept(self) -> int:
        """Bytes at most of what is made of a key."""
        net = self.net
        return MOST * (1 + net.feature_bytes + net.pointer_bytes) + net.places_bytes

    def most_held(self, frames: int) -> int:
        """Bytes at most of what the right key says of the frames of a gap."""
        return frames * MOST * self.net.mask_side**2

    def keep(self, key: GapKey) -> KeptKey:
        """What is remembered of a key."""
        labels_HW = np.asarray(key.carried) & 0xFF
        pixels = np.bincount(labels_HW.ravel(), minlength=256)
        largest = [int(each) for each in np.argsort(-pixels[:VOID], kind="stable") if pixels[each]]
        if not largest:
            return KeptKey(VOID, np.zeros(0, np.uint8), frozenset(), SeenKey([], None))
        asked = sorted(largest[1 : 1 + MOST])
        masks_O1SS = self.net.fit(labels_HW[None] == np.array(asked, np.uint8)[:, None, None])
        there = masks_O1SS.flatten(1).any(1).tolist()
        objects = np.array([each for each, fits in zip(asked, there, strict=True) if fits], np.uint8)
        others = frozenset(np.flatnonzero(pixels).tolist()) - {largest[0], *objects.tolist()}
        return KeptKey(largest[0], objects, others, self.net.see_key(key.frame_HW3, masks_O1SS[there]))

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        """The label map of each frame."""
        for gap in gaps:
            yield from self._filled(gap)

    def _filled(self, gap: Gap) -> Iterator[np.ndarray]:
        keys = [gap.left.kept] if gap.right is None else [gap.left.kept, gap.right.kept]
        others = sorted(frozenset().union(*(key.others for key in keys)))
        from_right = [] if gap.right is None else self._from_right(gap.frames, keys[1])
        past = restored(gap.memory, keys[0])
        for frame, flow_HW in zip(gap.frames, self._flow.fill([gap]), strict=True):
            scores = [self._step(frame, keys[0], past, frame.left.distance)]
            scores += [of_right_Oss * np.float32(SURE / 127) for of_right_Oss in from_right[-1:]]
            distances = [link.distance for link in (frame.left, frame.right) if link is not None]
            yield _shown(*merge(keys, scores, distances), flow_HW, others)
            del from_right[-1:]
        if gap.right is None and len(gap.frames) == 1:
            gap.memory = stored(past, keys[0])

    def _from_right(self, frames: Sequence[GapFrame], key: KeptKey) -> list[np.ndarray]:
        """scores_Oss of each frame as tracked back from the right key, the first frame last; int8, in parts
        of 127 of `SURE`: they are held until the left key has said the same."""
        past: Past = []
        found = []
        for frame in reversed(frames):
            assert frame.right is not None
            scores_Oss = self._step(frame, key, past, frame.right.distance)
            found.append(np.rint(scores_Oss * np.float32(127 / SURE)).astype(np.int8))
        return found

    def _step(self, frame: GapFrame, key: KeptKey, past: Past, distance: int) -> np.ndarray:
        """scores_Oss float32 of the key's objects on the next frame away from it, which `past` then ends
        with."""
        if not len(key.objects):
            return np.zeros((0, 1, 1), np.float32)
        scores_Oss, seen = self.net.track(frame.frame_HW3, key.seen, past, distance)
        past.append(seen)
        del past[: max(len(past) - max(self.net.memories, self.net.pointers), 0)]
        for old in past[: max(len(past) - self.net.memories, 0)]:
            old[:] = [Remembered(None, known.pointer) for known in old]
        return np.clip(scores_Oss.numpy(), -SURE, SURE)


Past: TypeAlias = "list[list[Remembered]]"
"""What is remembered of each object since a key, the last frame last; old frames have no features."""


def merge(
    keys: Sequence[KeptKey], scores: Sequence[np.ndarray], distances: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids of a gap, and their scores_Iss: the mean over the keys, the nearer one counting more."""
    classes = np.unique(np.concatenate([[key.rest, *key.objects] for key in keys])).astype(np.uint8)
    if len(keys) == 1:
        return classes, _of_side(keys[0], scores[0], classes)
    left_Iss, right_Iss = (_of_side(*each, classes) for each in zip(keys, scores, strict=True))
    nearness = np.float32(distances[1] / sum(distances))
    return classes, left_Iss * nearness + right_Iss * (np.float32(1.0) - nearness)


def _of_side(key: KeptKey, scores_Oss: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """scores_Iss by one key alone: its rest is there where none of its objects is, other classes nowhere."""
    found_Iss = np.full((len(classes), *scores_Oss.shape[1:]), -SURE, np.float32)
    found_Iss[np.searchsorted(classes, key.objects)] = scores_Oss
    rest = -scores_Oss.max(axis=0) if len(key.objects) else SURE
    found_Iss[np.searchsorted(classes, key.rest)] = rest
    return found_Iss


def _shown(
    classes: np.ndarray, scores_Iss: np.ndarray, flow_HW: np.ndarray, others: Sequence[int]
) -> np.ndarray:
    """The label map of a frame, in the form of `flow_HW`: confidences stay where it says the same, and are 0
    elsewhere."""
    size = flow_HW.shape[1::-1]
    grown = [cv2.resize(score_ss, size, interpolation=cv2.INTER_LINEAR) for score_ss in scores_Iss]
    labels_HW = classes[np.argmax(np.stack(grown), axis=0)]
    kept_HW = np.isin(flow_HW & 0xFF, others) | ((flow_HW & 0xFF) == labels_HW)
    return np.where(kept_HW, flow_HW, labels_HW.astype(flow_HW.dtype))


def stored(past: Past, key: KeptKey) -> Memory:
    """What the next frame needs, as arrays."""
    if not past:
        return {}
    recent = [frame for frame in past if frame[0].features is not None]
    features = [[_array(known.features) for known in frame] for frame in recent]
    pointers = [[_array(known.pointer) for known in frame] for frame in past]
    memory = {"objects": key.objects, "pointers": np.array(pointers)}
    return memory | ({"features": np.array(features)} if features else {})


def restored(memory: Memory, key: KeptKey) -> Past:
    """The other way; nothing where the key's objects are others now (low latency: N's own result came)."""
    if not memory or not np.array_equal(memory["objects"], key.objects):
        return []
    pointers, features = memory["pointers"], memory.get("features", ())
    bare = len(pointers) - len(features)
    return [
        [
            Remembered(_tensor(features[place - bare][number]) if place >= bare else None, _tensor(pointer))
            for number, pointer in enumerate(frame)
        ]
        for place, frame in enumerate(pointers)
    ]


def _array(known: torch.Tensor | None) -> np.ndarray:
    """bfloat16, which numpy does not have, as int16."""
    assert known is not None
    known = known.cpu()
    return (known.view(torch.int16) if known.dtype == torch.bfloat16 else known).numpy()


def _tensor(known: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(known))
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor


def sam2(place: str, device: str = "cpu") -> Tracker:
    """The video model of SAM 2 in a folder or on the hub."""
    return Tracker("sam2", place, device)


def edgetam(place: str, device: str = "cpu") -> Tracker:
    """That of EdgeTAM."""
    return Tracker("edgetam", place, device)
