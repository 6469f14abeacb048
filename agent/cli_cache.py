"""`nearfetch cache ...`: what this agent can give to others, its limits and its switches.

Never knows: how content is kept. Sources: bits-reference 4.1, 4.3, 7.1 (/cache, /peercaching).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from agent.cli_act import client_of
from agent.cli_find import find_record
from agent.cli_job_text import date_text, span_text
from agent.cli_options import Json, ending, group
from agent.cli_parse import check_url, seconds_of, share_of, size_of
from agent.cli_support import ask, emit, out, say, table
from agent.errors import ExitCode, UsageError
from agent.progress import size_text
from agent.schema import CacheChange, CacheList, CacheRecordDocument, Cleared, Done

cache = group("The peer cache: what this agent can give to others.")

RECORD_CODES = (ExitCode.NOT_FOUND, ExitCode.STATE, ExitCode.UNAVAILABLE)
ID_CHARACTERS = 16
SHORTEST_AGE_S = 86_400.0
LONGEST_AGE_S = 120 * 86_400.0
"""BITS' bounds."""

RecordWord = Annotated[str, typer.Argument(metavar="RECORD", help="The record's id, or its first characters.")]


class Switch(StrEnum):
    """What a switch can be."""

    ON = "on"
    OFF = "off"


@cache.command(
    name="list", epilog=ending("nearfetch cache list\nnearfetch cache list --long", [ExitCode.UNAVAILABLE])
)
def list_cache(
    context: typer.Context,
    long: Annotated[bool, typer.Option("--long", "-l", help="Everything about each record.")] = False,
    as_json: Json = False,
) -> None:
    """What the peer cache holds."""
    found = ask(client_of(context).cache)
    if as_json:
        emit(found)
        return
    if long:
        for record in found.records:
            _print(record)
            out("")
    else:
        table(("ID", "LENGTH", "CHUNKS", "HELD", "GIVEN", "URL"), map(_row, found.records))
    out(f"{size_text(found.bytes)} of {size_text(found.limit_bytes)}")
    for line in found.problems:
        say(f"problem: {line}")


@cache.command(epilog=ending("nearfetch cache show 3b1f", RECORD_CODES))
def show(context: typer.Context, record: RecordWord, as_json: Json = False) -> None:
    """Everything about one record."""
    client = client_of(context)

    async def perform() -> CacheRecordDocument:
        return await client.cache_record(await find_record(client, record))

    found = ask(perform)
    emit(found) if as_json else _print(found)


@cache.command(epilog=ending("nearfetch cache delete 3b1f", RECORD_CODES))
def delete(context: typer.Context, record: RecordWord, as_json: Json = False) -> None:
    """Drop one record. Jobs and finished files are untouched."""
    client = client_of(context)

    async def perform() -> Done:
        return await client.delete_record(await find_record(client, record))

    done = ask(perform)
    emit(done) if as_json else out(f"{done.count} records dropped")


@cache.command(
    name="delete-url", epilog=ending("nearfetch cache delete-url https://example.org/a.iso", [ExitCode.UNAVAILABLE])
)
def delete_url(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="As the job named it.")],
    as_json: Json = False,
) -> None:
    """Drop every record that came from a URL."""
    check_url(url)
    client = client_of(context)
    done = ask(lambda: client.delete_url(url))
    emit(done) if as_json else out(f"{done.count} records dropped")


@cache.command(name="clear", epilog=ending("nearfetch cache clear", [ExitCode.UNAVAILABLE]))
def clear_cache(context: typer.Context, as_json: Json = False) -> None:
    """Empty the peer cache. Jobs and finished files are untouched."""
    records = ask(client_of(context).clear_cache)
    emit(Cleared(records=records)) if as_json else out(f"{records} records dropped")


@cache.command(epilog=ending("nearfetch cache limit --share 10%\nnearfetch cache limit", [ExitCode.UNAVAILABLE]))
def limit(
    context: typer.Context,
    size: Annotated[str | None, typer.Option("--bytes", metavar="SIZE", help="Such as 20GiB.")] = None,
    share: Annotated[str | None, typer.Option(metavar="PART", help="Of the disk, such as 10% or 0.1.")] = None,
    as_json: Json = False,
) -> None:
    """Set how large the cache may become; without options, print it. Outlives a restart."""
    if size is not None and share is not None:
        raise UsageError("--bytes and --share contradict each other: a cache has one limit")
    change = None
    if size is not None:
        change = CacheChange(limit_bytes=size_of(size))
    elif share is not None:
        change = CacheChange(limit_share=share_of(share))
    _settings(context, change, as_json)


@cache.command(epilog=ending("nearfetch cache age 30d\nnearfetch cache age", [ExitCode.UNAVAILABLE]))
def age(
    context: typer.Context,
    longest: Annotated[
        str | None, typer.Argument(metavar="TIME", help="Seconds, or 14d: from one day to 120 days.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set how long content stays that nobody asks for; without TIME, print it. Outlives a restart."""
    change = None
    if longest is not None:
        seconds = seconds_of(longest)
        if not SHORTEST_AGE_S <= seconds <= LONGEST_AGE_S:
            raise UsageError(f"{longest} is out of bounds: from 1d to 120d")
        change = CacheChange(max_age_s=seconds)
    _settings(context, change, as_json)


@cache.command(epilog=ending("nearfetch cache switch --fetch on --serve off", [ExitCode.UNAVAILABLE]))
def switch(
    context: typer.Context,
    fetch: Annotated[Switch | None, typer.Option(help="Whether jobs may take from peers.")] = None,
    serve: Annotated[Switch | None, typer.Option(help="Whether peers may take from this agent.")] = None,
    as_json: Json = False,
) -> None:
    """Set the switches of the machine; without options, print them. Outlive a restart.

    A job has these switches too (`job set --no-peer-fetch`); both must be on.
    """
    wishes = {
        name: value is Switch.ON
        for name, value in (("peer_fetch", fetch), ("peer_serve", serve))
        if value is not None
    }
    _settings(context, CacheChange(**wishes) if wishes else None, as_json)


def _settings(context: typer.Context, change: CacheChange | None, as_json: bool) -> None:
    """Change, when there is something to change, and print what holds now."""
    client = client_of(context)
    found: CacheList = ask(client.cache if change is None else lambda: client.change_cache(change))
    if as_json:
        emit(found)
        return
    share = "" if found.limit_share is None else f" ({found.limit_share:.0%} of the disk)"
    out(f"limit   {size_text(found.limit_bytes)}{share}, held {size_text(found.bytes)}")
    out(f"age     {span_text(found.max_age_s)}")
    out(f"switch  fetch {_word(found.peer_fetch)}, serve {_word(found.peer_serve)}")


def _row(item: CacheRecordDocument) -> tuple[str, ...]:
    return (
        item.id[:ID_CHARACTERS],
        size_text(item.length),
        f"{item.chunks_held}/{item.chunks_total}",
        size_text(item.bytes),
        size_text(item.bytes_given),
        item.url or "",
    )


def _print(record: CacheRecordDocument) -> None:
    out(record.id)
    out(f"url       {record.url or 'not known any more'}")
    out(f"length    {size_text(record.length)}, held {size_text(record.bytes)}")
    out(f"chunks    {record.chunks_held} of {record.chunks_total}")
    out(f"ranges    {' '.join(f'{start}:{stop - start}' for start, stop in record.ranges)}")
    out(f"times     created {date_text(record.created_at)}, last used {date_text(record.last_access_at)}")
    out(f"given     {size_text(record.bytes_given)} since the agent started")


def _word(value: bool) -> Switch:
    return Switch.ON if value else Switch.OFF
