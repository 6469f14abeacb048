"""Two or more agents of one group on loopback: identities, a small store in memory, a sink in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from peer.client import PeerAddress, PeerClient
from peer.core.admission import Admission, AdmissionLimits
from peer.core.newswire import NewsReader
from peer.core.state import State
from peer.core.voucher import PeerId, Voucher
from peer.core.wire import ResponseHead, news_target, parse_response_head
from peer.group import GroupKey
from peer.identity import Identity
from peer.server import Caller, Claim, PeerServer
from peer.workers import Workers
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, ContentId, bitfield
from validation.digest import chunk_digest
from validation.ranges import ByteRange

CHUNK = 256 * 1024
WAIT_S = 10.0
"""Longer than anything in these tests takes."""


def content_id(name: str) -> ContentId:
    """An id for a test's content."""
    return ContentId(chunk_digest(name.encode()).hex())


def noise(length: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere near a chunk."""
    block = b"".join(((index * 2654435761 + seed) % (1 << 64)).to_bytes(8, "little") for index in range(8192))
    whole = bytearray()
    while len(whole) < length:
        whole += len(whole).to_bytes(8, "little") + block
    return bytes(whole[:length])


@dataclass
class Item:
    """One content of a `MemoryStore`."""

    layout: ChunkLayout
    data: bytes
    have: Bitfield
    checked: Bitfield = NO_CHUNKS
    vouchers: dict[int, tuple[Voucher, ...]] = field(default_factory=dict)


class MemoryStore:
    """A `peer.server.Store` that keeps everything in memory; `checks` counts calls of `ensure_checked`."""

    def __init__(self) -> None:
        self.items: dict[ContentId, Item] = {}
        self.bad = NO_CHUNKS
        self.checks = 0
        self.held = 0
        self.wants_sweeping = False
        self.check_may_go_on = asyncio.Event()
        self.check_may_go_on.set()

    def add(self, key: ContentId, data: bytes, have: Bitfield | None = None) -> Item:
        layout = ChunkLayout(length=len(data), chunk_bytes=CHUNK)
        self.items[key] = Item(layout, data, layout.everything if have is None else have)
        return self.items[key]

    def find(self, content_id: ContentId) -> Item | None:
        return self.items.get(content_id)

    def vouchers(self, content_id: ContentId, chunk: ChunkIndex) -> tuple[Voucher, ...]:
        return self.items[content_id].vouchers.get(chunk, ())

    def resting_on(self, content_id: ContentId, signers: frozenset[PeerId]) -> Bitfield:
        said = self.items[content_id].vouchers.items() if content_id in self.items else ()
        return bitfield(chunk for chunk, given in said if given and {item.signer for item in given} <= signers)

    def hold(self, content_id: ContentId) -> Callable[[], bool]:
        self.held += 1

        def let_go() -> bool:
            self.held -= 1
            return not self.held and self.wants_sweeping

        return let_go

    async def sweep(self) -> int:
        self.wants_sweeping = False
        return 0

    async def ensure_checked(self, content_id: ContentId, first: ChunkIndex, last: ChunkIndex) -> Bitfield:
        self.checks += 1
        await self.check_may_go_on.wait()
        item = self.items[content_id]
        item.have = Bitfield(item.have & ~self.bad)
        item.checked = Bitfield(item.checked | (item.have & bitfield(range(first, last + 1))))
        return item.checked

    def read(self, content_id: ContentId, item: ByteRange) -> bytes:
        held = self.items[content_id]
        if any(not held.checked >> chunk & 1 for chunk in held.layout.touched_by(item)):
            raise LookupError("not checked")
        return held.data[item.start : item.stop]


class MemorySink:
    """A `Sink`: what was written, and which ranges were reported."""

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self.arrivals: list[ByteRange] = []
        self.writing = False

    def write(self, offset: int, data: memoryview) -> None:
        assert not self.writing, "two writes at once"
        self.writing = True
        self.data[offset : offset + len(data)] = data
        self.writing = False

    def arrived(self, item: ByteRange) -> None:
        assert not self.arrivals or self.arrivals[-1].stop == item.start, "a gap, or out of order"
        self.arrivals.append(item)

    @property
    def arrived_bytes(self) -> int:
        return sum(item.length for item in self.arrivals)


class Members:
    """Identities of one group, made as they are asked for."""

    def __init__(self, directory: Path, key: GroupKey | None = None) -> None:
        self._directory = directory
        self.key = key or GroupKey.create()
        self.certificates: dict[PeerId, bytes] = {}

    def identity(self, name: str, now: float | None = None) -> Identity:
        home = self._directory / name
        home.mkdir(parents=True, exist_ok=True)
        made = Identity.load_or_create(home, self.key, time.time() if now is None else now, name)
        self.certificates[made.peer_id] = made.certificate_der
        return made


@dataclass
class Serving:
    """A running server with what a test wants to look at."""

    server: PeerServer
    store: MemoryStore
    admission: Admission
    identity: Identity
    address: PeerAddress
    callers: list[Caller]
    banned: set[PeerId]
    claims: dict[ContentId, Claim]
    asked: list[tuple[PeerId, ContentId]]
    """Who asked what we have of which content."""
    avoided: set[PeerId]


@asynccontextmanager
async def serving(
    members: Members, workers: Workers, limits: AdmissionLimits | None = None, name: str = "server"
) -> AsyncIterator[Serving]:
    """A server on loopback, ended at exit."""
    identity, store = members.identity(name), MemoryStore()
    admission = Admission(limits or AdmissionLimits())
    callers: list[Caller] = []
    banned: set[PeerId] = set()
    avoided: set[PeerId] = set()
    claims: dict[ContentId, Claim] = {}
    asked: list[tuple[PeerId, ContentId]] = []
    server = PeerServer(
        identity,
        store,
        admission,
        workers,
        callers.append,
        banned.__contains__,
        members.certificates.get,
        claims.get,
        lambda peer_id, content_id: asked.append((peer_id, content_id)),
        is_avoided=avoided.__contains__,
    )
    port = await server.start("127.0.0.1", 0)
    try:
        address = PeerAddress(identity.peer_id, "127.0.0.1", port)
        yield Serving(server, store, admission, identity, address, callers, banned, claims, asked, avoided)
    finally:
        await server.close()


@asynccontextmanager
async def calling(members: Members, workers: Workers, name: str = "client") -> AsyncIterator[PeerClient]:
    """A client of its own identity, ended at exit."""
    client = PeerClient(members.identity(name), workers, lambda: 4711)
    try:
        yield client
    finally:
        await client.close()


class Talk:
    """A plain TLS connection, for saying to a server what our own client never would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, target: str, *headers: str) -> None:
        self.say("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1"))

    async def answer(self) -> tuple[ResponseHead, bytes]:
        """The next response, whole."""
        async with asyncio.timeout(WAIT_S):
            head = parse_response_head(await self.reader.readuntil(b"\r\n\r\n"))
            assert head.length is not None
            return head, await self.reader.readexactly(head.length)

    async def listen(self, *content_ids: ContentId, headers: Sequence[str] = ()) -> NewsTalk:
        """Ask for news; what is said first comes with `next`."""
        self.ask(news_target(content_ids), *headers)
        async with asyncio.timeout(WAIT_S):
            head = parse_response_head(await self.reader.readuntil(b"\r\n\r\n"))
        assert (head.status, head.length) == (200, None)
        return NewsTalk(self.reader, len(content_ids))

    async def ended(self) -> bytes:
        """What came until the other side closed."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except (ConnectionError, ssl.SSLError):
                return b""


class NewsTalk:
    """A stream of news, message by message."""

    def __init__(self, reader: asyncio.StreamReader, contents: int) -> None:
        self._reader = reader
        self.news = NewsReader(contents)
        self.last = b""
        """The last message, framed."""

    async def next(self) -> State | None:
        """What holds after one more message; at the end of the stream (`news.ended`) what held."""
        async with asyncio.timeout(WAIT_S):
            line = await self._reader.readuntil(b"\r\n")
            self.last = line + await self._reader.readexactly(int(line, 16) + 2)
        self.news.feed(self.last)
        return self.news.state


@asynccontextmanager
async def talking(address: PeerAddress, context: ssl.SSLContext | None) -> AsyncIterator[Talk]:
    """Connect with these credentials; None: without TLS."""
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context, limit=1 << 20)
    try:
        yield Talk(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@contextmanager
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails when asyncio logged anything by the end: a fatal error, a lost exception, a traceback."""
    gc.freeze()  # only what this test makes needs looking at: a full collection takes 0.1 s
    yield
    gc.collect()
    gc.unfreeze()
    said = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not said, said


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.005)
