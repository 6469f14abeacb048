"""The near sources of one transfer: what they offer, what they carry, how often they failed, how fast they are.

Never knows: how bytes travel, addresses, files, which chunk is wanted.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

from agent.core.claims import Claims, Promise
from agent.core.sources import NearSource, SourceId, SourceKind, kind_of, nearness, peer_of
from agent.core.tuning import Tuning
from peer.core.failure import LOCAL, Failure, FailureKind
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield

_WEIGHT = 0.3
_SLOW = 4.0
"""A peer that takes so many times the mean of all gets one request at a time."""
_USUAL = 2.0
"""What a peer takes longer than so many times the mean is no reason to let it be silent for longer."""

_SILENCE = Failure(kind=FailureKind.STALLED, message="it sends nothing")


@dataclass(slots=True)
class _Entry:
    source: SourceId
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
    mute: bool = False
    """It sent nothing when it was asked, and has delivered nothing since."""
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
    """Then time alone makes it another, if claims are believed for as long as now."""


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
        self._ordered: list[_Entry] | None = None
        """Their entries; None: not looked up since somebody came or left."""
        self._keen: list[_Entry] | None = None
        """The peers that fetch the content too; None: as above."""
        self._any_giver: bool | None = None
        """Some peer does not fetch the content; None: as above."""
        self._patience_s = self.claims.patience_s
        """How long claims were believed when the entries were looked at."""
        self._next_change: float | None = None
        """When time alone changes something next; None: something else happened since."""
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
    def any_giver(self) -> bool:
        """Another agent offers this content and does not fetch it."""
        if self._any_giver is None:
            self._any_giver = any(entry.peer is not None and not entry.wants for entry in self._entries.values())
        return self._any_giver

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
        if self._keen is None:
            self._keen = [entry for entry in self._entries.values() if entry.wants and entry.peer is not None]
        late, found = self.claims.late, list[PeerId]()
        for entry in self._keen:
            promise = entry.promise
            owes = promise is not None and promise.owing != NO_CHUNKS
            if entry.peer is not None and not (owes and late(promise, now)):
                found.append(entry.peer)
        return found

    def offered(
        self, source: SourceId, have: Bitfield, claimed: Bitfield, now: float, *, wants: bool = False
    ) -> None:
        """Replace what `source` offers. A source that was dropped stays dropped."""
        if source in self._dropped:
            return
        entry = self._entries.get(source)
        if entry is None:
            entry = self._entries[source] = _Entry(source, peer_of(source), have, claimed)
            insort(self._in_order, (nearness(source), source))
            self._company_changed()
            if entry.peer is not None:
                entry.promise = self.claims.offered(source, have, claimed, now)
        else:
            entry.have, entry.claimed = have, claimed
            if entry.shunned:
                entry.shunned = Bitfield(entry.shunned & have)  # what it gets again is another copy
            if entry.promise is not None:
                self.claims.renew(entry.promise, have, claimed, now)
        entry.seen = self._next_change = None
        if entry.wants is not wants:
            self._count_wanting(1 if wants else -1)
            entry.wants = wants
            self._company_changed()

    def lost(self, source: SourceId) -> None:
        """It went away; it may come back."""
        entry = self._entries.pop(source, None)
        if entry is not None:
            self._in_order.remove((nearness(source), source))
            self._count_wanting(-entry.wants)
            self._company_changed()

    def _company_changed(self) -> None:
        self.others_came = True
        self._ordered = self._keen = self._any_giver = self._next_change = None

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
        self._wanting = 0
        self._company_changed()

    def only_gives(self, source: SourceId, now: float) -> bool:
        """A peer that works and does not fetch the content itself."""
        entry = self._entries.get(source)
        if entry is None or entry.wants or entry.peer is None or not self.spreading:
            return False
        return not self._unreliable(entry, now)

    # --- how requests go -------------------------------------------------------------------------------------

    def took(self, source: SourceId, now: float = 0.0) -> None:
        """A request was given to it."""
        if (entry := self._entries.get(source)) is not None:
            if not entry.in_flight:
                entry.heard = now
            entry.in_flight += 1
            entry.seen = self._next_change = None

    def moved(self, source: SourceId, count: int, now: float) -> bool:
        """Bytes of it arrived. True: nothing was expected of it any more."""
        entry = self._entries.get(source)
        if entry is None:
            return False
        was_silent = self._silent(entry, now)
        if was_silent or entry.busy_since is not None:
            entry.seen = self._next_change = None
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
            entry.seen = self._next_change = None

    def delivered(self, source: SourceId, chunk_s: float | None = None) -> None:
        """It did what was asked, each chunk in so long: strikes are forgiven."""
        if (entry := self._entries.get(source)) is None:
            return
        entry.strikes, entry.busy_since, entry.mute = 0, None, False
        entry.seen = self._next_change = None
        if chunk_s is not None and entry.peer is not None:
            entry.pace_s = _mean(entry.pace_s, chunk_s)
            self._pace_changed(_mean(self.pace_s, chunk_s))

    def _pace_changed(self, pace_s: float) -> None:
        """How long silence is borne and who counts as slow depends on it: look again at those whom it concerns."""
        before = pace_s if self.pace_s is None else self.pace_s
        self.pace_s = pace_s
        least_s, most_s = _SLOW * min(before, pace_s), _SLOW * max(before, pace_s)
        for other in self._entries.values():
            if other.in_flight or (other.pace_s is not None and least_s < other.pace_s <= most_s):
                other.seen = None

    def failed(self, source: SourceId, failure: Failure, now: float) -> None:
        """Cool off after a failure; drop after the third in a row, or at once when trust is gone."""
        entry = self._entries.get(source)
        if entry is None or failure.kind is FailureKind.ABORTED or failure.kind in LOCAL:
            return
        if failure.kind is FailureKind.NOT_TRUSTED:
            self.drop(source)
            return
        entry.seen = self._next_change = None
        if failure.kind is FailureKind.BUSY:
            entry.cool_until = now + min(failure.retry_after_s or 1.0, self._tuning.longest_cool_off_s)
            entry.busy_since = now if entry.busy_since is None else entry.busy_since
            return
        entry.busy_since = None
        entry.mute = entry.mute or failure.kind is FailureKind.STALLED
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

    def forgive(self, source: SourceId, chunks: Bitfield) -> None:
        """It may be asked for these chunks again."""
        if (entry := self._entries.get(source)) is not None and entry.shunned & chunks:
            entry.shunned = Bitfield(entry.shunned & ~chunks)
            entry.seen = None

    def shunned(self, source: SourceId) -> Bitfield:
        """Chunks that it is not asked for any more."""
        entry = self._entries.get(source)
        return NO_CHUNKS if entry is None else entry.shunned

    def took_too_long(self, source: SourceId, chunks: Bitfield, now: float) -> None:
        """Somebody else is to bring these chunks. Silence is a failure, slowness is none."""
        self.shun(source, chunks)
        entry = self._entries.get(source)
        if entry is not None and self._silent(entry, now):
            self.failed(source, _SILENCE, now)

    # --- what the scheduler sees -----------------------------------------------------------------------------

    def useful(self, missing: Bitfield, now: float) -> bool:
        """Some source has one of these chunks, and might be asked for it now."""
        for entry in self._entries.values():
            if entry.have & missing & ~entry.shunned and now >= entry.cool_until and self._free_slots(entry):
                return True
        return False

    def near(self, now: float) -> tuple[NearSource, ...]:
        """Every near source, nearest kind first, then by id, so that a run can be repeated."""
        if self._ordered is None:
            self._ordered = [self._entries[source] for _, source in self._in_order]
        self._heed_patience()
        return tuple(
            [
                seen if (seen := entry.seen) is not None and now < entry.seen_until else self._look(entry, now)
                for entry in self._ordered
            ]
        )

    def _heed_patience(self) -> None:
        """Claims are believed for longer or shorter than before: look again at those who claim something."""
        if self._patience_s == self.claims.patience_s:
            return
        self._patience_s, self._next_change = self.claims.patience_s, None
        for entry in self._entries.values():
            if entry.promise is not None and entry.promise.owing:
                entry.seen = None

    def _look(self, entry: _Entry, now: float) -> NearSource:
        """Claims count while they lead to something. A sibling is this agent: when it stops, we are told."""
        promise, claimed = entry.promise, entry.claimed
        calm = entry.in_flight == 0 and now >= entry.cool_until and entry.busy_since is None and not entry.mute
        if calm and promise is not None and not promise.owing:
            entry.seen_until = math.inf
            have = Bitfield(entry.have & ~entry.shunned) if entry.shunned else entry.have
            free, trial = self._free_slots(entry), self._cautious and entry.pace_s is None
            seen = entry.seen = NearSource(entry.source, have, claimed, free, False, entry.wants, 0, trial)
            return seen
        late = promise is not None and promise.owing != NO_CHUNKS and self.claims.late(promise, now)
        cools = now < entry.cool_until
        if claimed and (late or (entry.peer is not None and cools and entry.busy_since is None)):
            claimed = NO_CHUNKS
        silent = entry.in_flight > 0 and self._silent(entry, now)
        entry.seen_until = self._change_of(entry, now)
        seen = entry.seen = NearSource(
            entry.source,
            Bitfield(entry.have & ~entry.shunned) if entry.shunned else entry.have,
            claimed,
            0 if cools or silent else self._free_slots(entry),
            silent or entry.mute or ((cools or entry.busy_since is not None) and self._unreliable(entry, now)),
            entry.wants and not late,
            entry.in_flight,
            self._cautious and self._on_trial(entry),
        )
        return seen

    def _free_slots(self, entry: _Entry) -> int:
        """Of a source that works."""
        tuning = self._tuning
        most = tuning.requests_per_source
        if entry.peer is not None:
            if self._cautious and entry.pace_s is None:
                most = 1
            elif self._wanting and tuning.spreading_requests < most:
                most = tuning.spreading_requests
            if entry.pace_s is not None and self.pace_s is not None and entry.pace_s > _SLOW * self.pace_s:
                most = 1
        return most - entry.in_flight if most > entry.in_flight else 0

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
        tuning = self._tuning
        if self.pace_s is None:
            return entry.heard + tuning.quiet_first_s
        usual_s = self.pace_s if entry.pace_s is None else min(entry.pace_s, _USUAL * self.pace_s)
        wanted = tuning.quiet_paces * usual_s
        return entry.heard + max(tuning.quiet_s, min(tuning.quiet_most_s, wanted))

    def next_change(self, now: float) -> float:
        """When next a source that cools off may be asked again, or nothing is expected of one any more."""
        self._heed_patience()
        first = self._next_change
        if first is not None and first > now:
            return first
        first = math.inf
        for entry in self._entries.values():
            at = entry.seen_until
            if entry.seen is None or at <= now:
                at = self._change_of(entry, now)
            if at < first:
                first = at
        self._next_change = first
        return first

    def _change_of(self, entry: _Entry, now: float) -> float:
        first = math.inf
        if now < entry.cool_until:
            first = entry.cool_until
        if entry.busy_since is not None and now < (at := entry.busy_since + self._busy_s(entry)) < first:
            first = at
        promise = entry.promise
        if promise is not None:
            if entry.in_flight and now < (at := self._silent_at(entry)) < first:
                first = at
            if promise.owing and now < (at := self.claims.until(promise)) < first:
                first = at
        return first

    def usable(self, source: SourceId, now: float) -> bool:
        """It was not dropped and does not cool off."""
        entry = self._entries.get(source)
        return entry is not None and now >= entry.cool_until

    def offers(self, now: float) -> list[tuple[PeerId, Bitfield, bool]]:
        """What each peer that may be asked has, and whether it fetches the content too."""
        return [
            (entry.peer, Bitfield(entry.have & ~entry.shunned), entry.wants)
            for _, source in self._in_order
            if (entry := self._entries[source]).peer is not None and now >= entry.cool_until
        ]

    @property
    def near_or_coming(self) -> Bitfield:
        """Chunks that some source has, or says that it is fetching, whatever is believed of it."""
        found = 0
        for entry in self._entries.values():
            found |= entry.have | entry.claimed
        return Bitfield(found)

    def in_sight(self, now: float) -> Bitfield:
        """Chunks that some source which is not cooling off has."""
        seen = NO_CHUNKS
        for entry in self._entries.values():
            if now >= entry.cool_until:
                seen = Bitfield(seen | entry.have)
        return seen


def _mean(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + _WEIGHT * (seconds - before)
