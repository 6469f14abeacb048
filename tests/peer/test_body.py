"""Bodies: from a real socket through the buffers into a sink, and every way in which that ends."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from peer.body import BodyLimits, BodyReceiver, failure_of_oserror
from peer.buffers import BUFFER_BYTES, POOL
from peer.core.failure import Failure, FailureKind
from peer.workers import Workers
from tests.support.peers import MemorySink, noise, until
from validation.ranges import ByteRange

MIB = 1024 * 1024
SOON_S = 10.0


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()


class SlowSink(MemorySink):
    """Every write waits until it is let go."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.go = threading.Event()
        self.begun = threading.Event()

    def write(self, offset: int, data: memoryview) -> None:
        self.begun.set()
        assert self.go.wait(SOON_S)
        super().write(offset, data)


class FailingSink(MemorySink):
    """Takes `good` bytes, then raises."""

    def __init__(self, length: int, good: int, error: Exception) -> None:
        super().__init__(length)
        self.good, self.error = good, error

    def write(self, offset: int, data: memoryview) -> None:
        if offset + len(data) > self.good:
            raise self.error
        super().write(offset, data)


class Wire(asyncio.BufferedProtocol):
    """Delegates everything to a receiver, as the clients do."""

    def __init__(self, receiver: BodyReceiver) -> None:
        self.receiver = receiver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.receiver.attach(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.receiver.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.receiver.buffer_updated(nbytes)

    def eof_received(self) -> None:
        self.receiver.eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.receiver.lost(exc)


class Source:
    """A server that sends what a test tells it, to the one who connects."""

    def __init__(self) -> None:
        self.writer: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def connect(self, receiver: BodyReceiver) -> Wire:
        loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        _, wire = await loop.create_connection(lambda: Wire(receiver), "127.0.0.1", port)
        self.wire = wire
        return wire

    async def send(self, data: bytes) -> None:
        writer = await self.writer
        writer.write(data)
        await asyncio.wait_for(writer.drain(), SOON_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer.set_result(writer)

    async def close(self) -> None:
        self.wire.transport.abort()
        writer = await self.writer
        writer.transport.abort()
        self.server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    made = Source()
    yield made
    await made.close()


Make = Callable[..., BodyReceiver]


@pytest.fixture
def make(workers: Workers) -> Make:
    def make(
        sink: MemorySink, length: int | None, start: int = 0, limits: BodyLimits | None = None
    ) -> BodyReceiver:
        loop = asyncio.get_running_loop()
        return BodyReceiver(
            start=start, length=length, sink=sink, workers=workers, loop=loop, limits=limits or BodyLimits()
        )

    return make


async def finish(receiver: BodyReceiver) -> int | Failure:
    return await asyncio.wait_for(receiver.done(), SOON_S)


async def fails(receiver: BodyReceiver) -> Failure:
    outcome = await finish(receiver)
    assert isinstance(outcome, Failure)
    return outcome


@pytest.mark.parametrize("length", [0, 1, 4095, MIB - 1, MIB, MIB + 1, 5 * MIB, 7 * MIB + 13])
@pytest.mark.parametrize("start", [0, 5, 3 * MIB])
async def test_what_was_sent_is_written(make: Make, source: Source, length: int, start: int) -> None:
    data, sink = noise(length), MemorySink(start + length)
    receiver = make(sink, length, start)
    await source.connect(receiver)
    await source.send(data)
    assert await finish(receiver) == length
    assert sink.data[start:] == data
    assert sink.arrived_bytes == length
    assert not receiver.surplus
    assert not length or sink.arrivals[0].start == start


async def test_without_a_length_the_end_is_the_end(make: Make, source: Source) -> None:
    data, sink = noise(2 * MIB + 7), MemorySink(2 * MIB + 7)
    receiver = make(sink, None)
    await source.connect(receiver)
    await source.send(data)
    (await source.writer).write_eof()
    assert await finish(receiver) == len(data)
    assert sink.data == data


async def test_bytes_read_before_are_taken_first(make: Make, source: Source) -> None:
    data, sink = noise(6 * MIB), MemorySink(6 * MIB)
    receiver = make(sink, len(data))
    receiver.feed(data[:100])
    receiver.feed(data[100 : 5 * MIB])  # more than all buffers: reading is paused once there is somebody to pause
    await source.connect(receiver)
    await source.send(data[5 * MIB :])
    assert await finish(receiver) == len(data)
    assert sink.data == data


async def test_a_body_that_ends_early_keeps_what_came(make: Make, source: Source) -> None:
    data, sink = noise(MIB + 500), MemorySink(3 * MIB)
    receiver = make(sink, 3 * MIB)
    await source.connect(receiver)
    await source.send(data)
    (await source.writer).close()
    failure = await fails(receiver)
    assert failure.kind is FailureKind.CONNECTION_CLOSED
    assert str(len(data)) in failure.message
    assert sink.arrived_bytes == len(data)
    assert sink.data[: len(data)] == data


@pytest.mark.parametrize("length", [1, 1000, MIB, 2 * MIB])
async def test_surplus_is_seen_and_never_written(make: Make, source: Source, length: int) -> None:
    data, sink = noise(length), MemorySink(length)
    receiver = make(sink, length)
    await source.connect(receiver)
    await source.send(data + b"!" * 100_000)
    assert await finish(receiver) == length
    await until(lambda: receiver.surplus)
    assert sink.data == data
    assert len(receiver.get_buffer(-1)) > 0


async def test_surplus_is_seen_in_the_very_read_that_ends_the_body(make: Make) -> None:
    receiver = make(MemorySink(5), 5)
    receiver.feed(b"01234!")
    assert receiver.surplus
    assert await finish(receiver) == 5


async def test_a_slow_disk_stops_the_reading_at_three_buffers(make: Make, source: Source) -> None:
    length = 32 * MIB
    sink = SlowSink(length)
    receiver = make(sink, length)
    wire = await source.connect(receiver)
    data = noise(length)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(source.send(data))
        await until(lambda: not wire.transport.is_reading())
        assert 2 * BUFFER_BYTES < receiver.received <= 3 * BUFFER_BYTES
        sink.go.set()
        assert await finish(receiver) == length
    assert sink.data == data


async def test_buffers_come_back(make: Make, source: Source) -> None:
    """After a fetch its buffers lie in the pool, and the next one takes them from there."""
    sink = MemorySink(8 * MIB)
    receiver = make(sink, 8 * MIB)
    await source.connect(receiver)
    await source.send(noise(8 * MIB))
    await finish(receiver)
    free = len(POOL._free)
    assert free >= 1
    slow = SlowSink(10)  # else a quick worker has given it back before we look
    second = make(slow, 10)
    second.feed(b"0123456789")
    assert len(POOL._free) == free - 1
    slow.go.set()
    await finish(second)
    assert len(POOL._free) == free


async def test_a_partly_filled_buffer_is_handed_on(make: Make, source: Source) -> None:
    sink = MemorySink(100)
    receiver = make(sink, 100)
    await source.connect(receiver)
    await source.send(b"x" * 40)
    await until(lambda: sink.arrived_bytes == 40)
    await source.send(b"y" * 60)
    assert await finish(receiver) == 100
    assert sink.arrivals == [ByteRange(0, 40), ByteRange(40, 100)]


async def test_silence_is_a_stall(make: Make, source: Source) -> None:
    sink = MemorySink(1000)
    receiver = make(sink, 1000, limits=BodyLimits(stall_time_s=1.0))
    await source.connect(receiver)
    await source.send(b"x" * 10)
    began = asyncio.get_running_loop().time()
    assert (await fails(receiver)).kind is FailureKind.STALLED
    assert asyncio.get_running_loop().time() - began < 3.0
    assert sink.arrived_bytes == 10


async def test_a_drip_is_a_stall(make: Make, source: Source) -> None:
    receiver = make(MemorySink(MIB), MIB, limits=BodyLimits(minimum_rate=8192, stall_time_s=1.0))
    await source.connect(receiver)
    async with asyncio.TaskGroup() as tasks:

        async def drip() -> None:
            while not receiver.over:
                await source.send(b"x")
                await asyncio.sleep(0.05)

        tasks.create_task(drip())
        assert (await fails(receiver)).kind is FailureKind.STALLED


async def test_a_slow_disk_is_not_a_stall(make: Make, source: Source) -> None:
    sink = SlowSink(8 * MIB)
    receiver = make(sink, 8 * MIB, limits=BodyLimits(stall_time_s=0.5))
    wire = await source.connect(receiver)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(source.send(noise(8 * MIB)))
        await until(lambda: not wire.transport.is_reading())
        await asyncio.sleep(1.6)  # three times the stall time, in which we do not read
        assert not receiver.over
        sink.go.set()
        assert await finish(receiver) == 8 * MIB


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, FailureKind.DISK_FULL),
        (errno.EDQUOT, FailureKind.DISK_FULL),
        (errno.EACCES, FailureKind.PERMISSION_DENIED),
        (errno.EROFS, FailureKind.PERMISSION_DENIED),
        (errno.ENOENT, FailureKind.DESTINATION_MISSING),
        (errno.EIO, FailureKind.IO_ERROR),
    ],
)
async def test_a_failing_disk_ends_the_fetch(make: Make, source: Source, number: int, kind: FailureKind) -> None:
    sink = FailingSink(6 * MIB, MIB, OSError(number, "no"))
    receiver = make(sink, 6 * MIB)
    await source.connect(receiver)
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(source.send(noise(6 * MIB)))
        assert (await fails(receiver)).kind is kind
        sending.cancel()
    assert sink.arrived_bytes <= MIB, "only what was written is reported"
    assert errno.errorcode[number] in failure_of_oserror(OSError(number, "no")).message


