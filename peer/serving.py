"""One connection of a peer to our server: requests in, responses out, from the cache only.

The usual request (a range that is here and checked) is served without a task, a thread or a copy of the protocol
layers: parse, look up, read, encrypt, send. Only chunks that are still to be checked need a task.

Never knows: jobs, destinations, part files, how the cache stores things.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from peer.channel import HANDSHAKE_TIMEOUT_S, Channel
from peer.core import wire
from peer.core.admission import ReadRate
from peer.core.voucher import PeerId
from peer.house import Caller, House, NotAMember, Refused
from peer.telling import Telling
from validation.content import ChunkIndex, ContentId
from validation.ranges import ByteRange

PIECE_BYTES = 256 * 1024
"""Read and encrypted at once."""

PIECES_A_TURN = 8
"""After so many the loop's other work has its turn, however fast the peer reads."""

COLD_S = 0.003
"""A piece that took longer to read was not in memory: 256 KiB take 0.05 ms from there."""

HEAD_TIMEOUT_S = 10.0
"""For the first request, and from the first byte of any (reliability 1.4)."""

IDLE_TIMEOUT_S = 60.0


class _Phase(Enum):
    NEW = "new"
    HANDSHAKE = "handshake"
    MEMBER = "member"
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class _Sending:
    """A response on its way out: a range of the store, or the rest of a document that the transport holds."""

    content_id: ContentId
    position: int
    stop: int
    chunks: range
    head: bytes
    """Goes out with the first piece; empty once it did."""
    began_at: float
    word: str = ""
    """The vouchers in the head: what the bytes have to be."""
    let_go: Callable[[], bool] | None = None
    """Ends our use of the store's content; None for a document."""
    checked: bool = False
    blocked: bool = False
    """The peer has to read before we may send more."""
    rate: ReadRate | None = None
    """From the first time that it was blocked."""
    cold: bool = False
    """The last piece had to come from the disk itself: the next ones are read in a thread."""

    @property
    def piece(self) -> ByteRange:
        """What is to be read next."""
        return ByteRange(self.position, min(self.position + PIECE_BYTES, self.stop))


