"""What `loopback` compares: the cases, the tools in each, and the nginx and agents they need.

Each run of a tool: what earlier ones left is removed and synced first; then the clock; then the file is checked
and removed, and caches are emptied. Speaks with agents through the public library and the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.agents import AgentProcess, BenchError, create_group, environment, nearfetch_command, running
from bench.content import random_file, sha256_of
from bench.contest import Case, Sample, Tool
from bench.machine import cpu_seconds, peak_memory
from bench.nginx import CIPHER, Nginx

NAME = "file.bin"
RUN_TIMEOUT_S = 600.0
SETTLE_S = 0.1
"""After a run, before the agent's CPU time is read: what it still does for the download must count."""

CONNECTIONS = 4
"""Of the load of ranges: what an agent allows one member."""

NO_CACHE = ("--cache-max-bytes", "64KiB")
"""Content larger than the whole cache is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all cases share. `load_s`: seconds of one run of the load of ranges."""

    place: Path
    size: int
    tools: Mapping[str, str]
    load_s: float
    on_disk: bool
    """False when files live in memory, where a sync is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One command to be measured. `agent` is the one that works for it, None when the command does all itself."""

    command: Sequence[str]
    target: Path
    agent: AgentProcess | None = None
    extra_environment: Mapping[str, str] | None = None
    check: Callable[[dict[str, object]], None] | None = None
    """Gets the document that the command printed. Raises BenchError."""


class Lab:
    """nginx and whatever agents the cases ask for; alive as long as the `async with` block."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.peaks: dict[str, AgentProcess] = {}
        self._stack = contextlib.AsyncExitStack()
        self._nginx: Nginx | None = None
        self._group_key: str | None = None
        self._digest = ""
        self._verified: set[str] = set()

    async def __aenter__(self) -> Self:
        place = self.setting.place
        for name in ("root", "nginx", "out"):
            (place / name).mkdir()
        self._digest = await asyncio.to_thread(random_file, place / "root" / NAME, self.setting.size)
        nginx = Nginx(self.setting.tools["nginx"], place / "nginx", place / "root")
        self._nginx = await self._stack.enter_async_context(nginx)
        await asyncio.to_thread(os.sync)
        await asyncio.to_thread(sha256_of, place / "root" / NAME)  # into the page cache
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def nginx(self) -> Nginx:
        """The origin."""
        assert self._nginx is not None
        return self._nginx

    def memory(self) -> dict[str, int]:
        """The peak memory of each agent so far, in bytes."""
        return {name: peak_memory(agent.pid) for name, agent in self.peaks.items()}

    async def agent(self, name: str, *flags: str, member: bool = False) -> AgentProcess:
        """Start an agent, or return the one of that name; a `member` is in the group of all members."""
        if name not in self.peaks:
            key = await self._key() if member else None
            home = self.setting.place / name
            agent = AgentProcess(name, home, group_key=key, flags=("--ca-file", str(self.nginx.ca_file), *flags))
            await self._stack.enter_async_context(running([agent]))
            self.peaks[name] = agent
        return self.peaks[name]

    async def _key(self) -> str:
        if self._group_key is None:
            self._group_key = await create_group(self.setting.place / "group")
        return self._group_key

    async def measure(self, work: Work) -> Sample:
        """Carry out one command and check what it made."""
        if self.setting.on_disk:
            await asyncio.to_thread(os.sync)
        before = 0.0 if work.agent is None else cpu_seconds(work.agent.pid)
        used = _children_cpu()
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *work.command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(work.extra_environment),
        )
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                output, errors = await process.communicate()
            wall_s = time.perf_counter() - began
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await asyncio.sleep(SETTLE_S)
        cpu_s = _children_cpu() - used
        if work.agent is not None:
            cpu_s += cpu_seconds(work.agent.pid) - before
        if process.returncode != 0:
            raise BenchError(
                f"{work.command[0]} ended with exit code {process.returncode}: {errors.decode().strip()}"
            )
        if work.check is not None:
            work.check(json.loads(output))
        await asyncio.to_thread(self._check, work)
        if work.agent is not None:
            await work.agent.client.clear_cache()
        return Sample(wall_s=wall_s, cpu_s=cpu_s, amount=self.setting.size)

    def target(self, number: int) -> Path:
        """A fresh destination."""
        return self.setting.place / "out" / f"{number}.bin"

    def _check(self, work: Work) -> None:
        """The size every time, the digest once for each tool; then the file goes."""
        tool = work.command[0] if work.agent is None else work.agent.name
        size = work.target.stat().st_size
        if size != self.setting.size:
            raise BenchError(f"{tool} made a file of {size} bytes, not {self.setting.size}")
        if tool not in self._verified and sha256_of(work.target) != self._digest:
            raise BenchError(f"{tool} made a file that is not the origin's")
        self._verified.add(tool)
        work.target.unlink()


def _children_cpu() -> float:
    """CPU seconds of all processes that ended and were waited for. Servers are not among them: they still run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- tools -----------------------------------------------------------------------------------------------------


