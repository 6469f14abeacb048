"""Sources: the origin, this agent's own cache, another job of this agent, and peers. One kind of thing.

`SourceBook` keeps what each near source offers and how it behaves within one transfer. Never knows: how bytes
travel, addresses, files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from agent.core.tuning import Tuning
from peer.core.failure import LOCAL, Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield

FileId = NewType("FileId", str)
"""One file of one job: `<job id>/<index>`."""

SourceId = NewType("SourceId", str)
"""`origin`, `cache`, `sibling:<file id>` or `peer:<peer id>`."""

ORIGIN = SourceId("origin")
CACHE = SourceId("cache")


class SourceKind(Enum):
    """What stands behind a source id. The order is the order of nearness."""

    CACHE = 0
    SIBLING = 1
    PEER = 2
    ORIGIN = 3


def sibling_source(file: FileId) -> SourceId:
    """The source that is another file of this agent with the same content."""
    return SourceId(f"sibling:{file}")


def peer_source(peer: PeerId) -> SourceId:
    """The source that is another agent."""
    return SourceId(f"peer:{peer}")


_STRIKES = {
    FailureKind.STALLED: Offence.STALLED,
    FailureKind.NO_VOUCHER: Offence.BROKE_PROTOCOL,
    FailureKind.BAD_RESPONSE: Offence.BROKE_PROTOCOL,
}


def strike_of(failure: Failure) -> Offence | None:
    """What a failed request to a peer counts as, for all files; None: an accident, or none of its doing."""
    return _STRIKES.get(failure.kind)


def kind_of(source: SourceId) -> SourceKind:
    """Kind of a source, from its id alone."""
    return SourceKind[source.partition(":")[0].upper()]


def peer_of(source: SourceId) -> PeerId | None:
    """The agent behind a source; None for everything that is not a peer."""
    return PeerId(source.partition(":")[2]) if kind_of(source) is SourceKind.PEER else None


def sibling_of(source: SourceId) -> FileId | None:
    """The file behind a sibling source; None for everything else."""
    return FileId(source.partition(":")[2]) if kind_of(source) is SourceKind.SIBLING else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NearSource:
    """What the scheduler sees of one near source."""

    source: SourceId
    have: Bitfield
    """Chunks it can supply now."""
    claimed: Bitfield
    """Chunks it is fetching from the origin itself; waiting for them saves origin bytes."""
    free_slots: int
    """How many more requests it may be given now; 0 while it cools off."""
    cooling: bool = False
    """It failed a moment ago or is busy: nothing is expected of it now, so nobody waits for it."""


@dataclass(slots=True)
class _Entry:
    have: Bitfield
    claimed: Bitfield
    in_flight: int = 0
    strikes: int = 0
    cool_until: float = 0.0


@dataclass(slots=True)
class _Patience:
    """How long the claims of one source count. Outlives the entry, so that coming back does not renew it."""

    seen: Bitfield
    until: float


class SourceBook:
    """The near sources of one transfer: what they offer, what they carry, how often they failed."""

    def __init__(self, tuning: Tuning, chunk_bytes: int = 0) -> None:
        self._tuning = tuning
        self._patience_s = tuning.claim_patience_s + chunk_bytes / tuning.claim_rate_bytes_per_s
        self._entries: dict[SourceId, _Entry] = {}
        self._claims: dict[SourceId, _Patience] = {}
        self._dropped: set[SourceId] = set()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def any_peer(self) -> bool:
        """Another agent offers something of this content."""
        return any(kind_of(source) is SourceKind.PEER for source in self._entries)

    def offered(self, source: SourceId, have: Bitfield, claimed: Bitfield, now: float) -> None:
        """Replace what `source` offers. A source that was dropped stays dropped."""
        if source in self._dropped:
            return
        patience = self._claims.get(source)
        if claimed and (patience is None or have & ~patience.seen):
            self._claims[source] = _Patience(have, now + self._patience_s)
        entry = self._entries.get(source)
        if entry is None:
            self._entries[source] = _Entry(have, claimed)
        else:
            entry.have, entry.claimed = have, claimed

    def lost(self, source: SourceId) -> None:
        """It went away; it may come back."""
        self._entries.pop(source, None)

    def drop(self, source: SourceId) -> None:
        """Never use it again in this transfer."""
        self._entries.pop(source, None)
        self._dropped.add(source)

    def forget(self) -> None:
        """Nobody is asked any more; what was dropped stays dropped."""
        self._entries.clear()

    def took(self, source: SourceId) -> None:
        """A request was given to it."""
        if (entry := self._entries.get(source)) is not None:
            entry.in_flight += 1

    def ended(self, source: SourceId) -> None:
        """One of its requests is over, however."""
        if (entry := self._entries.get(source)) is not None:
            entry.in_flight = max(0, entry.in_flight - 1)

    def delivered(self, source: SourceId) -> None:
        """It did what was asked: strikes are forgiven."""
        if (entry := self._entries.get(source)) is not None:
            entry.strikes = 0

    def failed(self, source: SourceId, failure: Failure, now: float) -> None:
        """Cool off after a failure; drop after the third in a row, or at once when trust is gone."""
        entry = self._entries.get(source)
        if entry is None or failure.kind is FailureKind.ABORTED or failure.kind in LOCAL:
            return
        if failure.kind is FailureKind.NOT_TRUSTED:
            self.drop(source)
            return
        if failure.kind is FailureKind.BUSY:
            entry.cool_until = now + min(failure.retry_after_s or 1.0, self._tuning.longest_cool_off_s)
            return
        entry.strikes += 1
        if entry.strikes >= self._tuning.strikes:
            self.drop(source)
        else:
            entry.cool_until = now + self._tuning.cool_off_s * 2 ** (entry.strikes - 1)

    def near(self, now: float) -> tuple[NearSource, ...]:
        """Every near source, nearest kind first, then by id, so that a run can be repeated."""
        return tuple(
            NearSource(
                source=source,
                have=entry.have,
                claimed=self._believed(source, entry, now),
                free_slots=0
                if now < entry.cool_until
                else max(0, self._tuning.requests_per_source - entry.in_flight),
                cooling=now < entry.cool_until,
            )
            for source, entry in sorted(self._entries.items(), key=lambda item: (kind_of(item[0]).value, item[0]))
        )

    def _believed(self, source: SourceId, entry: _Entry, now: float) -> Bitfield:
        """Claims count while they lead to something. A sibling is this agent: when it stops, we are told."""
        if kind_of(source) is SourceKind.SIBLING:
            return entry.claimed
        patience = self._claims.get(source)
        waits = patience is not None and now < patience.until and now >= entry.cool_until
        return entry.claimed if waits else NO_CHUNKS

    def changes(self, now: float) -> Iterator[float]:
        """When sources that cool off may be asked again, and when claims stop to count."""
        for source, entry in self._entries.items():
            if entry.cool_until > now:
                yield entry.cool_until
            patience = self._claims.get(source)
            if entry.claimed and patience is not None and patience.until > now:
                yield patience.until

    def usable(self, source: SourceId, now: float) -> bool:
        """It was not dropped and does not cool off."""
        entry = self._entries.get(source)
        return entry is not None and now >= entry.cool_until

    def in_sight(self, now: float) -> Bitfield:
        """Chunks that some source which is not cooling off has."""
        seen = NO_CHUNKS
        for entry in self._entries.values():
            if now >= entry.cool_until:
                seen = Bitfield(seen | entry.have)
        return seen
