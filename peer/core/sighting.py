"""What is heard and known of one agent: a sighting, an introduction, a peer. Values only.

Never knows: whom to believe, when to try what.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peer.core.standing import Standing
from peer.core.voucher import PeerId


class Sighted(Enum):
    """How we heard of an address."""

    ANNOUNCED = "announced"
    """Multicast DNS: anybody may have said it."""
    CALLED_US = "called us"
    """The id is proven (it called with its certificate); the port is what it says."""
    CONFIGURED = "configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Somebody may be reachable there. `peer_id` is None when only the address is known."""

    host: str
    port: int
    peer_id: PeerId | None
    how: Sighted


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """A member that proved its id at this address and told its name and version."""

    peer_id: PeerId
    host: str
    port: int
    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPeer:
    """A member we have met. `last_seen`: when it last proved to be there, in the roster's clock."""

    peer_id: PeerId
    host: str
    port: int
    name: str
    version: str
    standing: Standing
    last_seen: float
