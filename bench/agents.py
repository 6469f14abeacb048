"""Agents for the demo and the bench: `nearfetch run` in processes of their own, each with its own home, on `lo`.

Speaks with them as a user does: the command line and the public library. Whoever starts an agent stops it: use
`AgentProcess` inside an AsyncExitStack, or call `stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.client import AgentClient
from agent.errors import AgentUnavailableError

READY_TIMEOUT_S = 20.0
"""From the start of the process to its ready line; usually below a second."""

STOP_TIMEOUT_S = 10.0
"""From SIGTERM to the end, before SIGKILL."""

MEETING_TIMEOUT_S = 15.0
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.02
LOG_LINES = 15


class BenchError(Exception):
    """The bench cannot go on; str() is one sentence for the user."""


def nearfetch_command() -> list[str]:
    """How `nearfetch` is called: the command installed beside this Python, else the module."""
    beside = Path(sys.executable).with_name("nearfetch")
    return [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", "agent.cli"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what configures the user's own agent."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEARFETCH_")}
    kept["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    return kept | dict(extra or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended."""

    exit_code: int
    output: str
    errors: str

    def document(self) -> dict[str, object]:
        """What it printed with `--json`. Raises BenchError."""
        try:
            found = json.loads(self.output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            found = None
        if not isinstance(found, dict):
            raise BenchError(f"no JSON document from nearfetch (exit code {self.exit_code}): {self.errors.strip()}")
        return found


async def run_command(*arguments: str | Path, home: Path) -> CommandResult:
    """Run one `nearfetch` command of this home to its end. Raises BenchError when it takes too long."""
    command = [*nearfetch_command(), "--home", str(home), *map(str, arguments)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment())
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise BenchError(f"{' '.join(command)} did not end within {COMMAND_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return CommandResult(exit_code=process.returncode or 0, output=output.decode(), errors=errors.decode())


async def create_group(home: Path) -> str:
    """Make a group in this home; the key that others join with."""
    result = await run_command("group", "create", "--json", home=home)
    key = result.document().get("key")
    if result.exit_code != 0 or not isinstance(key, str):
        raise BenchError(f"no group could be made: {result.errors.strip()}")
    return key


class AgentProcess:
    """One agent. `client` is its Python client, `peer_id` and `peer_port` are known while it runs in a group."""

    def __init__(
        self,
        name: str,
        home: Path,
        *,
        group_key: str | None = None,
        flags: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
        interface: str = "lo",
        command: Sequence[str] | None = None,
    ) -> None:
        """`flags` go to `nearfetch run`, `settings` (name -> text) into its environment; `command`: what stands for
        `nearfetch` (None: the installed one). Nothing is started yet."""
        self.name = name
        self.home = home
        self.client = AgentClient.connect(home)
        self.peer_id: str | None = None
        self.peer_port: int | None = None
        self._environment = {f"NEARFETCH_{key.upper()}": value for key, value in (settings or {}).items()}
        if group_key is not None:
            self._environment["NEARFETCH_GROUP_KEY"] = group_key
        self._flags = ("--interface", interface, "--name", name, *flags)
        self._command = list(nearfetch_command() if command is None else command)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """It was started, and neither stopped nor killed."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> float:
        """Start it and wait until it says that it is ready; seconds that took. Raises BenchError."""
        began = time.monotonic()
        await asyncio.to_thread(self.home.mkdir, parents=True, exist_ok=True)
        command = [*self._command, "--home", str(self.home), "run"]
        log = await asyncio.to_thread(open, self._log_file, "ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *self._flags,
                "--json",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment(self._environment),
            )
        finally:
            log.close()
        await self._wait_ready(self._process)
        about = await self.client.about()
        self.peer_id, self.peer_port = about.peer_id, about.peer_port
        return time.monotonic() - began

    async def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError as error:
            raise BenchError(f"agent {self.name} did not stop within {STOP_TIMEOUT_S:g} s of SIGTERM") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def meets(self, *others: AgentProcess) -> float:
        """Wait until this agent has shaken hands with all the others where they are now; seconds that took.

        Raises BenchError after `MEETING_TIMEOUT_S`.
        """
        began = time.monotonic()
        wanted = {(other.peer_id, other.peer_port) for other in others}
        while True:
            found = (await self.client.peers()).peers
            missing = wanted - {(peer.id, peer.port) for peer in found if peer.available}
            if not missing:
                return time.monotonic() - began
            if time.monotonic() - began > MEETING_TIMEOUT_S:
                raise BenchError(
                    f"agent {self.name} did not find {len(missing)} of {len(wanted)} others on lo within"
                    f" {MEETING_TIMEOUT_S:g} s: `nearfetch doctor` says why"
                )
            await asyncio.sleep(POLL_S)

    def epitaph(self) -> str:
        """Whether it lives, and its last words."""
        code = None if self._process is None else self._process.returncode
        state = (
            "is stopped" if self._process is None else "runs" if code is None else f"ended with exit code {code}"
        )
        return f"agent {self.name} {state} {self.log_tail()}".rstrip()

    def log_tail(self) -> str:
        """The last lines it wrote to standard error."""
        try:
            lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_LINES:])

    @property
    def _log_file(self) -> Path:
        return self.home.with_name(f"{self.home.name}.log")

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise BenchError(f"agent {self.name} was not ready within {READY_TIMEOUT_S:g} s") from error
        if not line:
            code = await process.wait()
            tail = await asyncio.to_thread(self.log_tail)
            raise BenchError(f"agent {self.name} did not start (exit code {code}): {tail or 'it said nothing'}")


@contextlib.asynccontextmanager
async def running(agents: Sequence[AgentProcess]) -> AsyncIterator[None]:
    """Start them at once, and stop them at once however the block ends. Raises BenchError.

    When an agent dies of itself meanwhile, that is what is raised, with what it said last.
    """
    try:
        started = await asyncio.gather(*(agent.start() for agent in agents), return_exceptions=True)
        _raise_first(started)  # only now: a start that goes on would leave its process behind
        yield
    except AgentUnavailableError as error:
        raise BenchError("; ".join([str(error), *(agent.epitaph() for agent in agents)])) from error
    finally:
        _raise_first(await asyncio.gather(*(agent.stop() for agent in agents), return_exceptions=True))


def _raise_first(results: Iterable[object]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


def required_tools(*names: str) -> dict[str, str]:
    """Where each program is. Raises BenchError that names those that are missing."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = {name: shutil.which(name, path=path) for name in names}
    missing = [name for name, where in found.items() if where is None]
    if missing:
        raise BenchError(f"{' and '.join(missing)} must be installed for this, and cannot be found")
    return {name: where for name, where in found.items() if where is not None}
