"""`python -m bench jobs`: ten thousand jobs in one agent, each with one file, over three `kill -9`.

Created over REST, listed, run against an origin on this machine, completed; every file is compared with what the
origin served. The agent is killed while jobs are made, and twice while they run; each time it is started again at
once, and what it had acknowledged must be there. Linux only: the counters come from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agent import AgentClient, NewFile, NewJob
from agent.errors import AgentError, AgentUnavailableError
from bench import machine
from bench.agents import AgentProcess, BenchError, run_command
from bench.origin import Origin
from bench.report import Spread, complain, json_line

T = TypeVar("T")

CLIENTS = 16
"""Requests under way at once."""
LISTS = 3
RETRY_S = 0.05
STUCK_S = 120.0
"""Without one more file for so long, the run has failed."""
GOALS = {"restart_s": 2.0, "list_s": 1.0, "memory_mib": 300.0}
"""What issue and README promise: the worst restart, the median of `job list`, the peak of any process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    jobs: int
    file_bytes: int
    kills: int
    directory: Path
    json: bool


@dataclass(slots=True)
class Found:
    """What was measured."""

    create_s: float = 0.0
    resume_s: float = 0.0
    run_s: float = 0.0
    complete_s: float = 0.0
    list_s: list[float] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)
    """From the start of the process until it listens."""
    back_s: list[float] = field(default_factory=list)
    """… until every job is back."""
    memory: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0

    def document(self, options: Options) -> dict[str, object]:
        """For `--json`."""
        return {
            "case": "jobs",
            "jobs": options.jobs,
            "file_bytes": options.file_bytes,
            "kills": len(self.restarts_s),
            "create_s": round(self.create_s, 2),
            "resume_s": round(self.resume_s, 2),
            "run_s": round(self.run_s, 2),
            "complete_s": round(self.complete_s, 2),
            "list_s": Spread.of(self.list_s).document(),
            "restart_to_listening_s": Spread.of(self.restarts_s or [0.0]).document(),
            "restart_to_all_back_s": Spread.of(self.back_s or [0.0]).document(),
            "peak_memory_mib": round(max(self.memory) / 2**20, 1),
            "agent_cpu_s": round(self.cpu_s, 1),
            "lost": self.lost,
            "doubled": self.doubled,
            "wrong": self.wrong,
        }

    def failures(self) -> list[str]:
        """Which promises were not kept."""
        checks = (
            (self.lost == 0, f"{self.lost} jobs lost"),
            (self.doubled == 0, f"{self.doubled} jobs made twice"),
            (self.wrong == 0, f"{self.wrong} files missing or wrong"),
            (
                max(self.restarts_s, default=0.0) <= GOALS["restart_s"],
                f"a restart took more than {GOALS['restart_s']} s",
            ),
            (Spread.of(self.list_s).median <= GOALS["list_s"], f"`job list` took more than {GOALS['list_s']} s"),
            (max(self.memory) / 2**20 <= GOALS["memory_mib"], f"more than {GOALS['memory_mib']:g} MiB of memory"),
        )
        return [text for kept, text in checks if not kept]


