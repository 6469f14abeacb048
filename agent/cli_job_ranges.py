"""`nearfetch job ranges|filled|position`: random access to the files of an on-demand job.

Never knows: which range comes when. Sources: bits-reference 1.11.
"""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli_act import act, client_of
from agent.cli_find import find_ids
from agent.cli_options import JOB_CODES, FileIndex, JobWord, Json, ending, group
from agent.cli_parse import ranges_of, size_of
from agent.cli_support import ask, emit, out
from agent.schema import ByteSpan, FilledRanges

commands = group("")


@commands.command(epilog=ending("nearfetch job ranges 4f2a 0 --want 0:64KiB --want 1GiB:eof", JOB_CODES))
def ranges(
    context: typer.Context,
    job: JobWord,
    file: FileIndex,
    want: Annotated[list[str], typer.Option(metavar="OFF:LEN|OFF:eof", help="May be repeated.")],
    as_json: Json = False,
) -> None:
    """Ask for ranges of a file of an on-demand job, now."""
    wanted = ranges_of(want)
    act(context, job, lambda client, found: client.want_ranges(found, file, wanted), as_json=as_json)


@commands.command(epilog=ending("nearfetch job filled 4f2a 0", JOB_CODES))
def filled(context: typer.Context, job: JobWord, file: FileIndex, as_json: Json = False) -> None:
    """Print what can be read from the temporary file now: a line OFFSET:LENGTH for each range."""
    client = client_of(context)

    async def perform() -> list[ByteSpan]:
        (found,) = await find_ids(client, [job])
        return await client.filled_ranges(found, file)

    spans = ask(perform)
    if as_json:
        emit(FilledRanges(ranges=spans))
        return
    for span in spans:
        out(f"{span.offset}:{span.length}")


@commands.command(epilog=ending("nearfetch job position 4f2a 0 1GiB", JOB_CODES))
def position(
    context: typer.Context,
    job: JobWord,
    file: FileIndex,
    offset: Annotated[str, typer.Argument(metavar="OFFSET", help="Bytes, or a size such as 1GiB.")],
    as_json: Json = False,
) -> None:
    """Go on with the download of a file from here."""
    place = size_of(offset)
    act(context, job, lambda client, found: client.set_position(found, file, place), as_json=as_json)
