"""A limiter holds back reading: the rate is kept, waiting is no stall, and giving up works at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.origin import OriginClient, OriginRequest, OriginSettings
from agent.throttle import Bucket, Limiter
from peer.core.failure import Failure, FailureKind
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import IMPATIENT, MemorySink, facts_of, fetch, origin_client, until
from tests.support.origin_faults import Fault
from tests.support.origin_tls import Authority
from validation.ranges import ByteRange

CONTENT = bytes(range(256)) * 8_000  # 2,048,000 bytes
LONG = bytes(64) * 1_000_000
TAKEN_OVER, STREAM = 1, 1 << 60
WAYS = pytest.mark.parametrize("takeover_bytes", [TAKEN_OVER, STREAM], ids=["taken over", "stream"])


def limited(rate: int | None) -> tuple[Bucket, Limiter]:
    bucket = Bucket(rate, time.monotonic)
    return bucket, Limiter([bucket])


def settings(takeover_bytes: int, ca_file: Path | None = None) -> OriginSettings:
    return OriginSettings(
        takeover_bytes=takeover_bytes,
        limits=IMPATIENT,
        answer_timeout_s=1.0,
        ca_file=ca_file,
        connect_timeout_s=5.0,
    )


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/x", CONTENT)
        running.add("/long", LONG, other=b"", etag='"1"')
        yield running


async def timed(client: OriginClient, url: str, rate: int) -> float:
    """Seconds that the whole content took with this limit."""
    facts = await facts_of(client, url)
    _, limiter = limited(rate)
    began = time.monotonic()
    outcome, sink = await fetch(client, url, facts, limiter=limiter)
    assert outcome == Fetched(item=ByteRange(0, len(CONTENT)))
    assert sink.holds(CONTENT, ByteRange(0, len(CONTENT)))
    return time.monotonic() - began


async def test_the_rate_is_kept(origin: Origin, tmp_path: Path) -> None:
    """1 MB/s for two seconds, both ways of the body, plain and with TLS, chunked too: all side by side."""
    authority = Authority(tmp_path)
    origin.add("/chunked", CONTENT, faults=["no-ranges", "chunked"])
    async with (
        Origin(tls=authority.good()) as secure,
        origin_client(settings(TAKEN_OVER, authority.ca_file)) as taking,
        origin_client(settings(STREAM)) as streaming,
    ):
        secure.add("/x", CONTENT)
        async with asyncio.TaskGroup() as group:
            runs = [
                group.create_task(timed(client, url, 1_000_000))
                for client, url in [
                    (taking, origin.url("/x")),
                    (taking, secure.url("/x")),
                    (streaming, origin.url("/x")),
                    (streaming, origin.url("/chunked")),
                ]
            ]
    for run in runs:
        rate = len(CONTENT) / run.result()
        assert 850_000 < rate < 1_150_000


@WAYS
async def test_the_rate_is_kept_from_the_first_second_on(origin: Origin, takeover_bytes: int) -> None:
    """Nothing is saved up, and the last bytes do not come in a burst."""
    _, limiter = limited(1_000_000)
    sink = MemorySink()
    async with origin_client(settings(takeover_bytes)) as client, asyncio.TaskGroup() as group:
        facts = await facts_of(client, origin.url("/x"))
        request = OriginRequest(url=origin.url("/x"), item=ByteRange(0, len(CONTENT)), facts=facts, limiter=limiter)
        fetching = group.create_task(client.fetch(request, sink))
        began = time.monotonic()
        await until(lambda: sink.written.total > 900_000)
        assert 0.4 < time.monotonic() - began < 1.6
        fetching.cancel()


async def test_short_bodies_are_held_back_too(origin: Origin) -> None:
    """Twenty files of 50 kB, each in one read, one bucket of 1 MB/s."""
    origin.add("/short", CONTENT[:50_000])
    _, limiter = limited(1_000_000)
    async with origin_client(settings(1 << 20)) as client:
        facts = await facts_of(client, origin.url("/short"))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            runs = [
                group.create_task(fetch(client, origin.url("/short"), facts, limiter=limiter)) for _ in range(20)
            ]
        assert time.monotonic() - began > 0.85
    assert all(isinstance(run.result()[0], Fetched) for run in runs)


async def test_the_end_is_seen_before_it_is_paid_for(origin: Origin) -> None:
    """One read, two seconds to pay for it, which is longer than an origin may be silent about its body's end."""
    origin.add("/short", CONTENT[:20_000], faults=["no-ranges", "chunked"])
    _, limiter = limited(10_000)
    async with origin_client(settings(STREAM)) as client:
        facts = await facts_of(client, origin.url("/short"))
        outcome, sink = await fetch(client, origin.url("/short"), replace(facts, length=20_000), limiter=limiter)
    assert outcome == Fetched(item=ByteRange(0, 20_000))
    assert sink.holds(CONTENT[:20_000], ByteRange(0, 20_000))


