"""The client, over real TLS on loopback: against our server, and against small hostile ones."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from peer import call as call_module
from peer import client as client_module
from peer.body import BodyLimits, BodyReceiver
from peer.client import PeerAddress, PeerClient, PeerFetch
from peer.core import voucherwire, wire
from peer.core.admission import AdmissionLimits
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import PeerId
from peer.group import GroupKey, authority_of
from peer.identity import Identity
from peer.sink import Fetched
from peer.workers import Workers
from tests.support.peers import (
    CHUNK,
    WAIT_S,
    Members,
    MemorySink,
    calling,
    content_id,
    noise,
    serving,
    silence,
    until,
)
from validation.content import ChunkIndex, ChunkLayout, bitfield
from validation.digest import chunk_digest
from validation.ranges import ByteRange

A = content_id("a")
DATA = noise(3 * CHUNK + 77)
LAYOUT = ChunkLayout(length=len(DATA), chunk_bytes=CHUNK)
ITEM = ByteRange(CHUNK, 3 * CHUNK)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path)


@pytest.fixture
async def client(members: Members, workers: Workers) -> AsyncIterator[PeerClient]:
    async with calling(members, workers) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with silence(caplog):
        yield


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits of a fraction of a second where a test waits for them."""
    monkeypatch.setattr(client_module, "PEER_LIMITS", BodyLimits(minimum_rate=8192, stall_time_s=1.0))


