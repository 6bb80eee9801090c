"""Promise: no marker is believed against the listing, and `--repair` makes again, byte for byte, what is
damaged or missing, wherever it is killed.

Why: with a part, a folder or all of `frames/` deleted, `segment` and `status` said complete and exports wrote
less with exit code 0; a damaged part could not be got back but by running everything again.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.clips import make_corpus, moving_disc, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import Killed, run_inline
from tests.s3_server import S3Bucket
from tests.store.builders import flip
from vidseg_core.cli.main import main
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit.manifest import claim_output
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.whole import lacking, whole_totals
from vidseg_core.pipeline import ending
from vidseg_core.pipeline.output import manifest_of
from vidseg_core.pipeline.repair import repair
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.pipeline.status import read_status
from vidseg_core.pipeline.tally import quarantine_row
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.store import compact, open_run, open_store
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.objects import ObjectStore

Damage = Callable[[ObjectStore], None]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_corpus(tmp_path_factory.mktemp("clips"), (26, 41))
    (folder / "text.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with a quarantined video, to be copied."""
    output = tmp_path_factory.mktemp("plain") / "out"
    drive(config_of(clips, output))
    return output


@pytest.fixture
def config(clips: Path, finished: Path, tmp_path: Path) -> SegmentConfig:
    shutil.copytree(finished, tmp_path / "out")
    return config_of(clips, tmp_path / "out")


def config_of(clips: Path, output: Path, **options: bool) -> SegmentConfig:
    return small_config(clips, output, segmenter="plain", segment_frames=20, **options)


def drive(
    config: SegmentConfig, tick: Callable[[str], None] = lambda where: None, store: ObjectStore | None = None
) -> str:
    """One driver from beginning to end, without Ray; what it said."""
    store, text = store or open_store(config.output), io.StringIO()
    inputs, net, report = expand_inputs(config.input), describe_net(config), Reporter("text", text)
    manifest = manifest_of(config, net)
    claim_output(store, manifest, inputs)
    if config.repair:
        repair(store, report)
    run_inline(config, 1, tick)
    ending.finish(store, config, manifest, net, whole_totals(store, inputs, finished=False), 0.0, report)
    return text.getvalue()


def content(output: str | Path) -> dict[str, bytes]:
    """All that a reader reads, byte for byte."""
    store = open_store(output)
    return {info.key: store.get(info.key) for prefix in ("frames/", "videos/") for info in store.list(prefix)}


def parts(store: ObjectStore) -> list[str]:
    """Parts and spans of the second clip, which has two segments."""
    return [info.key for info in store.list("frames/video=clip-1-")]


def delete(*numbers: int) -> Damage:
    def damage(store: ObjectStore) -> None:
        for key in [parts(store)[number] for number in numbers]:
            store.delete(key)

    return damage


def delete_all_frames(store: ObjectStore) -> None:
    shutil.rmtree(Path(store.root) / "frames")


def delete_folder(store: ObjectStore) -> None:
    shutil.rmtree((Path(store.root) / parts(store)[0]).parent)


def delete_row(store: ObjectStore) -> None:
    store.delete(next(key for key in content(store.root) if key.startswith("videos/clip")))


def flipped(*numbers: int) -> Damage:
    def damage(store: ObjectStore) -> None:
        for number in numbers:
            flip(store, parts(store)[number], 300)

    return damage


def flipped_row(store: ObjectStore) -> None:
    flip(store, next(key for key in content(store.root) if key.startswith("videos/clip")), 30)


def cut_short(store: ObjectStore) -> None:
    for number, size in ((0, 0), (3, 500)):
        store.put(parts(store)[number], store.get(parts(store)[number])[:size])


def swapped(store: ObjectStore) -> None:
    store.put(parts(store)[1], store.get(parts(store)[4]))


def no_run_json(store: ObjectStore) -> None:
    store.delete("run.json")


GONE = [delete(1), delete(-1), delete(0, 2, 4), delete_folder, delete_all_frames, delete_row, no_run_json]
WRONG = [flipped(0), flipped(2, 5), flipped_row, cut_short, swapped]


def name(damage: object) -> str:
    return getattr(damage, "__name__", "") + "-" + str(([*GONE, *WRONG]).index(damage))  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", GONE, ids=name)
