"""Agents as their users meet them: processes started through the command line, each with its own home, on `lo`.

    with Fleet(tmp_path) as fleet:
        a, b = fleet.start("a"), fleet.start("b")      # one group; returns when each has said that it is ready
        got = await b.get(url, path, "--sha256", digest)
        got.exit_code, got.document["bytes_from_peers"], got.error_code, got.line

Nothing here belongs to an event loop, so fleets can live in fixtures of any scope; what waits has a time limit.
Never knows: anything of the product but its command line and its client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.client import RESTING_STATES, AgentClient
from agent.schema import FileDocument, JobDocument, NewFile, NewJob, PeerDocument

READY_S = 20.0
"""From the start of a process to its ready document; usually well below a second."""
STOP_S = 10.0
COMMAND_S = 60.0
MEETING_S = 10.0
POLL_S = 0.01
RETRY_S = 5.0
"""Between tries after an error: the least that an agent allows."""
ROOT = Path(__file__).resolve().parents[2]


def command_line() -> list[str]:
    """How `nearfetch` is called: the command installed beside this Python, else the module."""
    beside = Path(sys.executable).with_name("nearfetch")
    return [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", "agent.cli"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what configures an agent of the user's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEARFETCH_")}
    kept["PYTHONPATH"] = str(ROOT)
    return kept | dict(extra or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    arguments: tuple[str, ...]
    exit_code: int
    out: str
    err: str
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        """The one document on standard output."""
        assert self.out.count("\n") == 1, self
        found = json.loads(self.out)
        assert isinstance(found, dict), self
        return found

    @property
    def error_code(self) -> str | None:
        """The code in the document's error."""
        error = self.document["error"]
        return None if error is None else str(error["code"])

    @property
    def line(self) -> str:
        """What a person sees of an error: exactly one line on standard error."""
        assert self.err.count("\n") == 1, self
        return self.err.rstrip("\n")


def nearfetch(
    *arguments: str | Path,
    home: Path | None = None,
    extra: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_S,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
) -> Ended:
    """Run one command to its end; blocks. `prefix` is a program to run it under (setpriv, unshare)."""
    words = tuple(map(str, arguments))
    place = () if home is None else ("--home", str(home))
    began = time.monotonic()
    done = subprocess.run(
        [*prefix, *command_line(), *place, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        env=environment(extra),
        cwd=cwd,
        check=False,
    )
    return Ended(
        arguments=words,
        exit_code=done.returncode,
        out=done.stdout.decode(),
        err=done.stderr.decode(),
        seconds=time.monotonic() - began,
    )


@dataclass
class Agent:
    """One home and, between `start` and `stop`, the agent that runs for it."""

    home: Path
    name: str = "agent"
    extra: dict[str, str] = field(default_factory=dict)
    """Its environment, for example NEARFETCH_GROUP_KEY."""
    flags: tuple[str, ...] = ()
    interface: str = "lo"
    ready: dict[str, Any] = field(default_factory=dict)
    """What it printed when it was ready."""
    started_at: float = 0.0
    """`time.monotonic()` when its process was started, and when it was ready."""
    ready_at: float = 0.0
    peer_id: str = ""
    peer_port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> AgentClient:
        """The public library for this home."""
        return AgentClient.connect(self.home)

    @property
    def log(self) -> str:
        """Everything that it wrote to standard error, over all its lives."""
        path = self._log_file
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def _log_file(self) -> Path:
        return self.home.with_name(f"{self.home.name}.log")

    def start(self) -> Agent:
        """Start it and wait for its ready document; blocks."""
        assert self.process is None, f"{self.name} runs already"
        self.home.mkdir(parents=True, exist_ok=True)
        words = [
            "--home",
            str(self.home),
            "run",
            "--interface",
            self.interface,
            "--name",
            self.name,
            *self.flags,
            "--json",
        ]
        with open(self._log_file, "ab") as log:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(
                [*command_line(), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self.extra),
            )
        assert self.process.stdout is not None
        arrived, _, _ = select.select([self.process.stdout], [], [], READY_S)
        line = self.process.stdout.readline() if arrived else b""
        self.ready_at = time.monotonic()
        if not line:
            self.kill()
            raise AssertionError(f"{self.name} was not ready: {self.log}")
        self.ready = json.loads(line)
        with ThreadPoolExecutor(1) as beside:  # this thread may have a loop of its own
            about = beside.submit(asyncio.run, self.client.about()).result()
        self.peer_id, self.peer_port = about.peer_id or "", about.peer_port or 0
        return self

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does; returns when it is dead. Harmless when it does not run."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code. Fails when it takes longer than `STOP_S`."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        try:
            process.send_signal(number)
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end within {STOP_S:g} s of {number.name}") from None
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def run(self, *arguments: str | Path, timeout_s: float = COMMAND_S) -> Ended:
        """One command for this home; blocks."""
        return nearfetch(*arguments, home=self.home, extra=self.extra, timeout_s=timeout_s)

    async def call(self, *arguments: str | Path, timeout_s: float = COMMAND_S) -> Ended:
        """One command for this home, beside the event loop."""
        return await asyncio.to_thread(self.run, *arguments, timeout_s=timeout_s)

    async def get(self, url: str, path: Path, *options: str | Path, timeout_s: float = COMMAND_S) -> Ended:
        """`nearfetch get --json`. The first `--interface` is added for those without a running agent."""
        place = () if self.process is not None else ("--interface", "lo")
        return await self.call("get", url, "-o", path, *options, *place, "--json", timeout_s=timeout_s)

    async def met(self, *others: Agent) -> None:
        """Wait until it has shaken hands with all of these where they are now."""
        wanted = {(other.peer_id, other.peer_port) for other in others}
        await self.sees(
            lambda peers: wanted <= {(peer.id, peer.port) for peer in peers if peer.available},
            f"{[other.name for other in others]}",
        )

    async def sees(
        self, condition: Callable[[list[PeerDocument]], bool], what: str, timeout_s: float = MEETING_S
    ) -> None:
        """Wait until its list of peers is so."""
        peers: list[PeerDocument] = []
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(peers := (await self.client.peers()).peers):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"{self.name} does not see {what}: {peers}") from None


