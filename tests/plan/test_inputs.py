"""Promise: what a person names as input becomes the same list of videos every time, each video once, and a
name that leads nowhere is an error that repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.plan.named import names, touch, write_list
from tests.plan.test_lists import PARTS
from vidseg_core.aws import NO_SIGN, PAYER, input_client, s3_client
from vidseg_core.media.opening import open_source
from vidseg_core.plan import InputError, expand_inputs, make_video_id, s3


def test_a_directory_is_searched_to_any_depth_in_order(tree: Path) -> None:
    found = expand_inputs([str(tree)])
    assert [os.path.relpath(video.uri, tree) for video in found] == [
        "a.MKV",
        "b.mp4",
        "sub/c.avi",
        "sub/deep/b.mp4",
    ]
    assert len({video.video_id for video in found}) == 4
    assert all(video.size == 1 and video.stamp.isdigit() for video in found)
    assert expand_inputs([str(tree)]) == found


def test_a_file_named_alone_may_be_called_anything(tree: Path) -> None:
    assert names(str(tree / "notes.txt")) == ["notes.txt"]


def test_globs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(str(tree / "**" / "*.mp4")) == ["b.mp4", "b.mp4"]
    assert names(str(tree / "*")) == ["a.MKV", "b.mp4", "c.avi", "b.mp4"]
    assert names(str(tree / "*.txt")) == ["notes.txt"]
    monkeypatch.chdir(tree)
    assert [video.uri for video in expand_inputs(["s*/c.*"])] == [str(tree / "sub/c.avi")]
    touch(tree / "take[1].mp4")
    assert names("take[1].mp4") == ["take[1].mp4"]


def test_the_same_file_comes_once_however_it_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "loop").symlink_to(tree)
    monkeypatch.chdir(tree / "sub")
    specs = ["../b.mp4", str(tree / "b.mp4"), f"file://{tree}/b.mp4", "../loop/b.mp4", "../sub/../b.mp4"]
    assert [video.uri for video in expand_inputs(specs)] == [str(tree / "b.mp4")]
    assert len(expand_inputs([str(tree), *specs])) == 4


def test_a_link_to_a_file_keeps_the_name_that_it_was_given(tmp_path: Path) -> None:
    """Caches (of the hub, of DVC) keep files under their hashes."""
    blob = touch(tmp_path / "blobs" / "9f86d081884c7d65", b"123")
    for name in ("street.mp4", "again.mp4"):
        (tmp_path / "snapshots").mkdir(exist_ok=True)
        (tmp_path / "snapshots" / name).symlink_to(blob)
    again, street = expand_inputs([str(tmp_path)])
    assert street.uri == str(tmp_path / "snapshots" / "street.mp4") and street.video_id.startswith("street-")
    assert again.uri.endswith("again.mp4") and (again.size, again.stamp) == (3, street.stamp)


def test_strange_names_are_kept_as_they_are(tmp_path: Path) -> None:
    strange = ["ä ö ü.mp4", "日本 語.mkv", "a'b\"c.mp4", "new\nline.mp4", "-rf.mp4", "100%.mp4", "a=b&c.mp4"]
    for name in strange:
        touch(tmp_path / name)
    found = expand_inputs([str(tmp_path)])
    assert sorted(Path(video.uri).name for video in found) == sorted(strange)
    assert all(video.video_id.isascii() and "/" not in video.video_id for video in found)


def test_a_name_that_is_not_utf8_has_an_address_that_leads_to_it(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9 #1.mp4", "wb") as file:
        file.write(b"123")
    touch(tmp_path / "other.mp4")
    found, _ = expand_inputs([str(tmp_path)])
    assert found.uri == f"file://{tmp_path}/caf%E9%20%231.mp4" and found.size == 3
    assert found.video_id.isascii()
    assert list(expand_inputs([found.uri])) == [found]
    assert list(expand_inputs([write_list(tmp_path / "l.csv", [{"uri": found.uri}])])) == [found]
    with closing(open_source(found.uri)) as source:
        assert source.read() == b"123"


def test_limit_takes_the_first(tree: Path) -> None:
    assert names(str(tree), limit=2) == ["a.MKV", "b.mp4"]
    with pytest.raises(InputError, match="limit"):
        expand_inputs([str(tree)], limit=0)


@pytest.mark.parametrize("spec", ["missing.mp4", "missing/*.mp4", "ftp://x/y.mp4", "rtsp://x", "", "empty"])
def test_what_leads_nowhere_is_named(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        expand_inputs([spec])
    assert spec in str(caught.value)


def test_no_input_at_all() -> None:
    with pytest.raises(InputError, match="no input"):
        expand_inputs([])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3")
    client.create_bucket(Bucket="reels")
    for key in (
        "in/b.mp4",
        "in/a b.mp4",
        "in/sub/ä.mkv",
        "in/notes.txt",
        "in/.hidden.mp4",
        "other/c.mp4",
        "in.mp4",
    ):
        client.put_object(Bucket="reels", Key=key, Body=b"12345")
    return "s3://reels"


def test_s3(bucket: str) -> None:
    below = [video.uri for video in expand_inputs([f"{bucket}/in/"])]
    assert below == [f"{bucket}/in/{name}" for name in ("a b.mp4", "b.mp4", "sub/ä.mkv")]
    assert [video.uri for video in expand_inputs([f"{bucket}/*/*.mp4"])][-1] == f"{bucket}/other/c.mp4"
    (one,) = expand_inputs([f"{bucket}/in/b.mp4"])
    assert (one.size, one.video_id) == (5, make_video_id(f"{bucket}/in/b.mp4")) and len(one.stamp) == 32
    assert len(expand_inputs([bucket, f"{bucket}/in/b.mp4"])) == 5
    assert len(expand_inputs([f"{bucket}/in"])) == 4


def test_s3_listing_goes_through_all_pages(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE_SIZE", 2)
    assert len(expand_inputs([f"{bucket}/"])) == 5


def test_lists_in_and_of_s3(bucket: str, tree: Path) -> None:
    client = boto3.client("s3")
    text = f"uri,video_id\n../in/./b.mp4,one\n{bucket}/other/c.mp4,\ns3://reels/gone.mp4,\nin/b.mp4,\n"
    client.put_object(Bucket="reels", Key="lists/list.csv", Body=text.encode())
    one, other, gone, beside = expand_inputs([f"{bucket}/lists/list.csv"])
    assert (one.uri, one.video_id, one.size) == (f"{bucket}/in/b.mp4", "one", 5)
    assert other.size == 5 and (gone.size, gone.stamp) == (0, "missing")
    assert beside.uri == f"{bucket}/lists/in/b.mp4"
    client.put_object(Bucket="reels", Key="lists/list.csv", Body=b"uri\n../../x.mp4\n")
    with pytest.raises(InputError, match=r"entry \.\./\.\./x\.mp4 leads out of the bucket"):
        expand_inputs([f"{bucket}/lists/list.csv"])


def test_parquet_parts_below_a_prefix(bucket: str) -> None:
    client = boto3.client("s3")
    for name, data in PARTS.items():
        client.put_object(Bucket="reels", Key=f"lists/clips.parquet/{name}", Body=data)
    for spec in ("lists/clips.parquet", "lists/clips.parquet/"):
        found = expand_inputs([f"{bucket}/{spec}"])
        assert [video.uri for video in found] == [f"{bucket}/lists/clips/{n}.mp4" for n in "213"]


def test_a_key_that_exists_is_no_pattern(bucket: str) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="takes")
    for key in ("take[1].mp4", "take1.mp4", "[2024] x/a.mp4"):
        client.put_object(Bucket="takes", Key=key, Body=b"12345")
    for spec, key in (
        ("take[1].mp4", "take[1].mp4"),
        ("[2024] x", "[2024] x/a.mp4"),
        ("take[0-9].mp4", "take1.mp4"),
    ):
        assert [video.uri for video in expand_inputs([f"s3://takes/{spec}"])] == [f"s3://takes/{key}"]


@pytest.mark.parametrize(("variable", "value"), [(NO_SIGN, "yes"), (PAYER, "requester"), (PAYER, "me")])
def test_public_buckets_and_those_whose_reader_pays(
    variable: str, value: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs' client alone: an output is never written without credentials, or at another's expense."""
    sent: list[Any] = []
    boto3.client("s3").put_object_acl(Bucket="reels", Key="in/b.mp4", ACL="public-read")
    monkeypatch.setenv(variable, value)
    if value == "me":
        with pytest.raises(InputError, match="b.mp4: the variable AWS_REQUEST_PAYER is 'me'"):
            expand_inputs([f"{bucket}/in/b.mp4"])
        return
    for client in (input_client(), s3_client()):
        client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.headers))
    (video,) = expand_inputs([f"{bucket}/in/b.mp4"])
    with closing(open_source(video.uri)) as source:
        source.read(5)
    s3_client().head_object(Bucket="reels", Key="in/b.mp4")
    assert len(sent) == 4
    for number, headers in enumerate(sent):
        assert ("Authorization" in headers) == (variable == PAYER or number == 3)
        assert ("x-amz-request-payer" in headers) == (variable == PAYER and number < 3)