def test_a_complete_run_that_lacks_something_is_not_called_complete(
    config: SegmentConfig, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(config.output)
    damage(open_store(config.output))
    gone = [key for key in before if key not in content(config.output)] or ["run.json"]
    folder = gone[0].rpartition("/")[0]
    text = io.StringIO()
    assert run_segment(config, Reporter("text", text)) == 1
    assert (gone[0] in text.getvalue() or folder in text.getvalue()) and "--repair" in text.getvalue()
    assert "nothing to do" not in text.getvalue() and "Traceback" not in text.getvalue()
    assert main(["status", config.output]) == 1
    said = capsys.readouterr().out
    assert "missing" in said and (gone[0] in said or folder in said)
    assert open_store(config.output).exists("_SUCCESS")


@pytest.mark.parametrize("damage", [*GONE, *WRONG], ids=name)
def test_a_repair_gives_every_byte_back(config: SegmentConfig, damage: Damage) -> None:
    before = content(config.output)
    damage(open_store(config.output))
    said = drive(config_of(Path(config.input[0]), Path(config.output), repair=True))
    rows_made_again = damage in (delete_row, flipped_row)
    after = content(config.output)
    assert after.keys() == before.keys()
    for key, data in before.items():
        assert after[key] == data or (rows_made_again and key.startswith("videos/clip")), key
    assert "to be made again" in said
    assert lacking(open_store(config.output)) == [] and read_status(config.output, verify=True).sound
    assert open_run(config.output).complete and not list(Path(config.output).glob("_state/**/*.*"))


class CutStore(LocalStore):
    """Dies at its n-th change."""

    def __init__(self, root: str, changes: int) -> None:
        super().__init__(root)
        self.left = changes

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_a_repair_that_is_killed_anywhere_is_gone_on_with(config: SegmentConfig, tmp_path: Path) -> None:
    """By the plain command, too: it says what is missing, or ends with what was there before the repair."""
    before = content(config.output)
    for number in (0, 3):
        flip(open_store(config.output), parts(open_store(config.output))[number], 300)
    flip(open_store(config.output), next(key for key in before if "video=clip-0" in key), 300)
    damaged, seen = content(config.output), set()
    for changes in range(40):
        output = tmp_path / f"cut-{changes}"
        shutil.copytree(config.output, output)
        store = CutStore(str(output), changes)
        with contextlib.suppress(Killed):
            repair(store, Reporter("text", io.StringIO()))
        try:
            drive(config_of(Path(config.input[0]), output))
            seen.add("as it was" if content(output) == damaged else "whole")
            assert content(output) in (damaged, before)
        except DamagedFile as error:
            seen.add("named")
            assert "is missing" in str(error) and "--repair" in str(error)
        drive(config_of(Path(config.input[0]), output, repair=True))
        assert content(output) == before
        if store.left >= 0:
            break
    assert changes > 6 and seen == {"as it was", "named", "whole"}


@pytest.mark.parametrize("commits", range(6))
def test_a_replay_that_is_killed_is_gone_on_with_by_the_same_or_the_plain_command(
    config: SegmentConfig, commits: int
) -> None:
    before = content(config.output)
    for damage in (flipped(0, 4), delete(-1)):
        damage(open_store(config.output))
    left = [commits]

    def tick(where: str) -> None:
        left[0] -= where == "after commit"
        if left[0] < 0:
            raise Killed

    again = config_of(Path(config.input[0]), Path(config.output), repair=True)
    with pytest.raises(Killed):
        drive(again, tick)
    drive(config if commits % 2 else again)
    assert content(config.output) == before


def test_a_damaged_span_comes_back_as_parts(config: SegmentConfig) -> None:
    before, rows = content(config.output), list(open_run(config.output).rows(_longest(config)))
    compact(config.output)
    (span,) = (key for key in parts(open_store(config.output)) if "span-00000" in key)
    flip(open_store(config.output), span, 900)
    drive(config_of(Path(config.input[0]), Path(config.output), repair=True))
    back = [key for key in parts(open_store(config.output)) if "part-00000" in key]
    assert len(back) > 1 and all(content(config.output)[key] == before[key] for key in back)
    assert list(open_run(config.output).rows(_longest(config))) == rows


def _longest(config: SegmentConfig) -> str:
    return parts(open_store(config.output))[0].split("/")[1].removeprefix("video=")


def test_a_damaged_part_of_an_unfinished_run_is_named_and_made_again(
    config: SegmentConfig, tmp_path: Path
) -> None:
    unfinished = config_of(Path(config.input[0]), tmp_path / "new")
    left = [4]

    def tick(where: str) -> None:
        left[0] -= where == "after commit"
        if left[0] < 0:
            raise Killed

    with pytest.raises(Killed):
        drive(unfinished, tick)
    store = open_store(unfinished.output)
    bad = parts(store)[0]
    for info in list(store.list("_state/")):  # so that it is run again
        store.delete(info.key)
    flip(store, bad, 300)
    with pytest.raises(DamagedFile, match=rf"{bad} is damaged.*--repair"):
        drive(unfinished)
    drive(config_of(Path(config.input[0]), tmp_path / "new", repair=True))
    assert content(unfinished.output).keys() == content(config.output).keys()
    frames = {key: data for key, data in content(config.output).items() if key.startswith("frames/")}
    assert frames.items() <= content(unfinished.output).items()


def test_a_damaged_state_costs_a_replay_and_nothing_else(config: SegmentConfig, tmp_path: Path) -> None:
    unfinished, left = config_of(Path(config.input[0]), tmp_path / "new"), [3]

    def tick(where: str) -> None:
        left[0] -= where == "after commit"
        if left[0] < 0:
            raise Killed

    with pytest.raises(Killed):
        drive(unfinished, tick)
    store = open_store(unfinished.output)
    states = list(store.list("_state/"))
    assert states
    for info in states:
        flip(store, info.key, 40)
    assert read_status(unfinished.output).sound
    drive(unfinished)
    frames = {key: data for key, data in content(config.output).items() if key.startswith("frames/")}
    assert frames.items() <= content(unfinished.output).items()


def test_nothing_is_taken_away_where_nothing_is_wrong(config: SegmentConfig) -> None:
    store, text = open_store(config.output), io.StringIO()
    before = {info.key: store.get(info.key) for info in store.list()}
    again = config_of(Path(config.input[0]), Path(config.output), repair=True)
    assert run_segment(again, Reporter("text", text)) == 3  # a video is quarantined
    assert "nothing to repair" in text.getvalue() and "complete already" in text.getvalue()
    assert {info.key: store.get(info.key) for info in store.list()} == before


def test_a_dry_run_only_says_what_would_be_made_again(config: SegmentConfig) -> None:
    flipped(1)(open_store(config.output))
    before, text = content(config.output), io.StringIO()
    again = config_of(Path(config.input[0]), Path(config.output), repair=True, dry_run=True)
    assert run_segment(again, Reporter("text", text)) == 0
    assert parts(open_store(config.output))[1] in text.getvalue() and "would be made again" in text.getvalue()
    assert content(config.output) == before and open_run(config.output).complete


def test_a_source_that_has_changed_is_one_sentence(config: SegmentConfig, tmp_path: Path) -> None:
    clips = tmp_path / "in"
    shutil.copytree(config.input[0], clips)
    first = config_of(clips, tmp_path / "new")
    drive(first)
    delete(0)(open_store(first.output))
    before = content(first.output)
    os.utime(next(clips.glob("clip 1*")), (1, 1))
    text = io.StringIO()
    again = config_of(clips, tmp_path / "new", repair=True)
    assert run_segment(again, Reporter("text", text)) == 1
    assert "1 changed since" in text.getvalue() and "Traceback" not in text.getvalue()
    assert content(first.output) == before


def test_a_source_that_gives_other_frames_leaves_the_row_as_it_was(
    config: SegmentConfig, tmp_path: Path
) -> None:
    clips = tmp_path / "in"
    shutil.copytree(config.input[0], clips)
    first = config_of(clips, tmp_path / "new")
    drive(first)
    delete(0)(open_store(first.output))
    source = next(clips.glob("clip 1*"))
    stamp, size = source.stat().st_mtime_ns, source.stat().st_size
    write_video(source, moving_disc(9))
    with open(source, "ab") as file:
        file.truncate(size)
    os.utime(source, ns=(stamp, stamp))
    with pytest.raises(DamagedFile, match=r"cannot be made again from .*clip 1.*which has changed since"):
        drive(config_of(clips, tmp_path / "new", repair=True))
    assert not open_run(first.output).complete


def test_a_quarantined_video_that_lacks_a_part_is_tried_again(config: SegmentConfig) -> None:
    before, store, video_id = content(config.output), open_store(config.output), _longest(config)
    store.delete(f"videos/{video_id}.parquet")
    ending.close_video(store, quarantine_row(video_id, "clip", "decode_timeout", "it hung"))
    assert lacking(store) == []
    delete(1)(store)
    assert len(lacking(store)) == 1
    drive(config_of(Path(config.input[0]), Path(config.output), repair=True))
    rows = {row["video_id"]: row for row in open_run(config.output).videos().to_pylist()}
    assert rows[video_id]["status"] == "ok"
    assert content(config.output).keys() == before.keys()


def test_a_sound_run_that_is_not_finished_has_nothing_missing(config: SegmentConfig, tmp_path: Path) -> None:
    for commits in range(8):
        unfinished, left = config_of(Path(config.input[0]), tmp_path / f"{commits}"), [commits]

        def tick(where: str, left: list[int] = left) -> None:
            left[0] -= where == "after commit"
            if left[0] < 0:
                raise Killed

        with pytest.raises(Killed):
            drive(unfinished, tick)
        assert main(["status", unfinished.output]) == 0


def test_a_run_does_not_finish_over_a_part_that_is_gone(config: SegmentConfig) -> None:
    store = open_store(config.output)
    store.delete("_SUCCESS")
    delete(2)(store)
    with pytest.raises(DamagedFile, match=r"is missing; .*--repair"):
        drive(config)
    assert not store.exists("_SUCCESS")


def test_two_repairs_at_once_end_whole(config: SegmentConfig) -> None:
    before, store = content(config.output), open_store(config.output)
    flipped(0, 3)(store)
    again = config_of(Path(config.input[0]), Path(config.output), repair=True)
    met = []

    def tick(where: str) -> None:
        if where == "after commit" and not met:
            met.append(where)
            drive(again)

    drive(again, tick)
    assert met and content(config.output) == before


@pytest.mark.ray
def test_on_s3_and_with_ray_it_is_the_same(
    corpus: Path,
    s3: S3Bucket,
    run_job: Callable[..., tuple[int, str]],
    run_locally: Callable[..., tuple[int, str]],
) -> None:
    output = f"{s3.url}/repaired"
    assert run_locally(corpus, output)[0] == 0
    before, store = content(output), open_store(output)
    gone, bad = parts(store)[0], parts(store)[-2]
    store.delete(gone)
    flip(store, bad, 300)
    code, text = run_job(corpus, output)
    assert code == 1 and gone in text and "--repair" in text and "Traceback" not in text
    code, text = run_job(corpus, output, repair=True, retry_quarantined=True, workers=1)
    assert code == 0 and gone in text and f"{bad} is damaged (frames " in text, text
    assert content(output) == before and open_run(output).complete
    code, text = run_job(corpus, output)
    assert code == 0 and "complete already" in text


def test_what_cannot_be_made_again_costs_the_others_nothing(
    tmp_path: Path, run_locally: Callable[..., tuple[int, str]]
) -> None:
    clips = make_corpus(tmp_path / "in", (26, 41))
    output = tmp_path / "out"
    assert run_locally(clips, output, segmenter="plain")[0] == 0
    before = content(output)
    delete_all_frames(open_store(output))
    source = next(clips.glob("clip 1*"))
    stamp, size = source.stat().st_mtime_ns, source.stat().st_size
    source.write_bytes(bytes(size))
    os.utime(source, ns=(stamp, stamp))
    code, text = run_locally(clips, output, segmenter="plain", repair=True)
    assert code == 1 and f"cannot be made again from {source}" in text and "Traceback" not in text
    assert not open_run(output).complete
    other = {key: data for key, data in before.items() if "clip-0" in key}
    assert content(output) == other
