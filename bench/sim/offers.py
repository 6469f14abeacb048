"""What a simulated transfer tells its neighbours: what it has, brings and wants, held together for a while as
agents do it (peer/core/news.py).

Never decides what is offered. Never knows: requests, links, the scenario.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agent.core import events as ev
from peer.core.news import Pace
from peer.core.state import State
from validation.content import Bitfield, bitfield

if TYPE_CHECKING:
    from bench.sim.transfer import Transfer

OFFER_BYTES = 500
"""About what an answer takes."""


def offer_of(transfer: Transfer) -> ev.SourceOffered | None:
    """What is to be told of it now. None: nothing."""
    if not (transfer.have or transfer.claimed or transfer.wants):
        return None
    return _offered(transfer, transfer.have, transfer.claimed, transfer.wants)


def _offered(transfer: Transfer, have: Bitfield, claimed: Bitfield, wants: bool) -> ev.SourceOffered:
    return ev.SourceOffered(
        file=transfer.file, source=transfer.host.source, have=have, claimed=claimed, wants=wants
    )


def _state_of(transfer: Transfer) -> State | None:
    if not (transfer.have or transfer.claimed or transfer.wants):
        return None
    return State(layout=transfer.content.layout, have=transfer.have, claimed=transfer.claimed, wants=transfer.wants)


def tell(transfer: Transfer) -> None:
    """The others hear what is new when an agent would tell them."""
    clock = transfer.swarm.clock
    if transfer.pace is None:
        transfer.pace = Pace()
    due = transfer.pace.due(_state_of(transfer))
    if due is None:
        return
    tick = max(clock.tick + 1, clock.tick_of(max(clock.now, due)))
    if not transfer.news_due or tick < transfer.news_due:
        transfer.news_due = tick
        clock.at_tick(tick, _say, transfer)


def _say(transfer: Transfer) -> None:
    """News are due, unless others were due before."""
    clock = transfer.swarm.clock
    if transfer.news_due != clock.tick or not transfer.host.alive or transfer.pace is None:
        return
    transfer.news_due = 0
    offer = offer_of(transfer)
    if offer == transfer.offer:
        return
    transfer.pace.told(_state_of(transfer), OFFER_BYTES, clock.now)
    transfer.offer = offer
    if transfer.swarm.helper is not None:
        transfer.swarm.helper.offered(transfer)
    clock.at(clock.now + transfer.swarm.latency_s, _spread, transfer)


def _spread(transfer: Transfer) -> None:
    for other in transfer.neighbours:
        if other.asks:
            other.unheard[transfer] = None
            if not other.awake:
                other.wake()


def news_of(others: Iterable[Transfer], listener: Transfer) -> list[ev.FileEvent]:
    """What these say now, as the listener hears it."""
    trust = listener.host.trust
    return [
        (other.offer if trust.calm and other.host.trust.calm else _said_to(other, listener))
        or ev.SourceLost(file=listener.file, source=other.host.source)
        for other in others
        if other.host.alive and (trust.calm or not trust.avoids(other.host))
    ]


def _said_to(transfer: Transfer, listener: Transfer) -> ev.SourceOffered | None:
    """What is offered, without what rests on the word of those whom the listener banned. Whom we avoid ourselves
    hears that we bring all that we lack: so it does not ask the origin for us."""
    offer, trust, distrusted = transfer.offer, transfer.host.trust, listener.host.trust.banned
    if offer is None:
        return None
    have, claimed = offer.have, offer.claimed
    if distrusted:
        by = transfer.swarm.by_peer
        useless = (chunk for chunk, each in transfer.vouchers.items() if by[each.signer] in distrusted)
        have = Bitfield(have & ~bitfield(useless))
    if offer.wants and trust.avoids(listener.host):
        claimed = Bitfield(transfer.content.layout.everything & ~have)
    return _offered(transfer, have, claimed, offer.wants)
