"""How a command about jobs is carried out: find what is meant, do it, print what came of it.

Several jobs are done side by side; each has a line of its own (with `--json` a document of its own), in the order
named, and the exit code is that of the first one that failed.
Never knows: what is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import typer

from agent.cli_find import find_ids
from agent.cli_options import home_of
from agent.cli_support import ask, emit, error_document, out, say
from agent.client import AgentClient
from agent.errors import AgentError, AgentUnavailableError, ExitCode, UsageError
from agent.schema import JobDocument

Action = Callable[[AgentClient, str], Awaitable[JobDocument]]
"""What is done with a job of this id."""

Choice = Callable[[JobDocument], bool]

AT_ONCE = 16
"""Requests on their way; the agent answers each once it is on disk, and writes those together."""


def client_of(context: typer.Context) -> AgentClient:
    """The client of the agent that runs for this home."""
    return AgentClient.connect(home_of(context))


def act(context: typer.Context, word: str, action: Action, *, as_json: bool) -> JobDocument:
    """Do something with one job, and print it. Raises AgentError."""
    client = client_of(context)

    async def perform() -> JobDocument:
        (found,) = await find_ids(client, [word])
        return await action(client, found)

    job = ask(perform)
    report(job, as_json=as_json)
    return job


def act_on(
    context: typer.Context, words: Sequence[str] | None, every: Choice | None, action: Action, *, as_json: bool
) -> None:
    """Do something with these jobs, or with all that `every` chooses. Raises AgentError, typer.Exit."""
    if bool(words) == (every is not None):
        raise UsageError("name a JOB or more, or say --all" if not words else "JOBs and --all cannot both be meant")
    client = client_of(context)

    async def perform() -> int:
        if every is None:
            found = await find_ids(client, words or ())
            if len(found) == 1:
                report(await action(client, found[0]), as_json=as_json)
                return ExitCode.OK
        else:
            found = [job.id for job in await client.jobs(brief=True) if every(job)]
        return await _each(client, found, action, as_json=as_json)

    code = ask(perform)
    if code != ExitCode.OK:
        raise typer.Exit(code)


def report(job: JobDocument, *, as_json: bool) -> None:
    """A job after something was done with it."""
    emit(job) if as_json else out(f"{job.id} {job.state}")


async def _each(client: AgentClient, ids: Sequence[str], action: Action, *, as_json: bool) -> int:
    code = int(ExitCode.OK)
    for start in range(0, len(ids), AT_ONCE):
        batch = ids[start : start + AT_ONCE]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(client, job_id, action)) for job_id in batch]
        for job_id, task in zip(batch, tasks, strict=True):
            outcome = task.result()
            if isinstance(outcome, JobDocument):
                report(outcome, as_json=as_json)
                continue
            code = code or int(outcome.exit_code)
            if as_json:
                emit({"error": error_document(outcome)})
            else:
                say(f"nearfetch: {job_id}: {outcome} ({outcome.code})")
    return code


async def _one(client: AgentClient, job_id: str, action: Action) -> JobDocument | AgentError:
    try:
        return await action(client, job_id)
    except AgentUnavailableError:
        raise
    except AgentError as error:
        return error