@pytest.mark.parametrize(
    "spec", ["s3://reels/none/", "s3://reels/none.mp4", "s3://nowhere/x/", "s3://", "s3://reels/no.csv"]
)
def test_s3_names_that_lead_nowhere(spec: str, bucket: str) -> None:
    with pytest.raises(InputError) as caught:
        expand_inputs([spec])
    assert spec in str(caught.value)


# --- sequences of pictures ----------------------------------------------------------------------------------


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    for name in ("bear/00000.jpg", "bear/00001.jpg", "city/a_1.png", "city/a_2.png", "city/b_1.png"):
        touch(tmp_path / "davis" / name)
    return tmp_path / "davis"


def test_folders_of_numbered_pictures_are_videos_where_there_are_no_others(davis: Path) -> None:
    bear, a, b = expand_inputs([str(davis)])
    assert bear.uri == f"{davis}/bear/" and bear.video_id.startswith("bear-") and bear.size == 2
    assert [a.uri, b.uri] == [f"{davis}/city/a_*.png", f"{davis}/city/b_*.png"]
    touch(davis / "bear" / "00002.jpg")
    assert expand_inputs([f"{davis}/bear"])[0].stamp != bear.stamp
    touch(davis / "clip.mp4")
    assert names(str(davis)) == ["clip.mp4"], "thumbnails and masks beside videos"
    (davis / "link").symlink_to(davis / "bear")
    assert expand_inputs([f"{davis}/link"])[0].uri == f"{davis}/link/"


