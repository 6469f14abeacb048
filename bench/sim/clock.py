"""Virtual time, in ticks: what happens within one tick happens at its end, in the order in which it was planned.

Whatever was planned costs the same however much else is planned: a list a tick, and a heap of ticks. Never knows:
wall-clock time, what happens.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_UP = 1.0 - 1e-6
"""To the next tick; a time that is a tick but for the last bits is that tick."""


class Clock:
    """What happens next. Starts at 0."""

    __slots__ = ("_happened", "_heap", "_open", "_planned", "_ticks_a_second", "now", "tick", "tick_s")

    def __init__(self, tick_s: float) -> None:
        self.tick_s = tick_s
        self.tick = 0
        """The present one."""
        self.now = 0.0
        """The same in seconds."""
        self._ticks_a_second = 1.0 / tick_s
        self._planned: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        self._heap: list[int] = []
        self._open = False
        """The present tick takes more."""
        self._happened = 0

    @property
    def happened(self) -> int:
        """How much has happened so far."""
        return self._happened

    def tick_of(self, when: float) -> int:
        """The first tick that is not before `when`, and not over."""
        tick = int(when * self._ticks_a_second + _UP)
        least = self.tick if self._open else self.tick + 1
        return max(least, tick)

    def at(self, when: float, what: Callable[[T], None], subject: T) -> int:
        """Do this to the subject then. Which tick that is."""
        tick = self.tick_of(when)
        self.at_tick(tick, what, subject)
        return tick

    def at_tick(self, tick: int, what: Callable[[T], None], subject: T) -> None:
        """The same; the tick comes from `tick_of`."""
        planned = self._planned.get(tick)
        if planned is None:
            self._planned[tick] = [(what, subject)]
            heapq.heappush(self._heap, tick)
        else:
            planned.append((what, subject))

    def turn(self) -> bool:
        """Go to the next tick for which something was planned, and do all of it. False when there is none."""
        if not self._heap:
            return False
        self.tick = heapq.heappop(self._heap)
        self.now = self.tick * self.tick_s
        planned, self._open = self._planned[self.tick], True
        for what, subject in planned:  # it may grow meanwhile
            what(subject)
        self._open = False
        self._happened += len(planned)
        del self._planned[self.tick]
        return True
