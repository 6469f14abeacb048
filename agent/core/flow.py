"""How fast bytes come: a mean over about the last seconds, in which what is older counts less. Pure arithmetic."""

from __future__ import annotations

import math


class Flow:
    """Bytes per second of one direction."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._sum = 0.0
        self._at = 0.0
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """From now on something may come."""
        if self._since is None:
            self._since = self._at = now

    def add(self, count: int, now: float) -> None:
        """So many bytes came."""
        self.begin(now)
        self._sum = self._faded(now) + count
        self._at = now

    def rate(self, now: float) -> float | None:
        """Bytes per second; None while it was not watched for long enough to tell."""
        if self._since is None or now - self._since < self._over_s:
            return None
        return self._faded(now) / self._over_s

    def _faded(self, now: float) -> float:
        return self._sum * math.exp((self._at - now) / self._over_s)
