"""`nearfetch job resume|suspend|cancel|complete|reset|validate`: what moves a job from state to state.

Never knows: which move is allowed; the agent does. Sources: bits-reference 1.2, 1.6, 3.2, 7.1 (/reset).
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from agent.cli_act import Choice, act, act_on
from agent.cli_options import JOB_CODES, FileIndex, JobWord, JobWords, Json, ending, group
from agent.cli_support import say
from agent.client import AgentClient
from agent.errors import DestinationError, ExitCode, UsageError
from agent.schema import JobDocument

commands = group("")

All = Annotated[bool, typer.Option("--all", help="Every job that it makes sense for.")]


class Verdict(StrEnum):
    """What `validate` sets."""

    VALID = "valid"
    INVALID = "invalid"


@commands.command(epilog=ending("nearfetch job resume 4f2a\nnearfetch job resume --all", JOB_CODES))
def resume(context: typer.Context, jobs: JobWords = None, every: All = False, as_json: Json = False) -> None:
    """Let jobs run: new ones, suspended ones, those in ERROR, and those that wait for their next try."""

    def waits(job: JobDocument) -> bool:
        return job.state in {"SUSPENDED", "ERROR", "TRANSIENT_ERROR"} and job.files_total > 0

    act_on(context, jobs, _choice(every, waits), lambda client, job: client.resume(job), as_json=as_json)


@commands.command(epilog=ending("nearfetch job suspend images drivers", JOB_CODES))
def suspend(context: typer.Context, jobs: JobWords = None, every: All = False, as_json: Json = False) -> None:
    """Stop jobs; what is there stays."""

    def runs(job: JobDocument) -> bool:
        return job.state not in {"SUSPENDED", "TRANSFERRED", "ERROR"}

    act_on(context, jobs, _choice(every, runs), lambda client, job: client.suspend(job), as_json=as_json)


@commands.command(epilog=ending("nearfetch job cancel 4f2a", JOB_CODES))
def cancel(context: typer.Context, jobs: JobWords = None, every: All = False, as_json: Json = False) -> None:
    """End jobs and remove their temporary files."""
    act_on(context, jobs, _choice(every, lambda job: True), lambda client, job: client.cancel(job), as_json=as_json)


@commands.command(epilog=ending("nearfetch job complete 4f2a", [*JOB_CODES, ExitCode.LOCAL_FILE]))
def complete(context: typer.Context, jobs: JobWords = None, every: All = False, as_json: Json = False) -> None:
    """Put jobs' files at their destinations and end the jobs. With --all: those in TRANSFERRED.

    A job that is not done yet keeps the files that are; the others are given up.
    """

    async def perform(client: AgentClient, job_id: str) -> JobDocument:
        try:
            job = await client.complete(job_id)
        except DestinationError:
            if not as_json:
                for file in (await client.job(job_id)).files:
                    if file.error is not None:
                        say(f"file {file.index}: {file.error.message} ({file.error.code})")
            raise
        if job.partial and not as_json:
            say(f"{job_id}: only {job.files_transferred} of {job.files_total} files were there; the rest is lost")
        return job

    act_on(context, jobs, _choice(every, lambda job: job.state == "TRANSFERRED"), perform, as_json=as_json)


@commands.command(epilog=ending("nearfetch job reset --yes", [ExitCode.UNAVAILABLE, ExitCode.INTERRUPTED]))
def reset(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Cancel every job of this agent. Asks first."""
    if not yes and not _agreed("Cancel every job and remove what they have fetched?"):
        say("nothing was cancelled")
        raise typer.Exit(ExitCode.INTERRUPTED)
    cancel(context, None, every=True, as_json=as_json)


@commands.command(epilog=ending("nearfetch job validate 4f2a 0 valid", JOB_CODES))
def validate(
    context: typer.Context,
    job: JobWord,
    file: FileIndex,
    verdict: Annotated[Verdict, typer.Argument(help="What the application found.")],
    as_json: Json = False,
) -> None:
    """Set the validation state of a file, before the job is completed.

    Invalid: bytes from peers are fetched again from the origin; bytes of the origin put the job in ERROR.
    """
    valid = verdict is Verdict.VALID
    act(context, job, lambda client, found: client.set_validation(found, file, valid=valid), as_json=as_json)


def _choice(every: bool, choice: Choice) -> Choice | None:
    return choice if every else None


def _agreed(question: str) -> bool:
    """Ask on the terminal. Raises UsageError when there is none."""
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on: say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
