"""This transfer among the others that want the same content: who they are, how long we have waited for them, and
whether near sources are fast enough.

Never knows: digests, phases, how offers travel.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.core.flow import Flow
from agent.core.ownership import Ownership
from agent.core.rendezvous import Group
from agent.core.requests import InFlight, Requests
from agent.core.source_book import SourceBook
from agent.core.sources import ORIGIN
from agent.core.spec import OriginUse, TransferSpec
from agent.core.tail import check_at, too_late
from agent.core.tuning import Tuning
from agent.core.view import Assignment, OriginReadiness, View
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout, ContentId


class Crowd:
    """Those who want one content, as one of them sees it."""

    def __init__(self, tuning: Tuning, sources: SourceBook, requests: Requests, own: PeerId | None) -> None:
        self.near_flow = Flow(tuning.rate_s)
        self._tuning = tuning
        self._sources = sources
        self._requests = requests
        self._own = own
        self._ownership: Ownership | None = None
        self._named: tuple[ContentId, int] | None = None
        self._expected: tuple[int, Group] | None = None
        self._company: list[PeerId] | None = None
        """Who wanted it beside us when the owners were looked at last."""
        self._hungry_since: float | None = None
        self._at_the_end = False
        """There is nothing more to ask for than what was asked."""

    @property
    def alone(self) -> bool:
        """There is no group."""
        return self._own is None

    def owners(self, content_ids: tuple[ContentId, ...], layout: ChunkLayout, now: float) -> Ownership | None:
        """Who is to ask the origin for which chunk."""
        if self._own is None or not content_ids:
            return None
        named = (content_ids[0], layout.count)
        if self._ownership is None or self._named != named:
            self._ownership, self._named, self._company = Ownership(*named, self._own), named, None
            if self._expected is not None:
                self._ownership.expect(*self._expected)
        company = self._sources.wanting(now)
        if company != self._company:
            self._company = company
            self._ownership.become(peer for peer in company if peer != self._own)
        return self._ownership

    def expect(self, size: int, group: Group) -> None:
        """So many of a large group are believed to want the content, us included: more than are known to us."""
        self._expected = size, group
        if self._ownership is not None:
            self._ownership.expect(size, group)

    def overtaken(self, entry: InFlight, have: Bitfield, chunk_bytes: int) -> bool:
        """Chunks that the origin is about to send can be had near. In a group, also the one it is sending, before
        half of it is there."""
        current, done = divmod(entry.cursor, chunk_bytes)
        kept = 1 << current if self.alone or done >= chunk_bytes // 2 else 0
        return bool(have & entry.chunks & ~kept)

    def claimed(self, now: float) -> Bitfield:
        """The chunks that we bring into the group: from the origin, or from a peer that only gives."""
        entry = self._requests.of_origin
        field = NO_CHUNKS if entry is None or entry.aborting else entry.chunks
        if self._sources.any_giver:
            for entry in self._requests.near:
                if not entry.aborting and self._sources.only_gives(entry.source, now):
                    field = Bitfield(field | entry.chunks)
        return field

    # --- waiting for others ----------------------------------------------------------------------------------

    def doubt(self, view: View, made: list[Assignment], now: float) -> list[InFlight]:
        """After `plan`: what is waited for in vain, or fetched from far though others fetch it. To be aborted."""
        self._at_the_end = not made and view.near_slots > 0
        others = view.owners is not None and bool(view.owners.others)
        hopeful = _with_hope(view, made)
        driven = bool(hopeful) and _out_of_hunger(view, hopeful)
        idle = others and (driven or not hopeful) and (view.origin is OriginReadiness.READY or view.near_slots > 0)
        if not idle or not (self.slow(now) or view.missing):
            self._hungry_since = None
        elif self._hungry_since is None:
            self._hungry_since = now  # what hunger made us ask for changes nothing: the next such chunk follows
        found = (
            too_late(view, self._requests.near, self._sources.pace_s, self._tuning, now) if self._at_the_end else []
        )
        for flight in found:
            self._sources.took_too_long(flight.source, flight.chunks, now)
        return found + self._foreign(view)

    def slow(self, now: float) -> bool:
        """Some request to a near source takes longer than usual."""
        near = self._requests.near  # in the order in which they were made
        if not near or now < near[0].began + min(self._tuning.tail_s, self._tuning.quiet_s):
            return False
        return any(now >= self._check_at(entry) for entry in near)

    def stand(self, now: float, *, room: bool, ready: bool, missing: bool) -> None:
        """Instead of `doubt`, when there was nothing to plan: nobody has what could be asked for, or all are busy.
        `room`: near sources might be given more, `ready`: or the origin; `missing`: chunks are missing that nobody
        brings."""
        self._at_the_end = room
        if not ((room or ready) and missing and self._sources.spreading):
            self._hungry_since = None
        elif self._hungry_since is None:
            self._hungry_since = now

    def rest(self) -> None:
        """Nothing is waited for any more."""
        self._hungry_since, self._at_the_end = None, False

    def _foreign(self, view: View) -> list[InFlight]:
        """The origin's request, when it was made before those came who own most of it now."""
        entry, owners = self._requests.of_origin, view.owners
        if entry is None or owners is None or not owners.others or view.top_up:
            return []
        if view.origin is OriginReadiness.WHOLE_ONLY:
            return []
        others = entry.chunks & ~owners.ours & ~(0b11 << (entry.cursor // view.layout.chunk_bytes))
        return [entry] if others.bit_count() >= self._tuning.foreign_chunks else []

    def doubts(self, now: float) -> Iterator[float]:
        """When what is waited for is to be looked at again."""
        hungrier = self._hungrier_at(now)
        if hungrier is not None:
            yield hungrier
        if self._at_the_end:
            for entry in self._requests.near:
                first = self._check_at(entry)
                yield first if first > now else now + self._tuning.tail_s

    def _check_at(self, entry: InFlight) -> float:
        return check_at(entry, self._sources.pace_s, self._tuning)

    def hunger(self, now: float) -> int:
        """How many times longer than it should take we have waited."""
        if self._hungry_since is None:
            return 0
        return min(self._most_hunger, int((now - self._hungry_since) / self._hunger_s + 1e-9))

    @property
    def _most_hunger(self) -> int:
        return 2 if self._ownership is None else self._ownership.most_hunger

    def _hungrier_at(self, now: float) -> float | None:
        level = self.hunger(now)
        if self._hungry_since is None or level >= self._most_hunger:
            return None
        return self._hungry_since + (level + 1) * self._hunger_s

    @property
    def _hunger_s(self) -> float:
        """In a large group nobody may bring a chunk: one waits no longer than the news of it would take."""
        claims, tuning = self._sources.claims, self._tuning
        if self._ownership is None or not self._ownership.sparse:
            return claims.hunger_s
        pace_s = tuning.sparse_hunger_s if claims.pace_s is None else tuning.sparse_hunger_paces * claims.pace_s
        return min(claims.hunger_s, max(tuning.sparse_hunger_s, pace_s))

    # --- the job's policy ------------------------------------------------------------------------------------

    def tops_up(self, spec: TransferSpec, missing_bytes: int, now: float) -> bool:
        """The origin is to bring what near sources have as well."""
        rate = self.near_flow.rate(now)
        if rate is None:
            return False
        if spec.origin_floor is not None and rate < spec.origin_floor:
            return True
        if spec.origin_use is OriginUse.LEAST_ORIGIN:
            return False
        chunk_s = self._sources.claims.pace_s or 0.0
        return rate <= 0.0 or missing_bytes / rate > max(chunk_s, self._tuning.least_claim_s)


def _with_hope(view: View, made: list[Assignment]) -> list[Assignment]:
    """Without those made of a peer that has said for long that it is busy, or has just failed: a try, no more."""
    if not made:
        return made
    in_vain = {source.source for source in view.near if source.cooling}
    return [each for each in made if each.source not in in_vain]


def _out_of_hunger(view: View, made: list[Assignment]) -> bool:
    """All that was asked for is asked of the origin in place of others, who have not asked for it."""
    owners = view.owners
    if not view.hunger or owners is None:
        return False
    ours = Bitfield(owners.ours | view.begun | view.origin_only)
    return all(each.source == ORIGIN and not each.chunks & ours for each in made)
