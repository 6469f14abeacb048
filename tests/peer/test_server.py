"""The server, over real TLS on loopback: what it serves, what it refuses, whom it drops."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from peer import channel
from peer import server as server_module
from peer import serving as serving_module
from peer.cache import CacheLimits, Deletion, NewChunk, PeerCache
from peer.client import CONNECTIONS_A_PEER, STREAMS_A_PEER, PeerAddress
from peer.core import voucherwire, wire
from peer.core.admission import Admission, AdmissionLimits
from peer.core.voucher import PeerId
from peer.errors import ListenError
from peer.group import GroupKey, authority_of
from peer.server import PeerServer
from peer.workers import Workers
from tests.support.peers import (
    CHUNK,
    Members,
    Serving,
    content_id,
    noise,
    serving,
    silence,
    talking,
    until,
)
from validation.content import ChunkIndex, ChunkLayout, bitfield
from validation.digest import chunk_digest
from validation.ranges import ByteRange

A = content_id("a")


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path)


@pytest.fixture
def caller(members: Members) -> ssl.SSLContext:
    return members.identity("caller").client_context()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with silence(caplog):
        yield


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits of a fraction of a second."""
    monkeypatch.setattr(serving_module, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(serving_module, "HANDSHAKE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(serving_module, "IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "LOOK_S", 0.05)


def span(first: int, last: int) -> str:
    return f"Range: bytes={first}-{last}"


async def test_one_connection_asks_for_everything(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    data = noise(2 * CHUNK + 100)
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, data)
        talk.ask(wire.hello_target(), "Nearfetch-Port: 4321")
        head, body = await talk.answer()
        assert wire.parse_hello(body).peer_id == it.identity.peer_id
        talk.ask(wire.offer_target(A))
        head, body = await talk.answer()
        assert wire.parse_offer(body).have_chunks == bitfield([0, 1, 2])
        talk.ask(wire.bytes_target(A), span(100, CHUNK + 99))
        head, body = await talk.answer()
        assert (head.status, head.content_range) == (206, wire.ContentRange(ByteRange(100, CHUNK + 100), len(data)))
        assert body == data[100 : CHUNK + 100]
        talk.ask(wire.certificate_target(it.identity.peer_id))
        head, body = await talk.answer()
        assert body == it.identity.certificate_der
        assert [(call.port, call.address) for call in it.callers] == [(4321, "127.0.0.1")]
        assert it.server.counters.bytes_by_peer[members.identity("caller").peer_id] == CHUNK
        assert (it.admission.in_flight, it.admission.connections) == (0, 1)
    assert it.admission.connections == 0


async def test_pipelined_requests_are_answered_in_order(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    data = noise(40 * CHUNK)
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, data)
        for number in range(40):
            talk.ask(wire.bytes_target(A), span(number * CHUNK, number * CHUNK + CHUNK - 1))
        for number in range(40):
            _, body = await talk.answer()
            assert body == data[number * CHUNK : (number + 1) * CHUNK]
        assert it.store.checks == 40


async def test_a_request_may_come_in_drops(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        for byte in wire.format_request(wire.hello_target()):
            talk.say(bytes([byte]))
            await asyncio.sleep(0)
        assert (await talk.answer())[0].status == 200


async def test_the_caller_may_close(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, noise(CHUNK))
        talk.ask(wire.bytes_target(A), span(0, CHUNK - 1), "Connection: close")
        assert (await talk.answer())[0].status == 206
        assert await talk.ended() == b""


async def test_what_is_not_there_in_full_is_not_there(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    """Unknown, partial, and failing its check: the same bytes (reliability 3.2, 67)."""
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, noise(3 * CHUNK), have=bitfield([0, 2]))
        it.store.add(content_id("rotten"), noise(CHUNK))
        it.store.bad = bitfield([0])
        answers = set()
        for name, header in [("unknown", span(0, 9)), ("a", span(0, CHUNK)), ("rotten", span(0, 9))]:
            talk.ask(wire.bytes_target(content_id(name)), header)
            answers.add(await talk.reader.readuntil(b"\r\n\r\n"))
        talk.ask(wire.offer_target(content_id("unknown")))
        answers.add(await talk.reader.readuntil(b"\r\n\r\n"))
        talk.ask(wire.certificate_target(PeerId("0" * 64)))
        answers.add(await talk.reader.readuntil(b"\r\n\r\n"))
        assert answers == {wire.format_response(404)}
        assert it.store.checks == 1, "only what is held in full is looked at"
        assert it.admission.in_flight == 0


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (span(0, 3 * CHUNK), 416),  # one byte beyond the end
        (span(10**15, 10**15 + 5), 416),
        (span(5, 4), 416),
        ("Range: bytes=0-0,1-1", 416),
        ("Range: bytes=" + ",".join("0-" for _ in range(1300)), 416),
        ("Range: bytes=-5", 400),
        ("Range: bytes=0-", 400),
        ("Range: bytes=٠-١", 400),
        ("Accept: */*", 400),
    ],
)
async def test_strange_ranges(
    members: Members, workers: Workers, caller: ssl.SSLContext, header: str, status: int
) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, noise(3 * CHUNK))
        talk.say(f"GET {wire.bytes_target(A)} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
        assert (await talk.answer())[0].status == status
        if status == 400:
            assert await talk.ended() == b""
        else:
            talk.ask(wire.hello_target())
            assert (await talk.answer())[0].status == 200


async def test_at_most_sixteen_chunks_a_request(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, noise(17 * CHUNK))
        talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK))
        assert (await talk.answer())[0].status == 416
        talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK - 1))
        assert (await talk.answer())[1] == noise(17 * CHUNK)[: 16 * CHUNK]


