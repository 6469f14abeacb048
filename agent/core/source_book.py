"""The near sources of one transfer: what they offer, what they carry, how often they failed, how fast they are.

Never knows: how bytes travel, addresses, files, which chunk is wanted.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

from agent.core.claims import Claims, Promise
from agent.core.sources import NearSource, SourceId, SourceKind, kind_of, peer_of
from agent.core.tuning import Tuning
from peer.core.failure import LOCAL, Failure, FailureKind
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield

_WEIGHT = 0.3
_SLOW = 4.0
"""A peer that takes so many times the mean of all gets one request at a time."""

_SILENCE = Failure(kind=FailureKind.STALLED, message="it sends nothing")


@dataclass(slots=True)
class _Entry:
    peer: PeerId | None
    """None: it is no peer."""
    have: Bitfield
    claimed: Bitfield
    promise: Promise | None = None
    wants: bool = False
    in_flight: int = 0
    strikes: int = 0
    cool_until: float = 0.0
    busy_since: float | None = None
    """Since when it has said nothing but that it is busy."""
    heard: float = 0.0
    """When it last sent something worth the name, or was given a first request."""
    murmured: int = 0
    """Bytes that came since."""
    pace_s: float | None = None
    """What a chunk of it takes."""
    shunned: Bitfield = field(default=NO_CHUNKS)
    """Chunks that it is not asked for any more."""
    seen: NearSource | None = None
    """As the scheduler saw it last; None: something happened since."""
    seen_until: float = 0.0
    """Then time alone makes it another, if claims are believed for as long as then"""
    seen_patience_s: float = 0.0
    """(so long)."""


class SourceBook:
    """The near sources of one transfer."""

    def __init__(self, tuning: Tuning, chunk_bytes: int = 0, *, cautious: bool = False) -> None:
        """`cautious`: who has not delivered yet is given one chunk to bring."""
        self.claims = Claims(tuning, chunk_bytes)
        self.pace_s: float | None = None
        """What a chunk of a peer takes, in the mean."""
        self._tuning = tuning
        self._entries: dict[SourceId, _Entry] = {}
        self._in_order: list[tuple[int, SourceId]] = []
        """Nearest kind first, then by id."""
        self._wanting = 0
        """Entries that fetch the content too."""
        self._dropped: set[SourceId] = set()
        self._cautious = cautious
        self.others_came = True
        """Somebody came, left, or wants other than before, since this was last set to False."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def any_peer(self) -> bool:
        """Another agent offers something of this content."""
        return any(kind_of(source) is SourceKind.PEER for source in self._entries)

    @property
    def spreaders(self) -> int:
        """How many others fetch this content."""
        return self._wanting

    @property
    def spreading(self) -> bool:
        """Others fetch this content too: what goes from one to another is passed on."""
        return self._wanting > 0

    def wanting(self, now: float) -> list[PeerId]:
        """The peers that fetch this content too and keep what they promise."""
        return [
            entry.peer
            for source, entry in self._entries.items()
            if entry.wants and entry.peer is not None and not self.claims.late(entry.promise, now)
        ]

    def offered(
        self, source: SourceId, have: Bitfield, claimed: Bitfield, now: float, *, wants: bool = False
    ) -> None:
        """Replace what `source` offers. A source that was dropped stays dropped."""
        if source in self._dropped:
            return
        entry = self._entries.get(source)
        if entry is None:
            entry = self._entries[source] = _Entry(peer_of(source), have, claimed)
            insort(self._in_order, (kind_of(source).value, source))
            self.others_came = True
        else:
            entry.have, entry.claimed = have, claimed
            entry.shunned = Bitfield(entry.shunned & have)  # what it gets again is another copy
            entry.seen = None
        if entry.wants is not wants:
            self._count_wanting(1 if wants else -1)
            entry.wants, self.others_came = wants, True
        if entry.peer is not None:
            entry.promise = self.claims.offered(source, have, claimed, now)

    def lost(self, source: SourceId) -> None:
        """It went away; it may come back."""
        entry = self._entries.pop(source, None)
        if entry is not None:
            self._in_order.remove((kind_of(source).value, source))
            self._count_wanting(-entry.wants)
            self.others_came = True

    def _count_wanting(self, more: int) -> None:
        before, self._wanting = self.spreading, self._wanting + more
        if self.spreading is not before:  # another number of requests for each
            for entry in self._entries.values():
                entry.seen = None

    def drop(self, source: SourceId) -> None:
        """Never use it again in this transfer."""
        self.lost(source)
        self._dropped.add(source)

    def forget(self) -> None:
        """Nobody is asked any more; what was dropped stays dropped."""
        self._entries.clear()
        self._in_order.clear()
        self._wanting, self.others_came = 0, True

    def only_gives(self, source: SourceId, now: float) -> bool:
        """A peer that works and does not fetch the content itself."""
        entry = self._entries.get(source)
        if entry is None or kind_of(source) is not SourceKind.PEER or not self.spreading:
            return False
        return not entry.wants and not self._unreliable(entry, now)

    # --- how requests go -------------------------------------------------------------------------------------

    def took(self, source: SourceId, now: float = 0.0) -> None:
        """A request was given to it."""
        if (entry := self._entries.get(source)) is not None:
            if not entry.in_flight:
                entry.heard = now
            entry.in_flight += 1
            entry.seen = None

    def moved(self, source: SourceId, count: int, now: float) -> bool:
        """Bytes of it arrived. True: nothing was expected of it any more."""
        entry = self._entries.get(source)
        if entry is None:
            return False
        was_silent = self._silent(entry, now)
        if was_silent or entry.busy_since is not None:
            entry.seen = None
        entry.busy_since = None
        entry.murmured += count
        if entry.murmured < self._tuning.audible_bytes:
            return False
        entry.heard, entry.murmured = now, 0
        return was_silent

    def ended(self, source: SourceId) -> None:
        """One of its requests is over, however."""
        if (entry := self._entries.get(source)) is not None:
            entry.in_flight = max(0, entry.in_flight - 1)
            entry.seen = None

    def delivered(self, source: SourceId, chunk_s: float | None = None) -> None:
        """It did what was asked, each chunk in so long: strikes are forgiven."""
        if (entry := self._entries.get(source)) is None:
            return
        entry.strikes, entry.busy_since, entry.seen = 0, None, None
        if chunk_s is not None and kind_of(source) is SourceKind.PEER:
            entry.pace_s = _mean(entry.pace_s, chunk_s)
            self.pace_s = _mean(self.pace_s, chunk_s)

    def failed(self, source: SourceId, failure: Failure, now: float) -> None:
        """Cool off after a failure; drop after the third in a row, or at once when trust is gone."""
        entry = self._entries.get(source)
        if entry is None or failure.kind is FailureKind.ABORTED or failure.kind in LOCAL:
            return
        if failure.kind is FailureKind.NOT_TRUSTED:
            self.drop(source)
            return
        entry.seen = None
        if failure.kind is FailureKind.BUSY:
            entry.cool_until = now + min(failure.retry_after_s or 1.0, self._tuning.longest_cool_off_s)
            entry.busy_since = now if entry.busy_since is None else entry.busy_since
            return
        entry.busy_since = None
        entry.strikes += 1
        if entry.strikes >= self._tuning.strikes:
            self.drop(source)
        else:
            entry.cool_until = now + self._tuning.cool_off_s * 2 ** (entry.strikes - 1)

    def shun(self, source: SourceId, chunks: Bitfield) -> None:
        """It is not asked for these chunks again."""
        if (entry := self._entries.get(source)) is not None:
            entry.shunned = Bitfield(entry.shunned | chunks)
            entry.seen = None

    def took_too_long(self, source: SourceId, chunks: Bitfield, now: float) -> None:
        """Somebody else is to bring these chunks. Silence is a failure, slowness is none."""
        self.shun(source, chunks)
        entry = self._entries.get(source)
        if entry is not None and self._silent(entry, now):
            self.failed(source, _SILENCE, now)

    # --- what the scheduler sees -----------------------------------------------------------------------------

    def useful(self, missing: Bitfield, now: float) -> bool:
        """Some source has one of these chunks, and might be asked for it now."""
        return any(
            entry.have & missing & ~entry.shunned and now >= entry.cool_until and not self._full(entry)
            for entry in self._entries.values()
        )

    def near(self, now: float) -> tuple[NearSource, ...]:
        """Every near source, nearest kind first, then by id, so that a run can be repeated."""
        entries, patience_s, found = self._entries, self.claims.patience_s, []
        for _, source in self._in_order:
            entry = entries[source]
            seen = entry.seen
            if seen is None or now >= entry.seen_until or entry.seen_patience_s != patience_s:
                seen = self._look(source, entry, now)
            found.append(seen)
        return tuple(found)

    def _look(self, source: SourceId, entry: _Entry, now: float) -> NearSource:
        """Claims count while they lead to something. A sibling is this agent: when it stops, we are told."""
        of_peer = entry.peer is not None
        late = of_peer and self.claims.late(entry.promise, now)
        claimed = entry.claimed
        if claimed and (late or (of_peer and now < entry.cool_until and entry.busy_since is None)):
            claimed = NO_CHUNKS
        entry.seen_until = self._change_of(entry, now, self.claims.patience_s)
        entry.seen_patience_s = self.claims.patience_s
        seen = entry.seen = NearSource(
            source=source,
            have=Bitfield(entry.have & ~entry.shunned) if entry.shunned else entry.have,
            claimed=claimed,
            free_slots=0 if now < entry.cool_until or self._silent(entry, now) else self._free_slots(entry),
            cooling=self._unreliable(entry, now),
            wants=entry.wants and not late,
            in_flight=entry.in_flight,
            on_trial=self._on_trial(entry),
        )
        return seen

    def _full(self, entry: _Entry) -> bool:
        return self._free_slots(entry) == 0

    def _free_slots(self, entry: _Entry) -> int:
        """Of a source that works."""
        most = self._tuning.requests_per_source
        if entry.peer is not None:
            if self._on_trial(entry):
                most = 1
            elif self._wanting:
                most = min(most, self._tuning.spreading_requests)
            if entry.pace_s is not None and self.pace_s is not None and entry.pace_s > _SLOW * self.pace_s:
                most = 1
        return max(0, most - entry.in_flight)

    def _on_trial(self, entry: _Entry) -> bool:
        return self._cautious and entry.pace_s is None and entry.peer is not None

    def _unreliable(self, entry: _Entry, now: float) -> bool:
        if self._silent(entry, now):
            return True
        if entry.busy_since is not None:
            return now >= entry.busy_since + self._busy_s(entry)
        return now < entry.cool_until

    def _busy_s(self, entry: _Entry) -> float:
        return self._tuning.quiet_s if entry.pace_s is None else self._tuning.busy_s

    def _silent(self, entry: _Entry, now: float) -> bool:
        """It was given requests and sends nothing."""
        return entry.in_flight > 0 and entry.peer is not None and now >= self._silent_at(entry)

    def _silent_at(self, entry: _Entry) -> float:
        known = entry.pace_s is not None
        return entry.heard + (self._tuning.quiet_s if known else self._tuning.quiet_first_s)

    def next_change(self, now: float) -> float:
        """When next a source that cools off may be asked again, or nothing is expected of one any more."""
        first, patience_s = math.inf, self.claims.patience_s
        for entry in self._entries.values():
            at = entry.seen_until
            if entry.seen is None or at <= now or entry.seen_patience_s != patience_s:
                at = self._change_of(entry, now, patience_s)
            if at < first:
                first = at
        return first

    def _change_of(self, entry: _Entry, now: float, patience_s: float) -> float:
        first = math.inf
        if now < entry.cool_until:
            first = entry.cool_until
        if entry.busy_since is not None and now < (at := entry.busy_since + self._busy_s(entry)) < first:
            first = at
        promise = entry.promise
        if promise is not None:
            if entry.in_flight and now < (at := self._silent_at(entry)) < first:
                first = at
            if promise.owing and now < (at := promise.mark + patience_s) < first:
                first = at
        return first

    def usable(self, source: SourceId, now: float) -> bool:
        """It was not dropped and does not cool off."""
        entry = self._entries.get(source)
        return entry is not None and now >= entry.cool_until

    def offers(self, now: float) -> list[tuple[PeerId, Bitfield]]:
        """What each peer that may be asked has."""
        return [
            (entry.peer, Bitfield(entry.have & ~entry.shunned))
            for _, source in self._in_order
            if (entry := self._entries[source]).peer is not None and now >= entry.cool_until
        ]

    def in_sight(self, now: float) -> Bitfield:
        """Chunks that some source which is not cooling off has."""
        seen = NO_CHUNKS
        for entry in self._entries.values():
            if now >= entry.cool_until:
                seen = Bitfield(seen | entry.have)
        return seen


def _mean(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + _WEIGHT * (seconds - before)
