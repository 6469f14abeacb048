"""Calls a callback for every delivery, and answers how it went: the listener's side of BITS' notifications.

Never knows: which notice comes when, and when again. Source: bits-reference 2.2.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable

import msgspec

from agent.client_http import Request, Wire
from agent.client_stream import Feed
from agent.errors import AgentError, AgentUnavailableError, NotFoundError
from agent.schema import DeliveryAnswer, DeliveryDocument, Done

log = logging.getLogger(__name__)

Callback = Callable[[DeliveryDocument], object]
"""Plain, or one whose result is awaited."""

AT_ONCE = 4
"""Callbacks that run at the same time, as in BITS; those of one job come one after the other."""


class Listening:
    """One listener. `run` it once."""

    def __init__(self, wire: Wire, target: str, callback: Callback, *, patience_s: float | None) -> None:
        """`target`: where deliveries come from; `patience_s`: how long to look for an agent that has stopped."""
        self._wire, self._callback = wire, callback
        self._feed = Feed(wire, lambda last_id: Request(method="GET", target=target), patience_s=patience_s)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}
        """Of each job that has any."""
        self._scope: asyncio.Timeout | None = None
        self._left = False

    def leave(self) -> None:
        """Begin no more callbacks; `run` returns when those under way have ended and been answered."""
        self._left = True
        self._end_when_idle()

    async def run(self) -> None:
        """Until `leave`. Raises what the agent refuses with, and AgentUnavailableError when it stays away; then,
        and when this is cancelled, the callbacks under way are cancelled too."""
        failure: AgentError | None = None
        async with asyncio.TaskGroup() as group:
            try:
                await self._read(group)
            except AgentError as error:
                failure = error
                for task in self._tasks:
                    task.cancel()
        if failure is not None:
            raise failure

    async def _read(self, group: asyncio.TaskGroup) -> None:
        try:
            async with asyncio.timeout(None) as self._scope:
                self._end_when_idle()
                while True:
                    event = await self._feed.next()
                    if event is not None and event.kind == "delivery" and not self._left:
                        self._start(group, _delivery(event.data))
        except TimeoutError:
            if not self._left:
                raise
        finally:
            self._scope = None
            self._feed.close()

    def _end_when_idle(self) -> None:
        """The stream stays open until the last answer: whoever closes it is no listener any more."""
        if self._left and not self._tasks and self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _start(self, group: asyncio.TaskGroup, delivery: DeliveryDocument) -> None:
        job = delivery.job.id
        task = group.create_task(self._deliver(delivery, self._feed.connection, self._last.get(job)))
        self._tasks.add(task)
        self._last[job] = task
        task.add_done_callback(lambda done: self._ended(job, done))

    def _ended(self, job: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._last.get(job) is task:
            del self._last[job]
        self._end_when_idle()

    async def _deliver(
        self, delivery: DeliveryDocument, connection: int, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        async with self._room:
            if not self._current(connection):
                return  # the agent that comes next tells it again
            ok = await self._call(delivery)
            if self._current(connection):
                await self._answer(delivery, ok)

    def _current(self, connection: int) -> bool:
        """The agent that sent it is still there. Its number could mean another delivery to the next one."""
        return self._feed.connected and self._feed.connection == connection

    async def _call(self, delivery: DeliveryDocument) -> bool:
        try:
            result = self._callback(delivery)
            if inspect.isawaitable(result):
                result = await result
        except Exception:  # the top of the user's code: the agent hears of it and calls again
            log.exception("the callback failed for %s of job %s", delivery.notice, delivery.job.id)
            return False
        return result is not False

    async def _answer(self, delivery: DeliveryDocument, ok: bool) -> None:
        target = f"/deliveries/{delivery.delivery}"
        try:
            await self._wire.call(Request(method="POST", target=target, body=DeliveryAnswer(ok=ok)), Done)
        except (AgentUnavailableError, NotFoundError) as error:
            log.debug("%s of job %s may come again: %s", delivery.notice, delivery.job.id, error)
        except AgentError as error:
            log.warning("%s of job %s cannot be answered: %s", delivery.notice, delivery.job.id, error)


def _delivery(data: str) -> DeliveryDocument:
    try:
        return msgspec.json.decode(data, type=DeliveryDocument)
    except msgspec.DecodeError as error:
        raise AgentError(f"the agent's delivery cannot be understood: {error}") from error
