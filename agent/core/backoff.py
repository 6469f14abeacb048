"""When to try again: exponential growth with jitter. The only place that computes a retry delay.

Jitter spreads the clients of a failed server (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
2015); the lower half is left out, so that no try follows at once. BITS waits its minimum retry delay (600 s)
from the first failure on; we begin small.
"""

from __future__ import annotations

import random


class Backoff:
    """Delays for one transfer. `reset` after progress; `next_delay` after each fruitless try."""

    def __init__(self, *, first_s: float, longest_s: float, rng: random.Random) -> None:
        self._first_s = first_s
        self._longest_s = max(first_s, longest_s)
        self._rng = rng
        self._fruitless = 0

    def reset(self) -> None:
        """Progress was made: the next delay is small again."""
        self._fruitless = 0

    def next_delay(self, at_least_s: float | None = None) -> float:
        """Seconds until the next try; never less than what the source asked for (Retry-After)."""
        ceiling = min(self._longest_s, self._first_s * 2.0 ** min(self._fruitless, 30))
        self._fruitless += 1
        delay = self._rng.uniform(ceiling / 2, ceiling)
        return max(delay, at_least_s or 0.0)
