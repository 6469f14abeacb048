"""One `get` from beginning to end: find or start an agent, find or make the job, follow it, complete it.

The agent that runs for this home is used if there is one, else one of our own for as long as this lasts; should
it stop meanwhile, the next one takes over, and the job goes on where it was.
Never knows: the core, SQLite, peers; what is printed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec

from agent.client import FINAL_STATES, RESTING_STATES, AgentClient, socket_path
from agent.config import Config
from agent.errors import (
    AgentError,
    AgentUnavailableError,
    ExitCode,
    HomeInUseError,
    JobFailedError,
    NotFoundError,
    StateError,
)
from agent.progress import Reporter, size_text
from agent.schema import ErrorDocument, FileState, JobDocument, NewFile, NewJob, Priority
from peer.core.failure import PERSISTENCE, FailureKind, Persistence

RETRY_DELAY_S = 5.0
"""Between two tries of a transient error; the smallest that BITS allows, since somebody is waiting."""

START_TIMEOUT_S = 10.0
"""For an agent that is just starting on this home, and holds its lock, to answer."""

START_POLL_S = 0.1
LOST_AGENTS = 3
"""How many agents may stop under us before we give up."""

POLL_S = 0.5
SLOWEST_LOOK_S = 0.25
FASTEST_LOOK_S = 0.005

_BUSY_STATES = frozenset({"VALIDATING"})
"""States in which no byte needs to come: hashing a large file takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to fetch, and the marks by which a later `get` knows the job again."""

    file: NewFile
    label: str
    place: str
    """Hash of URL and path."""
    wishes: str
    """Hash of everything that was asked for."""
    priority: Priority

    @property
    def job_name(self) -> str:
        """`get NAME PLACE-WISHES`: documents show no query, so the job carries its marks in its name."""
        return f"get {self.label} {self.place}-{self.wishes}"

    def same_place(self, job: JobDocument) -> bool:
        """True for a job that an earlier `get` made for the same URL and path."""
        return job.name.startswith("get ") and job.name.rpartition(" ")[2].partition("-")[0] == self.place


class Interrupted(AgentError):
    """Somebody pressed Ctrl-C, or the system asked us to end."""

    code = "INTERRUPTED"

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> ExitCode:
        """Always 130, whichever signal it was."""
        return ExitCode.INTERRUPTED


class Interrupt:
    """The first signal ends the scope that is open; the second one ends the process."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._scope: asyncio.Timeout | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM over."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._arrived, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[None]:
        """What a signal cancels; it then raises Interrupted."""
        self._check()
        try:
            async with asyncio.timeout(None) as scope:
                self._scope = scope
                yield
        except TimeoutError:
            self._check()
            raise
        finally:
            self._scope = None

    def _check(self) -> None:
        if self._signal is not None:
            raise Interrupted("interrupted", self._signal)

    def _arrived(self, number: int) -> None:
        if self._signal is not None:
            os._exit(ExitCode.INTERRUPTED)
        self._signal = number
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())


class Patience:
    """Decides when a job that makes no progress is given up. Seconds of the caller's clock."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen: tuple[object, ...] | None = None
        self._since = 0.0
        self._best = -1
        self._best_since = 0.0

    def left(self, job: JobDocument, now: float) -> float:
        """Seconds until it is given up, 0 or less when it is."""
        received = sum(file.bytes_from_origin + file.bytes_from_peers + file.bytes_from_cache for file in job.files)
        seen = (job.bytes_transferred, received, job.files_transferred)
        deciding = any(file.state is FileState.DECIDING for file in job.files)
        if seen != self._seen or job.state in _BUSY_STATES or deciding:
            self._seen, self._since = seen, now
        if job.bytes_transferred > self._best or job.state != "TRANSIENT_ERROR":
            self._best, self._best_since = max(self._best, job.bytes_transferred), now
        return self._patience_s - (now - min(self._since, self._best_since))


class Getting:
    """One download. `job` is the last that was heard of it, also after `run` raised."""

    def __init__(self, *, config: Config, target: Target, reporter: Reporter, patience_s: float) -> None:
        self.job: JobDocument | None = None
        self._config, self._target, self._reporter = config, target, reporter
        self._patience_s = patience_s
        self._interrupt = Interrupt()

    def run(self) -> None:
        """Fetch the file and put it at its destination. Raises AgentError; Interrupted when a signal came."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        with self._interrupt.listening():
            for left in reversed(range(LOST_AGENTS)):
                failure = await self._with_one_agent()
                if failure is None:
                    return
                if left == 0 or not isinstance(failure, AgentUnavailableError):
                    raise failure
                self._reporter.note("the agent stopped: going on with another one")

    async def _with_one_agent(self) -> AgentError | None:
        """Why it did not work out, None when it did: nothing flies through the agent that is closed here."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with self._interrupt.scope():
                    client = await self._open_agent(stack)
                    self.job = await find_or_create(client, self._target)
            except AgentError as error:
                return error
            try:
                async with self._interrupt.scope():
                    await self._follow(client)
                    self.job = await _conclude(client, self.job)
            except AgentError as error:
                return await self._put_aside(client, self.job, error)
        return None

    async def _open_agent(self, stack: contextlib.AsyncExitStack) -> AgentClient:
        """The running agent of this home, else one of our own that `stack` will close."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + START_TIMEOUT_S
        client = AgentClient(socket_path(self._config.home))
        while True:
            with contextlib.suppress(AgentUnavailableError):
                return await stack.enter_async_context(client)
            from agent.service import Service  # brings aiohttp and zeroconf: only where they are needed

            try:
                await stack.enter_async_context(Service(self._config))
                for problem in (await client.about()).problems:
                    self._reporter.note(problem)
                return client
            except HomeInUseError:
                if loop.time() > give_up_at:
                    raise
            await asyncio.sleep(START_POLL_S)  # somebody else is just starting, or just stopping

    async def _follow(self, client: AgentClient) -> None:
        """Until the job rests. Raises JobFailedError when patience ends."""
        loop = asyncio.get_running_loop()
        patience = Patience(self._patience_s)
        started, first = loop.time(), None
        assert self.job is not None
        while self.job.state not in RESTING_STATES:
            job, now = self.job, loop.time()
            self._reporter.update(job)
            left = patience.left(job, now)
            if left <= 0:
                raise _given_up(job, self._patience_s)
            first = job.bytes_transferred if first is None else first
            await asyncio.sleep(look_again_s(job, job.bytes_transferred - first, now - started))
            self.job = await client.wait_change(job.id, job.sequence, timeout_s=max(0.0, min(POLL_S, left)))

    async def _put_aside(self, client: AgentClient, job: JobDocument | None, error: AgentError) -> AgentError:
        """Leave the job so that a later `get` can go on, or leave nothing. Returns what to tell the user."""
        assert job is not None
        if job.state in FINAL_STATES or isinstance(error, AgentUnavailableError):
            return error
        with contextlib.suppress(AgentError):  # an agent that does not answer any more keeps the job as it is
            if job.state == "TRANSFERRED":
                return _with_hint(error, "the file is complete and kept: the same command puts it into its place")
            if isinstance(error, Interrupted) or is_transient(error.code):
                suspended = await client.suspend(job.id)
                if suspended.bytes_transferred > 0:
                    self.job = _stopped(job, suspended)
                    held = size_text(suspended.bytes_transferred)
                    return _with_hint(error, f"{held} kept: the same command goes on from there")
            await client.cancel(job.id)
        return error


