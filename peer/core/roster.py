"""Who is there: rumours to try, and the members we have met.

Three steps lead to a live peer: somebody is *sighted* (a rumour, a caller, or our configuration), we *try* the
address, and the one who answers there is *authenticated*. Only the last step makes a peer. Rumours cost a stranger
nothing, so their number and the rate of our attempts are bounded.
Never knows: sockets, TLS, mDNS, content, wall-clock time. `now` is in seconds of one clock that never jumps.

Sources of the numbers: reliability notes 1.4 (candidates, attempts) and 3.2 rows 64, 69, 71.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from peer.core.failure import Failure, FailureKind
from peer.core.sighting import Introduction, KnownPeer, Sighted, Sighting
from peer.core.standing import BAN_S, Conduct, Consequence, Offence, Standing
from peer.core.voucher import PeerId

__all__ = [
    "BAN_S",
    "Consequence",
    "Introduction",
    "KnownPeer",
    "Offence",
    "Roster",
    "Sighted",
    "Sighting",
    "Standing",
]

MAX_CANDIDATES = 256
"""Rumours kept."""

MAX_MEMBERS = 1024
"""Members (and addresses of callers) remembered: a bad member could make up as many as it likes."""

RETRY_S = 60.0
"""One attempt per candidate per minute."""

ATTEMPTS_PER_S = 5.0
ATTEMPTS_AT_ONCE = 16
"""A group that starts together is met at once; a flood of rumours still gets no more than five attempts a
second."""

CHECK_S = 60.0
"""A live peer that was silent this long is asked whether it is still there."""

CHECK_AGAIN_S = 1.0
"""A goodbye, a broken connection or a new call is looked into at once, but not more often than this: goodbyes can
be forged."""

TRIES = 3
"""Nobody retracts the address of a caller that is gone: it is forgotten after this many failures."""

_Key = tuple[PeerId | None, str, int]
_Place = tuple[PeerId | None, str, Sighted]


@dataclass(slots=True, kw_only=True)
class _Candidate:
    sighting: Sighting
    peer_id: PeerId | None
    """As sighted, or learnt from the certificate."""
    next_try: float
    tried_at: float = float("-inf")
    called_at: float = float("-inf")
    """When it last called us and named this address."""
    failures: int = 0
    """Since the last success."""


@dataclass(slots=True, kw_only=True)
class _Member:
    at: Introduction
    last_seen: float
    checked_at: float
    next_check: float
    up: bool = True
    failures: int = 0

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self.at.host, self.at.port

    @property
    def key(self) -> _Key:
        """Of an attempt at its address."""
        return self.at.peer_id, self.at.host, self.at.port


class Roster:
    """The agents of one group as this one knows them. `own` is never listed."""

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._candidates: dict[_Key, _Candidate] = {}
        self._places: dict[_Place, _Key] = {}
        self._counts = dict.fromkeys(Sighted, 0)
        self._members: dict[PeerId, _Member] = {}
        self._running: set[_Key] = set()
        """Attempts that were named and have not ended."""
        self._conduct = Conduct()
        self._permits = float(ATTEMPTS_AT_ONCE)
        self._permits_at: float | None = None

    # what is heard

    def heard(self, sighting: Sighting, now: float) -> None:
        """Somebody was sighted. Ourselves, impossible ports, and rumours above `MAX_CANDIDATES` are ignored.

        A live peer that is sighted elsewhere may have left where we know it, without a goodbye: that is looked
        into at once, whatever was heard of it before.
        """
        if sighting.peer_id == self._own or not 0 < sighting.port < 65536:
            return
        key = _key_of(sighting)
        item = self._candidates.get(key)
        if item is None:
            item = self._new_candidate(key, sighting, now)
            if item is None:
                return
        elif sighting.how is Sighted.CALLED_US:  # it lives: what failed a moment ago may work now
            self._forget(key)
            self._add(key, item, sighting)
            item.called_at = now
            item.next_try = min(item.next_try, max(now, item.tried_at + CHECK_AGAIN_S))
            if self._is_at_port(sighting.peer_id, sighting.port):
                return  # the same agent on another way
        else:
            return
        if sighting.peer_id is not None:
            self._look_into(sighting.peer_id, now, unless_at=(sighting.host, sighting.port))

    def called(self, peer_id: PeerId, host: str, port: int | None, now: float) -> None:
        """It called us from `host`, which proves its id, and says that it listens at `port`.

        That it is there says nothing of another address under which we know it.
        """
        if (member := self._members.get(peer_id)) and member.up:
            member.last_seen = now
            if member.place == (host, port):
                self.spoke(peer_id, now)
        if port is not None:
            self.heard(Sighting(host=host, port=port, peer_id=peer_id, how=Sighted.CALLED_US), now)

    def lost(self, peer_id: PeerId, now: float) -> None:
        """Its announcement was withdrawn (perhaps by somebody else): a live peer is checked, not dropped."""
        for key, item in list(self._candidates.items()):
            if item.peer_id == peer_id and item.sighting.how is not Sighted.CONFIGURED:
                self._forget(key)
        self._look_into(peer_id, now)

    def spoke(self, peer_id: PeerId, now: float) -> None:
        """It answered just now, at the address where we know it."""
        if (member := self._members.get(peer_id)) and member.up:
            member.last_seen = now
            member.next_check = max(member.next_check, now + CHECK_S)

    # what we found out

    def authenticated(self, who: Introduction, now: float) -> KnownPeer | None:
        """The peer proved its id at this address. Returns it when it was not live before; when it was, or may not
        be used (banned, left alone, ourselves), None."""
        self._running -= {(who.peer_id, who.host, who.port), (None, who.host, who.port)}
        for item in self._candidates.values():
            same_place = (item.sighting.host, item.sighting.port) == (who.host, who.port)
            if same_place and item.sighting.peer_id in (None, who.peer_id):
                item.peer_id, item.failures = who.peer_id, 0
        if who.peer_id == self._own:
            return None
        known = self.find(who.peer_id, now)
        if known is not None and known.host != who.host:
            self._met_elsewhere(who, now)
            return None
        if known is None:
            self._make_room_for_member(who.peer_id)
        # At another port of the same host it was started again: an agent has one port.
        self._members[who.peer_id] = _Member(
            at=who,
            last_seen=now,
            checked_at=now,
            next_check=now + CHECK_S,
            up=not self._conduct.is_shunned(who.peer_id, now),
        )
        return self.find(who.peer_id, now) if known is None else None

    def failed(self, attempt: Sighting, failure: Failure, now: float) -> PeerId | None:
        """An attempt from `candidates_to_try` ended badly. Returns the peer that is down by it, if it was live."""
        key = _key_of(attempt)
        self._running.discard(key)
        if item := self._candidates.get(key):
            called_since = item.called_at > item.tried_at
            item.next_try = max(now, item.tried_at + CHECK_AGAIN_S) if called_since else now + RETRY_S
            item.failures += 1
            if item.sighting.how is Sighted.CALLED_US and item.failures >= TRIES:
                self._forget(key)
        member = self._members.get(attempt.peer_id) if attempt.peer_id is not None else None
        if member is None or member.place != (attempt.host, attempt.port):
            return None
        member.next_check = now + RETRY_S
        if failure.kind is FailureKind.BUSY:  # it is there, and polite
            member.last_seen = now
            return None
        member.failures += 1
        return self._put_down(member, now)

    def troubled(self, peer_id: PeerId, failure: Failure, now: float) -> PeerId | None:
        """A request to a live peer failed. Returns the peer when it is down by it."""
        if failure.kind in _UNREACHABLE and (member := self._members.get(peer_id)):
            return self._put_down(member, now)
        if failure.kind in _DOUBTFUL:
            self._look_into(peer_id, now)
        return None

    # standing

    def offend(self, peer_id: PeerId, offence: Offence, now: float) -> Consequence:
        """The peer misbehaved: some offences ban at once, others are strikes. It may no longer be live after it."""
        consequence = self._conduct.offend(peer_id, offence, now)
        if consequence is not Consequence.PAROLE and (member := self._members.get(peer_id)):
            member.up = False
            member.next_check = max(now, self._conduct.left_alone_until(peer_id, now))
        if consequence is Consequence.BANNED:
            self._hear_no_more(peer_id, now)
        return consequence

    def denounced(self, witness: PeerId, about: tuple[PeerId, ...], now: float) -> list[PeerId]:
        """A member says that it found these lying. Returns those that are live no more by it: two others say so."""
        others = [peer_id for peer_id in about if peer_id != self._own]
        live = [peer_id for peer_id in others if self._is_live(peer_id, now)]
        self._conduct.denounced(witness, others, now)
        gone = [peer_id for peer_id in live if not self._is_live(peer_id, now)]
        for peer_id in gone:
            member = self._members[peer_id]
            member.up, member.next_check = False, self._conduct.left_alone_until(peer_id, now)
        return gone

    def ban(self, peer_id: PeerId, now: float, duration_s: float = BAN_S) -> None:
        """Not listed, not tried, until `duration_s` seconds from now."""
        self._conduct.ban(peer_id, now, duration_s)
        if member := self._members.get(peer_id):
            member.up = False
        self._hear_no_more(peer_id, now)

    def unban(self, peer_id: PeerId, now: float) -> None:
        """Forgive: the peer is tried again at once where it was last seen or announced."""
        self._conduct.forgive(peer_id)
        self._try_again(peer_id, now)

    def is_banned(self, peer_id: PeerId, now: float) -> bool:
        """True while a ban lasts."""
        return self._conduct.is_banned(peer_id, now)

    def is_avoided(self, peer_id: PeerId, now: float) -> bool:
        """True while it is banned or left alone."""
        return self._conduct.is_shunned(peer_id, now)

    def is_said_to_lie(self, peer_id: PeerId, now: float) -> bool:
        """True while it is left alone because others found it lying."""
        return self._conduct.is_said_to_lie(peer_id, now)

    def standing(self, peer_id: PeerId, now: float) -> Standing:
        """What we think of it now."""
        return self._conduct.standing(peer_id, now)

    # what people decide

    def forget(self, peer_id: PeerId) -> bool:
        """Drop a member and all rumours of it; bans and configured addresses stay. It may come back as anybody
        may. False when it was not known."""
        known = self._members.pop(peer_id, None) is not None
        for key, item in list(self._candidates.items()):
            if item.peer_id == peer_id:
                known = True
                if item.sighting.how is not Sighted.CONFIGURED:
                    self._forget(key)
        return known

    def look_again(self, now: float) -> None:
        """Somebody wants to know who is there now: whatever was tried is tried again, without waiting its turn.
        (Attempts at rumours stay bounded.)"""
        for item in self._candidates.values():
            item.next_try = min(item.next_try, max(now, item.tried_at + CHECK_AGAIN_S))
            item.failures = 0
        for member in self._members.values():
            member.next_check = min(member.next_check, max(now, member.checked_at + CHECK_AGAIN_S))
            member.failures = 0

    # who is there

    def live(self, now: float) -> list[KnownPeer]:
        """Peers that can be used now, by id."""
        return [self._known(peer_id, now) for peer_id in sorted(self._members) if self._is_live(peer_id, now)]

    def find(self, peer_id: PeerId, now: float) -> KnownPeer | None:
        """One live peer, or None."""
        return self._known(peer_id, now) if self._is_live(peer_id, now) else None

    def member(self, peer_id: PeerId, now: float) -> KnownPeer | None:
        """One member we remember, live or not."""
        return self._known(peer_id, now) if peer_id in self._members else None

    def known(self, now: float) -> list[KnownPeer]:
        """Every member we remember, live or not, by id."""
        return [self._known(peer_id, now) for peer_id in sorted(self._members)]

    # whom to try

    def candidates_to_try(self, now: float) -> list[Sighting]:
        """Addresses to try now; each is counted as tried, so `authenticated` or `failed` must follow.

        Members that are due for a check come first and need no permit: they have proved who they are.
        """
        found = list(self._checks_due(now))
        self._refill(now)
        due = [item for item in self._candidates.values() if self._is_due(item, now)]
        for item in sorted(due, key=lambda item: (item.failures, item.next_try)):
            if item.sighting.how is Sighted.ANNOUNCED:
                if self._permits < 1.0:
                    continue
                self._permits -= 1.0
            item.tried_at, item.next_try = now, now + RETRY_S
            self._running.add(_key_of(item.sighting))
            found.append(item.sighting)
        return found

    def deadline(self, now: float) -> float | None:
        """When `candidates_to_try` may next have something, None when only an event can change that."""
        stood_for = {item.peer_id for item in self._candidates.values()}
        times = [item.next_check for item in self._members.values() if self._is_checked(item, stood_for, now)]
        waiting = [item.next_try for item in self._candidates.values() if self._is_wanted(item, now)]
        if waiting:
            self._refill(now)
            permit = now if self._permits >= 1.0 else now + (1.0 - self._permits) / ATTEMPTS_PER_S
            times.append(max(min(waiting), permit))
        return min(times, default=None)

    def untried(self, now: float) -> int:
        """Attempts that run, and candidates that were never tried: 0 when the first round is over."""
        return len(self._running) + sum(
            item.failures == 0 and self._is_due(item, now) for item in self._candidates.values()
        )

    # inside

    def _known(self, peer_id: PeerId, now: float) -> KnownPeer:
        member = self._members[peer_id]
        return KnownPeer(
            peer_id=peer_id,
            host=member.at.host,
            port=member.at.port,
            name=member.at.name,
            version=member.at.version,
            standing=self.standing(peer_id, now),
            last_seen=member.last_seen,
        )

    def _is_live(self, peer_id: PeerId, now: float) -> bool:
        member = self._members.get(peer_id)
        return member is not None and member.up and not self._conduct.is_shunned(peer_id, now)

    def _is_at_port(self, peer_id: PeerId | None, port: int) -> bool:
        member = self._members.get(peer_id) if peer_id is not None else None
        return member is not None and member.at.port == port

    def _is_wanted(self, item: _Candidate, now: float) -> bool:
        if _key_of(item.sighting) in self._running or item.peer_id == self._own:
            return False
        if item.peer_id is None:
            return True
        return not self._is_live(item.peer_id, now) and not self._conduct.is_shunned(item.peer_id, now)

    def _is_due(self, item: _Candidate, now: float) -> bool:
        return item.next_try <= now and self._is_wanted(item, now)

    def _is_checked(self, member: _Member, stood_for: set[PeerId | None], now: float) -> bool:
        """Live members are; those that are down only a few times, and only when no candidate stands for them."""
        peer_id = member.at.peer_id
        if member.key in self._running or self._conduct.is_shunned(peer_id, now):
            return False
        if member.up:
            return True
        return member.failures < TRIES and peer_id not in stood_for

    def _checks_due(self, now: float) -> Iterator[Sighting]:
        stood_for = {item.peer_id for item in self._candidates.values()}
        for member in self._members.values():
            if member.next_check <= now and self._is_checked(member, stood_for, now):
                member.checked_at, member.next_check = now, now + RETRY_S
                self._running.add(member.key)
                at = member.at
                yield Sighting(host=at.host, port=at.port, peer_id=at.peer_id, how=Sighted.CALLED_US)

    def _look_into(self, peer_id: PeerId, now: float, unless_at: tuple[str, int] | None = None) -> None:
        if (member := self._members.get(peer_id)) and member.up and member.place != unless_at:
            member.next_check = min(member.next_check, max(now, member.checked_at + CHECK_AGAIN_S))

    def _hear_no_more(self, witness: PeerId, now: float) -> None:
        """Whom we left alone because of its word is tried again."""
        for peer_id in self._conduct.denounced_by(witness):
            if not self._conduct.is_shunned(peer_id, now) and not self._is_live(peer_id, now):
                self._try_again(peer_id, now)

    def _try_again(self, peer_id: PeerId, now: float) -> None:
        if member := self._members.get(peer_id):
            member.next_check, member.failures = now, 0
        for item in self._candidates.values():
            if item.peer_id == peer_id:
                item.next_try = now

    def _met_elsewhere(self, who: Introduction, now: float) -> None:
        """A live peer has a second good address: the first one stays, so that open connections keep their use, but
        nothing was proved there, so it is looked into."""
        member = self._members[who.peer_id]
        member.at = replace(who, host=member.at.host, port=member.at.port)
        member.last_seen = now
        self._look_into(who.peer_id, now)

    def _put_down(self, member: _Member, now: float) -> PeerId | None:
        """Not there any more. Its other addresses are tried at once, whatever they waited for."""
        peer_id = member.at.peer_id
        was_live = self._is_live(peer_id, now)
        member.up, member.next_check = False, now + RETRY_S
        for item in self._candidates.values():
            if item.peer_id == peer_id and (item.sighting.host, item.sighting.port) != member.place:
                item.next_try = min(item.next_try, max(now, item.tried_at + CHECK_AGAIN_S))
        return peer_id if was_live else None

    def _new_candidate(self, key: _Key, sighting: Sighting, now: float) -> _Candidate | None:
        if sighting.how is not Sighted.CONFIGURED:
            if old := self._places.get((sighting.peer_id, sighting.host, sighting.how)):
                self._forget(old)  # sighted at a new port of the same host: it has left the old one
            if not self._room_for(sighting.how):
                return None
        item = _Candidate(sighting=sighting, peer_id=sighting.peer_id, next_try=now)
        self._add(key, item, sighting)
        return item

    def _add(self, key: _Key, item: _Candidate, sighting: Sighting) -> None:
        item.sighting = sighting
        self._candidates[key] = item
        self._places[(sighting.peer_id, sighting.host, sighting.how)] = key
        self._counts[sighting.how] += 1

    def _forget(self, key: _Key) -> None:
        old = self._candidates.pop(key).sighting
        self._counts[old.how] -= 1
        place = (old.peer_id, old.host, old.how)
        if self._places.get(place) == key:
            del self._places[place]

    def _room_for(self, how: Sighted) -> bool:
        """True when there is room, if need be by forgetting the candidate that failed most often."""
        if self._counts[how] < (MAX_CANDIDATES if how is Sighted.ANNOUNCED else MAX_MEMBERS):
            return True
        failing = [
            (item.failures, key)
            for key, item in self._candidates.items()
            if item.sighting.how is how and item.failures and key not in self._running
        ]
        if not failing:
            return False
        self._forget(max(failing, key=lambda pair: pair[0])[1])
        return True

    def _make_room_for_member(self, peer_id: PeerId) -> None:
        if peer_id not in self._members and len(self._members) >= MAX_MEMBERS:
            oldest = min(self._members, key=lambda item: (self._members[item].up, self._members[item].last_seen))
            del self._members[oldest]

    def _refill(self, now: float) -> None:
        if self._permits_at is not None:
            gained = max(0.0, now - self._permits_at) * ATTEMPTS_PER_S
            self._permits = min(float(ATTEMPTS_AT_ONCE), self._permits + gained)
        self._permits_at = now


def _key_of(sighting: Sighting) -> _Key:
    return sighting.peer_id, sighting.host, sighting.port


_UNREACHABLE = frozenset(
    {
        FailureKind.CONNECT_FAILED,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.NOT_TRUSTED,
        FailureKind.TLS_CERTIFICATE,
        FailureKind.TLS_FAILED,
    }
)
_DOUBTFUL = frozenset({FailureKind.CONNECTION_CLOSED, FailureKind.STALLED})
