"""What the commands declare in the same way: `--home`, `--json`, and how a help text ends.

Never knows: what the commands do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@dataclass(slots=True)
class Globals:
    """The options before the command."""

    home: Path | None = None


def home_of(context: typer.Context) -> Path | None:
    """The value of `--home`."""
    found = context.find_object(Globals)
    return None if found is None else found.home


_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.UNEXPECTED: "something else failed",
    ExitCode.USAGE: "the command line makes no sense",
    ExitCode.NOT_FOUND: "no such job or file",
    ExitCode.STATE: "the job's state does not allow it",
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
    lines = [f"  {int(code):3}  {_MEANINGS[code]}" for code in sorted((ExitCode.OK, ExitCode.USAGE, *codes))]
    # The backspace keeps the formatter from joining the lines of a paragraph.
    examples = "\n".join(f"  {line}" for line in example.splitlines())
    return "\b\nExample:\n" + examples + "\n\n\b\nExit codes:\n" + "\n".join(lines)


JOB_CODES = (ExitCode.NOT_FOUND, ExitCode.STATE, ExitCode.UNAVAILABLE)
"""What any command about a job may exit with."""
