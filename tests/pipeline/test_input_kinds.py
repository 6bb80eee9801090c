"""Promise: whatever people have as input goes through the whole job, and a run that is killed on it and given
again ends with the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.clouds import BUCKET, REPO
from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import RunJob, small_config
from tests.pipeline.inline import Killed, rows_without_package, run_inline
from tests.s3_server import S3Bucket
from tests.web import Web
from vidseg_core.export.sources import Sources
from vidseg_core.store.run import open_run

FRAMES = 20


def frames(folder: Path, name: str = "{:05d}.png", count: int = FRAMES) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(moving_disc(count)):
        Image.fromarray(picture).save(folder / name.format(number))
    return folder


def upload(folder: Path, s3: S3Bucket) -> str:
    client = boto3.client("s3")
    for path in sorted(folder.rglob("*.*")):
        client.upload_file(str(path), s3.bucket, f"in/{path.relative_to(folder)}")
    return f"{s3.url}/in/"


def a_folder_of_pngs(tmp: Path, s3: S3Bucket, web: Web) -> str:
    return str(frames(tmp / "bear"))


def two_sequences_of_jpegs_in_a_folder(tmp: Path, s3: S3Bucket, web: Web) -> str:
    for name in ("left", "right"):
        for path in frames(tmp / name, name + "_{:d}.jpg", FRAMES // 2).iterdir():
            path.rename(tmp / path.name)
        (tmp / name).rmdir()
    return f"{tmp}/*.jpg"


def pictures_in_s3(tmp: Path, s3: S3Bucket, web: Web) -> str:
    return upload(frames(tmp / "bear"), s3)


def an_animated_png(tmp: Path, s3: S3Bucket, web: Web) -> str:
    first, *others = map(Image.fromarray, moving_disc(FRAMES))
    first.save(tmp / "a.png", save_all=True, append_images=others, duration=40)
    return f"{tmp}/a.png"


def parts_of_parquet(tmp: Path, s3: S3Bucket, web: Web) -> str:
    """Relative addresses, an id, and a link as caches make them."""
    write_video(tmp / "blobs" / "a.mp4", moving_disc(FRAMES)).rename(tmp / "blobs" / "5891b5b522d5df08")
    (tmp / "clips").mkdir()
    (tmp / "clips" / "a [1].mp4").symlink_to(tmp / "blobs" / "5891b5b522d5df08")
    (tmp / "list.parquet").mkdir()
    pq.write_table(
        pa.table({"uri": ["clips/a [1].mp4"], "video_id": [7]}), tmp / "list.parquet" / "part-0.parquet"
    )
    return f"{tmp}/list.parquet"


def the_web(tmp: Path, s3: S3Bucket, web: Web) -> str:
    write_video(web.folder / "a b.mp4", moving_disc(FRAMES))
    return f"{web.url}/moved/a b.mp4"


def storage_of_google(tmp: Path, s3: S3Bucket, web: Web) -> str:
    write_video(tmp.parent / "cloud" / "in" / "a.mp4", moving_disc(FRAMES))
    return f"gs://{BUCKET}/in"


def the_hub(tmp: Path, s3: S3Bucket, web: Web) -> str:
    write_video(tmp.parent / "cloud" / "a.mp4", moving_disc(FRAMES))
    return f"hf://{REPO}/a.mp4"


KINDS = (
    a_folder_of_pngs,
    two_sequences_of_jpegs_in_a_folder,
    pictures_in_s3,
    an_animated_png,
    parts_of_parquet,
    the_web,
    storage_of_google,
    the_hub,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_killed_and_given_again_it_ends_with_the_same_rows(
    kind: Callable[[Path, S3Bucket, Web], str], tmp_path: Path, s3: S3Bucket, web: Web, clouds: Path
) -> None:
    (tmp_path / "in").mkdir()
    source = kind(tmp_path / "in", s3, web)
    whole, killed = (small_config(source, tmp_path / name, segmenter="plain") for name in ("whole", "killed"))
    run_inline(whole, 1)
    rows = rows_without_package(tmp_path / "whole")
    assert len(rows) == FRAMES and {row["status"] for row in open_run(whole.output).videos().to_pylist()} == {
        "ok"
    }
    left = 6

    def tick(where: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed(where)

    with pytest.raises(Killed):
        run_inline(killed, 1, tick)
    assert 0 < len(rows_without_package(tmp_path / "killed")) < FRAMES
    run_inline(killed, 1)
    assert rows_without_package(tmp_path / "killed") == rows


def test_what_is_wrong_with_a_sequence_is_in_its_row(tmp_path: Path, run_locally: RunJob) -> None:
    whole, gap, mixed = (frames(tmp_path / "in" / name, count=13) for name in ("whole", "gap", "mixed"))
    (gap / "00004.png").unlink()
    Image.new("RGB", (32, 32)).save(mixed / "00003.png")
    code, text = run_locally(tmp_path / "in", tmp_path / "out", segmenter="plain")
    assert code == 3, text
    rows = {Path(row["uri"]).name: row for row in open_run(tmp_path / "out").videos().to_pylist()}
    assert (rows["whole"]["status"], rows["whole"]["decoded_frames"], rows["whole"]["codec"]) == (
        "ok",
        13,
        "png",
    )
    assert rows["gap"]["status"] == "partial" and "1 frame is not in the folder" in rows["gap"]["reason"]
    assert rows["mixed"]["reason"].startswith("not_a_video: ") and "differ in size" in rows["mixed"]["reason"]


def test_a_run_at_another_rate_is_another_run(tmp_path: Path, run_locally: RunJob) -> None:
    source = frames(tmp_path / "in", count=8)
    assert run_locally(source, tmp_path / "out", segmenter="plain")[0] == 0
    code, text = run_locally(f"{source}#fps=5", tmp_path / "out", segmenter="plain")
    assert code == 2 and "was begun with other videos" in text


def test_a_sequence_that_has_moved_is_found_by_the_name_of_its_folder(
    tmp_path: Path, run_locally: RunJob
) -> None:
    source = frames(tmp_path / "in" / "bear", "a_{:d}.png", 8)
    frames(source.parent / "b", "b_{:d}.png", 2).joinpath("b_0.png").rename(source / "b_0.png")
    assert run_locally(f"{source}/a*.png#fps=5", tmp_path / "out", segmenter="plain")[0] == 0
    source.parent.rename(tmp_path / "moved")
    run = open_run(tmp_path / "out")
    (row,) = run.videos().to_pylist()
    with closing(Sources(run, str(tmp_path / "moved"))) as sources:
        frame_HW3 = sources.frame(row["video_id"], 3, 128)
        assert frame_HW3 is not None and np.array_equal(frame_HW3, moving_disc(8)[3]), sources.lost
