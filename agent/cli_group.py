"""`nearfetch group ...`: which agents trust each other.

Never knows: the core, SQLite, how peers are found.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from agent.cli_options import Json, ending, home_of
from agent.cli_options import group as new_group
from agent.cli_support import emit, out, say
from agent.config import GROUP_KEY_FILE, Config, default_home
from agent.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from peer.identity import GroupKey

group = new_group("The group of agents that trust each other.")


class GroupDocument(msgspec.Struct, kw_only=True, frozen=True):
    """What the group commands print with `--json`."""

    tag: str | None
    """16 hexadecimal digits, public: the same on every agent of the group."""
    file: str | None
    """Where the key is kept; None when it comes from the configuration."""
    key: str | None = None
    """The join key, a secret; only where it was asked for."""


Force = Annotated[bool, typer.Option("--force", help="Replace the key of another group.")]


@group.command(name="create", epilog=ending("nearfetch group create", [ExitCode.CONFIG]))
def create_group(context: typer.Context, force: Force = False, as_json: Json = False) -> None:
    """Make a new group with this agent in it, and print the join key.

    Whoever has the key belongs to the group: hand it only to machines that you control.
    """
    from peer.identity import GroupKey  # brings cryptography: only where it is needed

    key = GroupKey.create()
    path = _store(context, str(key), force)
    if as_json:
        emit(GroupDocument(tag=key.tag, file=os.fspath(path), key=str(key)))
        return
    out(str(key))
    say(f"group {key.tag} made; on the other machines: nearfetch group join KEY")


@group.command(name="join", epilog=ending("nearfetch group join nf1-AAAAA-BBBBB-...", [ExitCode.CONFIG]))
def join_group(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="What `nearfetch group create` printed on another machine.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Join a group by its key."""
    parsed = _parse(key)
    path = _store(context, str(parsed), force)
    if as_json:
        emit(GroupDocument(tag=parsed.tag, file=os.fspath(path)))
    else:
        say(f"joined group {parsed.tag}; an agent that runs must be started anew")


@group.command(name="show", epilog=ending("nearfetch group show", [ExitCode.CONFIG]))
def show_group(context: typer.Context, as_json: Json = False) -> None:
    """Print the join key of this agent's group."""
    config = Config.load(home_of(context), {}, os.environ)
    if config.group_key is None:
        if config.group_ca_file is not None:
            raise ConfigError(f"the group is run by an administrator: its authority is {config.group_ca_file}")
        raise ConfigError("no group: make one with `nearfetch group create`, or join one")
    key = _parse(config.group_key)
    file = config.home / GROUP_KEY_FILE
    if as_json:
        emit(GroupDocument(tag=key.tag, file=os.fspath(file) if file.exists() else None, key=str(key)))
        return
    out(str(key))
    say(f"group {key.tag}")


def _parse(text: str) -> GroupKey:
    from peer.errors import GroupKeyError
    from peer.identity import GroupKey

    try:
        return GroupKey.parse(text)
    except GroupKeyError as error:
        raise ConfigError(str(error)) from error


def _store(context: typer.Context, key: str, force: bool) -> Path:
    """Write the key into the home, 0600. Raises ConfigError when another group's key is there."""
    from peer import durable

    named = home_of(context)
    home = default_home() if named is None else named.expanduser().absolute()
    path = home / GROUP_KEY_FILE
    try:
        durable.make_private_directory(home)
        if path.exists() and not force and path.read_text(encoding="utf-8").strip() != key:
            raise ConfigError(f"{path} holds the key of another group: --force replaces it")
        durable.write_atomically(path, f"{key}\n".encode("ascii"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
