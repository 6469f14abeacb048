"""Who wants to be called when: one time for each key, and the earliest of all at hand. Pure bookkeeping.

A change costs the logarithm of the number of keys, so that ten thousand jobs may wait at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Agenda(Generic[K]):
    """Times of keys, in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._times: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: K, at: float | None) -> None:
        """`key` wants to be called at `at`; None: not at all."""
        if at is None:
            self._times.pop(key, None)
        elif self._times.get(key) != at:
            self._times[key] = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, key))
            if len(self._heap) > 64 + 4 * len(self._times):
                self._rebuild()

    def next(self) -> float | None:
        """The earliest time of all."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[K]:
        """The keys whose time has come, earliest first. They are taken off."""
        found: list[K] = []
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now:
            key = heapq.heappop(self._heap)[2]
            del self._times[key]
            found.append(key)
            self._drop_stale()
        return found

    def _drop_stale(self) -> None:
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _rebuild(self) -> None:
        numbered = enumerate(self._times.items(), self._count)
        self._heap = [(at, number, key) for number, (key, at) in numbered]
        self._count += len(self._heap)
        heapq.heapify(self._heap)
