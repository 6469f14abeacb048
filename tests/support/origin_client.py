"""An `OriginClient` for tests, and a sink that shows every byte that was ever written to it.

async with origin_client() as client:
    facts = await facts_of(client, url)
    sink = MemorySink()
    outcome = await client.fetch(OriginRequest(url=url, item=ByteRange(0, 10), facts=facts), sink)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agent.core.facts import OriginFacts
from agent.origin import Described, OriginClient, OriginRequest, OriginSettings
from agent.origin_options import PLAIN, OriginOptions
from agent.throttle import Limiter
from peer.body import BodyLimits
from peer.core.failure import Failure
from peer.sink import Fetched
from peer.workers import Workers
from validation.content import MAX_CONTENT_BYTES
from validation.ranges import ByteRange
from validation.rangeset import RangeSet

IMPATIENT = BodyLimits(minimum_rate=1024, stall_time_s=1.0)
"""For tests of silence: a second is enough."""


class MemorySink:
    """Keeps what is written, by offset. `error` is raised by every write, `gate` holds writes until it is set."""

    def __init__(self, error: OSError | None = None, gate: threading.Event | None = None) -> None:
        self.data = bytearray()
        self.written = RangeSet()
        self.reported = RangeSet()
        self.writing = 0
        self._error, self._gate = error, gate

    def write(self, offset: int, data: memoryview) -> None:
        self.writing += 1
        try:
            if self._gate is not None:
                assert self._gate.wait(10), "nobody opened the gate"
            if self._error is not None:
                raise self._error
            stop = offset + len(data)
            if len(self.data) < stop:
                self.data.extend(bytes(stop - len(self.data)))
            self.data[offset:stop] = data
            self.written.add(ByteRange(offset, stop))
        finally:
            self.writing -= 1

    def arrived(self, item: ByteRange) -> None:
        assert item in self.written, "reported before it was written"
        self.reported.add(item)

    def holds(self, content: bytes, item: ByteRange) -> bool:
        """True when exactly the bytes of `item` were written, rightly, and all of them reported."""
        exact = RangeSet([item])
        return self.written == self.reported == exact and self.data[item.start :] == content[item.start : item.stop]

    def holds_prefix(self, content: bytes, start: int = 0) -> bool:
        """True when what was written is right, begins at `start` without a gap, and is reported."""
        ranges = list(self.written)
        if not ranges:
            return True
        single = len(ranges) == 1 and ranges[0].start == start and self.written == self.reported
        return single and self.data[start:] == content[start : ranges[0].stop]


@asynccontextmanager
async def origin_client(settings: OriginSettings | None = None) -> AsyncIterator[OriginClient]:
    """A client with workers of its own; both are closed at the end."""
    workers = Workers(2)
    client = OriginClient(workers, settings)
    try:
        yield client
    finally:
        await client.close()
        workers.close()


async def described(client: OriginClient, url: str, options: OriginOptions = PLAIN) -> Described:
    """What a probe says, which must be no failure."""
    found = await client.probe(url, options)
    assert isinstance(found, Described), found
    return found


async def facts_of(client: OriginClient, url: str, options: OriginOptions = PLAIN) -> OriginFacts:
    """The facts that a probe finds."""
    return (await described(client, url, options)).facts


async def fetch(
    client: OriginClient,
    url: str,
    facts: OriginFacts,
    item: ByteRange | None = None,
    sink: MemorySink | None = None,
    *,
    options: OriginOptions = PLAIN,
    limiter: Limiter | None = None,
    home: str | None = None,
) -> tuple[Fetched | Failure, MemorySink]:
    """Fetch `item` (default: everything) into a sink."""
    sink = sink or MemorySink()
    whole = ByteRange(0, MAX_CONTENT_BYTES if facts.length is None else facts.length)
    request = OriginRequest(url=url, item=item or whole, facts=facts, options=options, limiter=limiter, home=home)
    outcome = await client.fetch(request, sink)
    return outcome, sink


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something that tells nobody when it happens (a worker thread's doing)."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
