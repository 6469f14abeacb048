"""The threads for blocking file work and hashing.

One pool with a fixed number of threads, shared by everybody who reads, writes, syncs or hashes files.
Never knows: what the work is. SQLite has a thread of its own (peer/database.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Workers:
    """A pool of `threads` threads. Whoever makes it closes it."""

    def __init__(self, threads: int = 4) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="nearfetch-worker")

    @property
    def executor(self) -> Executor:
        """For `loop.run_in_executor` and for handing work over from another thread."""
        return self._executor

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call `fn(*args)` in a worker thread; its result or exception comes back here.

        Cancelling the caller does not stop a call that has begun: it runs to its end and its result is dropped.
        So what it works on (descriptors, buffers) must stay open until it is done. After `close` it raises
        RuntimeError.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, fn, *args)

    async def finish(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """As `run`, but a cancelled caller leaves only when no thread works on the call any more.

        For work on descriptors that the caller closes afterwards; keep such calls short. A call that had not begun
        is dropped.
        """
        job = self._executor.submit(fn, *args)
        waiting = asyncio.wrap_future(job)
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError:
            while not (job.cancel() or waiting.done()):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([waiting])
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # seen: the caller who would want it is leaving
            raise
        return waiting.result()

    def close(self) -> None:
        """Wait for the calls that have begun; those still queued are cancelled. Blocks; harmless when repeated."""
        self._executor.shutdown(wait=True, cancel_futures=True)
