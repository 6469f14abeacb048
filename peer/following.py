"""The body of a stream of news: reads it as it comes, and says what the peer has after each part of it.

Never knows: which connection carries it, what the news are used for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from peer.body import Pausable
from peer.call import bad_response, failure_of_connection, stalled
from peer.core.failure import Failure
from peer.core.newswire import NewsReader
from peer.core.state import State
from peer.core.wire import WireError
from validation.content import ContentId

SILENCE_GRACE_S = 5.0
"""A peer that is so late with its sign of life is dead."""

BUFFER_BYTES = 16 * 1024

NEWS_PER_S = 20.0
NEWS_AT_ONCE = 20
"""Whoever says more has to wait: an honest peer leaves 0.05 s between two messages (`peer.core.news`)."""
FLOOD_PAUSE_S = 0.25

Told = Callable[[State | None, ContentId], bool]
"""Hears what a peer has (None: no part in the content), and by which id it knows it, after every message, in the
loop's turn in which it came. False: that is enough."""


class Following:
    """A `Body` without an announced end."""

    def __init__(self, content_ids: tuple[ContentId, ...], told: Told, silence_s: float) -> None:
        """After `silence_s` seconds without a word it ends."""
        self.had_enough = False
        """`told` wanted no more."""
        self._content_ids, self._told, self._silence_s = content_ids, told, silence_s
        self._reader = NewsReader(len(content_ids))
        self._room = memoryview(bytearray(BUFFER_BYTES))
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._allowed = float(NEWS_AT_ONCE)
        self._transport: Pausable | None = None
        self._ended: asyncio.Future[int | Failure] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def surplus(self) -> bool:
        return self.had_enough or self._reader.surplus

    def attach(self, transport: Pausable) -> None:
        self._transport = transport
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(self._silence_s, self._listen)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) and not self._ended.done():
            self._take(bytes(data))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        if not self._ended.done():
            self._take(self._room[:nbytes])

    def lost(self, error: Exception | None) -> None:
        self.abort(failure_of_connection(error))

    def abort(self, failure: Failure) -> None:
        self._end(failure)

    async def done(self) -> int | Failure:
        """0 when the stream came to its end, or why it did not. Ends with the peer's silence at the latest."""
        return await asyncio.shield(self._ended)

    def _take(self, data: bytes | memoryview) -> None:
        now = self._loop.time()
        self._allowed = min(NEWS_AT_ONCE, self._allowed + (now - self._heard_at) * NEWS_PER_S) - 1
        self._heard_at = now
        try:
            said = self._reader.feed(data)
        except WireError as error:
            self._end(bad_response(str(error)))
            return
        if said and not self._told(self._reader.state, self._content_ids[self._reader.of]):
            self.had_enough = True
            self._end(0)
        elif self._reader.ended:
            self._end(0)
        elif self._allowed < 0 and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later(FLOOD_PAUSE_S, self._transport.resume_reading)

    def _listen(self) -> None:
        """Whether there was a word in time."""
        left = self._heard_at + self._silence_s - self._loop.time()
        if left <= 0:
            self._end(stalled(f"no sign of life for {self._silence_s:g} s"))
        else:
            self._timer = self._loop.call_later(left, self._listen)

    def _end(self, outcome: int | Failure) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._ended.done():
            self._ended.set_result(outcome)
