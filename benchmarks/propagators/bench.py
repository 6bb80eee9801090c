"""One material with one seed: clips, the net, what is learned for it, and what each row does with that."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.clips import through
from benchmarks.committed import committed, fit
from benchmarks.corpus import data_dir
from benchmarks.propagators.material import FRAMES, MATERIAL
from benchmarks.propagators.rows import ROWS, Row
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import Record
from vidseg_core.engine import Engine
from vidseg_core.engine.look import make_view
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.metrics.consistency import PairFlow, TemporalConsistency
from vidseg_core.models import Segmenter, build_segmenter
from vidseg_core.models.clockwork import read_clock
from vidseg_core.models.digest import digest_file
from vidseg_core.models.light import PACE, read_accel
from vidseg_core.models.trainable import weights_bytes, weights_of
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.light import Accel
from vidseg_core.propagation.propagators import AnyPropagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.learner import Learner, build_learner
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions

DISTANCES = (0, 1, 2, 3, 5, 10, 20)
POP_AT = 12
"""Interval at which pop and time are measured."""


class Mixed(Accel):
    """Accel with fixed shares of its branches, the same for all classes: can any mix be better than both?"""

    def __init__(self, weights: str, light: float, device: str) -> None:
        super().__init__(weights, device)
        net = read_accel(weights)
        one_CC = torch.eye(len(net.facts.class_names))
        shares_CD = torch.cat([(1.0 - light) * one_CC, light * one_CC], dim=1) / PACE
        with torch.no_grad():
            net.fuse.weight.copy_(shares_CD[:, :, None, None])
            nn.init.zeros_(net.fuse.bias)  # type: ignore[arg-type]
        self.net = net.to(device)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A line of the table, as measured."""

    material: str
    row: str
    seed: int
    by_interval: dict[int, float]
    by_distance: dict[int, float]
    pop: float
    ms: float


