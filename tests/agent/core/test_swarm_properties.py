"""What holds in every swarm: nothing is asked for twice without need, nobody waits for nothing, every run ends.

Random swarms in virtual time, seen through what their cores were told and commanded (tests/support/swarm_diary.py).
The *tail* of an agent is every moment in which it may ask for more and has nothing left to ask for: whatever it
misses is under way to it, or nobody offers it. Only then may it give up a request to a peer and ask another. And
even then no chunk is under way to it twice: the diary asserts that at every request of every run.

A chunk is *taken over* when the agent that asked the origin for it has given it up, could not be heard of yet (news
take `NEWS_S`), or was late, dead, lying, cut off or too slow.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from agent.core.sources import ORIGIN, peer_source
from agent.core.tuning import Tuning
from tests.support.swarm import CHUNK, COALESCE_S, DELAY_S, PIECE_S, STALL_S, Agent, Host, Swarm
from tests.support.swarm_diary import Diary, Request
from validation.content import NO_CHUNKS, Bitfield

RATE = 1.25e6
TUNING = Tuning()
NEWS_S = COALESCE_S + 3 * DELAY_S
"""From what an agent does to when everybody has heard of it."""
LATE_S = TUNING.least_claim_s
"""A claim is believed for at least so long."""
PATIENCE_S = TUNING.claim_patience_s + CHUNK / TUNING.claim_rate_bytes_per_s
"""The longest that a claim is believed. No core wants to be woken up later than that."""
CALM_S = 2.0
"""An agent may be idle so long in all when nothing goes wrong: beginning, news, the time of one claim."""
FAULT_S = STALL_S
"""... and so much longer for each fault in the swarm: what it takes to see that nothing comes."""
LOOK_S = 0.1


@dataclass
class Run:
    """A swarm that was played to its end, and what happened in it."""

    swarm: Swarm
    diary: Diary

    @property
    def faults(self) -> int:
        """How many things go wrong."""
        return sum(faults_of(agent.host) for agent in self.swarm.agents)

    @property
    def stranded(self) -> frozenset[int]:
        """Who may never end: cut off from the origin, that alone may replace what a forger poisoned."""
        agents = self.swarm.agents
        poisoned = any(agent.host.forges for agent in agents)
        cut_off = (agent.number for agent in agents if agent.host.origin_down_at is not None)
        return frozenset(cut_off) if poisoned else frozenset()

    @property
    def longest_s(self) -> float:
        """When it must be over: three times the bound of those who do what they can, and what each fault costs."""
        starts = max(agent.host.starts_at for agent in self.swarm.agents)
        return starts + CALM_S + 3 * self.swarm.bound() + FAULT_S * self.faults


def faults_of(host: Host) -> int:
    """What goes wrong at one of them; one slot, or a slow link, is trouble for the others as well."""
    wrong = [host.dies_at is not None, host.origin_down_at is not None, host.stalls, host.lies > 0.0, host.leaves]
    return sum([*wrong, host.slots == 1, min(host.up, host.down) < RATE])


def play(hosts: list[Host], chunks: int, *, origin_up: float = RATE, seed: int = 1) -> Run:
    """To the end of all who live."""
    swarm = Swarm(hosts, chunks=chunks, origin_up=origin_up, seed=seed, tuning=TUNING)
    diary = Diary(swarm.layout, PATIENCE_S)
    swarm.observers.append(
        lambda agent, event, commands: diary.note(agent.number, agent.transfer, swarm.now, event, commands)
    )
    run = Run(swarm, diary)
    swarm.run(run.longest_s, without=run.stranded)
    return run


def host(**changes: object) -> Host:
    return Host(**({"up": RATE, "down": RATE} | changes))  # type: ignore[arg-type]


# --- nothing is asked for twice ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Double:
    """A chunk that was asked of the origin by two agents."""

    chunk: int
    first: Request
    second: Request


def doubles(run: Run) -> list[Double]:
    """All of them that were not given up before they were asked for again."""
    by_chunk: dict[int, list[Request]] = {}
    for request in run.diary.requests:
        if request.source == ORIGIN:
            for chunk in run.swarm.layout.touched_by(request.item):
                by_chunk.setdefault(chunk, []).append(request)
    return [
        Double(chunk, first, second)
        for chunk, requests in by_chunk.items()
        for first, second in itertools.combinations(requests, 2)
        if first.agent != second.agent and not given_up(run, first, chunk, second.at)
    ]


def given_up(run: Run, request: Request, chunk: int, at: float) -> bool:
    """The request was over then, and had not brought the chunk."""
    over = min((each for each in (request.aborted_at, request.ended_at) if each is not None), default=at + 1.0)
    return over <= at and request.brought(chunk, run.swarm.layout) is None


def taken_over(run: Run, double: Double) -> bool:
    """There was a reason to ask again."""
    claimant, at = double.first.agent, double.second.at
    unheard = at <= double.first.at + NEWS_S
    return unheard or is_late(run, claimant, at) or faults_of(run.swarm.agents[claimant].host) > 0


def is_late(run: Run, agent: int, at: float) -> bool:
    """It has not got something that it claimed long ago: nothing that it claims is believed."""
    lacks = ~run.diary.has(agent, at)
    return any(
        request.agent == agent and request.source == ORIGIN and request.at + LATE_S <= at and lacks >> chunk & 1
        for request in run.diary.requests
        for chunk in run.swarm.layout.touched_by(request.item)
    )


def received_twice(run: Run) -> int:
    """Bytes that agents received beyond what they needed."""
    tallies = [agent.transfer.tally for agent in run.swarm.agents]
    return sum(tally.from_origin + tally.from_peers - run.swarm.length for tally in tallies)


def of_aborted(run: Run) -> int:
    """Bytes that requests had brought before they were given up."""
    return sum(request.cursor - request.item.start for request in run.diary.requests if not request.right)


@settings(max_examples=6, deadline=None)
@given(st.integers(2, 8), st.integers(6, 20), st.sampled_from([0.3, 1.0, 4.0]), st.integers(0, 10_000))
def test_alike_and_honest_nobody_asks_for_what_another_asks_for(
    count: int, chunks: int, origin: float, seed: int
) -> None:
    run = play([host() for _ in range(count)], chunks, origin_up=origin * RATE, seed=seed)
    found = doubles(run)
    assert all(each.second.at <= each.first.at + NEWS_S for each in found), "asked though it could be heard of"
    assert received_twice(run) <= of_aborted(run)
    races = len({each.chunk for each in found})
    assert run.swarm.origin_bytes <= run.swarm.length + races * CHUNK + 1.0
    assert not any(request.aborted_at for request in run.diary.requests if request.source != ORIGIN)


@pytest.mark.parametrize("others", [(1.0,), (0.5, 1.0, 2.0, 4.0)])
def test_duplicates_are_below_one_percent(others: tuple[float, ...]) -> None:
    """Over several runs: of equals, and of unequals."""
    extra = total = 0.0
    for seed in range(2):
        rates = [RATE * others[number % len(others)] for number in range(5)]
        run = play([Host(up=rate, down=rate) for rate in rates], 40, seed=seed)
        extra += run.swarm.origin_bytes - run.swarm.length + received_twice(run)
        total += run.swarm.length * len(rates)
        assert all(taken_over(run, each) for each in doubles(run))
        assert run.swarm.copies <= 1.03
    assert extra < 0.01 * total


HONEST = st.fixed_dictionaries(
    {},
    optional={
        "starts_at": st.sampled_from([0.3, 2.0]),
        "up": st.sampled_from([RATE / 2, RATE * 4]),
        "down": st.sampled_from([RATE / 2, RATE * 4]),
    },
)


@settings(max_examples=6, deadline=None)
@given(st.lists(HONEST, min_size=1, max_size=7), st.integers(6, 20), st.integers(0, 10_000))
def test_a_peer_is_given_up_for_another_only_in_the_tail(
    others: list[dict[str, object]], chunks: int, seed: int
) -> None:
    run = play([host(), *(host(**each) for each in others)], chunks, seed=seed)
    given = [each for each in run.diary.requests if each.source != ORIGIN and each.aborted_at is not None]
    assert all(each.alone for each in given)
    assert all(taken_over(run, each) for each in doubles(run))


# --- nobody waits for nothing, and every run ends ----------------------------------------------------------------

ANYBODY = st.fixed_dictionaries(
    {},
    optional={
        "starts_at": st.sampled_from([0.3, 2.0, 5.0]),
        "dies_at": st.sampled_from([0.5, 1.5, 3.0, 6.0]),
        "origin_down_at": st.sampled_from([0.0, 0.5, 3.0]),
        "stalls": st.just(True),
        "lies": st.sampled_from([0.2, 1.0]),
        "forges": st.just(True),
        "leaves": st.just(True),
        "slots": st.just(1),
        "up": st.sampled_from([RATE / 30, RATE * 10]),
        "down": st.sampled_from([RATE / 30, RATE * 10]),
    },
).filter(lambda each: "forges" not in each or "lies" in each)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(ANYBODY, min_size=1, max_size=9), st.integers(4, 12), st.sampled_from([0.3, 1, 3]), st.integers(0, 99)
)
def test_every_run_ends_and_nobody_waits_for_nothing(
    others: list[dict[str, object]], chunks: int, origin: float, seed: int
) -> None:
    """One of them is honest, well, and stays: whoever lives can have everything.

    At every moment each agent is owed something or has a timer (the diary asserts it), what is owed comes or fails
    within the stall limit, and idle it is only for the time that it takes to see that somebody gives nothing.
    """
    run = play([host(), *(host(**each) for each in others)], chunks, origin_up=origin * RATE, seed=seed)
    assert run.swarm.wrong == 0
    awaited = [agent for agent in run.swarm.agents if agent.number not in run.stranded]
    assert all(agent.gone or agent.finished_at is not None for agent in awaited)
    assert run.diary.quietest_s() <= STALL_S + PIECE_S
    for agent in run.swarm.agents:
        if faults_of(agent.host) == 0:
            assert idle_s(run, agent) <= CALM_S + FAULT_S * run.faults


@settings(max_examples=5, deadline=None)
@given(st.lists(HONEST, min_size=1, max_size=7), st.integers(6, 20), st.integers(0, 10_000))
def test_where_nothing_goes_wrong_nobody_is_idle(others: list[dict[str, object]], chunks: int, seed: int) -> None:
    run = play([host(), *(host(**each) for each in others)], chunks, seed=seed)
    assert max(idle_s(run, agent) for agent in run.swarm.agents) <= CALM_S


def idle_s(run: Run, agent: Agent) -> float:
    """For how long no byte came to it though somebody could have given it something that it lacked."""
    life = run.diary.lives[agent.number]
    assert life.began_at is not None
    end = life.ended_at if life.ended_at is not None else agent.host.dies_at
    fed = run.diary.fed(agent.number, PIECE_S + LOOK_S)
    of_origin = [span for each in run.swarm.agents for span in run.diary.fed(each.number, PIECE_S + LOOK_S, ORIGIN)]
    looks = int(((end or run.swarm.now) - life.began_at) / LOOK_S)
    idle = 0
    for look in range(looks):
        at = life.began_at + look * LOOK_S
        if not within(fed, at) and could_be_fed(run, agent, at, origin_busy=within(of_origin, at)):
            idle += 1
    return idle * LOOK_S


def within(spans: list[tuple[float, float]], at: float) -> bool:
    return any(start <= at <= stop for start, stop in spans)


def could_be_fed(run: Run, agent: Agent, at: float, *, origin_busy: bool) -> bool:
    """Somebody honest who is there has room and something for it, and it could know; or the origin is idle and
    nobody has what it lacks."""
    lacks = Bitfield(run.swarm.layout.everything & ~run.diary.has(agent.number, at))
    near = NO_CHUNKS
    for other in run.swarm.agents:
        if other is agent or not gives(other, at):
            continue
        near = Bitfield(near | run.diary.has(other.number, at))
        source = peer_source(other.peer)
        busy = sum(
            each.source == source and each.at <= at and (each.ended_at is None or at < each.ended_at)
            for each in run.diary.requests
        )
        if lacks & run.diary.has(other.number, at - NEWS_S) and busy < other.host.slots:
            return True
    cut = agent.host.origin_down_at is not None and at >= agent.host.origin_down_at
    return bool(lacks & ~near) and not origin_busy and not cut


def gives(agent: Agent, at: float) -> bool:
    """It is there and honest."""
    host, ended = agent.host, agent.finished_at
    there = host.starts_at <= at and (host.dies_at is None or at < host.dies_at)
    left = host.leaves and ended is not None and at >= ended
    return there and not left and not host.stalls and not host.lies
