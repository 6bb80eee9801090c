"""Promise: a run on some of a video's frames (`--media.fps`, `--media.start_s`, `--media.end_s`, columns of a
list) is the run on a file that holds those frames alone, with the numbers and times of the source, whatever
kills it; and each excerpt of a file is a video of its own.

Why: every length (interval, LKD, KAR, segment) must count processed frames, or a third of the frames is no
third of the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.pipeline.clips import moving_disc
from tests.pipeline.conftest import RunJob, small_config
from tests.pipeline.inline import Killed, rows_without_package, run_inline
from vidseg_core.config.excerpt import Excerpt
from vidseg_core.config.segment import MediaConfig, PropagationConfig, SchedulerConfig
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.plan import make_video_id
from vidseg_core.store import open_run

LOSSLESS = {"qp": "0", "preset": "ultrafast"}
FRAMES = 62
THIRD = np.arange(0, FRAMES, 3)


def write(path: Path, pictures: list[av.VideoFrame], fps: int) -> Path:
    """An h264 file of exactly these pictures, with a key frame every eight."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options=LOSSLESS)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = 8, 1
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, 1 / stream.codec_context.framerate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`whole`: thirty frames a second; the others: some of its frames."""
    folder = tmp_path_factory.mktemp("clips")
    frames = moving_disc(FRAMES, 48, 64)
    pictures = [av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p") for picture in frames]
    cuts = {"whole": np.arange(FRAMES), "third": THIRD, "range": np.arange(15, 45)}
    return {
        name: write(folder / f"{name}.mp4", [pictures[n] for n in numbers], 10 if name == "third" else 30)
        for name, numbers in cuts.items()
    }


def config_of(
    source: Path, output: Path, name: str = "fixed", media: MediaConfig | None = None, **options: Any
):
    schedulers = {
        "fixed": SchedulerConfig(name="fixed", interval=5, max_interval=20),
        "warp_error": SchedulerConfig(name="warp_error", threshold=3.0, max_interval=9),
        "ahead": SchedulerConfig(name="tests.pipeline.lookahead:Brightest", max_interval=9),
    }
    chosen = {"scheduler": schedulers[name], "propagation": PropagationConfig(sides="two", flow_size=64)}
    return small_config(source, output, **chosen, media=media or MediaConfig(), segment_frames=0, **options)


def rows_of(config: Any, kills: tuple[int, ...] = ()) -> list[tuple]:
    """Rows without the name of the video."""
    for point in kills:
        left = iter(range(point))

        def tick(where: str, left=left) -> None:
            if next(left, None) is None:
                raise Killed(where)

        with pytest.raises(Killed):
            run_inline(config, 1, tick)
    run_inline(config, 1)
    return [row[1:] for row in rows_without_package(Path(config.output))]


def renumbered(rows: list[tuple], numbers: np.ndarray) -> list[tuple]:
    """Rows of a cut file with the numbers of the whole one."""
    return [
        (int(numbers[index]), key, int(numbers[key_index]), *rest) for index, key, key_index, *rest in rows
    ]


@pytest.mark.parametrize("name", ["fixed", "warp_error", "ahead"])
def test_it_is_the_run_on_a_file_that_was_cut_so(name: str, clips: dict[str, Path], tmp_path: Path) -> None:
    for cut, media, numbers in (
        ("third", MediaConfig(fps=10), THIRD),
        ("range", MediaConfig(start_s=0.5, end_s=1.5), np.arange(15, 45)),
    ):
        expected = rows_of(config_of(clips[cut], tmp_path / f"{cut}-file", name))
        found = rows_of(config_of(clips["whole"], tmp_path / cut, name, media))
        assert found == renumbered(expected, numbers)


def test_kills_and_the_size_of_shards_change_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    media = MediaConfig(fps=15, start_s=0.2)
    expected = rows_of(config_of(clips["whole"], tmp_path / "plain", media=media))
    for lanes, shard_frames in ((1, 3), (2, 7)):
        options = {"lanes": lanes, "shard_frames": shard_frames, "media": media}
        config = config_of(clips["whole"], tmp_path / f"killed-{lanes}", **options)
        assert rows_of(config, kills=(3, 5)) == expected


def test_a_list_names_several_excerpts_of_a_file(
    clips: dict[str, Path], tmp_path: Path, run_locally: RunJob
) -> None:
    path, output = tmp_path / "list.csv", tmp_path / "out"
    rows = ["uri,video_id,start_s,end_s,fps", "{0},,,1,", "{0},late,1,,10", "{0},,,,", "{0},beyond,9,,"]
    path.write_text("\n".join(rows).format(clips["whole"]))
    code, text = run_locally(path, output, media=MediaConfig(fps=15))
    assert code == 3 and "beyond" not in text.split("quarantined")[0]
    run = open_run(output)
    videos = {row["video_id"]: row for row in run.videos().to_pylist()}
    uri = str(clips["whole"])
    first, rest = (make_video_id(uri, Excerpt(fps=15, end_s=end_s)) for end_s in (1, None))
    assert set(videos) == {first, rest, "late", "beyond"}
    assert [row["frame_index"] for row in run.rows(first, ("frame_index",))] == list(range(0, 30, 2))
    assert [row["frame_index"] for row in run.rows("late", ("frame_index",))] == list(range(30, FRAMES, 3))
    late, beyond = videos["late"], videos["beyond"]
    assert (late["fps"], late["start_s"], late["end_s"]) == (10, 1, None)
    assert (late["status"], late["decoded_frames"]) == ("ok", 11)
    assert late["duration_s"] == pytest.approx(FRAMES / 30 - 1)
    assert beyond["reason"].startswith("no_frames: ") and beyond["start_s"] == 9
    shown = [number for number, _ in source_frames(uri, 64, 0, Excerpt(fps=10, start_s=1))]
    assert shown == list(range(30, FRAMES, 3))


def test_another_range_is_another_run(clips: dict[str, Path], tmp_path: Path, run_locally: RunJob) -> None:
    assert run_locally(clips["third"], tmp_path / "out", media=MediaConfig(end_s=0.3))[0] == 0
    code, text = run_locally(clips["third"], tmp_path / "out", media=MediaConfig(end_s=0.4))
    assert code == 2 and "media.end_s" in text


def test_a_dry_run_plans_what_will_be_done(
    clips: dict[str, Path], tmp_path: Path, run_locally: RunJob
) -> None:
    code, text = run_locally(clips["whole"], tmp_path / "out", media=MediaConfig(fps=10), dry_run=True)
    assert code == 0 and f"{len(THIRD)} frames" in text
