"""Receives the body of one response: socket -> reusable buffers -> `Sink.write` in a worker thread.

Shared by the peer's client and the origin's client: both delegate their `asyncio.BufferedProtocol` to a
`BodyReceiver` once the head of a response is parsed. The loop never waits for the disk, and no `bytes` object is
made on the way (measured: 7-8 GB/s against 1-3 for streams of bytes objects, data path §2).

Never knows: HTTP, TLS, files, retries, what the bytes mean.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from peer.buffers import POOL, SPARE_BYTES, Buffer, Lane
from peer.core.failure import Failure, FailureKind
from peer.sink import Sink
from peer.workers import Workers
from validation.ranges import ByteRange

BEAT_S = 0.5
"""How often a partly filled buffer is handed on and the rate is looked at."""

BUSY_S = 0.005
"""Buffers that fill within this time (200 MB/s) keep the loop awake by themselves: no thread has to wake it."""

_SCRATCH = memoryview(bytearray(64 * 1024))
"""Where bytes go that nobody wants. Written by several connections, read by none."""

_KIND_OF_ERRNO = {
    errno.ENOSPC: FailureKind.DISK_FULL,
    errno.EDQUOT: FailureKind.DISK_FULL,
    errno.EACCES: FailureKind.PERMISSION_DENIED,
    errno.EPERM: FailureKind.PERMISSION_DENIED,
    errno.EROFS: FailureKind.PERMISSION_DENIED,
    errno.ENOENT: FailureKind.DESTINATION_MISSING,
}


def failure_of_oserror(error: OSError) -> Failure:
    """The local failure an error of the file system stands for; the message names the errno, never a path."""
    kind = _KIND_OF_ERRNO.get(error.errno or 0, FailureKind.IO_ERROR)
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    return Failure(kind=kind, message=f"writing failed: {error.strerror or 'no reason given'} ({name})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """When a body counts as stalled, and how much memory it may hold."""

    minimum_rate: int = 1024
    """Bytes per second below which a source is as good as silent."""
    stall_time_s: float = 10.0
    """Seconds over which the rate is taken, in half seconds; time in which we did not read is left out."""
    buffers: int = 3
    """Buffers of 1 MiB: one filled, one written, one waiting."""


ORIGIN_LIMITS = BodyLimits()
PEER_LIMITS = BodyLimits(minimum_rate=8 * 1024, stall_time_s=5.0)


class Pausable(Protocol):
    """What a receiver needs of a transport; every `asyncio.Transport` has it."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool: ...


