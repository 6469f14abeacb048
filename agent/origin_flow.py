"""How fast one body is read: as fast as buffers are free, and as a limiter allows.

Reading stops when bytes were taken that the limiter has not allowed yet; the origin notices by its full TCP window.
Bytes that lie in the kernel by then wait there.

Never knows: HTTP, rates, who shares a limiter.
"""

from __future__ import annotations

import asyncio
import time

from agent.throttle import Limiter
from peer.body import BodyReceiver, Pausable
from peer.core.failure import LOCAL, Failure

_FIRST = 16 * 1024
_LEAST, _MOST = 4 * 1024, 256 * 1024
_SHORT_S, _LONG_S = 0.02, 0.1
"""Bytes that are taken at once: so many that the limiter is asked ten to fifty times a second."""


class Flow:
    """The reading of one body: stands between the receiver and its transport, and knows why reading rests."""

    def __init__(self, transport: Pausable, receiver: BodyReceiver, limiter: Limiter) -> None:
        self._transport: Pausable | None = transport
        self._receiver = receiver
        self._limiter = limiter
        self._full = False
        self._owed = 0
        self._most = _FIRST
        self._wake = asyncio.Event()
        self._paid = asyncio.Event()
        self._paid.set()

    def is_closing(self) -> bool:
        """As every transport has it."""
        return self._transport is None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """For the receiver: no buffer is free."""
        self._full = True
        self._turn()

    def resume_reading(self) -> None:
        """For the receiver: a buffer is free."""
        self._full = False
        self._turn()

    def room(self, view: memoryview) -> memoryview:
        """The part of a buffer that may be filled at once."""
        return view[: self._most]

    def took(self, count: int) -> None:
        """So many bytes were read. Reading goes on when `run` got them allowed."""
        if count > 0:
            self._owed += count
            self._paid.clear()
            self._receiver.held_back = True
            self._wake.set()
            self._turn()

    async def run(self) -> None:
        """Pay for what was taken, until cancelled. No limit to the waiting: a limiter may forbid all for hours."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            count, self._owed = self._owed, 0
            began = time.monotonic()
            await self._limiter.take(count)
            self._adapt(time.monotonic() - began)
            if self._owed == 0:
                self._receiver.held_back = False
                self._paid.set()
                self._turn()

    async def settle(self, outcome: int | Failure) -> None:
        """Return when everything is paid for: a short body must not get past the limiter, nor one that is cut off.
        What went wrong here is told at once."""
        if not isinstance(outcome, Failure) or outcome.kind not in LOCAL:
            await self._paid.wait()

    def let_go(self) -> None:
        """The transport is somebody else's from now on. It reads."""
        transport, self._transport = self._transport, None
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    def _turn(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._full or not self._paid.is_set():
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _adapt(self, waited_s: float) -> None:
        if waited_s < _SHORT_S:
            self._most = min(_MOST, self._most * 2)
        elif waited_s > _LONG_S:
            self._most = max(_LEAST, self._most // 2)
