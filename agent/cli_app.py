"""The tree of commands: `run`, `get`, `doctor`, and where the others hang.

Loaded for everything but a plain `get` (cli_fast.py). What a command needs is imported when it runs.
Never knows: the core, SQLite, peers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from agent import cli_agent, cli_cache, cli_group, cli_jobs, cli_peer
from agent.cli_options import JOB_CODES, Given, Globals, Json, ending, home_of, with_options
from agent.cli_run_options import SETTINGS
from agent.cli_support import ask, emit, out
from agent.errors import ExitCode
from agent.installation import installed_version
from agent.schema import PeerUse, Priority

app = typer.Typer(
    help="Downloads from near before far, validated before visible.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=ending(
        "nearfetch get https://example.org/image.iso\nnearfetch --home /srv/nearfetch run",
        [code for code in ExitCode if code not in {ExitCode.OK, ExitCode.USAGE}],
    ),
)

Interfaces = Annotated[
    list[str] | None,
    typer.Option("--interface", metavar="NAME", help="Interface or address to find peers on. May be repeated."),
]


def show_version(wanted: bool) -> None:
    """`--version` ends the program."""
    if wanted:
        out(f"nearfetch {installed_version()}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where this agent keeps its state (environment: NEARFETCH_HOME)."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Downloads from near before far, validated before visible."""
    context.obj = Globals(home=home)


@app.command(
    epilog=ending(
        "nearfetch run --interface eth0\nnearfetch run --bandwidth-limit 2MB --no-notify-commands",
        [ExitCode.HOME_IN_USE, ExitCode.CONFIG],
    )
)
@with_options(SETTINGS)
def run(context: typer.Context, given: Given, as_json: Json = False) -> None:
    """Run the agent in the foreground, until SIGINT or SIGTERM. This is what a service manager starts.

    Every flag is also a key of config.toml in the home and a variable NEARFETCH_KEY; flags win. With --json one
    document is printed as soon as the agent is ready.
    """
    from agent.cli_run import run_agent

    run_agent(home_of(context), dict(given), as_json=as_json)


@app.command(
    epilog=ending(
        "nearfetch get https://example.org/image.iso -o /srv/image.iso --sha256 9f86d0...",
        [
            ExitCode.NETWORK,
            ExitCode.HTTP,
            ExitCode.TLS,
            ExitCode.RESPONSE,
            ExitCode.VALIDATION,
            ExitCode.VALIDATOR,
            ExitCode.LOCAL_FILE,
            ExitCode.DISK_FULL,
            ExitCode.STATE,
            ExitCode.HOME_IN_USE,
            ExitCode.CONFIG,
            ExitCode.INTERRUPTED,
        ],
    )
)
def get(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="http or https.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="The file. Default: the URL's last segment, here."),
    ] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="What the whole file must have.")] = None,
    sha512: Annotated[str | None, typer.Option(metavar="HEX", help="What the whole file must have.")] = None,
    validator: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:ARG]", help="Must accept the file. May be repeated.")
    ] = None,
    peers: Annotated[PeerUse, typer.Option(help="Whether peers may supply and get it.")] = PeerUse.PREFER,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="S", help="Give up after this many seconds without progress.")
    ] = 20.0,  # cli_get.PATIENCE_S
    priority: Annotated[
        Priority, typer.Option(help="Whose turn comes first, in an agent that runs.")
    ] = Priority.FOREGROUND,
    interface: Interfaces = None,
    as_json: Json = False,
) -> None:
    """Fetch a file; return when it is complete, validated, and in its place.

    Uses the agent that runs for this home, else one of its own for as long as it lasts. Interrupted (Ctrl-C) or
    cut off, the same command goes on where it was.
    """
    from agent.cli_get import GetOptions
    from agent.cli_get import get as perform

    wishes = GetOptions(
        url=url,
        output=output,
        sha256=sha256,
        sha512=sha512,
        validators=tuple(validator or ()),
        peers=peers,
        patience_s=timeout,
        priority=priority,
        json=as_json,
    )
    raise typer.Exit(perform(wishes, home_of(context), {"interface": interface}))


@app.command(epilog=ending("nearfetch doctor", [ExitCode.UNEXPECTED, ExitCode.CONFIG]))
def doctor(context: typer.Context, interface: Interfaces = None, as_json: Json = False) -> None:
    """Say why no peer is visible: version, home, group, clock, interface, multicast, port, peers."""
    from agent.config import Config
    from agent.doctor import Health, diagnose

    config = Config.load(home_of(context), {"interface": interface}, os.environ)
    diagnosis = ask(lambda: diagnose(config))
    if as_json:
        emit(diagnosis)
    else:
        for check in diagnosis.checks:
            out(f"{check.health:<4}  {check.name}: {check.message}")
            if check.advice is not None and check.health is not Health.OK:
                out(f"      -> {check.advice}")
    raise typer.Exit(ExitCode.OK if diagnosis.healthy else ExitCode.UNEXPECTED)


app.registered_commands += cli_agent.commands.registered_commands
app.add_typer(cli_agent.agent, name="agent", epilog=ending("nearfetch agent show", [ExitCode.UNAVAILABLE]))
app.add_typer(cli_jobs.app, name="job", epilog=ending("nearfetch job list", JOB_CODES))
app.add_typer(cli_group.group, name="group", epilog=ending("nearfetch group create", [ExitCode.CONFIG]))
app.add_typer(cli_peer.peer, name="peer", epilog=ending("nearfetch peer list", [ExitCode.UNAVAILABLE]))
app.add_typer(cli_cache.cache, name="cache", epilog=ending("nearfetch cache list", [ExitCode.UNAVAILABLE]))


@functools.cache
def command() -> Callable[..., object]:
    """The whole tree, built once."""
    return typer.main.get_command(app)