def test_the_rate_of_a_sequence_is_a_part_of_its_address(davis: Path, tmp_path: Path) -> None:
    (bear,) = expand_inputs([f"{davis}/bear"], sequence_fps=24)
    assert bear.uri == f"{davis}/bear/#fps=24" and bear.video_id.startswith("bear-")
    (again,) = expand_inputs([f"{davis}/bear#fps=24"], sequence_fps=12)
    assert again == bear
    for wrong in ("0", "0.0001", "1001"):
        with pytest.raises(InputError, match=r"a sequence has 0\.001 to 1000 frames a second"):
            expand_inputs([f"{davis}/bear#fps={wrong}"])
    uris: list[str] = ["davis/bear", "davis/city/a_*.png#fps=5", bear.uri, "davis"]
    uris += ["davis/bear#fps=25", f"{bear.uri}.0"]  # named twice
    rows: list[dict[str, str | None]] = [{"uri": uri} for uri in uris]
    five, a, listed, none = expand_inputs([write_list(tmp_path / "l.csv", rows)])
    assert five.uri == f"{davis}/bear/" and a.uri == f"{davis}/city/a_*.png#fps=5" and listed == bear
    assert (none.uri, none.size, none.stamp) == (f"{davis}/", 0, "missing")
    clip = touch(davis / "clip.mp4")
    listed_clip = write_list(tmp_path / "clip.csv", [{"uri": f"{clip}#fps=5", "video_id": None}])
    for spec in (f"{clip}#fps=5", f"{davis}#fps=5", listed_clip):
        with pytest.raises(
            InputError, match=r"clip\.mp4.*: #fps= is for sequences of pictures; --media\.fps"
        ):
            expand_inputs([spec])


def test_a_pattern_takes_whole_sequences(davis: Path) -> None:
    (a,) = expand_inputs([f"{davis}/city/a*"])
    assert a.uri == f"{davis}/city/a_*.png"
    assert len(expand_inputs([f"{davis}/*/*.*"])) == 3
    spelled_out = [f"{davis}/bear/00000.jpg", f"{davis}/bear/00001.jpg", f"{davis}/city/b_1.png"]
    found = [video.uri for video in expand_inputs([*spelled_out, f"{davis}/city/a*"])]
    assert found == [f"{davis}/bear/", f"{davis}/city/b_*.png", f"{davis}/city/a_*.png"], "by a shell"
    with pytest.raises(InputError, match=r"matches 1 of the 2 frames of this sequence; name it whole"):
        expand_inputs([f"{davis}/city/*_1.png"])


def test_pictures_beside_a_list_leave_it_open(davis: Path) -> None:
    """The pictures won without a word, be they thumbnails."""
    part = write_list(davis / "part-0.parquet", [{"uri": "bear", "video_id": None}])
    with pytest.raises(InputError, match=r"part-0\.parquet\) and numbered pictures \(.*/bear/\); name one"):
        expand_inputs([str(davis)])
    assert len(expand_inputs([part, f"{davis}/city"])) == 3
    touch(davis / "clip.mp4")
    assert names(str(davis)) == ["clip.mp4"]


def test_pictures_that_leave_it_open_are_named(davis: Path) -> None:
    touch(davis / "bear" / "cover.jpg")
    with pytest.raises(InputError, match="pictures without a number beside frames"):
        expand_inputs([str(davis)])
    with pytest.raises(InputError, match="this pattern matches no video"):
        expand_inputs([f"{davis}/bear/[c]*.png"])


def test_sequences_in_s3(bucket: str) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="davis")
    keys = ("480p/bear/0.jpg", "480p/bear/1.jpg", "480p/bear/small/0.jpg", "480p/a_1.png", "480p/b_1.png")
    for key in (*keys, "list.csv"):
        client.put_object(Bucket="davis", Key=key, Body=b"uri\n480p/bear/\n480p/a_*.png#fps=5\n480p/none/\n")
    for spec, expected in (
        ("480p/", ["480p/a_*.png", "480p/b_*.png", "480p/bear/", "480p/bear/small/"]),
        ("480p/bear#fps=24", ["480p/bear/#fps=24", "480p/bear/small/#fps=24"]),
        ("480p/a_*.png", ["480p/a_*.png"]),
        ("list.csv", ["480p/bear/", "480p/a_*.png#fps=5", "480p/none/"]),
    ):
        found = expand_inputs([f"s3://davis/{spec}"])
        assert [video.uri for video in found] == [f"s3://davis/{uri}" for uri in expected]
        assert all(video.size for video in found if "none" not in video.uri)
