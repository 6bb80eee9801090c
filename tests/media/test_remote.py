"""Promise: a video on the web, in Google or Azure storage or on the hub gives the frames of the local file;
what a server does wrong is one sentence that says so and holds no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.media import clips
from tests.media.decoding import by_units
from tests.media.test_sequences import write
from tests.web import Web
from vidseg_core.media import MediaError, probe, remote
from vidseg_core.media.opening import open_source
from vidseg_core.plan import InputError, expand_inputs


@pytest.fixture
def site(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """A server with a clip, a page and an archive, and a reader that does not wait for long."""
    clips.make(web.folder, "b_frames.mp4").rename(web.folder / "a b.mp4")
    rng = np.random.default_rng(0)
    (web.folder / "large.mp4").write_bytes(rng.integers(0, 256, 5 << 20, np.uint8).tobytes())
    (web.folder / "page.mp4").write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    (web.folder / "zip.mp4").write_bytes(b"PK\3\4" + bytes(500))
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.4)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return web


def test_a_video_on_the_web_gives_the_frames_of_the_local_one(site: Web) -> None:
    uri = f"{site.url}/a b.mp4"
    (video,) = expand_inputs([uri])
    assert (video.uri, video.size) == (uri, (site.folder / "a b.mp4").stat().st_size) and video.stamp
    assert video.video_id.startswith("a-b-")
    found, expected = by_units(uri, unit_frames=30), by_units(site.folder / "a b.mp4", unit_frames=30)
    assert found.same_pixels(expected) and found.same_times(expected)


def test_ranges_are_read_as_they_are(site: Web) -> None:
    data = (site.folder / "large.mp4").read_bytes()
    source = open_source(f"{site.url}/large.mp4")
    for place, size in ((4 << 20, 70_000), (0, 10), (1_234_567, 2_000_000), (5 << 20, 5)):
        source.seek(place)
        assert source.read(size) == data[place : place + size]
    source.close()


@pytest.mark.parametrize(
    ("path", "reason", "words"),
    [
        ("403/a b.mp4", "unreadable", "it may not be read .403."),
        ("404/a b.mp4", "not_found", "there is no such file"),
        ("none.mp4", "not_found", "there is no such file"),
        ("503/a b.mp4", "unreadable", "cannot be reached .503."),
        ("loop/a b.mp4", "unreadable", "leads from one address to the next without end"),
        ("silent/a b.mp4", "unreadable", "no answer for 0.4 s"),
        ("stalls/a b.mp4", "unreadable", "no answer for 0.4 s"),
        ("nolength/a b.mp4", "unreadable", "does not say how large it is"),
        ("norange/large.mp4", "unreadable", "does the server serve ranges"),
        ("page.mp4", "not_a_video", "a web page"),
        ("zip.mp4", "not_a_video", "a ZIP archive; unpack it"),
    ],
)
def test_what_a_server_does_wrong_is_said(path: str, reason: str, words: str, site: Web) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        if "large" in path:
            source = open_source(f"{site.url}/{path}")
            source.seek(4 << 20)
            source.read(10)
        probe(f"{site.url}/{path}")
    assert caught.value.reason == reason and str(caught.value).startswith(f"{site.url}/{path}: ")


def test_redirects_are_followed_and_their_tokens_are_kept_nowhere(site: Web) -> None:
    assert by_units(f"{site.url}/moved/a b.mp4").count == probe(f"{site.url}/a b.mp4").frames
    with pytest.raises(MediaError) as caught:
        probe(f"{site.url}/moved/none.mp4")
    assert "secret" not in str(caught.value)
    info = {"type": "file", "size": 5, "url": "http://elsewhere/?token=abc"}
    with pytest.raises(MediaError, match="https://x/a.mp4: leads to an address without https") as caught:
        remote._entry("https://x/a.mp4", info)
    assert "token" not in str(caught.value)


def test_a_server_in_trouble_is_asked_again(site: Web) -> None:
    assert len(open_source(f"{site.url}/twice503/a b.mp4").read(10) or b"") == 10


def test_a_host_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="http://127.0.0.1:9/a.mp4: cannot be reached"):
        expand_inputs(["http://127.0.0.1:9/a.mp4"])


def test_a_file_that_changes_while_it_is_read_is_an_error(site: Web) -> None:
    source = open_source(f"{site.url}/large.mp4")
    source.read(10)
    (site.folder / "large.mp4").write_bytes(bytes(5 << 20))
    source.seek(3 << 20)
    with pytest.raises(MediaError) as caught:
        source.read(10)
    assert caught.value.reason == "changed"


def test_lists_on_the_web_and_of_the_web(site: Web, tmp_path: Path) -> None:
    (site.folder / "list.csv").write_text("uri,video_id\na b.mp4,one\nnone.mp4,two\n")
    one, two = expand_inputs([f"{site.url}/list.csv"])
    assert (one.uri, one.video_id, one.size > 0) == (f"{site.url}/a b.mp4", "one", True)
    assert (two.size, two.stamp) == (0, "missing")
    (tmp_path / "list.csv").write_text("uri\nhttps://x/a.mp4?X-Amz-Signature=abc\n")
    with pytest.raises(InputError, match="holds credentials") as caught:
        expand_inputs([str(tmp_path / "list.csv")])
    assert "abc" not in str(caught.value)


# --- object storage -----------------------------------------------------------------------------------------


class Bucket(MemoryFileSystem):
    """Stands for the storage of any service: fsspec's own, with their kind of `info`."""

    protocol = ("gs", "az", "hf")  # type: ignore[assignment]
    store: dict[str, Any] = {}  # type: ignore[misc]
    pseudo_dirs = [""]  # type: ignore[misc]

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        """As the hub does, an error where nothing is."""
        return super().find(path, *arguments, **options) or self.info(path)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.partition("://")[2].strip("/") if "://" in path else "/" + path.strip("/")


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(remote, "_file_system", lambda uri: (bucket, Bucket._strip_protocol(uri)))
    bucket = Bucket(skip_instance_cache=True)
    yield bucket
    bucket.store.clear()


