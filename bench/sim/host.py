"""A host of the simulation: a machine with its links and upload slots, and whom it believes.

Never knows: chunks, requests, the scenario.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from agent.core import events as ev
from agent.core.sources import peer_source
from bench.sim.network import Link
from bench.sim.trust import Trust
from peer.core.admission import Admission, AdmissionLimits
from peer.core.failure import FailureKind
from peer.core.voucher import PeerId

if TYPE_CHECKING:
    from bench.sim.swarm import Swarm
    from bench.sim.transfer import Transfer


class Host:
    """One agent's machine."""

    def __init__(self, swarm: Swarm, number: int, up: float, down: float) -> None:
        self.swarm = swarm
        self.number = number
        self.peer = PeerId(hashlib.sha256(f"agent {swarm.seed} {number}".encode()).hexdigest())
        self.source = peer_source(self.peer)
        self.up, self.down = Link(up), Link(down)
        self.site: Link | None = None
        """What its site shares on the way to others."""
        self.admission = Admission(AdmissionLimits())
        self.transfers: list[Transfer] = []
        self.trust = Trust()
        self.lies = 0.0
        """The share of chunks that it gives to others as noise, under true vouchers."""
        self.forges = False
        """… under vouchers of its own for that noise."""
        self.hangs = False
        """It takes requests and sends nothing."""
        self.room: int | None = None
        """Bytes its disk holds; None: enough."""
        self.alive = True
        self.sent = 0.0
        self.started_s = 0.0
        self.finished_s: float | None = None
        self.trouble: str | None = None
        """What it said last of why it cannot go on."""

    @property
    def name(self) -> str:
        """For people."""
        return f"a{self.number}"

    @property
    def done(self) -> bool:
        """All its files are there."""
        return self.finished_s is not None

    def links_to(self, taker: Host) -> tuple[Link, ...]:
        """What bytes go over from here to there."""
        if self.site is taker.site or self.site is None or taker.site is None:
            return (self.up, taker.down)
        return (self.up, self.site, taker.down)

    def begin(self, _: None = None) -> None:
        """It gets its job."""
        self.started_s = self.swarm.clock.now
        for transfer in self.transfers:
            transfer.post(ev.Begun(file=transfer.file))

    def die(self, _: None = None) -> None:
        """Without a word; its connections break."""
        self.alive = False
        for flow in tuple(self.up.flows):
            flow.fail(FailureKind.CONNECTION_CLOSED)
        for transfer in self.transfers:
            transfer.die()
