"""nearfetch in the laboratory: one agent a host, all in one group, spoken to through their unix sockets.

Never knows: how anything is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Mapping
from typing import ClassVar

from agent import AgentClient, NewFile, NewJob
from agent.errors import AgentError, AgentUnavailableError
from agent.schema import Priority
from bench import machine
from bench.agents import MEETING_TIMEOUT_S, AgentProcess, BenchError, create_group, nearfetch_command
from bench.baselines.system import Ground, Progress, Seat, SeatError, System, Usage
from bench.scenarios import Scenario

LOOK_S = 0.1
"""Between two looks at who has been met: each costs the agent some work."""
SEED_TIMEOUT_S = 600.0
PATIENCE_S = 1.0
"""For an agent that does not answer any more."""
SETTINGS = {"log_level": "warning"}


class Nearfetch(System):
    """Agents that have met before the start shot; then each gets its job."""

    name: ClassVar[str] = "nearfetch"
    options: ClassVar[str] = (
        "one agent a host in one group, mDNS on eth0, job with priority foreground and no digest; the rest default"
    )

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._key: str | None = None
        self._agents: dict[int, AgentProcess] = {}
        self._guest: AgentProcess | None = None
        self._jobs: dict[int, str] = {}
        self._cpu_s: dict[int, float] = {}

    @classmethod
    def cannot(cls, scenario: Scenario) -> str | None:
        return None

    async def open(self) -> None:
        self._key = await create_group(self.ground.seats[0].place / "home")
        self._agents = {seat.number: self._agent(seat) for seat in self.ground.seats}
        began = time.monotonic()
        agents = list(self._agents.values())
        await _all(*(agent.start() for agent in agents))
        self.notes["all_ready_s"] = time.monotonic() - began
        await _all(*(_found(agent, len(agents) - 1) for agent in agents))
        self.notes["all_found_s"] = time.monotonic() - began
        if self.ground.guest is not None:
            await self._receive(self.ground.guest)
        for seat in self.ground.seeds:
            await self._sow(seat)

    async def close(self) -> None:
        agents = [*self._agents.values(), *([] if self._guest is None else [self._guest])]
        ends = await asyncio.gather(*(agent.stop() for agent in agents), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, BenchError):
                raise end

    async def shot(self) -> None:
        self._cpu_s = {number: machine.cpu_seconds(agent.pid) for number, agent in self._agents.items()}

    async def fetch(self, seat: Seat) -> None:
        agent, work = self._agents[seat.number], self.ground.work
        digests = work.digests if self._liars else (None,) * len(work.urls)
        new = NewJob(
            name=f"lab {seat.name}",
            priority=Priority.FOREGROUND,
            files=[
                NewFile(
                    url=url,
                    path=str(seat.destination(original)),
                    digest=None if digest is None else f"sha256:{digest}",
                )
                for url, original, digest in zip(work.urls, work.originals, digests, strict=True)
            ],
        )
        try:
            job = await agent.client.create_job(new)
            self._jobs[seat.number] = job.id
            await self._wait(agent, job.id)
        except AgentUnavailableError as error:
            raise SeatError(agent.epitaph()) from error
        except AgentError as error:
            raise SeatError(f"{seat.name}: {error}") from error

    async def kill(self, seat: Seat) -> None:
        await self._agents[seat.number].kill()

    async def usage(self, seat: Seat) -> Usage:
        agent = self._agents[seat.number]
        try:
            job = await agent.client.job(self._jobs[seat.number]) if seat.number in self._jobs else None
            return Usage(
                cpu_s=machine.cpu_seconds(agent.pid) - self._cpu_s[seat.number],
                peak_memory=machine.peak_memory(agent.pid),
                discarded=None if job is None else sum(file.bytes_discarded for file in job.files),
            )
        except (AgentError, OSError) as error:
            raise BenchError(f"{seat.name}: {error}") from error

    async def progress(self, seat: Seat, by_client: Mapping[str, int]) -> Progress:
        if seat.number not in self._jobs:
            return Progress()
        try:
            job = await self._agents[seat.number].client.job(self._jobs[seat.number])
        except AgentError:
            return Progress()
        held = sum(file.bytes_transferred for file in job.files)
        from_peers = min(held, sum(file.bytes_from_peers for file in job.files))
        return Progress(from_origin=held - from_peers, from_peers=from_peers)

    async def deliver(self, seat: Seat) -> None:
        try:
            job = await self._agents[seat.number].client.complete(self._jobs[seat.number])
        except AgentError as error:
            raise SeatError(f"{seat.name}: {error}") from error
        if job.state != "ACKNOWLEDGED":
            raise SeatError(f"{seat.name}: its job is {job.state} after complete")

    @property
    def _liars(self) -> bool:
        return any(self.ground.lie_of(seat) is not None for seat in self.ground.seats)

    def _agent(self, seat: Seat) -> AgentProcess:
        lie, command = self.ground.lie_of(seat), nearfetch_command()
        if lie is not None:
            forges = ["--forges"] if lie.forges else []
            command = [sys.executable, "-m", "bench.liar", *forges, str(lie.share)]
        return AgentProcess(
            seat.name,
            seat.place / "home",
            group_key=self._key,
            settings=SETTINGS,
            interface="eth0",
            command=self.ground.wrapped(seat, command),
        )

    async def _receive(self, seat: Seat) -> None:
        """One more agent starts beside all the others, that all have met: how soon it finds one. Then it goes."""
        began = time.monotonic()
        self._guest = self._agent(seat)
        self.notes["newcomer_ready_s"] = await self._guest.start()
        await _found(self._guest, 1)
        self.notes["newcomer_first_peer_s"] = time.monotonic() - began
        await self._guest.stop()

    async def _sow(self, seat: Seat) -> None:
        """Let it fetch everything, over links without a limit."""
        network, scenario = self.ground.network, self.ground.scenario
        network.reshape("origin", None, None)
        network.reshape(seat.host.name, None, None)
        async with asyncio.timeout(SEED_TIMEOUT_S):
            await self.fetch(seat)
        await self.deliver(seat)
        del self._jobs[seat.number]
        link = scenario.link_of(seat.number)
        network.reshape(seat.host.name, link.up, link.down)
        network.reshape("origin", scenario.origin.up, scenario.origin.down)

    async def _wait(self, agent: AgentProcess, job_id: str) -> None:
        """Resume the job, and wait by its events until everything is there."""
        client = AgentClient.connect(agent.home, patience_s=PATIENCE_S)
        async with contextlib.aclosing(client.events(after=0, job_id=job_id)) as events:
            await agent.client.resume(job_id)
            async for event in events:
                if event.kind == "job-transferred":
                    return
                failed = event.state in ("ERROR", "TRANSIENT_ERROR")
                error = (event.error or (await agent.client.job(job_id)).error) if failed else None
                if error is not None and (event.state == "ERROR" or error.context == "local file"):
                    raise SeatError(f"{agent.name}: {error.code}: {error.message}")
        raise SeatError(f"{agent.name}: its events ended")


async def _found(agent: AgentProcess, number: int) -> None:
    """Wait until it has met so many others. Raises BenchError."""
    deadline = time.monotonic() + MEETING_TIMEOUT_S
    while True:
        found = sum(peer.available for peer in (await agent.client.peers()).peers)
        if found >= number:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"agent {agent.name} found only {found} of {number} others: {agent.log_tail()}")
        await asyncio.sleep(LOOK_S)


async def _all(*work: Awaitable[object]) -> None:
    """All of it to its end, then the first error: what goes on would leave a process behind."""
    for end in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
