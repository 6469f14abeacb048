"""Serves offers and ranges to other agents of the group, over mutual TLS, from the cache only.

A protocol of our own on asyncio transports (data path §4: 14 to 19 times a general HTTP server over TLS). This file
listens, knows who is connected and ends everything; one connection's conversation is in serving.py.

Never knows: jobs, destinations, part files. It can only reach the cache.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from importlib import metadata

from peer.channel import Channel
from peer.core import voucherwire, wire
from peer.core.admission import Admission
from peer.core.trust import Refusal
from peer.core.voucher import PeerId, Voucher
from peer.errors import ListenError
from peer.house import Caller, Claim, Entry, House, NotAMember, Refused, ServerCounters, Store
from peer.identity import Identity
from peer.offers import Offers
from peer.serving import Connection
from peer.tasks import Tasks
from peer.workers import Workers
from validation.content import ChunkIndex, ContentId

__all__ = ["Caller", "Claim", "PeerServer", "Refused", "ServerCounters", "Store"]

LOOK_S = 1.0
"""How often idle and slow connections are looked for."""

CLOSE_TIMEOUT_S = 5.0
BACKLOG = 128
VOUCHER_TEXTS_KEPT = 8192


class PeerServer:
    """A listening server. `start` and `close` once each; everything happens on the loop that `start` ran on."""

    def __init__(
        self,
        identity: Identity,
        cache: Store,
        admission: Admission,
        workers: Workers,
        on_caller: Callable[[Caller], None],
        is_banned: Callable[[PeerId], bool],
        certificates: Callable[[PeerId], bytes | None],
        claims: Callable[[ContentId], Claim | None] = lambda _: None,
        on_asked: Callable[[PeerId, ContentId], None] = lambda _peer, _content: None,
        on_denounced: Callable[[PeerId, tuple[PeerId, ...]], None] = lambda _by, _about: None,
        is_avoided: Callable[[PeerId], bool] = lambda _: False,
    ) -> None:
        """`on_caller` hears of every connection at its first request; `certificates` knows other members' (DER);
        `claims` says what we are busy with; `on_asked` hears who wants to know what we have of which content,
        `on_denounced` who says that it found whom lying. Who `is_banned` gets nothing; whoever `is_avoided` is told
        that it may leave to us what is missing."""
        self._identity, self._cache, self._workers = identity, cache, workers
        self._certificates = certificates
        self._offers = Offers(cache, claims)
        self._connections: set[Connection] = set()
        self._nobody_left = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks = Tasks("work on the cache for a peer failed")
        self._timer: asyncio.TimerHandle | None = None
        self._voucher_texts: dict[tuple[ContentId, int], tuple[tuple[Voucher, ...], str]] = {}
        self.counters = ServerCounters()
        hello = wire.Hello(peer_id=identity.peer_id, name=identity.name, version=metadata.version("nearfetch"))
        self._house = House(
            store=cache,
            admission=admission,
            counters=self.counters,
            hello=wire.format_document(hello),
            certificate_of=self._certificate_of,
            offers=self._offers,
            entry_of=self._entry_of,
            vouchers_of=self._vouchers_of,
            member_of=self._member_of,
            is_banned=is_banned,
            is_avoided=is_avoided,
            on_caller=on_caller,
            on_asked=on_asked,
            on_denounced=on_denounced,
            workers=workers,
            spawn=self._tasks.spawn,
            now=time.monotonic,
        )

    async def start(self, host: str | None, port: int) -> int:
        """Listen on `host` (None: every address) and `port` (0: the system's choice). Returns the port.

        Raises ListenError.
        """
        loop = asyncio.get_running_loop()
        context = self._identity.server_context()

        def accept() -> Channel:
            connection = Connection(self._house, context, self._leave)
            self._connections.add(connection)
            return connection.channel

        try:
            listener = await self._workers.run(_listen, host, port)
        except OSError as error:
            where = f"{host or 'every address'}, port {port}"
            raise ListenError(error.errno, f"cannot listen for peers on {where}: {error.strerror}") from error
        self._server = await loop.create_server(accept, sock=listener, backlog=BACKLOG)
        await self._tasks.start()
        self._timer = loop.call_later(LOOK_S, self._look)
        bound: int = listener.getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and end every connection at once. Harmless when repeated."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            connection.channel.abort()
        await self._tasks.stop()
        if self._connections:
            self._nobody_left.clear()
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._nobody_left.wait()

    def disconnect(self, peer_id: PeerId) -> int:
        """End this peer's connections at once (it was banned). Returns how many there were."""
        theirs = [connection for connection in self._connections if connection.peer_id == peer_id]
        for connection in theirs:
            connection.channel.abort()
        return len(theirs)

    def changed(self, content_id: ContentId) -> None:
        """What is held or claimed of this content changed: those who listen for that are told."""
        self._offers.changed(content_id)

    @property
    def serving(self) -> bool:
        """False: nothing is offered and no range is given, as if nothing were there."""
        return self._offers.serving

    @serving.setter
    def serving(self, on: bool) -> None:
        self._offers.serving = on

    @property
    def listening(self) -> int:
        """Streams of news that go out."""
        return self._offers.listening

    @property
    def connected(self) -> int:
        """Open connections, those in the handshake included."""
        return len(self._connections)

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        now = self._house.now()
        for connection in list(self._connections):
            connection.look(now)

    def _leave(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._nobody_left.set()

    def _member_of(self, certificate: bytes) -> PeerId | NotAMember:
        verdict = self._identity.judge_certificate(certificate, time.time())
        return NotAMember(reason=str(verdict)) if isinstance(verdict, Refusal) else verdict

    def _certificate_of(self, peer_id: PeerId) -> bytes | None:
        own = peer_id == self._identity.peer_id
        return self._identity.certificate_der if own else self._certificates(peer_id)

    def _entry_of(self, content_id: ContentId) -> Entry | None:
        return self._cache.find(content_id) if self.serving else None

    def _vouchers_of(self, content_id: ContentId, chunks: range) -> str:
        """The header's text; that of a chunk is made once for the same vouchers."""
        texts: list[str] = []
        for chunk in chunks:
            vouchers = self._cache.vouchers(content_id, ChunkIndex(chunk))
            if not vouchers:
                continue
            known = self._voucher_texts.get((content_id, chunk))
            if known is None or known[0] != vouchers:
                if len(self._voucher_texts) >= VOUCHER_TEXTS_KEPT:
                    self._voucher_texts.clear()
                known = (vouchers, voucherwire.format_vouchers(vouchers[: voucherwire.VOUCHERS_A_CHUNK]))
                self._voucher_texts[content_id, chunk] = known
            texts.append(known[1])
        return ", ".join(texts)


def _listen(host: str | None, port: int) -> socket.socket:
    if host is not None:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError:
            pass  # a machine may have IPv6 built in and switched off
    return socket.create_server(("", port))
