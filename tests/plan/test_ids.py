"""Promise: an id is a safe folder name, whatever the video or the user calls itself: it can never lead out
of the output folder, nor be taken for something else there.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from hypothesis import example, given
from hypothesis import strategies as st

from vidseg_core.plan import is_safe_id, make_video_id, safe_video_id

NASTY = [
    "",
    ".",
    "..",
    "/",
    "../..",
    "a/../../b",
    "~",
    "\\..\\x",
    "a\0b",
    "CON",
    "-rf",
    "=",
    "ä ö",
    "\udcff.mp4",
    "...",
]


def examples(function):  # type: ignore[no-untyped-def]
    for text in NASTY:
        function = example(text)(function)
    return function


def assert_stays_inside(video_id: str) -> None:
    root = Path("/output/frames")
    folder = root / f"video={video_id}"
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", video_id)
    assert folder.parent == root and (root / video_id).parent == root
    assert PurePosixPath(video_id).name == video_id and video_id not in (".", "..")
    assert not video_id.endswith(".") and is_safe_id(video_id)


@examples
@given(st.text())
def test_no_uri_makes_an_id_that_escapes(uri: str) -> None:
    assert_stays_inside(make_video_id(uri))
    assert make_video_id(uri) == make_video_id(uri)


@examples
@given(st.text(alphabet=st.sampled_from("./\\aA1-_ =~\0\n%:ä")) | st.text())
def test_no_given_id_escapes(given_id: str) -> None:
    video_id = safe_video_id(given_id)
    assert_stays_inside(video_id)
    assert safe_video_id(video_id) == video_id
    assert (video_id == given_id) == is_safe_id(given_id)


@given(st.text(), st.text())
def test_different_uris_have_different_ids(first: str, second: str) -> None:
    assert (make_video_id(first) == make_video_id(second)) == (first == second)


def test_ids_are_readable_and_frozen() -> None:
    assert make_video_id("/films/Holiday at the Sea.mp4") == "Holiday-at-the-Sea-e7fb4fd8ad"
    assert make_video_id("s3://bucket/ünïcode.tar.mkv").startswith("unicode.tar-")
    assert make_video_id("/films/日本.mp4").startswith("video-")
    assert len(make_video_id("/x/" + "long" * 100 + ".mp4")) <= 71
    assert make_video_id("/a/clip.mp4") != make_video_id("/b/clip.mp4")
