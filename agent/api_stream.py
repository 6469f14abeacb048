"""Requests that last: long polls, and streams of server-sent events.

Their number is bounded, they end at once when the agent stops, and a reader that does not read is dropped once the
buffers of its connection (64 KiB here, as much in the kernel) are full for too long. Never knows: what is told.

Sources: HTML Living Standard, "Server-sent events"; RFC 9112 §7.1 (a stream cut off lacks its last chunk).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import msgspec
from aiohttp import web

from agent.errors import AgentUnavailableError
from agent.schema import Document

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
RECONNECT_MS = 1000
"""When a browser's EventSource tries again after the agent went away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one agent bears from its own user."""

    connections: int = 256
    """A process may have 1024 files open where nobody changed that; downloads need most of them."""
    lasting: int = 192
    """Long polls and streams; the rest of the connections is for requests that pass."""
    idle_s: float = 10.0
    """A connection without a complete request."""
    body_timeout_s: float = 30.0
    linger_s: float = 2.0
    """How long the rest of a refused body is read, so that its sender gets to see the answer."""
    heartbeat_s: float = 15.0
    slow_reader_s: float = 30.0
    gone_s: float = 1.0
    """How soon a listener that went away is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event of a stream."""

    event: str | None
    """None: nothing is told but the number."""
    data: Document | None
    number: int | None = None
    """What the listener names when it comes back; None: it goes on naming the one before."""

    def encode(self) -> bytes:
        """As it is on the wire: JSON has no line breaks, so `data` is one line."""
        number = b"" if self.number is None else b"id: %d\n" % self.number
        if self.event is None:
            return number + b"\n"
        return number + b"event: %b\ndata: %b\n\n" % (self.event.encode("ascii"), msgspec.json.encode(self.data))


class Lasting:
    """Every request that lasts, with what ends it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._scopes: set[asyncio.Timeout] = set()
        self._stopping = False

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[asyncio.Timeout]:
        """The body ends with TimeoutError when the agent stops, or by `end_now`. Raises AgentUnavailableError when
        there are too many, or it stops already."""
        if self._stopping:
            raise AgentUnavailableError("the agent is stopping")
        if len(self._scopes) >= self._limits.lasting:
            raise AgentUnavailableError(
                f"{self._limits.lasting} listeners and waiting requests are open already: close some"
            )
        async with asyncio.timeout(None) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    async def end(self, app: web.Application) -> None:
        """At shutdown: nobody has to wait for what will not come."""
        self._stopping = True
        for scope in self._scopes:
            end_now(scope)

    async def stream(self, request: web.Request, items: AsyncIterator[Told]) -> web.StreamResponse:
        """Tell everything, until the listener or the agent has had enough."""
        response = web.StreamResponse(
            headers={"Content-Type": f"{EVENT_STREAM}; charset=utf-8", "Cache-Control": "no-store"}
        )
        try:
            async with self.scope() as scope:
                await response.prepare(request)
                await _Listener(request, response, scope, self._limits).tell(items)
        except TimeoutError:
            if not response.prepared:
                raise AgentUnavailableError("the agent is stopping") from None
        except (
            Exception
        ):  # the top of the request's task; the answer has begun, so all that is left is to cut it off
            if not response.prepared:
                raise
            log.exception("%s %s failed", request.method, request.raw_path)
            _abort(request)
        return response


@dataclass(frozen=True, slots=True)
class _Listener:
    """One stream."""

    request: web.Request
    response: web.StreamResponse
    scope: asyncio.Timeout
    limits: Limits

    async def tell(self, items: AsyncIterator[Told]) -> None:
        async with _closing(items), asyncio.TaskGroup() as group:
            group.create_task(self._stay_alive())
            await self._write(b"retry: %d\n\n" % RECONNECT_MS)
            async for item in items:
                if not await self._write(item.encode()):
                    break
            end_now(self.scope)

    async def _stay_alive(self) -> None:
        """Comments, so that the other end and everything between knows that we live; and a look whether it does."""
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + self.limits.heartbeat_s
        while (transport := self.request.transport) is not None and not transport.is_closing():
            await asyncio.sleep(min(self.limits.gone_s, self.limits.heartbeat_s))
            if loop.time() >= beat_at:
                beat_at = loop.time() + self.limits.heartbeat_s
                await self._write(b": alive\n\n")
        end_now(self.scope)

    async def _write(self, data: bytes) -> bool:
        """False: nobody reads any more, and the stream ends."""
        try:
            async with asyncio.timeout(self.limits.slow_reader_s):
                await self.response.write(data)
        except TimeoutError:
            log.warning("a listener that does not read was dropped")
        except ConnectionError:
            pass
        else:
            return True
        _abort(self.request)
        end_now(self.scope)
        return False


def end_now(scope: asyncio.Timeout) -> None:
    """Let the body of this scope end with TimeoutError. Repeating it is safe."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@contextlib.asynccontextmanager
async def _closing(items: AsyncIterator[Told]) -> AsyncIterator[None]:
    """A generator that is left in the middle tidies up now, not when it is collected."""
    try:
        yield
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
