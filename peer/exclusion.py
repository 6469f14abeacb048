"""Who is left out: bans for lies, bans by people, their end; and who is forgotten.

A ban is stored at once, and takes back all that rests on the member's word alone. Whom an administrator banned gets
nothing. Who lied is not asked and not believed, but given what it asks for: it may be a machine that is broken, and
cut off it would load the origin with one more copy.
Never knows: sockets, certificates, content, who is asked for what. Source: bits-reference 4.1 (ClearPeers), 4.4.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from peer.cache import PeerCache
from peer.core.roster import BAN_S, Consequence, Offence, Roster
from peer.core.voucher import PeerId
from peer.core.wire import DISTRUSTS_A_REQUEST, Distrust
from peer.database import DatabaseError
from peer.ledger import Ban, Ledger

_AT_ONCE = float("-inf")
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What is done about it elsewhere."""

    cut_off: Callable[[PeerId], None]
    """End its connections, in both directions."""
    hang_up: Callable[[PeerId], None]
    """End our connections to it."""
    down: Callable[[PeerId], None]
    """A live peer is live no more."""
    store: Callable[[], None]
    """The ledger has changed: write it now."""
    wake: Callable[[], None]
    """The roster has changed."""
    ask_anew: Callable[[], None]
    """Others are distrusted than before: who was asked what it has is to hear of that."""
    spawn: Callable[[Coroutine[None, None, None]], None]


class Exclusion:
    """Bans and oblivion for one agent's peers; `own` is its own id."""

    def __init__(self, own: PeerId, roster: Roster, ledger: Ledger, cache: PeerCache, effects: Effects) -> None:
        self._own, self._roster, self._ledger, self._cache, self._effects = own, roster, ledger, cache, effects
        self.problem: str | None = None
        """Why the cache still has what a banned member vouched for."""
        self._named: tuple[Distrust, ...] = ()
        self._named_until = _AT_ONCE
        """When the end of a ban, in seconds since 1970, makes `_named` old."""

    def report(self, peer_id: PeerId, offence: Offence, detail: str) -> None:
        """A peer misbehaved: a lie bans it, anything else is a strike (roster)."""
        now = time.monotonic()
        was_live = self._roster.find(peer_id, now) is not None
        consequence = self._roster.offend(peer_id, offence, now)
        if consequence is Consequence.BANNED:
            at = time.time()
            self._banned(Ban(peer_id=peer_id, offence=offence, detail=detail, since=at, until=at + BAN_S))
        if was_live and consequence is not Consequence.PAROLE:
            self._effects.down(peer_id)
        self._effects.wake()

    def denounced(self, witness: PeerId, about: tuple[PeerId, ...]) -> None:
        """A member says that it found these lying: once two say so, they are left alone (roster)."""
        for peer_id in self._roster.denounced(witness, about, time.monotonic()):
            self._effects.down(peer_id)
            self._effects.wake()

    def shuts_out(self, peer_id: PeerId) -> bool:
        """Nothing is given to it."""
        if not self._roster.is_banned(peer_id, time.monotonic()):
            return False
        ban = self._ledger.ban_of(peer_id, time.time())
        return ban is None or ban.offence is None

    def distrusted(self) -> tuple[Distrust, ...]:
        """The members banned last, newest first, as many as a question can name. Kept until that changes."""
        at = time.time()
        if at >= self._named_until:
            bans = self._ledger.bans(at)[::-1]
            self._named_until = min((ban.until for ban in bans), default=float("inf"))
            named = bans[:DISTRUSTS_A_REQUEST]
            self._named = tuple(Distrust(ban.peer_id, ban.offence is not None) for ban in named)
        return self._named

    def ban(self, peer_id: PeerId, reason: str, duration_s: float) -> bool:
        """Somebody wants a member left out, also one that was never met. False: no such member can be."""
        if not _ID.fullmatch(peer_id) or peer_id == self._own:
            return False
        now, at = time.monotonic(), time.time()
        was_live = self._roster.find(peer_id, now) is not None
        self._roster.ban(peer_id, now, duration_s)
        self._banned(Ban(peer_id=peer_id, offence=None, detail=reason, since=at, until=at + duration_s))
        if was_live:
            self._effects.down(peer_id)
        self._effects.wake()
        return True

    def unban(self, peer_id: PeerId) -> bool:
        """Forgive a member; it is tried again at once. False when it was not banned."""
        lifted = self._ledger.unban(peer_id)
        self._roster.unban(peer_id, time.monotonic())
        self._trust_changed()
        self._effects.store()
        self._effects.wake()
        return lifted

    async def restore(self) -> None:
        """The bans of earlier lives hold, and all that follows from them: we may have been killed in between."""
        at, now = time.time(), time.monotonic()
        for ban in self._ledger.bans(at):
            self._roster.ban(ban.peer_id, now, ban.until - at)
            await self._withdraw(ban.peer_id)

    def forget(self, peer_id: PeerId) -> bool:
        """Drop a member from the list, unless it is banned. False when nothing was dropped."""
        now, at = time.monotonic(), time.time()
        if self._ledger.ban_of(peer_id, at) is not None:
            return False
        was_live = self._roster.find(peer_id, now) is not None
        self._effects.cut_off(peer_id)
        met, remembered = self._roster.forget(peer_id), self._ledger.forget(peer_id, at)
        if was_live:
            self._effects.down(peer_id)
        self._effects.store()
        self._effects.wake()
        return met or remembered

    def forget_all(self) -> int:
        """Empty the list, but for bans. Returns how many were dropped."""
        met = [peer.peer_id for peer in self._roster.known(time.monotonic())]
        listed = sorted({*met, *self._ledger.peers()})
        return sum(self.forget(peer_id) for peer_id in listed)

    def forget_absent(self) -> None:
        """Drop those that were not seen for a long time."""
        now = time.monotonic()
        for peer_id in self._ledger.absent(time.time()):
            if self._roster.find(peer_id, now) is None:
                self.forget(peer_id)

    def _banned(self, ban: Ban) -> None:
        self._ledger.ban(ban)
        self._trust_changed()
        self._effects.store()
        if ban.offence is None:
            self._effects.cut_off(ban.peer_id)
        else:
            self._effects.hang_up(ban.peer_id)
        self._effects.spawn(self._withdraw(ban.peer_id))

    def _trust_changed(self) -> None:
        self._named_until = _AT_ONCE
        self._effects.ask_anew()

    async def _withdraw(self, peer_id: PeerId) -> None:
        try:
            await self._cache.withdraw_vouched_by(peer_id)
            self.problem = None
        except (OSError, DatabaseError) as error:
            self.problem = f"chunks that a banned peer vouched for stay in the cache: {error}"
