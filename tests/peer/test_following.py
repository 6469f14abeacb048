"""News over real TLS on loopback, as a client follows them: what it hears, when it gives up, whom it slows down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from peer import call as call_module
from peer import client as client_module
from peer.client import PeerAddress, PeerClient
from peer.core import wire
from peer.core.failure import Failure, FailureKind
from peer.core.newswire import STREAM_END, STREAM_HEAD, format_news
from peer.core.state import State
from peer.core.voucher import PeerId
from peer.following import NEWS_AT_ONCE
from peer.server import Claim
from peer.workers import Workers
from tests.support.networks import CONTENT, LAYOUT, Lan, publish
from tests.support.peers import CHUNK, WAIT_S, Members, Serving, calling, content_id, serving, silence, until
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout, ContentId, bitfield

A, B = content_id("a"), content_id("b")
FOUR = ChunkLayout(length=4 * CHUNK, chunk_bytes=CHUNK)
LONG_S = 30
STILL = format_news(None, None, 0)


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path)


@pytest.fixture
async def it(members: Members, workers: Workers) -> AsyncIterator[Serving]:
    async with serving(members, workers) as made:
        yield made


@pytest.fixture
async def client(members: Members, workers: Workers) -> AsyncIterator[PeerClient]:
    async with calling(members, workers) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with silence(caplog):
        yield


class Ear:
    """Hears news; has enough after so many."""

    def __init__(self, enough: int = 1 << 30) -> None:
        self.heard: list[tuple[State | None, ContentId]] = []
        self._enough = enough

    def __call__(self, state: State | None, content_id: ContentId) -> bool:
        self.heard.append((state, content_id))
        return len(self.heard) < self._enough

    async def hears(self, count: int) -> State | None:
        """The state of the message of this number."""
        await until(lambda: len(self.heard) >= count)
        return self.heard[count - 1][0]


def claim(it: Serving, *chunks: int, content: ContentId = A) -> None:
    it.claims[content] = Claim(layout=FOUR, chunks=bitfield(chunks))
    it.server.changed(content)


async def test_it_hears_what_changes_on_a_connection_of_its_own(it: Serving, client: PeerClient) -> None:
    ear = Ear(enough=3)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(client.follow(it.address, [A, B], ear, LONG_S))
        assert await ear.hears(1) is None
        await client.offer(it.address, A)
        claim(it, 3, content=B)
        told = await ear.hears(2)
        assert told is not None
        assert (told.wants, told.claimed, ear.heard[-1][1]) == (True, bitfield([3]), B)
        claim(it, 2, content=B)
        await ear.hears(3)
    assert following.result() is None, "it had enough"
    assert len(it.callers) == 2, "one for the stream, one for the offer"
    await until(lambda: it.server.listening == 0)


async def test_as_many_as_a_peer_allows(it: Serving, client: PeerClient) -> None:
    ears = [Ear(enough=2) for _ in range(8)]
    async with asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(client.follow(it.address, [A], ear, LONG_S)) for ear in ears]
        for ear in ears:
            await ear.hears(1)
        ninth = await client.follow(it.address, [A], Ear(), LONG_S)
        assert isinstance(ninth, Failure)
        assert ninth.kind is FailureKind.BUSY
        claim(it)
    assert [task.result() for task in streams] == [None] * 8


async def test_a_peer_that_goes_away_is_noticed(it: Serving, client: PeerClient) -> None:
    for end in (
        lambda: client.disconnect(it.identity.peer_id),
        lambda: it.server.disconnect(it.callers[0].peer_id),
    ):
        ear = Ear()
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(client.follow(it.address, [A], ear, LONG_S))
            await ear.hears(1)
            end()
        gone = following.result()
        assert isinstance(gone, Failure)
        assert gone.kind is FailureKind.CONNECTION_CLOSED
        await until(lambda: it.server.listening == 0)
    ear = Ear()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(client.follow(it.address, [A], ear, LONG_S))
        await ear.hears(1)
        await client.close()
    assert isinstance(following.result(), Failure)


async def test_cancelling_ends_the_connection(it: Serving, client: PeerClient) -> None:
    ear = Ear()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(client.follow(it.address, [A], ear, LONG_S))
        await ear.hears(1)
        following.cancel()
    await until(lambda: it.server.listening == 0 and it.server.connected == 0)


async def test_who_is_cut_off_in_the_moment_of_the_handshake_is_gone(
    it: Serving, client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was just banned, for what it sent on another connection: no error of ours."""
    judge = client._identity.check_certificate

    def judge_and_ban(der: bytes, now: float) -> PeerId | None:
        asyncio.get_running_loop().call_soon(client.disconnect, it.identity.peer_id)
        return judge(der, now)

    monkeypatch.setattr(client._identity, "check_certificate", judge_and_ban)
    for gone in (await client.hello(it.address), await client.follow(it.address, [A], Ear(), LONG_S)):
        assert isinstance(gone, Failure)
        assert gone.kind is FailureKind.CONNECTION_CLOSED


# peers that are not like ours


Play = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def stage(members: Members, play: Play) -> AsyncIterator[PeerAddress]:
    """A member that answers every request in this way, and then waits for the other side's end."""
    me = members.identity("hostile")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await play(writer)
            await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=me.server_context())
    async with server:
        host, port = server.sockets[0].getsockname()
        yield PeerAddress(me.peer_id, host, port)


