"""Probes against an origin with faults: another way found, or one clear failure; how long we are sent away.

The numbers are rows of the reliability notes, section 3.1.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from agent.core.facts import RangeSupport, Sharing
from agent.origin import OriginClient, OriginSettings
from peer.core.failure import Failure, FailureKind, Persistence
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import IMPATIENT, facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from validation.ranges import ByteRange

BIG = random.Random(2).randbytes(3_000_000)
SMALL = BIG[:100_000]
QUERY = "?token=hunter2"


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    settings = OriginSettings(answer_timeout_s=1.0, connect_timeout_s=2.0, limits=IMPATIENT)
    async with origin_client(settings) as running:
        yield running


def is_failure(outcome: object, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome
    assert "hunter2" not in outcome.message
    return outcome


@pytest.mark.parametrize(
    ("fault", "ranges", "methods"),
    [
        ("head-status:count=405", RangeSupport.PROMISED, "HEAD GET"),  # 7
        ("head-status:count=403", RangeSupport.PROMISED, "HEAD GET"),
        ("head-status:count=404", RangeSupport.PROMISED, "HEAD GET"),
        ("head-status:count=501", RangeSupport.PROMISED, "HEAD GET"),
        ("head-status:count=400", RangeSupport.PROMISED, "HEAD GET"),
        ("head-status:count=204", RangeSupport.PROMISED, "HEAD GET"),
        ("head-no-length", RangeSupport.PROMISED, "HEAD GET"),
        ("head-missing", RangeSupport.PROMISED, "HEAD HEAD GET"),
        ("no-ranges", RangeSupport.NONE, "HEAD"),
        ("head-no-length no-ranges", RangeSupport.NONE, "HEAD GET"),
        ("head-no-length promise-ranges", RangeSupport.NONE, "HEAD GET"),
        ("head-no-length range-416", RangeSupport.NONE, "HEAD GET GET"),
        ("head-no-length no-content-range", RangeSupport.NONE, "HEAD GET GET"),
        ("head-no-length wrong-range", RangeSupport.NONE, "HEAD GET GET"),
    ],
)
async def test_probe_finds_another_way(
    origin: Origin, client: OriginClient, fault: str, ranges: RangeSupport, methods: str
) -> None:
    content = bytes(40_000_000)
    origin.add("/x", content, etag='"1"', other=b"", faults=fault.split())
    facts = await facts_of(client, origin.url("/x"))
    assert (facts.length, facts.ranges) == (len(content), ranges)
    assert facts.etag is not None
    assert " ".join(entry.method for entry in origin.log) == methods
    await origin.wait_for(lambda: all(entry.finished for entry in origin.log) or origin.connections == 0)
    assert origin.sent("/x") < len(content), "a probe does not read bodies"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status:count=404", FailureKind.NOT_FOUND),
        ("status:count=403", FailureKind.FORBIDDEN),
        ("status:count=410", FailureKind.GONE),
        ("status:count=401", FailureKind.AUTH_REQUIRED),
        ("status:count=500", FailureKind.HTTP_TRANSIENT),
        ("huge-length", FailureKind.TOO_LARGE),
        ("gzip", FailureKind.UNEXPECTED_ENCODING),
        ("bad-content-length", FailureKind.BAD_RESPONSE),
        ("two-content-lengths", FailureKind.BAD_RESPONSE),
        ("never-answers", FailureKind.STALLED),
        ("closes", FailureKind.CONNECTION_CLOSED),
        ("not-http", FailureKind.BAD_RESPONSE),
        ("huge-header", FailureKind.BAD_RESPONSE),
        ("many-headers", FailureKind.BAD_RESPONSE),
        ("wide-headers", FailureKind.BAD_RESPONSE),
        ("nul-header", FailureKind.BAD_RESPONSE),
        ("cr-header", FailureKind.BAD_RESPONSE),
    ],
)
async def test_probe_fails(origin: Origin, client: OriginClient, fault: str, kind: FailureKind) -> None:
    origin.add("/x", SMALL, faults=[fault])
    is_failure(await client.probe(origin.url("/x" + QUERY)), kind)


async def test_an_empty_content_found_by_416(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", b"", faults=["head-status"])
    facts = await facts_of(client, origin.url("/x"))
    assert (facts.length, facts.ranges) == (0, RangeSupport.PROMISED)


async def test_credentials_and_unsharable_answers_through_get(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", SMALL, faults=["head-status", "header:value=Cache-Control: no-store"])
    assert (await facts_of(client, origin.url("/x"))).sharing is Sharing.NO_STORE


@pytest.mark.parametrize("fault", ["head-lies", "promise-ranges", "no-content-range", "wrong-range"])
async def test_after_a_contradiction_head_is_not_asked_again(
    origin: Origin, client: OriginClient, fault: str
) -> None:
    """6, 17, 19, 22: the second probe and the fetch after it come out right."""
    origin.add("/x", SMALL, faults=[fault])
    facts = await facts_of(client, origin.url("/x"))
    outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(10, 20))
    assert isinstance(outcome, Failure)
    again = await facts_of(client, origin.url("/x"))
    assert again.length == len(SMALL)
    assert again.ranges is (RangeSupport.PROMISED if fault == "head-lies" else RangeSupport.NONE)
    outcome, sink = await fetch(client, origin.url("/x"), again)
    assert isinstance(outcome, Fetched)
    assert sink.holds(SMALL, ByteRange(0, len(SMALL)))


async def test_a_whole_in_place_of_a_first_part_is_remembered(origin: Origin, client: OriginClient) -> None:
    """17: the part is good, and the next probe knows that ranges are only promised."""
    origin.add("/x", SMALL, faults=["promise-ranges"])
    facts = await facts_of(client, origin.url("/x"))
    assert facts.ranges is RangeSupport.PROMISED
    outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(0, 50))
    assert isinstance(outcome, Fetched)
    assert (await facts_of(client, origin.url("/x"))).ranges is RangeSupport.NONE


async def test_without_ranges_no_range_is_asked_for(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", BIG, faults=["no-ranges"])
    facts = await facts_of(client, origin.url("/x"))
    outcome, sink = await fetch(client, origin.url("/x"), facts, ByteRange(0, 1000))
    assert isinstance(outcome, Fetched)
    assert "range" not in origin.log[-1].headers
    assert sink.holds(BIG, ByteRange(0, 1000))


# --- being sent away -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("999999999", 86_400, 86_400),
        ("date+30", 25, 31),
        ("date+-30", 0, 0),
        ("date+9999999", 86_400, 86_400),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after(
    origin: Origin, client: OriginClient, status: int, value: str, low: float, high: float
) -> None:
    """41"""
    origin.add("/x", SMALL, faults=[Fault("status", count=status, value=value)])
    failure = is_failure(await client.probe(origin.url("/x")), FailureKind.BUSY)
    assert failure.retry_after_s is not None
    assert low <= failure.retry_after_s <= high
    assert failure.http_status == status
    assert failure.persistence is Persistence.TRANSIENT
    assert len(origin.log) == 1


@pytest.mark.parametrize("value", ["soon", "-1", "1e9", "Tue, 99 Foo 2023", ""])
async def test_retry_after_that_says_nothing(origin: Origin, client: OriginClient, value: str) -> None:
    origin.add("/x", SMALL, faults=[Fault("status", count=503, value=value)])
    assert is_failure(await client.probe(origin.url("/x")), FailureKind.BUSY).retry_after_s is None


async def test_interim_replies_do_not_buy_time_without_end() -> None:
    """45: each 103 is progress to a read timeout; the answer as a whole has its own."""

    ended = asyncio.Event()

    async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            writer.close()
            ended.set()

    server = await asyncio.start_server(hint, "127.0.0.1", 0)
    settings = OriginSettings(answer_timeout_s=0.3, connect_timeout_s=0.3)
    began = time.monotonic()
    async with server, origin_client(settings) as client:
        outcome = await client.probe(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        is_failure(outcome, FailureKind.STALLED)
        assert time.monotonic() - began < 5
        await asyncio.wait_for(ended.wait(), 5)
