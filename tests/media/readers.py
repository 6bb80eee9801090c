"""Decoders that misbehave, named to the decode process as `tests.media.readers:NAME`."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from vidseg_core.media import DecodeUnit, FrameShard, Layout, Pictures, decode_unit


class Hangs:
    """Neither probe nor decode ever comes back (in C, so that no Python signal handler runs either)."""

    @staticmethod
    def probe(uri: str, limits: Any) -> Any:
        ctypes.CDLL(None).pause()

    @staticmethod
    def decode_unit(unit: DecodeUnit, **arguments: Any) -> Iterator[FrameShard]:
        ctypes.CDLL(None).pause()
        yield from ()


class Segfaults:
    """Reads from address zero."""

    @staticmethod
    def probe(uri: str, limits: Any) -> Any:
        print("about to fail", file=sys.stderr, flush=True)
        ctypes.string_at(0)


class Raises:
    """An error that nobody expects, far down."""

    @staticmethod
    def probe(uri: str, limits: Any, depth: int = 40) -> Any:
        if not depth:
            raise ValueError("by order of the test")
        return Raises.again(uri, limits, depth)

    @staticmethod
    def again(uri: str, limits: Any, depth: int) -> Any:  # Python folds a function that calls itself
        return Raises.probe(uri, limits, depth - 1)


def segfault_in_second_shard(unit: DecodeUnit, **arguments: Any) -> Iterator[FrameShard]:
    """Delivers one shard, then crashes; only on files whose name has `poison` in it."""
    for number, shard in enumerate(decode_unit(unit, **arguments)):
        if number == 1 and "poison" in unit.uri:
            ctypes.string_at(0)
        yield shard


def hang_in_second_shard(unit: DecodeUnit, **arguments: Any) -> Iterator[FrameShard]:
    """Delivers one shard, then hangs; only on files whose name has `poison` in it."""
    for number, shard in enumerate(decode_unit(unit, **arguments)):
        if number == 1 and "poison" in unit.uri:
            ctypes.CDLL(None).pause()
        yield shard


def constant(unit: DecodeUnit, *, shard_frames: int, skip_shards: int, limits: Any) -> Iterator[FrameShard]:
    """A custom reader with memory of its own: frame n is filled with n."""
    total = len(unit.frame_pts)
    for first in range(skip_shards * shard_frames, total, shard_frames):
        numbers = np.arange(first, min(total, first + shard_frames))
        frames = np.empty((len(numbers), unit.height, unit.width, 3), np.uint8)
        frames[...] = numbers[:, None, None, None]
        layout = Layout("rgb24", unit.width, unit.height)
        pictures = Pictures(
            frames.reshape(-1), [layout], [0] * len(numbers), height=unit.height, width=unit.width
        )
        yield FrameShard(unit.first_frame + numbers, numbers / 25, np.zeros(len(numbers), bool), pictures)


PAUSE_S = 0.05


def slow(unit: DecodeUnit, **arguments: Any) -> Iterator[FrameShard]:
    """Takes its time for every shard."""
    for shard in decode_unit(unit, **arguments):
        time.sleep(PAUSE_S)
        yield shard


def too_few(unit: DecodeUnit, **arguments: Any) -> Iterator[FrameShard]:
    """Forgets the last shard."""
    yield from list(decode_unit(unit, **arguments))[:-1]


class TakesAllMemory:
    """Wants 64 GiB."""

    @staticmethod
    def probe(uri: str, limits: Any) -> Any:
        return bytearray(64 << 30)


class Chatty:
    """Floods stderr, then leaves without a word on the pipe."""

    @staticmethod
    def probe(uri: str, limits: Any) -> Any:
        for number in range(20_000):
            print("line", number, "of a very talkative library", file=sys.stderr)
        sys.stderr.flush()
        os._exit(7)
