"""One run of the laboratory: hosts, origin, one system; the start shot, what happens meanwhile, what it came to.

Never knows: which system it is, how results are shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from agent.errors import AgentError
from bench import machine
from bench.agents import BenchError
from bench.baselines.system import Ground, Progress, Seat, SeatError, System, Usage, Work
from bench.bounds import bound_of, unit_of
from bench.content import sha256_of
from bench.lab_process import Helper, HelperError
from bench.netns import Counters, HostSpec, Network
from bench.scenarios import FullDisk, Happening, Kill, Late, Lie, OriginDies, Scenario, Slow

SAMPLE_S = 0.5
OPEN_TIMEOUT_S = 900.0
"""Everything before the start shot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run is to be."""

    scenario: Scenario
    system: type[System]
    round: int
    files: tuple[Path, ...]
    digests: tuple[str, ...]
    place: Path
    """An empty directory."""
    guest: bool
    """Also measure how soon a newcomer finds somebody."""

    @property
    def limit_s(self) -> float:
        """Nobody waits longer after the start shot: each alone at the origin, one after the other, and more."""
        bound = bound_of(self.scenario)
        return 30 + 1.5 * (bound.t_min_s + len(self.scenario.leechers) * bound.source_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What everybody had at one moment after the start shot, by the agent's number."""

    at_s: float
    progress: tuple[Progress, ...]
    busy: float
    """The share of all processors' time that was used since the sample before."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one agent. Times are seconds after the start shot."""

    started_s: float = 0.0
    finished_s: float | None = None
    failed: str | None = None
    killed: bool = False
    right: bool | None = None
    """Its files are what the origin served; None: nobody looked."""
    sent: int = 0
    received: int = 0
    usage: Usage | None = None
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Everything that was counted."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    origin_payload: int
    """By the origin's own log."""
    origin_interface: int
    """What its interface sent, headers included."""
    samples: tuple[Sample, ...]
    notes: dict[str, float]