@pytest.mark.parametrize(
    "target",
    [
        "/nearfetch/1/content/../../etc/passwd",
        f"/nearfetch/1/content/%2e%2e{A[6:]}",
        f"/nearfetch/1/content/{A}%00/bytes",
    ],
)
async def test_tricks_in_the_path(members: Members, workers: Workers, caller: ssl.SSLContext, target: str) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        talk.ask(target, span(0, 1))
        assert (await talk.answer())[0].status == 400
        assert await talk.ended() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n",
        b"GET /nearfetch/1/hello\r\n\r\n",
        b"GET /nearfetch/1/hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /nearfetch/1/hello HTTP/1.1\r\nHost: a\r\nA: \x00\r\n\r\n",
        b"x" * wire.HEAD_LIMIT,
        b"GET /nearfetch/1/hello HTTP/1.1\r\nHost: a\r\nA: " + b"y" * 300_000,
    ],
)
async def test_garbage_is_answered_by_400_and_the_end(
    members: Members, workers: Workers, caller: ssl.SSLContext, garbage: bytes
) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        talk.say(garbage)
        head, _ = await talk.answer()
        assert (head.status, head.keep_alive) == (400, False)
        assert await talk.ended() == b""
        assert it.server.counters.malformed == 1


async def test_plain_http_is_closed_without_a_word(members: Members, workers: Workers) -> None:
    async with serving(members, workers) as it, talking(it.address, None) as talk:
        talk.ask("/")
        await talk.ended()
        await until(lambda: it.server.counters.refused == 1)
        assert "http" in it.server.counters.refusals[0].reason
        await until(lambda: it.admission.connections == 0)


async def refusal(it: Serving, context: ssl.SSLContext) -> str:
    """Try to talk with these credentials: nothing is answered, and this is why."""
    try:
        async with talking(it.address, context) as talk:
            talk.ask(wire.hello_target())
            assert await talk.ended() == b""
    except (ConnectionError, ssl.SSLError):
        pass
    await until(lambda: it.server.counters.refused == 1)
    await until(lambda: it.admission.connections == 0)
    assert it.server.counters.requests == 0
    assert it.callers == []
    return it.server.counters.refusals[0].reason


async def test_without_a_certificate(members: Members, workers: Workers) -> None:
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    async with serving(members, workers) as it:
        assert "did not return a certificate" in await refusal(it, nobody)