@asynccontextmanager
async def hostile(
    members: Members, handler: Handler, context: ssl.SSLContext | None = None
) -> AsyncIterator[PeerAddress]:
    """A member that answers as it likes."""
    me = members.identity("hostile")
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await handler(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context or me.server_context())
    try:
        yield PeerAddress(me.peer_id, "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


def answering(*answers: bytes, then_close: bool = False) -> Handler:
    """Reads one request for each answer."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        if then_close:
            writer.close()
        else:
            await reader.read()

    return handler


def good_head(item: ByteRange = ITEM, total: int = len(DATA), vouchers: str = "") -> bytes:
    return wire.format_range_head(item, total, vouchers)


def request(address: PeerAddress, item: ByteRange = ITEM) -> PeerFetch:
    return PeerFetch(address=address, content_id=A, layout=LAYOUT, item=item)


async def fetch(client: PeerClient, address: PeerAddress) -> Fetched | Failure:
    async with asyncio.timeout(WAIT_S):
        return await client.fetch(request(address), MemorySink(len(DATA)))


async def failure(client: PeerClient, address: PeerAddress) -> Failure:
    outcome = await fetch(client, address)
    assert isinstance(outcome, Failure), outcome
    return outcome


# against our own server


async def test_it_asks_and_fetches(members: Members, workers: Workers, client: PeerClient) -> None:
    async with serving(members, workers) as it:
        it.store.add(A, DATA, have=bitfield([1, 2, 3]))
        hello = await client.hello(it.address)
        assert isinstance(hello, client_module.Hello)
        assert (hello.peer_id, hello.name) == (it.identity.peer_id, "server")
        offer = await client.offer(it.address, A)
        assert isinstance(offer, client_module.Offer)
        assert (offer.layout, offer.have_chunks) == (LAYOUT, bitfield([1, 2, 3]))
        assert await client.offer(it.address, content_id("other")) is None
        sink = MemorySink(len(DATA))
        assert await client.fetch(request(it.address), sink) == Fetched(item=ITEM)
        assert sink.data[ITEM.start : ITEM.stop] == DATA[ITEM.start : ITEM.stop]
        assert sink.arrived_bytes == ITEM.length
        tail = ByteRange(3 * CHUNK + 1, len(DATA))
        assert await client.fetch(request(it.address, tail), MemorySink(len(DATA))) == Fetched(item=tail)
        assert await client.fetch(request(it.address, ByteRange(5, 5)), sink) == Fetched(item=ByteRange(5, 5))
        assert await client.certificate(it.address, it.identity.peer_id) == it.identity.certificate_der
        assert len(it.callers) == 1, "one connection for all of it"
        assert it.callers[0].port == 4711


async def test_not_found_and_busy(members: Members, workers: Workers, client: PeerClient) -> None:
    async with serving(members, workers, AdmissionLimits(slots=0)) as it:
        assert (await failure(client, it.address)).kind is FailureKind.NOT_FOUND
        it.store.add(A, DATA)
        busy = await failure(client, it.address)
        assert (busy.kind, busy.retry_after_s) == (FailureKind.BUSY, 1.0)
        assert len(it.callers) == 1, "such answers leave the connection as it is"


async def test_at_most_four_connections(members: Members, workers: Workers, client: PeerClient) -> None:
    async with serving(members, workers) as it:
        it.store.add(A, DATA)
        it.store.check_may_go_on.clear()
        async with asyncio.TaskGroup() as tasks:
            fetches = [tasks.create_task(fetch(client, it.address)) for _ in range(12)]
            await until(lambda: it.store.checks == 4)
            await asyncio.sleep(0.05)
            assert it.server.connected == 4
            it.store.check_may_go_on.set()
        assert [task.result() for task in fetches] == [Fetched(item=ITEM)] * 12
        assert it.server.counters.refused == 0
        assert len(it.callers) == 4


async def test_a_connection_that_ended_meanwhile_is_replaced(
    members: Members, workers: Workers, client: PeerClient
) -> None:
    """The kept connection is closed in the very moment of the request: it is sent once more."""
    served = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good_head() + DATA[ITEM.start : ITEM.stop])
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with hostile(members, once) as address:
        assert isinstance(await fetch(client, address), Fetched)
        assert isinstance(await fetch(client, address), Fetched)
        assert served == 2


async def test_a_connection_closed_while_idle_is_forgotten(
    members: Members, workers: Workers, client: PeerClient
) -> None:
    async with serving(members, workers) as it:
        await client.hello(it.address)
        it.server.disconnect(members.identity("client").peer_id)
        await until(lambda: not client._lines)
        assert isinstance(await client.hello(it.address), client_module.Hello)


async def test_idle_connections_are_closed(
    members: Members, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "IDLE_S", 0.1)
    async with serving(members, workers) as it, calling(members, workers) as client:
        await client.hello(it.address)
        await until(lambda: it.server.connected == 0)
        await until(lambda: not client._lines)


async def test_cancelling_closes_the_connection_and_leaves_nothing(
    members: Members, workers: Workers, client: PeerClient
) -> None:
    async with serving(members, workers) as it:
        it.store.add(A, DATA)
        it.store.check_may_go_on.clear()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(fetch(client, it.address))
            await until(lambda: it.store.checks == 1)
            waiting.cancel()
        assert waiting.cancelled()
        await until(lambda: it.server.connected == 0)
        it.store.check_may_go_on.set()
        assert isinstance(await fetch(client, it.address), Fetched)


class SlowSink(MemorySink):
    """Every write waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(len(DATA))
        self.begun, self.go = threading.Event(), threading.Event()

    def write(self, offset: int, data: memoryview) -> None:
        self.begun.set()
        assert self.go.wait(WAIT_S)
        super().write(offset, data)


async def test_cancelling_in_the_body_waits_for_the_write(
    members: Members, workers: Workers, client: PeerClient
) -> None:
    sink = SlowSink()
    async with serving(members, workers) as it:
        it.store.add(A, DATA)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(client.fetch(request(it.address), sink))
            await until(sink.begun.is_set)
            waiting.cancel()
            await asyncio.sleep(0.05)
            assert not waiting.done(), "the caller would close the file under the write"
            sink.go.set()
        assert waiting.cancelled()
        await until(lambda: it.server.connected == 0)


async def test_cancelling_just_as_the_body_begins_waits_too(
    members: Members, workers: Workers, client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body begins inside a callback of the loop, before the fetch's own task has heard of it."""
    sink, fetches = SlowSink(), list[asyncio.Task[Fetched | Failure]]()
    small = ByteRange(CHUNK, CHUNK + 1000)  # comes with the head, so that its write begins in the same callback

    def begin_and_cancel(**values: Any) -> BodyReceiver:
        fetches[0].cancel()
        return BodyReceiver(**values)

    monkeypatch.setattr(client_module, "BodyReceiver", begin_and_cancel)
    async with hostile(members, answering(good_head(small) + BODY[:1000])) as address:
        async with asyncio.TaskGroup() as tasks:
            fetches.append(tasks.create_task(client.fetch(request(address, small), sink)))
            await until(sink.begun.is_set)
            await asyncio.sleep(0.05)
            assert not fetches[0].done()
            sink.go.set()
        assert fetches[0].cancelled()
        assert not sink.writing


async def test_cancelling_while_connecting(members: Members, workers: Workers, client: PeerClient) -> None:
    entered = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        entered.set()
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    address = PeerAddress(PeerId("1" * 64), "127.0.0.1", server.sockets[0].getsockname()[1])
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(fetch(client, address))
        await asyncio.wait_for(entered.wait(), WAIT_S)
        waiting.cancel()
    assert waiting.cancelled()
    await until(lambda: not client._lines)
    server.close()


async def test_closing_ends_what_is_under_way(members: Members, workers: Workers, client: PeerClient) -> None:
    async with serving(members, workers) as it:
        it.store.add(A, DATA)
        it.store.check_may_go_on.clear()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(failure(client, it.address))
            await until(lambda: it.store.checks == 1)
            await client.close()
        assert waiting.result().kind is FailureKind.CONNECTION_CLOSED
        assert (await failure(client, it.address)).kind is FailureKind.ABORTED
        it.store.check_may_go_on.set()


async def test_a_failing_disk_is_our_failure(members: Members, workers: Workers, client: PeerClient) -> None:
    class Full(MemorySink):
        def write(self, offset: int, data: memoryview) -> None:
            raise OSError(28, "No space left on device")

    async with serving(members, workers) as it:
        it.store.add(A, DATA)
        outcome = await client.fetch(request(it.address), Full(len(DATA)))
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.DISK_FULL


# answers that are not what was asked for

BODY = DATA[ITEM.start : ITEM.stop]
OTHER = ByteRange(0, ITEM.length)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (good_head(OTHER) + DATA[: OTHER.length], FailureKind.BAD_RESPONSE),
        (good_head(total=len(DATA) + 1) + BODY, FailureKind.BAD_RESPONSE),
        (good_head(ByteRange(ITEM.start, ITEM.stop - 1)) + BODY[:-1], FailureKind.BAD_RESPONSE),
        (good_head().replace(b"Content-Length: 5", b"Content-Length: 6") + BODY, FailureKind.BAD_RESPONSE),
        (good_head().replace(b"206", b"200") + BODY, FailureKind.BAD_RESPONSE),
        (good_head().replace(b"HTTP/1.1", b"HTTP/1.0") + BODY, FailureKind.BAD_RESPONSE),
        (good_head().replace(b"Content-Range", b"X-Range") + BODY, FailureKind.BAD_RESPONSE),
        (good_head(vouchers="1;2;3") + BODY, FailureKind.BAD_RESPONSE),
        (good_head() + BODY + b"!", FailureKind.BAD_RESPONSE),
        (good_head() + BODY + b"!" * 10_000_000, FailureKind.BAD_RESPONSE),
        (b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", FailureKind.BAD_RESPONSE),
        (b"HTTP/1.1 206 OK\r\nA: " + b"b" * wire.HEAD_LIMIT, FailureKind.BAD_RESPONSE),
        (b"HTTP/1.1 206 OK\r\n" + b"A: b\r\n" * 2000 + b"\r\n", FailureKind.BAD_RESPONSE),
        (b"\x00\xff garbage \r\n\r\n", FailureKind.BAD_RESPONSE),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", FailureKind.BAD_RESPONSE),
        (wire.format_response(404, b"a body"), FailureKind.NOT_FOUND),
        (wire.format_response(416), FailureKind.HTTP_FATAL),
        (wire.format_response(500), FailureKind.HTTP_TRANSIENT),
        (wire.format_response(503, headers=[("Retry-After", "3")]), FailureKind.BUSY),
    ],
)
async def test_wrong_answers(members: Members, client: PeerClient, answer: bytes, kind: FailureKind) -> None:
    async with hostile(members, answering(answer)) as address:
        assert (await failure(client, address)).kind is kind


@pytest.mark.parametrize("cut", [0, 10, len(good_head()), len(good_head()) + 1, len(good_head()) + ITEM.length - 1])
async def test_short_answers(members: Members, client: PeerClient, cut: int) -> None:
    async with hostile(members, answering((good_head() + BODY)[:cut], then_close=True)) as address:
        outcome = await failure(client, address)
        assert outcome.kind is FailureKind.CONNECTION_CLOSED


async def test_endless_answers(members: Members, client: PeerClient) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good_head())
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    async with hostile(members, endless) as address:
        assert (await failure(client, address)).kind is FailureKind.BAD_RESPONSE
        await until(lambda: not client._lines)


