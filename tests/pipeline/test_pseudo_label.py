"""Promise: pseudo-labels are the masks of `segment` with doubt marked: pixels below the threshold are 255,
the rows say how sure the teacher was, and runs resume and repeat exactly as those of `segment` do.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.run_digest import run_digest
from tests.datasets.miniatures import save
from tests.engine.toy import Named
from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.inline import Killed, run_inline
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine.assemble import describe_net
from vidseg_core.engine.confidence import IGNORE, LabelRule, pack
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.pipeline.ending import labelled_text
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.store import PSEUDO_SCHEMA, compact, open_run


class UnsureNet(Named):
    """Left half: class 1 for sure. Right half: class 2 by a hair."""

    class_names: tuple[str, ...] = ("a", "b", "c")
    stride = 1

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW

    def head(self, feats: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros_like(feats)
        half = feats.shape[3] // 2
        scores[:, 1, :, :half] = 20.0
        scores[:, 2, :, half:] = 0.1
        return scores


def test_packed_labels_come_apart_again() -> None:
    scores_CHW = torch.zeros(3, 2, 4)
    scores_CHW[1, :, :2] = 20.0
    scores_CHW[2, :, 2:] = 0.1
    labels_HW = scores_CHW.argmax(0).numpy().astype(np.uint8)
    settled, mean, share = LabelRule(min_confidence=0.9).settle(pack(labels_HW, scores_CHW))
    assert settled.tolist() == [[1, 1, IGNORE, IGNORE]] * 2
    assert share == 0.5 and mean == pytest.approx((1.0 + np.exp(0.1) / (2 + np.exp(0.1))) / 2, abs=0.005)


def test_a_teacher_that_labels_next_to_nothing_is_told() -> None:
    assert "labelled: 50.0 %" in (usual := labelled_text(Counts(frames=10, labelled=5.0)))
    assert "hardly anything" not in usual
    nothing = Counts(frames=30, resumed_frames=20)
    assert "hardly anything can be learned" in labelled_text(nothing)
    assert labelled_text(Counts(frames=20, resumed_frames=20)) == "", "nothing was looked at"


def test_threshold_zero_keeps_every_pixel_and_a_remap_renumbers() -> None:
    scores_CHW = torch.eye(3)[:, None, :].repeat(1, 2, 1)
    packed = pack(scores_CHW.argmax(0).numpy().astype(np.uint8), scores_CHW)
    assert LabelRule(min_confidence=0.0).settle(packed)[0].tolist() == [[0, 1, 2]] * 2
    rule = LabelRule(min_confidence=0.0, remap=(1, IGNORE, 0))
    assert rule.settle(packed)[0].tolist() == [[1, IGNORE, 0]] * 2


def _config(folder: Path, output: str, **options: object) -> PseudoLabelConfig:
    return PseudoLabelConfig(
        input=(str(folder),),
        output=str(folder / output),
        segmenter=f"{__name__}:UnsureNet",
        scheduler=SchedulerConfig(interval=4),
        shard_frames=8,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pseudo")
    write_video(folder / "a.mp4", moving_disc(21))
    return folder


@pytest.mark.parametrize("level", ["labels", "scores"])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_rows_say_how_sure_the_teacher_was(clips: Path, level: str, sides: str) -> None:
    propagation = PropagationConfig(name="copy", level=level, sides=sides)  # type: ignore[arg-type]
    run_inline(_config(clips, f"{level}-{sides}", propagation=propagation), 1)
    run = open_run(clips / f"{level}-{sides}")
    assert run.frames().schema == PSEUDO_SCHEMA
    (video_id, _), *_ = run.files()
    rows = list(run.rows(video_id))
    assert len(rows) == 21 and {row["confident_share"] for row in rows} == {0.5}
    mask_HW = run.mask(video_id, 10)
    half = mask_HW.shape[1] // 2
    assert (mask_HW[:, :half] == 1).all() and (mask_HW[:, half:] == IGNORE).all()


def test_a_killed_run_goes_on_to_the_same_labels(clips: Path) -> None:
    run_inline(_config(clips, "whole"), 1)
    calls = 0

    def strike(where: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Killed

    with pytest.raises(Killed):
        run_inline(_config(clips, "killed"), 1, strike)
    run_inline(_config(clips, "killed"), 1)
    assert run_digest(clips / "killed") == run_digest(clips / "whole")


def test_without_doubt_the_masks_are_those_of_segment(clips: Path) -> None:
    run_inline(_config(clips, "all", min_confidence=0.0), 1)
    plain = SegmentConfig(
        input=(str(clips),),
        output=str(clips / "plain"),
        segmenter=f"{__name__}:UnsureNet",
        scheduler=SchedulerConfig(interval=4),
        shard_frames=8,
    )
    run_inline(plain, 1)
    ours, theirs = open_run(clips / "all"), open_run(clips / "plain")
    (video_id, _), *_ = ours.files()
    for index in range(21):
        assert np.array_equal(ours.mask(video_id, index), theirs.mask(video_id, index))


def test_a_class_map_for_a_teacher_cannot_speak_of_255(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("classes: [x, y]\nmap: {a: x, b: x, c: x, 255: y}\n")
    with pytest.raises(ConfigError, match="--remap.*255 is no class of the segmenter"):
        describe_net(_config(clips, "out", remap=str(tmp_path / "map.yaml")))


def test_no_dial_chooses_how_labels_are_made() -> None:
    with pytest.raises(ConfigError, match="--max_drop: goes with vidseg segment, not with pseudo-label"):
        PseudoLabelConfig(input=("in",), output="out", segmenter="plain", max_drop=1.0)


def test_a_merged_run_says_the_same(clips: Path) -> None:
    run_inline(_config(clips, "merged"), 1)
    before = run_digest(clips / "merged")
    assert compact(clips / "merged", force=True).spans >= 1
    assert run_digest(clips / "merged") == before
    assert open_run(clips / "merged").frames().schema == PSEUDO_SCHEMA


def test_the_job_labels_with_other_classes_and_refuses_another_class_map(clips: Path, tmp_path: Path) -> None:
    remap = tmp_path / "classes.yaml"
    remap.write_text("classes: [thing, rest]\nmap: {a: rest, b: thing, c: ignore}\n")
    config = _config(clips, "job", min_confidence=0.0, remap=str(remap), executor="local")
    text = io.StringIO()
    assert run_segment(config, Reporter("text", text)) == 0, text.getvalue()
    assert "labelled: " in text.getvalue()
    run = open_run(clips / "job")
    (video_id, _), *_ = run.files()
    assert sorted(np.unique(run.mask(video_id, 3))) == [0, IGNORE]
    assert run.info()["segmenter"]["class_names"] == ["thing", "rest"]
    remap.write_text("classes: [thing, rest]\nmap: {a: rest, b: rest, c: ignore}\n")
    assert run_segment(config, Reporter("text", text)) == 2
    assert "belongs to another run" in text.getvalue()
    remap.write_text("classes: [thing]\nmap: {a: thing, b: thing}\n")
    assert run_segment(config, Reporter("text", text)) == 2
    assert "misses class c" in text.getvalue()


def test_cityscapes_snippets_are_labelled_and_learned_from(tmp_path: Path) -> None:
    """ETC labels the frames around each annotated one; each snippet is a video of its own."""
    folder = tmp_path / "leftImg8bit_sequence" / "train" / "aachen"
    frames = {}
    for sequence in (0, 1):
        for number in range(4):
            name = f"aachen_{sequence:06d}_{number:06d}"
            frames[sequence, number] = np.full((32, 48, 3), 60 * number + 20 * sequence, np.uint8)
            save(folder / f"{name}_leftImg8bit.png", frames[sequence, number])
    config = PseudoLabelConfig(
        input=(str(folder.parent),),
        output=str(tmp_path / "labels"),
        segmenter=f"{__name__}:UnsureNet",
        scheduler=SchedulerConfig(name="every"),
        min_confidence=0.0,
        executor="local",
    )
    assert run_segment(config, Reporter("text", io.StringIO())) == 0
    dataset = open_dataset(f"tables:{tmp_path / 'labels'}")
    items = dataset.items("all")
    assert len(items) == 8 and len({item.video_id for item in items}) == 2
    seen = sorted(int(dataset.read(item).frame_HW3.mean()) for item in items)
    assert seen == sorted(int(frame_HW3.mean()) for frame_HW3 in frames.values())
    assert all(dataset.read(item).labels_HW is not None for item in items)
