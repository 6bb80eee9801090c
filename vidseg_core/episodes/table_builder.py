"""One segment's table from its frames: N once per frame, then every pair (k, k + d) as the engine has it.

Model: from each key k the flows are walked forward, since with chaining the flow of (k, i) is made with the
help of that of (k, i - 1) (`propagation.chain`); a frame's mask is what the propagator carries there. For the
two-sided table the flows of each key are walked backward too, and each frame between keys k and n is put
together from both sides (`propagation.two_sided`).

Invariant: the numbers are those of the engine. Whatever schedule an engine runs over the segment, its masks
have the qualities that the table says, bit for bit (a test holds the two together).

Cost: a pair costs a flow, a warp and a histogram. `key_stride` thins the keys: only every s-th frame may be
one, the rows of the others are NaN after d = 0. `two_sided_stride` chooses the keys that have a two-sided
table, and with them the lengths: there are about T * L^2 / (2 s^2) frames to put together.

Legend: T frames, L horizon (1 = + 1), F features; H, W working size; h, w flow size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from vidseg_core.config.catalogue import WEIGHTED
from vidseg_core.datasets.records import Record
from vidseg_core.engine.look import gray_of, make_view
from vidseg_core.engine.lows import connect
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.between import Seen, TwoSidedTable, gap_of
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.quality import ClassPixels, Quality, Truth, as_mask
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.propagation.chain import Link, Pair, complete
from vidseg_core.propagation.filler import Filler, PairFiller, filler_of
from vidseg_core.propagation.flow import FlowEstimator
from vidseg_core.propagation.gap import READS, FramePair, Gap, GapKey, Reads
from vidseg_core.propagation.propagators import AnyPropagator
from vidseg_core.propagation.two_sided import Side
from vidseg_core.registry import PluginError
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.lookahead_window import lookahead_labels, lookahead_view

Part: TypeAlias = tuple[slice, slice] | None
"""Of a crop, what is no overlap; None: all of it."""


class Refused(EpisodeError):
    """A segment that holds nothing to learn from. `reason`: short, no_labels, single_class or unusable."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return Refused, (self.reason, str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """What a table holds; everything here is in its fingerprint."""

    quality: Quality = "labels"
    horizon: int = 90
    """Frames; the engine's largest `max_interval` that the table serves."""
    key_stride: int = 1
    """Every so many frames one may be key; 1: all."""
    two_sided_stride: int = 0
    """Stride of the keys of the two-sided table, a multiple of `key_stride`; 0: no such table."""
    flow_size: int = 256
    min_frames: int = 30
    """Shorter segments are refused: they hold no episode."""
    pictures: bool = False
    """Keep the small pictures and masks that a planner reads."""
    any_class: bool = False
    """Tabulate segments of a single class, too, as a region of a frame may be."""
    maps: Literal["kept", "small", "made"] = "made"
    """Keep all maps of pairs, or those that are small enough, or none but the flow pictures from which they
    are made."""

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.key_stride < 1 or self.two_sided_stride < 0 or self.min_frames < 2:
            raise EpisodeError("horizon and key_stride must be at least 1, min_frames at least 2")
        if self.two_sided_stride % self.key_stride:
            raise EpisodeError(
                f"two_sided_stride {self.two_sided_stride} must be a multiple of key_stride {self.key_stride}"
            )
        if max(self.key_stride, self.two_sided_stride) > self.horizon:
            raise EpisodeError(f"a stride above the horizon of {self.horizon} frames leaves no schedule")