class Crowd:
    """The jobs and the agent that has them. The agent may die at any time; what is asked is asked again."""

    def __init__(self, options: Options, place: Path, origin: Origin) -> None:
        self.found = Found()
        self._options = options
        self._place = place
        self._origin = origin
        self._agent = AgentProcess(
            "crowd",
            place / "home",
            settings={"max_jobs_per_machine": "off", "max_jobs_per_user": "off", "log_level": "warning"},
        )
        self._ids: dict[int, str] = {}
        self._kill_at: set[int] = set()

    @property
    def _client(self) -> AgentClient:
        return self._agent.client

    async def run(self, say: Callable[[str], None]) -> None:
        """Everything, in order."""
        await self._agent.start()
        try:
            await self._create(say)
            await self._list(say)
            await self._resume(say)
            await self._wait(say)
            await self._complete(say)
        finally:
            self._count()
            await self._agent.stop()
        self._compare()

    # --- the phases ------------------------------------------------------------------------------------------

    async def _create(self, say: Callable[[str], None]) -> None:
        number = self._options.jobs
        self._kill_at = {number // 2} if self._options.kills else set()
        began = time.monotonic()
        await self._each(range(number), self._create_one)
        self.found.create_s = time.monotonic() - began
        say(f"created {number} jobs in {self.found.create_s:.1f} s")

    async def _create_one(self, number: int) -> None:
        source = self._place / "www" / f"{number}.bin"
        new = NewJob(
            name=f"job {number}",
            files=[NewFile(url=self._origin.publish(source), path=str(self._place / "out" / source.name))],
        )
        job = await self._patiently(lambda: self._client.create_job(new, key=f"job-{number}"))
        self._ids[number] = job.id
        await self._kill_after(len(self._ids))

    async def _list(self, say: Callable[[str], None]) -> None:
        living = await self._patiently(lambda: self._client.jobs(brief=True))
        self.found.lost += len(set(self._ids.values()) - {job.id for job in living})
        self.found.doubled += len(living) - len({job.name for job in living})
        for _ in range(LISTS):
            began = time.monotonic()
            result = await run_command("job", "list", home=self._place / "home")
            self.found.list_s.append(time.monotonic() - began)
            lines = len(result.output.splitlines())
            if result.exit_code != 0 or lines < self._options.jobs:
                raise BenchError(f"`job list` ended with {result.exit_code} and {lines} lines: {result.errors}")
        say(f"listed in {Spread.of(self.found.list_s).text()} s")

    async def _resume(self, say: Callable[[str], None]) -> None:
        began = time.monotonic()
        await self._each(self._ids.values(), lambda job: self._patiently(lambda: self._client.resume(job)))
        self.found.resume_s = time.monotonic() - began
        say(f"resumed in {self.found.resume_s:.1f} s")

    async def _wait(self, say: Callable[[str], None]) -> None:
        """By the feed: it outlives the agent, and a reader that comes back misses nothing."""
        number, kills = self._options.jobs, max(0, self._options.kills - 1)
        self._kill_at = {number * (index + 1) // (kills + 1) for index in range(kills)}
        began, done = time.monotonic(), set[str]()
        async with contextlib.aclosing(self._client.events(after=0)) as events:
            while len(done) < number:
                try:
                    async with asyncio.timeout(STUCK_S):
                        event = await anext(events)
                except TimeoutError:
                    raise BenchError(f"only {len(done)} of {number} jobs came to their end") from None
                if event.kind == "job-error":
                    raise BenchError(f"{event.name} is in ERROR: {event.error}")
                if event.kind == "job-transferred" and event.job not in done:
                    done.add(event.job)
                    if len(done) % max(1, number // 10) == 0:
                        say(f"{len(done)} jobs transferred after {time.monotonic() - began:.1f} s")
                    await self._kill_after(len(done))
        self.found.run_s = time.monotonic() - began

    async def _complete(self, say: Callable[[str], None]) -> None:
        began = time.monotonic()
        await self._each(self._ids.values(), lambda job: self._patiently(lambda: self._client.complete(job)))
        self.found.complete_s = time.monotonic() - began
        left = await self._client.jobs(brief=True)
        self.found.lost += len(left)
        say(f"completed in {self.found.complete_s:.1f} s")

    def _compare(self) -> None:
        for number in range(self._options.jobs):
            name = f"{number}.bin"
            try:
                right = (self._place / "www" / name).read_bytes() == (self._place / "out" / name).read_bytes()
            except OSError:
                right = False
            self.found.wrong += not right
        self.found.wrong += len(os.listdir(self._place / "out")) - self._options.jobs

    # --- how they are asked ----------------------------------------------------------------------------------

    async def _each(self, items: Iterable[object], act: Callable[..., Awaitable[object]]) -> None:
        """`CLIENTS` at once."""
        waiting = iter(items)

        async def work() -> None:
            for item in waiting:
                await act(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(work())

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask until the agent answers: it may have been killed, and is started again."""
        deadline = time.monotonic() + STUCK_S
        while True:
            try:
                return await call()
            except AgentUnavailableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _kill_after(self, count: int) -> None:
        if count not in self._kill_at:
            return
        self._kill_at.discard(count)
        self._count()
        await self._agent.kill()
        began = time.monotonic()
        self.found.restarts_s.append(await self._agent.start())
        await self._patiently(lambda: self._client.job_page(limit=1))
        self.found.back_s.append(time.monotonic() - began)

    def _count(self) -> None:
        if not self._agent.running:
            return
        self.found.memory.append(machine.peak_memory(self._agent.pid))
        self.found.cpu_s += machine.cpu_seconds(self._agent.pid)


def main(arguments: list[str]) -> int:
    """The exit code: 1 when a promise was not kept."""
    options = _options(arguments)
    try:
        if sys.platform != "linux":
            raise BenchError("jobs needs Linux: it reads what /proc counts")
        return asyncio.run(_run(options))
    except* (BenchError, AgentError, OSError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        complain(str(error))
    return 1


async def _run(options: Options) -> int:
    def say(line: str) -> None:
        print(f"bench: {line}", file=sys.stderr, flush=True)

    facts = machine.facts({})
    with tempfile.TemporaryDirectory(prefix="nearfetch-jobs-", dir=options.directory) as name, Origin() as origin:
        place = Path(name)
        await asyncio.to_thread(_make_content, place, options)
        crowd = Crowd(options, place, origin)
        await crowd.run(say)
        found = crowd.found
    document = found.document(options)
    failures = found.failures()
    if options.json:
        json_line({"machine": facts})
        json_line(document | {"failures": failures})
    else:
        for key, value in (facts | document).items():
            print(f"{key.replace('_', ' '):<24} {value}")
        print("every promise was kept" if not failures else f"NOT kept: {'; '.join(failures)}")
    return 1 if failures else 0


def _make_content(place: Path, options: Options) -> None:
    for directory in ("www", "out"):
        (place / directory).mkdir()
    for number in range(options.jobs):
        (place / "www" / f"{number}.bin").write_bytes(os.urandom(options.file_bytes))


def _options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench jobs", description="Ten thousand jobs with one file each, over three kill -9."
    )
    parser.add_argument("--jobs", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--file-bytes", type=int, default=16_384, help="bytes of each file (default: 16384)")
    parser.add_argument(
        "--kills", type=int, default=3, help="one while creating, the rest while running (default: 3)"
    )
    parser.add_argument("--directory", type=Path, help="where everything lives (default: the temporary directory)")
    parser.add_argument("--json", action="store_true", help="print documents, one a line, instead of a table")
    given = parser.parse_args(arguments)
    for name in ("jobs", "file_bytes"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    if given.kills < 0:
        parser.error("--kills must be 0 or more")
    directory = Path(given.directory or tempfile.gettempdir()).absolute()
    if not directory.is_dir():
        parser.error(f"--directory: {directory} is not a directory")
    return Options(
        jobs=given.jobs, file_bytes=given.file_bytes, kills=given.kills, directory=directory, json=given.json
    )
