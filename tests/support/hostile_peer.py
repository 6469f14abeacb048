"""A member of the group that misbehaves: a small TLS server with a valid certificate, for one content.

    async with HostilePeer(directory, group_key, data, Mischief.STALL) as peer:
        await peer.introduce(agent.peer_id, agent.peer_port)   # calls the agent, which then knows where it is

It offers `data` under any content id whose asker's layout has its length (others ignore the offer), so that it need
not know URLs. `Mischief.NONE` is honest. Listeners that are no members are `Stranger`s.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from peer.client import PeerAddress, PeerClient
from peer.core import voucherwire, wire
from peer.core.failure import Failure
from peer.core.newswire import STREAM_HEAD, format_news
from peer.core.state import State
from peer.core.voucher import PeerId, Voucher
from peer.group import GroupKey
from peer.identity import Identity
from peer.workers import Workers
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout
from validation.digest import chunk_digest
from validation.ranges import ByteRange

INTRODUCTION_S = 10.0
PIECE = 64 * 1024
ENDLESS_BYTES = 128 * 1024 * 1024
"""What "endless" comes to; far more than anybody may read."""


class Mischief(StrEnum):
    """What it does wrong; everything else it does right."""

    NONE = "none"
    WRONG_BYTES = "wrong bytes"
    """Right vouchers, altered bytes."""
    FORGED = "altered bytes, vouched for"
    """The bytes are wrong and match the vouchers: only a digest of the whole can tell."""
    SHORT = "closes half-way through"
    SHORT_RANGE = "a shorter range than asked"
    ENDLESS = "never stops sending"
    ENDLESS_LENGTH = "announces far more than asked"
    STALL = "stops in the middle"
    DRIP = "ten bytes a second"
    NO_ANSWER = "takes the request and says nothing"
    NO_VOUCHERS = "no vouchers"
    BAD_SIGNATURES = "vouchers that nobody signed"
    CONFLICT = "two vouchers for each chunk"
    LACKS = "offers what it does not have"
    ALWAYS_BUSY = "503 for ever"
    CLAIMS = "claims everything, gets nothing"
    GARBAGE = "no HTTP at all"
    HUGE_HEAD = "an endless head"
    HUGE_OFFER = "an endless offer"
    BAD_OFFER = "an offer that makes no sense"
    REDIRECT = "sends elsewhere"
    RESTLESS = "another offer every time, at once"
    OLD = "knows no held questions, and closes on what it does not know"
    FAILS = "500 for every offer"
    MUTE = "never says what it has"


class HostilePeer:
    """The server. An async context manager; everything it opens it closes."""

    def __init__(self, directory: Path, group_key: str, data: bytes, mischief: Mischief) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.mischief = mischief
        self.identity = Identity.load_or_create(directory, GroupKey.parse(group_key), time.time(), mischief.value)
        self.requests: list[str] = []
        """Targets of all requests."""
        self.sent = 0
        """Payload bytes of ranges."""
        self.pushed = 0
        """Bytes of everything that may not end."""
        self.has_it = True
        """False: there is nothing to offer."""
        self._data = data
        self._layout = ChunkLayout.for_length(len(data))
        self._workers = Workers(1)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def introduce(self, peer_id: str, port: int) -> None:
        """Call an agent and say where we listen."""
        client = PeerClient(self.identity, self._workers, lambda: self.port)
        try:
            async with asyncio.timeout(INTRODUCTION_S):
                answer = await client.hello(PeerAddress(PeerId(peer_id), "127.0.0.1", port))
        finally:
            await client.close()
        assert not isinstance(answer, Failure), answer

    async def __aenter__(self) -> Self:
        context = self.identity.server_context()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self._server.wait_closed()
        self._workers.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                await writer.drain()
        except (OSError, ssl.SSLError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the other side had enough, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is to be closed."""
        head = await reader.readuntil(b"\r\n\r\n")
        request = wire.parse_request_head(head).request
        self.requests.append(head.decode("ascii").split(" ")[1])
        match request:
            case wire.HelloRequest():
                name = self.mischief.value
                hello = wire.Hello(peer_id=self.identity.peer_id, name=name, version="0.0.0")
                writer.write(wire.format_response(200, wire.format_document(hello)))
            case wire.NewsRequest() if self.mischief is Mischief.OLD:
                writer.write(wire.format_response(404))
            case wire.NewsRequest() if self.mischief is Mischief.RESTLESS:
                return await self._tell_endlessly(writer)
            case wire.NewsRequest():
                return await self._offer(writer, stream=True)
            case wire.OfferRequest():
                return await self._offer(writer)
            case wire.BytesRequest():
                return await self._bytes(writer, request)
            case wire.CertificateRequest(peer_id=peer_id):
                mine = peer_id == self.identity.peer_id
                certificate = self.identity.certificate_der if mine else b""
                writer.write(wire.format_response(200 if mine else 404, certificate))
        return True

    async def _offer(self, writer: asyncio.StreamWriter, *, stream: bool = False) -> bool:
        layout, have, claimed = self._layout, self._layout.everything, NO_CHUNKS
        if self.mischief is Mischief.MUTE:
            await asyncio.Event().wait()
        if self.mischief is Mischief.FAILS and self.has_it:
            writer.write(wire.format_response(500))
            return True
        if not self.has_it:
            writer.write(
                STREAM_HEAD + format_news(None, None, 0, first=True) if stream else wire.format_response(404)
            )
            return True
        if self.mischief is Mischief.CLAIMS:
            have, claimed = Bitfield(1), Bitfield(layout.everything & ~1)
        if self.mischief is Mischief.HUGE_OFFER:
            writer.write(STREAM_HEAD if stream else b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n[")
            while True:
                await self._push(writer, b"fffff\r\n" * (PIECE // 8) if stream else b"[" * PIECE)
        restless = self.mischief is Mischief.RESTLESS
        body = wire.format_document(
            wire.offer_of(layout, Bitfield(1) if restless else have, claimed, wants=restless)
        )
        if self.mischief is Mischief.BAD_OFFER:
            body = b'{"length": -1, "chunk_bytes": 0, "have": "", "claimed": "", "x": ' + b"[" * 500 + b"}"
        if not stream:
            writer.write(wire.format_response(200, body))
            return True
        message = b'{"say":"offer","of":0,"offer":%b}' % body
        writer.write(STREAM_HEAD + b"%x\r\n%b\r\n" % (len(message), message))
        return True

    async def _tell_endlessly(self, writer: asyncio.StreamWriter) -> bool:
        """As fast as it is read, until it is to do something else: a claim, and that it is none."""
        one, none = (
            State(layout=self._layout, have=Bitfield(1), claimed=Bitfield(claimed), wants=True)
            for claimed in (1, 0)
        )
        writer.write(STREAM_HEAD + format_news(None, one, 0))
        while self.mischief is Mischief.RESTLESS:
            await self._push(writer, (format_news(one, none, 0) + format_news(none, one, 0)) * 100)
        return False

    # --- ranges ------------------------------------------------------------------------------------------------

    async def _bytes(self, writer: asyncio.StreamWriter, request: wire.BytesRequest) -> bool:
        if await self._no_range(writer):
            return self.mischief in (Mischief.LACKS, Mischief.ALWAYS_BUSY, Mischief.REDIRECT)
        item = ByteRange(request.item.start, min(request.item.stop, len(self._data)))
        if self.mischief is Mischief.SHORT_RANGE and item.length > 1:
            item = ByteRange(item.start, item.start + item.length // 2)
        head = wire.format_range_head(item, len(self._data), voucherwire.format_vouchers(self._vouchers(request)))
        if self.mischief is Mischief.ENDLESS_LENGTH:
            head = head.replace(b"Content-Length: %d" % item.length, b"Content-Length: %d" % 10**15)
        writer.write(head)
        data = self._altered(item) if self._alters else self._data[item.start : item.stop]
        await self._send(writer, data)
        return self.mischief in _GO_ON

    async def _no_range(self, writer: asyncio.StreamWriter) -> bool:
        """Whatever is answered instead of a 206; True when that is all."""
        match self.mischief:
            case Mischief.LACKS:
                writer.write(wire.format_response(404))
            case Mischief.ALWAYS_BUSY:
                writer.write(wire.format_response(503, headers=[("Retry-After", "86400")]))
            case Mischief.REDIRECT:
                writer.write(wire.format_response(302, headers=[("Location", "http://127.0.0.1:9/")]))
            case Mischief.GARBAGE:
                writer.write(b"220 mail.example ESMTP\r\n" * 1000)
            case Mischief.NO_ANSWER:
                await asyncio.Event().wait()
            case Mischief.HUGE_HEAD:
                writer.write(b"HTTP/1.1 206 Partial Content\r\n")
                while True:
                    await self._push(writer, b"X-Filler: " + b"x" * PIECE + b"\r\n")
            case _:
                return False
        await writer.drain()
        return True

    @property
    def _alters(self) -> bool:
        return self.mischief in (Mischief.WRONG_BYTES, Mischief.FORGED)

    def _altered(self, item: ByteRange) -> bytes:
        """One wrong byte in the middle of every chunk."""
        data = bytearray(self._data[item.start : item.stop])
        for chunk in self._layout.touched_by(item):
            middle = self._layout.range_of(ChunkIndex(chunk)).start + 17
            if item.start <= middle < item.stop:
                data[middle - item.start] ^= 0xFF
        return bytes(data)

    def _vouchers(self, request: wire.BytesRequest) -> list[Voucher]:
        made = []
        for index in () if self.mischief is Mischief.NO_VOUCHERS else self._layout.touched_by(request.item):
            chunk = ChunkIndex(index)
            item = self._layout.range_of(chunk)
            data = self._altered(item) if self.mischief is Mischief.FORGED else self._data[item.start : item.stop]
            voucher = self.identity.vouch(request.content_id, chunk, chunk_digest(data))
            if self.mischief is Mischief.BAD_SIGNATURES:
                voucher = Voucher(
                    content_id=voucher.content_id,
                    chunk=voucher.chunk,
                    digest=voucher.digest,
                    signer=voucher.signer,
                    signature=bytes(64),
                )
            made.append(voucher)
            if self.mischief is Mischief.CONFLICT:
                made.append(self.identity.vouch(request.content_id, chunk, chunk_digest(b"other" + data[:9])))
        return made

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        match self.mischief:
            case Mischief.SHORT:
                await self._write(writer, data[: len(data) // 2])
            case Mischief.STALL:
                await self._write(writer, data[: len(data) // 2])
                await asyncio.Event().wait()
            case Mischief.DRIP:
                for at in range(len(data)):
                    await self._write(writer, data[at : at + 1])
                    await asyncio.sleep(0.1)
            case Mischief.ENDLESS | Mischief.ENDLESS_LENGTH:
                await self._write(writer, data)
                while True:
                    await self._write(writer, bytes(PIECE))
            case _:
                await self._write(writer, data)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            await self._push(writer, data[at : at + PIECE])
            self.sent += len(data[at : at + PIECE])

    async def _push(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """TLS of asyncio swallows what is written after the other side has left, and never waits: hence a limit."""
        self.pushed += len(data)
        if writer.is_closing() or self.pushed > ENDLESS_BYTES:
            raise ConnectionResetError
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0)


_GO_ON = frozenset(
    {
        Mischief.NONE,
        Mischief.WRONG_BYTES,
        Mischief.FORGED,
        Mischief.SHORT_RANGE,
        Mischief.NO_VOUCHERS,
        Mischief.BAD_SIGNATURES,
        Mischief.CONFLICT,
        Mischief.CLAIMS,
    }
)


class Stranger:
    """A listener that is no member: `context` None speaks no TLS, answers whatever comes with `says`."""

    def __init__(self, context: ssl.SSLContext | None = None, says: bytes = b"") -> None:
        self.connections = 0
        self.heard = b""
        """What callers said to it, after TLS."""
        self._context, self._says = context, says
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
            if self._says:
                writer.write(self._says)
                await writer.drain()
            async with asyncio.timeout(30):
                while piece := await reader.read(4096):
                    self.heard = (self.heard + piece)[:65536]
        writer.transport.abort()