def curl(lab: Lab, scheme: str) -> Tool:
    """`curl -o`."""

    async def run(number: int) -> Sample:
        target = lab.target(number)
        return await lab.measure(Work(command=_curl(lab, scheme, target), target=target))

    return Tool(name="curl", run=run)


def curl_synced(lab: Lab, scheme: str) -> Tool:
    """`curl -o FILE && sync FILE`: as durable as what nearfetch leaves."""

    async def run(number: int) -> Sample:
        target = lab.target(number)
        command = ["sh", "-c", '"$@" && sync "$0"', str(target), *_curl(lab, scheme, target)]
        return await lab.measure(Work(command=command, target=target))

    return Tool(name="curl + fsync", run=run)


def _curl(lab: Lab, scheme: str, target: Path) -> list[str]:
    trust = (
        ["--cacert", str(lab.nginx.ca_file), "--tlsv1.3", "--tls13-ciphers", CIPHER] if scheme == "https" else []
    )
    return [lab.setting.tools["curl"], "-sSf", *trust, "-o", str(target), lab.nginx.url(scheme, NAME)]


def aria2c(lab: Lab, scheme: str) -> Tool:
    """`aria2c` as it comes: one connection."""

    async def run(number: int) -> Sample:
        target = lab.target(number)
        command = [lab.setting.tools["aria2c"], "-q", "-x1", "--no-conf", f"--ca-certificate={lab.nginx.ca_file}"]
        command += ["-d", str(target.parent), "-o", target.name, lab.nginx.url(scheme, NAME)]
        return await lab.measure(Work(command=command, target=target))

    return Tool(name="aria2c", run=run)


def get(lab: Lab, name: str, agent: AgentProcess, scheme: str) -> Tool:
    """`nearfetch get` with an agent that runs; another URL each time, so that nothing can be near."""

    async def run(number: int) -> Sample:
        target = lab.target(number)
        command = _get(agent.home, f"{lab.nginx.url(scheme, NAME)}?run={number}", target)
        check = _expect("bytes_from_origin", lab.setting.size)
        return await lab.measure(Work(command=command, target=target, agent=agent, check=check))

    return Tool(name=name, run=run)


def get_alone(lab: Lab, name: str, scheme: str) -> Tool:
    """`nearfetch get` without a running agent: it is its own. A new home each time."""

    async def run(number: int) -> Sample:
        target, home = lab.target(number), lab.setting.place / f"alone-{number}"
        command = _get(home, lab.nginx.url(scheme, NAME), target)
        extra = {"NEARFETCH_CA_FILE": str(lab.nginx.ca_file)}
        check = _expect("bytes_from_origin", lab.setting.size)
        try:
            return await lab.measure(Work(command=command, target=target, extra_environment=extra, check=check))
        finally:
            await asyncio.to_thread(shutil.rmtree, home, True)

    return Tool(name=name, run=run)


def get_near(lab: Lab, name: str, agent: AgentProcess) -> Tool:
    """`nearfetch get` of what a peer has; the origin is only asked what it is."""

    async def run(number: int) -> Sample:
        target = lab.target(number)
        command = _get(agent.home, lab.nginx.url("https", NAME), target)
        check = _expect("bytes_from_peers", lab.setting.size)
        return await lab.measure(Work(command=command, target=target, agent=agent, check=check))

    return Tool(name=name, run=run)


def _get(home: Path, url: str, target: Path) -> list[str]:
    return [*nearfetch_command(), "--home", str(home), "get", url, "-o", str(target), "--json"]


