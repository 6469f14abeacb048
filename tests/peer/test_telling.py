"""News over real TLS on loopback, as a server tells them: what comes when, to how many, and what ends it."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from peer import offers as offers_module
from peer import server as server_module
from peer import serving as serving_module
from peer.core import news as news_module
from peer.core import wire
from peer.core.news import PAUSE_S
from peer.server import Claim
from peer.workers import Workers
from tests.support.peers import (
    CHUNK,
    WAIT_S,
    Members,
    NewsTalk,
    Serving,
    Talk,
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
LONG = ("Nearfetch-Wait: 30",)
"""Longer than any test may take: what is said was not said for the time's sake."""
PROMPT_S = 3.0
"""What is said at once, on a machine that is very busy; far less than the waits here."""


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


async def listeners(it: Serving, count: int) -> None:
    await until(lambda: it.server.listening == count)


# what is told when


async def test_what_is_offered_is_what_is_told_first(it: Serving, caller: ssl.SSLContext) -> None:
    """Not what is claimed of another layout than what is held."""
    it.store.add(A, noise(4 * CHUNK), have=bitfield([1]))
    claim(it, 2)
    async with talking(it.address, caller) as talk, talking(it.address, caller) as listener:
        talk.ask(wire.offer_target(A))
        head, body = await talk.answer()
        offer = wire.parse_offer(body)
        assert head.status == 200
        assert (offer.have_chunks, offer.claimed_chunks, offer.wants) == (bitfield([1]), bitfield([2]), True)
        stream = await listener.listen(A)
        told = await stream.next()
        assert told is not None
        assert (told.layout, told.have, told.claimed, told.wants) == (FOUR, bitfield([1]), bitfield([2]), True)
        claim(it, 2, layout=ChunkLayout(length=9 * CHUNK, chunk_bytes=CHUNK))
        told = await stream.next()
        assert told is not None
        assert (told.have, told.claimed, told.wants) == (bitfield([1]), NO_CHUNKS, False)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: claim(it, 1, 2),
        lambda it: claim(it, 1, wants=False),
        lambda it: (it.store.add(A, noise(4 * CHUNK), bitfield([3])), it.server.changed(A)),
    ],
    ids=["claims", "wants", "has"],
)
async def test_changes_are_told(it: Serving, caller: ssl.SSLContext, change: Callable[[Serving], object]) -> None:
    """And nothing else, whoever says that something might have changed."""
    claim(it, 1)
    async with talking(it.address, caller) as talk:
        stream = await talk.listen(A, headers=LONG)
        before = await stream.next()
        it.server.changed(A)
        it.server.changed(B)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        began = time.monotonic()
        change(it)
        after = await stream.next()
        assert after not in (before, None)
        assert b"still" not in stream.last
        assert time.monotonic() - began < PROMPT_S


async def test_what_nobody_has_may_be_listened_for(it: Serving, caller: ssl.SSLContext) -> None:
    async with talking(it.address, caller) as talk:
        stream = await talk.listen(A, headers=LONG)
        assert await stream.next() is None
        claim(it)
        told = await stream.next()
        assert told is not None
        assert told.wants
        assert it.asked == [(it.callers[0].peer_id, A)]


