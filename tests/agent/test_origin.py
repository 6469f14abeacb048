"""One probe or one fetch against an honest origin: facts, ranges, both ways of the body, cancelling."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator

import aiohttp.http_parser
import pytest

from agent.core.facts import RangeSupport, Sharing
from agent.origin import OriginClient, OriginRequest, OriginSettings
from agent.origin_options import OriginOptions
from peer.core.failure import Failure, FailureKind
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import MemorySink, facts_of, fetch, origin_client, until
from validation.ranges import ByteRange

BIG = random.Random(1).randbytes(5_000_000)
SMALL = BIG[:100_000]


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/big", BIG)
        running.add("/small", SMALL)
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    async with origin_client() as running:
        yield running


def test_the_c_parser_is_in_use() -> None:
    """Several smuggling fixes concern the pure Python parser; and it is slower."""
    assert aiohttp.http_parser.HttpResponseParser is not aiohttp.http_parser.HttpResponseParserPy


async def test_probe_tells_what_head_tells(origin: Origin, client: OriginClient) -> None:
    facts = await facts_of(client, origin.url("/small"))
    assert facts.length == len(SMALL)
    assert facts.etag is not None
    assert facts.etag.startswith('"')
    assert facts.last_modified == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert facts.modified_at == 1_700_000_000
    assert (facts.ranges, facts.sharing) == (RangeSupport.PROMISED, Sharing.ALLOWED)
    assert [entry.method for entry in origin.log] == ["HEAD"]
    sent = origin.log[0].headers
    assert sent["accept-encoding"] == "identity"
    assert sent["user-agent"].startswith("nearfetch/")


@pytest.mark.parametrize(
    ("headers", "sharing"),
    [
        ({"Cache-Control": "max-age=3, no-store"}, Sharing.NO_STORE),
        ({"Cache-Control": "Private"}, Sharing.PRIVATE),
        ({"Cache-Control": 'private="set-cookie", max-age=1'}, Sharing.PRIVATE),
        ({"Vary": "Accept-Encoding, Cookie"}, Sharing.VARIES),
        ({"Vary": "*"}, Sharing.VARIES),
        ({"Vary": "accept-encoding", "Cache-Control": "public"}, Sharing.ALLOWED),
    ],
)
async def test_what_may_be_shared(
    origin: Origin, client: OriginClient, headers: dict[str, str], sharing: Sharing
) -> None:
    origin.add("/x", SMALL, headers=tuple(headers.items()))
    assert (await facts_of(client, origin.url("/x"))).sharing is sharing


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Api-Key"])
async def test_an_answer_to_credentials_is_not_shared(origin: Origin, client: OriginClient, name: str) -> None:
    facts = await facts_of(client, origin.url("/small"), OriginOptions(headers=((name, "secret"),)))
    assert facts.sharing is Sharing.CREDENTIALS
    assert origin.log[0].headers[name.lower()] == "secret"


async def test_user_information_becomes_basic_credentials(origin: Origin, client: OriginClient) -> None:
    url = origin.url("/small").replace("http://", "http://user:pa%20ss@")
    assert (await facts_of(client, url)).sharing is Sharing.CREDENTIALS
    assert origin.log[0].headers["authorization"] == "Basic dXNlcjpwYSBzcw=="


async def test_harmless_headers_do_not_forbid_sharing(origin: Origin, client: OriginClient) -> None:
    options = OriginOptions(headers=(("Accept", "text/html"), ("User-Agent", "mine")))
    facts = await facts_of(client, origin.url("/small"), options)
    assert facts.sharing is Sharing.ALLOWED
    assert (origin.log[0].headers["accept"], origin.log[0].headers["user-agent"]) == ("text/html", "mine")


async def test_a_job_cannot_set_what_belongs_to_the_connection(origin: Origin, client: OriginClient) -> None:
    odd = (("Range", "bytes=0-1"), ("Host", "evil"), ("Accept-Encoding", "gzip"), ("Transfer-Encoding", "chunked"))
    await client.probe(origin.url("/small"), OriginOptions(headers=odd))
    sent = origin.log[0].headers
    assert "range" not in sent
    assert "transfer-encoding" not in sent
    assert sent["accept-encoding"] == "identity"
    assert sent["host"] == f"127.0.0.1:{origin.port}"


@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_the_whole_content(origin: Origin, client: OriginClient, path: str) -> None:
    content = BIG if path == "/big" else SMALL
    facts = await facts_of(client, origin.url(path))
    outcome, sink = await fetch(client, origin.url(path), facts)
    whole = ByteRange(0, len(content))
    assert outcome == Fetched(item=whole)
    assert sink.holds(content, whole)
    assert "range" not in origin.log[-1].headers
    assert client.counters[f"127.0.0.1:{origin.port}"].bytes_received == len(content)


@pytest.mark.parametrize(
    "item",
    [
        ByteRange(0, 1),
        ByteRange(0, 1_048_575),
        ByteRange(1, 1_048_578),
        ByteRange(12_345, 4_999_999),
        ByteRange(4_999_999, 5_000_000),
        ByteRange(7, 7),
    ],
    ids=str,
)
async def test_a_range(origin: Origin, client: OriginClient, item: ByteRange) -> None:
    facts = await facts_of(client, origin.url("/big"))
    outcome, sink = await fetch(client, origin.url("/big"), facts, item)
    assert outcome == Fetched(item=item)
    assert sink.holds(BIG, item)
    if item.length:
        assert origin.log[-1].headers["range"] == f"bytes={item.start}-{item.stop - 1}"
        assert origin.log[-1].headers["if-range"] == facts.etag
        assert origin.log[-1].status == 206


async def test_small_ranges_keep_their_connection(origin: Origin, client: OriginClient) -> None:
    facts = await facts_of(client, origin.url("/big"))
    for number in range(20):
        item = ByteRange(number * 65536, (number + 1) * 65536)
        outcome, sink = await fetch(client, origin.url("/big"), facts, item)
        assert isinstance(outcome, Fetched)
        assert sink.holds(BIG, item)
    assert origin.accepted == 1


async def test_large_ranges_keep_their_connection(origin: Origin) -> None:
    """After the take-over the connection goes back; large and small ones take turns on it."""
    async with origin_client(OriginSettings(takeover_bytes=300_000)) as client:
        facts = await facts_of(client, origin.url("/big"))
        for start, length in [(0, 400_000), (7, 10), (400_000, 4_000_000), (4_000_001, 999_999), (3, 299_999)]:
            item = ByteRange(start, start + length)
            outcome, sink = await fetch(client, origin.url("/big"), facts, item)
            assert isinstance(outcome, Fetched)
            assert sink.holds(BIG, item)
    assert origin.accepted == 1


async def test_a_connection_that_the_origin_closes_is_not_used_again(origin: Origin, client: OriginClient) -> None:
    origin.add("/close", BIG, faults=["header:value=Connection: close"])
    facts = await facts_of(client, origin.url("/close"))
    for _ in range(2):
        outcome, sink = await fetch(client, origin.url("/close"), facts)
        assert isinstance(outcome, Fetched)
        assert sink.holds(BIG, ByteRange(0, len(BIG)))
    assert origin.accepted == 3


async def test_random_ranges_side_by_side(origin: Origin) -> None:
    """Many sizes around the take-over, several at once: no byte lost, doubled or out of place."""
    rng = random.Random(7)
    async with origin_client(OriginSettings(takeover_bytes=100_000)) as client:
        facts = await facts_of(client, origin.url("/big"))

        async def one() -> None:
            start = rng.randrange(len(BIG))
            item = ByteRange(start, rng.randrange(start, min(len(BIG), start + rng.choice([10**5, 10**6]))) + 1)
            outcome, sink = await fetch(client, origin.url("/big"), facts, item)
            assert outcome == Fetched(item=item)
            assert sink.holds(BIG, item)

        for _ in range(10):
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(one())


async def test_an_empty_content(origin: Origin, client: OriginClient) -> None:
    origin.add("/empty", b"")
    facts = await facts_of(client, origin.url("/empty"))
    assert facts.length == 0
    outcome, sink = await fetch(client, origin.url("/empty"), facts)
    assert outcome == Fetched(item=ByteRange(0, 0))
    assert not sink.data


async def test_last_modified_serves_as_validator_without_etag(origin: Origin, client: OriginClient) -> None:
    origin.add("/dated", SMALL, etag=None)
    facts = await facts_of(client, origin.url("/dated"))
    outcome, _ = await fetch(client, origin.url("/dated"), facts, ByteRange(10, 20))
    assert isinstance(outcome, Fetched)
    assert origin.log[-1].headers["if-range"] == facts.last_modified


@pytest.mark.parametrize("takeover_bytes", [1, 1 << 60], ids=["taken over", "stream"])
async def test_a_body_may_take_longer_than_an_answer(origin: Origin, takeover_bytes: int) -> None:
    """The timeout of the answer ends with its head, and the connection is as good as before."""
    origin.add("/slow", SMALL, faults=["drip:count=90000"])
    settings = OriginSettings(takeover_bytes=takeover_bytes, answer_timeout_s=0.4)
    async with origin_client(settings) as client:
        facts = await facts_of(client, origin.url("/slow"))
        for _ in range(2):
            outcome, sink = await fetch(client, origin.url("/slow"), facts)
            assert isinstance(outcome, Fetched)
            assert sink.holds(SMALL, ByteRange(0, len(SMALL)))
    assert origin.accepted == 1


@pytest.mark.parametrize("takeover_bytes", [1, 1 << 60], ids=["taken over", "stream"])
async def test_a_slow_disk_holds_the_origin_back(origin: Origin, takeover_bytes: int) -> None:
    """Reading stops when three buffers are full, and nothing is lost when it goes on."""
    async with origin_client(OriginSettings(takeover_bytes=takeover_bytes)) as client:
        await _slow_disk(origin, client)


async def _slow_disk(origin: Origin, client: OriginClient) -> None:
    content = bytes(64) * 1_000_000
    origin.add("/long", content)
    facts = await facts_of(client, origin.url("/long"))
    gate = threading.Event()
    sink = MemorySink(gate=gate)
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(fetch(client, origin.url("/long"), facts, sink=sink))
        await origin.wait_for(lambda: origin.sent("/long") > 4_000_000)
        # The kernel's buffers on loopback hold some MiB; all 64 MB they do not.
        with pytest.raises(TimeoutError):
            await origin.wait_for(lambda: origin.sent("/long") >= 60_000_000, timeout_s=0.5)
        gate.set()
    outcome, _ = fetching.result()
    assert isinstance(outcome, Fetched)
    assert sink.holds(content, ByteRange(0, len(content)))


@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_a_full_disk_ends_the_fetch(origin: Origin, client: OriginClient, path: str) -> None:
    facts = await facts_of(client, origin.url(path))
    sink = MemorySink(error=OSError(28, "No space left on device"))
    outcome, _ = await fetch(client, origin.url(path), facts, sink=sink)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.DISK_FULL
    assert len(sink.reported) == 0


@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_cancelling_closes_the_connection(origin: Origin, client: OriginClient, path: str) -> None:
    content = BIG if path == "/big" else SMALL
    origin.add("/slow", content, faults=["drip:count=20000"])
    facts = await facts_of(client, origin.url("/slow"))
    sink = MemorySink()
    request = OriginRequest(url=origin.url("/slow"), item=ByteRange(0, len(content)), facts=facts)
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(client.fetch(request, sink))
        await origin.wait_for(lambda: origin.sent("/slow") > 4_000)
        fetching.cancel()
    assert fetching.cancelled()
    assert sink.writing == 0
    assert sink.holds_prefix(content)
    await origin.wait_for(lambda: origin.connections == 0, timeout_s=2)


async def test_cancelling_waits_for_the_write_under_way(origin: Origin, client: OriginClient) -> None:
    facts = await facts_of(client, origin.url("/big"))
    gate = threading.Event()
    sink = MemorySink(gate=gate)
    request = OriginRequest(url=origin.url("/big"), item=ByteRange(0, len(BIG)), facts=facts)
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(client.fetch(request, sink))
        await until(lambda: sink.writing == 1)
        fetching.cancel()
        await asyncio.wait((fetching,), timeout=0.1)
        assert not fetching.done()
        gate.set()
    assert fetching.cancelled()
    assert sink.writing == 0


async def test_closing_the_client_ends_what_is_under_way(origin: Origin) -> None:
    origin.add("/slow", BIG, faults=["drip:count=20000"])
    async with origin_client() as client:
        facts = await facts_of(client, origin.url("/slow"))
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(fetch(client, origin.url("/slow"), facts))
            await origin.wait_for(lambda: origin.sent("/slow") > 4_000)
            await client.close()
        outcome, _ = fetching.result()
        assert isinstance(outcome, Failure)
        after = await client.probe(origin.url("/small"))
        assert isinstance(after, Failure)
        assert after.kind is FailureKind.ABORTED


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "nothing", "data:,x", ""])
async def test_other_schemes(client: OriginClient, url: str) -> None:
    outcome = await client.probe(url)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.UNSUPPORTED_SCHEME
    assert "http and https" in outcome.message


@pytest.mark.parametrize("url", ["http://", "http:///x", "https://h:99999/", "http://a b/"])
async def test_urls_without_a_usable_host(client: OriginClient, url: str) -> None:
    outcome = await client.probe(url)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.UNSUPPORTED_SCHEME


async def test_the_url_goes_out_as_it_was_spelled(origin: Origin, client: OriginClient) -> None:
    """Signatures cover the spelling of escapes."""
    seen: list[str] = []
    origin.add("/a/b~c", SMALL)
    origin.on_request = lambda request: seen.append(request.query)
    await facts_of(client, origin.url("/a%2Fb%7Ec?X=AK%2F20%2Bs&y=%7e"))
    assert seen == ["X=AK%2F20%2Bs&y=%7e"]
