"""`nearfetch peer ...`: the other agents of the group.

Never knows: how peers are found, what trust rests on. Sources: bits-reference 4.1, 7.1 (/peers).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from agent.cli_act import client_of
from agent.cli_find import find_peer
from agent.cli_job_text import date_text
from agent.cli_options import Json, ending, group
from agent.cli_parse import seconds_of
from agent.cli_support import ask, emit, out, say, table
from agent.client import AgentClient
from agent.errors import ExitCode, NotFoundError
from agent.progress import size_text
from agent.schema import Done, PeerDocument, PeerList

peer = group("The other agents of the group.")

PEER_CODES = (ExitCode.NOT_FOUND, ExitCode.STATE, ExitCode.UNAVAILABLE)
ID_CHARACTERS = 16

PeerWord = Annotated[str, typer.Argument(metavar="PEER", help="Id, first characters of it, or name.")]


@peer.command(name="list", epilog=ending("nearfetch peer list", [ExitCode.UNAVAILABLE]))
def list_peers(context: typer.Context, as_json: Json = False) -> None:
    """The agents of the group that were seen, and what went to and fro."""
    found = ask(client_of(context).peers)
    if as_json:
        emit(found)
        return
    head = ("ID", "NAME", "ADDRESS", "STANDING", "AVAILABLE", "SEEN", "TAKEN", "GIVEN", "REASON")
    table(head, map(_row, found.peers))
    _say_more(found)


@peer.command(epilog=ending("nearfetch peer show office-7", PEER_CODES))
def show(context: typer.Context, peer: PeerWord, as_json: Json = False) -> None:
    """Everything about one peer."""
    client = client_of(context)

    async def perform() -> PeerDocument:
        peer_id = await find_peer(client, peer)
        known = {item.id: item for item in (await client.peers()).peers}
        if peer_id not in known:
            raise NotFoundError(f"no peer has the id {peer_id}", code="PEER_NOT_FOUND")
        return known[peer_id]

    found = ask(perform)
    if as_json:
        emit(found)
        return
    out(f"{found.id}  {found.name}")
    out(f"address   {found.address}:{found.port}, version {found.version or '?'}")
    out(f"standing  {_standing(found)}, {_available(found)}, seen {_seen(found)}")
    if found.reason:
        out(f"reason    {found.reason}")
    if found.banned_until is not None:
        out(f"banned    until {date_text(found.banned_until)}")
    out(f"bytes     taken {size_text(found.bytes_taken)}, given {size_text(found.bytes_given)}")


@peer.command(epilog=ending("nearfetch peer forget office-7", PEER_CODES))
def forget(context: typer.Context, peer: PeerWord, as_json: Json = False) -> None:
    """Drop a peer from the list. It comes back when it is found again."""
    _change(context, peer, lambda client, found: client.forget_peer(found), "forgotten", as_json)


@peer.command(epilog=ending("nearfetch peer clear", [ExitCode.STATE, ExitCode.UNAVAILABLE]))
def clear(context: typer.Context, as_json: Json = False) -> None:
    """Drop every peer from the list. Those that are there come back when they are found again."""
    done = ask(client_of(context).forget_peers)
    emit(done) if as_json else out(f"{done.count} peers forgotten")


@peer.command(epilog=ending("nearfetch peer discover", [ExitCode.STATE, ExitCode.UNAVAILABLE]))
def discover(context: typer.Context, as_json: Json = False) -> None:
    """Look for peers now; returns at once."""
    done = ask(client_of(context).discover_peers)
    emit(done) if as_json else out("looking" if done.changed else "a search is under way already")


@peer.command(epilog=ending("nearfetch peer ban office-7 --reason 'disk is broken' --for 7d", PEER_CODES))
def ban(
    context: typer.Context,
    peer: PeerWord,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for people.")] = None,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Seconds, or 10m, 2h, 14d. Default: 30d.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take nothing from a peer and give it nothing. With its whole id also one that was never met."""
    seconds = None if duration is None else seconds_of(duration)
    _change(
        context,
        peer,
        lambda client, found: client.ban_peer(found, reason=reason, duration_s=seconds),
        "banned",
        as_json,
    )


@peer.command(epilog=ending("nearfetch peer unban office-7", PEER_CODES))
def unban(context: typer.Context, peer: PeerWord, as_json: Json = False) -> None:
    """Forgive a peer."""
    _change(context, peer, lambda client, found: client.unban_peer(found), "forgiven", as_json)


def _change(
    context: typer.Context,
    word: str,
    action: Callable[[AgentClient, str], Awaitable[Done]],
    done_word: str,
    as_json: bool,
) -> None:
    client = client_of(context)

    async def perform() -> tuple[str, Done]:
        peer_id = await find_peer(client, word)
        return peer_id, await action(client, peer_id)

    peer_id, done = ask(perform)
    if as_json:
        emit(done)
    else:
        out(f"{peer_id[:ID_CHARACTERS]} {done_word}" if done.changed else "nothing to change")


def _row(item: PeerDocument) -> tuple[str, ...]:
    return (
        item.id[:ID_CHARACTERS],
        item.name,
        f"{item.address}:{item.port}",
        _standing(item),
        "yes" if item.available else "no",
        _seen(item),
        size_text(item.bytes_taken),
        size_text(item.bytes_given),
        item.reason or "",
    )


def _standing(item: PeerDocument) -> str:
    return item.standing if item.authenticated or item.standing == "banned" else "not met yet"


def _available(item: PeerDocument) -> str:
    return "available" if item.available else "not available"


def _seen(item: PeerDocument) -> str:
    return "never" if item.last_seen_s is None else f"{item.last_seen_s:.0f} s ago"


def _say_more(found: PeerList) -> None:
    for line in found.refused:
        say(f"refused: {line}")
    for line in found.problems:
        say(f"problem: {line}")
