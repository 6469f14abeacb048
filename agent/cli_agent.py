"""`nearfetch agent show`, `stats`, `audit`, `completion`: about the agent and its jobs as a whole.

Never knows: the core, SQLite. Sources: bits-reference 7.1 (/util version), 8 (notify commands as a hiding place).
"""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from typing import Annotated

import typer

from agent.cli_act import client_of
from agent.cli_job_text import date_text
from agent.cli_options import Json, ending, group
from agent.cli_support import COMPLETION_VARIABLE, ask, emit, out, say, table
from agent.errors import ExitCode
from agent.progress import size_text
from agent.schema import JobList

agent = group("The agent that runs for this home.")
commands = group("")


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@agent.command(name="show", epilog=ending("nearfetch agent show", [ExitCode.UNAVAILABLE]))
def show_agent(context: typer.Context, as_json: Json = False) -> None:
    """Who answers: version, process, home, group, network, and what it wants its user to know."""
    found = ask(client_of(context).about)
    if as_json:
        emit(found)
        return
    out(f"version   {found.version}, process {found.pid}")
    out(f"home      {found.home}")
    if found.group_tag is None:
        out("group     none")
    else:
        out(f"group     {found.group_tag}, this agent is {found.peer_name} ({found.peer_id})")
        out(f"peers     on port {found.peer_port or '-'} of {', '.join(found.interfaces) or 'all interfaces'}")
    out(f"network   {'there' if found.connected else 'none'}")
    out(f"jobs      {found.jobs}")
    for line in found.problems:
        say(f"problem: {line}")


@commands.command(epilog=ending("nearfetch stats --json", [ExitCode.UNAVAILABLE]))
def stats(context: typer.Context, as_json: Json = False) -> None:
    """Bytes that this agent got and gave, for ever, and with each peer."""
    found = ask(client_of(context).statistics)
    if as_json:
        emit(found)
        return
    out(f"since        {date_text(found.since)}")
    out(f"from origin  {size_text(found.bytes_from_origin)}")
    out(f"from peers   {size_text(found.bytes_from_peers)}")
    out(f"from cache   {size_text(found.bytes_from_cache)}")
    out(f"thrown away  {size_text(found.bytes_discarded)}")
    out(f"given        {size_text(found.bytes_given)}")
    out(f"completed    {found.jobs_completed} jobs, {found.files_completed} files")
    if found.by_peer:
        rows = ((peer, size_text(taken), size_text(given)) for peer, (taken, given) in found.by_peer.items())
        table(("PEER", "TAKEN", "GIVEN"), rows)


@commands.command(epilog=ending("nearfetch audit", [ExitCode.UNAVAILABLE]))
def audit(context: typer.Context, as_json: Json = False) -> None:
    """List the jobs that run a command when they are done or in ERROR.

    Such a line survives restarts and is a place to hide in (ATT&CK T1197); `run --no-notify-commands` forbids them.
    """
    client = client_of(context)
    found = [job for job in ask(lambda: client.jobs(brief=True)) if job.notify_command is not None]
    if as_json:
        emit(JobList(jobs=found, total=len(found)))
        return
    rows = ((job.id, job.owner, job.state, job.name, shlex.join(job.notify_command or [])) for job in found)
    if found:
        table(("ID", "OWNER", "STATE", "NAME", "COMMAND"), rows)
    else:
        say("no job has a notify command")


@commands.command(epilog=ending('eval "$(nearfetch completion bash)"', []))
def completion(
    shell: Annotated[Shell, typer.Argument(help="For which shell.")],
    as_json: Json = False,
) -> None:
    """Print a script that makes a shell complete commands, options and jobs on TAB.

    bash: eval it in ~/.bashrc. zsh: store it as _nearfetch in a directory of $fpath. fish: store it as
    ~/.config/fish/completions/nearfetch.fish.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="nearfetch", complete_var=COMPLETION_VARIABLE, shell=shell.value)
    if as_json:
        emit({"shell": shell, "script": script})
    else:
        out_script(script)


def out_script(script: str) -> None:
    """As it is: `out` would make its tabs and escapes harmless."""
    sys.stdout.write(script + "\n")
