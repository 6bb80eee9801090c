"""Promise: a video in S3 is read in few, growing pieces, gives the same frames as the local file, and an
object that changes or fails meanwhile is an error, never a mixture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from tests.media import clips
from tests.media.decoding import by_units
from vidseg_core.media import DecodeChild, MediaError, decode_unit, probe, stamp_of
from vidseg_core.media.opening import open_source
from vidseg_core.media.range_source import BLOCK
from vidseg_core.media.s3_source import S3Source
from vidseg_core.media.source import BAD_PLACE, neutral_name
from vidseg_core.plan import expand_inputs, plan_segments

DATA = np.random.default_rng(3).integers(0, 256, 5 * BLOCK + 12_345, dtype=np.uint8).tobytes()


class FakeS3:
    """One object; notes the ranges that are asked for."""

    def __init__(self, data: bytes = DATA, fail: Exception | None = None) -> None:
        self.data, self.etag, self.fail = data, '"1"', fail
        self.ranges: list[tuple[int, int]] = []

    def head_object(self, **_: str) -> dict[str, Any]:
        if self.fail:
            raise self.fail
        return {"ContentLength": len(self.data), "ETag": self.etag}

    def get_object(self, *, Range: str, IfMatch: str, **_: str) -> dict[str, Any]:
        if IfMatch != self.etag:
            raise client_error("PreconditionFailed")
        start, stop = map(int, Range.removeprefix("bytes=").split("-"))
        self.ranges.append((start, stop + 1))
        return {"Body": io.BytesIO(self.data[start : stop + 1])}


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "HeadObject")


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 10), st.integers(0, 3 * BLOCK)), max_size=8))
def test_any_walk_reads_the_same_bytes_as_a_file(walk: list[tuple[int, int]]) -> None:
    remote, local = S3Source("s3://b/k.mp4", FakeS3()), io.BytesIO(DATA)
    for place, size in walk:
        assert remote.seek(place) == local.seek(place)
        assert remote.read(size) == local.read(size)
        assert remote.tell() == local.tell()


def test_reading_forward_asks_for_few_and_growing_pieces() -> None:
    client = FakeS3()
    source = S3Source("s3://b/k.mp4", client)
    while source.read(32_768):
        pass
    sizes = [stop - start for start, stop in client.ranges]
    assert sum(sizes) == len(DATA) and len(sizes) <= 3 and sizes == sorted(sizes)
    source.seek(-10, 2)
    assert source.read() == DATA[-10:] and len(client.ranges) == len(sizes)


def test_an_object_that_changes_while_it_is_read_is_an_error() -> None:
    client = FakeS3()
    source = S3Source("s3://b/k.mp4", client)
    source.read(10)
    client.etag = '"2"'
    source.seek(4 * BLOCK)
    with pytest.raises(MediaError, match="changed") as caught:
        source.read(10)
    assert caught.value.reason == "changed"


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (client_error("404"), "not_found"),
        (client_error("NoSuchBucket"), "not_found"),
        (client_error("403"), "unreadable"),
        (client_error("ExpiredToken"), "source_unavailable"),
        (client_error("SlowDown"), "source_unavailable"),
        (EndpointConnectionError(endpoint_url="http://x"), "source_unavailable"),
    ],
)
def test_what_s3_says_becomes_a_reason(fail: Exception, reason: str) -> None:
    with pytest.raises(MediaError, match="s3://b/k") as caught:
        S3Source("s3://b/k", FakeS3(fail=fail))
    assert caught.value.reason == reason


def test_a_place_that_cannot_be_is_an_answer_and_no_exception() -> None:
    """Damaged files send FFmpeg there; an exception would look like a failing disk."""
    for source in (open_source(__file__), S3Source("s3://b/k.mp4", FakeS3())):
        assert source.seek(-5) == BAD_PLACE
        assert source.seek(5) == 5
        assert source.seek(2**40) == 2**40 and source.read(10) == b""
        source.close()


def test_ffmpeg_is_told_no_path() -> None:
    assert neutral_name("/secret/film.mp4") == "input.mp4"
    assert neutral_name("s3://b/dir.d/name") == "input"
    assert neutral_name("x.mp4,file:/etc/passwd") == "input"
    source = open_source(__file__)
    assert source.name == "input.py"
    source.close()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


def test_a_video_in_s3_gives_the_frames_of_the_local_one(endpoint: str, tmp_path: Path) -> None:
    local = clips.make(tmp_path, "b_frames.mp4")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="films")
    client.put_object(Bucket="films", Key="a b/ä.mp4", Body=local.read_bytes())
    client.put_object(Bucket="films", Key="empty.mp4", Body=b"")
    uri = "s3://films/a b/ä.mp4"
    expected = by_units(local)
    with DecodeChild() as child:
        index = child.probe(uri)
        np.testing.assert_array_equal(index.frame_pts, probe(str(local)).frame_pts)
        unit = plan_segments(index, segment_frames=0, shard_frames=64, unit_frames=30)[0].units[1]
        assert unit.first_frame > 0
        for shard in child.decode(unit.decode_unit(uri, index, height=64, width=96), 64):
            for number, pixels_HW3 in zip(shard.frame_index, shard.frames_THW3, strict=True):
                np.testing.assert_array_equal(pixels_HW3, expected.pixels[number])
        for missing, reason in (("none.mp4", "not_found"), ("empty.mp4", "empty_file")):
            with pytest.raises(MediaError) as caught:
                child.probe(f"s3://films/{missing}")
            assert caught.value.reason == reason


def test_another_object_under_the_same_key_is_not_decoded(endpoint: str, tmp_path: Path) -> None:
    local = clips.make(tmp_path, "b_frames.mp4")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="films")
    client.put_object(Bucket="films", Key="a.mp4", Body=local.read_bytes())
    (video,) = expand_inputs(["s3://films/a.mp4"])
    stamp = stamp_of(video.size, video.stamp)
    with DecodeChild() as child:
        segment = plan_segments(child.probe(video.uri), segment_frames=0, shard_frames=8)[0]
        unit = segment.units[0].decode_unit(
            video.uri, child.probe(video.uri), height=64, width=96, stamp=stamp
        )
        assert len(next(iter(child.decode(unit, 8)))) == 8
        client.put_object(Bucket="films", Key="a.mp4", Body=local.read_bytes() + b"\0")
        with pytest.raises(MediaError) as caught:
            list(child.decode(unit, 8))
    assert caught.value.reason == "changed"


def test_a_file_that_is_written_to_while_it_is_decoded_yields_no_further_shard(tmp_path: Path) -> None:
    local = clips.make(tmp_path, "open_gop.mp4")
    (video,) = expand_inputs([str(local)])
    index = probe(str(local))
    plan = plan_segments(index, segment_frames=0, shard_frames=8)[0].units[0]
    stamp = stamp_of(video.size, video.stamp)
    shards = decode_unit(
        plan.decode_unit(str(local), index, height=64, width=96, stamp=stamp), shard_frames=8
    )
    assert len(next(shards)) == 8
    with local.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(MediaError) as caught:
        next(shards)
    assert caught.value.reason == "changed" and str(local) in str(caught.value)