async def find_or_create(client: AgentClient, target: Target) -> JobDocument:
    """The unfinished job of an earlier `get` that asked for the same, else a new one; it runs.

    One that asked for the same file in another way, and rests, makes room.
    """
    for job in await client.jobs():
        if job.name == target.job_name:
            return await _resumed(client, job)
        if target.same_place(job) and job.state in {"SUSPENDED", "ERROR", "TRANSFERRED"}:
            with contextlib.suppress(NotFoundError, StateError):
                await client.cancel(job.id)
    new = NewJob(
        name=target.job_name, priority=target.priority, files=[target.file], minimum_retry_delay_s=RETRY_DELAY_S
    )
    return await _resumed(client, await client.create_job(new))


async def _resumed(client: AgentClient, job: JobDocument) -> JobDocument:
    idle = {"SUSPENDED", "ERROR", "TRANSIENT_ERROR"}
    return await client.resume(job.id) if job.state in idle else job


async def _conclude(client: AgentClient, job: JobDocument | None) -> JobDocument:
    """What a resting job means. Raises JobFailedError or StateError."""
    assert job is not None
    if job.state == "TRANSFERRED":
        try:
            return await client.complete(job.id)
        except StateError:  # another `get` of the same file may have been faster
            job = await client.job(job.id)
    if job.state == "ACKNOWLEDGED":
        return job
    if job.state == "ERROR":
        raise _failed(job.error or ErrorDocument(code="UNEXPECTED", message="the job failed", context="agent"))
    raise StateError(f"the job was {'cancelled by somebody else' if job.state == 'CANCELLED' else job.state}")


def look_again_s(job: JobDocument, received: int, elapsed_s: float) -> float:
    """Seconds to let a transfer run before looking again: half of what remains, so that the end is not missed and
    the looking costs nothing beside the transfer. 0 when there is nothing to estimate from."""
    if job.state != "TRANSFERRING":
        return 0.0
    if job.bytes_total is None or received <= 0 or elapsed_s <= 0:
        return FASTEST_LOOK_S
    remaining_s = (job.bytes_total - job.bytes_transferred) / (received / elapsed_s)
    return min(SLOWEST_LOOK_S, max(FASTEST_LOOK_S, remaining_s / 2))


def is_transient(code: str) -> bool:
    """True when trying again can help."""
    return code in tuple(FailureKind) and PERSISTENCE[FailureKind(code)] is Persistence.TRANSIENT


def _given_up(job: JobDocument, patience_s: float) -> JobFailedError:
    if job.error is not None and job.state in ("TRANSIENT_ERROR", "QUEUED", "CONNECTING"):
        return _failed(job.error)  # or just trying again: the last error is still the reason
    state = "suspended by somebody else" if job.state == "SUSPENDED" else f"in state {job.state}"
    message = f"no progress for {patience_s:g} s (the job is {state})"
    return JobFailedError(message, code="STALLED", context="agent")


def _failed(error: ErrorDocument) -> JobFailedError:
    return JobFailedError(error.message, code=error.code, context=error.context)


def _stopped(job: JobDocument, suspended: JobDocument) -> JobDocument:
    """The suspended job, with the error that led there."""
    return suspended if suspended.error is not None else msgspec.structs.replace(suspended, error=job.error)


def _with_hint(error: AgentError, hint: str) -> AgentError:
    error.args = (f"{error}; {hint}",)
    return error
