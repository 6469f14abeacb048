"""One job's records and files: one piece of work after another, in the order the core asked for.

A save that waits already will record what is newer too, so it is not asked for twice. Lanes that are empty cost
nothing: ten thousand jobs may rest. Never knows: what the work is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from agent.core.queue import JobId

LOOK_S = 0.01
"""How often somebody who waits for more looks whether it has come."""

Spawn = Callable[[Coroutine[Any, Any, None], str], None]
Guarded = Callable[[Coroutine[Any, Any, None], str], Coroutine[Any, Any, None]]
Saver = Callable[[JobId], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Lane:
    waiting: deque[Coroutine[Any, Any, None] | Saver] = field(default_factory=deque)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Lanes:
    """The lanes of all jobs."""

    def __init__(self, spawn: Spawn, guarded: Guarded) -> None:
        """`guarded`: runs a piece of work, and lets no failure of it out."""
        self._spawn = spawn
        self._guarded = guarded
        self._lanes: dict[JobId, _Lane] = {}

    def add(self, job: JobId, work: Coroutine[Any, Any, None]) -> None:
        """Do this after everything that was asked for before."""
        self._enter(job, work)

    def save(self, job: JobId, saver: Saver) -> None:
        """As `add`, unless a save is the last thing that waits."""
        lane = self._lanes.get(job)
        if lane is None or not lane.waiting or lane.waiting[-1] != saver:
            self._enter(job, saver)

    async def idle(self, job: JobId, again: Callable[[], bool]) -> None:
        """Returns when nothing waits or is being done for the job. `again`: more is known to come."""
        while True:
            while (lane := self._lanes.get(job)) is not None:
                await lane.idle.wait()
            if not again():
                return
            await asyncio.sleep(LOOK_S)  # what comes may be at work in a thread: nobody here would hear of it

    def forget(self, job: JobId) -> None:
        """The job is gone: what still waits is not done."""
        lane = self._lanes.get(job)
        while lane is not None and lane.waiting:
            left = lane.waiting.popleft()
            if isinstance(left, Coroutine):
                left.close()

    def _enter(self, job: JobId, work: Coroutine[Any, Any, None] | Saver) -> None:
        lane = self._lanes.get(job)
        if lane is not None:
            lane.waiting.append(work)
            return
        lane = self._lanes[job] = _Lane()
        lane.waiting.append(work)
        self._spawn(self._drive(job, lane), f"job {job}")

    async def _drive(self, job: JobId, lane: _Lane) -> None:
        try:
            while lane.waiting:
                work = lane.waiting.popleft()
                await self._guarded(work if isinstance(work, Coroutine) else work(job), f"job {job}")
        finally:
            del self._lanes[job]
            lane.idle.set()
            self._close_rest(lane)

    @staticmethod
    def _close_rest(lane: _Lane) -> None:
        while lane.waiting:
            left = lane.waiting.popleft()
            if isinstance(left, Coroutine):
                left.close()
