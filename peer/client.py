"""Asks other agents: who are you, what have you, give me these bytes. One request, one outcome.

Keeps up to four connections a peer alive (call.py), checks every answer against what was asked, and verifies the
vouchers that come with bytes. Whether bytes match a digest is for the caller to see.

Never knows: the origin, retries, scheduling, bans. (A request that dies on a connection kept from earlier, before
any byte of an answer, is sent once more on a fresh one: that connection had ended before the request began.)
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from peer.body import PEER_LIMITS, BodyReceiver
from peer.call import Begin, Body, Call, Document, bad_response
from peer.core import wire
from peer.core.failure import Failure, FailureKind, failure_of_status
from peer.core.voucher import PeerId, Voucher
from peer.core.wire import Hello, Offer
from peer.identity import Identity, verify_voucher
from peer.sink import Fetched, Sink
from peer.workers import Workers
from validation.content import ChunkLayout, ContentId
from validation.ranges import ByteRange

__all__ = ["Hello", "Offer", "PeerAddress", "PeerClient", "PeerFetch"]

CONNECTIONS_A_PEER = 4
IDLE_S = 50.0
"""Shorter than the server's 60 s, so that it is rarely the server who closes."""

WAIT_FOR_CONNECTION_S = 30.0
CLOSE_TIMEOUT_S = 5.0
CERTIFICATES_KEPT = 256
CERTIFICATE_TRUSTED_S = 600.0
"""How long a checked certificate of a voucher's signer is used without looking at its dates again."""

STRANGERS_A_FETCH = 8
"""Certificates asked for because of one response; a voucher of a ninth unknown signer is dropped."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer is said to be. Its certificate must have exactly this peer id."""

    peer_id: PeerId
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFetch:
    """Ask `address` for `item` of a content that is cut as `layout`. Not more than 16 chunks."""

    address: PeerAddress
    content_id: ContentId
    layout: ChunkLayout
    item: ByteRange