class BodyReceiver:
    """Takes the bytes of one body and gives them to a `Sink`.

    Everything but `Sink.write` happens on the loop. Exactly one outcome is reached; `done` gives it once every
    write that was begun is over, so that the file may then be closed.
    """

    def __init__(
        self,
        *,
        start: int,
        length: int | None,
        sink: Sink,
        workers: Workers,
        loop: asyncio.AbstractEventLoop,
        limits: BodyLimits = ORIGIN_LIMITS,
    ) -> None:
        """`start` is the offset of the first byte in the content; with `length` None the body ends at EOF."""
        self._start = self._next = start
        self._stop = None if length is None else start + length
        self._sink, self._loop, self._limits = sink, loop, limits
        self._lane = Lane(sink, workers, loop, self._on_written)
        self._transport: Pausable | None = None
        self._filling: Buffer | None = None
        self._in_lane = 0
        self._last_flush = 0.0
        self._reading_paused = False
        self.held_back = False
        """Set by whoever holds reading back on purpose, while it does: such time is no stall."""
        self._surplus = False
        self._outcome: int | Failure | None = None
        self._ended: asyncio.Future[int | Failure] = loop.create_future()
        self._rates: deque[int] = deque(maxlen=max(1, round(limits.stall_time_s / BEAT_S)))
        self._since_beat = 0
        self._flushed_since_beat = False
        self._beat: asyncio.TimerHandle | None = loop.call_later(BEAT_S, self._on_beat)
        if length == 0:
            self._conclude(0)

    @property
    def surplus(self) -> bool:
        """True when bytes came after the end of the body: the connection must not be used again."""
        return self._surplus

    @property
    def received(self) -> int:
        """Bytes of the body taken from the socket so far, written or not."""
        return self._next - self._start

    @property
    def over(self) -> bool:
        """True when no further byte is wanted (writes may still be under way)."""
        return self._outcome is not None

    def attach(self, transport: Pausable) -> None:
        """Name the transport whose reading is paused while no buffer is free."""
        self._transport = transport
        if self._reading_paused:
            transport.pause_reading()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that were read before the receiver took over. Any size; they are copied."""
        rest = memoryview(data)
        while len(rest):
            room = self.get_buffer(len(rest))
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            self.buffer_updated(count)

    def get_buffer(self, sizehint: int) -> memoryview:
        """As in `asyncio.BufferedProtocol`; never empty, also after the end."""
        if self._outcome is not None:
            return _SCRATCH
        buffer = self._filling
        if buffer is None:
            buffer = self._filling = POOL.take(self._next)
        end = buffer.limit
        if self._stop is not None and self._stop - buffer.offset <= end:
            end = self._stop - buffer.offset + SPARE_BYTES
        return buffer.view[buffer.fill : end]

    def buffer_updated(self, nbytes: int) -> None:
        """As in `asyncio.BufferedProtocol`."""
        buffer = self._filling
        if self._outcome is not None or buffer is None:
            self._surplus = self._surplus or (nbytes > 0 and not isinstance(self._outcome, Failure))
            return
        buffer.fill += nbytes
        self._next += nbytes
        self._since_beat += nbytes
        if self._stop is not None and self._next >= self._stop:
            excess = self._next - self._stop
            self._surplus = excess > 0
            buffer.fill -= excess
            self._next -= excess
            self._conclude(self._next - self._start)
        elif buffer.fill >= buffer.limit:
            self._hand_on()

    def eof(self) -> None:
        """The other side has sent all it will send: the end of a body of unknown length, else a failure."""
        if self._stop is None:
            self._conclude(self._next - self._start)
        else:
            self.lost(None)

    def lost(self, error: Exception | None) -> None:
        """The connection is gone. Bytes that came before are still written."""
        reason = f" ({type(error).__name__})" if error is not None else ""
        of = "" if self._stop is None else f" of {self._stop - self._start}"
        message = f"the connection ended after {self.received}{of} bytes{reason}"
        self._conclude(Failure(kind=FailureKind.CONNECTION_CLOSED, message=message))

    def abort(self, failure: Failure) -> None:
        """End now with `failure`. Bytes that are not yet being written are dropped."""
        if self._outcome is None:
            self._drop_unwritten()
            self._conclude(failure)

    async def done(self) -> int | Failure:
        """Bytes delivered, or why not. Every byte that `arrived` named is written, and no write is under way.

        When the waiting task is cancelled the fetch is aborted, and the cancellation leaves only after the write
        under way is over (one buffer), so that the caller may close the file.
        """
        try:
            return await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.abort(Failure(kind=FailureKind.ABORTED, message="the fetch was given up"))
            while not self._ended.done():
                try:
                    await asyncio.wait((self._ended,))
                except asyncio.CancelledError:
                    continue
            raise

    def _conclude(self, outcome: int | Failure) -> None:
        """Decide the outcome; it is told when the writes are over."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        self._put()
        self._settle()

    def _settle(self) -> None:
        """Tell the outcome once nothing is left to write."""
        while self._in_lane and not self._lane.call_back():
            self._collect()
        if self._in_lane == 0 and self._outcome is not None and not self._ended.done():
            self._ended.set_result(self._outcome)
            self._resume()
            self._transport = None

    def _put(self) -> None:
        buffer, self._filling = self._filling, None
        if buffer is None:
            return
        if buffer.fill == 0:
            POOL.give(buffer)
            return
        self._in_lane += 1
        self._flushed_since_beat = True
        self._lane.put(buffer)

    def _hand_on(self) -> None:
        """Hand the buffer that is being filled to the lane, and stop reading when it was the last one."""
        self._put()
        self._collect()
        if self._outcome is not None:
            return
        now = self._loop.time()
        busy, self._last_flush = now - self._last_flush < BUSY_S, now
        self._pause_or_resume()
        if not busy and self._in_lane:
            self._lane.call_back()

    def _pause_or_resume(self) -> None:
        """Read while a buffer is free; else wait for the lane to call back."""
        while self._in_lane >= self._limits.buffers and self._outcome is None:
            if self._lane.call_back():
                self._pause()
                return
            self._collect()
        self._resume()

    def _collect(self) -> None:
        """Take back what was written and report it."""
        written, error = self._lane.take()
        if written:
            self._in_lane -= len(written)
            item = ByteRange(written[0].offset, written[-1].offset + written[-1].fill)
            for buffer in written:
                POOL.give(buffer)
            self._sink.arrived(item)
        if error is not None:
            self._in_lane = 0
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A write failed, so no further one was begun. A sink that breaks its contract raises out of `done`."""
        self._drop_unwritten()
        self._in_lane = 0
        if isinstance(error, OSError):
            self._outcome = None
            self._conclude(failure_of_oserror(error))
            return
        self._outcome = Failure(kind=FailureKind.IO_ERROR, message=f"the sink failed: {type(error).__name__}")
        if self._beat is not None:
            self._beat.cancel()
        if not self._ended.done():
            self._ended.set_exception(error)

    def _on_written(self) -> None:
        """The lane calls back: a write is over."""
        self._collect()
        if self._outcome is not None:
            self._settle()
        else:
            self._pause_or_resume()

    def _drop_unwritten(self) -> None:
        dropped = self._lane.drop_waiting()
        self._in_lane -= len(dropped)
        if self._filling is not None:
            dropped.append(self._filling)
            self._filling = None
        for buffer in dropped:
            POOL.give(buffer)

    def _pause(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    def _resume(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._rates.clear()
            self._since_beat = 0
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _on_beat(self) -> None:
        """Twice a second: hand on what lies in a partly filled buffer, and see whether the source is alive."""
        self._beat = self._loop.call_later(BEAT_S, self._on_beat)
        self._collect()
        if not self._flushed_since_beat and self._filling is not None and not self._in_lane:
            self._hand_on()
        self._flushed_since_beat = False
        if self._reading_paused or self.held_back or self._outcome is not None:
            self._rates.clear()
        else:
            self._rates.append(self._since_beat)
        self._since_beat = 0
        limits = self._limits
        if len(self._rates) == self._rates.maxlen and sum(self._rates) < limits.minimum_rate * limits.stall_time_s:
            message = f"less than {limits.minimum_rate} bytes/s for {limits.stall_time_s:g} s"
            self._conclude(Failure(kind=FailureKind.STALLED, message=message))