async def test_wrong_bytes_are_delivered_for_the_caller_to_judge(members: Members, client: PeerClient) -> None:
    async with hostile(members, answering(good_head() + bytes(ITEM.length))) as address:
        assert await fetch(client, address) == Fetched(item=ITEM)


async def test_bytes_that_nobody_asked_for(members: Members, client: PeerClient) -> None:
    """Between two exchanges: that connection is not used again."""

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good_head() + BODY)
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with hostile(members, eager) as address:
        assert isinstance(await fetch(client, address), Fetched)
        await until(lambda: not client._lines)


@pytest.mark.parametrize("sent", [0, 10, len(good_head()), len(good_head()) + 5000])
async def test_silence(members: Members, client: PeerClient, monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    monkeypatch.setattr(call_module, "HEAD_TIMEOUT_S", 0.4)
    async with hostile(members, answering((good_head() + BODY)[:sent])) as address:
        began = time.monotonic()
        assert (await failure(client, address)).kind is FailureKind.STALLED
        assert time.monotonic() - began < 4.0
        await until(lambda: not client._lines)


async def test_a_drip(members: Members, client: PeerClient) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good_head())
        for byte in BODY:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with hostile(members, drip) as address:
        assert (await failure(client, address)).kind is FailureKind.STALLED


