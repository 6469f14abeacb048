"""The simulated world by itself: time, fair shares, who knows whom, and the promises that it watches over."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from agent.core.neighbours import SOME
from bench.scenarios import SCENARIOS, Scenario
from bench.sim.clock import Clock
from bench.sim.even import EvenNetwork
from bench.sim.network import Flow, Link, Network
from bench.sim.swarm import SimError, Swarm, World
from peer.core.failure import FailureKind
from validation.content import NO_CHUNKS

TICK_S = 0.001


class Watched(Flow):
    """Remembers when it was heard, and ends at its end."""

    def __init__(self, network: Network | EvenNetwork, clock: Clock, links: tuple[Link, ...], count: int) -> None:
        super().__init__(links, 0, count)
        self.network, self.clock = network, clock
        self.times: list[float] = []
        self.ended: float | None = None

    def heard(self) -> None:
        self.times.append(self.clock.now)
        if self.place >= self.stop:
            self.network.stop(self)
            self.ended = self.clock.now

    def fail(self, kind: FailureKind) -> None:
        raise AssertionError(kind)


def run(clock: Clock, network: Network | EvenNetwork) -> None:
    network.settle()
    while clock.turn():
        network.settle()


def test_what_was_planned_for_one_tick_happens_in_order_and_may_plan_more() -> None:
    clock, done = Clock(TICK_S), list[tuple[str, float]]()

    def note(name: str) -> None:
        done.append((name, clock.now))
        if name == "first":
            clock.at(clock.now, note, "again")

    clock.at(0.002, note, "late")
    clock.at(0.001, note, "first")
    clock.at(0.0005, note, "second")
    run(clock, Network(clock))
    assert done == [("first", 0.001), ("second", 0.001), ("again", 0.001), ("late", 0.002)]
    assert clock.happened == 4


def test_a_link_is_shared_and_what_is_left_goes_to_the_others() -> None:
    clock = Clock(TICK_S)
    network = Network(clock)
    wide, narrow, down = Link(1000.0), Link(100.0), Link(1e9)
    slow = Watched(network, clock, (wide, narrow), 100)
    quick = Watched(network, clock, (wide, down), 1350)
    network.start(slow)
    network.start(quick)
    run(clock, network)
    assert slow.ended == pytest.approx(1.0, abs=0.01)
    assert quick.ended == pytest.approx(1.0 + 450 / 1000, abs=0.01), "900 a second, then 1000"


def test_a_big_swarm_shares_evenly() -> None:
    clock = Clock(TICK_S)
    network = EvenNetwork(clock)
    link = Link(1000.0)
    flows = [Watched(network, clock, (link, Link(1000.0)), size) for size in (100, 200)]
    for flow in flows:
        network.start(flow)
    run(clock, network)
    assert [flow.ended for flow in flows] == pytest.approx([0.2, 0.3], abs=0.025)


def test_a_slow_flow_says_what_came_in_between_and_one_that_hangs_says_so_too() -> None:
    clock = Clock(TICK_S)
    network = Network(clock)
    flow = Watched(network, clock, (Link(100.0), Link(1e9)), 100)
    network.start(flow)
    hanging = Watched(network, clock, (Link(100.0),), 100)
    network.hang(hanging)
    while clock.now < 2.0 and clock.turn():
        network.settle()
    assert flow.times == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.01)
    assert hanging.place == 0
    assert len(hanging.times) >= 7


def small(name: str, agents: int = 8) -> Scenario:
    return SCENARIOS[name].changed(agents=agents, size=4 << 20)


def test_in_a_big_group_everybody_knows_some_and_they_know_it() -> None:
    swarm = Swarm(small("cold", 200), World(seed=5))
    known = {host.number: {each.host.number for each in host.transfers[0].neighbours} for host in swarm.hosts}
    assert all(SOME - 6 < len(others) <= SOME for others in known.values())
    assert all(number in known[other] for number, others in known.items() for other in others)
    assert all(number not in others for number, others in known.items())
    reached, ahead = {0}, [0]
    while ahead:
        fresh = known[ahead.pop()] - reached
        reached |= fresh
        ahead += sorted(fresh)
    assert len(reached) == 200


def test_a_peer_that_hangs_holds_nobody_up_for_long() -> None:
    swarm = Swarm(small("warm"), World())
    for host in swarm.hosts[1:3]:
        host.hangs = True
    swarm.run()
    assert swarm.left == 0
    assert swarm.clock.now < 20


def test_a_liar_is_banned_and_nothing_wrong_stays() -> None:
    swarm = Swarm(small("liar"), World())
    liar = swarm.hosts[1]
    liar.lies = 1.0
    swarm.run()
    assert all(host.trust.avoids(liar) for host in swarm.hosts if host is not liar)
    assert sum(liar in host.trust.banned for host in swarm.hosts) >= 2
    assert not any(transfer.noise for host in swarm.hosts for transfer in host.transfers)


def test_who_is_asked_for_what_it_never_had_ends_the_run() -> None:
    swarm = Swarm(small("warm"), World())
    swarm.hosts[0].transfers[0].have = NO_CHUNKS  # after it was offered
    with pytest.raises(SimError, match=r"warm, 0\.\d+ s: a\d asks a0 for what it never offered"):
        swarm.run()


def test_a_swarm_that_cannot_end_says_who_waits_for_what() -> None:
    scenario = dataclasses.replace(small("warm"), origin=SCENARIOS["wan"].origin)
    swarm = Swarm(scenario, World())
    swarm.origin_is_down = True
    with pytest.raises(SimError, match="a1 is in trouble"):
        swarm.run()


def test_bytes_are_counted_once() -> None:
    swarm = Swarm(small("cold"), World())
    swarm.run()
    total = swarm.scenario.total_bytes
    assert swarm.origin_sent + sum(host.sent for host in swarm.hosts) == pytest.approx(8 * total, rel=0.05)
    times = Counter(swarm.contents[0].from_origin)
    assert times[0] == 0, "somebody brought each chunk"