def saying(data: bytes) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return play


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", FailureKind.STALLED),
        (STREAM_HEAD, FailureKind.STALLED),
        (STREAM_HEAD + STILL + STILL[:5], FailureKind.STALLED),
        (wire.format_response(400), FailureKind.HTTP_FATAL),
        (wire.format_response(404), FailureKind.NOT_FOUND),
        (wire.format_response(200, b"{}"), FailureKind.BAD_RESPONSE),
        (wire.format_response(206, b"{}"), FailureKind.BAD_RESPONSE),
        (STREAM_HEAD + b"nonsense", FailureKind.BAD_RESPONSE),
        (STREAM_HEAD + STILL + b"fffff1\r\n", FailureKind.BAD_RESPONSE),
        (STREAM_HEAD + STREAM_END + b"more", FailureKind.BAD_RESPONSE),
    ],
)
async def test_wrong_answers(
    members: Members, client: PeerClient, monkeypatch: pytest.MonkeyPatch, answer: bytes, kind: FailureKind
) -> None:
    """Silence too comes to an end."""
    monkeypatch.setattr(call_module, "HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(client_module, "SILENCE_GRACE_S", -0.8)
    async with stage(members, saying(answer)) as address:
        async with asyncio.timeout(WAIT_S):
            failure = await client.follow(address, [A], Ear(), 1)
        assert isinstance(failure, Failure)
        assert failure.kind is kind
        client.disconnect(address.peer_id)


async def test_a_peer_may_end_it(members: Members, client: PeerClient) -> None:
    """It has too many listeners; what it said until then counts, and its connection may be used again."""
    told = format_news(None, State(layout=FOUR, have=bitfield([1]), claimed=NO_CHUNKS, wants=True), 0)
    ear = Ear()
    async with stage(members, saying(STREAM_HEAD + told + STREAM_END)) as address:
        assert await client.follow(address, [A], ear, LONG_S) is None
        state, content_id = ear.heard[0]
        assert state is not None
        assert (state.have, content_id) == (bitfield([1]), A)
        client.disconnect(address.peer_id)


async def test_who_talks_too_much_is_read_slowly(members: Members, client: PeerClient) -> None:
    """A message each millisecond: after a first few, twenty a second are heard, and the rest together with them."""
    states = [State(layout=FOUR, have=Bitfield(have), claimed=NO_CHUNKS, wants=True) for have in (1, 3)]
    ear = Ear()

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for number in range(2000):
            writer.write(format_news(None, states[number % 2], 0))
            await asyncio.sleep(0.001)
            if writer.transport.is_closing():
                return

    async with stage(members, play) as address, asyncio.TaskGroup() as tasks:
        following = tasks.create_task(client.follow(address, [A], ear, LONG_S))
        await ear.hears(NEWS_AT_ONCE)
        began, heard = time.monotonic(), len(ear.heard)
        await ear.hears(heard + 20)
        assert time.monotonic() - began > 0.7, "at one each millisecond, 20 ms"
        following.cancel()


# networks


async def test_news_of_the_cache_and_of_claims_reach_who_listens(lan: Lan, tmp_path: Path) -> None:
    claims: dict[ContentId, Claim] = {}
    ann = await lan.start_beside("ann", claims=claims.get)
    ben = await lan.start_beside("ben", ann)
    ear, began = Ear(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(ben.network.follow(ann.id, [CONTENT], ear, LONG_S))
        assert await ear.hears(1) is None
        claims[CONTENT] = Claim(layout=LAYOUT, chunks=bitfield([1]))
        ann.network.changed(CONTENT)
        told = await ear.hears(2)
        assert told is not None
        assert (told.wants, told.claimed) == (True, bitfield([1]))
        await publish(ann, tmp_path)

        def has_all() -> bool:
            state = ear.heard[-1][0]
            return state is not None and state.have == LAYOUT.everything

        await until(has_all)
        claims.clear()
        await ann.cache.withdraw(CONTENT)
        await until(lambda: ear.heard[-1][0] is None)
        following.cancel()
    assert time.monotonic() - began < 8


async def test_one_may_listen_for_who_asks(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    callers: list[PeerId] = []
    end = ann.network.listen([CONTENT, A], callers.append)
    end_other = ann.network.listen([CONTENT], callers.append)
    for content in (A, B, CONTENT):
        await ben.network.follow(ann.id, [content], Ear(enough=1), LONG_S)
    assert callers == [ben.id] * 3
    end()
    await ben.network.offer(ann.id, CONTENT)
    assert callers == [ben.id] * 4
    end_other()
    assert ann.network._listening == {}


async def test_who_is_banned_listens_no_more(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    ear = Ear()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(ben.network.follow(ann.id, [CONTENT], ear, LONG_S))
        await ear.hears(1)
        ann.network.ban(ben.id, "", 60.0)
    assert isinstance(following.result(), Failure)
    assert ann.network._server.listening == 0
    gone = await ann.network.follow(ben.id, [CONTENT], ear, LONG_S)
    assert isinstance(gone, Failure)
    assert gone.kind is FailureKind.NOT_TRUSTED