def _expect(field: str, size: int) -> Callable[[dict[str, object]], None]:
    def check(document: dict[str, object]) -> None:
        if document.get(field) != size:
            raise BenchError(f"{field} is {document.get(field)}, not {size}: this would measure something else")

    return check


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Who is asked for ranges."""

    name: str
    pid: int
    port: int
    target: str


def load(lab: Lab, server: Server, identity: Path) -> Tool:
    """64 KiB ranges over TLS; CPU is the server's, the amount is requests."""

    async def run(number: int) -> Sample:
        what = {
            "port": server.port,
            "target": server.target,
            "certificate": str(identity / "certificate.pem"),
            "key": str(identity / "key.pem"),
            "length": lab.setting.size,
            "seconds": lab.setting.load_s,
            "connections": CONNECTIONS,
            "seed": number,
        }
        before = cpu_seconds(server.pid)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.ranges", json.dumps(what)),
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
        )
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise BenchError(f"{server.name} did not serve the load of ranges")
        done = json.loads(output)
        if done["cipher"] != CIPHER:
            raise BenchError(f"{server.name} speaks {done['cipher']}, not {CIPHER}")
        used = cpu_seconds(server.pid) - before
        return Sample(wall_s=done["seconds"], cpu_s=used, amount=done["requests"])

    return Tool(name=server.name, run=run)


# --- cases -----------------------------------------------------------------------------------------------------


async def plain(lab: Lab) -> Case:
    """Plain HTTP."""
    return Case(key="plain", title="plain HTTP from nginx", tools=await _from_nginx(lab, "http"))


async def https(lab: Lab) -> Case:
    """HTTPS."""
    return Case(key="https", title=f"HTTPS from nginx, {CIPHER}", tools=await _from_nginx(lab, "https"))


async def _from_nginx(lab: Lab, scheme: str) -> list[Tool]:
    tools = [
        get(lab, "get", await lab.agent("agent"), scheme),
        get(lab, "get, no cache", await lab.agent("agent without cache", *NO_CACHE), scheme),
        get_alone(lab, "get, own agent", scheme),
    ]
    return [*tools, *_others(lab, scheme)]


def _others(lab: Lab, scheme: str) -> list[Tool]:
    found = [aria2c(lab, scheme)] if "aria2c" in lab.setting.tools else []
    if lab.setting.on_disk:
        found.append(curl_synced(lab, scheme))
    return [*found, curl(lab, scheme)]


async def peer(lab: Lab) -> Case:
    """From one warm peer."""
    giver = await _warm(lab)
    takers = [
        ("get", await lab.agent("member that takes", member=True)),
        ("get, no cache", await lab.agent("member without cache", *NO_CACHE, member=True)),
    ]
    for _, agent in takers:
        await agent.meets(giver)
    tools = [get_near(lab, name, agent) for name, agent in takers]
    synced = [curl_synced(lab, "https")] if lab.setting.on_disk else []
    title = f"from one warm peer over mutual TLS, beside HTTPS from nginx, {CIPHER}"
    return Case(key="peer", title=title, tools=[*tools, *synced, curl(lab, "https")])


async def ranges(lab: Lab) -> Case:
    """64 KiB ranges."""
    giver = await _warm(lab)
    identity = await _identity(lab)
    records = (await giver.client.cache()).records
    content = next(record.id for record in records if record.length == lab.setting.size)
    assert giver.peer_port is not None
    mine = Server(
        name="agent",
        pid=giver.pid,
        port=giver.peer_port,
        target=f"/nearfetch/1/content/{content}/bytes",
    )
    theirs = Server(name="nginx", pid=lab.nginx.pid, port=lab.nginx.tls_port, target=f"/{NAME}")
    tools = [load(lab, mine, identity), load(lab, theirs, identity)]
    title = f"64 KiB ranges over TLS, {CONNECTIONS} connections, {CIPHER}; CPU of the server"
    return Case(key="ranges", title=title, tools=tools)


async def _warm(lab: Lab) -> AgentProcess:
    """A member whose cache holds the file."""
    giver = await lab.agent("member that gives", member=True)
    if not (await giver.client.cache()).records:
        target = lab.target(0)
        command = _get(giver.home, lab.nginx.url("https", NAME), target)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, env=environment()
        )
        if await process.wait() != 0:
            raise BenchError("the member that gives could not fetch the file")
        target.unlink()
    return giver


async def _identity(lab: Lab) -> Path:
    """Key and certificate of a member that does not run, for the load: its connections are all its own."""
    home = lab.setting.place / "load"
    async with running([AgentProcess("load", home, group_key=await lab._key())]):
        pass
    return home / "identity"


CASES: dict[str, Callable[[Lab], Awaitable[Case]]] = {
    "plain": plain,
    "https": https,
    "peer": peer,
    "ranges": ranges,
}
