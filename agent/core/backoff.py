"""When to try again: exponential growth with full jitter, up to the job's minimum retry delay. The only place that
computes a retry delay.

Jitter spreads the clients of a failed server (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
2015). BITS waits its minimum retry delay (600 s) from the first failure on (bits-reference 1.5); we begin small,
and keep that promise once the delays have grown so far.
"""

from __future__ import annotations

import random

SPREAD = 0.1
"""Delays at the minimum are longer by up to this share, so that clients do not come back together."""


class Backoff:
    """Delays for one transfer. `reset` after progress; `next_delay` after each fruitless try."""

    def __init__(self, *, first_s: float, longest_s: float, rng: random.Random) -> None:
        """`first_s`: ceiling of the first delay. `longest_s`: the job's minimum retry delay."""
        self.longest_s = longest_s
        self._first_s = first_s
        self._rng = rng
        self._fruitless = 0

    def reset(self) -> None:
        """Progress was made: the next delay is small again."""
        self._fruitless = 0

    def next_delay(self, at_least_s: float | None = None) -> float:
        """Seconds until the next try; never less than what the source asked for (Retry-After).

        Between half of the first ceiling, so that no try follows at once, and a ceiling that doubles; once that
        reaches the job's minimum retry delay, that delay and a little more.
        """
        ceiling = self._first_s * 2.0 ** min(self._fruitless, 30)
        self._fruitless += 1
        if ceiling < self.longest_s:
            delay = self._rng.uniform(self._first_s / 2, ceiling)
        else:
            delay = max(self._first_s, self.longest_s) * self._rng.uniform(1.0, 1.0 + SPREAD)
        return max(delay, at_least_s or 0.0)
