"""Events and commands as plain tuples, for the way between the two processes of a huge swarm and back (`helper.py`).

Those that there are many of are spelled out, which takes a fifth of the time that `pickle` takes; it does the rest.
Vouchers are named by chunk and signer: their digests are those of the content, as nobody lies where this is used.
Never knows: time, links, processes.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.sources import ORIGIN, peer_of
from peer.core.voucher import PeerId, Voucher
from validation.content import ChunkIndex
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
                return (_OTHER, pickle.dumps(event))

    def event_of(self, coded: Coded, transfer: Transfer) -> ev.FileEvent:
        """And back."""
        match coded:
            case (0, data):
                event: ev.FileEvent = pickle.loads(data)
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
                return (_OTHER, pickle.dumps(command))

    def command_of(self, coded: Coded, transfer: Transfer) -> cmd.Command:
        """And back."""
        content, file = transfer.content, transfer.file
        match coded:
            case (0, data):
                command: cmd.Command = pickle.loads(data)
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
