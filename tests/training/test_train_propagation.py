"""Promise: what train-propagation writes carries features as LVS section 2.3 says, belongs to one net, and
does not depend on kills.

Why: weights of another net, or of another of its maps, would carry something all the same, and masks between
keys would be wrong without a word.
"""

from __future__ import annotations

import io
import json
import weakref
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tests.engine.fillers import Parted
from tests.engine.toy import inputs, moving_clip, plain, records_of, run
from tests.training.local_mode import trained_here
from tests.training.small import facts_of, killed_and_resumed, shaken, written
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.on_tables import keys_on
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.walk import feature
from vidseg_core.kit.progress import Reporter
from vidseg_core.models import SegmenterError, build_segmenter
from vidseg_core.models.lvs import CarryNet, DeviationNet, LvsNet, new_lvs, read_lvs, spatially_variant
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation import Copy, DisFlow
from vidseg_core.propagation.lvs import Lvs
from vidseg_core.scheduling import build_scheduler
from vidseg_core.scheduling.low_deviation import LowDeviation
from vidseg_core.training import propagation_job, propagation_score
from vidseg_core.training.flow_clips import ClipCut, FlowClip, dataset_clips
from vidseg_core.training.learner import build_learner
from vidseg_core.training.lvs import _misjudged
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.propagation_job import run_train_propagation
from vidseg_core.training.propagation_score import _spearman, score_propagator

NET = "tiny-scenes"
RECIPE = PropagationRecipe(height=32, width=64, steps=4, batch=2, warmup=1)


