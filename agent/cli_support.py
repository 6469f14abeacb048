"""What every command shares: how results and errors are printed.

Results go to standard output, everything else to standard error. With `--json` a result is one document on one
line, and so is an error: `{"error": {"code", "message", "context"}}`.
Never knows: how the command line is parsed (typer takes longer to load than a small download), the core, peers.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from agent.errors import AgentError, ConfigError, UsageError
from agent.schema import ErrorDocument

T = TypeVar("T")

COMPLETION_VARIABLE = "_NEARFETCH_COMPLETE"
"""In the environment when a shell asks what could come next."""


def emit(document: object) -> None:
    """One JSON document on a line of standard output."""
    sys.stdout.write(msgspec.json.encode(document).decode("utf-8") + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line for people, on standard error, with control characters made harmless."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def out(text: str) -> None:
    """A line of the result, on standard output."""
    sys.stdout.write(printable(text) + "\n")


def printable(text: str) -> str:
    """Names come from URLs and other machines: nothing in them may move the cursor or forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns of text on standard output, aligned, readable when piped to a file; ten thousand rows in no time."""
    lines = [tuple(head), *map(_harmless, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:<{width}}}" for width in widths).format
    sys.stdout.write("".join([form(*line).rstrip() + "\n" for line in lines]))


def _harmless(row: Sequence[str]) -> Sequence[str]:
    return row if "".join(row).isprintable() else [printable(cell) for cell in row]


def complain(error: AgentError) -> None:
    """The one line a person gets: `nearfetch: MESSAGE (CODE)`."""
    say(f"nearfetch: {error} ({error.code})")


def error_document(error: AgentError) -> ErrorDocument:
    """The same for a program."""
    return ErrorDocument(code=error.code, message=str(error), context=error.context)


def known_error(error: BaseException) -> AgentError | None:
    """What the packages below raise, as an error of ours; None when it is a bug."""
    if isinstance(error, AgentError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((known for inner in error.exceptions if (known := known_error(inner)) is not None), None)
    from peer.errors import PeerError  # only when something went wrong
    from validation.errors import ValidationError

    if isinstance(error, PeerError):
        return ConfigError(str(error))
    return UsageError(str(error)) if isinstance(error, ValidationError) else None


def ask(call: Callable[[], Awaitable[T]]) -> T:
    """Run one conversation with the agent to its end."""
    import asyncio  # 0.08 s that `--help` need not pay

    async def main() -> T:
        return await call()

    return asyncio.run(main())
