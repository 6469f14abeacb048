"""Events and commands as plain numbers, for the way between the two processes of a huge swarm (`helper.py`).

Those that there are many of are spelled out, the rest is taken apart field by field. Vouchers are named by chunk
and signer: their digests are those of the content, as nobody lies where this is used.
Never knows: time, links, processes.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, get_args

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.core.sources import ORIGIN, peer_of
from peer.core.failure import Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import Voucher
from validation.content import ChunkIndex, ChunkLayout
from validation.ranges import ByteRange

if TYPE_CHECKING:
    from bench.sim.swarm import Swarm
    from bench.sim.transfer import Transfer

Coded = list[Any]
"""Of several, one after the other: what each is, then its numbers. (A list of lists takes twice as long.)"""

_OTHER: Final = 0
_ARRIVED: Final = 1
_BROUGHT: Final = 2
_SIZED: Final = 3
_FETCH: Final = 4
_PUBLISH: Final = 5
_CLAIM: Final = 6
_FROM_ORIGIN: Final = -1


class Coding:
    """Of one swarm. Both processes have one."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._vouchers: dict[tuple[int, int, int], Voucher] = {}

    # --- events ----------------------------------------------------------------------------------------------

    def events(self, events: list[ev.FileEvent]) -> Coded:
        """To numbers. That the last bytes of a request have arrived and that it ended are said together."""
        coded: Coded = []
        arrived: ev.RangeArrived | None = None
        for event in events:
            last, arrived = arrived, None
            if isinstance(event, ev.RangeReceived):
                item = event.item
                if last is not None and last.request == event.request and last.item.stop == item.stop:
                    come, last = last.item, None
                else:
                    come = ByteRange(item.stop, item.stop)
                self._arrived(coded, last)
                coded += (_BROUGHT, event.request, come.start, item.start, item.stop, len(event.vouchers))
                self._sign(coded, event.vouchers)
                continue
            self._arrived(coded, last)
            if isinstance(event, ev.RangeArrived):
                arrived = event
            elif isinstance(event, ev.CrowdSized):
                coded += (_SIZED, event.size)
            else:
                coded += (_OTHER, _apart(event))
        self._arrived(coded, arrived)
        return coded

    @staticmethod
    def _arrived(coded: Coded, event: ev.RangeArrived | None) -> None:
        if event is not None:
            coded += (_ARRIVED, event.request, event.item.start, event.item.stop)

    def events_of(self, coded: Coded, transfer: Transfer) -> list[ev.FileEvent]:
        """And back."""
        file, found, at, end = transfer.file, list[ev.FileEvent](), 0, len(coded)
        while at < end:
            kind: int = coded[at]
            first: Any = coded[at + 1]
            if kind == _BROUGHT:
                come, start, stop, signed = coded[at + 2 : at + 6]
                at += 6 + 2 * signed
                vouchers = self._signed(coded, at, signed, transfer)
                if come < stop:
                    found.append(ev.RangeArrived(file=file, request=first, item=ByteRange(come, stop)))
                item = ByteRange(start, stop)
                found.append(ev.RangeReceived(file=file, request=first, item=item, vouchers=vouchers))
            elif kind == _ARRIVED:
                item = ByteRange(coded[at + 2], coded[at + 3])
                found.append(ev.RangeArrived(file=file, request=first, item=item))
                at += 4
            elif kind == _SIZED:
                found.append(ev.CrowdSized(file=file, size=first, group=self._swarm.group))
                at += 2
            else:
                found.append(_together(first))
                at += 2
        return found

    # --- commands --------------------------------------------------------------------------------------------

    def command(self, command: cmd.Command, coded: Coded) -> None:
        """To numbers, which are added to the others."""
        if isinstance(command, cmd.FetchRange):
            peer = peer_of(command.source)
            number = _FROM_ORIGIN if peer is None else self._swarm.by_peer[peer].number
            coded += (_FETCH, command.request, number, command.item.start, command.item.stop)
        elif isinstance(command, cmd.PublishChunk):
            coded += (_PUBLISH, command.chunk, len(command.vouchers))
            self._sign(coded, command.vouchers)
        elif isinstance(command, cmd.PublishClaim):
            coded += (_CLAIM, bool(command.content_ids), command.chunks, command.wants)
        else:
            coded += (_OTHER, _apart(command))

    def commands_of(self, coded: Coded, transfer: Transfer) -> list[cmd.Command]:
        """And back."""
        content, file = transfer.content, transfer.file
        ids = (content.content_id,)
        found, at, end = list[cmd.Command](), 0, len(coded)
        while at < end:
            kind: int = coded[at]
            first: Any = coded[at + 1]
            if kind == _FETCH:
                number, start, stop = coded[at + 2 : at + 5]
                source = ORIGIN if number == _FROM_ORIGIN else self._swarm.hosts[number].source
                item = ByteRange(start, stop)
                found.append(cmd.FetchRange(file=file, request=first, source=source, item=item))
                at += 5
            elif kind == _PUBLISH:
                signed = coded[at + 2]
                at += 3 + 2 * signed
                found.append(
                    cmd.PublishChunk(
                        file=file,
                        content_ids=ids,
                        layout=content.layout,
                        chunk=first,
                        digest=content.digests[first],
                        vouchers=self._signed(coded, at, signed, transfer),
                        sign=(),
                    )
                )
            elif kind == _CLAIM:
                chunks, wants = coded[at + 2], coded[at + 3]
                said = ids if first else ()
                found.append(
                    cmd.PublishClaim(file=file, content_ids=said, layout=content.layout, chunks=chunks, wants=wants)
                )
                at += 4
            else:
                found.append(_together(first))
                at += 2
        return found

    # --- vouchers --------------------------------------------------------------------------------------------

    def _sign(self, coded: Coded, vouchers: tuple[Voucher, ...]) -> None:
        """A chunk, and the number of the host that vouches for it, of each."""
        by_peer = self._swarm.by_peer
        for each in vouchers:
            coded += (int(each.chunk), by_peer[each.signer].number)

    def _signed(self, coded: Coded, end: int, count: int, transfer: Transfer) -> tuple[Voucher, ...]:
        """So many that end there."""
        first = end - 2 * count
        return tuple([self._voucher(coded[at], coded[at + 1], transfer) for at in range(first, end, 2)])

    def _voucher(self, chunk: int, number: int, transfer: Transfer) -> Voucher:
        """The same object for the same statement: a huge swarm has as many as chunks, not as many as deliveries."""
        content = transfer.content
        key = (content.number, chunk, number)
        voucher = self._vouchers.get(key)
        if voucher is None:
            voucher = self._vouchers[key] = Voucher(
                content_id=content.content_id,
                chunk=ChunkIndex(chunk),
                digest=content.digests[chunk],
                signer=self._swarm.hosts[number].peer,
                signature=b"",
            )
        return voucher