def a_clip(seed: int = 0) -> FlowClip:
    return FlowClip(name=f"clip{seed}", frames_THW3=np.stack(moving_clip(14, seed=seed)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(shaken(new_lvs(build_segmenter(NET))), tmp_path_factory.mktemp("lvs") / "lvs.safetensors")


def engine(propagator: Any, *, net: str = NET, scheduler: Any = None, max_interval: int = 90) -> Engine:
    return Engine(
        build_segmenter(net),
        scheduler or build_scheduler("fixed", interval=5),
        propagator,
        sides="one",
        max_interval=max_interval,
        flow_size=48,
    )


def tables(propagator: Any, *, net: str = NET, low: LowDeviation | None = None) -> TableBuilder:
    segmenter = build_segmenter(net)
    return TableBuilder(
        TableOptions(quality="fidelity", horizon=6, min_frames=2, flow_size=48),
        net=ChunkedNet(segmenter, level="features", batch=1, device="cpu"),
        propagator=propagator,
        flow=DisFlow(),
        features=Features(("frame_difference", *(["low_deviation"] if low else [])), low=low),
        classes=len(segmenter.class_names),
    )


# --- Eq. 1 -------------------------------------------------------------------------------------------------


def test_the_convolution_is_equation_1() -> None:
    generator = torch.Generator().manual_seed(0)
    maps_BChw = torch.rand(2, 3, 6, 7, generator=generator)
    weights_BKhw = torch.rand(2, 9, 6, 7, generator=generator)
    found = spatially_variant(maps_BChw, weights_BKhw)
    for b, c, i, j in ((0, 0, 2, 3), (1, 2, 0, 0), (1, 1, 5, 6), (0, 2, 3, 0)):
        expected = sum(
            float(weights_BKhw[b, 3 * (u + 1) + v + 1, i, j])
            * float(maps_BChw[b, c, min(max(i - u, 0), 5), min(max(j - v, 0), 6)])
            for u in (-1, 0, 1)
            for v in (-1, 0, 1)
        )
        assert float(found[b, c, i, j]) == pytest.approx(expected, rel=1e-5)


def test_kernels_have_an_odd_side() -> None:
    with pytest.raises(ValueError, match="no odd side squared"):
        spatially_variant(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, 4))


def test_a_new_net_all_but_copies() -> None:
    segmenter = build_segmenter(NET)
    net, frames_B3HW = new_lvs(segmenter), torch.rand(1, 3, 64, 64)
    low, high = segmenter.low(frames_B3HW), segmenter.features(frames_B3HW)  # type: ignore[attr-defined]
    assert isinstance(high, torch.Tensor)
    with torch.no_grad():
        carried = net.carrier(net.low_of(low), net.low_of(low), high)
    torch.testing.assert_close(carried, high, atol=0.05 * float(high.abs().max()), rtol=0.0)


def test_near_the_key_nothing_depends_on_what_adaptnet_has_learned(file: str) -> None:
    """What it adds to a frame it takes off at the key: with the paper's fusion a frame next to its key was
    worse than a plain copy on footage that it had not learned from."""
    carrier = read_lvs(file).carrier
    facts = read_lvs(file).facts
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(1, facts.low_channels, 8, 8, generator=generator)
    high = torch.rand(1, facts.high_channels, 16, 16, generator=generator)
    assert isinstance(carrier, CarryNet)
    weights_1Khw = carrier.kernels(low, low, high)
    centre = torch.zeros_like(weights_1Khw)
    centre[:, facts.kernel**2 // 2] = 1.0
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrier, "kernels", lambda *_: centre)
        torch.testing.assert_close(carrier(low, low, high), high)
        assert float(carrier.expected(low, high).abs().max()) > 0.01
        assert not torch.allclose(carrier(low, 2.0 * low, high), high, atol=0.01)


def test_a_file_of_before_still_fuses_what_it_carries(tmp_path: Path) -> None:
    facts = replace(new_lvs(build_segmenter(NET)).facts, expects=False)
    net, low = shaken(LvsNet(facts)), torch.rand(2, 1, facts.low_channels, 8, 8)
    high = torch.rand(1, facts.high_channels, 8, 8)
    kept = {name: value for name, value in asdict(facts).items() if name != "expects"}
    metadata = {"format": "vidseg-lvs-1", "lvs": json.dumps(kept)}
    (tmp_path / "old.safetensors").write_bytes(weights_bytes(net.state_dict(), ("a",), **metadata))
    old = read_lvs(str(tmp_path / "old.safetensors")).carrier
    with torch.no_grad():
        carried = spatially_variant(high, old.kernels(low[0], low[1], high))
        added = old.fuse(torch.cat([carried, old.adapt(low[1])], dim=1))
        assert torch.equal(old(low[0], low[1], high), carried + added)


# --- in the engine -----------------------------------------------------------------------------------------


def test_it_carries_where_a_copy_stays(file: str) -> None:
    frames = inputs(moving_clip(9))
    lvs, copied = (plain(run(engine(way), frames)) for way in (Lvs(file), Copy("features")))
    assert [row[2] for row in lvs] == [row[2] for row in copied]
    differs = [one[-1] != other[-1] for one, other in zip(lvs, copied, strict=True)]
    assert [n for n, other in enumerate(differs) if not other] == [0, 5]  # the keys


@pytest.mark.parametrize("stores", [{1, 4, 7}, {0, 2, 3, 5, 6, 8}])
def test_storing_the_state_anywhere_changes_nothing(file: str, stores: set[int]) -> None:
    def parts() -> Engine:
        return engine(Lvs(file), scheduler=LowDeviation(file, threshold=40.0))

    frames = inputs(moving_clip(10))
    undisturbed = plain(run(parts(), frames))
    assert 1 < sum(row[2] for row in undisturbed) < 10
    here, state, rows = parts(), SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += here.step([state], [frame])[0]
        if number in stores:
            here, state = parts(), SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + here.finish([state])[0]) == undisturbed


def test_two_lanes_of_other_sizes_give_what_one_lane_gives(file: str) -> None:
    clips = [inputs(moving_clip(7, width=width)) for width in (64, 80)]
    alone = [plain(run(engine(Lvs(file)), clip, name=str(n))) for n, clip in enumerate(clips)]
    together, states = engine(Lvs(file)), [SegmentState.new(0, str(n)) for n in range(2)]
    rows: list[list[Any]] = [[], []]
    for frames in zip(*clips, strict=True):
        for lane, new in zip(rows, together.step(states, frames), strict=True):
            lane += new
    assert [plain(lane) for lane in rows] == alone


def test_a_table_says_what_the_engine_gives(file: str) -> None:
    clip, builder = moving_clip(7), tables(Lvs(file))
    seen = builder.see(records_of(clip))
    rows = run(engine(Lvs(file), scheduler=build_scheduler("fixed", interval=50)), inputs(clip))
    for labels_HW, row in zip(builder.pairs(seen, 0), rows[1:], strict=True):
        np.testing.assert_array_equal(labels_HW, row.labels_HW)


def test_the_score_is_what_the_file_expects_in_percent(file: str) -> None:
    clip, segmenter, net = moving_clip(4), build_segmenter(NET), read_lvs(file)
    rows = run(engine(Copy("features"), scheduler=LowDeviation(file, threshold=100.0)), inputs(clip))
    low = ChunkedNet(segmenter, level="features", batch=1, device="cpu").low(clip)
    key, *others = (net.low_of(maps)[None] for maps in low)
    with torch.no_grad():
        expected = [100.0 * float(net.deviation(key, now)[0]) for now in others]
    assert [row.decision_score for row in rows[1:]] == pytest.approx(expected)
    assert len(set(expected)) == 3


