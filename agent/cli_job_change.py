"""`nearfetch job set|set-url|replace-prefix` and `job credentials ...`: what can be changed while a job lives.

A password never stands on the command line, where every user of the machine could read it: it comes from a file,
from standard input, or from a question on the terminal. Never knows: which change the job's state allows.
Sources: bits-reference 1.6, 7.1 (set, remove).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent.cli_act import act, client_of
from agent.cli_find import find_ids
from agent.cli_job_options import CHANGES, job_change
from agent.cli_options import JOB_CODES, FileIndex, Given, JobWord, Json, ending, group, with_options
from agent.cli_parse import STDIN, check_url, text_of
from agent.cli_support import ask, emit, out
from agent.errors import UsageError
from agent.schema import CredentialChange, CredentialScheme, CredentialTarget, PrefixReplaced

commands = group("")
credentials = group("Who a job is to its origins and its proxy. Never readable again.")

Target = Annotated[CredentialTarget, typer.Option(help="Who asks for them.")]
Scheme = Annotated[CredentialScheme, typer.Option(help="How they are shown.")]


@commands.command(
    name="set",
    epilog=ending("nearfetch job set 4f2a --priority high --rate-limit off --header 'X-Site: 7'", JOB_CODES),
)
@with_options(CHANGES)
def set_properties(context: typer.Context, job: JobWord, given: Given, as_json: Json = False) -> None:
    """Change properties of a job; they hold at once. What is not named stays as it is.

    A list (headers, security flags, bypass hosts, arguments) is replaced as a whole.
    """
    change = job_change(given)
    act(context, job, lambda client, found: client.change_job(found, change), as_json=as_json)


@commands.command(
    name="set-url", epilog=ending("nearfetch job set-url 4f2a 0 https://mirror.example.org/a.iso", JOB_CODES)
)
def set_url(
    context: typer.Context,
    job: JobWord,
    file: FileIndex,
    url: Annotated[str, typer.Argument(help="http or https.")],
    as_json: Json = False,
) -> None:
    """Fetch a file from another URL. What is there of it stays when size and validator agree."""
    check_url(url)
    act(context, job, lambda client, found: client.change_file(found, file, url), as_json=as_json)


@commands.command(
    name="replace-prefix",
    epilog=ending("nearfetch job replace-prefix 4f2a http://old.example/ https://new.example/", JOB_CODES),
)
def replace_prefix(
    context: typer.Context,
    job: JobWord,
    old: Annotated[str, typer.Argument(help="How the URLs begin; upper and lower case differ.")],
    new: Annotated[str, typer.Argument(help="How they are to begin.")],
    as_json: Json = False,
) -> None:
    """Change the beginning of the URLs of all files that are not done."""
    client = client_of(context)

    async def perform() -> PrefixReplaced:
        (found,) = await find_ids(client, [job])
        return await client.replace_prefix(found, old, new)

    done = ask(perform)
    emit(done) if as_json else out(f"{done.files_changed} files changed")


@credentials.command(
    name="set",
    epilog=ending(
        "nearfetch job credentials set 4f2a --scheme basic --user anna\n"
        "nearfetch job credentials set 4f2a --scheme bearer --password-file token.txt",
        JOB_CODES,
    ),
)
def set_credentials(
    context: typer.Context,
    job: JobWord,
    scheme: Scheme,
    user: Annotated[str, typer.Option(metavar="NAME", help="Not for bearer.")] = "",
    target: Target = CredentialTarget.SERVER,
    password_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Holds the password or token; - is standard input.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a job credentials for one target and scheme; they replace those before.

    Without --password-file the password is asked for on the terminal, or read from a pipe.
    """
    change = CredentialChange(
        target=target, scheme=scheme, user=user, password=_password(password_file, scheme, target)
    )
    act(context, job, lambda client, found: client.set_credentials(found, change), as_json=as_json)


@credentials.command(
    name="remove", epilog=ending("nearfetch job credentials remove 4f2a --scheme basic", JOB_CODES)
)
def remove_credentials(
    context: typer.Context,
    job: JobWord,
    scheme: Scheme,
    target: Target = CredentialTarget.SERVER,
    as_json: Json = False,
) -> None:
    """Forget credentials."""
    act(context, job, lambda client, found: client.remove_credentials(found, target, scheme), as_json=as_json)


commands.add_typer(
    credentials, name="credentials", epilog=ending("nearfetch job credentials set 4f2a --scheme basic", JOB_CODES)
)


def _password(file: str | None, scheme: CredentialScheme, target: CredentialTarget) -> str:
    """Raises UsageError when there is none."""
    word = "token" if scheme is CredentialScheme.BEARER else "password"
    if file is None and sys.stdin.isatty():
        from getpass import getpass

        found = getpass(f"{word} for the {target}: ", stream=sys.stderr)
    else:
        text = text_of(STDIN if file is None else file)
        found = text.removesuffix("\n").removesuffix("\r")
    if not found:
        raise UsageError(f"the {word} is empty: give it with --password-file, through a pipe, or on the terminal")
    return found
