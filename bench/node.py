"""What runs on a host of the laboratory beside the agents: the origin, and a starter for one command.

Speaks lines: each line of standard input is a wish, each line of standard output a JSON document. Ends when its
standard input does, with everything it started; Ctrl-C is for the bench, which then closes that pipe.

`python -m bench.node origin ADDRESS FILE...`: says `urls`; for each `now` or `settled`, what went out so far.
`python -m bench.node run [--marker FILE]... -- COMMAND`: says `ready`; after `go`, `done` or `failed`; for `usage`,
what it cost.

A command is done when it ends with 0 or, with markers, as soon as all those files are there; it then runs on.
Never knows: which system it starts, what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.origin import Origin

LOOK_S = 0.02
END_TIMEOUT_S = 5.0
LAST_WORDS = 300


def say(document: Mapping[str, object]) -> None:
    """One line for the bench."""
    print(json.dumps(document), flush=True)


@dataclass(slots=True)
class Wishes:
    """Standard input, line by line, without ever waiting longer than asked."""

    descriptor: int = 0
    _pending: bytes = b""
    _lines: list[str] = field(default_factory=list)
    ended: bool = False

    def next(self, timeout_s: float | None) -> str | None:
        """The next line; None after so many seconds (None: no limit), or at the end (`ended`)."""
        while not self._lines and not self.ended:
            ready, _, _ = select.select([self.descriptor], [], [], timeout_s)
            if not ready:
                return None
            data = os.read(self.descriptor, 65536)
            self.ended = not data
            *whole, self._pending = (self._pending + data).split(b"\n")
            self._lines += [line.decode() for line in whole]
        return self._lines.pop(0) if self._lines else None


def serve(address: str, files: list[Path]) -> None:
    """Be the origin until standard input ends."""
    wishes = Wishes()
    with Origin(address) as origin:
        say({"urls": [origin.publish(file) for file in files]})
        while (wish := wishes.next(None)) is not None:
            if wish == "settled":
                origin.sent()  # waits for answers that are under way
            clients = origin.by_client()
            say({"sent": sum(clients.values()), "clients": clients})


class Starter:
    """Runs one command, once it is told to."""

    def __init__(self, command: list[str], markers: list[Path]) -> None:
        self._command = command
        self._markers = markers
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_s = 0.0
        self._peak = 0

    def run(self, wishes: Wishes) -> None:
        """Until standard input ends."""
        say({"ready": True})
        if wishes.next(None) != "go":
            return
        with tempfile.TemporaryFile() as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                reported = False
                while not wishes.ended:
                    reported = reported or self._look(output.fileno())
                    if wishes.next(None if reported else LOOK_S) == "usage":
                        self._count()
                        say({"cpu_s": self._cpu_s, "peak_memory": self._peak})
            finally:
                self._end()

    def _look(self, output: int) -> bool:
        """Whether it has been said how it ended."""
        assert self._process is not None
        self._count()
        # Not waited for before it was counted: it keeps its figures until then.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if self._markers and all(marker.exists() for marker in self._markers):
            say({"done": time.monotonic()})
            return True
        if ended is None:
            return False
        self._count()
        code = self._process.wait()
        if code == 0 and not self._markers:
            say({"done": time.monotonic()})
        else:
            say({"failed": f"{Path(self._command[0]).name} ended with exit code {code}: {_last_words(output)}"})
        return True

    def _count(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            with contextlib.suppress(OSError):
                self._cpu_s = machine.cpu_seconds(self._process.pid)
                self._peak = max(self._peak, machine.peak_memory(self._process.pid))

    def _end(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(output: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, LAST_WORDS, max(0, size - LAST_WORDS)).decode(errors="replace")
    return " ".join(text.split()) or "it said nothing"


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.node")
    parts = parser.add_subparsers(dest="part", required=True)
    origin = parts.add_parser("origin")
    origin.add_argument("address")
    origin.add_argument("files", nargs="+", type=Path)
    starter = parts.add_parser("run")
    starter.add_argument("--marker", action="append", default=[], type=Path)
    starter.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if given.part == "origin":
        serve(given.address, given.files)
    else:
        Starter(given.command, given.marker).run(Wishes())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
