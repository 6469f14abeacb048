"""Holds back reading from origins: so many bytes per second for each background priority, and for a single job.

One bucket for each priority, shared by all its jobs; a job with a limit of its own has one more. Other code takes
as many bytes as it is about to read, or has read, and waits.
Never knows: hours, policies, sockets, who takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from agent.core.pacing import Allowance
from agent.core.queue import BACKGROUND, Rank

BURST_S = 0.25
"""What an idle bucket saves up: enough for the jitter of a busy event loop, too little to be seen as a burst."""
SLICE_S = 0.25
"""Longest sleep before the rate is looked at again."""


class Bucket:
    """A token bucket: at most `rate` bytes per second. None: no limit; 0: nothing until that changes.

    `clock` gives seconds of the event loop's monotonic clock. A new bucket is empty.
    """

    def __init__(self, rate: int | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = 0.0
        self._at = clock()
        self._wanted = 0
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> int | None:
        """Bytes per second."""
        return self._rate

    def set_rate(self, rate: int | None) -> None:
        """Who waits notices within 0.5 s, and keeps what was earned so far."""
        self._earn()
        self._rate = rate

    async def take(self, count: int) -> None:
        """Returns when `count` bytes are due. First come, first served. Who is cancelled has taken nothing.

        No limit to the waiting: the caller's own time-outs must not count it as the origin's silence.
        """
        if self._rate is None:
            return
        self._earn()
        self._wanted += count
        try:
            async with self._turn:
                while (delay_s := self._delay(count)) > 0:  # noqa: ASYNC110  # tokens come with time alone
                    await asyncio.sleep(min(SLICE_S, delay_s))
        finally:
            self._wanted -= count

    def _delay(self, count: int) -> float:
        """Seconds until `count` is there; 0.0: taken."""
        self._earn()
        if self._rate is None:
            return 0.0
        if self._tokens >= count:
            self._tokens -= count
            return 0.0
        return (count - self._tokens) / self._rate if self._rate else SLICE_S

    def _earn(self) -> None:
        """Tokens for the time since the last look. Only idle time is cut: who waited gets all of it, also when the
        event loop was late."""
        now = self._clock()
        rate = self._rate or 0
        self._tokens = min(max(rate * BURST_S, self._wanted), self._tokens + (now - self._at) * rate)
        self._at = now


class Limiter:
    """All that holds one job back."""

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self._buckets = tuple(buckets)

    async def take(self, count: int) -> None:
        """Returns when `count` bytes may be read. May wait for hours: until the limit changes."""
        for bucket in self._buckets:
            await bucket.take(count)


class Throttles:
    """The buckets of the background priorities, without limits until `apply` says otherwise."""

    def __init__(self, limited: Iterable[Rank] = BACKGROUND, clock: Callable[[], float] = time.monotonic) -> None:
        """`limited`: priorities that may have a limit at some hour (`Policy.limited`); jobs of the others are read
        without asking here."""
        self._buckets = {rank: Bucket(None, clock) for rank in BACKGROUND if rank in frozenset(limited)}
        self._clock = clock

    def for_job(self, rank: Rank, own_rate: int | None) -> Limiter | None:
        """What holds back a job of this priority with this limit of its own, bytes per second; None: nothing, and
        nothing will. The limit of the priority may come and go while the limiter lives."""
        own = [] if own_rate is None else [Bucket(own_rate, self._clock)]
        shared = [self._buckets[rank]] if rank in self._buckets else []
        # The job's own first: what it must wait for there is not taken from the others meanwhile.
        return Limiter(own + shared) if own or shared else None

    def apply(self, allowance: Allowance) -> None:
        """These limits hold from now on, also for who waits already."""
        for rank, bucket in self._buckets.items():
            bucket.set_rate(allowance.of(rank))
