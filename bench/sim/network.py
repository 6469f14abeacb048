"""Links and what flows over them: each link shares what it carries fairly among its flows.

A flow goes over the sender's way up, the receiver's way down, and the uplinks of their sites when these differ; its
rate is the smallest share that one of them has for it. The shares are the max-min fair ones, found link by link:
each gives what flows that are held up elsewhere leave, until nothing changes (Charny, Clark and Jain 1995,
"Congestion control with explicit rate indication"). Shares that change by less than a tolerance stay as they are.
Nothing is lost, and nothing queues. Big swarms have a coarser model (`even.py`).

Never knows: agents, chunks' content, why something is fetched.
"""

from __future__ import annotations

from bench.sim.clock import Clock
from peer.core.failure import FailureKind

EXACT_HOSTS = 128
"""Up to so many hosts, shares are max-min fair."""
TOLERANCE = 0.005
"""Of a share, that is not worth a new rate."""
ROUNDS = 12
"""In which shares are passed on within one tick, at most; the rest follows in the next."""
PIECE_S = 0.25
"""A flow says what has arrived at least this often: agents that hear nothing for 0.75 s do not count on a peer."""
_NOTHING = 1e-6
"""Bytes, by which nobody differs."""


class Link:
    """One way of an interface, or a site's uplink."""

    __slots__ = ("at", "bytes_per_s", "flows", "given", "in_doubt", "share")

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.flows: dict[Flow, None] = {}
        self.share = bytes_per_s
        """What each flow may use."""
        self.in_doubt = False
        """Its share is to be looked at again."""
        self.given = 0.0
        """What one flow that was always there could have brought over it until the time `at` (`even.py`)."""
        self.at = 0.0


class Flow:
    """Bytes `start` to `stop` on their way over some links."""

    __slots__ = ("armed", "at", "given", "links", "mark", "on", "place", "rate", "stop", "told_at")

    def __init__(self, links: tuple[Link, ...], start: int, stop: int) -> None:
        self.links = links
        self.stop = stop
        self.mark = stop
        """Where to say at once that it has come so far."""
        self.place = float(start)
        """How far it has come, at the time `at`."""
        self.at = 0.0
        self.rate = 0.0
        self.told_at = 0.0
        """When something was said last."""
        self.given: list[float] = []
        """Of its links, at the time `at` (`even.py`)."""
        self.armed = 0
        """The tick in which it is looked at; 0: never."""
        self.on = False
        """It flows, or seems to."""

    def heard(self) -> None:
        """`mark` is reached, or some time has passed."""
        raise NotImplementedError

    def fail(self, kind: FailureKind) -> None:
        """It breaks."""
        raise NotImplementedError


class Network:
    """All flows. `settle` once a tick."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_doubt: list[Link] = []

    def start(self, flow: Flow) -> None:
        """It begins to flow now."""
        flow.at = flow.told_at = self._clock.now
        flow.on = True
        for link in flow.links:
            link.flows[flow] = None
            self._doubt(link)
        self._set_rate(flow)

    def stop(self, flow: Flow) -> None:
        """It flows no more; `flow.place` is how far it came."""
        self._move(flow)
        flow.on, flow.armed, flow.rate = False, 0, 0.0
        for link in flow.links:
            link.flows.pop(flow, None)
            self._doubt(link)

    def hang(self, flow: Flow) -> None:
        """Nothing of it comes, and nobody says so."""
        flow.at = flow.told_at = self._clock.now
        flow.on, flow.links = True, ()
        self._arm(flow)

    def settle(self) -> None:
        """What changed in this tick has an effect on shares and rates."""
        for _ in range(ROUNDS):
            if not self._in_doubt:
                return
            links, self._in_doubt = self._in_doubt, []
            for link in links:
                link.in_doubt = False
                self._share_out(link)

    # --- shares ----------------------------------------------------------------------------------------------

    def _doubt(self, link: Link) -> None:
        if not link.in_doubt:
            link.in_doubt = True
            self._in_doubt.append(link)

    def _share_out(self, link: Link) -> None:
        if not link.flows:
            link.share = link.bytes_per_s
            return
        share = _left_over(link)
        if abs(share - link.share) <= TOLERANCE * link.share:
            return
        link.share = share
        for flow in link.flows:
            self._set_rate(flow)
            for other in flow.links:
                if other is not link:
                    self._doubt(other)

    def _set_rate(self, flow: Flow) -> None:
        rate = min([link.share for link in flow.links])
        if abs(rate - flow.rate) > _NOTHING:
            self._move(flow)
            flow.rate = rate
            self._arm(flow)

    # --- moving ----------------------------------------------------------------------------------------------

    def _move(self, flow: Flow) -> None:
        now = self._clock.now
        flow.place = min(float(flow.stop), flow.place + flow.rate * (now - flow.at))
        flow.at = now

    def _arm(self, flow: Flow) -> None:
        """Look at it when its mark is reached, or it was silent for long. Too early does no harm."""
        due = flow.told_at + PIECE_S
        if flow.rate > 0.0:
            due = min(due, flow.at + (flow.mark - flow.place) / flow.rate)
        tick = self._clock.tick_of(due)
        if not flow.armed or tick < flow.armed:
            flow.armed = tick
            self._clock.at_tick(tick, self._look, flow)

    def _look(self, flow: Flow) -> None:
        if flow.armed != self._clock.tick:
            return  # it is over, or was looked at before
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


def _left_over(link: Link) -> float:
    """The max-min fair share: flows that can use less elsewhere leave the rest to the others."""
    elsewhere = sorted(min([other.share for other in flow.links if other is not link]) for flow in link.flows)
    room, left = link.bytes_per_s, len(elsewhere)
    for share in elsewhere:
        if share * left >= room:
            return room / left
        room -= share
        left -= 1
    return elsewhere[-1] + room
