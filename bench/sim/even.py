"""Links and flows of a big swarm: each link gives each of its flows the same share, and tells nobody of changes.

As in `network.py` a flow is as fast as the least of its links lets it be, but a link does not hand on what flows
that are held up elsewhere leave idle: that errs on the slow side. How far a flow has come is only found out when
somebody looks: it is the least of what its links had for one flow since it was looked at last, which errs on the
fast side. So a flow that begins or ends costs the same however many there are beside it.

Never knows: agents, chunks' content, why something is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bench.sim.clock import Clock
from bench.sim.network import Flow, Link

PIECE_S = 0.5
"""A flow says what has arrived at least this often: agents that hear nothing for 0.75 s do not count on a peer."""
EARLY = 0.8
"""A flow is looked at after this part of the time that it would need, lest one that has become faster ends late"""
EARLY_FROM_S = 0.05
"""… unless that is less than this."""
_NOTHING = 1e-6
"""Seconds, by which nobody differs."""


class EvenNetwork:
    """All flows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked: Callable[[Flow], None] = self._look
        """Bound once: it is planned for each flow, again and again."""

    def start(self, flow: Flow) -> None:
        """It begins to flow now."""
        now = self._clock.now
        flow.at = flow.told_at = now
        flow.on = True
        flow.given = given = []
        for link in flow.links:
            _give(link, now)
            given.append(link.given)
            link.flows[flow] = None
            link.share = link.bytes_per_s / len(link.flows)
        self._arm(flow)

    def stop(self, flow: Flow) -> None:
        """It flows no more; `flow.place` is how far it came."""
        now = self._clock.now
        self._move(flow)
        flow.on, flow.armed, flow.rate = False, 0, 0.0
        for link in flow.links:
            _give(link, now)
            link.flows.pop(flow, None)
            link.share = link.bytes_per_s / (len(link.flows) or 1)

    def hang(self, flow: Flow) -> None:
        """Nothing of it comes, and nobody says so."""
        flow.at = flow.told_at = self._clock.now
        flow.on, flow.links = True, ()
        self._arm(flow)

    def settle(self) -> None:
        """Nothing is left to do after a tick."""

    def _move(self, flow: Flow) -> None:
        now = self._clock.now
        if now <= flow.at:
            return
        flow.at = now
        if not flow.links:
            return
        come, given = math.inf, flow.given
        for index, link in enumerate(flow.links):
            there = link.given + link.share * (now - link.at)
            if there - given[index] < come:
                come = there - given[index]
            given[index] = there
        flow.place = min(float(flow.stop), flow.place + come)

    def _arm(self, flow: Flow) -> None:
        """Look at it when its mark may be reached, or it was silent for long. Too early does no harm."""
        due = flow.told_at + PIECE_S
        if flow.links:
            rate = math.inf
            for link in flow.links:
                if link.share < rate:
                    rate = link.share
            flow.rate = rate
            needs_s = (flow.mark - flow.place) / rate
            if needs_s > EARLY_FROM_S:
                needs_s *= EARLY
            if flow.at + needs_s < due:
                due = flow.at + needs_s
        tick = self._clock.tick_of(due)
        if not flow.armed or tick < flow.armed:
            flow.armed = tick
            self._clock.at_tick(tick, self._looked, flow)

    def _look(self, flow: Flow) -> None:
        if flow.armed != self._clock.tick:
            return  # it is over
        flow.armed = 0
        self._move(flow)
        now = self._clock.now
        if flow.place >= flow.mark - 0.5:
            flow.place = max(flow.place, float(flow.mark))
        elif now < flow.told_at + PIECE_S - _NOTHING:
            self._arm(flow)
            return
        flow.told_at = now
        flow.heard()
        if flow.on:
            self._arm(flow)


def _give(link: Link, now: float) -> None:
    """Until now each of its flows had the same share."""
    link.given += link.share * (now - link.at)
    link.at = now
