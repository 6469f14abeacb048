"""The console entry point: one command line in, one exit code out.

Every known error ends in one line, `nearfetch: MESSAGE (CODE)`, and in the exit code of its class (errors.py);
with `--json` also in one document on standard output.
Never knows: the core, SQLite, peers; what the commands are.
"""

from __future__ import annotations

import os
import sys
import traceback

from agent.cli_support import COMPLETION_VARIABLE, complain, emit, error_document, known_error
from agent.errors import AgentError, ExitCode, UsageError
from agent.installation import check_one_piece

PIPE_CLOSED = 141
"""128 + SIGPIPE: nobody reads what we print. As the shell's own tools."""


def main() -> None:
    """Console entry point: never returns."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Carry out one command line; the exit code."""
    try:
        check_one_piece()
        code = _carry_out(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python flushes at its end goes nowhere
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except Exception as found:  # noqa: BLE001  # the top: whatever it is ends in one line and an exit code
        error = _understood(found)
    else:
        return code
    complain(error)
    if "--json" in arguments:
        _emit_error(error, arguments)
    return int(error.exit_code)


def _carry_out(arguments: list[str]) -> int:
    completing = COMPLETION_VARIABLE in os.environ
    code = None if completing else _short_cut(arguments)
    if code is not None:
        return code
    from agent.cli_app import command  # typer: 0.3 s

    if completing:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        ended = command()(args=arguments or ["--help"], prog_name="nearfetch", standalone_mode=False)
    except SystemExit as left:
        if completing:  # a shell asked what could come next, and was told
            return int(left.code or 0)
        raise BrokenPipeError from None  # what typer makes of one; it exits for no other reason here
    return int(ended) if isinstance(ended, int) else int(ExitCode.OK)


def _short_cut(arguments: list[str]) -> int | None:
    """Carry out what needs no typer; None for the rest."""
    from agent import cli_fast

    match _command(arguments):
        case "get":
            quick = cli_fast.plain_get(arguments)
            if quick is not None:
                from agent.cli_get import get

                return get(quick.options, quick.home, {"interface": quick.interfaces})
        case "job":
            plain = cli_fast.plain_list(arguments)
            if plain is not None:
                from agent.cli_listing import list_jobs

                list_jobs(plain.options, plain.home)
                return int(ExitCode.OK)
        case "run":
            running = cli_fast.plain_run(arguments)
            if running is not None:
                from agent.cli_run import run_agent

                run_agent(running.home, running.flags, as_json=running.json)
                return int(ExitCode.OK)
    return None


def _understood(found: Exception) -> AgentError:
    if "typer" in sys.modules:
        import typer

        # Typer's ClickException, whichever package it comes from: every mistake on the command line is one.
        mistake: type[Exception] = typer.BadParameter.__mro__[2]
        if isinstance(found, mistake):
            context = getattr(found, "ctx", None)
            path = "nearfetch" if context is None else context.command_path
            message = str(found.format_message()).strip().rstrip(".?")  # type: ignore[attr-defined]
            return UsageError(f"{message}; see {path} --help")
    known = known_error(found)
    if known is None:
        traceback.print_exception(found)
        known = AgentError(f"a bug, please report it: {found!r}")
    return known


def _emit_error(error: AgentError, arguments: list[str]) -> None:
    """`get --json` prints its own document whatever happens."""
    if _command(arguments) == "get":
        from agent.cli_get import GetReport

        emit(GetReport(error=error_document(error)))
    else:
        emit({"error": error_document(error)})


def _command(arguments: list[str]) -> str | None:
    """The first word that is neither an option nor the value of `--home`."""
    words = iter(arguments)
    for word in words:
        if word == "--home":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


if __name__ == "__main__":
    main()
