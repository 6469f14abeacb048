"""The news about one content on their way: an offer, and then what changes of it, one message after the other.

    HTTP/1.1 200 OK
    Transfer-Encoding: chunked              each chunk is one JSON message (RFC 9112 §7.1, without extensions)

    {"say":"offer","of":0,"offer":{...}}    everything, of the content under this one of the ids that were asked for
    {"say":"more","more":[7,9],"claimed":[12],"wants":true}   it has these too; claimed: all that it claims now
    {"say":"nothing"}                       it has no part in the content
    {"say":"still"}                         as said before: nothing else was to be said for a while

Never knows: sockets, time, who listens. Whatever it is given, reading raises `WireError` and nothing else.
"""

from __future__ import annotations

import re

import msgspec

from peer.core import wire
from peer.core.state import State
from validation.content import NO_CHUNKS, Bitfield, bitfield, chunks_in

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json-seq\r\n"
    b"Cache-Control: no-store\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"

LISTED = 16
"""Changes with more chunks than this, and more than a quarter of all, are told as a whole offer: it is shorter."""

_SIZE_LINE = re.compile(rb"([0-9a-f]{1,6})\r\n")
_SIZE_LIMIT = 8
"""Bytes of a size line."""


class Whole(msgspec.Struct, frozen=True, tag_field="say", tag="offer"):
    """All that is offered."""

    of: int
    offer: wire.Offer


class More(msgspec.Struct, frozen=True, tag_field="say", tag="more"):
    """What came since the message before."""

    more: tuple[int, ...]
    claimed: tuple[int, ...]
    wants: bool


class Nothing(msgspec.Struct, frozen=True, tag_field="say", tag="nothing"):
    """Nothing is offered."""


class Still(msgspec.Struct, frozen=True, tag_field="say", tag="still"):
    """It is as it was."""


Message = Whole | More | Nothing | Still

_decode = msgspec.json.Decoder(Message).decode


def format_news(told: State | None, now: State | None, of: int, *, first: bool = False) -> bytes:
    """The message that leads from what was told to what holds now. `of`: the place of the content's id among those
    that were asked for; `first`: nothing was told yet of this id."""
    if now is None:
        return _frame(Still() if told is None and not first else Nothing())
    if told is None or first or told.layout != now.layout or told.have & ~now.have:
        return _whole(now, of)
    if told == now:
        return _frame(Still())
    fresh = now.have & ~told.have
    listed = fresh.bit_count() + now.claimed.bit_count()
    if listed > LISTED and listed > now.layout.count // 4:
        return _whole(now, of)
    more = tuple(chunks_in(Bitfield(fresh)))
    return _frame(More(more=more, claimed=tuple(chunks_in(now.claimed)), wants=now.wants))


def _whole(now: State, of: int) -> bytes:
    offer = wire.offer_of(now.layout, now.have, now.claimed, wants=now.wants)
    return _frame(Whole(of=of, offer=offer))


def _frame(message: Message) -> bytes:
    """One message; nothing is said to be there when it would be too long to be read."""
    data = msgspec.json.encode(message)
    if len(data) > wire.DOCUMENT_LIMIT:
        return _frame(Nothing())
    return b"%x\r\n%b\r\n" % (len(data), data)


class NewsReader:
    """What one peer tells of one content. Feed it the body of the response."""

    def __init__(self, contents: int) -> None:
        """`contents`: under so many ids the content was asked for."""
        self.state: State | None = None
        """What holds, by the last message; None: nothing is offered."""
        self.of = 0
        """Under which id."""
        self.ended = False
        """The last message came."""
        self._contents = contents
        self._rest = bytearray()

    def feed(self, data: bytes | memoryview) -> bool:
        """Take what came. True: at least one message is among it. Raises WireError; then nothing more may come."""
        rest = self._rest
        rest += data
        place, said = 0, False
        while not self.ended:
            line = _SIZE_LINE.match(rest, place)
            if line is None:
                if len(rest) - place >= _SIZE_LIMIT or b"\n" in rest[place:]:
                    raise wire.WireError("a stream that is not chunked")
                break
            size = int(line[1], 16)
            stop = line.end() + size
            if size > wire.DOCUMENT_LIMIT:
                raise wire.WireError("news above the limit")
            if len(rest) < stop + 2:
                break
            if rest[stop : stop + 2] != b"\r\n":
                raise wire.WireError("a chunk that does not end")
            if size:
                self._take(bytes(rest[line.end() : stop]))
                said = True
            self.ended, place = not size, stop + 2
        del rest[:place]
        return said

    @property
    def surplus(self) -> bool:
        """Something came after the end."""
        return self.ended and bool(self._rest)

    def _take(self, data: bytes) -> None:
        try:
            message = _decode(data)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise wire.WireError(f"no news: {type(error).__name__}") from error
        match message:
            case Still():
                pass
            case Nothing():
                self.state = None
            case Whole(of=of, offer=offer):
                if not 0 <= of < self._contents:
                    raise wire.WireError("news of something that was not asked for")
                self.state, self.of = _state_of(wire.check_offer(offer)), of
            case More():
                self.state = self._with_more(message)

    def _with_more(self, message: More) -> State:
        state = self.state
        if state is None:
            raise wire.WireError("more of nothing")
        count = state.layout.count
        more, claimed = _chunks(message.more, count), _chunks(message.claimed, count)
        return State(layout=state.layout, have=Bitfield(state.have | more), claimed=claimed, wants=message.wants)


def _chunks(named: tuple[int, ...], count: int) -> Bitfield:
    if not named:
        return NO_CHUNKS
    if len(named) > count or min(named) < 0 or max(named) >= count:
        raise wire.WireError("news of chunks that the content does not have")
    return bitfield(named)


def _state_of(offer: wire.Offer) -> State:
    return State(layout=offer.layout, have=offer.have_chunks, claimed=offer.claimed_chunks, wants=offer.wants)
