"""`nearfetch job transfer`: one job from beginning to end, as `bitsadmin /transfer`.

Transient errors are waited for, as long as the job's own patience lasts; a fatal one cancels the job. Ctrl-C (or
SIGTERM) leaves it SUSPENDED, and says how to go on: nothing that was fetched is lost, and nothing goes on unasked.
(Microsoft's page says "to end the command, press CTRL+C" and not what becomes of the job.)
Never knows: the core; where bytes come from. Sources: bits-reference 7.1 (/transfer), 7.2 (Start-BitsTransfer).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import msgspec
import typer

from agent.cli_act import client_of
from agent.cli_job_options import CREATION, new_job
from agent.cli_options import FAILURE_CODES, Given, Json, ending, group, with_options
from agent.cli_parse import pairs_of
from agent.cli_support import emit, say
from agent.client import FINAL_STATES, AgentClient
from agent.errors import AgentError, AgentUnavailableError, DestinationError, ExitCode, JobFailedError, StateError
from agent.getting import Interrupt, Interrupted
from agent.progress import Reporter, Silent, reporter_for, size_text, split_of
from agent.schema import JobDocument, NewJob

commands = group("")

RESTS = frozenset({"TRANSFERRED", "ERROR"}) | FINAL_STATES


@commands.command(
    epilog=ending(
        "nearfetch job transfer images https://example.org/a.iso ./a.iso https://example.org/b.iso ./b.iso",
        [ExitCode.STATE, ExitCode.UNAVAILABLE, ExitCode.INTERRUPTED, *FAILURE_CODES],
    )
)
@with_options(CREATION)
def transfer(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    files: Annotated[list[str], typer.Argument(metavar="URL PATH [URL PATH]...", help="What goes where.")],
    given: Given,
    as_json: Json = False,
) -> None:
    """Make a job, wait until it is done, and complete it.

    A transient error is waited for; a fatal one cancels the job and is the exit code. Ctrl-C leaves the job
    SUSPENDED: `job resume` and `job complete` go on with it.
    """
    new = msgspec.structs.replace(new_job(name, given), files=pairs_of(files))
    reporter: Reporter = Silent() if as_json else reporter_for()
    one = Transfer(client_of(context), reporter)
    try:
        job = asyncio.run(one.run(new, given["key"]))
    finally:
        reporter.close()
    if as_json:
        emit(job)
        return
    split = split_of(job)
    for file in job.files:
        say(f"{file.path}: {size_text(file.bytes_transferred)}{f'; {split}' if split and len(files) == 2 else ''}")


class Transfer:
    """One job from its making to its end."""

    def __init__(self, client: AgentClient, reporter: Reporter) -> None:
        self._client, self._reporter = client, reporter
        self._interrupt = Interrupt()

    async def run(self, new: NewJob, key: str | None) -> JobDocument:
        """The completed job. Raises AgentError; Interrupted when a signal came."""
        with self._interrupt.listening():
            async with self._interrupt.scope():
                job = await self._client.create_job(new, key=key)
            try:
                async with self._interrupt.scope():
                    return await self._to_the_end(job)
            except Interrupted as error:
                raise await self._put_aside(job, error) from error

    async def _to_the_end(self, job: JobDocument) -> JobDocument:
        client = self._client
        if job.state in {"SUSPENDED", "ERROR", "TRANSIENT_ERROR"}:  # with a key it may be further already
            job = await client.resume(job.id)
        self._reporter.update(job)
        while job.state not in RESTS:
            job = await client.wait_change(job.id, job.sequence)
            self._reporter.update(job)
        match job.state:
            case "TRANSFERRED":
                return await self._completed(job)
            case "ERROR":
                with contextlib.suppress(AgentError):  # what made it fail is what the user has to hear
                    await client.cancel(job.id)
                raise _failure(job)
            case "ACKNOWLEDGED":
                return job
            case _:
                raise StateError("the job was cancelled by somebody else")

    async def _completed(self, job: JobDocument) -> JobDocument:
        try:
            return await self._client.complete(job.id)
        except DestinationError as error:
            error.args = (f"{error}; everything is kept: mend it, then `nearfetch job complete {job.id}`",)
            raise

    async def _put_aside(self, job: JobDocument, error: Interrupted) -> AgentError:
        """Suspend it; what to tell the user."""
        try:
            job = await self._client.job(job.id)
            if job.state not in FINAL_STATES and job.state != "TRANSFERRED":
                job = await self._client.suspend(job.id)
        except AgentUnavailableError as gone:
            return gone
        except AgentError:
            return error  # it has just ended by itself
        held = size_text(job.bytes_transferred)
        error.args = (f"interrupted; job {job.id} is {job.state} with {held}: `nearfetch job resume` goes on",)
        return error


def _failure(job: JobDocument) -> AgentError:
    if job.error is None:
        return JobFailedError("the job failed")
    return JobFailedError(job.error.message, code=job.error.code, context=job.error.context)
