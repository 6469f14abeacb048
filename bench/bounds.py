"""How fast a content can spread at best: the fluid bound, and what a link carries beside headers.

Each agent that needs F bytes: T_min = max(F / u_s, F / min d_i, N F / (u_s + sum u_i)). Generalised here: what
seeds can send counts as the source's, seeds and those who will not finish need nothing, and who starts later can
receive and send only from then on. Rates go in as bit/s of Ethernet frames and count as *goodput*: of a full frame
of 1514 bytes, 1448 are payload (Ethernet 14, IPv4 20, TCP 20, its timestamps 12).

Pure. Sources: Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution Time", 2006; RFC 791,
9293, 7323.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bench.scenarios import Scenario

FRAME_BYTES = 1514
PAYLOAD_BYTES = 1448


class Part(Enum):
    """What a peer does in the swarm."""

    NEEDS = "needs"
    """It fetches, and its end counts."""
    SEED = "seed"
    """It has everything."""
    HELPS = "helps"
    """It may fetch and send, and its end does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One agent: its link in bit/s, and the second in which it starts."""

    up: int
    down: int
    start_s: float = 0.0
    part: Part = Part.NEEDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Seconds from the start shot that nobody can beat, and what each of the three limits says alone."""

    source_s: float
    """One copy has to leave those who have it."""
    download_s: float
    """The slowest link, or the latest start, has to take everything in."""
    spread_s: float
    """All copies together have to leave somebody."""

    @property
    def t_min_s(self) -> float:
        """The bound itself."""
        return max(self.source_s, self.download_s, self.spread_s)


def goodput(rate: int) -> float:
    """Bytes of payload per second that a link of `rate` bit/s carries in full frames."""
    return rate / 8 * PAYLOAD_BYTES / FRAME_BYTES


def bound(total_bytes: int, origin_up: int, peers: Sequence[Peer]) -> Bound:
    """For these peers, at least one of which needs the content."""
    needy = [peer for peer in peers if peer.part is Part.NEEDS]
    source = goodput(origin_up) + sum(goodput(peer.up) for peer in peers if peer.part is Part.SEED)
    upload = goodput(origin_up) + sum(goodput(peer.up) for peer in peers)
    unused = sum(goodput(peer.up) * peer.start_s for peer in peers)
    return Bound(
        source_s=min(peer.start_s for peer in peers if peer.part is not Part.SEED) + total_bytes / source,
        download_s=max(peer.start_s + total_bytes / goodput(peer.down) for peer in needy),
        spread_s=(len(needy) * total_bytes + unused) / upload,
    )


def bound_of(scenario: Scenario) -> Bound:
    """For a scenario; shares of T_min in it are of the bound without late starts."""
    unit = _bound(scenario, {})
    return _bound(scenario, scenario.starts(unit.t_min_s))


def unit_of(scenario: Scenario) -> float:
    """The seconds that the scenario's happenings count in: T_min if all started at once."""
    return _bound(scenario, {}).t_min_s


def _bound(scenario: Scenario, starts: dict[int, float]) -> Bound:
    awaited = set(scenario.awaited)
    peers = []
    for number in range(scenario.agents):
        link = scenario.link_of(number)
        part = Part.SEED if number < scenario.seeds else Part.NEEDS if number in awaited else Part.HELPS
        peers.append(Peer(up=link.up, down=link.down, start_s=starts.get(number, 0.0), part=part))
    return bound(scenario.total_bytes, scenario.origin.up, peers)