@dataclass(slots=True)
class _Line:
    """The connections to one peer."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS_A_PEER))
    idle: list[tuple[PeerAddress, Call, asyncio.TimerHandle]] = field(default_factory=list)
    calls: set[Call] = field(default_factory=set)
    users: int = 0


class PeerClient:
    """Everything happens on the loop that uses it. Whoever makes it closes it."""

    def __init__(
        self,
        identity: Identity,
        workers: Workers,
        own_port: Callable[[], int | None],
        signers: Callable[[PeerId], bytes | None] = lambda _: None,
    ) -> None:
        """`own_port`: where we listen ourselves; `signers` knows certificates (DER) of other members."""
        self._identity, self._workers, self._own_port, self._signers = identity, workers, own_port, signers
        self._context = identity.client_context()
        self._lines: dict[PeerId, _Line] = {}
        self._certificates: OrderedDict[PeerId, tuple[bytes, float]] = OrderedDict()
        self._nobody_left = asyncio.Event()
        self._closed = False

    async def hello(self, address: PeerAddress) -> Hello | Failure:
        """Who it is; makes us known to it."""
        data = await self._document(address, wire.hello_target())
        if isinstance(data, Failure):
            return data
        try:
            hello = wire.parse_hello(data)
        except wire.WireError as error:
            return bad_response(str(error))
        if hello.peer_id != address.peer_id or hello.protocol != wire.PROTOCOL:
            return bad_response("it says it is another agent, or speaks another protocol")
        return hello

    async def offer(self, address: PeerAddress, content_id: ContentId) -> Offer | Failure | None:
        """What it has of a content; None when it has nothing to offer."""
        data = await self._document(address, wire.offer_target(content_id))
        if isinstance(data, Failure):
            return None if data.kind is FailureKind.NOT_FOUND else data
        try:
            return wire.parse_offer(data)
        except wire.WireError as error:
            return bad_response(str(error))

    async def certificate(self, address: PeerAddress, peer_id: PeerId) -> bytes | Failure:
        """The certificate (DER) of a member, from a peer that knows it: of our group, and that member's."""
        data = await self._document(address, wire.certificate_target(peer_id))
        if isinstance(data, Failure):
            return data
        if self._identity.check_certificate(data, time.time()) != peer_id:
            return Failure(
                kind=FailureKind.NOT_TRUSTED, message="a certificate that is not of this group or member"
            )
        return data

    async def fetch(self, request: PeerFetch, sink: Sink) -> Fetched | Failure:
        """Bring `request.item` into `sink`. Vouchers in the result have been verified; there may be none.

        Cancelling closes the connection; it leaves when no write to `sink` is under way any more.
        """
        item, layout = request.item, request.layout
        if item.stop > layout.length:
            raise ValueError(f"{item} is not in a content of {layout.length} bytes")
        if item.length == 0:
            return Fetched(item=item)
        vouchers: tuple[Voucher, ...] = ()

        def begin(head: wire.ResponseHead) -> Body | Failure:
            nonlocal vouchers
            if head.status != 206:
                return _failure_of(head)
            if head.content_range != wire.ContentRange(item, layout.length) or head.length != item.length:
                return bad_response("another range than the one asked for")
            try:
                vouchers = wire.parse_vouchers(head.headers.get("nearfetch-vouchers", ""), request.content_id)
            except wire.WireError as error:
                return bad_response(str(error))
            return BodyReceiver(
                start=item.start,
                length=item.length,
                sink=sink,
                workers=self._workers,
                loop=asyncio.get_running_loop(),
                limits=PEER_LIMITS,
            )

        target = wire.format_request(wire.bytes_target(request.content_id), self._own_port(), item)
        outcome = await self._perform(request.address, target, begin)
        if isinstance(outcome, Failure):
            return outcome
        touched = layout.touched_by(item)
        named = [voucher for voucher in vouchers if voucher.chunk in touched]
        return Fetched(item=item, vouchers=await self._verified(request.address, named))

    def disconnect(self, peer_id: PeerId) -> None:
        """End the connections to this peer at once; exchanges under way fail with CONNECTION_CLOSED."""
        line = self._lines.get(peer_id)
        for call in list(line.calls) if line else []:
            call.channel.abort()

    async def close(self) -> None:
        """End all connections. Exchanges that are still under way fail."""
        self._closed = True
        for peer_id in list(self._lines):
            self.disconnect(peer_id)
        if any(line.calls for line in self._lines.values()):
            self._nobody_left.clear()
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._nobody_left.wait()

    async def _document(self, address: PeerAddress, target: str) -> bytes | Failure:
        document: Document | None = None

        def begin(head: wire.ResponseHead) -> Body | Failure:
            nonlocal document
            if head.status != 200:
                return _failure_of(head)
            if head.length > wire.DOCUMENT_LIMIT:
                return bad_response("a document above the limit")
            document = Document(head.length)
            return document

        outcome = await self._perform(address, wire.format_request(target, self._own_port()), begin)
        if isinstance(outcome, Failure):
            return outcome
        assert document is not None
        return document.data

    async def _perform(self, address: PeerAddress, request: bytes, begin: Begin) -> int | Failure:
        """One exchange, on a kept connection or a new one."""
        if self._closed:
            return Failure(kind=FailureKind.ABORTED, message="the agent is stopping")
        line = self._lines.setdefault(address.peer_id, _Line())
        line.users += 1
        try:
            try:
                async with asyncio.timeout(WAIT_FOR_CONNECTION_S):
                    await line.free.acquire()
            except TimeoutError:
                return Failure(kind=FailureKind.BUSY, message="our connections to this peer are all in use")
            try:
                return await self._exchange(line, address, request, begin)
            finally:
                line.free.release()
        finally:
            line.users -= 1
            if not line.users and not line.calls:
                self._lines.pop(address.peer_id, None)

    async def _exchange(self, line: _Line, address: PeerAddress, request: bytes, begin: Begin) -> int | Failure:
        while True:
            call = self._take_idle(line, address) or await self._connect(line, address)
            if isinstance(call, Failure):
                return call
            outcome = await call.exchange(request, begin)
            if call.usable:
                timer = asyncio.get_running_loop().call_later(IDLE_S, self._drop_idle, line, call)
                line.idle.append((address, call, timer))
            gone = isinstance(outcome, Failure) and outcome.kind is FailureKind.CONNECTION_CLOSED
            if not (gone and call.reused and not call.heard):
                return outcome

    def _take_idle(self, line: _Line, address: PeerAddress) -> Call | None:
        """A kept connection to exactly this address; those to an earlier one are closed."""
        while line.idle:
            kept, call, timer = line.idle.pop()
            timer.cancel()
            if call.usable and kept == address:
                call.reused = True
                return call
            call.channel.close()
        return None

    async def _connect(self, line: _Line, address: PeerAddress) -> Call | Failure:
        def judge(certificate: bytes) -> Failure | None:
            who = self._identity.check_certificate(certificate, time.time())
            if who == address.peer_id:
                return None
            reason = "its certificate is not of our group" if who is None else "another agent answers there"
            return Failure(kind=FailureKind.NOT_TRUSTED, message=reason)

        def gone(call: Call) -> None:
            line.calls.discard(call)
            for kept in [kept for kept in line.idle if kept[1] is call]:
                kept[2].cancel()
                line.idle.remove(kept)
            if not line.calls and not line.users:
                self._lines.pop(address.peer_id, None)
            if not any(other.calls for other in self._lines.values()):
                self._nobody_left.set()

        call = Call(self._context, judge, gone)
        line.calls.add(call)
        failure = await call.connect(address.host, address.port)
        return call if failure is None else failure

    def _drop_idle(self, line: _Line, call: Call) -> None:
        line.idle = [kept for kept in line.idle if kept[1] is not call]
        call.channel.close()

    async def _verified(self, address: PeerAddress, vouchers: list[Voucher]) -> tuple[Voucher, ...]:
        """Those whose signer is a member and whose signature is right, in order of chunk."""
        certificates: dict[PeerId, bytes] = {}
        strangers = 0
        for signer in dict.fromkeys(voucher.signer for voucher in vouchers):
            known = self._known_certificate(signer)
            if known is None and strangers < STRANGERS_A_FETCH:
                strangers += 1
                answer = await self.certificate(address, signer)
                known = None if isinstance(answer, Failure) else answer
                if known is not None:
                    self._keep_certificate(signer, known)
            if known is not None:
                certificates[signer] = known
        candidates = [
            (voucher, certificates[voucher.signer]) for voucher in vouchers if voucher.signer in certificates
        ]
        if not candidates:
            return ()
        good = await self._workers.run(_right_ones, candidates)
        return tuple(sorted(good, key=lambda voucher: voucher.chunk))

    def _known_certificate(self, signer: PeerId) -> bytes | None:
        """A certificate that was good within the last ten minutes, or one that we know and is good now."""
        now = time.time()
        if signer == self._identity.peer_id:
            return self._identity.certificate_der
        kept = self._certificates.get(signer)
        if kept is not None and 0 <= now - kept[1] < CERTIFICATE_TRUSTED_S:
            return kept[0]
        for der in (kept[0] if kept else None, self._signers(signer)):
            if der is not None and self._identity.check_certificate(der, now) == signer:
                self._keep_certificate(signer, der)
                return der
        return None

    def _keep_certificate(self, signer: PeerId, der: bytes) -> None:
        self._certificates[signer] = (der, time.time())
        self._certificates.move_to_end(signer)
        if len(self._certificates) > CERTIFICATES_KEPT:
            self._certificates.popitem(last=False)


def _right_ones(candidates: list[tuple[Voucher, bytes]]) -> list[Voucher]:
    """In a worker thread: about 150 µs each."""
    return [voucher for voucher, certificate in candidates if verify_voucher(voucher, certificate)]


def _failure_of(head: wire.ResponseHead) -> Failure:
    if head.status < 300:
        return bad_response(f"status {head.status} where another was due")
    return failure_of_status(head.status, f"the peer answered {head.status}", head.retry_after_s)