# --- what is rare --------------------------------------------------------------------------------------------

_VALUES = (
    *get_args(ev.FileEvent),
    *get_args(cmd.Action),
    *get_args(cmd.Outcome),
    Failure,
    OriginFacts,
    ChunkLayout,
    ByteRange,
)
_ENUMS = (FailureKind, RangeSupport, Sharing, Offence)
_CLASSES: dict[str, Any] = {each.__name__: each for each in (*_VALUES, *_ENUMS)}
_FIELDS: dict[type, tuple[str, ...]] = {
    each: getattr(each, "__struct_fields__", None) or tuple(field.name for field in fields(each))
    for each in _VALUES
}


def _apart(value: Any) -> Any:
    """Numbers, texts, and tuples of such."""
    if isinstance(value, Enum):
        return (type(value).__name__, value.name)
    if (names := _FIELDS.get(type(value))) is not None:
        return (type(value).__name__, *[_apart(getattr(value, name)) for name in names])
    if isinstance(value, tuple):
        return ("", *[_apart(each) for each in value])
    return value


def _together(parts: Any) -> Any:
    if not isinstance(parts, tuple):
        return parts
    name, *rest = parts
    if not name:
        return tuple(_together(each) for each in rest)
    made = _CLASSES[name]
    if issubclass(made, Enum):
        return made[rest[0]]
    return made(**{name: _together(each) for name, each in zip(_FIELDS[made], rest, strict=True)})
