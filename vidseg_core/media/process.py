"""A decode process that may be killed, as seen by its parent.

Model: `DecodeChild` keeps one child (`child.py`) and talks to it over two pipes; frames come through a memfd
of two slots, so that the child decodes shard k+1 while shard k is being used. Silence for `deadline_s`
seconds means a hang: the child is killed and MediaTimeout raised. A child that dies by itself raises
MediaCrash with the last words of its stderr. The next call starts a fresh child.
Invariant: whatever a video does to the child, the parent loses that call only, and no process or descriptor
stays.

Not thread-safe: one call at a time. Linux only (memfd, parent-death signal).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import mmap
import os
import subprocess
import sys
import weakref
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vidseg_core.media.channel import ChannelClosed, Receiver, send
from vidseg_core.media.errors import REASONS, MediaCrash, MediaError, MediaTimeout
from vidseg_core.media.model import DecodeUnit, MediaLimits, VideoIndex
from vidseg_core.media.pictures import FrameShard, Layout, Pictures, slot_bytes_of

READER_VARIABLE = "VIDSEG_MEDIA_READER"
"""Environment variable with the default of `DecodeChild(reader=...)`."""

START_S = 60.0
"""A child that is not ready after so long counts as hung, seconds (or `deadline_s`, if longer)."""

_LAST_WORDS, _SHOWN = 1 << 16, 2000
"""Bytes of a child's stderr that are kept (a traceback is known by its first line), and shown at most."""

END_S = 0.3
"""Time an idle child has to leave by itself before it is killed, seconds."""


