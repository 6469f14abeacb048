"""Reusable buffers, and the lane that carries full ones to a worker thread.

Never knows: sockets, protocols, what the bytes mean, files (a `Sink` is behind the lane).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from peer.sink import Sink
from peer.workers import Workers

BUFFER_BYTES = 1024 * 1024
"""One buffer. Measured: 256 KiB is 10 % slower, larger ones bring little (data path §2)."""

SPARE_BYTES = 1
"""Room behind the last byte of a body, so that the very read that ends it also shows surplus bytes."""

PAGE_BYTES = 4096
"""Buffers end at multiples of this in the content, so that the file system never has to read a page to write it."""

KEPT_BUFFERS = 24
"""Free buffers kept for the next fetch, in all; more are given back to the system."""


class Buffer:
    """A piece of memory and what it holds of the content: `fill` bytes from `offset`; it is full at `limit`."""

    __slots__ = ("fill", "limit", "offset", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER_BYTES + SPARE_BYTES))
        self.offset = self.fill = self.limit = 0

    def begin(self, offset: int) -> None:
        """Empty it and let it stand for the bytes from `offset` on."""
        self.offset, self.fill = offset, 0
        self.limit = BUFFER_BYTES - offset % PAGE_BYTES


class BufferPool:
    """Buffers that are used again, for all fetches of the process. The one used last is taken first."""

    def __init__(self, kept: int = KEPT_BUFFERS) -> None:
        self._free: list[Buffer] = []
        self._kept = kept

    def take(self, offset: int) -> Buffer:
        """An empty buffer for the bytes from `offset` on."""
        buffer = self._free.pop() if self._free else Buffer()
        buffer.begin(offset)
        return buffer

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back whose bytes nobody needs any more."""
        if len(self._free) < self._kept:
            self._free.append(buffer)


POOL = BufferPool()
"""The pool all fetches share."""


class Lane:
    """Carries the full buffers of one fetch to a worker thread and back: in order, one write at a time.

    To wake the loop from a thread costs about as much as to receive a quarter of a MiB (0.1 ms and more on
    virtual machines). So a busy loop looks for written buffers itself (`take`), and is woken only when it
    asked for that (`call_back`).
    """

    def __init__(
        self, sink: Sink, workers: Workers, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]
    ) -> None:
        self._sink, self._workers, self._loop, self._wake = sink, workers, loop, wake
        self._lock = threading.Lock()  # held for a few instructions on either side, never during a write
        self._waiting: deque[Buffer] = deque()
        self._written: list[Buffer] = []
        self._error: BaseException | None = None
        self._running = self._wake_wanted = False

    def put(self, buffer: Buffer) -> None:
        """Write `buffer` after those put before it."""
        with self._lock:
            self._waiting.append(buffer)
            begin, self._running = not self._running, True
        if begin:
            self._workers.executor.submit(self._run)

    def take(self) -> tuple[list[Buffer], BaseException | None]:
        """The buffers written since the last call, and what ended the writing, if anything did."""
        with self._lock:
            written, self._written = self._written, []
            return written, self._error

    def drop_waiting(self) -> list[Buffer]:
        """Take back the buffers whose writing has not begun."""
        with self._lock:
            dropped, self._waiting = list(self._waiting), deque()
        return dropped

    def call_back(self) -> bool:
        """Ask for one call of `wake` after the write under way. False and no call when `take` has news already."""
        with self._lock:
            if self._written or self._error is not None:
                return False
            self._wake_wanted = True
            return True

    def _run(self) -> None:
        """In a worker thread, until no buffer waits."""
        buffer = self._step(None, None)
        while buffer is not None:
            error: BaseException | None = None
            try:
                self._sink.write(buffer.offset, buffer.view[: buffer.fill])
            except BaseException as caught:  # noqa: BLE001  top of the thread's work: handed to the loop
                error = caught
            buffer = self._step(buffer, error)

    def _step(self, written: Buffer | None, error: BaseException | None) -> Buffer | None:
        """Note how the last write went; the next buffer to write, None when there is none (or no sense in it)."""
        with self._lock:
            if error is not None:
                self._error = error
            elif written is not None:
                self._written.append(written)
            wake = self._wake_wanted and written is not None
            if wake:
                self._wake_wanted = False
            following = self._waiting.popleft() if self._waiting and error is None else None
            self._running = following is not None
        if wake:
            self._loop.call_soon_threadsafe(self._wake)
        return following
