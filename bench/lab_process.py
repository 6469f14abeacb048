"""A helper on a host of the laboratory, that is asked in lines and answers in JSON lines (node.py and its like).

Never knows: what the helper does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from bench.agents import BenchError, environment

ANSWER_TIMEOUT_S = 20.0
END_TIMEOUT_S = 10.0
LAST_WORDS = 300


class HelperError(BenchError):
    """The helper ended or does not answer."""


class Helper:
    """One process. `start` it, and `stop` it however things end."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> dict[str, object]:
        """Start it; the first document that it says. Raises HelperError."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment(),
            )
        return await self.hear(ANSWER_TIMEOUT_S)

    def tell(self, wish: str) -> None:
        """Say one line. Raises HelperError."""
        assert self._process is not None
        assert self._process.stdin is not None
        if self._process.returncode is not None:
            raise HelperError(self._epitaph())
        self._process.stdin.write(f"{wish}\n".encode())

    async def hear(self, timeout_s: float | None) -> dict[str, object]:
        """The next document; None: however long it takes. Raises HelperError."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
                if not line:
                    await self._process.wait()
        except TimeoutError as error:
            raise HelperError(f"{self.name} does not answer within {timeout_s:g} s") from error
        if not line:
            raise HelperError(self._epitaph())
        document: dict[str, object] = json.loads(line)
        return document

    async def ask(self, wish: str) -> dict[str, object]:
        """One line and its answer; may be called by several at once. Raises HelperError."""
        async with self._turn:
            self.tell(wish)
            return await self.hear(ANSWER_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Close its standard input, and kill it when that does not end it. Harmless when it has ended."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _epitaph(self) -> str:
        code = None if self._process is None else self._process.returncode
        try:
            words = " ".join(self._log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:].split())
        except OSError:
            words = ""
        return f"{self.name} ended (exit code {code}){': ' if words else ''}{words}"