class Connection:
    """A `ChannelUser`: one peer's connection, from the accept to its end."""

    def __init__(self, house: House, context: ssl.SSLContext, leave: Callable[[Connection], None]) -> None:
        """`leave` is called once, when the connection is over."""
        self._house, self._leave = house, leave
        self.channel = Channel(context, self, server_side=True, handshake_timeout_s=HANDSHAKE_TIMEOUT_S)
        self.peer_id = PeerId("")
        """Empty until the handshake is over."""
        self._address = ""
        self._phase = _Phase.NEW
        self._introduced = False
        self._head = bytearray()
        self._room = memoryview(self._head)
        self._filled = 0
        self._keep_alive = True
        self._sending: _Sending | None = None
        self._telling: Telling | None = None
        """It listens for news, until it asks for something else."""
        self._deadline = 0.0

    def opened(self, address: str) -> bool:
        self._address = address
        if self._house.admission.open(address):
            self._phase = _Phase.HANDSHAKE
            return True
        self._refuse("too many connections")
        return False

    def secured(self) -> None:
        house = self._house
        verdict = house.member_of(self.channel.peer_certificate() or b"")
        if isinstance(verdict, NotAMember) or house.is_banned(verdict):
            house.admission.not_authenticated(self._address)
            self._refuse(verdict.reason if isinstance(verdict, NotAMember) else "banned")
        elif not house.admission.authenticated(self._address, verdict):
            self._refuse("too many connections of this peer")
        else:
            self._phase, self.peer_id = _Phase.MEMBER, verdict
            self._head = bytearray(wire.HEAD_LIMIT)
            self._room = memoryview(self._head)
            self._deadline = house.now() + HEAD_TIMEOUT_S

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._filled == 0:
            self._deadline = self._house.now() + HEAD_TIMEOUT_S
        self._filled += nbytes
        self._answer_all()
        if self._busy and self._filled == wire.HEAD_LIMIT:
            self.channel.pause_reading()

    def writable(self) -> None:
        if self._sending is not None:
            self._sending.blocked = False
            self._go_on()
        elif self._telling is not None:
            self._telling.writable()

    def lost(self, error: Exception | None) -> None:
        if self._phase is _Phase.HANDSHAKE:
            self._house.admission.not_authenticated(self._address)
            self._refuse(reason_of(error))
        elif self._phase is _Phase.MEMBER:
            self._end_sending()
            self._tell_no_more()
            self._house.admission.closed(self.peer_id)
        self._leave(self)

    def look(self, now: float) -> None:
        """Called every second: close what is idle, drop who reads too slowly."""
        sending = self._sending
        if self._phase is not _Phase.MEMBER or self.channel.is_closing() or self._telling is not None:
            return
        if sending is None:
            if now > self._deadline:
                self.channel.close()
        elif sending.blocked and sending.rate is not None and sending.rate.too_slow(now):
            self._house.counters.slow_readers += 1
            self.channel.abort()

    @property
    def _busy(self) -> bool:
        """The next request has to wait for the answer to this one."""
        return self._sending is not None

    def _refuse(self, reason: str) -> None:
        self._phase = _Phase.REFUSED
        counters = self._house.counters
        counters.refused += 1
        counters.refusals.append(Refused(address=self._address, reason=reason, at=self._house.now()))
        self.channel.close()

    def _answer_all(self) -> None:
        """Answer the requests that are here, one after the other, until one takes longer."""
        while not self._busy and self._filled and not self.channel.is_closing():
            end = self._head.find(b"\r\n\r\n", 0, self._filled) + 4
            if end < 4:
                if self._filled == wire.HEAD_LIMIT:
                    self._malformed(400)
                return
            data = bytes(self._room[:end])
            rest = self._filled - end
            self._room[:rest] = bytes(self._room[end : self._filled])
            self._filled = rest
            self._deadline = self._house.now() + (HEAD_TIMEOUT_S if rest else IDLE_TIMEOUT_S)
            try:
                head = wire.parse_request_head(data)
            except wire.WireError as error:
                self._malformed(error.status)
            else:
                self._answer(head)

    def _malformed(self, status: int) -> None:
        self._house.counters.malformed += 1
        self._tell_no_more(orderly=True)
        self._keep_alive = status in _HARMLESS
        self._respond(wire.format_response(status, headers=_goodbye(self._keep_alive)))

    def _answer(self, head: wire.RequestHead) -> None:
        house = self._house
        self._tell_no_more(orderly=True)
        house.counters.requests += 1
        self._keep_alive = head.keep_alive
        if house.is_banned(self.peer_id):
            self.channel.close()
            return
        if not self._introduced:
            self._introduced = True
            house.on_caller(Caller(peer_id=self.peer_id, address=self._address, port=head.port))
        request = head.request
        match request:
            case wire.BytesRequest():
                self._answer_range(request)
            case wire.OfferRequest():
                self._note_question((request.content_id,), request.denounced)
                self._answer_offer(request)
            case wire.NewsRequest():
                self._note_question(request.content_ids, request.denounced)
                telling = Telling(house, self.channel, self.peer_id, request)
                self._telling = telling if telling.begin() else None
            case wire.HelloRequest():
                self._respond_document(house.hello, "application/json")
            case wire.CertificateRequest():
                self._respond_document(house.certificate_of(request.peer_id), "application/pkix-cert")
            case _:
                assert_never(request)

    # offers

    def _note_question(self, content_ids: tuple[ContentId, ...], denounced: tuple[PeerId, ...]) -> None:
        for content_id in content_ids:
            self._house.on_asked(self.peer_id, content_id)
        if denounced:
            self._house.on_denounced(self.peer_id, denounced)

    def _answer_offer(self, request: wire.OfferRequest) -> None:
        house = self._house
        avoided = house.is_avoided(self.peer_id)
        state = house.offers.now(request.content_id, request.distrusted, avoided=avoided)
        if state is None:
            self._respond(_NOT_FOUND)
            return
        offer = wire.offer_of(state.layout, state.have, state.claimed, wants=state.wants)
        document = wire.format_document(offer)
        self._respond_document(document if len(document) <= wire.DOCUMENT_LIMIT else None, "application/json")

    def _tell_no_more(self, *, orderly: bool = False) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.end(orderly=orderly)

    # ranges

    def _answer_range(self, request: wire.BytesRequest) -> None:
        house, item = self._house, request.item
        entry = house.entry_of(request.content_id)
        if entry is None:
            self._respond(_NOT_FOUND)
            return
        layout = entry.layout
        chunks = layout.touched_by(item)
        if item.stop > layout.length or len(chunks) > wire.CHUNKS_A_REQUEST:
            self._respond(_NOT_SATISFIABLE)
            return
        wanted = ((1 << len(chunks)) - 1) << chunks[0]
        if entry.have & wanted != wanted:
            self._respond(_NOT_FOUND)
            return
        busy = house.admission.admit(self.peer_id)
        if busy is not None:
            house.counters.busy += 1
            self._respond(wire.format_response(503, headers=[("Retry-After", str(busy.retry_after_s))]))
            return
        word = house.vouchers_of(request.content_id, chunks)
        self._sending = _Sending(
            content_id=request.content_id,
            position=item.start,
            stop=item.stop,
            chunks=chunks,
            head=wire.format_range_head(item, layout.length, word),
            began_at=house.now(),
            word=word,
            let_go=house.store.hold(request.content_id),
        )
        self._send()

    def _go_on(self) -> None:
        self._send()
        if not self._busy:
            self.channel.resume_reading()
            self._answer_all()

    def _send(self) -> None:
        """Send as much of the range as the peer takes now; end the response when all of it is out."""
        sending, upload = self._sending, self._house.admission.upload
        if sending is None or self.channel.is_closing():
            return
        for _ in range(PIECES_A_TURN):
            if sending.position == sending.stop:
                self._end_sending()
                return
            wait_s = upload.delay(self._house.now()) if upload is not None else 0.0
            if wait_s > 0.0:
                sending.rate = None
                asyncio.get_running_loop().call_later(wait_s, self._turn, sending)
                return
            if sending.cold:
                self._house.spawn(self._or_end(self._send_cold(sending)))
                return
            began = self._house.now()
            if not self._send_piece(sending, self._house.store.read):
                return
            sending.cold = self._house.now() - began > COLD_S
            if sending.blocked:
                return
        asyncio.get_running_loop().call_soon(self._turn, sending)

    def _turn(self, sending: _Sending) -> None:
        if self._sending is sending and not sending.blocked:
            self._go_on()

    def _send_piece(self, sending: _Sending, read: Callable[[ContentId, ByteRange], bytes]) -> bool:
        piece = sending.piece
        try:
            data = read(sending.content_id, piece)
        except (LookupError, OSError) as error:
            self._cannot_read(sending, error)
            return False
        house = self._house
        if (word := house.vouchers_of(sending.content_id, sending.chunks)) and word != sending.word:
            self._cannot_read(sending, OSError("it was replaced by another copy"))
            return False
        if sending.head:
            self.channel.encrypt(sending.head)
            sending.head = b""
        sending.position = piece.stop
        self._note_written(sending, self.channel.write(data), piece.length)
        if house.admission.upload is not None:
            house.admission.upload.spend(piece.length)
        house.counters.gave(self.peer_id, sending.content_id, piece.length)
        return True

    def _note_written(self, sending: _Sending, went_on: bool, count: int) -> None:
        """`went_on`: what the channel said. A reader is watched from the first time that we wait for it."""
        sending.blocked = not went_on
        if sending.rate is not None:
            sending.rate.took(count)
        elif sending.blocked:
            sending.rate = ReadRate(self._house.admission.limits, self._house.now())

    async def _send_cold(self, sending: _Sending) -> None:
        """Read one piece in a thread, so that a slow disk holds up this connection only."""
        store, piece = self._house.store, sending.piece
        began = self._house.now()
        try:
            data = await self._house.workers.run(store.read, sending.content_id, piece)
        except (LookupError, OSError) as error:
            if self._sending is sending:
                self._cannot_read(sending, error)
            return
        sending.cold = self._house.now() - began > COLD_S
        if self._sending is sending and self._send_piece(sending, lambda _id, _item: data) and not sending.blocked:
            self._go_on()

    def _cannot_read(self, sending: _Sending, error: LookupError | OSError) -> None:
        """Not checked yet: check. Else it was dropped meanwhile, or the disk fails."""
        if not sending.head:
            self.channel.abort()
        elif isinstance(error, LookupError) and not sending.checked:
            sending.checked = True
            self._house.spawn(self._or_end(self._check(sending)))
        else:
            self._end_sending()
            self._respond(_NOT_FOUND)

    async def _check(self, sending: _Sending) -> None:
        first, last = ChunkIndex(sending.chunks[0]), ChunkIndex(sending.chunks[-1])
        await self._house.store.ensure_checked(sending.content_id, first, last)
        if self._sending is sending:
            self._go_on()

    async def _sweep(self) -> None:
        await self._house.store.sweep()

    async def _or_end(self, work: Coroutine[None, None, None]) -> None:
        """A task that fails or is cancelled leaves no response half said."""
        try:
            await work
        except BaseException:
            self.channel.abort()
            raise

    def _end_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is None:
            return
        now = self._house.now()
        self._deadline = now + (HEAD_TIMEOUT_S if self._filled else IDLE_TIMEOUT_S)
        if sending.let_go is not None:
            self._house.admission.finished(self.peer_id, now - sending.began_at)
            if sending.let_go():
                self._house.spawn(self._sweep())
        if not self._keep_alive:
            self.channel.close()

    def _respond_document(self, document: bytes | None, content_type: str) -> None:
        if document is None:
            self._respond(_NOT_FOUND)
        else:
            self._respond(wire.format_response(200, document, [("Content-Type", content_type)]))

    def _respond(self, response: bytes) -> None:
        """Send a response that is in memory; while the peer does not read it, it gets no other."""
        if not self.channel.write(response) and not self.channel.is_closing():
            self._sending = _Sending(
                content_id=ContentId(""),
                position=0,
                stop=0,
                chunks=range(0),
                head=b"",
                began_at=self._house.now(),
            )
            self._note_written(self._sending, False, 0)
        elif not self._keep_alive:
            self.channel.close()


_HARMLESS = frozenset({404, 416})
"""After these the connection goes on: the request was understood."""

_NOT_FOUND = wire.format_response(404)
"""The same bytes whether content is unknown, not for sharing, or not held in full."""

_NOT_SATISFIABLE = wire.format_response(416)


def _goodbye(keep_alive: bool) -> tuple[tuple[str, str], ...]:
    return () if keep_alive else (("Connection", "close"),)


def reason_of(error: Exception | None) -> str:
    """Why a handshake failed, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").replace("_", " ").lower()
    return str(error) if error is not None and str(error) else "closed during the handshake"
