"""Watched offers over real TLS on loopback: held questions on the server's side and on the client's."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from peer import call as call_module
from peer import offers as offers_module
from peer import server as server_module
from peer import serving as serving_module
from peer.client import PeerAddress, PeerClient
from peer.core import wire
from peer.core.failure import Failure, FailureKind
from peer.core.news import PAUSE_S
from peer.core.voucher import PeerId
from peer.core.wire import Offer
from peer.server import Claim
from peer.workers import Workers
from tests.support.networks import CONTENT, LAYOUT, Lan, publish
from tests.support.peers import (
    CHUNK,
    WAIT_S,
    Members,
    Serving,
    Talk,
    calling,
    content_id,
    noise,
    serving,
    silence,
    talking,
    until,
)
from validation.content import NO_CHUNKS, ChunkLayout, ContentId, bitfield

A, B = content_id("a"), content_id("b")
FOUR = ChunkLayout(length=4 * CHUNK, chunk_bytes=CHUNK)
LONG_S = 30.0
LONG = f"Nearfetch-Wait: {LONG_S:.0f}"
"""Longer than any test may take: what is answered was not answered for the time's sake."""
PROMPT_S = 3.0
"""What is answered at once, on a machine that is very busy; far less than the waits here."""


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


@pytest.fixture
async def it(members: Members, workers: Workers) -> AsyncIterator[Serving]:
    async with serving(members, workers) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with silence(caplog):
        yield


def claim(
    it: Serving, *chunks: int, wants: bool = True, layout: ChunkLayout = FOUR, content: ContentId = A
) -> None:
    """The server's agent is fetching these chunks, from now on."""
    it.claims[content] = Claim(layout=layout, chunks=bitfield(chunks), wants=wants)
    it.server.changed(content)


async def offered(talk: Talk) -> Offer:
    head, body = await talk.answer()
    assert head.status == 200
    return wire.parse_offer(body)


async def known(talk: Talk) -> int:
    """The version that is offered now."""
    talk.ask(wire.offer_target(A))
    return (await offered(talk)).version


async def holding(it: Serving, count: int = 1) -> None:
    await until(lambda: it.server.held == count)


# what is answered when


async def test_an_offer_says_that_its_sender_wants_the_content(it: Serving, caller: ssl.SSLContext) -> None:
    """Also with nothing held; and not when the claim is about another layout than what is held."""
    async with talking(it.address, caller) as talk:
        claim(it, 2)
        talk.ask(wire.offer_target(A))
        offer = await offered(talk)
        assert (offer.have_chunks, offer.claimed_chunks, offer.wants) == (NO_CHUNKS, bitfield([2]), True)
        it.store.add(A, noise(4 * CHUNK), have=bitfield([1]))
        talk.ask(wire.offer_target(A))
        both = await offered(talk)
        assert (both.have_chunks, both.claimed_chunks, both.wants) == (bitfield([1]), bitfield([2]), True)
        assert both.version > offer.version > 0
        claim(it, 2, layout=ChunkLayout(length=9 * CHUNK, chunk_bytes=CHUNK))
        talk.ask(wire.offer_target(A))
        other = await offered(talk)
        assert (other.have_chunks, other.claimed_chunks, other.wants) == (bitfield([1]), NO_CHUNKS, False)


async def test_an_answer_that_is_news_comes_at_once(it: Serving, caller: ssl.SSLContext) -> None:
    it.store.add(A, noise(CHUNK))
    async with talking(it.address, caller) as talk:
        version = await known(talk)
        began = time.monotonic()
        talk.ask(wire.watch_target(A, version + 1), LONG)
        assert (await offered(talk)).version == version, "nothing changed: the same number"
        talk.ask(wire.watch_target(A, version))  # no wait was asked for
        assert (await offered(talk)).version == version
        assert time.monotonic() - began < PROMPT_S


@pytest.mark.parametrize(
    "change",
    [
        lambda it: claim(it, 1, 2),
        lambda it: claim(it, 1, wants=False),
        lambda it: (it.store.add(A, noise(4 * CHUNK), bitfield([3])), it.server.changed(A)),
    ],
    ids=["claims", "wants", "has"],
)
async def test_a_question_is_held_until_something_changes(
    it: Serving, caller: ssl.SSLContext, change: Callable[[Serving], object]
) -> None:
    claim(it, 1)
    async with talking(it.address, caller) as talk:
        version = await known(talk)
        talk.ask(wire.watch_target(A, version), LONG)
        await holding(it)
        it.server.changed(A)  # as somebody may say who does not look
        it.server.changed(B)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert it.server.held == 1
        began = time.monotonic()
        change(it)
        assert (await offered(talk)).version > version
        assert time.monotonic() - began < PROMPT_S
        assert it.server.held == 0


