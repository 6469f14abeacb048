"""What a place among the others depends on, and how one looks to people: values only.

Never knows: how any of it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from peer.core.admission import AdmissionLimits
from peer.core.standing import Standing
from peer.core.voucher import PeerId
from peer.identity import Group


class Discovering(Enum):
    """How peers are found, beside those that are configured and those that call us."""

    MDNS = "mdns"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """What an agent's place among the others depends on."""

    home: Path
    """Holds identity/, certificates/ and peers.json."""
    group: Group
    name: str | None = None
    """For people; the host's name when None."""
    host: str | None = None
    """Address to listen on; None: every address."""
    port: int = 0
    """0: the system chooses."""
    interfaces: tuple[str, ...] = ()
    """Names or IPv4 addresses for mDNS; none: all that are not loopback."""
    discovering: Discovering = Discovering.MDNS
    static_peers: tuple[tuple[str, int], ...] = ()
    """Hosts and ports that are tried without mDNS; whose they are is learnt from their certificates."""
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One member as people see it. Times: seconds since 1970; bytes: over the life of this agent."""

    peer_id: PeerId
    name: str
    address: str | None
    authenticated: bool
    """It showed us a certificate of the group (BITS: IsAuthenticated)."""
    available: bool
    """It can be asked now (BITS: IsAvailable)."""
    standing: Standing
    last_seen: float | None
    given: int
    taken: int
    version: str
    reason: str
    """Of a ban: what it did, or why somebody wanted it; that it is left alone on others' word; else empty."""
    banned_until: float | None