async def test_a_sink_that_breaks_its_contract_is_not_hidden(make: Make) -> None:
    receiver = make(FailingSink(10, 0, ZeroDivisionError("a bug")), 10)
    receiver.feed(b"0123456789")
    with pytest.raises(ZeroDivisionError):
        await finish(receiver)


async def test_a_cancelled_fetch_leaves_when_its_write_is_over(make: Make, source: Source) -> None:
    """The caller may close the file when `done` is left, also by cancellation."""
    sink = SlowSink(8 * MIB)
    receiver = make(sink, 8 * MIB)
    await source.connect(receiver)
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(source.send(noise(8 * MIB)))
        waiting = tasks.create_task(receiver.done())
        await until(sink.begun.is_set)
        waiting.cancel()
        await asyncio.sleep(0.05)
        waiting.cancel()  # twice: also an impatient caller waits
        await asyncio.sleep(0.05)
        assert not waiting.done()
        sink.go.set()
        await asyncio.wait([waiting], timeout=SOON_S)
        assert waiting.cancelled()
        sending.cancel()
    assert not sink.writing
    assert sink.arrived_bytes <= BUFFER_BYTES, "what was not begun is dropped"


async def test_aborting_gives_the_reason(make: Make) -> None:
    receiver = make(MemorySink(100), 100)
    receiver.feed(b"x" * 50)
    receiver.abort(Failure(kind=FailureKind.ABORTED, message="enough"))
    assert (await fails(receiver)).kind is FailureKind.ABORTED
    receiver.buffer_updated(1)
    receiver.lost(None)
    assert receiver.over


async def test_the_sink_may_abort_from_its_report(make: Make) -> None:
    class Enough(MemorySink):
        def arrived(self, item: ByteRange) -> None:
            super().arrived(item)
            receiver.abort(Failure(kind=FailureKind.ABORTED, message="enough"))

    sink = Enough(4 * MIB)
    receiver = make(sink, 4 * MIB)
    receiver.feed(bytes(3 * MIB))
    assert (await fails(receiver)).kind is FailureKind.ABORTED