class DecodeChild:
    """A killable decode process, reusable for many calls; starts with the first.

    `reader` ("module" or "module:object", see `child.Reader`) makes the child use another decoder: the hook
    for custom formats, and for tests with decoders that hang or crash.
    """

    def __init__(self, limits: MediaLimits | None = None, *, reader: str | None = None) -> None:
        self.limits = limits or MediaLimits()
        self._reader = reader if reader is not None else os.environ.get(READER_VARIABLE, "")
        self._process: _Process | None = None
        self._decoding: object | None = None

    def __enter__(self) -> DecodeChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child; None if there is none now."""
        return self._process.popen.pid if self._process else None

    def start(self) -> None:
        """Starts the child without waiting for it: it is ready by the time it is needed."""
        if self._process is None:
            self._process = _Process(self.limits, self._reader)

    def probe(self, uri: str, stream: int | None = None) -> VideoIndex:
        """`media.probe` in the child. Raises MediaError, MediaTimeout, MediaCrash."""
        self._request({"kind": "probe", "uri": uri, "stream": stream}, uri)
        message = self._receive(uri)
        try:
            return VideoIndex.from_dict(message)
        except (KeyError, TypeError, ValueError):
            self._crash(uri)

    def decode(self, unit: DecodeUnit, shard_frames: int, skip_shards: int = 0) -> Generator[FrameShard]:
        """`media.decode_unit` in the child. Same errors as `probe`.

        The frames of a shard lie in shared memory (read-only) and are valid until the iterator is advanced
        or closed. Another call on this child ends the iteration of this one.
        """
        shards = ceil(unit.frames / shard_frames) - skip_shards
        if shards <= 0:
            return
        slot_bytes = shard_frames * slot_bytes_of(unit.height, unit.width, motion=unit.motion)
        request = {
            "kind": "decode",
            **unit.to_dict(),
            "shard_frames": shard_frames,
            "skip_shards": skip_shards,
        }
        process = self._request(request, unit.uri, 2 * slot_bytes)
        me = self._decoding = object()
        try:
            for _ in range(shards):
                message = self._receive(unit.uri)
                if message["kind"] == "end":
                    self._crash(unit.uri)
                yield self._shard(message, process, slot_bytes, unit)
                if self._decoding is not me:
                    raise RuntimeError("the decode process was given another task meanwhile")
                self._send({"kind": "release", "slot": message["slot"]}, unit.uri)
            self._receive(unit.uri)
            self._decoding = None
        finally:
            if self._decoding is me:
                self._cancel()

    def close(self) -> None:
        """Ends the child. Idempotent."""
        if self._process is not None:
            self._process.end()
        self._process = self._decoding = None

    def _request(self, request: dict[str, Any], uri: str, memory_bytes: int = 0) -> _Process:
        if self._decoding is not None:
            self._cancel()
        if self._process is not None and self._process.popen.poll() is not None:
            self.close()
        self.start()
        assert self._process is not None
        if not self._process.is_ready:
            self._receive(uri, max(START_S, self.limits.deadline_s))
            self._process.is_ready = True
        self._process.provide(memory_bytes)
        self._send(request, uri)
        return self._process

    def _cancel(self) -> None:
        """Leaves a decode half done: the child stops at its next shard; if it does not, it is killed."""
        self._decoding = None
        if self._process is None:
            return
        try:
            self._send({"kind": "cancel"}, "")
            while self._receive("")["kind"] != "end":
                pass
        except MediaError:
            self.close()

    def _send(self, message: dict[str, Any], uri: str) -> None:
        assert self._process is not None
        try:
            send(self._process.requests, message)
        except ChannelClosed:
            self._crash(uri)

    def _receive(self, uri: str, timeout_s: float | None = None) -> dict[str, Any]:
        process = self._process
        assert process is not None
        try:
            message: dict[str, Any] = {"kind": "beat"}
            while message.get("kind") == "beat":
                message = process.receive(timeout_s or self.limits.deadline_s)
        except TimeoutError:
            self.close()
            text = f"{uri}: no progress for {timeout_s or self.limits.deadline_s:g} s, decode process killed"
            raise MediaTimeout(message=text) from None
        except (ChannelClosed, ValueError):
            self._crash(uri)
        if message.get("kind") == "error":
            self._decoding = None
            reason = message.get("reason")
            raise MediaError(reason if reason in REASONS else "decode_crash", str(message.get("message")))
        return message

    def _count(self, cpu_s: float) -> float:
        global _decoders_s
        if cpu_s < 0:
            raise ValueError("negative CPU time")
        _decoders_s += cpu_s
        return cpu_s

    def _crash(self, uri: str) -> NoReturn:
        process = self._process
        self._process = self._decoding = None
        how = process.end() if process else "gone"
        raise MediaCrash(message=f"{uri}: the decode process died ({how})") from None

    def _shard(
        self, message: dict[str, Any], process: _Process, slot_bytes: int, unit: DecodeUnit
    ) -> FrameShard:
        try:
            count, slot = len(message["frame_index"]), int(message["slot"])
            layouts = [Layout.from_list(values) for values in message["layouts"]]
            layout_of = message["layout_of"]
            known = len(layout_of) == count and np.all((0 <= layout_of) & (layout_of < len(layouts)))
            if slot not in (0, 1) or not known or len(message["pts_s_bits"]) != count:
                raise ValueError("shard does not fit its slot")
            room = process.memory()[slot * slot_bytes : (slot + 1) * slot_bytes]
            pictures = Pictures(room, layouts, layout_of.tolist(), height=unit.height, width=unit.width)
            return FrameShard(
                frame_index=message["frame_index"],
                pts_s=message["pts_s_bits"].view(np.float64),
                is_corrupt=message["is_corrupt"].astype(bool),
                pictures=pictures,
                error=message["error"],
                cpu_s=self._count(int(message["cpu_ns"]) / 1e9),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            self._crash(unit.uri)


class _Process:
    """One running child with its pipes and its memory."""

    def __init__(self, limits: MediaLimits, reader: str) -> None:
        memory = os.memfd_create("vidseg-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        child_requests, self.requests = os.pipe()
        replies, child_replies = os.pipe()
        command = [sys.executable, "-m", "vidseg_core.media.child", "--parent", str(os.getpid())]
        command += [
            "--requests",
            str(child_requests),
            "--replies",
            str(child_replies),
            "--memory",
            str(memory),
        ]
        command += ["--max-pixels", str(limits.max_pixels), "--memory-bytes", str(limits.memory_bytes)]
        try:
            self.popen = _spawn([*command, "--reader", reader], (child_requests, child_replies, memory))
        except BaseException:
            for fd in (self.requests, replies, memory):
                os.close(fd)
            raise
        finally:
            os.close(child_requests)
            os.close(child_replies)
        self.is_ready = False
        """It has said so."""
        self._memory_fd, self._memory_bytes, self._memory = memory, 0, None
        self._replies = Receiver(replies)
        self._last_words = b""

    def provide(self, memory_bytes: int) -> None:
        """Grows the shared memory to at least so many bytes."""
        if memory_bytes > self._memory_bytes:
            os.ftruncate(self._memory_fd, memory_bytes)
            self._memory_bytes, self._memory = memory_bytes, None

    def memory(self) -> np.ndarray:
        """The shared memory as read-only uint8."""
        if self._memory is None:
            view = mmap.mmap(self._memory_fd, self._memory_bytes, prot=mmap.PROT_READ)
            self._memory = np.frombuffer(view, dtype=np.uint8)
        return self._memory

    def receive(self, timeout_s: float) -> dict[str, Any]:
        assert self.popen.stderr is not None
        return self._replies.receive(timeout_s, also=self.popen.stderr.fileno(), sink=self._hear)

    def _hear(self, text: bytes) -> None:
        self._last_words = (self._last_words + text)[-_LAST_WORDS:]

    def end(self) -> str:
        """Kills and reaps the child, closes everything; says how it ended."""
        stderr = self.popen.stderr
        assert stderr is not None
        os.close(self.requests)
        died = self.popen.poll()
        if died is None:  # its request pipe just ended, or its reply pipe has: it may be about to exit
            with contextlib.suppress(subprocess.TimeoutExpired):
                died = self.popen.wait(END_S)
        self.popen.kill()
        self.popen.wait()
        os.set_blocking(stderr.fileno(), False)
        with contextlib.suppress(OSError):
            self._hear(os.read(stderr.fileno(), 1 << 16))
        stderr.close()
        os.close(self._replies.fd)
        os.close(self._memory_fd)
        self._memory = None
        words = self._last_words.decode("utf-8", "replace").strip()
        words = words.rpartition("\n")[2] if "Traceback (most recent call last)" in words else words
        how = "killed" if died is None else f"signal {-died}" if died < 0 else f"exit code {died}"
        return f"{how}: {words[-_SHOWN:]}" if words else how


_decoders_s = 0.0


def decoders_cpu_s() -> float:
    """A clock: CPU seconds of all decode processes of this process, as far as they have reported shards."""
    return _decoders_s


_spawner: tuple[int, ThreadPoolExecutor] | None = None


def _spawn(command: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Starts the child from a thread that lives as long as this process.

    The parent-death signal of Linux fires when the *thread* that started the child ends; callers may be pool
    threads that come and go.
    """
    global _spawner
    if _spawner is None or _spawner[0] != os.getpid():
        _spawner = (os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="vidseg-spawn"))
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)), "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env=env,
            process_group=0,  # signals to the group are for the parent, which ends the child
        )

    return _spawner[1].submit(start).result()


_shared: tuple[int, MediaLimits, DecodeChild] | None = None


def child_for_this_process(limits: MediaLimits | None = None) -> DecodeChild:
    """One DecodeChild per process, made on first use, and anew when the limits differ or after a fork."""
    global _shared
    limits = limits or MediaLimits()
    if _shared is not None and _shared[0] == os.getpid():
        if _shared[1] == limits:
            return _shared[2]
        _shared[2].close()
    child = DecodeChild(limits)
    _shared = (os.getpid(), limits, child)
    atexit.register(_close_quietly, weakref.ref(child))
    return child


def _close_quietly(reference: weakref.ref[DecodeChild]) -> None:
    child = reference()
    if child is not None:
        child.close()
