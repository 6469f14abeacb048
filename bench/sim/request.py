"""One request of a simulated agent: on its way to who was asked, then the bytes on their way back.

Never decides anything. Never knows: rates, offers, the scenario.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core import commands as cmd
from agent.core import events as ev
from bench.sim import stock
from bench.sim.network import Flow
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import Voucher
from validation.ranges import ByteRange

if TYPE_CHECKING:
    from bench.sim.transfer import Transfer

STALL_S = 10.0
"""After so long without a byte, a request fails."""
LOST_S = 0.004
"""What the origin sends beyond what is wanted when a request of it ends early: so much at the rate of then."""


class Request(Flow):
    """What one transfer asked of another, or of the origin."""

    __slots__ = ("began", "giver", "number", "since", "taker", "told")

    def __init__(self, taker: Transfer, command: cmd.FetchRange, giver: Transfer | None) -> None:
        """Without a giver: of the origin."""
        item, swarm = command.item, taker.swarm
        links = swarm.origin_links(taker.host) if giver is None else giver.host.links_to(taker.host)
        Flow.__init__(self, links, item.start, item.stop)
        self.taker = taker
        self.giver = giver
        self.number = command.request
        self.told = item.start
        self.began = item.start
        self.since = swarm.clock.now
        chunk_bytes = taker.content.layout.chunk_bytes
        self.mark = min(item.stop, (item.start // chunk_bytes + 1) * chunk_bytes)

    def open(self) -> None:
        """It arrived where it was to go, and the answer begins to come."""
        taker, giver = self.taker, self.giver
        if taker.requests.get(self.number) is not self:
            return  # ended meanwhile
        swarm = taker.swarm
        if giver is None:
            if swarm.origin_is_down:
                self.fail(FailureKind.CONNECT_FAILED)
                return
            swarm.network.start(self)
            return
        if not giver.host.alive:
            self.fail(FailureKind.CONNECT_FAILED)
        elif self.wanted & ~giver.have:
            if not giver.host.trust.banned and not swarm.has_forgers:
                raise swarm.broken(f"{taker.host.name} asks {giver.host.name} for what it never offered")
            self.fail(FailureKind.NOT_FOUND)
        elif (busy := giver.host.admission.admit(taker.host.peer)) is not None:
            self.fail(FailureKind.BUSY, retry_after_s=float(busy.retry_after_s))
        else:
            self.since = swarm.clock.now
            if giver.host.hangs:
                swarm.network.hang(self)
            else:
                swarm.network.start(self)

    @property
    def wanted(self) -> int:
        """The chunks, as a set."""
        size = self.taker.content.layout.chunk_bytes
        first, last = self.began // size, (self.stop - 1) // size
        return ((2 << (last - first)) - 1) << first

    # --- its end ---------------------------------------------------------------------------------------------

    def fail(self, kind: FailureKind, retry_after_s: float | None = None) -> None:
        """It ends badly, now."""
        taker = self.taker
        if self.giver is None and self.on and kind is FailureKind.ABORTED:
            rest = min(self.stop - self.place, self.rate * LOST_S)
            taker.swarm.origin_sent += rest
        self.drop()
        why = Failure(kind=kind, message=kind.value, retry_after_s=retry_after_s)
        event = ev.RangeFailed(file=taker.file, request=self.number, failure=why)
        taker.swarm.clock.at(taker.swarm.clock.now, taker.post, event)

    def drop(self) -> None:
        """It is over, and nobody hears of it."""
        taker, giver = self.taker, self.giver
        if self.on:
            taker.swarm.network.stop(self)
            self._count()
            if giver is not None:
                giver.host.admission.finished(taker.host.peer, taker.swarm.clock.now - self.since)
        taker.ended(self)

    def _count(self) -> None:
        """What was sent counts when it is over."""
        count = self.place - self.began
        if self.giver is None:
            self.taker.swarm.origin_sent += count
        else:
            self.giver.host.sent += count

    # --- bytes -----------------------------------------------------------------------------------------------

    def heard(self) -> None:
        """As far as `place` it is there."""
        taker, place = self.taker, int(self.place)
        swarm = taker.swarm
        if place <= self.told:
            if swarm.clock.now >= self.since + STALL_S:
                self.fail(FailureKind.STALLED)
            return
        item, self.told = ByteRange(self.told, place), place
        arrived = ev.RangeArrived(file=taker.file, request=self.number, item=item)
        if place >= self.mark:
            self._whole(place)
        if place < self.stop:
            taker.post(arrived)
            return
        vouchers = () if self.giver is None else self._given(self.giver)
        self.drop()
        whole = ByteRange(self.began, self.stop)
        taker.post(arrived)
        taker.post(ev.RangeReceived(file=taker.file, request=self.number, item=whole, vouchers=vouchers))

    def _whole(self, place: int) -> None:
        """A chunk, or several, is there from its beginning, or from where it was missing."""
        content = self.taker.content
        size, first = content.layout.chunk_bytes, self.mark
        self.mark = min(self.stop, (place // size + 1) * size)
        if self.giver is None:
            stop = content.layout.count if place >= content.layout.length else place // size
            for chunk in range((first - 1) // size, stop):
                content.from_origin[chunk] += 1
                self.taker.noise.discard(chunk)

    def _given(self, giver: Transfer) -> tuple[Voucher, ...]:
        """The vouchers; what was altered is remembered."""
        found: tuple[Voucher, ...] = ()
        noise, banned = self.taker.noise, self.taker.host.trust.banned
        size = self.taker.content.layout.chunk_bytes
        for chunk in range(self.began // size, (self.stop - 1) // size + 1):
            noise.discard(chunk)
            if stock.alters(giver, chunk):
                noise.add(chunk)
            found += stock.vouchers_for(giver, chunk, banned)
        return found
