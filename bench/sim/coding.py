"""Events and commands as plain tuples, for the way between the two processes of a huge swarm (`helper.py`).

Those that there are many of are spelled out, the rest is taken apart field by field. Vouchers are named by chunk
and signer: their digests are those of the content, as nobody lies where this is used.
Never knows: time, links, processes.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args

from msgspec import Struct

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.core.sources import ORIGIN, peer_of
from peer.core.failure import Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId, Voucher
from validation.content import ChunkIndex, ChunkLayout
from validation.ranges import ByteRange

if TYPE_CHECKING:
    from bench.sim.swarm import Swarm
    from bench.sim.transfer import Transfer

Coded = tuple[Any, ...]
Signed = tuple[int, int]
"""A chunk and the number of the host that vouches for it."""

_OTHER, _ARRIVED, _RECEIVED, _SIZED = range(4)
_FETCH, _PUBLISH, _CLAIM = range(1, 4)
_FROM_ORIGIN = -1


class Coding:
    """Of one swarm. Both processes have one."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._vouchers: dict[tuple[int, int, PeerId], Voucher] = {}

    def event(self, event: ev.FileEvent) -> Coded:
        """To a tuple."""
        match event:
            case ev.RangeArrived(request=request, item=item):
                return (_ARRIVED, request, item.start, item.stop)
            case ev.RangeReceived(request=request, item=item, vouchers=vouchers):
                return (_RECEIVED, request, item.start, item.stop, self._signed(vouchers))
            case ev.CrowdSized(size=size):
                return (_SIZED, size)
            case _:
                return (_OTHER, _apart(event))

    def event_of(self, coded: Coded, transfer: Transfer) -> ev.FileEvent:
        """And back."""
        match coded:
            case (0, parts):
                event: ev.FileEvent = _together(parts)
                return event
            case (1, request, start, stop):
                return ev.RangeArrived(file=transfer.file, request=request, item=ByteRange(start, stop))
            case (2, request, start, stop, signed):
                vouchers = self._vouchers_of(signed, transfer)
                item = ByteRange(start, stop)
                return ev.RangeReceived(file=transfer.file, request=request, item=item, vouchers=vouchers)
            case (3, size):
                return ev.CrowdSized(file=transfer.file, size=size, group=self._swarm.group)
            case _:
                raise ValueError(f"no event: {coded!r}")

    def command(self, command: cmd.Command) -> Coded:
        """To a tuple."""
        match command:
            case cmd.FetchRange(request=request, source=source, item=item):
                peer = peer_of(source)
                number = _FROM_ORIGIN if peer is None else self._swarm.by_peer[peer].number
                return (_FETCH, request, number, item.start, item.stop)
            case cmd.PublishChunk(chunk=chunk, vouchers=vouchers):
                return (_PUBLISH, chunk, self._signed(vouchers))
            case cmd.PublishClaim(content_ids=ids, chunks=chunks, wants=wants):
                return (_CLAIM, bool(ids), chunks, wants)
            case _:
                return (_OTHER, _apart(command))

    def command_of(self, coded: Coded, transfer: Transfer) -> cmd.Command:
        """And back."""
        content, file = transfer.content, transfer.file
        match coded:
            case (0, parts):
                command: cmd.Command = _together(parts)
                return command
            case (1, request, number, start, stop):
                source = ORIGIN if number == _FROM_ORIGIN else self._swarm.hosts[number].source
                return cmd.FetchRange(file=file, request=request, source=source, item=ByteRange(start, stop))
            case (2, chunk, signed):
                return cmd.PublishChunk(
                    file=file,
                    content_ids=(content.content_id,),
                    layout=content.layout,
                    chunk=chunk,
                    digest=content.digests[chunk],
                    vouchers=self._vouchers_of(signed, transfer),
                    sign=(),
                )
            case (3, said, chunks, wants):
                ids = (content.content_id,) if said else ()
                return cmd.PublishClaim(
                    file=file, content_ids=ids, layout=content.layout, chunks=chunks, wants=wants
                )
            case _:
                raise ValueError(f"no command: {coded!r}")

    def _signed(self, vouchers: tuple[Voucher, ...]) -> tuple[Signed, ...]:
        return tuple([(int(each.chunk), self._swarm.by_peer[each.signer].number) for each in vouchers])

    def _vouchers_of(self, signed: tuple[Signed, ...], transfer: Transfer) -> tuple[Voucher, ...]:
        return tuple([self._voucher(chunk, number, transfer) for chunk, number in signed])

    def _voucher(self, chunk: int, number: int, transfer: Transfer) -> Voucher:
        """The same object for the same statement: a huge swarm has as many as chunks, not as many as deliveries."""
        content, signer = transfer.content, self._swarm.hosts[number].peer
        key = (content.number, chunk, signer)
        voucher = self._vouchers.get(key)
        if voucher is None:
            voucher = self._vouchers[key] = Voucher(
                content_id=content.content_id,
                chunk=ChunkIndex(chunk),
                digest=content.digests[chunk],
                signer=signer,
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
    each: each.__struct_fields__ if issubclass(each, Struct) else tuple(field.name for field in fields(each))
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