def test_a_table_holds_the_scores_and_so_the_keys_of_the_engine(file: str) -> None:
    clip = moving_clip(12)
    rows = run(engine(Copy("features"), scheduler=LowDeviation(file, threshold=100.0)), inputs(clip))
    builder = tables(Copy("features"), low=LowDeviation(file))
    records = records_of(clip)
    table = builder.build("clip", 0, records)
    score_TL1 = feature(table, "low_deviation")
    assert score_TL1[0, 1:7].tolist() == [np.float32(row.decision_score) for row in rows[1:7]]
    threshold = float(np.median(score_TL1[:, 1:][np.isfinite(score_TL1[:, 1:])])) + 1e-3
    scheduler = LowDeviation(file, threshold=threshold)
    engines = run(engine(Copy("features"), scheduler=scheduler, max_interval=6), inputs(clip))
    (keys_T,) = keys_on(table, "low_deviation", [threshold], max_interval=6)
    assert keys_T.tolist() == [row.is_key for row in engines]


@pytest.mark.parametrize(
    ("net", "message"),
    [("tiny:12", "was trained with another net than 'tiny:12'"), ("plain", "'plain' has no parts")],
)
def test_a_net_that_the_weights_do_not_belong_to_is_refused(file: str, net: str, message: str) -> None:
    with pytest.raises(SegmenterError, match=message):
        engine(Lvs(file), net=net)
    with pytest.raises(SegmenterError, match=message):
        engine(Copy(), net=net, scheduler=LowDeviation(file))
    with pytest.raises(SegmenterError, match=message):
        tables(Lvs(file), net=net)


def test_a_net_with_several_feature_maps_is_refused() -> None:
    """All but the first stayed those of the key, without a word."""
    with pytest.raises(SegmenterError, match="lvs carries one map of features, and 'toy' has 2"):
        new_lvs(Parted())


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(weights_bytes({"a": torch.zeros(1)}, ("a",)))
    with pytest.raises(SegmenterError, match="train-propagation writes them"):
        Lvs(str(tmp_path / "x.safetensors"))
    with pytest.raises(SegmenterError, match="cannot be read"):
        Lvs(str(tmp_path / "none.safetensors"))


# --- training ----------------------------------------------------------------------------------------------


def config_of(folder: Path, **options: Any) -> TrainPropagationConfig:
    data = ("scenes:videos=2,frames=8,height=48,width=64",)
    settings = {"data": data, "segmenter": NET, "output": str(folder), "recipe": RECIPE, "device": "cpu"}
    return TrainPropagationConfig(**settings | options)  # type: ignore[arg-type]


def loop(folder: Path, clips: list[FlowClip] | None = None) -> PropagationLoop:
    learner = build_learner(config_of(folder), build_segmenter(NET), "cpu")
    settings = PropagationOptions(folder=folder, save_every=2)
    return PropagationLoop(learner, [a_clip(0), a_clip(1)] if clips is None else clips, settings)


@pytest.mark.parametrize(
    ("net", "frames", "problem"),
    [(NET, 3, ""), ("tiny-face", 3, "--recipe.labels: no clip has labels"), (NET, 1, "--data: has no clip")],
)
def test_data_that_teach_nothing_are_refused(net: str, frames: int, problem: str, tmp_path: Path) -> None:
    """Labels of other classes were taken and had no effect; single frames were found out in a worker."""
    config = config_of(
        tmp_path / "out",
        data=(f"scenes:videos=1,frames={frames},height=48,width=64",),
        segmenter=net,
        recipe=replace(RECIPE, labels=1.0),
        dry_run=True,
    )
    with pytest.raises(ConfigError, match=problem) if problem else nullcontext():
        run_train_propagation(config)


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    before = new_lvs(build_segmenter(NET)).state_dict()
    for name, value in killed_and_resumed(loop, tmp_path).items():
        assert name.startswith("carrier") or not torch.equal(value, before[name]), name


