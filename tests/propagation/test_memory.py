"""Promise: a memory net sees each key with its masks and the frames away from it, in order, from both sides;
what they say is averaged by distance, memory is bounded, and a restored segment goes on with the same bits.

Why: published weights cannot be had in tests, so what can be wrong unseen is what the net is fed: a frame
twice, the right side forwards, masks of the wrong class, a memory that grows with the video.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.propagation.memory_nets import SIZE, tiny_memory_net
from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SegmentConfig
from vidseg_core.datasets.records import Record
from vidseg_core.engine.assemble import describe_net
from vidseg_core.engine.bound import Measured, bytes_of, state_bound
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.models.memory_net import MemoryNet, SeenKey, memory_digest
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation import Copy, DisFlow, memory
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.filler import Filler, filler_of
from vidseg_core.propagation.gap import Gap, GapFrame, GapKey
from vidseg_core.propagation.memory import MOST, KeptKey, Tracker, merge, restored, stored
from vidseg_core.scheduling import build_scheduler

H, W = 32, 48
FAMILIES = ("sam2", "edgetam")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("memory")
    return {family: tiny_memory_net(family, place / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def trackers(folders: dict[str, Path]) -> dict[str, Tracker]:
    return {family: Tracker(family, str(folder)) for family, folder in folders.items()}


def _frame(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (H, W, 3), dtype=np.uint8)


def _key(number: int, labels_HW: np.ndarray) -> GapKey:
    frame_HW3 = _frame(number)
    return GapKey(view=frame_HW3[..., 0], carried=labels_HW, rgb_HW3=frame_HW3)


def _labels(shift: int = 0) -> np.ndarray:
    """Class 7 left, class 3 right of it, 0 elsewhere."""
    labels_HW = np.zeros((H, W), np.uint8)
    labels_HW[6:24, 4 + shift : 18 + shift] = 7
    labels_HW[10:26, 24 + shift : 40 + shift] = 3
    return labels_HW


def _gap(left: GapKey, right: GapKey | None, first: int, last: int, ends: int = 0) -> Gap:
    """Frames `first` to `last` after the left key, which is frame 0; `ends`: number of the right key."""
    frames = []
    for number in range(first, last + 1):
        rgb_HW3 = _frame(number)
        still = np.zeros((H, W, 2), np.float32)
        to_left = Link(current=rgb_HW3[..., 0], key=left.view, distance=number, flow_hw2=still)
        to_right = None
        if right is not None:
            to_right = Link(
                current=rgb_HW3[..., 0], key=right.view, distance=ends - number, flow_hw2=still.copy()
            )
        frames.append(GapFrame(left=to_left, right=to_right, rgb_HW3=rgb_HW3))
    return Gap(left=left, frames=frames, right=right)


def _fill(tracker: Any, gap: Gap, *, two_sided: bool) -> list[np.ndarray]:
    return list(filler_of(tracker, two_sided=two_sided).fill([gap]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_in_comes_out_at_the_key_itself(trackers: dict[str, Tracker], family: str) -> None:
    net = trackers[family].net
    masks_OHW = np.stack([_labels() == 3, _labels() == 7])
    masks_O1SS = net.fit(masks_OHW)
    session = net._new_session()
    for number, mask_1SS in enumerate(masks_O1SS):
        session.obj_id_to_idx(number)
        session.add_mask_inputs(number, 0, mask_1SS[None])
    session.obj_with_new_inputs = [0, 1]
    out = net._model(session, frame=net._pixels(_frame(0)), frame_idx=0)
    small = torch.nn.functional.avg_pool2d(masks_O1SS, 4)[:, 0]
    sure = (small == 0) | (small == 1)
    assert torch.equal((out.pred_masks[:, 0] > 0)[sure], (small > 0.5)[sure])


class Spy(MemoryNet):
    """Notes what the net is asked; the number of a frame is found by its picture. Its scores are `says`."""

    memories, pointers, feature_bytes, pointer_bytes = 2, 4, 8, 4

    def __init__(self, says: dict[int, float] | None = None) -> None:
        self.size, self.device, self._says = SIZE, torch.device("cpu"), says or {}
        self.asked: list[tuple[int, int, int, list[int]]] = []
        self.keys: list[tuple[int, int]] = []

    def see_key(self, frame_HW3, masks_O1SS):
        number = _number(frame_HW3)
        self.keys.append((number, len(masks_O1SS)))
        seen = memory.Remembered(torch.tensor([float(number)]), torch.tensor([float(number)]))
        return memory.SeenKey([seen] * len(masks_O1SS), torch.zeros(1))

    def track(self, frame_HW3, key, past, distance):
        number, known = _number(frame_HW3), int(key.objects[0].pointer)
        recent = [int(frame[0].pointer) for frame in past]
        assert all((frame[0].features is None) == (n < len(past) - 2) for n, frame in enumerate(past))
        self.asked.append((known, number, distance, recent))
        seen = memory.Remembered(torch.tensor([float(number)]), torch.tensor([float(number)]))
        scores = torch.full((len(key.objects), 4, 4), self._says.get(known, 1.0))
        return scores, [seen] * len(key.objects)


def _number(frame_HW3: np.ndarray) -> int:
    return next(n for n in range(60) if np.array_equal(_frame(n), frame_HW3))


def _spied(net: Spy) -> Tracker:
    tracker = object.__new__(Tracker)
    tracker.net, tracker.note = net, ""
    tracker._flow = memory.PairFiller(memory.FlowWarp("labels"), two_sided=True)
    return tracker


def test_each_side_is_tracked_away_from_its_key_in_order() -> None:
    net = Spy()
    left, right = _key(0, _labels()), _key(6, _labels(3))
    _fill(_spied(net), _gap(left, right, 1, 5, ends=6), two_sided=True)
    assert net.keys == [(0, 2), (6, 2)]
    from_left = [(number, distance, past) for key, number, distance, past in net.asked if key == 0]
    from_right = [(number, distance, past) for key, number, distance, past in net.asked if key == 6]
    assert from_left == [
        (1, 1, []),
        (2, 2, [1]),
        (3, 3, [1, 2]),
        (4, 4, [1, 2, 3]),
        (5, 5, [1, 2, 3, 4]),
    ]
    assert from_right == [
        (5, 1, []),
        (4, 2, [5]),
        (3, 3, [5, 4]),
        (2, 4, [5, 4, 3]),
        (1, 5, [5, 4, 3, 2]),
    ]


def test_the_nearer_side_counts_more() -> None:
    """The left key says that its object is everywhere, the right one that it is nowhere, equally sure."""
    net = Spy(says={0: 4.0, 6: -4.0})
    one_object = np.where(_labels() == 7, 7, 0).astype(np.uint8)
    left, right = _key(0, one_object), _key(6, one_object)
    masks = _fill(_spied(net), _gap(left, right, 1, 5, ends=6), two_sided=True)
    assert [sorted(set(mask.ravel())) for mask in masks] == [[7], [7], [0], [0], [0]]


def test_scores_are_averaged_by_distance() -> None:
    left = KeptKey(0, np.array([3, 7], np.uint8), frozenset(), memory.SeenKey([], None))
    right = KeptKey(7, np.array([3], np.uint8), frozenset(), memory.SeenKey([], None))
    scores = [np.array([[[2.0]], [[-4.0]]], np.float32), np.array([[[-6.0]]], np.float32)]
    classes, merged_Iss = merge([left, right], scores, [1, 3])
    assert classes.tolist() == [0, 3, 7]
    rest, three, seven = merged_Iss.ravel().tolist()
    assert (rest, three, seven) == (
        pytest.approx(0.75 * -2.0 + 0.25 * -10.0),
        pytest.approx(0.75 * 2.0 + 0.25 * -6.0),
        pytest.approx(0.75 * -4.0 + 0.25 * 6.0),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restored_segment_goes_on_with_the_same_bits_and_memory_stays_bounded(
    trackers: dict[str, Tracker], family: str
) -> None:
    """One side: every frame is a gap; in between all that is not stored is thrown away."""
    tracker = trackers[family]
    filler, key, plain, carried = _filler(tracker), _key(0, _labels()), dict[str, Any](), []
    for number in range(1, 9):
        gap = _gap(key, None, number, number)
        gap.memory = plain
        carried += filler.fill([gap])
        plain = gap.memory
        assert sum(array.nbytes for array in plain.values()) <= filler.most_remembered(H, W, 1)
    assert plain and filler.most_kept() >= _bytes(key.kept.seen)
    again, kept = [], dict[str, Any]()
    for number in range(1, 9):
        gap = _gap(_key(0, _labels()), None, number, number)
        gap.memory = {name: np.frombuffer(v.tobytes(), v.dtype).reshape(v.shape) for name, v in kept.items()}
        again += filler.fill([gap])
        kept = gap.memory
    assert all(np.array_equal(a, b) for a, b in zip(carried, again, strict=True))
    whole = _fill(tracker, _gap(_key(0, _labels()), None, 1, 8), two_sided=True)
    assert all(np.array_equal(a, b) for a, b in zip(carried, whole, strict=True))
    assert len(plain["features"]) == tracker.net.memories
    forgetful = _fill(tracker, _gap(_key(0, _labels()), None, 8, 8), two_sided=False)
    assert not np.array_equal(forgetful[0], carried[-1]), "what is remembered decides nothing"


@pytest.mark.parametrize("sides", ["one", "two"])
def test_what_is_made_of_keys_counts_whatever_the_sides(trackers: dict[str, Tracker], sides: str) -> None:
    """With two sides, as a run has them unless somebody says so, nothing of it did."""
    two_sided = sides == "two"
    made = {
        name: filler_of(each, two_sided=two_sided) for name, each in (("net", trackers["sam2"]), ("", Copy()))
    }
    kept, carried = made["net"].most_kept(), made["net"].most_remembered(H, W, 1)
    sizes = {name: _bound(filler, 1, two_sided=two_sided) for name, filler in made.items()}
    shown = 3 * H * W  # its key's frame
    asked = KeptKey(0, np.zeros(3, np.uint8), frozenset(), SeenKey([], None))
    assert bytes_of(asked) == 3, "what is measured on keys was nothing, too"
    assert kept > 0 and sizes["net"] == sizes[""] + (1 + two_sided) * (kept + shown) + carried
    assert (carried > 0) == (not two_sided)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_right_key_says_is_held_for_a_gap_and_counts(
    trackers: dict[str, Tracker], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was held in no count: 187 MB of a gap of 89 frames and 16 objects, beside a bound of 256."""
    tracker, held = trackers[family], list[int]()
    from_right = tracker._from_right

    def watched(frames: Any, key: KeptKey) -> list[np.ndarray]:
        found = from_right(frames, key)
        held.append(sum(part.nbytes for part in found) * MOST // len(key.objects))
        return found

    monkeypatch.setattr(tracker, "_from_right", watched)
    _fill(tracker, _gap(_key(0, _labels()), _key(5, _labels(2)), 1, 4, 5), two_sided=True)
    filler = filler_of(tracker, two_sided=True)
    assert held == [filler.most_held(4)] and held[0] > 0

    fillers = (filler, filler_of(Sees(), two_sided=True))
    grows = [_bound(each, 5, two_sided=True) - _bound(each, 1, two_sided=True) for each in fillers]
    assert grows[0] == grows[1] + held[0]


class Sees:
    """A propagator that reads frames and holds nothing."""

    level, needs_flow, reads = "labels", True, "frame"

    def fill(self, gaps: Any) -> Any: ...


def _bound(filler: Any, interval: int, *, two_sided: bool) -> int:
    """Bytes of the most that a segment holds, with a key after `interval` frames at the latest."""
    return state_bound(
        filler,
        build_scheduler("fixed", interval=5),
        two_sided=two_sided,
        max_interval=interval,
        flow_size=48,
        channels=1,
        size=(H, W),
        late=False,
        measured=Measured(),
    ).bytes


def _bytes(held: Any) -> int:
    """Of arrays; of what is made of a key, with as many objects as a key may have."""
    if isinstance(held, SeenKey):
        parts = [part for known in held.objects for part in (known.features, known.pointer)]
        each = sum(part.nbytes for part in parts if part is not None) // len(held.objects)
        return MOST * each + (0 if held.places is None else held.places.nbytes)
    return sum(array.nbytes for array in held.values())


def _filler(tracker: Tracker) -> Filler:
    return filler_of(tracker, two_sided=False)


def test_two_hundred_classes_stay_within_so_many_objects_and_flow_keeps_the_others() -> None:
    labels_HW = np.arange(H * W, dtype=np.int32).reshape(H, W) // 8 % 200
    labels_HW[:, :20] = 0
    net = Spy(says={0: -1.0})
    key = _key(0, labels_HW.astype(np.uint8))
    (mask,) = _fill(_spied(net), _gap(key, None, 1, 1), two_sided=False)
    assert net.keys == [(0, MOST)]
    tracked = [0, *key.kept.objects]
    others_HW = ~np.isin(labels_HW, tracked)
    assert len(np.unique(labels_HW)) > 100
    assert np.array_equal(mask[others_HW], labels_HW[others_HW])


def test_masks_without_any_object_stay_so_and_the_net_is_not_asked() -> None:
    net = Spy()
    one_class, void = np.full((H, W), 5, np.uint8), np.full((H, W), 255, np.uint8)
    for labels_HW in (one_class, void):
        gap = _gap(_key(0, labels_HW), _key(3, labels_HW), 1, 2, ends=3)
        assert all(np.array_equal(mask, labels_HW) for mask in _fill(_spied(net), gap, two_sided=True))
    assert not net.asked


def test_confidences_stay_where_flow_says_the_same_and_are_none_elsewhere() -> None:
    """Maps of pseudo-labels: the class in the low byte, the confidence in the high one."""
    sure_HW = (_labels().astype(np.uint16)) | 0x6400
    nowhere = Spy(says={0: -1.0})
    (mask,) = _fill(_spied(nowhere), _gap(_key(0, sure_HW), None, 1, 1), two_sided=False)
    assert mask.dtype == np.uint16
    assert np.array_equal(mask, np.where(_labels() == 0, 0x6400, 0))


def test_memory_of_other_objects_than_the_keys_is_forgotten() -> None:
    past = [[memory.Remembered(torch.ones(2, dtype=torch.bfloat16), torch.ones(3))]]
    seen = memory.SeenKey([], None)
    one, other = (KeptKey(0, np.array([c], np.uint8), frozenset(), seen) for c in (3, 4))
    kept = stored(past, one)
    (((again,),),) = [restored(kept, one)]
    assert again.features is not None and again.features.dtype == torch.bfloat16
    assert again.features.tolist() == [1.0, 1.0] and again.pointer.tolist() == [1.0, 1.0, 1.0]
    assert restored(kept, other) == []


def test_what_is_no_such_net_is_refused_in_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match="holds a sam2_video net, but edgetam needs edgetam_video"):
        MemoryNet("edgetam", str(folders["sam2"]))
    with pytest.raises(SegmenterError, match=r"sam2:nowhere: needs a local folder .* or a hub id"):
        MemoryNet("sam2", "nowhere")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((folders["sam2"] / "config.json").read_bytes())
    with pytest.raises(SegmenterError, match=r"no model\.safetensors beside it"):
        MemoryNet("sam2", str(bare))
    with pytest.raises(ConfigError, match="unknown name 'sam2'"):
        PropagationConfig(name="sam2")
    with pytest.raises(ConfigError, match="must be labels for 'sam2:x'"):
        PropagationConfig(name="sam2:x", level="scores")


