"""Questions that go on for long (streams of news), asked anew when what they say is true no more.

Never knows: what is asked, of whom, why it is to be asked anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

GRACE_S = 0.3
"""What is found out within this time is said in one question: each that is asked anew costs a connection."""

T = TypeVar("T")


class Questions:
    """The questions of one agent that wait for an answer. Everything happens on one loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Timeout] = set()

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` returns. It is cancelled and called again after `ask_anew`, if that takes it too long."""
        while True:
            scope = asyncio.timeout(None)
            try:
                async with scope:
                    self._waiting.add(scope)
                    return await ask()
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self._waiting.discard(scope)

    def ask_anew(self) -> None:
        """What was asked until now has to be asked in other words, soon."""
        at = asyncio.get_running_loop().time() + GRACE_S
        for scope in self._waiting:
            if scope.when() is None:
                scope.reschedule(at)