class Fleet:
    """Agents below one directory, all of one group unless told otherwise; all are stopped at the end."""

    def __init__(self, directory: Path, group_key: str | None = None) -> None:
        self.directory = directory
        self.agents: dict[str, Agent] = {}
        self._group_key = group_key

    @property
    def group_key(self) -> str:
        """The group's key; made by `nearfetch group create` when it is first asked for."""
        if self._group_key is None:
            made = nearfetch("group", "create", "--json", home=self.directory / "group")
            self._group_key = str(made.document["key"])
        return self._group_key

    def agent(self, name: str, *flags: str, group: bool = True, config: str | None = None) -> Agent:
        """An agent that does not run yet. `flags` are for `run`, `config` is the text of its config.toml."""
        extra = {"NEARFETCH_GROUP_KEY": self.group_key} if group else {}
        made = Agent(home=self.directory / name, name=name, flags=flags, extra=extra)
        if config is not None:
            made.home.mkdir(parents=True)
            (made.home / "config.toml").write_text(config)
        self.agents[name] = made
        return made

    def start(self, name: str, *flags: str, group: bool = True, config: str | None = None) -> Agent:
        """An agent that runs."""
        return self.agent(name, *flags, group=group, config=config).start()

    async def start_together(self, *names: str) -> list[Agent]:
        """Several, started at the same time; returns when each has met all the others."""
        made = [self.agent(name) for name in names]
        await asyncio.gather(*(asyncio.to_thread(agent.start) for agent in made))
        await asyncio.gather(*(agent.met(*(other for other in made if other is not agent)) for agent in made))
        return made

    def close(self, agents: Iterable[Agent] | None = None) -> None:
        """Stop these, or all."""
        with contextlib.ExitStack() as stack:
            for agent in list(self.agents.values()) if agents is None else agents:
                stack.callback(agent.stop)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one job of one file."""

    job: JobDocument
    states: tuple[str, ...]
    """Every state that was seen, in order."""
    seconds: float

    @property
    def file(self) -> FileDocument:
        """Its only file."""
        return self.job.files[0]

    @property
    def error(self) -> str | None:
        """The code of its error."""
        return None if self.job.error is None else self.job.error.code


async def download(
    agent: Agent, url: str, path: Path, *, timeout_s: float = 30.0, settings: Mapping[str, Any] | None = None
) -> Outcome:
    """One file through the library: watched until the job rests, then completed (or left in ERROR).

    `settings` are further fields of the file.
    """
    client, began = agent.client, time.monotonic()
    new = NewFile(url=url, path=str(path), **(settings or {}))
    job = await client.create_job(NewJob(name=path.name, files=[new], minimum_retry_delay_s=RETRY_S))
    await client.resume(job.id)
    states: list[str] = []
    async with asyncio.timeout(timeout_s):
        async for seen in client.watch(job.id):
            job = seen
            if states[-1:] != [job.state]:
                states.append(job.state)
            if job.state in RESTING_STATES:
                break
    if job.state == "TRANSFERRED":
        job = await client.complete(job.id)
    return Outcome(job=job, states=tuple(states), seconds=time.monotonic() - began)


def leftovers(directory: Path) -> list[str]:
    """What lies in a destination directory, hidden files included."""
    return sorted(entry.name for entry in directory.iterdir())