@pytest.mark.parametrize("scheme", ["gs", "az", "hf"])
def test_object_storage_is_searched_and_read_like_a_folder(
    scheme: str, storage: Bucket, tmp_path: Path
) -> None:
    clip = clips.make(tmp_path, "b_frames.mp4")
    local = write(tmp_path / "bear", range(12))
    for name in ("films/b.mp4", "films/take[1].mp4", "films/deep/c.mp4", "films/notes.txt"):
        storage.pipe_file(f"/{name}", clip.read_bytes())
    for path in (tmp_path / "bear").iterdir():
        storage.pipe_file(f"/davis/bear/{path.name}", path.read_bytes())
    for spec, expected in (
        ("films", ["films/b.mp4", "films/deep/c.mp4", "films/take[1].mp4"]),
        ("films/take[1].mp4", ["films/take[1].mp4"]),
        ("films/*/*.mp4", ["films/deep/c.mp4"]),
        ("davis", ["davis/bear/"]),
    ):
        found = expand_inputs([f"{scheme}://{spec}"])
        assert [video.uri for video in found] == [f"{scheme}://{uri}" for uri in expected]
        assert all(video.size for video in found)
    assert by_units(f"{scheme}://films/b.mp4").same_pixels(by_units(clip))
    assert by_units(f"{scheme}://davis/bear/").same_pixels(by_units(local))
    with pytest.raises(InputError, match="no videos under this prefix"):
        expand_inputs([f"{scheme}://none/"])


@pytest.mark.parametrize("scheme", ["gs", "az", "hf"])
def test_a_folder_is_listed_anew_each_time(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of services keep what they have listed for as long as a process lives."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")  # Google's: asks for no credentials
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "nobody")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "bm9ib2R5")
    kept, _ = remote._file_system(f"{scheme}://b/films/a.mp4")
    kept.dircache["b/films"] = [{"name": "b/films/a.mp4", "size": 1, "type": "file"}]
    again, _ = remote._file_system(f"{scheme}://b/films/a.mp4")
    assert "b/films" not in again.dircache


def test_storage_that_does_not_answer_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(uri: str) -> Any:
        raise ConnectionResetError("by order of the test")

    monkeypatch.setattr(remote, "_file_system", gone)
    with pytest.raises(MediaError, match="gs://b/a.mp4: cannot be reached") as caught:
        open_source("gs://b/a.mp4")
    assert caught.value.reason == "source_unavailable"


def test_a_service_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise ImportError("no module named gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(
        InputError, match=r"gs://b/a.mp4: reading gs:// needs the extra 'remote' \(pip install"
    ):
        expand_inputs(["gs://b/a.mp4"])
