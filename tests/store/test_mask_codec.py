"""Promise: a mask comes back bit for bit, equal masks have equal bytes, anybody can re-write the decoder from
its description, and damaged bytes raise `ValueError`: no crash, no mask of a wrong size, no huge memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vidseg_core.store import MASK_CODEC, decode_mask, encode_mask

LABEL_MAPS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.sampled_from([0, 0, 0, 1, 2, 255]),
)
LITTLE = encode_mask(np.array([[0, 0, 0], [1, 1, 2]], np.uint8))


def decode_elsewhere(data: bytes, height: int, width: int) -> bytes:
    """The documented layout, decoded without anything of ours."""
    n = int.from_bytes(data[:4], "little")
    rest, labels = iter(data[4 + n :]), bytearray()
    for value in data[4 : 4 + n]:
        length = shift = 0
        for byte in rest:
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        labels += bytes([value]) * length
    assert len(labels) == height * width
    return bytes(labels)


def test_the_bytes_are_the_documented_ones() -> None:
    assert MASK_CODEC == "rle1"
    assert LITTLE == b"\3\0\0\0\0\1\2\3\2\1"
    assert encode_mask(np.full((10, 30), 7, np.uint8)) == b"\1\0\0\0\7\xac\2"


@given(LABEL_MAPS)
def test_a_mask_comes_back_here_and_elsewhere(labels_HW: np.ndarray) -> None:
    data = encode_mask(labels_HW)
    again_HW = decode_mask(data, *labels_HW.shape)
    assert again_HW.dtype == np.uint8
    np.testing.assert_array_equal(again_HW, labels_HW)
    assert decode_elsewhere(data, *labels_HW.shape) == labels_HW.tobytes()


@pytest.mark.parametrize("length", [127, 128, 16383, 16384, 2097151, 2097152, 20_000_000])
def test_every_size_of_run_length_comes_back(length: int) -> None:
    labels_HW = np.zeros((1, length + 1), np.uint8)
    labels_HW[0, -1] = 9
    data = encode_mask(labels_HW)
    assert len(data) < 4 + 2 + 6
    np.testing.assert_array_equal(decode_mask(data, 1, length + 1), labels_HW)


@given(LABEL_MAPS)
def test_views_in_any_memory_order_have_the_same_bytes(labels_HW: np.ndarray) -> None:
    assert encode_mask(np.asfortranarray(labels_HW)) == encode_mask(labels_HW)
    assert encode_mask(np.repeat(labels_HW, 2, axis=1)[:, ::2]) == encode_mask(labels_HW)


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(1, 9))
def test_arbitrary_bytes_are_decoded_or_refused(data: bytes, height: int, width: int) -> None:
    try:
        assert decode_mask(data, height, width).shape == (height, width)
    except ValueError as error:
        assert str(error).startswith("mask")


@given(LABEL_MAPS, st.data())
def test_damaged_bytes_are_decoded_to_the_right_size_or_refused(
    labels_HW: np.ndarray, draw: st.DataObject
) -> None:
    data = bytearray(encode_mask(labels_HW))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    cut = draw.draw(st.integers(0, len(data)))
    for damaged in (bytes(data), bytes(data[:cut])):
        try:
            assert decode_mask(damaged, *labels_HW.shape).shape == labels_HW.shape
        except ValueError as error:
            assert str(error).startswith("mask")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short"),
        (LITTLE[:6], "cut short"),
        (LITTLE[:-1], "cut short"),
        (LITTLE + b"\1", "bytes left over"),
        (b"\xff\xff\xff\xff" + b"\1" * 50, "cannot hold 4294967295 runs"),
        (b"\1\0\0\0\0\xff\xff\xff\xff\x7f", "expected 2x3"),
        (b"\1\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f", "too long"),
        (b"\3\0\0\0\0\1\2\3\0\3", "expected 2x3"),
        (LITTLE[:-1] + b"\x81", "damaged"),
    ],
)
def test_malformed_bytes_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_mask(data, 2, 3)


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 3x3"):
        decode_mask(LITTLE, 3, 3)
    with pytest.raises(ValueError, match="not positive"):
        decode_mask(LITTLE, 0, 3)


@pytest.mark.parametrize(
    "labels",
    [np.zeros((2, 2), np.int64), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8), np.zeros((1, 2, 2))],
)
def test_what_is_no_label_map_is_not_encoded(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"labels must be a non-empty uint8 \[H, W\]"):
        encode_mask(labels)
