"""`nearfetch job create|add|add-set`: new jobs and their files.

Never knows: which values the agent accepts. Sources: bits-reference 1.6, 1.7, 7.1.
"""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli_act import act, client_of
from agent.cli_job_options import CREATION, new_job
from agent.cli_options import JOB_CODES, Given, JobWord, Json, ending, group, with_options
from agent.cli_parse import absolute, check_url, headers_of, listed_files, ranges_of
from agent.cli_support import ask, emit, out
from agent.errors import ExitCode
from agent.schema import NewFile, Overwrite, PeerUse

commands = group("")

FILE_CODES = (*JOB_CODES, ExitCode.LOCAL_FILE)

Digest = Annotated[str | None, typer.Option(metavar="ALGORITHM:HEX", help="Digest of the whole file.")]
Validators = Annotated[
    list[str] | None,
    typer.Option("--validator", metavar="NAME[:ARG]", help="May be repeated; application: job validate decides."),
]
Peers = Annotated[PeerUse, typer.Option(help="Whether peers may supply and get it.")]
OnExisting = Annotated[Overwrite, typer.Option(help="What to do with a file that is there.")]


@commands.command(
    epilog=ending(
        "nearfetch job create images --priority low --rate-limit 2MB\n"
        "nearfetch job create images --notify-command /usr/bin/logger --notify-arg done",
        [ExitCode.STATE, ExitCode.UNAVAILABLE],
    )
)
@with_options(CREATION)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    given: Given,
    as_json: Json = False,
) -> None:
    """Make a job without files. It is SUSPENDED until it is resumed. Prints its id."""
    new = new_job(name, given)
    client = client_of(context)
    job = ask(lambda: client.create_job(new, key=given["key"]))
    emit(job) if as_json else out(job.id)


@commands.command(
    epilog=ending(
        "nearfetch job add 4f2a https://example.org/a.iso ./a.iso\n"
        "nearfetch job add 4f2a https://example.org/a.iso ./part --range 0:1MiB --range 1GiB:eof",
        FILE_CODES,
    )
)
def add(
    context: typer.Context,
    job: JobWord,
    url: Annotated[str, typer.Argument(help="http or https.")],
    path: Annotated[str, typer.Argument(help="Where the file goes.")],
    wanted: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="OFF:LEN|OFF:eof", help="Only these, in this order. May be repeated."),
    ] = None,
    digest: Digest = None,
    validator: Validators = None,
    peers: Peers = PeerUse.PREFER,
    overwrite: OnExisting = Overwrite.REPLACE,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Sent to the origin for this file only. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a file to a job."""
    new = NewFile(
        url=check_url(url),
        path=absolute(path),
        digest=digest,
        validators=validator or [],
        peers=peers,
        overwrite=overwrite,
        headers=headers_of(header or []),
        ranges=ranges_of(wanted or []),
    )
    act(context, job, lambda client, found: client.add_files(found, [new]), as_json=as_json)


@commands.command(
    name="add-set",
    epilog=ending(
        "nearfetch job add-set 4f2a files.txt\nprintf '%s\\n' ... | nearfetch job add-set 4f2a -", FILE_CODES
    ),
)
def add_set(
    context: typer.Context,
    job: JobWord,
    listed: Annotated[str, typer.Argument(metavar="LISTFILE", help="Lines `URL PATH`; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Add the files of a list to a job, all or none.

    A path may hold spaces. Empty lines and lines that begin with # are left out.
    """
    files = listed_files(listed)
    act(context, job, lambda client, found: client.add_files(found, files), as_json=as_json)
