"""`nearfetch job events`: the agent's ordered feed of events, as lines.

Never knows: how events are kept. Sources: bits-reference 2.
"""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from agent.cli_act import client_of
from agent.cli_find import find_ids
from agent.cli_job_text import date_text
from agent.cli_options import JOB_CODES, Json, complete_jobs, ending, group
from agent.cli_support import ask, emit, out
from agent.errors import ExitCode
from agent.progress import size_text
from agent.schema import EventDocument

commands = group("")


@commands.command(
    epilog=ending(
        "nearfetch job events --after 0\nnearfetch job events --job 4f2a --json",
        [*JOB_CODES, ExitCode.INTERRUPTED],
    )
)
def events(
    context: typer.Context,
    after: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Begin behind this sequence number. Default: with what happens next."
        ),
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only of this job.", autocompletion=complete_jobs)
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after as many events.")] = None,
    as_json: Json = False,
) -> None:
    """Print what happens to jobs, a line (with --json: a document) for each event, until Ctrl-C.

    Every line begins with the event's sequence number; with --after nothing since then is missed.
    """
    client = client_of(context)

    async def follow() -> None:
        job_id = None if job is None else (await find_ids(client, [job]))[0]
        left = count
        async with aclosing(client.events(after, job_id)) as feed:
            async for event in feed:
                emit(event) if as_json else out(line_of(event))
                sys.stdout.flush()
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    ask(follow)


def line_of(event: EventDocument) -> str:
    """One event for people."""
    number = "-" if event.sequence is None else str(event.sequence)
    words = [number, date_text(event.at), event.kind.value]
    if event.job:
        words += [event.job, event.name]
    if event.state is not None:
        words.append(event.state)
    if event.file is not None:
        words.append(f"file {event.file}")
    words += [f"{start}:{stop - start}" for start, stop in event.ranges]
    if event.bytes_transferred is not None:
        total = "?" if event.bytes_total is None else size_text(event.bytes_total)
        words.append(f"{size_text(event.bytes_transferred)} of {total}")
    if event.error is not None:
        words.append(f"{event.error.message} ({event.error.code})")
    return "  ".join(words)