async def play(plan: Plan) -> RunResult:
    """One run, from nothing to nothing. Raises BenchError when it has no result."""
    scenario = plan.scenario
    specs = [HostSpec(name="origin", up=scenario.origin.up, down=scenario.origin.down)]
    for number in range(scenario.agents):
        link = scenario.link_of(number)
        specs.append(HostSpec(name=f"a{number}", up=link.up, down=link.down))
    if plan.guest:
        specs.append(HostSpec(name="guest", up=scenario.agent.up, down=scenario.agent.down))
    try:
        with Network(specs) as network:
            async with contextlib.AsyncExitStack() as stack:
                return await _Run(plan, network).run(stack)
    except* (BenchError, AgentError, OSError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise BenchError(str(error) or "it was not ready in time") from error


class _Run:
    """The hosts are there."""

    def __init__(self, plan: Plan, network: Network) -> None:
        self._plan = plan
        self._network = network
        self._outcomes = [Outcome() for _ in range(plan.scenario.agents)]
        self._samples: list[Sample] = []
        self._over = asyncio.Event()
        host = network.hosts["origin"]
        command = [sys.executable, "-m", "bench.node", "origin", host.address, *map(str, plan.files)]
        self._origin = Helper("the origin", host.command(*command), plan.place / "origin.log")
        self._unit_s = unit_of(plan.scenario)

    async def run(self, stack: contextlib.AsyncExitStack) -> RunResult:
        stack.push_async_callback(self._origin.stop)
        urls = (await self._origin.start())["urls"]
        assert isinstance(urls, list)
        ground = self._ground(tuple(map(str, urls)))
        system = self._plan.system(ground)
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await stack.enter_async_context(system)
        await system.shot()
        before, interface = await self._settled(), self._counters()
        await self._after_the_shot(system, ground)
        after = await self._settled()
        self._note_counters(interface)
        await self._close_books(system, ground)
        return RunResult(
            plan=self._plan,
            outcomes=tuple(self._outcomes),
            origin_payload=after - before,
            origin_interface=self._network.hosts["origin"].counters().sent_bytes - interface["origin"].sent_bytes,
            samples=tuple(self._samples),
            notes=system.notes,
        )

    def _ground(self, urls: tuple[str, ...]) -> Ground:
        plan, hosts = self._plan, self._network.hosts
        seats = [
            Seat(number=number, host=hosts[name], place=plan.place / name)
            for number, name in enumerate(["guest", *(f"a{item}" for item in range(plan.scenario.agents))], -1)
            if name in hosts
        ]
        for seat in seats:
            (seat.place / "files").mkdir(parents=True)
        return Ground(
            scenario=plan.scenario,
            seats=tuple(seat for seat in seats if seat.number >= 0),
            guest=next((seat for seat in seats if seat.number < 0), None),
            work=Work(urls=urls, originals=plan.files, digests=plan.digests),
            network=self._network,
            place=plan.place,
        )

    # --- while it runs ---------------------------------------------------------------------------------------

    async def _after_the_shot(self, system: System, ground: Ground) -> None:
        scenario, began = self._plan.scenario, time.monotonic()
        starts = scenario.starts(self._unit_s)
        async with asyncio.TaskGroup() as group:
            fetches = {
                number: group.create_task(self._fetch(system, ground.seats[number], (began, start)))
                for number, start in starts.items()
            }
            meanwhile = [
                group.create_task(self._happen(item, system, ground, began)) for item in scenario.happenings
            ]
            group.create_task(self._sample(system, ground.seats, began))
            _, late = await asyncio.wait(
                [fetches[number] for number in scenario.awaited], timeout=self._plan.limit_s
            )
            self._over.set()
            for number in scenario.awaited:
                if fetches[number] in late:
                    self._outcomes[number].failed = f"a{number} was not done after {self._plan.limit_s:.0f} s"
            for task in (*fetches.values(), *meanwhile):
                task.cancel()
        for item in scenario.happenings:
            match item:
                case FullDisk(agent=number) if not (self._done(number) or self._outcomes[number].failed):
                    words = f"a{number} says nothing of its full disk, and has not finished"
                    self._outcomes[number].failed = words

    async def _fetch(self, system: System, seat: Seat, times: tuple[float, float]) -> None:
        began, start = times
        outcome = self._outcomes[seat.number]
        outcome.started_s = start
        await asyncio.sleep(began + start - time.monotonic())
        try:
            await system.fetch(seat)
        except SeatError as error:
            outcome.failed = None if outcome.killed else str(error)
        else:
            outcome.finished_s = time.monotonic() - began

    async def _happen(self, item: Happening, system: System, ground: Ground, began: float) -> None:
        match item:
            case Kill():
                await asyncio.sleep(began + item.at * self._unit_s - time.monotonic())
                self._outcomes[item.agent].killed = True
                await system.kill(ground.seats[item.agent])
            case OriginDies():
                await asyncio.sleep(began + item.at * self._unit_s - time.monotonic())
                self._origin.kill()
            case Slow() | Late() | Lie() | FullDisk():
                return  # from the beginning
            case _:
                assert_never(item)

    async def _sample(self, system: System, seats: Sequence[Seat], began: float) -> None:
        ticks = machine.processor_time()
        while True:
            try:
                answer = await self._origin.ask("now")
            except HelperError as error:
                raise BenchError(f"the origin ended {time.monotonic() - began:.1f} s after the start") from error
            clients = answer["clients"]
            assert isinstance(clients, dict)
            found = await asyncio.gather(*(self._progress(system, seat, clients) for seat in seats))
            before, ticks = ticks, machine.processor_time()
            self._samples.append(
                Sample(at_s=time.monotonic() - began, progress=tuple(found), busy=ticks.busy_since(before))
            )
            if self._over.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), SAMPLE_S)

    async def _progress(self, system: System, seat: Seat, clients: dict[str, int]) -> Progress:
        outcome = self._outcomes[seat.number]
        if not outcome.killed and seat.number >= self._plan.scenario.seeds:
            found = await system.progress(seat, clients)
            if not outcome.killed:
                outcome.progress = found
        return outcome.progress

    # --- what it came to -------------------------------------------------------------------------------------

    async def _settled(self) -> int:
        sent = (await self._origin.ask("settled"))["sent"]
        assert isinstance(sent, int)
        return sent

    def _counters(self) -> dict[str, Counters]:
        return {name: host.counters() for name, host in self._network.hosts.items()}

    def _note_counters(self, before: dict[str, Counters]) -> None:
        now = self._counters()
        for number, outcome in enumerate(self._outcomes):
            name = f"a{number}"
            outcome.sent = now[name].sent_bytes - before[name].sent_bytes
            outcome.received = now[name].received_bytes - before[name].received_bytes

    async def _close_books(self, system: System, ground: Ground) -> None:
        """Costs first: completing and comparing costs something as well."""
        for seat in ground.seats:
            outcome = self._outcomes[seat.number]
            if not outcome.killed:
                with contextlib.suppress(BenchError):
                    outcome.usage = await system.usage(seat)
        await asyncio.gather(
            *(self._deliver(system, ground, seat) for seat in ground.seats if self._done(seat.number))
        )

    def _done(self, number: int) -> bool:
        return self._outcomes[number].finished_s is not None

    async def _deliver(self, system: System, ground: Ground, seat: Seat) -> None:
        outcome = self._outcomes[seat.number]
        try:
            await system.deliver(seat)
        except SeatError as error:
            outcome.failed = str(error)
            return
        work, found = ground.work, []
        for original in work.originals:
            try:
                found.append(await asyncio.to_thread(sha256_of, seat.destination(original)))
            except OSError:
                found.append("")
        outcome.right = tuple(found) == work.digests
