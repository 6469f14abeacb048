"""How members behave: offences, what follows from them, and for how long.

Never knows: addresses, sockets, wall-clock time. `now` is in seconds of one clock that never jumps.

Sources of the numbers: reliability notes 3.2 rows 55 (a lie is a ban), 59 (three strikes, then a pause), 72 (an
accident is not a ban).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from peer.core.hearsay import Hearsay
from peer.core.voucher import PeerId

BAN_S = 30 * 86400.0
PAROLE_S = 600.0
"""How long a strike counts, and how long a peer with three of them is left alone."""
STRIKES = 3

MAX_RECORDS = 4096
"""Members with strikes that are remembered; beyond it the oldest record goes."""


class Standing(StrEnum):
    """What we think of a member."""

    GOOD = "good"
    ON_PAROLE = "on parole"
    """It has strikes: use it when there is no better one."""
    BANNED = "banned"


class Offence(StrEnum):
    """What a member did. The values are the reasons shown to people."""

    CORRUPT_BYTES = "sent bytes that do not match their digest"
    FALSE_VOUCHER = "vouched for a digest that the origin contradicts"
    STALLED = "stopped sending in the middle"
    BROKE_PROTOCOL = "broke the peer protocol"


BANNING = frozenset({Offence.CORRUPT_BYTES, Offence.FALSE_VOUCHER})
"""No accident of the network leads to these: TLS carried what the member sent or signed. The others are strikes."""


class Consequence(Enum):
    """What an offence led to."""

    PAROLE = "parole"
    LEFT_ALONE = "left alone"
    """Three strikes, or the word of two others: not used for `PAROLE_S` seconds."""
    BANNED = "banned"


@dataclass(slots=True)
class _Strikes:
    times: list[float] = field(default_factory=list)
    away_until: float = float("-inf")


class Conduct:
    """Bans and strikes of all members, and what they say of each other."""

    def __init__(self) -> None:
        self._bans: dict[PeerId, float] = {}
        self._strikes: dict[PeerId, _Strikes] = {}
        self._hearsay = Hearsay(PAROLE_S)

    def offend(self, peer_id: PeerId, offence: Offence, now: float) -> Consequence:
        """The member misbehaved: some offences ban at once, others are strikes."""
        if offence in BANNING:
            self.ban(peer_id, now)
            return Consequence.BANNED
        record = self._strikes.pop(peer_id, None) or _Strikes()
        self._strikes[peer_id] = record
        if len(self._strikes) > MAX_RECORDS:
            del self._strikes[next(iter(self._strikes))]
        record.times = [*(at for at in record.times if now - at < PAROLE_S), now]
        if len(record.times) < STRIKES:
            return Consequence.PAROLE
        record.away_until = now + PAROLE_S
        record.times.clear()
        return Consequence.LEFT_ALONE

    def ban(self, peer_id: PeerId, now: float, duration_s: float = BAN_S) -> None:
        """Banned until `duration_s` seconds from now."""
        self._bans[peer_id] = now + duration_s

    def denounced(self, witness: PeerId, about: Iterable[PeerId], now: float) -> None:
        """A member says that it found these lying. Who may not be used is not listened to."""
        if not self.is_shunned(witness, now):
            self._hearsay.hear(witness, about, now)

    def denounced_by(self, witness: PeerId) -> tuple[PeerId, ...]:
        """Whom it said that of."""
        return self._hearsay.spoken_of_by(witness)

    def forgive(self, peer_id: PeerId) -> None:
        """Forget bans, strikes and what others say."""
        self._bans.pop(peer_id, None)
        self._strikes.pop(peer_id, None)
        self._hearsay.forget(peer_id)

    def is_banned(self, peer_id: PeerId, now: float) -> bool:
        """True while a ban lasts."""
        return now < self._bans.get(peer_id, now)

    def is_shunned(self, peer_id: PeerId, now: float) -> bool:
        """True while the member may not be used: banned, or left alone."""
        return self.is_banned(peer_id, now) or now < self.left_alone_until(peer_id, now)

    def is_said_to_lie(self, peer_id: PeerId, now: float) -> bool:
        """True while it is left alone because others found it lying."""
        return self._believed_until(peer_id, now) is not None

    def left_alone_until(self, peer_id: PeerId, now: float) -> float:
        """End of the pause after three strikes, or after the word of two others; minus infinity when there is
        none."""
        return max(self._struck_until(peer_id), self._believed_until(peer_id, now) or float("-inf"))

    def standing(self, peer_id: PeerId, now: float) -> Standing:
        """What we think of it now."""
        if self.is_banned(peer_id, now):
            return Standing.BANNED
        record = self._strikes.get(peer_id)
        if record and (now < record.away_until or any(now - at < PAROLE_S for at in record.times)):
            return Standing.ON_PAROLE
        return Standing.ON_PAROLE if self.is_said_to_lie(peer_id, now) else Standing.GOOD

    def _struck_until(self, peer_id: PeerId) -> float:
        record = self._strikes.get(peer_id)
        return record.away_until if record else float("-inf")

    def _believed_until(self, peer_id: PeerId, now: float) -> float | None:
        """Who misbehaves itself is no witness any more; what others say of a witness is not asked, or slander would
        protect the slandered's slanderers in a circle."""

        def is_credible(witness: PeerId) -> bool:
            return not self.is_banned(witness, now) and now >= self._struck_until(witness)

        return self._hearsay.believed_until(peer_id, now, is_credible)