class TableBuilder:
    """Builds tables; holds nothing of a segment.

    `net`: N in the engine's chunks; None: the labels themselves play N (what propagation alone costs).
    `classes`: of the labels. `sides`: of a propagator that fills gaps, how it is run; two where there is a
    two-sided table. `shows`: what of frames is kept at least, for other propagators (`with_propagator`).
    """

    def __init__(
        self,
        options: TableOptions,
        *,
        net: ChunkedNet | None,
        propagator: AnyPropagator,
        flow: FlowEstimator,
        features: Features,
        classes: int,
        sides: Literal["one", "two"] = "one",
        shows: Reads = "nothing",
    ) -> None:
        self._two_sided = bool(options.two_sided_stride) or sides == "two"
        filler = filler_of(propagator, two_sided=self._two_sided)
        if not filler.ends_at_keys:
            raise EpisodeError(
                f"propagator {filler.name!r} remembers through keys, so its masks depend on all keys before "
                "them, and no table can say beforehand what a schedule is worth"
            )
        if net is None and options.quality == "fidelity":
            raise EpisodeError("quality fidelity asks for a net: against labels it is the quality labels")
        if net is None and filler.level != "labels":
            raise EpisodeError(f"labels have no {filler.level} to propagate; give a segmenter")
        if net is None and filler.works_with_net:
            raise EpisodeError(f"propagator {filler.name!r} works with the net itself; give a segmenter")
        if options.two_sided_stride and filler.level != "labels":
            raise EpisodeError("two-sided tables are built for propagation level labels only")
        if net is not None and options.quality == "labels" and len(net.segmenter.class_names) != classes:
            raise EpisodeError(
                f"the segmenter has {len(net.segmenter.class_names)} classes, the labels {classes}: "
                "remap the labels (?remap=FILE), or take quality fidelity"
            )
        if features.conv6 is not None and flow.channels != 3:
            raise EpisodeError("conv6 features need a flow on RGB pictures, for instance flownet2_s")
        if features.maps is not None and options.maps == "kept" and features.maps.kept != features.maps.names:
            large = next(name for name in features.maps.names if name not in features.maps.kept)
            raise EpisodeError(f"maps of {large} are too large to be kept in tables")
        if net is None and features.low is not None:
            raise EpisodeError("low_deviation reads low-level features; give a segmenter")
        self._needs_low = net is not None and connect(net, features.low, filler)
        self.options, self.features, self._classes = options, features, classes
        self._net, self._flow = net, flow
        self.filler: Filler = filler
        self._shows = max(shows, filler.reads, key=READS.index)
        if net is not None and options.quality != "labels":
            self._classes = len(net.segmenter.class_names)

    def with_options(self, options: TableOptions) -> TableBuilder:
        """A builder with the same nets for another table."""
        other = copy.copy(self)
        other.options = options
        return other

    def with_propagator(self, propagator: AnyPropagator) -> TableBuilder:
        """A builder with the same nets for what another propagator makes of frames that this one has seen; it
        tabulates no deviations. `PluginError` for one that reads what frames are not shown with."""
        other = copy.copy(self)
        filler = filler_of(propagator, two_sided=self._two_sided)
        if (
            READS.index(filler.reads) > READS.index(self._shows)
            or not filler.ends_at_keys
            or filler.needs_low
        ):
            raise PluginError(f"propagator {filler.name!r} cannot take another's place on frames seen before")
        if self._net is not None:
            connect(self._net, None, filler)
        other.filler, other.features = filler, Features(("frame_difference",))
        return other

    def build(
        self,
        clip: str,
        segment: int,
        frames: Iterable[Record],
        *,
        fingerprint: Mapping[str, str] | None = None,
        pixels: ClassPixels | None = None,
    ) -> EpisodeTable:
        """The table; `EpisodeError` for a segment that is too short, without labels, or of one class.

        `pixels`: of the whole clip, for the quality `weighted`; None: these frames are all of it.
        """
        return self.tabulate(clip, segment, self.see(frames, pixels), fingerprint=fingerprint)

    def class_pixels(self, frames: Iterable[Record]) -> ClassPixels:
        """How much these frames' own parts hold of each class, for the tables of the clip that they are a
        part of."""
        seen_by_net = ((record, self._ask(record)[0]) for record in frames)
        return ClassPixels.of(
            (_inner(self._reference(record, mask_HW), record.inner) for record, mask_HW in seen_by_net),
            self._classes,
        )

    def tabulate(
        self, clip: str, segment: int, seen: Seen, *, fingerprint: Mapping[str, str] | None = None
    ) -> EpisodeTable:
        """`build` for frames that N has seen already."""
        self._check(seen, clip, segment)
        count, horizon = len(seen.keys), self.options.horizon
        quality_TL1 = np.full((count, horizon + 1), np.nan, np.float32)
        deviation_TL1F = np.full((count, horizon + 1, len(self.features.names)), np.nan, np.float32)
        deviation_TL1F[:, 0] = 0.0
        for k in range(count):
            quality_TL1[k, 0] = seen.truths[k].quality(seen.masks[k])
        stride, two = self.options.two_sided_stride, None
        if stride:
            two = TwoSidedTable(self, seen, stride=stride, horizon=horizon)
        maps_GL1M = {name: np.zeros(shape, np.float16) for name, shape in self.kept_maps(count).items()}
        for k in range(0, count, self.options.key_stride):
            links = self.links(seen, k, forward=True)
            row = self.row(seen, k, links)
            for link, carried in zip(links, row, strict=True):
                truth = seen.truths[k + link.distance]
                quality_TL1[k, link.distance] = truth.quality(self.labels_of(carried))
            self.deviations(deviation_TL1F[k], seen, k, links)
            for name, values_GL1M in maps_GL1M.items():
                if links and self.features.maps is not None:
                    of_key_L1M = values_GL1M[k // self.options.key_stride]
                    of_key_L1M[1 : 1 + len(links)] = self.features.maps.values(name, links)
            if two is not None:
                two.add(k, self._sides_of(row, links))
            seen.keys[k].kept = None  # may be larger than the frame
        grays_Thw, masks_Thw = small_pictures(seen) if self.options.pictures else (None, None)
        made = self.features.maps is not None and set(maps_GL1M) < set(self.features.maps.names)
        return EpisodeTable(
            clip=clip,
            segment=segment,
            maps_GL1M=maps_GL1M,
            views_Thwc=_views(seen) if made else None,
            grays_Thw=grays_Thw,
            masks_Thw=masks_Thw,
            quality_TL1=quality_TL1,
            deviation_TL1F=deviation_TL1F,
            feature_names=self.features.names,
            two_sided_TL1=two.table_TL1 if two is not None else None,
            fingerprint=dict(fingerprint or {}),
        )

    def kept_maps(self, frames: int) -> dict[str, tuple[int, int, int]]:
        """Set of maps -> the shape in which a table of so many frames keeps them; those it does not are left
        out."""
        maps, options = self.features.maps, self.options
        if maps is None or options.maps == "made":
            return {}
        rows = -(-frames // options.key_stride), options.horizon + 1
        return {name: (*rows, int(np.prod(maps.shapes[name]))) for name in maps.kept}

    # --- frames ---------------------------------------------------------------------------------------------

    def see(self, frames: Iterable[Record], pixels: ClassPixels | None = None) -> Seen:
        """The frames as pairs need them; N runs once on each. `pixels`: as of `build`."""
        seen = self.run_net(frames, pixels)
        self.show(seen)
        return seen

    def show(self, seen: Seen) -> None:
        """Let the propagator look at the frames (a light net runs)."""
        seen.own = [own for key in seen.keys for own in self.filler.see([key])]

    def low_of(self, frames: Sequence[Record]) -> list[Any]:
        """What the net makes of frames between keys for propagator or scheduler; nothing if neither asks."""
        if self._net is None or not self._needs_low:
            return []
        return self._net.low([record.frame_HW3 for record in frames])

    def run_net(self, frames: Iterable[Record], pixels: ClassPixels | None = None) -> Seen:
        """The frames before the propagator has looked at them."""
        seen, references, parts = Seen(), list[np.ndarray | None](), list[Part]()
        for record in frames:
            mask_HW, carried, low_maps = self._ask(record)
            key = GapKey(
                view=make_view(record.frame_HW3, self.options.flow_size, self._flow.channels, record.whole),
                carried=carried,
                rgb_HW3=self._shown(record),
                low_maps=low_maps,
            )
            seen.keys.append(key)
            seen.masks.append(mask_HW)
            references.append(self._reference(record, mask_HW))
            parts.append(record.inner)
        seen.truths = self._truths(references, parts, pixels)
        return seen

    def _ask(self, record: Record) -> tuple[np.ndarray, Any, Any]:
        """Of a frame N's mask (or labels in its place), what is carried of it, and low-level features."""
        frame_HW3, labels_HW = record.frame_HW3, record.labels_HW
        if self._net is None:
            void_HW = np.full(frame_HW3.shape[:2], self._classes, np.uint8)
            mask_HW = void_HW if labels_HW is None else as_mask(labels_HW, self._classes)
            return mask_HW, mask_HW, None
        low = self._net.low([frame_HW3]) if self._needs_low else None
        mask_HW, carried = self._net.run([frame_HW3], low)[0]
        return mask_HW, carried, None if low is None else low[0]

    def _reference(self, record: Record, mask_HW: np.ndarray) -> np.ndarray | None:
        """labels_HW that masks of the frame are compared with."""
        against_labels = self._net is None or self.options.quality == "labels"
        return record.labels_HW if against_labels else mask_HW

    def _truths(
        self,
        references: Sequence[np.ndarray | None],
        parts: Sequence[Part],
        pixels: ClassPixels | None,
    ) -> list[Truth]:
        quality, weights_KK = self.options.quality, None
        if quality == WEIGHTED:
            own = (_inner(*each) for each in zip(references, parts, strict=True))
            weights_KK = (pixels or ClassPixels.of(own, self._classes)).weights_KK()
        return [
            Truth(reference, self._classes, quality, weights_KK, part)
            for reference, part in zip(references, parts, strict=True)
        ]

    def _shown(self, record: Record) -> np.ndarray | None:
        """What the propagator is shown of a frame's colours, as the engine shows it."""
        if self._shows == "colours":
            return make_view(record.frame_HW3, self.options.flow_size, 3, record.whole)
        return record.frame_HW3 if self._shows == "frame" else None

    def _check(self, seen: Seen, clip: str, segment: int) -> None:
        where = f"clip {clip}, segment {segment}"
        count, least = len(seen.keys), self.options.min_frames
        if count < least:
            text = f"{where}: shorter than an episode: {count} frames, at least {least} needed"
            raise Refused("short", text)
        if len({mask_HW.shape for mask_HW in seen.masks}) > 1:
            raise Refused("unusable", f"{where}: frames of different sizes")
        if not any(truth.counted for truth in seen.truths):
            raise Refused("no_labels", f"{where}: no labels; quality fidelity needs none")
        classes = set().union(*(truth.seen for truth in seen.truths))
        if len(classes) < 2 and not self.options.any_class:
            what = "the labels show" if self.options.quality == "labels" else "N sees"
            text = (
                f"{where}: a single class: {what} nothing but class {min(classes)}, every schedule is alike"
            )
            raise Refused("single_class", text)

    # --- pairs ----------------------------------------------------------------------------------------------

    def links(self, seen: Seen, k: int, *, forward: bool, reach: int | None = None) -> list[Link]:
        """Links from key k to the frames within the horizon after it (or before it), with their flows.

        `reach`: no more than so many.
        """
        horizon = self.options.horizon if reach is None else min(reach, self.options.horizon)
        reach = min(horizon, len(seen.keys) - 1 - k if forward else k)
        step = 1 if forward else -1
        links = [
            Link(current=seen.keys[k + step * d].view, key=seen.keys[k].view, distance=d)
            for d in range(1, reach + 1)
        ]
        if self.filler.needs_flow or self.features.needs_flow:
            complete([links], self._estimate, chained=self._flow.chained)
        return links

    def flow_to(self, seen: Seen, k: int, n: int) -> None:
        """The flow of frame n to key k, for whoever counts what that takes."""
        self._estimate([(seen.keys[n].view, seen.keys[k].view)])

    def _estimate(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        if not pairs:
            return []
        return self._flow.flow([current for current, _ in pairs], [key for _, key in pairs])

    def expect(self, seen: Seen, k: int, n: int) -> None:
        """What a scheduler expects of frame n from low-level features, for whoever counts what that takes."""
        if self.features.low is not None:
            link = Link(current=seen.keys[n].view, key=seen.keys[k].view, distance=n - k)
            lows = seen.keys[k].low_maps, seen.keys[n].low_maps
            self.features.low.score(_deviation(link, link.key, 0.0, *lows))

    def row(self, seen: Seen, k: int, links: Sequence[Link]) -> list[Any]:
        """What each link's frame shows if no key comes after k: as one gap with two sides; with one, frame by
        frame."""
        if isinstance(self.filler, PairFiller):
            return self._moved(self.filler, seen, k, links, forward=True)
        whole = gap_of(seen, k, links)
        if self._two_sided:
            return list(self.filler.fill([whole]))
        found, memory = list[Any](), whole.memory
        for frame in whole.frames:
            gap = Gap(left=whole.left, frames=[frame], memory=memory)
            found += self.filler.fill([gap])
            memory = gap.memory
        return found

    def _moved(
        self, filler: PairFiller, seen: Seen, k: int, links: Sequence[Link], *, forward: bool
    ) -> list[Any]:
        """What is kept of key k, at each link's frame."""
        return list(filler.move(self._pair(seen, k, link, forward) for link in links))

    def _pair(self, seen: Seen, k: int, link: Link, forward: bool) -> FramePair:
        number = k + link.distance if forward else k - link.distance
        frame = seen.keys[number]
        return FramePair(
            key=seen.keys[k],
            link=link,
            rgb_HW3=frame.rgb_HW3,
            low_maps=frame.low_maps,
            seen=seen.own[number],
        )

    def sides(self, seen: Seen, k: int, reach: int, *, forward: bool) -> list[Side]:
        """What key k says of the frames after it (or before it), with what two sides are chosen by."""
        assert isinstance(self.filler, PairFiller)
        links = self.links(seen, k, forward=forward, reach=reach)
        moved = self._moved(self.filler, seen, k, links, forward=forward)
        return [self.filler.side(*each) for each in zip(moved, links, strict=True)]

    def _sides_of(self, row: Sequence[Any], links: Sequence[Link]) -> Sequence[Any]:
        """What a key's row says as one of two sides; the links, where gaps are filled whole."""
        if not isinstance(self.filler, PairFiller):
            return links
        return [self.filler.side(*each) for each in zip(row, links, strict=True)]

    def pairs(self, seen: Seen, k: int) -> list[np.ndarray]:
        """What a key's row takes: labels_HW of the frames after key k up to the horizon, and features."""
        links = self.links(seen, k, forward=True)
        row_L1F = np.empty((1 + len(links), len(self.features.names)), np.float32)
        self.deviations(row_L1F, seen, k, links)
        return [self.labels_of(carried) for carried in self.row(seen, k, links)]

    def labels_of(self, carried: Any) -> np.ndarray:
        """labels_HW of what the propagator carries."""
        return carried if self._net is None else self._net.labels([carried])[0]

    def deviations(self, row_L1F: np.ndarray, seen: Seen, k: int, links: Sequence[Link]) -> None:
        """Puts what a scheduler sees of key k and each link's frame in the row's places 1, 2, ..."""
        if not links:
            return
        before, memory = links[0].key, 0.0
        for link in links:
            low = seen.keys[k].low_maps, seen.keys[k + link.distance].low_maps
            deviation = _deviation(link, before, memory, *low)
            row_L1F[link.distance, : self.features.cheap] = self.features.values(deviation)
            before, memory = link.current, deviation.remembered or 0.0
        if self.features.conv6 is not None:
            conv6_nC = self.features.conv6.values([link.current for link in links], links[0].key)
            row_L1F[1 : 1 + len(links), self.features.cheap :] = conv6_nC


def _inner(labels_HW: np.ndarray | None, part: Part) -> np.ndarray | None:
    return labels_HW if labels_HW is None or part is None else labels_HW[part]


def small_pictures(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Frames and masks as a planner is shown them."""
    grays = [lookahead_view(gray_of(key.view)) for key in seen.keys]
    masks = [lookahead_labels(mask_HW, *gray.shape) for mask_HW, gray in zip(seen.masks, grays, strict=True)]
    return np.stack(grays), np.stack(masks)


def _views(seen: Seen) -> np.ndarray:
    views_Thwc = np.stack([key.view for key in seen.keys])
    return views_Thwc if views_Thwc.ndim == 4 else views_Thwc[..., None]


def _deviation(link: Link, before: np.ndarray, memory: float, low_key: Any, low_now: Any) -> Deviation:
    """The pair as a scheduler would be shown it, with the frame before and what was remembered there."""

    def flow() -> np.ndarray:
        assert link.flow_hw2 is not None
        return link.flow_hw2

    return Deviation(
        current=lambda: gray_of(link.current),
        key=lambda: gray_of(link.key),
        flow=flow,
        previous=lambda: gray_of(before),
        memory=memory,
        low=lambda: low_now,
        key_low=lambda: low_key,
        ordinal=0,
        frame_index=0,
        lkd=link.distance,
        kar=0.0,
        is_corrupt=False,
        seed=0,
        segment="",
    )