# who it is


async def test_another_agent_at_that_address(members: Members, workers: Workers, client: PeerClient) -> None:
    async with serving(members, workers) as it:
        it.store.add(A, DATA)
        outcome = await failure(client, replace(it.address, peer_id=members.identity("else").peer_id))
        assert outcome.kind is FailureKind.NOT_TRUSTED
        assert it.callers == []


async def test_a_server_of_another_group(tmp_path: Path, workers: Workers, client: PeerClient) -> None:
    strangers = Members(tmp_path / "elsewhere", GroupKey.create())
    async with serving(strangers, workers) as it:
        assert (await failure(client, it.address)).kind is FailureKind.NOT_TRUSTED


async def test_a_server_with_an_expired_certificate(members: Members, client: PeerClient) -> None:
    old = members.identity("hostile", now=time.time() - 200 * 86_400)
    context = old.server_context()
    async with hostile(members, answering(good_head() + BODY), context) as address:
        outcome = await failure(client, address)
        assert outcome.kind is FailureKind.NOT_TRUSTED
        assert "expired" in outcome.message


async def test_a_server_that_refuses_our_certificate(
    members: Members, workers: Workers, tmp_path: Path, client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In TLS 1.3 the refusal comes after the handshake, as the answer to the first request."""
    members.identity("server")
    own = tmp_path / "server" / "identity"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own / "certificate.pem", own / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    foreign = authority_of(GroupKey.create()).certificates[0].public_bytes(Encoding.DER)
    context.load_verify_locations(cadata=foreign)
    monkeypatch.setattr(Identity, "server_context", lambda _: context)
    async with serving(members, workers) as it:
        outcome = await failure(client, it.address)
        assert outcome.kind is FailureKind.NOT_TRUSTED
        assert "refuses our certificate" in outcome.message
        assert it.server.counters.refused == 1


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n"]
)
async def test_a_server_without_tls(members: Members, client: PeerClient, greeting: bytes) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    address = PeerAddress(PeerId("1" * 64), "127.0.0.1", server.sockets[0].getsockname()[1])
    assert (await failure(client, address)).kind is FailureKind.TLS_FAILED
    server.close()


async def test_nobody_there(members: Members, client: PeerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "HANDSHAKE_TIMEOUT_S", 0.3)
    done = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.transport.abort()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    address = PeerAddress(PeerId("1" * 64), "127.0.0.1", server.sockets[0].getsockname()[1])
    assert (await failure(client, address)).kind is FailureKind.CONNECT_TIMEOUT
    done.set()
    server.close()
    await server.wait_closed()
    assert (await failure(client, address)).kind is FailureKind.CONNECT_FAILED
    await until(lambda: not client._lines)


# documents


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[" * 200_000,
        wire.format_document(wire.Hello(peer_id="0" * 64, name="not me", version="1")),
    ],
)
async def test_wrong_hellos(members: Members, client: PeerClient, body: bytes) -> None:
    async with hostile(members, answering(wire.format_response(200, body))) as address:
        outcome = await client.hello(address)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.BAD_RESPONSE


@pytest.mark.parametrize(
    "answer",
    [
        wire.format_response(200, b'{"length":10,"chunk_bytes":3,"have":"AA==","claimed":"AA=="}'),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\n",
        wire.format_response(206, b"{}"),
        wire.format_response(200, b"{}") + b"more",
    ],
)
async def test_wrong_offers(members: Members, client: PeerClient, answer: bytes) -> None:
    async with hostile(members, answering(answer)) as address:
        outcome = await client.offer(address, A)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.BAD_RESPONSE


async def test_a_document_that_stops(members: Members, client: PeerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "DOCUMENT_TIMEOUT_S", 0.3)
    async with hostile(members, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")) as address:
        outcome = await client.offer(address, A)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.STALLED


async def test_the_certificate_of_somebody_else(members: Members, tmp_path: Path, client: PeerClient) -> None:
    other = members.identity("other")
    stranger = Members(tmp_path / "elsewhere", GroupKey.create()).identity("stranger")
    for der in (other.certificate_der, stranger.certificate_der, b"nonsense"):
        async with hostile(members, answering(wire.format_response(200, der))) as address:
            outcome = await client.certificate(address, stranger.peer_id)
            assert isinstance(outcome, Failure)
            assert outcome.kind is FailureKind.NOT_TRUSTED


# vouchers


async def test_only_vouchers_that_verify_come_through(
    members: Members, tmp_path: Path, workers: Workers, client: PeerClient
) -> None:
    digest = chunk_digest(DATA[CHUNK : 2 * CHUNK])
    known, relayed, banned = (members.identity(name) for name in ("known", "relayed", "gone"))
    stranger = Members(tmp_path / "elsewhere", GroupKey.create()).identity("stranger")
    del members.certificates[banned.peer_id]  # the server does not know it either
    good = known.vouch(A, ChunkIndex(1), digest)
    forged = replace(relayed.vouch(A, ChunkIndex(1), digest), digest=chunk_digest(b"other"))
    also_good = relayed.vouch(A, ChunkIndex(2), digest)
    async with serving(members, workers) as it:
        item = it.store.add(A, DATA)
        item.vouchers[1] = (stranger.vouch(A, ChunkIndex(1), digest), good, forged)
        item.vouchers[2] = (also_good, banned.vouch(A, ChunkIndex(2), digest), also_good)
        outcome = await fetch(client, it.address)
        assert isinstance(outcome, Fetched)
        assert set(outcome.vouchers) == {good, also_good}
        asked = it.server.counters.requests
        assert isinstance(await fetch(client, it.address), Fetched)
        assert it.server.counters.requests == asked + 3, "known certificates are not asked for again"


async def test_certificates_that_we_know_are_not_asked_for(members: Members, workers: Workers) -> None:
    signer = members.identity("signer")
    good = signer.vouch(A, ChunkIndex(1), chunk_digest(b""))
    knowing = PeerClient(members.identity("client"), workers, lambda: None, members.certificates.get)
    async with serving(members, workers) as it:
        it.store.add(A, DATA).vouchers[1] = (good,)
        outcome = await fetch(knowing, it.address)
        assert isinstance(outcome, Fetched)
        assert outcome.vouchers == (good,)
        assert it.server.counters.requests == 1
    await knowing.close()


async def test_vouchers_for_other_chunks_are_dropped(members: Members, workers: Workers) -> None:
    me = members.identity("hostile")
    text = voucherwire.format_vouchers([me.vouch(A, ChunkIndex(chunk), chunk_digest(b"")) for chunk in (0, 3, 99)])
    knowing = PeerClient(members.identity("client"), workers, lambda: None, members.certificates.get)
    async with hostile(members, answering(good_head(vouchers=text) + BODY)) as address:
        assert await fetch(knowing, address) == Fetched(item=ITEM)
        await knowing.close()


async def test_a_range_outside_the_content_is_our_mistake(client: PeerClient) -> None:
    address = PeerAddress(PeerId("1" * 64), "127.0.0.1", 1)
    with pytest.raises(ValueError, match="not in a content"):
        await client.fetch(request(address, ByteRange(0, len(DATA) + 1)), MemorySink(1))
