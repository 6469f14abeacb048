"""The end of a transfer: requests to peers that take too long, and who could bring their chunks sooner.

A chunk is never written by two at once: who is too slow is cut off first, then somebody else is asked. Functions
that change nothing. Never knows: time of day, payload, why a peer is slow.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.core.requests import InFlight
from agent.core.sources import SourceKind, kind_of
from agent.core.tuning import Tuning
from agent.core.view import OriginReadiness, View
from validation.content import NO_CHUNKS, Bitfield


def too_late(
    view: View, flights: Sequence[InFlight], pace_s: float | None, tuning: Tuning, now: float
) -> list[InFlight]:
    """The requests whose chunks somebody else should bring. Only to be asked for when nothing else is to be had."""
    found, slots = [], {source.source: source.free_slots for source in view.near}
    origin_free = view.origin is OriginReadiness.READY
    at_work = {source.source for source in view.near if not source.cooling}
    for flight in flights:
        if (
            kind_of(flight.source) is not SourceKind.PEER
            or flight.aborting
            or now < check_at(flight, pace_s, tuning)
        ):
            continue
        usual_s = _usual_s(flight, pace_s, tuning)
        if flight.source in at_work and _rest_s(flight, now) <= usual_s:
            continue  # of one that is gone or silent nothing more will come, however little it was
        instead = next(
            (
                source.source
                for source in view.near
                if source.source != flight.source
                and slots[source.source] > 0
                and not source.cooling
                and not flight.chunks & ~source.have
            ),
            None,
        )
        if instead is not None:
            slots[instead] -= 1
        elif flight.source in at_work and _rest_s(flight, now) <= tuning.least_claim_s:
            continue  # the origin is for what would take longer than a promise is believed
        elif (flight.source in at_work or flight.received) and now < flight.began + 2 * usual_s:
            continue
        elif origin_free and _may_ask_origin(view, flight):
            origin_free = False
        else:
            continue
        found.append(flight)
    return found


def check_at(flight: InFlight, pace_s: float | None, tuning: Tuning) -> float:
    """When a request has taken so long that it is to be looked at."""
    return flight.began + _usual_s(flight, pace_s, tuning)


def _usual_s(flight: InFlight, pace_s: float | None, tuning: Tuning) -> float:
    if pace_s is None:
        return tuning.quiet_s
    return max(tuning.tail_s, tuning.tail_paces * pace_s * max(1, flight.chunks.bit_count()))


def _rest_s(flight: InFlight, now: float) -> float:
    if not flight.received:
        return float("inf")
    return (now - flight.began) * (flight.item.length - flight.received) / flight.received


def _may_ask_origin(view: View, flight: InFlight) -> bool:
    """The origin is asked by the chunk's owner first, then by the next in line, then by everybody."""
    owners = view.owners
    if owners is None or not owners.others or (view.hunger > 1 and not owners.sparse):
        return True
    claimed = NO_CHUNKS
    for source in view.near:
        claimed = Bitfield(claimed | source.claimed)
    return bool(owners.allowed(flight.chunks, view.hunger)) and not flight.chunks & claimed
