"""The promise: however a picture travels, its colours are the bits that PyAV's own conversion gives, and what
a subverted decode process says of it is believed only where it cannot do harm.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseg_core.media import Layout, Pictures
from vidseg_core.media.pictures import (
    CHROMA_LOCATIONS,
    PictureWriter,
    chroma_location,
    plane_of,
    slot_bytes_of,
    usual_bytes,
    write_rgb,
)


def noisy_frame(width: int, height: int, name: str = "yuv420p", **properties: Any) -> VideoFrame:
    """A frame of noise; FFmpeg's filter sets `chroma_location` and `field_mode`, as a decoder would."""
    frame = VideoFrame(width, height, name)
    noise = np.random.default_rng(width * 1000 + height)
    for number, plane in enumerate(frame.planes):
        rows, columns = (height, width) if number == 0 else (-(-height // 2), -(-width // 2))
        plane_of(plane, rows, columns)[...] = noise.integers(0, 256, (rows, columns), dtype=np.uint8)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    marks = ":".join(f"{key}={value}" for key, value in properties.items() if isinstance(value, str))
    if marks:
        graph = av.filter.Graph()
        steps = [
            graph.add_buffer(width=width, height=height, format=frame.format, time_base=frame.time_base),
            graph.add("setparams", marks),
            graph.add("buffersink"),
        ]
        for one, other in zip(steps[:-1], steps[1:], strict=True):
            one.link_to(other)
        graph.configure()
        graph.push(frame)
        marked = graph.pull()
        assert isinstance(marked, VideoFrame)
        frame = marked
    frame.colorspace = properties.get("colorspace", 2)
    frame.color_range = properties.get("color_range", 0)
    return frame


def sent(frame: VideoFrame, height: int, width: int, rotation: int = 0) -> tuple[Pictures, np.ndarray]:
    """(the frame as it travels, its colours as PyAV makes them)."""
    room = np.full(slot_bytes_of(height, width), 7, np.uint8)
    layout = PictureWriter(height, width, rotation).write(frame, room)
    expected_HW3 = np.empty((height, width, 3), np.uint8)
    write_rgb(frame, rotation, expected_HW3)
    return Pictures(room, [layout], [0], height=height, width=width), expected_HW3


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(2, 120), st.integers(2, 120)),
    scale=st.floats(0.5, 1.6),
    chroma=st.sampled_from(CHROMA_LOCATIONS),
    colorspace=st.sampled_from([1, 2, 5, 6, 9]),
    color_range=st.sampled_from([0, 1, 2]),
    rotation=st.sampled_from([0, 90, 180, -90]),
    name=st.sampled_from(["yuv420p", "yuvj420p", "yuv422p"]),
)
def test_colours_are_those_of_pyav_bit_for_bit(
    size: tuple[int, int],
    scale: float,
    chroma: str,
    colorspace: int,
    color_range: int,
    rotation: int,
    name: str,
) -> None:
    w, h = size
    if name == "yuv422p":
        w, h = w * 2, h * 2
        frame = VideoFrame(w, h, name)
        for plane in frame.planes:
            plane.update(bytes(range(256)) * (plane.buffer_size // 256) + bytes(plane.buffer_size % 256))
    else:
        frame = noisy_frame(
            w, h, name, chroma_location=chroma, colorspace=colorspace, color_range=color_range
        )
    upright = (w, h) if rotation % 180 else (h, w)
    height, width = (max(8, int(side * scale) // 8 * 8) for side in upright)
    pictures, expected_HW3 = sent(frame, height, width, rotation)
    np.testing.assert_array_equal(pictures[0].rgb(), expected_HW3)
    np.testing.assert_array_equal(pictures.rgb()[0], expected_HW3)


@pytest.mark.parametrize("chroma", ["left", "center", "topleft", "bottomleft"])
@pytest.mark.parametrize("side", [32, 64])
def test_the_chroma_location_is_found_whatever_the_picture_shows(chroma: str, side: int) -> None:
    frame = noisy_frame(side, side, chroma_location=chroma)
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    found = chroma_location(frame)
    assert found == ("unspecified" if chroma == "center" else chroma)
    assert set(bytes(frame.planes[0])) == {128}, "the picture itself was written over"


@pytest.mark.parametrize(
    ("frame", "working", "format"),
    [
        (noisy_frame(64, 48), (48, 64), "yuv420p"),
        (noisy_frame(64, 48), (32, 32), "yuv420p"),
        (noisy_frame(64, 48), (16, 24), "rgb24"),  # planes would be several times larger
        (noisy_frame(63, 48), (48, 64), "rgb24"),
        (noisy_frame(64, 48, field_mode="tff"), (48, 64), "rgb24"),
        (VideoFrame(64, 48, "yuv444p"), (48, 64), "rgb24"),
        (VideoFrame(64, 48, "yuv420p10le"), (48, 64), "rgb24"),
    ],
)
def test_common_frames_travel_as_planes_and_the_others_as_rgb(
    frame: VideoFrame, working: tuple[int, int], format: str
) -> None:
    pictures, expected_HW3 = sent(frame, *working)
    assert pictures.layouts[0].format == format
    assert pictures.pixels.size <= slot_bytes_of(*working)
    np.testing.assert_array_equal(pictures[0].rgb(), expected_HW3)
    luma = pictures[0].luma()
    assert (luma is None) == (format == "rgb24")
    if not frame.interlaced_frame:
        assert usual_bytes(frame.format.name, (frame.height, frame.width), working) == pictures.pixels.size


def test_pictures_of_several_kinds_lie_in_one_shard() -> None:
    frames = [
        noisy_frame(64, 48),
        noisy_frame(63, 47),
        noisy_frame(64, 48, color_range=2),
        noisy_frame(96, 64),
    ]
    writer, room, used, layouts = (
        PictureWriter(48, 64, 0),
        np.zeros(4 * slot_bytes_of(48, 64), np.uint8),
        0,
        [],
    )
    for frame in frames:
        layouts.append(writer.write(frame, room[used:]))
        used += layouts[-1].bytes
    pictures = Pictures(room, layouts, range(4), height=48, width=64)
    for t, frame in enumerate(frames):
        expected_HW3 = np.empty((48, 64, 3), np.uint8)
        write_rgb(frame, 0, expected_HW3)
        np.testing.assert_array_equal(pictures[t].rgb(), expected_HW3)
        np.testing.assert_array_equal(pictures.rgb()[t], expected_HW3)
    assert len({layout.format for layout in layouts}) == 2 and len(set(layouts)) == 4


def test_luma_is_upright_and_says_its_range() -> None:
    frame = noisy_frame(64, 48)
    upright = sent(frame, 48, 64)[0][0].luma()
    turned = sent(frame, 64, 48, 90)[0][0].luma()
    assert upright is not None and turned is not None and not upright[1]
    np.testing.assert_array_equal(turned[0], np.rot90(upright[0]))
    full = sent(noisy_frame(64, 48, "yuvj420p"), 48, 64)[0][0].luma()
    assert full is not None and full[1]


LIES = [
    [],
    "rgb24",
    ["rgb24", 64, 48, 0, 0, "left"],
    ["rgb24", 64.0, 48, 0, 0, "left", 0],
    ["rgb24", True, 48, 0, 0, "left", 0],
    ["rgb24", -64, -48, 0, 0, "left", 0],
    ["yuv420p", 63, 48, 0, 0, "left", 0],
    ["yuv420p", 64, 1 << 40, 0, 0, "left", 0],
    ["yuv420p", 64, 48, 0, 0, "left:flags=x", 0],
    ["yuv420p", 64, 48, 0, 0, "left", 45],
    ["vaapi", 64, 48, 0, 0, "left", 0],
]


@pytest.mark.parametrize("values", LIES, ids=str)
def test_a_layout_that_cannot_be_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="no picture layout"):
        Layout.from_list(values)


def test_pictures_never_reach_behind_their_memory() -> None:
    room = np.zeros(100, np.uint8)
    with pytest.raises(ValueError, match="need 4608 bytes, not 100"):
        Pictures(room, [Layout("yuv420p", 64, 48)], [0], height=48, width=64)
    with pytest.raises(ValueError, match="an RGB picture of 2x2 in 48x64"):
        Pictures(room, [Layout("rgb24", 2, 2)], [0], height=48, width=64)


def test_layouts_survive_the_way_through_lists() -> None:
    layout = Layout("yuvj420p", 64, 48, 1, 2, "left", -90)
    assert Layout.from_list(layout.to_list()) == layout