def test_the_digest_is_of_weights_and_config_wherever_they_lie(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    there, moved = folders["sam2"], tmp_path / "moved"
    moved.mkdir()
    for file in there.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert memory_digest("sam2", str(moved)) == memory_digest("sam2", str(there))
    config = moved / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"num_maskmem": 3', '"num_maskmem": 2'))
    assert memory_digest("sam2", str(moved)) != memory_digest("sam2", str(there))


def test_a_table_says_what_the_engine_gives(trackers: dict[str, Tracker]) -> None:
    """Tables fill from each key by itself; the engine remembers from frame to frame."""
    records = [
        Record(video_id="", frame_index=n, frame_HW3=_frame(n), labels_HW=_labels(n % 3)) for n in range(5)
    ]
    options = TableOptions(quality="labels", horizon=4, min_frames=2, flow_size=48)
    builder = TableBuilder(
        options,
        net=None,
        propagator=trackers["sam2"],
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=8,
        shows="frame",
    )
    seen = builder.see(records)
    table = builder.tabulate("clip", 0, seen)
    filled = builder.pairs(seen, 0)
    links = builder.links(seen, 0, forward=True, reach=4)
    frames = [GapFrame(left=link, rgb_HW3=_frame(n)) for n, link in enumerate(links, 1)]
    expected = _fill(trackers["sam2"], Gap(left=_key(0, _labels()), frames=frames), two_sided=False)
    assert len(filled) == len(expected) == 4
    for ours, engine in zip(filled, expected, strict=True):
        np.testing.assert_array_equal(ours, engine)
    assert table.frames == 5


def test_what_is_no_such_net_is_the_fault_of_its_option_alone(tmp_path: Path) -> None:
    """It said `--propagation.flow or --propagation.name`."""
    asked = SegmentConfig(
        input=("x",), output="y", segmenter="plain", propagation=PropagationConfig(name=f"sam2:{tmp_path}")
    )
    with pytest.raises(ConfigError) as refused:
        describe_net(asked)
    assert refused.value.option == "--propagation.name"


def test_tables_know_a_net_by_its_digest_not_by_its_folder() -> None:
    here, there = (
        BuildEpisodesConfig(
            input=("x",),
            output="y",
            quality="fidelity",
            segmenter="plain",
            propagation=TablePropagationConfig(name=f"sam2:{folder}"),
        )
        for folder in ("nets/here", "nets/there")
    )
    assert here.fingerprint_fields() == there.fingerprint_fields()
    assert here.fingerprint_fields()["propagation.name"] == "sam2"


def test_weights_of_another_version_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folders["sam2"] / "model.safetensors")
    del state["no_memory_embedding"]
    (tmp_path / "config.json").write_bytes((folders["sam2"] / "config.json").read_bytes())
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SegmenterError, match="lack 1 tensors, the first is no_memory_embedding"):
        MemoryNet("sam2", str(tmp_path))


def test_it_says_that_it_is_slow_on_a_cpu(trackers: dict[str, Tracker]) -> None:
    assert "meant for a GPU" in trackers["sam2"].note
