"""A scenario in virtual time: hosts, links, contents, and what happens meanwhile; are all promises kept?

Every run ends: with everybody done, or with a `SimError` that says who waits for what. Never knows: wall-clock
time, how results are shown.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from agent.core.facts import OriginFacts, RangeSupport
from agent.core.neighbours import neighbours_among
from agent.core.rendezvous import Group
from agent.core.spec import TransferSpec
from agent.core.tuning import Tuning
from bench.bounds import bound_of, goodput, unit_of
from bench.scenarios import FullDisk, Kill, Late, Lie, OriginDies, Scenario, Slow
from bench.sim.clock import Clock
from bench.sim.even import EvenNetwork
from bench.sim.helper import Helper, HelperError
from bench.sim.host import Host
from bench.sim.network import EXACT_HOSTS, Link, Network
from bench.sim.transfer import Transfer
from peer.core.failure import FailureKind
from validation.content import ChunkLayout, content_id_by_url
from validation.digest import ChunkDigest

TICK_S = 0.0005
BIG_TICK_S = 0.004
BIG_TURN_S, HUGE_TURN_S = 0.06, 0.1
"""An agent of a big swarm takes a turn that often, with all that happened since the last one, digests included. Of
the bound 150 cold agents (32 MiB) took 1.75 times with 5 ms, 1.73 with 20, 1.75 with 60 and 1.85 with 100, with
1.14, 1.13, 1.06 and 1.04 copies; 1,000 took 2.00 times with 20 ms, 2.06 with 60 and 2.13 with 100, with 1.21, 1.22
and 1.24 copies. A chunk costs 1.7 times with 20 ms what it costs with 100, and 1.15 times with 60."""
HUGE = 1000
"""Agents above which turns are that long, and two processes share the work (`helper.py`)."""
OVERHEAD_S = 0.002
"""Of a request, beside its round trip: parsing, looking up, the first read."""
MEET_S = 0.03
"""From asking for the first time to the first answers: connections have to be made."""
MOST_COPIES = 64
"""A swarm that loads the origin with more than so many is broken."""
IDLE_S = 3.0
"""Waiting with nothing in flight counts as idle from here on."""
UNWRITTEN = Tuning(note_bytes=1 << 62, note_s=math.inf, checkpoint_s=math.inf)
"""Agents as they are, but for the progress that they write down: there is nobody to read it."""


class SimError(Exception):
    """The run has no result; str() is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the scenario does not say."""

    seed: int = 1
    latency_s: float = 0.001
    """One way."""
    sites: int = 1
    """The hosts are spread evenly over so many; the origin is at none of them."""
    site_rate: int = 0
    """Bit/s of each site's way out, if there are several."""
    neighbours: int | None = None
    """Peers that one agent listens to, at most; even. None: as the agents have it."""
    huge: int = HUGE
    """See there."""


class Content:
    """One file, as the origin serves it."""

    def __init__(self, number: int, length: int) -> None:
        self.number = number
        self.url = f"http://origin.example/content-{number}.bin"
        self.layout = ChunkLayout.for_length(length)
        self.facts = OriginFacts(length=length, etag=f'"{number}"', ranges=RangeSupport.PROMISED)
        self.content_id = content_id_by_url(self.url, f'"{number}"', length)
        self.digests = self._digests("true")
        self.noise = self._digests("noise")
        self.from_origin = [0] * self.layout.count
        """How often each chunk was brought whole from the origin."""

    def _digests(self, flavour: str) -> tuple[ChunkDigest, ...]:
        """Any injection will do."""
        return tuple(
            hashlib.sha256(f"{flavour} {self.number} {chunk}".encode()).digest()
            for chunk in range(self.layout.count)
        )


