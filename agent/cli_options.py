"""What the commands declare in the same way: `--home`, `--json`, JOB, and how a help text ends.

Never knows: what the commands do.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.errors import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

Given = Mapping[str, Any]
"""What was given for the options of a table; None for what was not."""


@dataclass(slots=True)
class Globals:
    """The options before the command."""

    home: Path | None = None


def home_of(context: typer.Context) -> Path | None:
    """The value of `--home`."""
    found = context.find_object(Globals)
    return None if found is None else found.home


def complete_jobs(context: typer.Context, incomplete: str) -> list[str]:
    """Names and ids for the shell, from the agent that runs; nothing when there is none."""
    from agent.cli_support import ask
    from agent.client import AgentClient
    from agent.errors import AgentError

    try:
        client = AgentClient.connect(home_of(context), timeout_s=1.0)
        jobs = ask(lambda: client.jobs(brief=True))
    except AgentError:
        return []
    words = [job.name for job in jobs if " " not in job.name] + [job.id for job in jobs]
    return [word for word in words if word.startswith(incomplete)]


JobWord = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Id, first characters of it, or name.", autocompletion=complete_jobs),
]
JobWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB...", help="Ids, first characters, or names.", autocompletion=complete_jobs),
]
FileIndex = Annotated[int, typer.Argument(min=0, metavar="INDEX", help="Number of the file in the job, from 0.")]


def with_options(table: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a table beside its own. It gets them as one mapping, `given`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in table.items()
        ]
        first = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own if item.name not in _LAST]
        last = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own if item.name == "as_json"]

        @functools.wraps(command)
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in table}
            command(**values, given=given)

        call.__signature__ = inspect.Signature([*first, *extra, *last])  # type: ignore[attr-defined]
        return call

    return decorate


_LAST = ("given", "as_json")

_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.UNEXPECTED: "something else failed",
    ExitCode.USAGE: "the command line makes no sense",
    ExitCode.NOT_FOUND: "no such job, file, record or peer",
    ExitCode.STATE: "the job's state, or a policy of the agent, does not allow it",
    ExitCode.NETWORK: "the origin cannot be reached, or the connection broke",
    ExitCode.HTTP: "the origin refused (HTTP status)",
    ExitCode.TLS: "TLS failed, or a certificate is not valid",
    ExitCode.RESPONSE: "the origin's answer makes no sense",
    ExitCode.VALIDATION: "a validator rejected the content",
    ExitCode.VALIDATOR: "a validator could not do its work",
    ExitCode.LOCAL_FILE: "the destination cannot be used",
    ExitCode.DISK_FULL: "no space left",
    ExitCode.UNAVAILABLE: "no agent runs for this home",
    ExitCode.HOME_IN_USE: "another agent holds this home",
    ExitCode.CONFIG: "configuration, group key or identity cannot be used",
    ExitCode.INTERRUPTED: "interrupted",
}


def ending(example: str, codes: Iterable[ExitCode]) -> str:
    """The end of a help text: an example, and the exit codes."""
    lines = [f"  {int(code):3}  {_MEANINGS[code]}" for code in sorted({ExitCode.OK, ExitCode.USAGE, *codes})]
    # The backspace keeps the formatter from joining the lines of a paragraph.
    examples = "\n".join(f"  {line}" for line in example.splitlines())
    return "\b\nExample:\n" + examples + "\n\n\b\nExit codes:\n" + "\n".join(lines)


def group(help_text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(help=help_text, rich_markup_mode=None, add_completion=False)


JOB_CODES = (ExitCode.NOT_FOUND, ExitCode.STATE, ExitCode.UNAVAILABLE)
"""What any command about a job may exit with."""

FAILURE_CODES = (
    ExitCode.NETWORK,
    ExitCode.HTTP,
    ExitCode.TLS,
    ExitCode.RESPONSE,
    ExitCode.VALIDATION,
    ExitCode.VALIDATOR,
    ExitCode.LOCAL_FILE,
    ExitCode.DISK_FULL,
)
"""Why a job may be in ERROR."""
