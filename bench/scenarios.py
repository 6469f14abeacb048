"""What is measured, as values: who fetches how much over which links, and what happens meanwhile.

The laboratory and the simulator play the same scenarios. Pure. Never knows: agents, clocks, how a link is shaped.
Rates are bit/s of Ethernet frames, times that happen are shares of the scenario's T_min (bounds.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

MBIT = 1_000_000
MIB = 1024 * 1024
MAX_AGENTS = 100_000
MIN_RATE = 10_000
"""Below it one full frame takes more than a second."""


class ScenarioError(ValueError):
    """The values make no sense together; str() is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a host's interface can do, in bit/s."""

    up: int
    down: int

    @classmethod
    def both(cls, rate: int) -> Link:
        """The same each way."""
        return cls(up=rate, down=rate)

    def times(self, share: float) -> Link:
        """A part of it, or a multiple."""
        return Link(up=round(self.up * share), down=round(self.down * share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """This agent's link has only this share of the others', both ways, from the beginning. Nobody waits for it."""

    agent: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """This agent dies without a word, `at` T_min after the start shot."""

    agent: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """This agent runs, and gets its job only `at` T_min after the start shot."""

    agent: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """This agent alters a byte in this share of the chunks that it gives to others."""

    agent: int
    share: float
    forges: bool = False
    """It vouches for what it altered, with its own key: only who knows the whole file's digest can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDisk:
    """This agent has room for this share of the files. Nobody waits for it."""

    agent: int
    share: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginDies:
    """The origin goes away, `at` T_min after the start shot, and does not come back."""

    at: float


Happening = Slow | Kill | Late | Lie | FullDisk | OriginDies


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One case. Raises ScenarioError when it cannot be."""

    name: str
    title: str
    agents: int
    """Seeds included."""
    size: int
    """Bytes of each file."""
    origin: Link
    agent: Link
    files: int = 1
    seeds: int = 0
    """So many, the first ones, have everything before the start shot."""
    stagger_s: float = 0.0
    """Seconds between the starts of two agents."""
    happenings: tuple[Happening, ...] = ()

    def __post_init__(self) -> None:
        self._check_counts()
        for happening in self.happenings:
            self._check(happening)
        if not self.awaited:
            raise ScenarioError(f"{self.name}: nobody is left to finish; it needs more agents")

    @property
    def total_bytes(self) -> int:
        """F: what each agent fetches."""
        return self.size * self.files

    @property
    def leechers(self) -> range:
        """Those who fetch."""
        return range(self.seeds, self.agents)

    @property
    def awaited(self) -> tuple[int, ...]:
        """Those whose end is waited for: they fetch, and live to the end at full rate."""
        lost = {item.agent for item in self.happenings if isinstance(item, Slow | Kill | FullDisk)}
        return tuple(number for number in self.leechers if number not in lost)

    def link_of(self, agent: int) -> Link:
        """Of one agent."""
        for item in self.happenings:
            if isinstance(item, Slow) and item.agent == agent:
                return self.agent.times(item.share)
        return self.agent

    def starts(self, t_min_s: float) -> dict[int, float]:
        """Seconds after the start shot at which each leecher gets its job."""
        late = {item.agent: item.at * t_min_s for item in self.happenings if isinstance(item, Late)}
        return {number: late.get(number, place * self.stagger_s) for place, number in enumerate(self.leechers)}

    def changed(
        self,
        *,
        agents: int | None = None,
        size: int | None = None,
        origin_rate: int | None = None,
        agent_rate: int | None = None,
    ) -> Scenario:
        """The same with other values; None: as it is. Raises ScenarioError."""
        return dataclasses.replace(
            self,
            agents=self.agents if agents is None else agents,
            size=self.size if size is None else size,
            origin=self.origin if origin_rate is None else Link.both(origin_rate),
            agent=self.agent if agent_rate is None else Link.both(agent_rate),
        )

    def _check_counts(self) -> None:
        if not 1 <= self.agents <= MAX_AGENTS:
            raise ScenarioError(f"{self.name}: agents must be 1 to {MAX_AGENTS}, not {self.agents}")
        if self.size < 1 or self.files < 1:
            raise ScenarioError(f"{self.name}: there must be at least one file of at least one byte")
        if not 0 <= self.seeds < self.agents:
            raise ScenarioError(
                f"{self.name}: {_number(self.agents)} with {self.seeds} that have it leave nobody to fetch it"
            )
        if not 0 <= self.stagger_s < float("inf"):
            raise ScenarioError(f"{self.name}: the seconds between two starts must not be {self.stagger_s}")
        rates = (self.origin.up, self.origin.down, self.agent.up, self.agent.down)
        if min(rates) < MIN_RATE:
            raise ScenarioError(f"{self.name}: a link needs at least {MIN_RATE} bit/s, not {min(rates)}")

    def _check(self, happening: Happening) -> None:
        if not isinstance(happening, OriginDies) and not 0 <= happening.agent < self.agents:
            raise ScenarioError(
                f"{self.name}: it needs {_number(happening.agent + 1)} or more, and there are {self.agents}"
            )
        match happening:
            case (
                Slow(agent=agent, share=share) | Lie(agent=agent, share=share) | FullDisk(agent=agent, share=share)
            ):
                if not 0 < share <= 1:
                    raise ScenarioError(f"{self.name}: the share of agent {agent} must be 0 to 1, not {share}")
            case Kill(at=at) | Late(at=at) | OriginDies(at=at):
                if not 0 < at < 100:
                    raise ScenarioError(f"{self.name}: nothing can happen {at} T_min after the start")
        if isinstance(happening, Slow) and self.agent.times(happening.share).up < MIN_RATE:
            raise ScenarioError(f"{self.name}: the slow agent's link would be below {MIN_RATE} bit/s")
        if isinstance(happening, Late | FullDisk) and happening.agent < self.seeds:
            raise ScenarioError(f"{self.name}: agent {happening.agent} fetches nothing, it has everything")


def _number(agents: int) -> str:
    return f"{agents} agent" if agents == 1 else f"{agents} agents"


_LAN = Link.both(80 * MBIT)


def _all() -> Iterable[Scenario]:
    cold = Scenario(
        name="cold",
        title="nobody has it, all want it at once",
        agents=8,
        size=128 * MIB,
        origin=_LAN,
        agent=_LAN,
    )
    yield cold
    yield dataclasses.replace(cold, name="staggered", title="one more wants it each second", stagger_s=1.0)
    yield dataclasses.replace(cold, name="warm", title="one has it, the others want it at once", seeds=1)
    yield dataclasses.replace(
        cold,
        name="wan",
        title="a slow origin, a fast network",
        size=64 * MIB,
        origin=Link.both(20 * MBIT),
        agent=Link.both(200 * MBIT),
    )
    yield dataclasses.replace(
        cold, name="fast-origin", title="the origin could feed five at once", origin=Link.both(400 * MBIT)
    )
    yield dataclasses.replace(
        cold,
        name="slow-peer",
        title="one has 1 % of the others' rate",
        happenings=(Slow(agent=1, share=0.01),),
    )
    yield dataclasses.replace(
        cold, name="dead-owner", title="one is killed in the middle", happenings=(Kill(agent=1, at=0.5),)
    )
    yield dataclasses.replace(
        cold, name="liar", title="one alters 10 % of the chunks it gives", happenings=(Lie(agent=1, share=0.1),)
    )
    yield dataclasses.replace(
        cold,
        name="forger",
        title="one vouches for 10 % of its chunks after altering them",
        happenings=(Lie(agent=1, share=0.1, forges=True),),
    )
    yield dataclasses.replace(
        cold,
        name="churn",
        title="two are killed, two come late",
        happenings=(
            Kill(agent=1, at=0.3),
            Kill(agent=2, at=0.6),
            Late(agent=3, at=0.25),
            Late(agent=4, at=0.5),
        ),
    )
    yield dataclasses.replace(cold, name="two-files", title="two files in one job", size=64 * MIB, files=2)


SCENARIOS = {scenario.name: scenario for scenario in _all()}