async def test_what_nobody_has_may_be_waited_for(it: Serving, caller: ssl.SSLContext) -> None:
    async with talking(it.address, caller) as talk:
        talk.ask(wire.watch_target(A, wire.NOTHING), LONG)
        await holding(it)
        claim(it)
        assert (await offered(talk)).wants
        assert it.asked == [(it.callers[0].peer_id, A)]


async def test_what_goes_away_is_news_too(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as talk:
        talk.ask(wire.watch_target(A, await known(talk)), LONG)
        await holding(it)
        del it.claims[A]
        it.server.changed(A)
        assert (await talk.answer())[0].status == 404


async def test_a_server_that_is_switched_off_answers_at_once(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as talk:
        version = await known(talk)
        talk.ask(wire.watch_target(A, version), LONG)
        await holding(it)
        it.server.serving = False
        assert (await talk.answer())[0].status == 404
        talk.ask(wire.watch_target(A, wire.NOTHING), LONG)
        await holding(it)
        it.server.serving = True
        assert (await offered(talk)).version > version


async def test_when_the_time_is_over_it_says_what_it_said(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as first, talking(it.address, caller) as second:
        version = await known(first)
        began = time.monotonic()
        first.ask(wire.watch_target(A, version), "Nearfetch-Wait: 1")
        second.ask(wire.watch_target(B, wire.NOTHING), "Nearfetch-Wait: 1")
        assert (await offered(first)).version == version
        assert (await second.answer())[0].status == 404
        assert 0.95 < time.monotonic() - began < 1.0 + PROMPT_S
        assert it.server.held == 0


async def test_many_changes_make_few_answers(it: Serving, caller: ssl.SSLContext) -> None:
    """Never two within PAUSE_S, none is lost, and the last one comes."""
    layout = ChunkLayout(length=400 * CHUNK, chunk_bytes=CHUNK)
    claim(it, layout=layout)
    answers: list[float] = []

    async def watch(talk: Talk) -> None:
        last = wire.NOTHING
        while True:
            talk.ask(wire.watch_target(A, last), LONG)
            offer = await offered(talk)
            answers.append(time.monotonic())
            assert offer.version > last
            last = offer.version
            if offer.claimed_chunks.bit_count() == 100:
                return

    async with talking(it.address, caller) as talk, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch(talk))
        for count in range(1, 101):
            claim(it, *range(count), layout=layout)
            await asyncio.sleep(0.005)
        async with asyncio.timeout(WAIT_S):
            await watching
    assert len(answers) >= 3
    pauses = [later - earlier for earlier, later in itertools.pairwise(answers)]
    assert sum(pauses) / len(pauses) > PAUSE_S * 0.95, "a single one may be short by what the first was late"


async def test_large_offers_come_less_often(it: Serving, caller: ssl.SSLContext) -> None:
    layout = ChunkLayout(length=16384 * CHUNK, chunk_bytes=CHUNK)
    claim(it, layout=layout)
    async with talking(it.address, caller) as talk:
        talk.ask(wire.watch_target(A, wire.NOTHING), LONG)
        first, began = await offered(talk), time.monotonic()
        claim(it, 1, layout=layout)
        talk.ask(wire.watch_target(A, first.version), LONG)
        assert (await offered(talk)).claimed_chunks == bitfield([1])
        assert time.monotonic() - began > 0.3


# what stays bounded


@asynccontextmanager
async def waiting(it: Serving, contexts: list[ssl.SSLContext]) -> AsyncIterator[list[Talk]]:
    """A held question for each of these."""
    async with AsyncExitStack() as stack:
        talks = []
        for count, context in enumerate(contexts, 1):
            talks.append(await stack.enter_async_context(talking(it.address, context)))
            talks[-1].ask(wire.watch_target(A, wire.NOTHING), LONG)
            await holding(it, count)
        yield talks


async def test_one_peer_holds_eight(it: Serving, members: Members, caller: ssl.SSLContext) -> None:
    other = members.identity("other").client_context()
    async with waiting(it, [caller] * 8), talking(it.address, caller) as ninth, talking(it.address, other) as first:
        began = time.monotonic()
        ninth.ask(wire.watch_target(A, wire.NOTHING), LONG)
        assert (await ninth.answer())[0].status == 404
        assert time.monotonic() - began < PROMPT_S
        first.ask(wire.watch_target(A, wire.NOTHING), LONG)
        await holding(it, 9)


async def test_all_together_hold_so_many(
    it: Serving, members: Members, caller: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers_module, "WAITERS", 2)
    other = members.identity("other").client_context()
    async with waiting(it, [caller, caller]) as talks, talking(it.address, other) as third:
        third.ask(wire.watch_target(A, wire.NOTHING), LONG)
        assert (await third.answer())[0].status == 404
        claim(it)
        for talk in talks:
            assert (await offered(talk)).wants
        third.ask(wire.watch_target(B, wire.NOTHING), LONG)
        await holding(it)


async def test_a_wrong_version_is_no_way_to_ask_faster(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as talk:
        began = time.monotonic()
        for number in range(4):
            talk.ask(wire.watch_target(A, number), LONG)
        for _ in range(4):
            await offered(talk)
        assert time.monotonic() - began > 3 * PAUSE_S * 0.95


async def test_contents_are_remembered_within_bounds(
    it: Serving, caller: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers_module, "OFFERS_KEPT", 3)
    async with talking(it.address, caller) as talk:
        for number in range(20):
            it.store.add(content_id(f"{number}"), noise(CHUNK))
            talk.ask(wire.offer_target(content_id(f"{number}")))
            await offered(talk)
            talk.ask(wire.offer_target(content_id(f"unknown {number}")))
            await talk.answer()
    assert len(it.server._offers._said) == 3


async def test_held_is_neither_idle_nor_slow(
    members: Members, workers: Workers, caller: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But idle again once it was answered, and never a way to send half a head for long."""
    monkeypatch.setattr(serving_module, "HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(serving_module, "IDLE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(server_module, "LOOK_S", 0.05)
    async with serving(members, workers) as it, waiting(it, [caller, caller]) as (patient, rude):
        rude.say(b"GET /nearfetch/1/he")
        await asyncio.sleep(0.5)
        assert it.server.held == 2
        claim(it)
        for talk in (patient, rude):
            assert (await offered(talk)).wants
            assert await talk.ended() == b""


async def test_requests_behind_a_held_one_wait_for_it(it: Serving, caller: ssl.SSLContext) -> None:
    """However many: what does not fit into one head's room is not read."""
    async with waiting(it, [caller]) as (talk,):
        for _ in range(4000):
            talk.ask(wire.hello_target())
        (connection,) = it.server._connections
        await until(lambda: connection._filled == wire.HEAD_LIMIT)
        claim(it)
        assert (await offered(talk)).wants
        for _ in range(4000):
            assert (await talk.answer())[0].status == 200


async def test_who_vanishes_waits_no_more(it: Serving, caller: ssl.SSLContext) -> None:
    async with waiting(it, [caller, caller]):
        pass
    await holding(it, 0)
    claim(it)
    await until(lambda: it.admission.connections == 0)


async def test_who_is_cut_off_waits_no_more(it: Serving, members: Members, caller: ssl.SSLContext) -> None:
    async with waiting(it, [caller, caller]) as talks:
        assert it.server.disconnect(members.identity("caller").peer_id) == 2
        await holding(it, 0)
        assert [await talk.ended() for talk in talks] == [b"", b""]
        claim(it)


async def test_closing_the_server_ends_what_is_held(it: Serving, caller: ssl.SSLContext) -> None:
    async with waiting(it, [caller, caller]) as talks:
        await it.server.close()
        assert (it.server.held, it.admission.connections) == (0, 0)
        for talk in talks:
            await talk.ended()


# the client's side


@pytest.fixture
async def client(members: Members, workers: Workers) -> AsyncIterator[PeerClient]:
    async with calling(members, workers) as made:
        yield made


async def test_the_client_watches_on_one_connection_of_its_own(
    it: Serving, client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an answer takes usually."""
    monkeypatch.setattr(call_module, "HEAD_TIMEOUT_S", 0.5)
    assert await client.watch(it.address, A, None, 0.0) is None
    assert await client.watch(it.address, A, wire.NOTHING, 0.0) is None
    assert await client.watch(it.address, A, wire.NOTHING, 1.0) is None
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(client.watch(it.address, A, wire.NOTHING, 60.0))
        await holding(it)
        claim(it, 3)
    first = watching.result()
    assert isinstance(first, Offer)
    assert (first.wants, first.claimed_chunks) == (True, bitfield([3]))
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(client.watch(it.address, A, first.version, LONG_S))
        await holding(it)
        await client.offer(it.address, A)
        claim(it, 2)
    second = watching.result()
    assert isinstance(second, Offer)
    assert second.version > first.version
    assert len(it.callers) == 2, "one for the watch, one for the offer"


async def test_the_client_asks_at_once_what_it_cannot_hold(it: Serving, client: PeerClient) -> None:
    async with asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(client.watch(it.address, A, wire.NOTHING, LONG_S)) for _ in range(8)]
        await holding(it, 8)
        assert await client.watch(it.address, A, wire.NOTHING, LONG_S) is None
        claim(it)
    assert all(isinstance(task.result(), Offer) for task in held)


async def test_a_watched_peer_that_goes_away_is_noticed(it: Serving, client: PeerClient) -> None:
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(client.watch(it.address, A, wire.NOTHING, LONG_S))
        await holding(it)
        client.disconnect(it.identity.peer_id)
    gone = watching.result()
    assert isinstance(gone, Failure)
    assert gone.kind is FailureKind.CONNECTION_CLOSED
    await until(lambda: it.server.held == 0)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(client.watch(it.address, A, wire.NOTHING, LONG_S))
        await holding(it)
        await client.close()
    assert isinstance(watching.result(), Failure)


async def test_cancelling_a_watch_ends_its_connection(it: Serving, client: PeerClient) -> None:
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(client.watch(it.address, A, wire.NOTHING, LONG_S))
        await holding(it)
        watching.cancel()
    await until(lambda: it.server.held == 0 and it.server.connected == 0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", FailureKind.STALLED),
        (wire.format_response(400), FailureKind.HTTP_FATAL),
        (wire.format_response(200, b"{}"), FailureKind.BAD_RESPONSE),
        (wire.format_response(206, b"{}"), FailureKind.BAD_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", FailureKind.BAD_RESPONSE),
    ],
)
async def test_wrong_answers(
    members: Members, client: PeerClient, monkeypatch: pytest.MonkeyPatch, answer: bytes, kind: FailureKind
) -> None:
    """Silence too comes to an end: what was asked for, and the usual."""
    monkeypatch.setattr(call_module, "HEAD_TIMEOUT_S", 0.2)
    me = members.identity("hostile")

    async def answer_so(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(answer_so, "127.0.0.1", 0, ssl=me.server_context())
    async with server:
        host, port = server.sockets[0].getsockname()
        address = PeerAddress(me.peer_id, host, port)
        async with asyncio.timeout(WAIT_S):
            failure = await client.watch(address, A, 1, 1.0)
        assert isinstance(failure, Failure)
        assert failure.kind is kind
        client.disconnect(me.peer_id)


# networks


async def test_news_of_the_cache_and_of_claims_reach_who_watches(lan: Lan, tmp_path: Path) -> None:
    claims: dict[ContentId, Claim] = {}
    ann = await lan.start_beside("ann", claims=claims.get)
    ben = await lan.start_beside("ben", ann)

    async def next_offer(after: int, change: Callable[[], Awaitable[object]]) -> Offer | Failure | None:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(ben.network.watch(ann.id, CONTENT, after, LONG_S))
            await until(lambda: ann.network._server.held == 1)
            await change()
        return watching.result()

    async def begin() -> None:
        claims[CONTENT] = Claim(layout=LAYOUT, chunks=bitfield([1]))
        ann.network.changed(CONTENT)

    async def end() -> None:
        claims.clear()
        await ann.cache.withdraw(CONTENT)

    began = time.monotonic()
    offer = await next_offer(wire.NOTHING, begin)
    assert isinstance(offer, Offer)
    assert (offer.wants, offer.claimed_chunks) == (True, bitfield([1]))
    offer = await next_offer(offer.version, lambda: publish(ann, tmp_path))
    assert isinstance(offer, Offer)
    assert offer.have_chunks
    whole = await ben.network.offer(ann.id, CONTENT)
    assert isinstance(whole, Offer)
    assert whole.have_chunks == LAYOUT.everything
    assert await next_offer(whole.version, end) is None
    assert time.monotonic() - began < 8


async def test_one_may_listen_for_who_asks(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    callers: list[PeerId] = []
    end = ann.network.listen([CONTENT, A], callers.append)
    end_other = ann.network.listen([CONTENT], callers.append)
    for content in (A, B, CONTENT):
        await ben.network.watch(ann.id, content, None, 0.0)
    assert callers == [ben.id] * 3
    end()
    await ben.network.offer(ann.id, CONTENT)
    assert callers == [ben.id] * 4
    end_other()
    assert ann.network._listening == {}


async def test_who_is_banned_watches_no_more(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(ben.network.watch(ann.id, CONTENT, wire.NOTHING, LONG_S))
        await until(lambda: ann.network._server.held == 1)
        ann.network.ban(ben.id, "", 60.0)
    assert isinstance(watching.result(), Failure)
    assert ann.network._server.held == 0
    gone = await ann.network.watch(ben.id, CONTENT, None, 0.0)
    assert isinstance(gone, Failure)
    assert gone.kind is FailureKind.NOT_TRUSTED