async def test_old_tls(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    caller.minimum_version = ssl.TLSVersion.TLSv1_2
    caller.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(members, workers) as it:
        assert "protocol" in await refusal(it, caller)


async def test_a_certificate_of_another_group(members: Members, workers: Workers, tmp_path: Path) -> None:
    stranger = Members(tmp_path / "elsewhere", GroupKey.create()).identity("stranger").client_context()
    stranger.verify_mode = ssl.CERT_NONE
    async with serving(members, workers) as it:
        assert "certificate" in await refusal(it, stranger)


async def test_an_expired_certificate(members: Members, workers: Workers) -> None:
    old = members.identity("old", now=time.time() - 200 * 86_400).client_context()
    async with serving(members, workers) as it:
        assert "expired" in await refusal(it, old)


async def test_a_banned_member(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers) as it:
        it.banned.add(members.identity("caller").peer_id)
        assert await refusal(it, caller) == "banned"


async def test_a_member_that_is_banned_meanwhile(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        talk.ask(wire.hello_target())
        await talk.answer()
        it.banned.add(members.identity("caller").peer_id)
        talk.ask(wire.hello_target())
        assert await talk.ended() == b""


async def test_disconnecting_a_member(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        talk.ask(wire.hello_target())
        await talk.answer()
        assert it.server.disconnect(PeerId("0" * 64)) == 0
        assert it.server.disconnect(members.identity("caller").peer_id) == 1
        assert await talk.ended() == b""


@pytest.mark.usefixtures("hasty")
async def test_slowloris(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    """A head that never ends is cut off however steadily it drips."""
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        talk.ask(wire.hello_target())
        await talk.answer()
        talk.say(b"GET /nearfetch/1/hello HTTP/1.1\r\n")
        ending = asyncio.get_running_loop().time() + 5
        while it.server.connected and asyncio.get_running_loop().time() < ending:
            talk.say(b"A")
            await asyncio.sleep(0.02)
        assert it.server.connected == 0


@pytest.mark.usefixtures("hasty")
async def test_silent_connections_are_closed(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    """Before the handshake, before the first request, and between requests."""
    async with serving(members, workers) as it:
        async with talking(it.address, None) as half_open, talking(it.address, caller) as mute:
            assert await half_open.ended() == b""
            assert await mute.ended() == b""
        async with talking(it.address, caller) as idle:
            idle.ask(wire.hello_target())
            await idle.answer()
            assert await idle.ended() == b""
        await until(lambda: it.server.connected == 0)
        assert it.server.counters.refusals[0].reason == "no handshake within 0.3 s"


@pytest.mark.usefixtures("hasty")
async def test_a_reader_that_does_not_read_is_dropped(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    limits = AdmissionLimits(rate_window_s=0.4)
    async with serving(members, workers, limits) as it, talking(it.address, caller) as talk:
        it.store.add(A, noise(16 * CHUNK))
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(8):  # 32 MiB: more than the kernel takes
            talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK - 1))
        await until(lambda: it.server.counters.slow_readers == 1)
        await until(lambda: it.server.connected == 0)
        assert it.admission.in_flight == 0


async def test_a_caller_that_vanishes_gives_its_slot_back(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    async with serving(members, workers) as it:
        it.store.add(A, noise(16 * CHUNK))
        async with talking(it.address, caller) as talk:
            talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(8):
                talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK - 1))
            await until(lambda: it.admission.in_flight == 1)
        await until(lambda: it.admission.in_flight == 0 and it.admission.connections == 0)


async def test_above_the_slots_one_comes_back_later(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    async with (
        serving(members, workers, AdmissionLimits(slots=1)) as it,
        talking(it.address, caller) as first,
        talking(it.address, caller) as second,
    ):
        it.store.add(A, noise(CHUNK))
        it.store.check_may_go_on.clear()
        first.ask(wire.bytes_target(A), span(0, 9))
        await until(lambda: it.admission.in_flight == 1)
        second.ask(wire.bytes_target(A), span(0, 9))
        head, _ = await second.answer()
        assert (head.status, head.retry_after_s) == (503, 1.0)
        it.store.check_may_go_on.set()
        assert (await first.answer())[0].status == 206
        second.ask(wire.bytes_target(A), span(0, 9))
        assert (await second.answer())[0].status == 206


async def test_so_many_connections_a_peer(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    assert AdmissionLimits().connections_per_peer == CONNECTIONS_A_PEER + STREAMS_A_PEER
    async with serving(members, workers, AdmissionLimits(connections_per_peer=4)) as it:
        async with (
            talking(it.address, caller) as one,
            talking(it.address, caller),
            talking(it.address, caller),
            talking(it.address, caller),
            talking(it.address, caller) as five,
        ):
            assert await five.ended() == b""
            assert it.server.counters.refusals[0].reason == "too many connections of this peer"
            one.ask(wire.hello_target())
            assert (await one.answer())[0].status == 200
        await until(lambda: it.admission.connections == 0)


async def test_half_open_connections_are_capped(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers, AdmissionLimits(half_open_per_address=8)) as it:
        flood = [await asyncio.open_connection(it.address.host, it.address.port) for _ in range(100)]
        await until(lambda: it.server.counters.refused == 92)
        assert it.server.connected == 8
        for _, writer in flood:
            writer.transport.abort()
        await until(lambda: it.admission.connections == 0)
        async with talking(it.address, caller) as talk:
            talk.ask(wire.hello_target())
            assert (await talk.answer())[0].status == 200


async def test_chunks_are_checked_before_their_first_use_only(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        data = noise(2 * CHUNK)
        it.store.add(A, data)
        for _ in range(3):
            talk.ask(wire.bytes_target(A), span(0, 2 * CHUNK - 1))
            assert (await talk.answer())[1] == data
        assert it.store.checks == 1


async def test_a_check_that_fails_ends_one_connection(
    members: Members, workers: Workers, caller: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, noise(CHUNK))
        it.store.check_may_go_on.clear()
        talk.ask(wire.bytes_target(A), span(0, 9))
        await until(lambda: it.store.checks == 1)
        del it.store.items[A]  # ensure_checked will raise KeyError: a bug of the store
        it.store.check_may_go_on.set()
        assert await talk.ended() == b""
        await until(lambda: it.admission.in_flight == 0)
        async with talking(it.address, caller) as other:
            other.ask(wire.hello_target())
            assert (await other.answer())[0].status == 200
    assert "work on the cache for a peer failed" in caplog.text
    caplog.clear()


async def test_content_withdrawn_on_the_way_is_cut_off(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        item = it.store.add(A, noise(16 * CHUNK))
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(8):
            talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK - 1))
        talk.ask(wire.hello_target(), "Connection: close")  # should it be withdrawn between two of them

        def in_the_middle() -> bool:
            sending = next(iter(it.server._connections))._sending
            return sending is not None and sending.blocked and sending.position < sending.stop

        await until(in_the_middle)
        item.checked = item.have = bitfield([])
        talk.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = await talk.ended()
        assert len(received) < 8 * 16 * CHUNK
        while received:
            head, _, received = received.partition(b"\r\n\r\n")
            length = wire.parse_response_head(head + b"\r\n\r\n").length
            assert b"HTTP/1.1" not in received[:length], "nothing is said after a body that was cut off"
            received = received[length:]
        assert it.admission.in_flight == 0


async def test_what_is_replaced_on_the_way_is_cut_off(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    """It was withdrawn and is there again, right this time: its bytes are none that the head's vouchers are for."""
    forger, signer = members.identity("forger"), members.identity("signer")
    old, new = noise(16 * CHUNK), noise(16 * CHUNK)
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, old).vouchers[ChunkIndex(5)] = (forger.vouch(A, ChunkIndex(5), bytes(32)),)
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(8):
            talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK - 1))

        def in_the_middle() -> bool:
            sending = next(iter(it.server._connections))._sending
            return sending is not None and sending.blocked and 0 < sending.position < sending.stop

        await until(in_the_middle)
        item = it.store.add(A, new)
        item.checked, item.vouchers[ChunkIndex(5)] = item.have, (signer.vouch(A, ChunkIndex(5), bytes(32)),)
        talk.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = await talk.ended()
        assert received
        while received:
            head, _, received = received.partition(b"\r\n\r\n")
            length = wire.parse_response_head(head + b"\r\n\r\n").length
            body, received = received[:length], received[length:]
            assert old.startswith(body)
        assert it.admission.in_flight == 0


async def test_a_cold_disk_is_read_in_a_thread(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        data = noise(6 * CHUNK)
        it.store.add(A, data)
        read, threads = it.store.read, set()

        def cold(name: object, item: ByteRange) -> bytes:
            threads.add(threading.current_thread().name)
            time.sleep(2 * serving_module.COLD_S)
            return read(A, item)

        it.store.read = cold  # type: ignore[method-assign, assignment]
        talk.ask(wire.bytes_target(A), span(0, 6 * CHUNK - 1))
        assert (await talk.answer())[1] == data
        assert any("worker" in name for name in threads)


async def test_the_upload_limit_holds(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    limits = AdmissionLimits(upload_rate=2_000_000)
    async with serving(members, workers, limits) as it, talking(it.address, caller) as talk:
        data = noise(8 * CHUNK)
        it.store.add(A, data)
        began = time.monotonic()
        talk.ask(wire.bytes_target(A), span(0, len(data) - 1))
        assert (await talk.answer())[1] == data
        took = time.monotonic() - began
        assert took > (len(data) - 500_000 - 2 * CHUNK) / 2_000_000


async def test_a_port_in_use_is_one_clear_error(members: Members, workers: Workers) -> None:
    async with serving(members, workers) as it:
        other = PeerServer(
            it.identity,
            it.store,
            Admission(AdmissionLimits()),
            workers,
            lambda _: None,
            lambda _: False,
            lambda _: None,
        )
        with pytest.raises(ListenError, match=f"port {it.address.port}"):
            await other.start("127.0.0.1", it.address.port)
        await other.close()


async def test_closing_ends_everybody(members: Members, workers: Workers, caller: ssl.SSLContext) -> None:
    async with (
        serving(members, workers) as it,
        talking(it.address, caller) as talk,
        talking(it.address, None) as raw,
    ):
        it.store.add(A, noise(CHUNK))
        it.store.check_may_go_on.clear()
        talk.ask(wire.bytes_target(A), span(0, 9))
        await until(lambda: it.store.checks == 1)
        await it.server.close()
        assert await talk.ended() == b""
        assert await raw.ended() == b""
        assert (it.admission.connections, it.admission.in_flight, it.server.connected) == (0, 0, 0)
        await it.server.close()


async def test_it_serves_the_real_cache(
    members: Members, workers: Workers, caller: ssl.SSLContext, tmp_path: Path
) -> None:
    data = noise(CHUNK + 10)
    source = tmp_path / "source"
    source.write_bytes(data)
    layout = ChunkLayout(length=len(data), chunk_bytes=CHUNK)
    cache = await PeerCache.open(tmp_path / "cache", CacheLimits(max_bytes=1 << 30), workers, time.time)
    me = members.identity("server")
    digest = chunk_digest(data[:CHUNK])
    voucher = me.vouch(A, ChunkIndex(0), digest)
    fd = os.open(source, os.O_RDONLY)
    try:
        new = NewChunk(
            content_ids=(A,), layout=layout, chunk=ChunkIndex(0), digest=digest, vouchers=(voucher,), source_fd=fd
        )
        await cache.add_chunk(new)
        server = PeerServer(
            me, cache, Admission(AdmissionLimits()), workers, lambda _: None, lambda _: False, lambda _: None
        )
        port = await server.start(None, 0)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=caller)
            writer.write(wire.format_request(wire.bytes_target(A), None, ByteRange(0, CHUNK)))
            head = wire.parse_response_head(await reader.readuntil(b"\r\n\r\n"))
            assert await reader.readexactly(head.length) == data[:CHUNK]
            assert voucherwire.parse_vouchers(head.headers["nearfetch-vouchers"], A) == (voucher,)
            writer.write(wire.format_request(wire.bytes_target(A), None, ByteRange(CHUNK, CHUNK + 10)))
            assert wire.parse_response_head(await reader.readuntil(b"\r\n\r\n")).status == 404
            writer.transport.abort()
        await server.close()
    finally:
        os.close(fd)
        await cache.close()


async def test_what_is_served_is_held_until_its_end(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    """However it ends; and whoever let go last sweeps, when that is wanted."""
    async with serving(members, workers) as it:
        it.store.add(A, noise(16 * CHUNK))
        for ends_well in (True, False):
            it.store.wants_sweeping = True
            async with talking(it.address, caller) as talk:
                talk.ask(wire.bytes_target(A), span(0, 16 * CHUNK - 1))
                await talk.reader.readexactly(1)
                assert it.store.held == 1
                if ends_well:
                    await talk.reader.readexactly(16 * CHUNK)
            await until(lambda: it.store.held == 0 and not it.store.wants_sweeping)


async def test_a_record_is_busy_while_it_is_served_and_cleared_after_it(
    members: Members, workers: Workers, caller: ssl.SSLContext, tmp_path: Path
) -> None:
    """BITS: BUSYCACHERECORD; records in use go after the activity ends."""
    data = noise(16 * CHUNK)
    layout = ChunkLayout(length=len(data), chunk_bytes=CHUNK)
    source = tmp_path / "source"
    source.write_bytes(data)
    cache = await PeerCache.open(tmp_path / "cache", CacheLimits(max_bytes=1 << 30), workers, time.time)
    with source.open("rb") as file:
        for chunk in map(ChunkIndex, range(layout.count)):
            item = layout.range_of(chunk)
            digest = chunk_digest(data[item.start : item.stop])
            await cache.add_chunk(
                NewChunk(
                    content_ids=(A,),
                    layout=layout,
                    chunk=chunk,
                    digest=digest,
                    vouchers=(),
                    source_fd=file.fileno(),
                )
            )
    server = PeerServer(
        members.identity("server"),
        cache,
        Admission(AdmissionLimits()),
        workers,
        lambda _: None,
        lambda _: False,
        lambda _: None,
    )
    address = PeerAddress(members.identity("server").peer_id, "127.0.0.1", await server.start("127.0.0.1", 0))
    async with talking(address, caller) as talk, talking(address, caller) as other:
        talk.ask(wire.bytes_target(A), span(0, len(data) - 1))
        head = wire.parse_response_head(await talk.reader.readuntil(b"\r\n\r\n"))
        assert await cache.delete(A) is Deletion.BUSY
        assert await cache.clear() == 1
        other.ask(wire.bytes_target(A), span(0, 0))
        assert (await other.answer())[0].status == 404
        assert await talk.reader.readexactly(head.length) == data
    await until(lambda: not list((tmp_path / "cache" / "objects").iterdir()))
    await server.close()
    await cache.close()


async def test_a_server_that_is_switched_off_has_nothing(
    members: Members, workers: Workers, caller: ssl.SSLContext
) -> None:
    """For members it is there as before; and what was being sent is sent to its end."""
    data = noise(16 * CHUNK)
    async with serving(members, workers) as it, talking(it.address, caller) as talk:
        it.store.add(A, data)
        talk.ask(wire.bytes_target(A), span(0, len(data) - 1))
        head = wire.parse_response_head(await talk.reader.readuntil(b"\r\n\r\n"))
        it.server.serving = False
        assert await talk.reader.readexactly(head.length) == data
        for target, status in (
            (wire.bytes_target(A), 404),
            (wire.offer_target(A), 404),
            (wire.hello_target(), 200),
        ):
            talk.ask(target, span(0, 0))
            assert (await talk.answer())[0].status == status
        it.server.serving = True
        talk.ask(wire.offer_target(A))
        assert (await talk.answer())[0].status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_with_a_certificate_can_talk_to_it(members: Members, workers: Workers, tmp_path: Path) -> None:
    me = members.identity("curl")
    (tmp_path / "ca.pem").write_bytes(authority_of(members.key).certificates[0].public_bytes(Encoding.PEM))
    data = noise(3 * CHUNK)
    async with serving(members, workers) as it:
        it.store.add(A, data)
        # the certificate names a peer id, not a host: curl is told to take that for granted
        identity = tmp_path / "curl" / "identity"
        arguments = ["-sS", "--insecure", "--cacert", str(tmp_path / "ca.pem"), "--max-time", "10"]
        arguments += ["--cert", str(identity / "certificate.pem"), "--key", str(identity / "key.pem")]
        url = f"https://127.0.0.1:{it.address.port}"
        process = await asyncio.create_subprocess_exec(
            "curl", *arguments, "-r", f"5-{2 * CHUNK}", url + wire.bytes_target(A), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert output == data[5 : 2 * CHUNK + 1]
        assert [call.peer_id for call in it.callers] == [me.peer_id]


def test_one_buffer_serves_all_connections() -> None:
    assert channel._raw_buffer() is channel._raw_buffer()