@pytest.mark.ray
def test_the_verb_writes_what_the_plain_loop_learns_and_what_runs_read(
    tmp_path: Path, local_ray: None
) -> None:
    chosen = config_of(tmp_path / "out", val_clips=("scene-001-still",))
    segmenter, printed = build_segmenter(NET), io.StringIO()
    clips = list(dataset_clips(open_dataset(chosen.data[0]), "all", chosen.size, None))
    learn = [clip for clip in clips if clip.name not in chosen.val_clips]
    plain = loop(tmp_path / "plain", learn)
    plain.run()
    with trained_here():
        assert run_train_propagation(chosen, Reporter("text", printed)) == 0
    weights = str(tmp_path / "out" / "lvs.safetensors")
    for name, value in read_lvs(weights).state_dict().items():
        assert torch.equal(value, plain.weights()[name]), name
    details = facts_of(tmp_path / "out")["details"]
    assert list(details["clips"]) == [clip.name for clip in learn]
    assert {score["clip"] for score in details["scores"]} == set(chosen.val_clips)
    assert f"--propagation.weights {weights}" in printed.getvalue()
    assert "--propagation.sides one" in printed.getvalue()
    Lvs(weights).check_net(segmenter)


def test_clips_left_out_are_scored_beside_copy_and_flow(file: str) -> None:
    scores = score_propagator(Lvs(file), build_segmenter(NET), [a_clip(2)], (1, 5, 90), device="cpu")
    assert {(s.method, s.gap) for s in scores.carried} == {
        (method, gap) for method in ("Copy", "FlowWarp", "Lvs") for gap in (1, 5)
    }
    assert all(0.0 <= s.miou <= 1.0 and s.pairs == (2 if s.gap == 1 else 1) for s in scores.carried)
    assert [rank.clip for rank in scores.ranks] == ["clip2"]


def test_one_that_remembers_is_scored_over_every_frame_between() -> None:
    """It is asked for gap 3 only, but what it knows there it learned on the frames before."""

    class Counts:
        level, needs_flow = "labels", False
        seen: ClassVar[list[int]] = []

        def fill(self, gaps: Any) -> Any:
            for gap in gaps:
                before = gap.memory.get("n", np.zeros(1, int))
                self.seen.append(int(before[0]))
                gap.memory = {"n": before + 1}
                yield gap.left.carried

    way: Any = Counts()
    scores = score_propagator(way, build_segmenter(NET), [a_clip(2)], (3,), device="cpu")
    assert Counts.seen == [0, 1, 2] * 2
    assert {s.method for s in scores.carried} == {"Copy", "FlowWarp", "Counts"} and not scores.ranks