class Swarm:
    """Everything. `run` it once."""

    def __init__(self, scenario: Scenario, world: World, tuning: Tuning | None = None) -> None:
        self.scenario = scenario
        self.seed = world.seed
        self.has_forgers = False
        """Somebody vouches for what is wrong: only a validator finds out."""
        self._is_huge = scenario.agents > world.huge
        self.t_min_s = bound_of(scenario).t_min_s
        self.tuning = tuning or UNWRITTEN
        self.latency_s = world.latency_s
        self.ask_s = 2 * world.latency_s + OVERHEAD_S
        self.meet_s = MEET_S + 4 * world.latency_s
        big = scenario.agents > EXACT_HOSTS
        self.clock = Clock(BIG_TICK_S if big else TICK_S)
        self.turn_ticks = round(_turn_s(scenario.agents, world.huge) / self.clock.tick_s)
        """An agent has a turn that often, if something happened. 0: as soon as it happens."""
        self.network = EvenNetwork(self.clock) if big else Network(self.clock)
        self.origin = Link(goodput(scenario.origin.up))
        self.origin_sent = 0.0
        self.origin_is_down = False
        self.idle_s = 0.0
        self.helper: Helper | None = None
        """The second process of a huge swarm, while it runs."""
        self.left = 0
        """Whose end is waited for."""
        self.contents = [Content(number, scenario.size) for number in range(scenario.files)]
        self.hosts = [self._host(number) for number in range(scenario.agents)]
        self.by_peer = {host.peer: host for host in self.hosts}
        self.group = Group(self.by_peer)
        self._awaited = frozenset(scenario.awaited)
        self._build_sites(world)
        most = neighbours_among(scenario.agents - 1) if world.neighbours is None else world.neighbours
        self._introduce(random.Random(f"neighbours {world.seed}"), most)
        self._plan()

    # --- making it -------------------------------------------------------------------------------------------

    def _host(self, number: int) -> Host:
        link = self.scenario.link_of(number)
        host = Host(self, number, goodput(link.up), goodput(link.down))
        for content in self.contents:
            spec = None
            if number >= self.scenario.seeds:
                spec = TransferSpec(file=Transfer.file_of(content.number), url=content.url)
            host.transfers.append(Transfer(host, content, spec))
        return host

    def _build_sites(self, world: World) -> None:
        if world.sites > 1:
            sites = [Link(goodput(world.site_rate)) for _ in range(world.sites)]
            for host in self.hosts:
                host.site = sites[host.number % world.sites]

    def _introduce(self, rng: random.Random, most: int) -> None:
        """Who listens to whom: everybody to everybody, or to so many at random. It is mutual: who is asked asks
        back. Rings in random order make it even, and leave nobody out."""
        count = len(self.hosts)
        pairs: set[tuple[int, int]] = set()
        if count - 1 <= most:
            pairs.update((one, other) for one in range(count) for other in range(one))
        else:
            order = list(range(count))
            for _ in range(most // 2):
                rng.shuffle(order)
                pairs.update((max(pair), min(pair)) for pair in zip(order, [*order[1:], order[0]], strict=True))
        for one, other in sorted(pairs):
            for mine, theirs in zip(self.hosts[one].transfers, self.hosts[other].transfers, strict=True):
                mine.neighbours.append(theirs)
                theirs.neighbours.append(mine)

    def _plan(self) -> None:
        unit_s = unit_of(self.scenario)
        for number, at in self.scenario.starts(unit_s).items():
            self.clock.at(at, Host.begin, self.hosts[number])
        self.left = len(self._awaited)
        for item in self.scenario.happenings:
            match item:
                case Kill(agent=agent, at=at):
                    self.clock.at(at * unit_s, Host.die, self.hosts[agent])
                case OriginDies(at=at):
                    self.clock.at(at * unit_s, Swarm._origin_dies, self)
                case Lie(agent=agent, share=share, forges=forges):
                    self.hosts[agent].lies, self.hosts[agent].forges = share, forges
                    self.has_forgers = self.has_forgers or forges
                case FullDisk(agent=agent, share=share):
                    self.hosts[agent].room = round(share * self.scenario.total_bytes)
                case Slow() | Late():
                    pass  # in the links, and in the starts
                case _:
                    assert_never(item)

    def _origin_dies(self) -> None:
        self.origin_is_down = True
        for flow in tuple(self.origin.flows):
            flow.fail(FailureKind.CONNECTION_CLOSED)

    # --- what hosts ask --------------------------------------------------------------------------------------

    def origin_links(self, host: Host) -> tuple[Link, ...]:
        """What bytes of the origin go over."""
        return (self.origin, host.down)

    def finished(self, transfer: Transfer) -> None:
        """A transfer has everything."""
        host = transfer.host
        transfer.done = True
        if all(each.done for each in host.transfers):
            host.finished_s = self.clock.now
            self.left -= host.number in self._awaited

    def idled(self, seconds: float) -> None:
        """A transfer waited with nothing in flight."""
        self.idle_s += max(0.0, seconds - IDLE_S)

    def broken(self, what: str) -> SimError:
        """A promise was not kept."""
        return SimError(f"{self.scenario.name}, {self.clock.now:.3f} s: {what}")

    # --- running ---------------------------------------------------------------------------------------------

    @property
    def limit_s(self) -> float:
        """No run is longer: as in the laboratory, each alone at the origin, one after the other, and more."""
        alone_s = bound_of(self.scenario).source_s
        return 30 + 1.5 * (self.t_min_s + min(MOST_COPIES, len(self.scenario.leechers)) * alone_s)

    def run(self, each_turn: Callable[[], None] | None = None) -> None:
        """Until everybody is done who is waited for. Raises SimError."""
        if self._is_huge and not any(host.lies for host in self.hosts):  # who was told of liars is known in one
            self.helper = Helper(self)
        try:
            self._run(each_turn)
            if self.helper is not None:
                self.helper.end()
        except HelperError as error:
            raise self.broken(str(error)) from error
        finally:
            if self.helper is not None:
                self.helper.close()
        self._settle_accounts()

    def _run(self, each_turn: Callable[[], None] | None) -> None:
        clock, network, helper, limit_s = self.clock, self.network, self.helper, self.limit_s
        while self.left:
            if not clock.turn():
                raise self.broken(f"nothing will ever happen again: {self._who_waits()}")
            if helper is not None:
                helper.exchange()
            network.settle()
            if each_turn is not None:
                each_turn()
            if clock.now > limit_s:
                raise self.broken(f"it takes too long: {self._who_waits()}")

    def _settle_accounts(self) -> None:
        """What is under way counts as far as it came."""
        for host in self.hosts:
            for transfer in host.transfers:
                for request in tuple(transfer.requests.values()):
                    request.drop()
                if transfer.idle_since is not None:
                    self.idled(self.clock.now - transfer.idle_since)

    def _who_waits(self) -> str:
        waiting = [self.hosts[number] for number in sorted(self._awaited) if not self.hosts[number].done]
        first = waiting[0]
        transfer = next(each for each in first.transfers if not each.done)
        others = f", and {len(waiting) - 1} more are not done" if len(waiting) > 1 else ""
        return f"{first.name} {transfer.waits_for()}{others}"


def _turn_s(agents: int, huge: int) -> float:
    if agents <= EXACT_HOSTS:
        return 0.0
    return BIG_TURN_S if agents <= huge else HUGE_TURN_S
