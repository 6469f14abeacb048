"""The same library without `await`: an `AgentClient` on an event loop in a thread of its own.

    with SyncClient.connect() as client:
        job = client.create_job(NewJob(name="images", files=[NewFile(url=url, path="/data/disk.img")]))
        client.resume(job.id)
        if client.wait(job.id).state == "TRANSFERRED":
            client.complete(job.id)

Nothing is done here that AgentClient does not do: each method is made from the one of the same name, with its types
and its documentation; a test compares the lists. Never knows: what any of them does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from agent.client import ANSWER_TIMEOUT_S, PATIENCE_S, AgentClient, delivery_target
from agent.client_listen import Listening
from agent.errors import AgentError, UsageError
from agent.schema import DeliveryDocument

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

STOP_S = 5.0
"""For callbacks that are under way, and for the loop, to end."""


class _Background:
    """One event loop in one daemon thread, from the first use until `close`, or until nobody has it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None
        self._closed = False

    def start(self, make: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        """Run a coroutine there. Raises UsageError when it is closed."""
        with self._lock:
            if self._closed:
                raise UsageError("this client is closed")
            loop = self._loop or self._open()
            return asyncio.run_coroutine_threadsafe(make(), loop)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run it to its end. Whatever interrupts the waiting cancels it."""
        future = self.start(make)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise UsageError("this client was closed") from None
        finally:
            future.cancel()

    def call(self, function: Callable[[], object]) -> None:
        """Let the loop call this soon; nothing when there is no loop."""
        with self._lock:
            if self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """End everything that runs there. Repeating it is safe."""
        with self._lock:
            self._closed, end = True, self._end
        if end is not None:
            end()

    def _open(self) -> asyncio.AbstractEventLoop:
        ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = (
            concurrent.futures.Future()
        )
        thread = threading.Thread(target=_serve, args=(ready,), name="nearfetch-client", daemon=True)
        thread.start()
        self._loop, stop = ready.result()
        self._end = weakref.finalize(self, _end, self._loop, stop, thread)
        return self._loop


def _serve(ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    with asyncio.Runner() as runner:
        stop = asyncio.Event()
        ready.set_result((runner.get_loop(), stop))
        runner.run(_until(stop))


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(stop.set)
    if thread is not threading.current_thread():
        thread.join(STOP_S)


class SyncIterator(Generic[T]):
    """What an asynchronous iterator yields, for a plain loop. `close` ends it, also from another thread; leaving a
    `with` block does so too."""

    def __init__(self, background: _Background, items: AsyncGenerator[T, None]) -> None:
        self._background, self._items = background, items
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[Any] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            found = self._background.run(self._next)
        except UsageError:
            if self._closed:
                raise StopIteration from None
            raise
        if not found:
            raise StopIteration
        return found[0]

    def close(self) -> None:
        """The loop ends, and what it held is given back. Repeating it is safe."""
        self._closed = True
        with contextlib.suppress(UsageError):  # the client is closed, and everything with it
            self._background.run(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _next(self) -> list[T]:
        async with self._turn:
            if self._closed:
                return []
            self._waiting = asyncio.current_task()
            try:
                return [await anext(self._items)]
            except StopAsyncIteration:
                return []
            finally:
                self._waiting = None

    async def _close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        async with self._turn:
            await self._items.aclose()


class Listener:
    """A callback that is called in threads, until `stop`; leaving a `with` block stops it and waits."""

    def __init__(self, background: _Background, listening: Listening) -> None:
        self._background, self._listening = background, listening
        self._ended = background.start(listening.run)
        self._ended.add_done_callback(_report)

    @property
    def running(self) -> bool:
        """It still takes deliveries, or a callback is still under way."""
        return not self._ended.done()

    def stop(self) -> None:
        """Begin no more callbacks. Does not wait, so a callback may stop its own listener; repeating it is safe."""
        self._background.call(self._listening.leave)

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended. Raises TimeoutError, and the AgentError that ended it."""
        try:
            self._ended.result(timeout_s)
        except concurrent.futures.CancelledError:
            return  # the client was closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        with contextlib.suppress(AgentError, TimeoutError):  # an error is logged; a callback may take longer
            self.wait(STOP_S)


def _report(ended: concurrent.futures.Future[None]) -> None:
    if not ended.cancelled() and (error := ended.exception()) is not None:
        log.error("the listener ended: %s", error)


def _blocking(
    method: Callable[Concatenate[AgentClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._background.run(lambda: method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AgentClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[SyncClient, P], SyncIterator[T]]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> SyncIterator[T]:
        return SyncIterator(self._background, method(self._client, *args, **kwargs))

    return call


class SyncClient:
    """A client of one agent, for programs without an event loop; any number of threads may share it.

    Its loop runs in a daemon thread from the first call to `close`. The methods, what they raise and the settings
    are those of AgentClient; iterators are plain ones with `close`, and Ctrl-C ends a call that waits.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        self._client = AgentClient(socket, timeout_s=timeout_s, patience_s=patience_s)
        self._background = _Background()

    @classmethod
    def connect(
        cls,
        home: str | os.PathLike[str] | None = None,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float | None = PATIENCE_S,
    ) -> Self:
        """The client of the agent that lives in `home` (None: `default_home()`). Entering it, with `with`, checks
        that the agent answers."""
        there = AgentClient.connect(home, timeout_s=timeout_s, patience_s=patience_s)
        return cls(there.socket, timeout_s=timeout_s, patience_s=patience_s)

    @property
    def socket(self) -> Path:
        """Path of the agent's socket."""
        return self._client.socket

    def close(self) -> None:
        """End everything that is under way: calls, iterators, listeners. Repeating it is safe."""
        self._background.close()

    def __enter__(self) -> Self:
        try:
            self.about()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def listen(self, callback: Callable[[DeliveryDocument], object], job_id: str | None = None) -> Listener:
        """As AgentClient.listen, with a plain callback that is called in a thread, where it may use this client,
        and may block; returns at once. Why it ended by itself is logged, and raised by `Listener.wait`."""
        if inspect.iscoroutinefunction(callback):
            raise UsageError("an asynchronous callback needs AgentClient.listen")
        target, client = delivery_target(job_id), self._client

        async def beside(delivery: DeliveryDocument) -> object:
            return await asyncio.to_thread(callback, delivery)

        return Listener(self._background, Listening(client._wire, target, beside, patience_s=client.patience_s))

    create_job = _blocking(AgentClient.create_job)
    add_files = _blocking(AgentClient.add_files)
    change_job = _blocking(AgentClient.change_job)
    change_file = _blocking(AgentClient.change_file)
    replace_prefix = _blocking(AgentClient.replace_prefix)
    set_credentials = _blocking(AgentClient.set_credentials)
    remove_credentials = _blocking(AgentClient.remove_credentials)
    resume = _blocking(AgentClient.resume)
    suspend = _blocking(AgentClient.suspend)
    cancel = _blocking(AgentClient.cancel)
    complete = _blocking(AgentClient.complete)
    set_validation = _blocking(AgentClient.set_validation)
    want_ranges = _blocking(AgentClient.want_ranges)
    filled_ranges = _blocking(AgentClient.filled_ranges)
    set_position = _blocking(AgentClient.set_position)
    job = _blocking(AgentClient.job)
    explain = _blocking(AgentClient.explain)
    jobs = _blocking(AgentClient.jobs)
    job_page = _blocking(AgentClient.job_page)
    wait_change = _blocking(AgentClient.wait_change)
    wait = _blocking(AgentClient.wait)
    watch = _iterating(AgentClient.watch)
    temporary_path = _blocking(AgentClient.temporary_path)
    events = _iterating(AgentClient.events)
    peers = _blocking(AgentClient.peers)
    ban_peer = _blocking(AgentClient.ban_peer)
    unban_peer = _blocking(AgentClient.unban_peer)
    forget_peer = _blocking(AgentClient.forget_peer)
    forget_peers = _blocking(AgentClient.forget_peers)
    discover_peers = _blocking(AgentClient.discover_peers)
    cache = _blocking(AgentClient.cache)
    change_cache = _blocking(AgentClient.change_cache)
    cache_record = _blocking(AgentClient.cache_record)
    delete_record = _blocking(AgentClient.delete_record)
    delete_url = _blocking(AgentClient.delete_url)
    clear_cache = _blocking(AgentClient.clear_cache)
    statistics = _blocking(AgentClient.statistics)
    about = _blocking(AgentClient.about)
    openapi = _blocking(AgentClient.openapi)