async def test_what_goes_away_is_news_too(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as talk:
        stream = await talk.listen(A, headers=LONG)
        assert await stream.next() is not None
        del it.claims[A]
        it.server.changed(A)
        assert await stream.next() is None


async def test_a_server_that_is_switched_off_says_so(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as talk:
        stream = await talk.listen(A, headers=LONG)
        assert await stream.next() is not None
        it.server.serving = False
        assert await stream.next() is None
        it.server.serving = True
        assert await stream.next() is not None


async def test_silence_has_a_limit(it: Serving, caller: ssl.SSLContext) -> None:
    claim(it)
    async with talking(it.address, caller) as first, talking(it.address, caller) as second:
        one = await first.listen(A, headers=["Nearfetch-Wait: 1"])
        two = await second.listen(B, headers=["Nearfetch-Wait: 1"])
        state = await one.next()
        assert await two.next() is None
        began = time.monotonic()
        assert await one.next() == state
        assert await two.next() is None
        assert (b"still" in one.last, b"still" in two.last) == (True, True)
        assert 0.9 < time.monotonic() - began < 1.0 + PROMPT_S
        claim(it, 3)
        told = await one.next()
        assert told is not None
        assert told.claimed == bitfield([3])


async def test_many_changes_make_few_messages(it: Serving, caller: ssl.SSLContext) -> None:
    """Never two within PAUSE_S, none is lost, and the last one comes."""
    layout = ChunkLayout(length=400 * CHUNK, chunk_bytes=CHUNK)
    claim(it, layout=layout)
    heard: list[float] = []

    async def hear(stream: NewsTalk) -> None:
        while True:
            told = await stream.next()
            heard.append(time.monotonic())
            assert told is not None
            if told.claimed.bit_count() == 100:
                return

    async with talking(it.address, caller) as talk, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(hear(await talk.listen(A, headers=LONG)))
        for count in range(1, 101):
            claim(it, *range(count), layout=layout)
            await asyncio.sleep(0.005)
        async with asyncio.timeout(WAIT_S):
            await listening
    assert len(heard) >= 3
    pauses = [later - earlier for earlier, later in itertools.pairwise(heard)]
    assert sum(pauses) / len(pauses) > PAUSE_S * 0.95, "a single one may be short by what the first was late"


async def test_long_messages_come_less_often(it: Serving, caller: ssl.SSLContext) -> None:
    layout = ChunkLayout(length=16384 * CHUNK, chunk_bytes=CHUNK)
    claim(it, layout=layout)
    async with talking(it.address, caller) as talk:
        stream = await talk.listen(A, headers=LONG)
        await stream.next()
        began = time.monotonic()
        claim(it, 1, layout=layout)
        told = await stream.next()
        assert told is not None
        assert told.claimed == bitfield([1])
        assert time.monotonic() - began > PAUSE_S * 1.2, "the first one had 6 KiB"
        assert len(stream.last) < 100, "this one has only what is new"


async def test_the_first_id_by_which_it_is_known_counts(it: Serving, caller: ssl.SSLContext) -> None:
    async with talking(it.address, caller) as talk:
        stream = await talk.listen(A, B, headers=LONG)
        assert await stream.next() is None
        claim(it, 1, content=B)
        assert (await stream.next(), stream.news.of) != (None, 0)
        assert stream.news.of == 1
        claim(it, 1, content=A)
        state = await stream.next()
        assert state is not None
        assert (state.claimed, stream.news.of) == (bitfield([1]), 0)
        del it.claims[A]
        it.server.changed(A)
        assert await stream.next() == state
        assert stream.news.of == 1
        assert sorted(content for _, content in it.asked) == sorted([A, B])


# what stays bounded


@asynccontextmanager
async def listening(it: Serving, contexts: list[ssl.SSLContext]) -> AsyncIterator[list[tuple[Talk, NewsTalk]]]:
    """A stream of what nobody has for each of these."""
    async with AsyncExitStack() as stack:
        talks = []
        for context in contexts:
            talk = await stack.enter_async_context(talking(it.address, context))
            talks.append((talk, await talk.listen(A, headers=LONG)))
            assert await talks[-1][1].next() is None
        yield talks


async def test_one_peer_has_eight(it: Serving, members: Members, caller: ssl.SSLContext) -> None:
    """Another stream ends with what there is to say, and its connection is good for more."""
    other = members.identity("other").client_context()
    async with (
        listening(it, [caller] * 8),
        talking(it.address, caller) as ninth,
        talking(it.address, other) as first,
    ):
        stream = await ninth.listen(A, headers=LONG)
        assert await stream.next() is None
        await stream.next()
        assert stream.news.ended
        ninth.ask(wire.hello_target())
        assert (await ninth.answer())[0].status == 200
        await (await first.listen(A, headers=LONG)).next()
        assert it.server.listening == 9


async def test_all_together_have_so_many(
    it: Serving, members: Members, caller: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers_module, "LISTENERS", 2)
    other = members.identity("other").client_context()
    async with listening(it, [caller, caller]) as streams, talking(it.address, other) as third:
        stream = await third.listen(A, headers=LONG)
        assert await stream.next() is None
        await stream.next()
        assert stream.news.ended
        claim(it)
        for _, each in streams:
            assert await each.next() is not None


async def test_who_does_not_read_is_cut_off(
    it: Serving, caller: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little is kept for it meanwhile: what it has not read is told once, as it is then."""
    monkeypatch.setattr(news_module, "BYTES_PER_S", 1 << 40)
    monkeypatch.setattr(news_module, "LEAST_S", 0.0)
    layout = ChunkLayout(length=65536 * CHUNK, chunk_bytes=CHUNK)
    claim(it, layout=layout)
    async with talking(it.address, caller) as talk:
        talk.ask(wire.news_target([A]), "Nearfetch-Wait: 1")
        await listeners(it, 1)
        talk.writer.transport.pause_reading()
        (connection,) = it.server._connections
        most, wants = 0, True
        began = time.monotonic()
        while it.server.listening:
            wants = not wants
            it.claims[A] = Claim(
                layout=ChunkLayout(length=layout.length - wants, chunk_bytes=CHUNK), chunks=NO_CHUNKS, wants=wants
            )
            it.server.changed(A)
            await asyncio.sleep(0.001)
            transport = connection.channel._transport
            most = max(most, 0 if transport is None else transport.get_write_buffer_size())
            assert time.monotonic() - began < WAIT_S
    assert 64 * 1024 < most < 512 * 1024
    await until(lambda: it.server.connected == 0)


async def test_listening_is_neither_idle_nor_slow(
    members: Members, workers: Workers, caller: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(serving_module, "IDLE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(server_module, "LOOK_S", 0.05)
    async with serving(members, workers) as it, listening(it, [caller, caller]) as ((_, patient), (talk, rude)):
        talk.say(b"GET /nearfetch/1/he")
        await asyncio.sleep(0.5)
        assert it.server.listening == 2
        claim(it)
        for stream in (patient, rude):
            assert await stream.next() is not None


async def test_another_request_ends_it(it: Serving, caller: ssl.SSLContext) -> None:
    """The connection goes on with that one; when it is none, with its refusal."""
    async with listening(it, [caller, caller]) as ((talk, stream), (rude, other)):
        talk.ask(wire.hello_target())
        await stream.next()
        assert stream.news.ended
        assert (await talk.answer())[0].status == 200
        rude.say(b"nonsense\r\n\r\n")
        await other.next()
        assert other.news.ended
        assert (await rude.answer())[0].status == 400
        assert it.server.listening == 0
        again = await talk.listen(A, headers=LONG)
        assert await again.next() is None


async def test_who_vanishes_listens_no_more(it: Serving, caller: ssl.SSLContext) -> None:
    async with listening(it, [caller, caller]):
        pass
    await listeners(it, 0)
    claim(it)
    await until(lambda: it.admission.connections == 0)


async def test_who_is_cut_off_listens_no_more(it: Serving, members: Members, caller: ssl.SSLContext) -> None:
    async with listening(it, [caller, caller]) as streams:
        assert it.server.disconnect(members.identity("caller").peer_id) == 2
        await listeners(it, 0)
        assert [await talk.ended() for talk, _ in streams] == [b"", b""]
        claim(it)


async def test_closing_the_server_ends_all(it: Serving, caller: ssl.SSLContext) -> None:
    async with listening(it, [caller, caller]) as streams:
        await it.server.close()
        assert (it.server.listening, it.admission.connections) == (0, 0)
        for talk, _ in streams:
            await talk.ended()
