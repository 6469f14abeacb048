"""`nearfetch job ...`: BITS' operations, one command each, on the agent that runs for this home.

Never knows: the core, SQLite, peers. It translates between the command line and the client.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated

import typer

from agent.cli_options import JOB_CODES, Json, ending, home_of
from agent.cli_support import ask, emit, out, table
from agent.client import RESTING_STATES, AgentClient
from agent.errors import ExitCode, NotFoundError, UsageError
from agent.progress import plain_line, size_text
from agent.schema import (
    FileDocument,
    FileState,
    JobDocument,
    JobList,
    NewFile,
    NewJob,
    Overwrite,
    PeerUse,
    Priority,
)

app = typer.Typer(
    help="Jobs: durable downloads that go on after a restart.", rich_markup_mode=None, add_completion=False
)

SHORTEST_ID = 4
"""Characters of an id that may stand for all of it."""

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or its first characters.")]

Action = Callable[[AgentClient, JobDocument], Awaitable[JobDocument]]


class Verdict(StrEnum):
    """What `validate` sets."""

    VALID = "valid"
    INVALID = "invalid"


@app.command(epilog=ending("nearfetch job create images --priority low", [ExitCode.UNAVAILABLE]))
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    priority: Annotated[Priority, typer.Option(help="Whose turn comes first.")] = Priority.NORMAL,
    minimum_retry_delay: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Seconds between tries after an error.")
    ] = None,
    no_progress_timeout: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Seconds without progress until ERROR.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a job without files. It is SUSPENDED until it is resumed. Prints its id."""
    new = NewJob(
        name=name,
        priority=priority,
        minimum_retry_delay_s=minimum_retry_delay,
        no_progress_timeout_s=no_progress_timeout,
    )
    client = AgentClient.connect(home_of(context))
    job = ask(lambda: client.create_job(new))
    emit(job) if as_json else out(job.id)


@app.command(
    epilog=ending("nearfetch job add 4f2a https://example.org/a.iso ./a.iso", [*JOB_CODES, ExitCode.LOCAL_FILE])
)
def add(
    context: typer.Context,
    job: JobId,
    url: Annotated[str, typer.Argument(help="http or https.")],
    path: Annotated[str, typer.Argument(help="Where the file goes.")],
    digest: Annotated[str | None, typer.Option(metavar="ALGORITHM:HEX", help="Digest of the whole file.")] = None,
    validator: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:ARG]", help="May be repeated; application: job validate decides."),
    ] = None,
    peers: Annotated[PeerUse, typer.Option(help="Whether peers may supply and get it.")] = PeerUse.PREFER,
    overwrite: Annotated[Overwrite, typer.Option(help="What to do with a file that is there.")] = Overwrite.REPLACE,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Sent to the origin. May be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a file to a job."""
    new = NewFile(
        url=url,
        path=os.path.abspath(path),
        digest=digest,
        validators=validator or [],
        peers=peers,
        overwrite=overwrite,
        headers=dict(map(_header, header or [])),
    )
    _act(context, job, lambda client, found: client.add_files(found.id, [new]), as_json)


@app.command(epilog=ending("nearfetch job resume 4f2a", JOB_CODES))
def resume(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Let a job run: a new one, a suspended one, one in ERROR."""
    _act(context, job, lambda client, found: client.resume(found.id), as_json)