class Bench:
    """One material with one seed: clips, the net, and whatever was learned for it."""

    def __init__(self, name: str, seed: int, options: argparse.Namespace, folder: Path) -> None:
        self.name, self.seed, self.device = name, seed, options.device
        self.material, self._root = MATERIAL[name], data_dir(options.data)
        self._steps, self._net_steps = options.steps, self.material.net_steps
        if options.quick:
            self._steps = self._net_steps = 30
        self._folder = folder / f"{name}-{seed}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Learner] = {}

    def _clips(self, text: str, split: str) -> list[FlowClip]:
        dataset = open_dataset(text.format(root=self._root))
        keeps = tuple(self.net.class_names) == tuple(dataset.class_names)
        clips = dataset_clips(dataset, split, self.material.size, FRAMES)
        return [clip if keeps else replace(clip, labels_THW=None) for clip in clips]

    @cached_property
    def _all(self) -> list[FlowClip]:
        return self._clips(self.material.learn, "all")

    @property
    def learn(self) -> list[FlowClip]:
        return self._all[: len(self._all) - self.material.held]

    @cached_property
    def judged(self) -> list[FlowClip]:
        if self.material.judge:
            return self._clips(self.material.judge, self.material.split)
        return self._all[len(self._all) - self.material.held :]

    # --- nets ----------------------------------------------------------------------------------------------

    @cached_property
    def net(self) -> Segmenter:
        return build_segmenter(self.net_spec, weights=self.net_weights, device=self.device)

    def _net_of(self, row: Row) -> Segmenter:
        spec = row.net.format(net=self.net_spec)
        if spec == self.net_spec:
            return self.net
        return build_segmenter(spec, weights=self.net_weights, device=self.device)

    @cached_property
    def net_spec(self) -> str:
        return self.material.net or committed("camvid").segmenter

    @cached_property
    def net_weights(self) -> str | None:
        """Of a net that is trained here."""
        held = 0 if self.material.known else self.material.held
        return None if self.material.net else self._taught(self.net_spec, held)

    def _taught(self, spec: str, held: int) -> str:
        """Weights of a net that has learned from the material's pictures, by CamVid's recipe.

        The last `held` clips are left out.
        """
        what = replace(committed("camvid").with_steps(self._net_steps), seed=self.seed, segmenter=spec)
        folder = self._folder / f"{spec}-{self._net_steps}"
        if not (folder / "last.safetensors").is_file():
            text, split = self.material.pictures
            dataset = open_dataset(text.format(root=self._root))
            items = dataset.items(split)
            if self.material.held:
                names = list(dict.fromkeys(item.video_id for item in items))
                names = names[: len(names) - held]
                items = [item for item in items if item.video_id in names][::3]
            records = [_shrunk(dataset.read(item), self.material.size) for item in items]
            print(f"{self.name}: {spec}, from {len(records)} pictures", flush=True)
            fit(what, records, dataset.class_names, folder)
        return str(folder / "last.safetensors")

    def learner(self, row: Row) -> tuple[Learner, Path]:
        """What was learned for this row, and where it lies; trained if it is not there."""
        given = {**row.options, **row.recipe}
        options = "".join(f"-{name}-{value}" for name, value in sorted(given.items()))
        prefix = row.net.partition("/")[0].replace(":", "-") + "-" if "/" in row.net else ""
        light = self._light_of(row)
        begins = f"-from-{digest_file(Path(light))[:8]}" if light else ""
        folder = self._folder / f"{prefix}{row.propagator}{options}{begins}-{self._steps}"
        config = TrainPropagationConfig(
            data=(self.material.learn,),
            segmenter=row.net.format(net=self.net_spec),
            segmenter_weights=self.net_weights,
            output=str(folder),
            propagator=row.propagator,
            recipe=PropagationRecipe(
                height=self.material.crop[0],
                width=self.material.crop[1],
                steps=max(1, round(row.share * self._steps)),
                **{"batch": 4, **row.recipe},
            ),
            light_weights=light,
            seed=self.seed,
            **row.options,
        )
        if folder.name not in self._known:
            learner = self._known[folder.name] = build_learner(config, self._net_of(row), self.device)
            if not all((folder / name).is_file() for name in learner.file_names):
                self._train(learner, folder)
        return self._known[folder.name], folder

    def _light_of(self, row: Row) -> str | None:
        """What the row's light net begins with: that of another row, else what the net itself learns from."""
        if not row.light_of:
            begins = "light" in row.options and not self.material.net and not row.bare
            return self._taught(row.options["light"], self.material.held) if begins else None
        learner, folder = self.learner(ROWS[row.light_of])
        net = read_accel(str(folder / learner.file_names[0]))
        path = folder / "light.safetensors"
        path.write_bytes(weights_bytes(weights_of(net.light), net.facts.class_names))
        return str(path)

    def _train(self, learner: Learner, folder: Path) -> None:
        print(f"{self.name}: {folder.name}", flush=True)
        options = PropagationOptions(
            folder=folder, save_every=10**9, log_every=max(1, self._steps // 5), seed=self.seed
        )
        loop = PropagationLoop(learner, self.learn, options, watch=_say)
        loop.run()
        for name, data in learner.files(loop.weights()).items():
            (folder / name).write_bytes(data)

    # --- rows ----------------------------------------------------------------------------------------------

    def parts(self, row: Row) -> tuple[Segmenter, AnyPropagator]:
        if row.learned:
            learner, folder = self.learner(row)
            segmenter, propagator = learner.read(folder)
            weights = str(folder / learner.file_names[0])
            if row.read_by:
                propagator = build_propagator(row.read_by, weights=weights, device=self.device)
            if row.mixed is not None:
                propagator = Mixed(weights, row.mixed, self.device)
            return segmenter, propagator
        propagator = build_propagator(row.propagator, level=row.level, **row.options)
        return self._net_of(row), propagator

    def measure(self, name: str, row: Row, intervals: Sequence[int]) -> Found:
        """The row's line: every clip judged, at every interval."""
        segmenter, propagator = self.parts(row)
        classes = len(segmenter.class_names)
        by_interval: dict[int, float] = {}
        by_distance = {distance: ConfusionMatrix(classes) for distance in DISTANCES}
        pops, ms = [], 0.0
        for interval in intervals:
            if by_interval and row.scheduler == "every":
                by_interval[interval] = by_interval[intervals[0]]
                continue
            engine = self._engine(row, segmenter, propagator, interval)
            counts, spent_s, frames = ConfusionMatrix(classes), 0.0, 0
            for clip in self.judged:
                started = self._clock()
                rows = list(through(engine, clip))
                spent_s += self._clock() - started
                frames += len(rows)
                for result, truth_HW in zip(rows, clip.labels_THW, strict=True):  # type: ignore[arg-type]
                    counts.update(result.labels_HW, truth_HW)
                    if (distance := result.frame_index - result.key_frame_index) in by_distance:
                        by_distance[distance].update(result.labels_HW, truth_HW)
                if interval == POP_AT or len(intervals) == 1:
                    pops.append(self._pop(clip, rows, classes))
            by_interval[interval] = counts.mean_iou()
            if not ms or interval == POP_AT:
                ms = 1000.0 * spent_s / frames
        return Found(
            material=self.name,
            row=name,
            seed=self.seed,
            by_interval=by_interval,
            by_distance={distance: counts.mean_iou() for distance, counts in by_distance.items()},
            pop=float(np.nanmean(pops)) if pops and not np.isnan(pops).all() else float("nan"),
            ms=ms,
        )

    def _engine(self, row: Row, segmenter: Segmenter, propagator: AnyPropagator, interval: int) -> Engine:
        options: dict[str, Any] = {"interval": interval} if row.scheduler == "fixed" else {}
        if row.scheduler == "low_change":
            options = self._clock_of(row, segmenter, interval)
        return Engine(
            segmenter,
            build_scheduler(row.scheduler, **options),
            propagator,
            sides=row.sides,  # type: ignore[arg-type]
            delay=row.delay,
            device=self.device,
        )

    def _clock_of(self, row: Row, segmenter: Segmenter, interval: int) -> dict[str, Any]:
        """File and threshold of an adaptive clock: the one that gives as many keys as even ones."""
        learner, folder = self.learner(row)
        policy = str(folder / learner.file_names[0])
        seen = [list(_shallow(policy, segmenter, clip, self.device)) for clip in self.judged]
        wanted = sum(-(-len(clip) // interval) for clip in seen)
        low, high = 0.0, 100.0
        while high - low > 0.05:
            middle = (low + high) / 2
            keys = sum(_keys(clip, middle) for clip in seen)
            low, high = (middle, high) if keys > wanted else (low, middle)
        return {"policy": policy, "threshold": high}

    def _clock(self) -> float:
        return time.process_time() if self.device == "cpu" else time.perf_counter()

    @cached_property
    def _flows(self) -> dict[str, list[PairFlow]]:
        return {clip.name: list(_neighbours(clip)) for clip in self.judged}

    def _pop(self, clip: FlowClip, rows: Sequence[Any], classes: int) -> float:
        consistency = TemporalConsistency(classes)
        for before, now, flow in zip(rows[:-1], rows[1:], self._flows[clip.name], strict=True):
            consistency.update(before.labels_HW, now.labels_HW, flow, at_key=now.is_key)
        return consistency.pop


def _say(row: Mapping[str, Any]) -> None:
    costs = "  ".join(f"{name} {value:.3g}" for name, value in row.items() if name not in ("step", "lr"))
    print(f"  step {row['step']:5d}  {costs}", flush=True)


def _shrunk(record: Record, size: int) -> Record:
    """With the longest side at most `size` pixels."""
    height, width = record.frame_HW3.shape[:2]
    scale = min(1.0, size / max(height, width))
    shape = (round(width * scale), round(height * scale))
    assert record.labels_HW is not None
    return replace(
        record,
        frame_HW3=cv2.resize(record.frame_HW3, shape, interpolation=cv2.INTER_AREA),
        labels_HW=cv2.resize(record.labels_HW, shape, interpolation=cv2.INTER_NEAREST),
    )


def _shallow(policy: str, segmenter: Segmenter, clip: FlowClip, device: str) -> Iterator[np.ndarray]:
    """What the score layer of an adaptive clock makes of each frame."""
    layer = read_clock(policy).to(device)
    net = ChunkedNet(segmenter, level="features", batch=1, device=device)
    for frame_HW3 in clip.frames_THW3:
        low_Lyx = layer.low_of(net.low([frame_HW3])[0])
        yield layer.score(low_Lyx[None].float()).argmax(1).cpu().numpy()


def _keys(shallow: Sequence[np.ndarray], threshold: float) -> int:
    """How many keys `low_change` gives."""
    keys, key = 1, shallow[0]
    for now in shallow[1:]:
        if 100.0 * float((now != key).mean()) > threshold:
            keys, key = keys + 1, now
    return keys


def _neighbours(clip: FlowClip) -> Iterator[PairFlow]:
    """The flows between neighbouring frames."""
    flow = DisFlow(chained=False)
    views = [make_view(frame_HW3, 256, 1) for frame_HW3 in clip.frames_THW3]
    for before, now in zip(views, views[1:], strict=False):
        (backward,), (forward,) = flow.flow([now], [before]), flow.flow([before], [now])
        yield PairFlow(backward, forward)
