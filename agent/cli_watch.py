"""`nearfetch job wait|watch`: until a job has come somewhere, and what all jobs are doing now.

On a terminal `watch` is a table that is drawn again and again (rich, loaded for nothing else); into a pipe it is a
line, with `--json` a document, for every change.
Never knows: the core; what a state may become.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Annotated, Protocol

import typer

from agent.cli_act import client_of, report
from agent.cli_find import find_ids
from agent.cli_listing import states_of
from agent.cli_options import FAILURE_CODES, JOB_CODES, JobWord, JobWords, Json, ending, group
from agent.cli_support import ask, emit, out
from agent.client import FINAL_STATES, RESTING_STATES, AgentClient
from agent.errors import JobFailedError, NotFoundError, StateError
from agent.progress import Rate, plain_line
from agent.schema import FileState, JobDocument

commands = group("")

Refresh = Annotated[float, typer.Option(min=0.05, max=3600, metavar="S", help="Seconds between two looks.")]


@commands.command(
    epilog=ending(
        "nearfetch job wait 4f2a\nnearfetch job wait 4f2a --until TRANSFERRED --timeout 600",
        [*JOB_CODES, *FAILURE_CODES],
    )
)
def wait(
    context: typer.Context,
    job: JobWord,
    until: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="The state to wait for. May be repeated.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Give up after this many seconds (exit code 4).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Wait until a job rests: TRANSFERRED, ERROR, ended, or waiting for the application to validate.

    The exit code is the error's when it ends in ERROR, unless that is what was waited for.
    """
    wanted = states_of(until or [])
    client = client_of(context)

    async def perform() -> JobDocument:
        (found,) = await find_ids(client, [job])
        try:
            return await client.wait(found, wanted | {"ERROR"} if wanted else None, timeout)
        except TimeoutError:
            state = (await client.job(found)).state
            raise StateError(f"the job is still {state} after {timeout:g} s") from None

    found = ask(perform)
    _check_arrived(found, wanted)
    report(found, as_json=as_json)


def _check_arrived(job: JobDocument, wanted: Collection[str]) -> None:
    """Raises JobFailedError or StateError when it came elsewhere."""
    if job.state in wanted:
        return
    if job.state == "ERROR" and job.error is not None:
        raise JobFailedError(job.error.message, code=job.error.code, context=job.error.context)
    if wanted or job.state == "CANCELLED":
        raise StateError(f"the job is {job.state}")


class Board(Protocol):
    """Who shows the jobs."""

    def update(self, jobs: Sequence[JobDocument], changed: Sequence[JobDocument]) -> None:
        """All jobs that are watched, and which of them are new or other than before."""


@commands.command(epilog=ending("nearfetch job watch\nnearfetch job watch 4f2a --json", JOB_CODES))
def watch(context: typer.Context, jobs: JobWords = None, refresh: Refresh = 1.0, as_json: Json = False) -> None:
    """Live progress of all jobs until Ctrl-C, or of those named until all of them rest.

    On a terminal: a table that is drawn again and again. Else a line, with --json a document, for every change.
    """
    client = client_of(context)
    board, drawing = _board(as_json)

    async def follow() -> None:
        if jobs:
            changes = each_until_rest(client, await find_ids(client, jobs), refresh)
        else:
            changes = all_for_ever(client, refresh)
        seen: dict[str, JobDocument] = {}
        async with aclosing(changes):
            async for now in changes:
                changed = [job for job in now if job.id not in seen or seen[job.id].sequence != job.sequence]
                seen = {job.id: job for job in now}
                board.update(now, changed)

    with drawing:
        ask(follow)


async def all_for_ever(client: AgentClient, refresh_s: float) -> AsyncGenerator[list[JobDocument], None]:
    """Every job that has not ended, briefly; and once more those that just ended."""
    known: set[str] = set()
    while True:
        jobs = await client.jobs(brief=True)
        living = {job.id for job in jobs}
        ended = [found for job_id in known - living if (found := await _ended(client, job_id)) is not None]
        yield [*ended, *jobs]
        known = living
        await asyncio.sleep(refresh_s)


async def each_until_rest(
    client: AgentClient, ids: Sequence[str], refresh_s: float
) -> AsyncGenerator[list[JobDocument], None]:
    """These jobs after each change, `refresh_s` apart at least, until all rest."""
    jobs = {job_id: await client.job(job_id) for job_id in ids}
    yield list(jobs.values())
    while moving := [job for job in jobs.values() if not rests(job)]:
        pause = asyncio.get_running_loop().time() + refresh_s
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(client.wait_change(job.id, job.sequence, timeout_s=refresh_s)) for job in moving
            ]
        jobs |= {job.id: job for job in (task.result() for task in tasks)}
        yield list(jobs.values())
        if not all(rests(job) for job in jobs.values()):
            await asyncio.sleep(max(0.0, pause - asyncio.get_running_loop().time()))


def rests(job: JobDocument) -> bool:
    """Nothing happens until somebody says what to do."""
    return job.state in RESTING_STATES or any(file.state is FileState.DECIDING for file in job.files)


async def _ended(client: AgentClient, job_id: str) -> JobDocument | None:
    try:
        job = await client.job(job_id)
    except NotFoundError:
        return None
    return job if job.state in FINAL_STATES else None


class Documents:
    """A JSON document for each change."""

    def update(self, jobs: Sequence[JobDocument], changed: Sequence[JobDocument]) -> None:
        """Print them."""
        for job in changed:
            emit(job)


class Lines:
    """A line for each change that can be seen."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}
        self._shown: dict[str, str] = {}

    def update(self, jobs: Sequence[JobDocument], changed: Sequence[JobDocument]) -> None:
        """Print them."""
        now = time.monotonic()
        for job in changed:
            rate = self._rates.setdefault(job.id, Rate()).add(now, job.bytes_transferred)
            line = f"{job.id} {job.name}: {job.state}: {plain_line(job, rate)}"
            if self._shown.get(job.id) != line:
                self._shown[job.id] = line
                out(line)
        sys.stdout.flush()


def _board(as_json: bool) -> tuple[Board, AbstractContextManager[object]]:
    if as_json:
        return Documents(), nullcontext()
    if not sys.stdout.isatty():
        return Lines(), nullcontext()
    from agent.cli_board import LiveBoard

    live = LiveBoard()
    return live, live
