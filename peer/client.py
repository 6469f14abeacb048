"""Asks other agents: who are you, what have you, give me these bytes. One request, one outcome.

Keeps up to four connections a peer alive, and others for news (lines.py), checks every answer
against what was asked, and verifies the vouchers that come with bytes. Whether bytes match a digest is for the
caller to see.

Never knows: the origin, retries, scheduling, bans.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peer.body import PEER_LIMITS, BodyReceiver
from peer.call import Body, Document, bad_response
from peer.core import voucherwire, wire
from peer.core.failure import Failure, FailureKind, failure_of_status
from peer.core.voucher import PeerId, Voucher
from peer.core.wire import Distrust, Hello, Offer
from peer.following import SILENCE_GRACE_S, Following, Told
from peer.identity import Identity, verify_voucher
from peer.lines import Errand, LineLimits, Lines, PeerAddress
from peer.sink import Fetched, Sink
from peer.workers import Workers
from validation.content import ChunkLayout, ContentId
from validation.ranges import ByteRange

__all__ = ["Hello", "Offer", "PeerAddress", "PeerClient", "PeerFetch"]

CONNECTIONS_A_PEER = 4
IDLE_S = 50.0
"""Shorter than the server's 60 s, so that it is rarely the server who closes."""

STREAMS_A_PEER = 8
"""As many as a peer allows (`peer.offers`)."""
STREAM_IDLE_S = 2.0
"""The next stream follows within a second, or there is none."""
CERTIFICATES_KEPT = 256
CERTIFICATE_TRUSTED_S = 600.0
"""How long a checked certificate of a voucher's signer is used without looking at its dates again."""

VERIFIED_AT_ONCE = 2
"""So few vouchers are verified where they come in: a thread would take longer to be woken."""

STRANGERS_A_FETCH = 8
"""Certificates asked for because of one response; a voucher of a ninth unknown signer is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFetch:
    """Ask `address` for `item` of a content that is cut as `layout`. Not more than 16 chunks."""

    address: PeerAddress
    content_id: ContentId
    layout: ChunkLayout
    item: ByteRange


class PeerClient:
    """Everything happens on the loop that uses it. Whoever makes it closes it."""

    def __init__(
        self,
        identity: Identity,
        workers: Workers,
        own_port: Callable[[], int | None],
        signers: Callable[[PeerId], bytes | None] = lambda _: None,
        distrusts: Callable[[], Sequence[Distrust]] = lambda: (),
    ) -> None:
        """`own_port`: where we listen ourselves; `signers` knows certificates (DER) of other members; `distrusts`
        says whose word counts nothing to us: questions about content name them."""
        self._identity, self._workers, self._own_port, self._signers = identity, workers, own_port, signers
        self._distrusts = distrusts
        self._lines = Lines(identity, LineLimits(connections=CONNECTIONS_A_PEER, idle_s=IDLE_S))
        self._streams = Lines(identity, LineLimits(connections=STREAMS_A_PEER, idle_s=STREAM_IDLE_S))
        self._certificates: OrderedDict[PeerId, tuple[bytes, float]] = OrderedDict()

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
        target = wire.offer_target(content_id)
        request = wire.format_request(target, self._own_port(), distrusts=self._distrusts())
        return _offer_in(await self._read(address, request))

    async def follow(
        self, address: PeerAddress, content_ids: Sequence[ContentId], told: Told, wait_s: int = wire.USUAL_WAIT_S
    ) -> Failure | None:
        """`told` hears what it has of a content, known by the first of these ids: now, and with every change.

        Returns when `told` says False, or None when the peer ends the stream in an orderly way (it has too many),
        else why it ended. The peer is to say something every `wait_s` seconds (1 to 30), or it counts as dead five
        seconds later. BUSY: we have as many streams of this peer as it allows. Agents that know no streams answer
        400 or 404. Cancelling closes the connection.
        """
        if self._streams.full(address.peer_id):
            return Failure(kind=FailureKind.BUSY, message="as many contents of this peer as it allows are followed")
        following = Following(tuple(content_ids), told, wait_s + SILENCE_GRACE_S)

        def begin(head: wire.ResponseHead) -> Body | Failure:
            if head.status != 200:
                return _failure_of(head)
            if head.length is not None:
                return bad_response("a document where a stream was due")
            return following

        target = wire.news_target(content_ids)
        request = wire.format_request(target, self._own_port(), wait_s=wait_s, distrusts=self._distrusts())
        outcome = await self._streams.perform(address, Errand(request=request, begin=begin))
        return outcome if isinstance(outcome, Failure) and not following.had_enough else None

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
                vouchers = voucherwire.parse_vouchers(
                    head.headers.get("nearfetch-vouchers", ""), request.content_id
                )
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
        outcome = await self._lines.perform(request.address, Errand(request=target, begin=begin))
        if isinstance(outcome, Failure):
            return outcome
        touched = layout.touched_by(item)
        named = [voucher for voucher in vouchers if voucher.chunk in touched]
        return Fetched(item=item, vouchers=await self._verified(request.address, named))

    def disconnect(self, peer_id: PeerId) -> None:
        """End the connections to this peer at once; exchanges under way fail with CONNECTION_CLOSED."""
        for lines in (self._lines, self._streams):
            lines.disconnect(peer_id)

    async def close(self) -> None:
        """End all connections. Exchanges that are still under way fail."""
        await asyncio.gather(self._lines.close(), self._streams.close())

    async def _document(self, address: PeerAddress, target: str) -> bytes | Failure:
        return await self._read(address, wire.format_request(target, self._own_port()))

    async def _read(self, address: PeerAddress, request: bytes) -> bytes | Failure:
        """The document that is the answer to this request."""
        document: Document | None = None

        def begin(head: wire.ResponseHead) -> Body | Failure:
            nonlocal document
            if head.status != 200:
                return _failure_of(head)
            if head.length is None or head.length > wire.DOCUMENT_LIMIT:
                return bad_response("a document above the limit")
            document = Document(head.length)
            return document

        outcome = await self._lines.perform(address, Errand(request=request, begin=begin))
        if isinstance(outcome, Failure):
            return outcome
        assert document is not None
        return document.data

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
        if len(candidates) <= VERIFIED_AT_ONCE:
            good = _right_ones(candidates)
        else:
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


def _offer_in(data: bytes | Failure) -> Offer | Failure | None:
    if isinstance(data, Failure):
        return None if data.kind is FailureKind.NOT_FOUND else data
    try:
        return wire.parse_offer(data)
    except wire.WireError as error:
        return bad_response(str(error))


def _right_ones(candidates: list[tuple[Voucher, bytes]]) -> list[Voucher]:
    """About 150 µs each."""
    return [voucher for voucher, certificate in candidates if verify_voucher(voucher, certificate)]


def _failure_of(head: wire.ResponseHead) -> Failure:
    if head.status < 300:
        return bad_response(f"status {head.status} where another was due")
    return failure_of_status(head.status, f"the peer answered {head.status}", head.retry_after_s)
