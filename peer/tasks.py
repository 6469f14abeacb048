"""Tasks that belong to one owner: they end with it, and one that fails takes nobody with it.

Never knows: what the tasks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Tasks:
    """Between `start` and `stop`, once each. `complaint` is what the loop's handler is told of one that failed."""

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._open = False

    async def start(self) -> None:
        """From now on `spawn` works."""
        await self._group.__aenter__()
        self._open = True

    async def stop(self) -> None:
        """Cancel what runs and wait for its end; what is spawned later is never begun."""
        if not self._open:
            return
        self._open = False
        for task in list(self._running):
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run it beside everything else."""
        if not self._open:
            work.close()
            return
        task = self._group.create_task(self._guarded(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before its first step

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  a task's top: nobody above could do more than tell it
            context = {"message": self._complaint, "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
