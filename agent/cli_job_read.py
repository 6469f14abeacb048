"""`nearfetch job list|show|get|explain|log`: jobs as they are.

Never knows: how progress is followed (cli_watch.py), how long lists are printed (cli_listing.py).
Sources: bits-reference 7.1 (list, listfiles, info, get).
"""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli_act import client_of
from agent.cli_explain_text import print_explanation
from agent.cli_find import find_ids, find_job
from agent.cli_job_properties import FILE_PROPERTIES, JOB_PROPERTIES, bare, property_of
from agent.cli_job_text import print_files, print_job
from agent.cli_listing import ListOptions
from agent.cli_listing import list_jobs as perform
from agent.cli_options import JOB_CODES, JobWord, Json, ending, group, home_of
from agent.cli_support import ask, emit, out
from agent.errors import ExitCode
from agent.schema import Explanation

commands = group("")

States = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state. May be repeated.")
]


@commands.command(
    name="list",
    epilog=ending(
        "nearfetch job list --json\nnearfetch job list --state ERROR --name 'get *'", [ExitCode.UNAVAILABLE]
    ),
)
def list_jobs(
    context: typer.Context,
    state: States = None,
    name: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only jobs with such a name: * and ? stand for others.")
    ] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="Everything about each job.")] = False,
    as_json: Json = False,
) -> None:
    """Jobs that have not ended, oldest first."""
    options = ListOptions(states=tuple(state or ()), name=name, long=long, json=as_json)
    perform(options, home_of(context))


@commands.command(epilog=ending("nearfetch job show 4f2a\nnearfetch job show images --files", JOB_CODES))
def show(
    context: typer.Context,
    job: JobWord,
    files: Annotated[bool, typer.Option("--files", help="Only its files, one a line.")] = False,
    as_json: Json = False,
) -> None:
    """A job with its files and its latest events. One that has ended is remembered for ten minutes, by its id."""
    client = client_of(context)
    found = ask(lambda: find_job(client, job))
    if as_json:
        emit(found)
    elif files:
        print_files(found)
    else:
        print_job(found)


@commands.command(
    epilog=ending("nearfetch job get 4f2a state\nnearfetch job get 4f2a temporary-path 0", JOB_CODES)
    + f"\n\nProperties: {', '.join(JOB_PROPERTIES)}."
    + f"\n\nProperties of a file: {', '.join(FILE_PROPERTIES)}."
)
def get(
    context: typer.Context,
    job: JobWord,
    word: Annotated[
        str,
        typer.Argument(
            metavar="PROPERTY",
            help="See below.",
            autocompletion=lambda: sorted({*JOB_PROPERTIES, *FILE_PROPERTIES}),
        ),
    ],
    file: Annotated[
        int | None, typer.Argument(min=0, metavar="INDEX", help="Number of the file, for a property of a file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print one property, bare, for scripts: bytes, seconds, seconds since 1970; nothing for what is not known."""
    client = client_of(context)
    value = property_of(ask(lambda: find_job(client, job)), word, file)
    if as_json:
        emit(value)
        return
    for line in bare(value).splitlines():
        out(line)


@commands.command(epilog=ending("nearfetch job explain 4f2a\nnearfetch job explain images --json", JOB_CODES))
def explain(context: typer.Context, job: JobWord, as_json: Json = False) -> None:
    """Where each range of a job's files came from, and why not from nearer.

    Also while the job runs, after a restart of the agent, and, by its id, for ten minutes after its end.
    """
    client = client_of(context)

    async def perform() -> Explanation:
        (found,) = await find_ids(client, [job])
        return await client.explain(found)

    found = ask(perform)
    if as_json:
        emit(found)
    else:
        print_explanation(found)


@commands.command(epilog=ending("nearfetch job log 4f2a", JOB_CODES))
def log(context: typer.Context, job: JobWord, as_json: Json = False) -> None:
    """The job's latest notable events, oldest first."""
    client = client_of(context)
    found = ask(lambda: find_job(client, job))
    if as_json:
        emit(found.log)
        return
    for line in found.log:
        out(line)