@app.command(epilog=ending("nearfetch job suspend 4f2a", JOB_CODES))
def suspend(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Stop a job; what is there stays."""
    _act(context, job, lambda client, found: client.suspend(found.id), as_json)


@app.command(epilog=ending("nearfetch job cancel 4f2a", JOB_CODES))
def cancel(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """End a job and remove its temporary files."""
    _act(context, job, lambda client, found: client.cancel(found.id), as_json)


@app.command(epilog=ending("nearfetch job complete 4f2a", [*JOB_CODES, ExitCode.LOCAL_FILE]))
def complete(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Put a job's files at their destinations and end it."""
    _act(context, job, lambda client, found: client.complete(found.id), as_json)


@app.command(epilog=ending("nearfetch job validate 4f2a 0 valid", JOB_CODES))
def validate(
    context: typer.Context,
    job: JobId,
    file: Annotated[int, typer.Argument(min=0, metavar="FILE", help="Index of the file, from 0.")],
    verdict: Annotated[Verdict, typer.Argument(help="What the application found.")],
    as_json: Json = False,
) -> None:
    """Set the validation state of a file, before the job is completed."""
    valid = verdict is Verdict.VALID
    _act(context, job, lambda client, found: client.set_validation(found.id, file, valid=valid), as_json)


@app.command(name="list", epilog=ending("nearfetch job list --json", [ExitCode.UNAVAILABLE]))
def list_jobs(context: typer.Context, as_json: Json = False) -> None:
    """All jobs that are not final, oldest first."""
    client = AgentClient.connect(home_of(context))
    jobs = ask(client.jobs)
    if as_json:
        emit(JobList(jobs=jobs))
    elif jobs:
        table(("ID", "STATE", "FILES", "BYTES", "NAME"), map(_row, jobs))


@app.command(epilog=ending("nearfetch job show 4f2a", JOB_CODES))
def show(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """A job with its files and its latest events."""
    client = AgentClient.connect(home_of(context))
    found = ask(lambda: find(client, job))
    if as_json:
        emit(found)
        return
    _show(found)


@app.command(epilog=ending("nearfetch job watch 4f2a", JOB_CODES))
def watch(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Print a line (with --json: a document) for every change, until the job rests."""
    client = AgentClient.connect(home_of(context))

    async def follow() -> None:
        shown = None
        async for found in client.watch((await find(client, job)).id):
            if as_json:
                emit(found)
            elif (line := f"{found.state}: {plain_line(found, None)}") != shown:
                shown = line
                out(line)
            if found.state in RESTING_STATES or any(item.state is FileState.DECIDING for item in found.files):
                return

    ask(follow)


async def find(client: AgentClient, job_id: str) -> JobDocument:
    """The job of this id, or the only one whose id begins so. Raises NotFoundError, UsageError."""
    try:
        return await client.job(job_id)
    except NotFoundError:
        found = [job for job in await client.jobs() if job.id.startswith(job_id)]
        if len(found) > 1:
            raise UsageError(f"{len(found)} jobs have an id that begins with {job_id}") from None
        if not found or len(job_id) < SHORTEST_ID:
            raise
        return found[0]


def _act(context: typer.Context, job_id: str, action: Action, as_json: bool) -> None:
    client = AgentClient.connect(home_of(context))

    async def perform() -> JobDocument:
        return await action(client, await find(client, job_id))

    job = ask(perform)
    emit(job) if as_json else out(f"{job.id} {job.state}")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"a header is written NAME: VALUE, not {text!r}")
    return name.strip(), value.strip()


def _row(job: JobDocument) -> tuple[str, ...]:
    return (job.id, job.state, f"{job.files_transferred}/{job.files_total}", _bytes(job), job.name)


def _bytes(item: JobDocument | FileDocument) -> str:
    total = "?" if item.bytes_total is None else size_text(item.bytes_total)
    return f"{size_text(item.bytes_transferred)} of {total}"


def _show(job: JobDocument) -> None:
    out(f"{job.id}  {job.name}")
    out(f"state     {job.state}, priority {job.priority}, {_bytes(job)}")
    if job.error is not None:
        out(f"error     {job.error.message} ({job.error.code}, {job.error.context})")
    if job.retry_in_s is not None:
        out(f"next try  in {job.retry_in_s:.0f} s")
    for file in job.files:
        out(f"file {file.index}    {file.url}")
        out(f"          {file.path}: {file.state}, {file.validation}, {_bytes(file)}")
        if file.temporary_path is not None:
            out(f"          temporary: {file.temporary_path}")
        out(
            f"          from origin {size_text(file.bytes_from_origin)}, peers {size_text(file.bytes_from_peers)}, "
            f"cache {size_text(file.bytes_from_cache)}, thrown away {size_text(file.bytes_discarded)}"
        )
    for line in job.log:
        out(f"  {line}")