def test_scoring_a_long_clip_keeps_the_maps_of_a_few_frames_only(file: str) -> None:
    """Those of 600 frames of a large net were 6 GB, after the last step of a training run."""
    segmenter, alive, most = build_segmenter(NET), weakref.WeakSet[Any](), [0]
    low_of = segmenter.low  # type: ignore[attr-defined]

    def low(frames_B3HW: torch.Tensor) -> Any:
        most[0] = max(most[0], len(alive))
        return low_of(frames_B3HW)

    class Watched(ChunkedNet):
        def low(self, frames: Any) -> list[Any]:
            found = super().low(frames)
            alive.update(maps[0] for maps in found)
            return found

    segmenter.low = low  # type: ignore[attr-defined]
    clip = FlowClip(name="long", frames_THW3=np.stack(moving_clip(60)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(propagation_score, "ChunkedNet", Watched)
        score_propagator(Lvs(file), segmenter, [clip], (1, 5), device="cpu")
    assert 0 < most[0] < 10


def test_what_a_net_that_is_fetched_weighs_is_said_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Said(Exception):
        pass

    def says(spec: str, weights: str | None, report: Any) -> None:
        raise Said(spec)

    monkeypatch.setattr(propagation_job, "bring", says)
    config = TrainPropagationConfig(data=("scenes:",), segmenter="voc", output=str(tmp_path / "out"))
    with pytest.raises(Said, match="voc"):
        run_train_propagation(config)


# --- what it learns from -----------------------------------------------------------------------------------


def drawn_numbers(clip: FlowClip, times: int, recipe: Any) -> list[tuple[int, ...]]:
    """The frames of so many samples."""
    config = config_of(Path("out"), recipe=recipe)
    learner, random = build_learner(config, build_segmenter(NET), "cpu"), np.random.default_rng(0)
    cuts = (learner.draw([clip], random) for _ in range(times))
    return [cut.numbers for cut in cuts if isinstance(cut, ClipCut)]


def test_samples_are_pairs_of_schedules_up_to_the_longest_interval() -> None:
    """Only pairs up to 12 frames apart were drawn, and keys that low latency fills had never been seen."""
    clip = FlowClip(name="c", frames_THW3=np.zeros((30, 32, 64, 3), np.uint8))
    drawn = drawn_numbers(clip, 300, replace(RECIPE, max_gap=20, twice=0.5))
    gaps = [abs(now - key) for now, key, *_ in drawn]
    assert min(gaps) == 1 and 16 <= max(gaps) <= 20
    filled = [numbers for numbers in drawn if len(numbers) == 5]
    assert 100 < len(filled) < 200
    for now, key, _, _, older in filled:
        assert abs(now - key) <= 4 and 0 < (key - older) * (1 if now > key else -1) <= 20


def test_the_shortest_clip_is_enough() -> None:
    clip = FlowClip(name="c", frames_THW3=np.zeros((2, 32, 64, 3), np.uint8))
    assert {numbers[:2] for numbers in drawn_numbers(clip, 20, RECIPE)} == {(0, 1), (1, 0)}


def test_the_expected_deviation_is_one_of_size_and_of_no_unit(file: str) -> None:
    """The same change, seen the other way round or through features twice as large, is the same change."""
    net = read_lvs(file)
    one, other = (
        torch.rand(2, 1, net.facts.low_channels, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    )
    expected = net.deviation(one, other)
    torch.testing.assert_close(net.deviation(other, one), expected)
    torch.testing.assert_close(net.deviation(2 * one, 2 * other), expected, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("new", ["", "relative"])
def test_a_file_of_before_still_pools_first_and_reads_what_it_learned_from(new: str, tmp_path: Path) -> None:
    facts = replace(new_lvs(build_segmenter(NET)).facts, placed=False, relative=bool(new))
    net, low = shaken(LvsNet(facts)), torch.rand(2, 1, facts.low_channels, 9, 7)
    kept = {
        name: value for name, value in asdict(facts).items() if name not in ({"placed", "relative"} - {new})
    }
    metadata = {"format": "vidseg-lvs-1", "lvs": json.dumps(kept)}
    (tmp_path / "old.safetensors").write_bytes(weights_bytes(net.state_dict(), ("a",), **metadata))
    old = read_lvs(str(tmp_path / "old.safetensors")).deviation
    differs = low[1] - low[0]
    if new:
        size = (0.5 * (low[1].abs() + low[0].abs())).mean(dim=(2, 3), keepdim=True) + 1e-3
        differs = differs.abs() / size
    expected = torch.sigmoid(old.last(old.convolve(differs).mean(dim=(2, 3)))[:, 0])
    assert torch.equal(old(low[0], low[1]), expected)


def test_the_deviation_net_learns_where_a_difference_changes_labels() -> None:
    """Pooled first and taught by one number a pair, it ranked pairs worse than the difference of the pictures
    did: light changes all of a picture, and labels change at few of its places."""
    facts = replace(new_lvs(build_segmenter(NET)).facts, low_channels=3)
    random = torch.Generator().manual_seed(0)

    def drawn(pairs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        moved, counts = (torch.rand(pairs, 4, 4, generator=random) < 0.4 for _ in range(2))
        key = torch.rand(pairs, 3, 16, 16, generator=random)
        key[:, 0] += 3.0 * grown(counts)
        now = key.clone()
        now[:, 1] += grown(moved)
        return key, now, grown(moved & counts)

    def grown(places: torch.Tensor) -> torch.Tensor:
        return places.float().repeat_interleave(4, 1).repeat_interleave(4, 2)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DeviationNet(facts)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(30):
        key, now, changed = drawn(4)
        optimiser.zero_grad()
        _misjudged(net.logits(key, now), changed).backward()
        optimiser.step()
    with torch.no_grad():
        key, now, changed = drawn(60)
        shares, differs = changed.mean(dim=(1, 2)).numpy(), (now - key).abs().mean(dim=(1, 2, 3)).numpy()
        found = _spearman(net(key, now).numpy(), shares)
    assert found > 0.85 > _spearman(differs, shares)


def test_expected_shares_of_places_add_up_to_that_of_the_picture() -> None:
    """Cross-entropy is least where each place has its true share, and their mean is the picture's."""
    changed = (torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    shares = torch.nn.functional.avg_pool2d(changed, 8)
    logits = torch.logit(shares).requires_grad_(True)
    _misjudged(logits, changed).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(shares), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.sigmoid(logits).mean(dim=(1, 2)), changed.mean(dim=(1, 2)))