@WAYS
async def test_waiting_is_no_stall(origin: Origin, takeover_bytes: int) -> None:
    """Nothing is allowed for longer than the stall time and the answer's time, then everything. The origin is held
    back meanwhile, and the connection serves again."""
    bucket, limiter = limited(0)
    async with origin_client(settings(takeover_bytes)) as client, asyncio.TaskGroup() as group:
        facts = await facts_of(client, origin.url("/long"))
        fetching = group.create_task(fetch(client, origin.url("/long"), facts, limiter=limiter))
        done, _ = await asyncio.wait((fetching,), timeout=1.8 * IMPATIENT.stall_time_s)
        assert not done
        assert origin.sent("/long") < 60_000_000, "the kernel's buffers on loopback hold some MiB"
        bucket.set_rate(None)
        outcome, sink = await fetching
        assert outcome == Fetched(item=ByteRange(0, len(LONG)))
        assert sink.holds(LONG, ByteRange(0, len(LONG)))
        outcome, _ = await fetch(client, origin.url("/x"), await facts_of(client, origin.url("/x")))
        assert isinstance(outcome, Fetched)
    assert origin.accepted == 1


async def test_a_limit_below_the_slowest_origin(origin: Origin) -> None:
    """500 bytes a second are less than an origin may send; of a limiter they are as it was told."""
    bucket, limiter = limited(500)
    async with (
        origin_client(settings(TAKEN_OVER)) as taking,
        origin_client(settings(STREAM)) as streaming,
        asyncio.TaskGroup() as group,
    ):
        facts = await facts_of(taking, origin.url("/x"))
        runs = [
            group.create_task(fetch(client, origin.url("/x"), facts, limiter=limiter))
            for client in (taking, streaming)
        ]
        done, _ = await asyncio.wait(runs, timeout=1.8 * IMPATIENT.stall_time_s)
        assert not done
        bucket.set_rate(None)
    assert all(isinstance(run.result()[0], Fetched) for run in runs)


@WAYS
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("silent", FailureKind.STALLED),
        ("drip:count=100", FailureKind.STALLED),
        ("reset", FailureKind.CONNECTION_CLOSED),
    ],
)
async def test_the_origins_own_faults_are_seen(
    origin: Origin, takeover_bytes: int, fault: str, kind: FailureKind
) -> None:
    _, limiter = limited(100_000_000)
    origin.add("/x", CONTENT, faults=[Fault.parse(fault)])
    async with origin_client(settings(takeover_bytes)) as client:
        facts = await facts_of(client, origin.url("/x"))
        outcome, sink = await fetch(client, origin.url("/x"), facts, limiter=limiter)
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert sink.holds_prefix(CONTENT)


@WAYS
async def test_giving_up_while_waiting(origin: Origin, takeover_bytes: int) -> None:
    _, limiter = limited(0)
    async with origin_client(settings(takeover_bytes)) as client, asyncio.TaskGroup() as group:
        facts = await facts_of(client, origin.url("/long"))
        sink = MemorySink()
        request = OriginRequest(url=origin.url("/long"), item=ByteRange(0, len(LONG)), facts=facts, limiter=limiter)
        fetching = group.create_task(client.fetch(request, sink))
        await origin.wait_for(lambda: origin.sent("/long") > 0)
        await until(lambda: sink.written.total > 0)
        began = time.monotonic()
        fetching.cancel()
        await asyncio.wait((fetching,))
        assert time.monotonic() - began < 1
        assert fetching.cancelled()
        assert sink.writing == 0
        assert sink.holds_prefix(LONG)
        await origin.wait_for(lambda: origin.connections == 0, timeout_s=2)


@WAYS
async def test_a_full_disk_while_held_back(origin: Origin, takeover_bytes: int) -> None:
    """Told at once, though nothing more is allowed."""
    _, limiter = limited(0)
    async with origin_client(settings(takeover_bytes)) as client:
        facts = await facts_of(client, origin.url("/long"))
        sink = MemorySink(error=OSError(28, "No space left on device"))
        async with asyncio.timeout(5):
            outcome, _ = await fetch(client, origin.url("/long"), facts, sink=sink, limiter=limiter)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.DISK_FULL
