"""The command line inside the test's own process: what it printed, and its exit code; and an origin beside it.

    console = Console(home, capsys)
    console.run("job", "list") == 0; console.out; console.err
    console.json("job", "show", job)["state"]

Never knows: anything of the product but `invoke`, the function behind the console entry point.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import invoke
from tests.support.origin import Origin

START_S = 10.0


class Console:
    """One home, and what a command line for it printed."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home, self._capture = home, capture
        self.code = 0
        self.out = self.err = ""

    def run(self, *arguments: str | Path, stdin: str | None = None) -> int:
        """One command line; its exit code."""
        self._capture.readouterr()
        with self._stdin(stdin):
            self.code = invoke(["--home", str(self.home), *map(str, arguments)])
        self.out, self.err = self._capture.readouterr()
        return self.code

    def ok(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """What a command line that succeeds printed, without the last line break."""
        assert self.run(*arguments, stdin=stdin) == 0, self.err
        return self.out.removesuffix("\n")

    def json(self, *arguments: str | Path, stdin: str | None = None) -> Any:
        """The one document on standard output."""
        self.run(*arguments, "--json", stdin=stdin)
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    def refused(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """The one line on standard error of a command line that fails."""
        assert self.run(*arguments, stdin=stdin) != 0, self.out
        assert self.err.startswith("nearfetch: ")
        assert self.err.count("\n") == 1, self.err
        return self.err.removesuffix("\n")

    @staticmethod
    @contextlib.contextmanager
    def _stdin(text: str | None) -> Iterator[None]:
        """A pipe with this text in it; nothing without one."""
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO((text or "").encode()))
        try:
            yield
        finally:
            sys.stdin = before


@contextlib.contextmanager
def origin_beside() -> Iterator[Origin]:
    """An origin in a thread of its own, for tests that have no event loop."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Origin] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with Origin() as origin:
            found.append(origin)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(START_S)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
        loop.close()
