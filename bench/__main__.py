"""`python -m bench demo|micro|loopback|jobs|sim|lab`: finds the command and hands it the rest of the line.

A command is a module with `main(arguments) -> exit code`; it is imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

COMMANDS = {
    "demo": "the main job on this machine alone: one origin, three agents, a liar, a wrong origin",
    "micro": "speed of the parts: digests, writes, parsing, vouchers",
    "jobs": "ten thousand jobs, each with one file, over three `kill -9`: none lost, all right",
    "loopback": "nearfetch beside curl (and aria2c) against the same nginx, alternating",
    "sim": "the scenarios of `lab` with up to 100,000 agents, in virtual time; no root",
    "lab": "nearfetch beside libtorrent, aria2 and curl on many hosts: network namespaces, shaped links; root",
}
USAGE, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


def usage() -> str:
    """What there is."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: python -m bench COMMAND [--json] [OPTIONS]", "", *lines, "", "COMMAND --help says more"]
    )


def main(arguments: list[str]) -> int:
    """The exit code. Ctrl-C, SIGTERM and SIGHUP end a command in the same orderly way."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else USAGE
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"bench: there is no command {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return USAGE
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        code = importlib.import_module(f"bench.{name}").main(rest)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python flushes at its end goes nowhere
        return PIPE_CLOSED
    return int(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
