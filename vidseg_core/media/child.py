"""The decode process: `python -m vidseg_core.media.child`, started and killed by `process.DecodeChild`.

Model: reads requests from one pipe, answers on another, writes frames into two slots of shared memory that
its parent owns. It fills a slot only while it holds that slot's credit: it starts with both, spends one a
shard, and gets it back when the parent has done with the frames. Hence decoding runs at most one shard
ahead.
Invariant: it never outlives its parent (parent-death signal, and end of file on the request pipe), and says
`beat` at least every `BEAT_S` seconds while it gets on.

Imports PyAV and numpy only: starting must be cheap, since a kill is how hangs end.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import av.logging
import numpy as np

from vidseg_core.media.channel import ChannelClosed, Receiver, send
from vidseg_core.media.decode import NewMemory, decode_unit
from vidseg_core.media.errors import MediaError
from vidseg_core.media.indexing import probe
from vidseg_core.media.model import DecodeUnit, MediaLimits
from vidseg_core.media.pictures import FrameShard, slot_bytes_of

BEAT_S = 0.5
_PR_SET_PDEATHSIG = 1


class Reader:
    """The two functions that the process serves; `spec` ("module" or "module:object") replaces them.

    The named object's `decode_unit` and `probe` attributes are used where it has them; an object without
    either is itself the decode function. Signatures as `media.decode_unit` and `media.probe`; extra keyword
    arguments (`stream`, `beat`, `new_memory`) are passed to the built-in ones only.
    """

    def __init__(self, spec: str) -> None:
        self.own_probe = self.own_decode = None
        if spec:
            module, _, name = spec.partition(":")
            target: Any = importlib.import_module(module)
            for part in name.split(".") if name else ():
                target = getattr(target, part)
            self.own_probe = getattr(target, "probe", None)
            self.own_decode = getattr(target, "decode_unit", None)
            if self.own_probe is None and self.own_decode is None:
                self.own_decode = target

    def probe(self, uri: str, limits: MediaLimits, stream: int | None, beat: Callable[[], None]) -> Any:
        if self.own_probe is not None:
            return self.own_probe(uri, limits)
        return probe(uri, limits, stream=stream, beat=beat)

    def decode(
        self, unit: DecodeUnit, beat: Callable[[], None], new_memory: NewMemory, **arguments: Any
    ) -> Iterator[FrameShard]:
        if self.own_decode is not None:
            return self.own_decode(unit, **arguments)
        return decode_unit(unit, beat=beat, new_memory=new_memory, **arguments)


class Server:
    """Answers requests until the request pipe ends."""

    def __init__(self, requests: int, replies: int, memory: int, limits: MediaLimits, reader: Reader) -> None:
        self.requests, self.replies = Receiver(requests), replies
        self._memory_fd, self._memory = memory, np.empty(0, dtype=np.uint8)
        self.limits, self.reader = limits, reader
        self._base_bytes = _address_space_bytes()
        self._last_beat = time.monotonic()
        self._cpu_ns = time.process_time_ns()

    def serve(self) -> None:
        send(self.replies, {"kind": "ready"})
        while True:
            request = self.requests.receive()
            if request["kind"] in ("release", "cancel"):  # of a decode that has ended meanwhile
                continue
            try:
                if request["kind"] == "probe":
                    self._probe(request)
                else:
                    self._decode(request)
            except MediaError as error:
                send(self.replies, {"kind": "error", "reason": error.reason, "message": str(error)})
            except MemoryError:
                message = "needs more memory than the limit allows"
                send(self.replies, {"kind": "error", "reason": "too_large", "message": message})

    def _probe(self, request: dict[str, Any]) -> None:
        self._limit_memory(0)
        index = self.reader.probe(request["uri"], self.limits, request["stream"], self._beat)
        send(self.replies, {"kind": "index", **index.to_dict()})

    def _decode(self, request: dict[str, Any]) -> None:
        unit = DecodeUnit.from_dict(request)
        shard_frames, skip_shards = request["shard_frames"], request["skip_shards"]
        slot_bytes = shard_frames * slot_bytes_of(unit.height, unit.width, motion=unit.motion)
        self._limit_memory(2 * slot_bytes)
        self.cpu_ns()
        slots = _Slots(self, slot_bytes, shard_frames)
        shards = self.reader.decode(
            unit,
            self._beat,
            slots.new_memory,
            shard_frames=shard_frames,
            skip_shards=skip_shards,
            limits=self.limits,
        )
        try:
            for shard in shards:
                slots.send(shard)
        except _Cancelled:
            pass
        send(self.replies, {"kind": "end"})

    def memory(self, size: int) -> np.ndarray:
        """The first `size` bytes of the shared memory, kept mapped (mapping anew costs page faults)."""
        if size > len(self._memory):
            self._memory = np.frombuffer(mmap.mmap(self._memory_fd, size), dtype=np.uint8)
        return self._memory[:size]

    def cpu_ns(self) -> int:
        """Nanoseconds that the cores have worked for this process since it was asked last."""
        before, self._cpu_ns = self._cpu_ns, time.process_time_ns()
        return self._cpu_ns - before

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last_beat >= BEAT_S:
            self._last_beat = now
            send(self.replies, {"kind": "beat"})

    def _limit_memory(self, extra: int) -> None:
        soft = self._base_bytes + self.limits.memory_bytes + extra
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _Cancelled(Exception):
    """The parent does not want the rest of the unit."""


class _Slots:
    """The two halves of the shared memory and their credits."""

    def __init__(self, server: Server, slot_bytes: int, shard_frames: int) -> None:
        self.server, self.slot_bytes, self.frame_bytes = server, slot_bytes, slot_bytes // shard_frames
        self.memory = server.memory(2 * slot_bytes)
        self.free = [True, True]
        self.slot = 0

    def new_memory(self, count: int) -> np.ndarray:
        """Room for `count` frames in the next slot, once the parent has given it back."""
        while not self.free[self.slot]:
            request = self.server.requests.receive()
            if request["kind"] == "cancel":
                raise _Cancelled
            self.free[request["slot"]] = True
        start = self.slot * self.slot_bytes
        return self.memory[start : start + count * self.frame_bytes]

    def send(self, shard: FrameShard) -> None:
        """Announces a shard; frames that a custom reader made elsewhere are copied into the slot first."""
        pixels = shard.pictures.pixels
        if len(shard) and not np.may_share_memory(pixels, self.memory):
            self.new_memory(len(shard))[: pixels.size] = pixels
        elif not len(shard):
            self.new_memory(0)
        head = {"kind": "shard", "slot": self.slot, "cpu_ns": self.server.cpu_ns()}
        send(self.server.replies, head | shard_head(shard))
        self.free[self.slot] = False
        self.slot = 1 - self.slot


def shard_head(shard: FrameShard) -> dict[str, Any]:
    """Everything of a shard but its pixels; float seconds travel as their 64-bit patterns."""
    return {
        "frame_index": np.asarray(shard.frame_index, dtype=np.int64),
        "pts_s_bits": np.asarray(shard.pts_s, dtype=np.float64).view(np.int64),
        "is_corrupt": np.asarray(shard.is_corrupt, dtype=np.int64),
        "layouts": [layout.to_list() for layout in shard.pictures.layouts],
        "layout_of": np.asarray(shard.pictures.layout_of, dtype=np.int64),
        "error": shard.error,
    }


def _address_space_bytes() -> int:
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the options are the parent's business."""
    parser = argparse.ArgumentParser(prog="vidseg_core.media.child", description=__doc__)
    for name in ("requests", "replies", "memory", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--max-pixels", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--reader", default="")
    options = parser.parse_args(arguments)
    _die_with_parent(options.parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever asks the parent to end may ask its children, too
        signal.signal(number, signal.SIG_IGN)
    av.logging.set_level(None)
    limits = MediaLimits(max_pixels=options.max_pixels, memory_bytes=options.memory_bytes)
    try:
        reader = Reader(options.reader)
        Server(options.requests, options.replies, options.memory, limits, reader).serve()
    except ChannelClosed:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
